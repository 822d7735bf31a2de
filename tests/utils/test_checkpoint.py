"""Checkpoints: whole or not at all, read without running anything, and fitted to a network or refused."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from moco.builder import MoCo
from models import build_model
from tests.support.disk import room_for
from utils import files
from utils.checkpoint import (
    CheckpointError,
    load_checkpoint,
    load_pretrained,
    load_weights,
    main,
    save_checkpoint,
    slim,
)
from utils.errors import WriteError

SIZE = 20
TRUNK = 37  # tensors of stnet and transformer without their decoders, which have 16


def network(name: str = "stnet", seed: int = 0, **options) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(name, sequencelength=SIZE, **options)


def moco(name: str = "transformer", seed: int = 1) -> MoCo:
    torch.manual_seed(seed)
    return MoCo(build_model(name, sequencelength=SIZE, use_doy=True), dim=8, K=16, mlp=True)


def write(path: Path, state: dict, **more) -> Path:
    torch.save({"model_state": state, "epoch": 3, "val_loss_min": 0.5, "not_improved_count": 0, **more}, path)
    return path


def same(state: dict, other: dict) -> bool:
    return state.keys() == other.keys() and all(torch.equal(state[name], other[name]) for name in state)


def copied(module: nn.Module) -> dict:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


# ---- writing


def test_what_is_saved_is_what_is_loaded(tmp_path):
    content = {"model_state": network().state_dict(), "epoch": 4, "classmap": {"names": ["a", "b"]}, "lr": 1e-3}
    save_checkpoint(tmp_path / "model_best.pth", content)
    loaded = load_checkpoint(tmp_path / "model_best.pth")
    assert same(loaded.pop("model_state"), content.pop("model_state")) and loaded == content
    assert [file.name for file in tmp_path.iterdir()] == ["model_best.pth"]


def test_a_save_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "model_last.pth"
    save_checkpoint(path, {"model_state": {}, "epoch": 1})
    before = path.read_bytes()
    told = r"model_last.pth: cannot be written \(File too large\); it needs 2\d,\d{3} bytes, [\d,]+ are free; make room"
    with room_for(5000), pytest.raises(WriteError, match=told):
        save_checkpoint(path, {"model_state": {"w": torch.zeros(5000)}, "epoch": 2})
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == [path.name]


def epochs(folder: Path) -> dict[str, int]:
    return {file.name: load_checkpoint(file)["epoch"] for file in folder.iterdir()}


@pytest.mark.parametrize("has_links", [True, False])
def test_the_checkpoint_to_resume_from_stays_until_the_next_but_one(tmp_path, monkeypatch, has_links):
    def refused(*given):
        raise OSError(errno.EPERM, "Operation not permitted")

    if not has_links:  # as on exFAT
        monkeypatch.setattr(os, "link", refused)
    for epoch, kept in enumerate(({}, {"model_last.prev.pth": 0}, {"model_last.prev.pth": 1})):
        save_checkpoint(tmp_path / "model_last.pth", {"model_state": {}, "epoch": epoch})
        assert epochs(tmp_path) == {"model_last.pth": epoch} | kept
    with room_for(5000), pytest.raises(WriteError):
        save_checkpoint(tmp_path / "model_last.pth", {"model_state": {"w": torch.zeros(5000)}, "epoch": 3})
    assert epochs(tmp_path) == {"model_last.pth": 2, "model_last.prev.pth": 1}


def test_other_checkpoints_are_replaced(tmp_path):
    for epoch in range(2):
        save_checkpoint(tmp_path / "model_best.pth", {"model_state": {}, "epoch": epoch})
    assert epochs(tmp_path) == {"model_best.pth": 1}


def test_the_one_before_gives_way_when_the_new_one_is_on_the_disk(tmp_path, monkeypatch):
    """A kill between the two renames leaves the last one under its name and as the one before."""
    path, previous = tmp_path / "model_last.pth", tmp_path / "model_last.prev.pth"
    for epoch in range(3):
        save_checkpoint(path, {"model_state": {}, "epoch": epoch})
    synced, sync, replace = [], files.sync, os.replace

    def killed(source, target):
        assert target == previous and ".partial-" in synced[-1].name
        replace(source, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "sync", lambda path: synced.append(path) or sync(path))
    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, {"model_state": {}, "epoch": 3})
    assert epochs(tmp_path) == {"model_last.pth": 2, "model_last.prev.pth": 2}


# ---- reading


class Shout:
    """Unpickled by anything but a careful reader, it leaves a file behind."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("criterion", [nn.CrossEntropyLoss(), nn.CrossEntropyLoss(torch.ones(21))])
def test_published_classifier_files_hold_their_loss(tmp_path, criterion):
    state = network().state_dict()
    torch.save({"model_state": state, "criterion": criterion, "epoch": 5}, tmp_path / "model.pth")
    loaded = load_checkpoint(tmp_path / "model.pth")
    assert type(loaded["criterion"]) is nn.CrossEntropyLoss and same(loaded["model_state"], state)
    assert len(load_pretrained(network(seed=1), tmp_path / "model.pth").names) == TRUNK
    assert set in torch.serialization.get_safe_globals()  # newer versions of torch admit it by themselves


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("torch.nn.modules.linear.Linear", lambda _: nn.Linear(2, 2)),
        ("torch.nn.modules.loss.MSELoss", lambda _: nn.MSELoss()),
        (r"pathlib\S*", lambda _: Path("x")),
        (r"(posix|nt).system", Shout),
    ],
)
def test_no_other_object_is_read(tmp_path, name, make):
    evidence = tmp_path / "it-ran"
    content = {"model_state": network().state_dict(), "criterion": make(evidence)}
    torch.save(content, tmp_path / "model.pth")
    expected = f"model.pth: not a checkpoint of tensors and numbers: it holds {name}, which is never loaded$"
    with pytest.raises(CheckpointError, match=expected):
        load_checkpoint(tmp_path / "model.pth")
    assert not evidence.exists()


def test_a_plain_pickle_runs_nothing(tmp_path, recwarn):
    evidence, path = tmp_path / "it-ran", tmp_path / "model.pth"
    path.write_bytes(pickle.dumps({"model_state": Shout(evidence)}))
    with pytest.raises(CheckpointError, match="not a checkpoint of tensors and numbers"):
        load_checkpoint(path)
    assert not evidence.exists() and not recwarn.list


@pytest.mark.parametrize("content", [b"", b"not a checkpoint\n", b"PK\x03\x04", bytes(range(256)) * 8])
def test_other_files_are_refused_in_one_line(tmp_path, content):
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="numbers: damaged, cut off or of another kind: "):
        load_checkpoint(path)


@pytest.mark.parametrize("fraction", [0.2, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path, fraction):
    whole = write(tmp_path / "whole.pth", network().state_dict()).read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: int(fraction * len(whole))])
    with pytest.raises(CheckpointError, match="cut.pth: not a checkpoint"):
        load_checkpoint(tmp_path / "cut.pth")


@pytest.mark.parametrize(
    ("name", "files", "told"),
    [
        ("nowhere.pth", (), "{folder} holds no .pth file"),
        ("nowhere.pth", ("b.pth", "a.pth", "args.json"), "{folder} holds a.pth, b.pth"),
        (".", ("a.pth",), "{folder} holds a.pth"),
        ("x.pth", [f"{i}.pth" for i in range(6)], "{folder} holds 0.pth, 1.pth, 2.pth, 3.pth, 4.pth …"),
        ("T_run/model_best.pth", (), "there is no folder {folder}/T_run"),
    ],
)
def test_a_missing_file_is_said_to_be(tmp_path, name, files, told):
    for file in files:
        (tmp_path / file).touch()
    start = f"{tmp_path / name}: no such checkpoint ({told.format(folder=tmp_path)}); "
    for given, advice in (((), "give the model_best.pth of a run folder"), (("train first",), "train first")):
        with pytest.raises(CheckpointError) as error:
            load_checkpoint(tmp_path / name, *given)
        assert str(error.value) == start + advice


@pytest.mark.parametrize(
    "content",
    [[1, 2], {"state_dict": {}}, {"model_state": [1]}, {"model_state": {"a": 3}}, {"model_state": {1: torch.ones(1)}}],
)
def test_a_checkpoint_needs_a_model_state(tmp_path, content):
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match="no 'model_state' in it; expected a checkpoint of main_moco.py"):
        load_checkpoint(tmp_path / "model.pth")


# ---- starting a trunk from a checkpoint


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("pretrained", ["transformer", "stnet"])
@pytest.mark.parametrize("target", ["transformer", "stnet"])
def test_the_trunk_is_the_query_encoders(tmp_path, prefix, pretrained, target):
    source, classifier = moco(pretrained), network(target)
    fresh, queries = copied(classifier), source.encoder_q.state_dict()
    state = {prefix + name: tensor for name, tensor in source.state_dict().items()}
    state[prefix + "encoder_q.position_enc.pe"] = torch.zeros(427, 128)
    taken = load_pretrained(classifier, write(tmp_path / "model.pth", state))
    assert len(taken.names) == TRUNK and not taken.missing
    for name, tensor in classifier.state_dict().items():
        expected = fresh[name] if name.startswith("decoder.") else queries[name]
        assert torch.equal(tensor, expected), name
    assert classifier.position_enc.pe[1].any()


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_trunk_of_a_classifier_is_taken_likewise(tmp_path, prefix):
    source, classifier = network(seed=1), network(seed=2, num_classes=5)
    fresh, own = copied(classifier), source.state_dict()
    state = {prefix + name: tensor for name, tensor in own.items()}
    state[prefix + "position_enc.pe"] = torch.zeros(427, 128)
    taken = load_pretrained(classifier, write(tmp_path / "model.pth", state))
    assert len(taken.names) == TRUNK
    for name, tensor in classifier.state_dict().items():
        assert torch.equal(tensor, fresh[name] if name.startswith("decoder.") else own[name]), name


CLASSES = ("corn", "rice", "hay")


@pytest.mark.parametrize("prefix", ["", "module.encoder_q."])
@pytest.mark.parametrize(
    ("told", "asked", "is_taken"),
    [
        (CLASSES, CLASSES, True),
        (CLASSES, CLASSES[::-1], False),
        (CLASSES, (*CLASSES[:2], "oats"), False),
        (CLASSES, None, False),
        (None, CLASSES, False),
    ],
)
def test_the_decoder_is_taken_for_the_same_classes_in_the_same_order(tmp_path, prefix, told, asked, is_taken):
    source, classifier = (network(seed=seed, num_classes=3) for seed in (1, 2))
    fresh, own = copied(classifier), source.state_dict()
    more = {"classmap": {"names": list(told)}} if told else {}
    path = write(tmp_path / "model.pth", {prefix + name: tensor for name, tensor in own.items()}, **more)
    taken = load_pretrained(classifier, path, classes=asked)
    assert taken.has_decoder == is_taken and len(taken.names) == TRUNK + 16 * is_taken
    for name, tensor in classifier.state_dict().items():
        expected = fresh if name.startswith("decoder.") and not is_taken else own
        assert torch.equal(tensor, expected[name]), name


def test_a_decoder_of_another_shape_is_refused(tmp_path):
    path = write(tmp_path / "model.pth", network(num_classes=4).state_dict(), classmap={"names": list(CLASSES)})
    with pytest.raises(CheckpointError, match=r"decoder.6.weight is \(4, 32\), STNet expects \(3, 32\)"):
        load_pretrained(network(num_classes=3), path, classes=CLASSES)


def test_what_the_file_lacks_is_named_and_left_as_initialised(tmp_path):
    source, classifier = moco(), network()
    state = {name: t for name, t in source.state_dict().items() if "inlayernorm" not in name}
    fresh = copied(classifier)
    taken = load_pretrained(classifier, write(tmp_path / "model.pth", state))
    assert sorted(taken.missing) == ["inlayernorm.bias", "inlayernorm.weight"]
    assert len(taken.names) == TRUNK - 2
    assert torch.equal(classifier.inlayernorm.weight, fresh["inlayernorm.weight"])


def test_another_shape_is_refused_and_nothing_taken(tmp_path):
    state = moco().state_dict()
    state["encoder_q.mlp1.2.lin.weight"] = torch.zeros(64, 64)
    classifier = network()
    fresh = copied(classifier)
    path = write(tmp_path / "model.pth", state)
    with pytest.raises(
        CheckpointError, match=r"mlp1.2.lin.weight is \(64, 64\), STNet expects \(128, 64\); it was trained with other"
    ):
        load_pretrained(classifier, path)
    assert same(classifier.state_dict(), fresh)


def test_what_the_file_says_of_its_training_is_returned(tmp_path):
    source = network(seed=1)
    told = {"model": source.arguments, "length_method": "rc", "normalisation": {"scale": 1.0}}
    taken = load_pretrained(network(), write(tmp_path / "told.pth", source.state_dict(), **told))
    assert (taken.model, taken.length_method, taken.normalisation) == tuple(told.values())
    silent = load_pretrained(network(), write(tmp_path / "silent.pth", source.state_dict()))
    assert (silent.model, silent.length_method, silent.normalisation) == ({}, None, None)


@pytest.mark.parametrize("state", [{}, {"queue": torch.zeros(3)}, {"encoder_q.decoder.0.weight": torch.zeros(64, 128)}])
def test_a_file_that_matches_nothing_is_refused(tmp_path, state):
    with pytest.raises(CheckpointError, match="none of its tensors .* belongs to STNet; give a checkpoint of the same"):
        load_pretrained(network(), write(tmp_path / "model.pth", state))


def test_another_network_is_refused(tmp_path):
    path = write(tmp_path / "model.pth", network("tempcnn", hidden_dims=8).state_dict())
    with pytest.raises(CheckpointError, match=r"\(conv_bn_relu1.block.0.weight, .* …\) belongs to STNet"):
        load_pretrained(network(), path)


# ---- loading a whole state


def test_a_whole_state_is_loaded_but_for_the_day_table():
    source, target = network(seed=1), network(seed=2)
    state = {f"module.{name}": tensor for name, tensor in source.state_dict().items()}
    load_weights(target, state | {"module.position_enc.pe": torch.zeros(3, 3)}, "x.pth")
    assert same(target.state_dict(), source.state_dict())


def test_a_state_that_does_not_fit_is_named_and_not_loaded():
    target = network()
    fresh, state = copied(target), network(seed=1).state_dict()
    state["other"] = state.pop("inlayernorm.bias")
    state["decoder.6.weight"] = torch.zeros(5, 32)
    with pytest.raises(CheckpointError) as error:
        load_weights(target, state, "x.pth")
    assert str(error.value) == (
        "x.pth: does not fit STNet: decoder.6.weight is (5, 32), not (21, 32); inlayernorm.bias is missing;"
        " other is unknown; use the settings it was trained with"
    )
    assert same(target.state_dict(), fresh)
    with pytest.raises(CheckpointError, match="and 51 more; use the settings"):
        load_weights(target, {"other": torch.zeros(1)}, "x.pth")


# ---- slim


def test_slim_keeps_what_fine_tuning_needs(tmp_path, capsys, monkeypatch):
    source = moco()
    model = source.encoder_q.arguments
    path = write(tmp_path / "model_best.pth", source.state_dict(), model=model, training={"optimizer": {}})
    slimmed_path = tmp_path / "new" / "folder" / "slim.pth"
    monkeypatch.setattr("sys.argv", ["checkpoint", str(path), str(slimmed_path)])
    main()
    assert "MB" in capsys.readouterr().out
    loaded = load_checkpoint(slimmed_path)
    assert all(name.startswith("encoder_q.") for name in loaded["model_state"])
    assert loaded["model"] == model and loaded["epoch"] == 3 and "training" not in loaded
    assert slimmed_path.stat().st_size < 0.6 * path.stat().st_size
    whole, slimmed = network(seed=1), network(seed=1)
    assert load_pretrained(whole, path) == load_pretrained(slimmed, slimmed_path)
    assert same(whole.state_dict(), slimmed.state_dict())


def test_slim_does_not_overwrite_the_whole_checkpoint(tmp_path, capsys, monkeypatch):
    path = write(tmp_path / "model_best.pth", moco().state_dict())
    before = path.read_bytes()
    (tmp_path / "link.pth").symlink_to(path)
    for target in (path, tmp_path / "folder" / ".." / path.name, tmp_path / "link.pth"):
        with pytest.raises(CheckpointError, match="model_best.pth: is both source and target; give another target"):
            slim(path, target)
    assert path.read_bytes() == before


def test_slim_is_for_pretraining(tmp_path):
    with pytest.raises(CheckpointError, match="no encoder_q in it; expected a checkpoint of main_moco.py"):
        slim(write(tmp_path / "model.pth", network().state_dict()), tmp_path / "slim.pth")
    assert not (tmp_path / "slim.pth").exists()


def test_slim_ends_cleanly_for_a_wrong_path(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["checkpoint", str(tmp_path / "none.pth"), str(tmp_path / "slim.pth")])
    with pytest.raises(SystemExit) as ended:
        main()
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1
