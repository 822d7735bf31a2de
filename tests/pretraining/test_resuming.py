"""Pre-training that is interrupted and resumed gives what an uninterrupted run gives."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import main_moco
from datasets.catalog import open_unlabelled
from datasets.storefiles import write_checksums
from moco.builder import MoCo
from pretraining.step import TrainingStep
from tests.support.runs import SMALL, checkpoint, column, newest, pretrain, refused, rows, same, weights
from utils.results import keeper, losses
from utils.results.keeper import Keeper

STEPS = 3  # of 60 series 54 are trained on, 16 in a step
LONG = ("-e", 3, "--cos", "--warmup-epochs", 0.5, "--bn-splits", 2)


@pytest.fixture(scope="module")
def plain(data_root, tmp_path_factory):
    """A run of two epochs with nothing special."""
    return pretrain(data_root, tmp_path_factory.mktemp("results"), "-e", 2, "--rc", "--use-doy", "--mlp")


class Killed(BaseException):
    """Ends a run as a kill does: nothing of ours handles it."""


def killed_at(save: int, monkeypatch, *args) -> None:
    """Run until model_last.pth has been saved that many times."""
    saved, count = keeper.save_checkpoint, 0

    def save_and_die(path, content):
        nonlocal count
        saved(path, content)
        count += path.name == "model_last.pth"
        if count == save:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(keeper, "save_checkpoint", save_and_die)
        with pytest.raises(Killed):
            pretrain(*args)


@pytest.fixture(scope="module")
def uninterrupted(data_root, tmp_path_factory):
    return pretrain(data_root, tmp_path_factory.mktemp("whole"), *LONG)


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_run_killed_after_an_epoch_resumes_exactly(data_root, tmp_path, monkeypatch, uninterrupted, epochs):
    killed_at(epochs, monkeypatch, data_root, tmp_path, *LONG)
    assert len(rows(newest(tmp_path))) == epochs
    resumed = pretrain(data_root, tmp_path, *LONG, "--resume", newest(tmp_path) / "model_last.pth")
    assert rows(resumed) == rows(uninterrupted)
    assert same(weights(resumed), weights(uninterrupted))
    assert same(weights(resumed, "model_best.pth"), weights(uninterrupted, "model_best.pth"))


@pytest.mark.parametrize("save", [1, 2, 3, 4, 5, 6, 8, 11])
def test_a_run_killed_inside_an_epoch_resumes_exactly(data_root, tmp_path, monkeypatch, uninterrupted, save):
    """Saved after every step, and killed right after one of the saves.

    Every fourth is that of a whole epoch, and the one before it of an epoch that is not evaluated yet.
    """
    killed_at(save, monkeypatch, data_root, tmp_path, *LONG, "--save-minutes", 1e-9)
    resumed = pretrain(data_root, tmp_path, *LONG, "--resume", newest(tmp_path) / "model_last.pth")
    assert rows(resumed) == rows(uninterrupted)
    assert same(weights(resumed), weights(uninterrupted))
    last, expected = (checkpoint(folder, "model_last.pth") for folder in (resumed, uninterrupted))
    assert [last[key] for key in ("epoch", "val_loss_min", "not_improved_count")] == [
        expected[key] for key in ("epoch", "val_loss_min", "not_improved_count")
    ]


@pytest.mark.parametrize(("minutes", "expected"), [(1 / 15, [4, 8, 12, 13]), (0, [13])])
def test_a_run_is_saved_inside_an_epoch_as_often_as_told(data_root, tmp_path, monkeypatch, minutes, expected):
    """The clock advances by a second each time it is asked: once a step, and once more after a save."""
    clock, saved, save = count(), [], Keeper.save
    monkeypatch.setattr(keeper, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(
        Keeper, "save", lambda self, *given, **more: saved.append(self.run.step) or save(self, *given, **more)
    )
    pretrain(data_root, tmp_path, "-b", 4, "-e", 1, "--save-minutes", minutes)  # 13 steps
    assert saved == expected


@pytest.mark.parametrize(("number", "step"), [(signal.SIGINT, 2), (signal.SIGTERM, 3), (signal.SIGTERM, 5)])
def test_a_signal_ends_the_run_between_two_steps(data_root, tmp_path, monkeypatch, capsys, uninterrupted, number, step):
    enqueue, steps = MoCo.enqueue, []

    def asked_to_stop(moco, keys):
        enqueue(moco, keys)
        steps.append(1)
        if len(steps) == step:
            signal.raise_signal(number)

    with monkeypatch.context() as patch:
        patch.setattr(MoCo, "enqueue", asked_to_stop)
        with pytest.raises(SystemExit) as ended:
            pretrain(data_root, tmp_path, *LONG)
    where = f"epoch {(step - 1) // STEPS} after step {(step - 1) % STEPS + 1}"
    line = capsys.readouterr().err
    assert ended.value.code == 128 + number and len(steps) == step  # granted at once
    start, end = f"stopped in {where}; continue with: python main_moco.py transformer", " --resume auto\n"
    assert line.startswith(start) and line.endswith(end) and line.count("\n") == 1
    main_moco.main(shlex.split(line.split("main_moco.py ")[1]))
    resumed = newest(tmp_path)
    assert rows(resumed) == rows(uninterrupted) and same(weights(resumed), weights(uninterrupted))


@pytest.mark.parametrize("evaluation", [1, 3])
def test_a_signal_while_an_epoch_is_evaluated_ends_the_run_unless_it_was_the_last(
    data_root, tmp_path, monkeypatch, capsys, uninterrupted, evaluation
):
    evaluate, count = main_moco.evaluate, []

    def asked_to_stop(*given):
        count.append(1)
        if len(count) == evaluation:
            signal.raise_signal(signal.SIGTERM)
        return evaluate(*given)

    with monkeypatch.context() as patch:
        patch.setattr(main_moco, "evaluate", asked_to_stop)
        if evaluation < 3:
            with pytest.raises(SystemExit, match="143"):
                pretrain(data_root, tmp_path, *LONG)
            assert capsys.readouterr().err.startswith("stopped after epoch 0; continue with: ")
            assert checkpoint(newest(tmp_path), "model_last.pth")["epoch"] == 0
        else:
            pretrain(data_root, tmp_path, *LONG)
    finished = pretrain(data_root, tmp_path, *LONG, "--resume", "auto")
    assert rows(finished) == rows(uninterrupted) and same(weights(finished), weights(uninterrupted))


def test_sigusr1_saves_and_the_run_goes_on(data_root, tmp_path, monkeypatch, capsys, uninterrupted):
    saved, enqueue, steps = [], MoCo.enqueue, []
    save = keeper.save_checkpoint
    monkeypatch.setattr(keeper, "save_checkpoint", lambda path, *given: saved.append(path.name) or save(path, *given))

    def asked_to_save(moco, keys):
        enqueue(moco, keys)
        steps.append(1)
        if len(steps) == 2:
            signal.raise_signal(signal.SIGUSR1)

    monkeypatch.setattr(MoCo, "enqueue", asked_to_save)
    finished = pretrain(data_root, tmp_path, *LONG)
    assert [name for name in saved if name == "model_last.pth"] == ["model_last.pth"] * 4 and saved[0] == saved[2]
    assert f"saved {finished / 'model_last.pth'} in epoch 0 after step 2\n" in capsys.readouterr().out
    assert rows(finished) == rows(uninterrupted) and same(weights(finished), weights(uninterrupted))


def test_a_published_checkpoint_resumes_with_a_fresh_optimizer(data_root, plain, tmp_path):
    saved = checkpoint(plain)
    published = {key: saved[key] for key in ("model_state", "epoch", "val_loss_min", "not_improved_count")}
    torch.save({**published, "epoch": 0}, tmp_path / "published.pth")
    flags = ("-e", 2, "--rc", "--use-doy", "--mlp", "--schedule", 1, "--resume", tmp_path / "published.pth")
    folder = pretrain(data_root, tmp_path / "results", *flags)
    assert [row["epoch"] for row in rows(folder)] == ["1"]
    assert column(folder, "lr") == pytest.approx([1e-4])  # the schedule is by epoch, wherever the run begins


def test_start_epoch_numbers_the_first(data_root, tmp_path):
    folder = pretrain(data_root, tmp_path, "-e", 4, "--start-epoch", 2, "--schedule", 1, 3)
    assert [row["epoch"] for row in rows(folder)] == ["2", "3"]
    assert column(folder, "lr") == pytest.approx([1e-4, 1e-5])


def printed_loss(capsys) -> float:
    return float(re.search(r"held-out loss ([0-9.]+),", capsys.readouterr().out)[1])


def test_evaluate_only_prints(data_root, plain, tmp_path, capsys):
    shutil.copytree(plain, tmp_path / plain.name)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    flags = ("--rc", "--use-doy", "--mlp", "--evaluate")
    pretrain(data_root, tmp_path, *flags)
    assert printed_loss(capsys) == pytest.approx(min(column(plain, "valid_loss")), abs=1e-4)
    pretrain(data_root, tmp_path, *flags, "--resume", plain / "model_last.pth")
    assert printed_loss(capsys) == pytest.approx(column(plain, "valid_loss")[-1], abs=1e-4)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


# ---- a loss that is no number


@pytest.mark.parametrize("is_late", [False, True])
def test_the_series_of_a_batch_whose_loss_is_no_number_are_told(
    data_root, tmp_path, monkeypatch, capsys, uninterrupted, is_late
):
    """And the state before is resumed. Of 60 series 54 are trained on, in batches of 16."""
    steps, loss = [], TrainingStep.__call__

    def spoilt(step, series, generator):
        figures = loss(step, series, generator)
        steps.append(series)
        return figures | {"loss": figures["loss"] * (float("nan") if len(steps) == 5 else 1)}

    with monkeypatch.context() as patch:
        if is_late:  # as on a GPU, from which losses arrive when they are waited for
            patch.setattr(losses, "copy_to_host", lambda value: (lambda: False, lambda: None, value))
        patch.setattr(TrainingStep, "__call__", spoilt)
        given = ["transformer", "--useall", "--moco-k", 64, *SMALL, "--datapath", data_root, "-l", tmp_path, *LONG]
        line = refused(main_moco, given, capsys)
    folder = newest(tmp_path)
    assert line == (
        f"the loss became nan in epoch 1, step 2 of 3; its series are in {folder / 'bad_batch.json'}; the last good"
        f" state is {folder / 'model_last.pth'}; lower -lr, or give --clip-grad"
    )
    told = json.loads((folder / "bad_batch.json").read_text())
    store = open_unlabelled(data_root, 2019).store
    assert (told["epoch"], told["step"], told["loss"]) == (1, 2, "nan")
    assert {one["source"] for one in told["series"]} == {str(store.path)}
    for one, doy, length in zip(told["series"], steps[4].doy, steps[4].length, strict=True):
        assert store.series(one["row"])[1].tolist() == doy[:length].tolist()
    assert checkpoint(folder, "model_last.pth")["epoch"] == 0
    resumed = pretrain(data_root, tmp_path, *LONG, "--resume", "auto")
    assert rows(resumed) == rows(uninterrupted) and same(weights(resumed), weights(uninterrupted))


def test_gradients_are_clipped_as_asked(data_root, tmp_path, monkeypatch, plain):
    norms, clip = [], torch.nn.utils.clip_grad_norm_
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *given: norms.append((clip(*given), given[1])))
    folder = pretrain(data_root, tmp_path, "--rc", "--use-doy", "--mlp", "--clip-grad", 0.5, "-e", 1)
    assert [limit for _, limit in norms] == [0.5] * STEPS and max(norm for norm, _ in norms) > 0.5
    assert checkpoint(folder)["identity"]["clip_grad"] == 0.5 and checkpoint(plain)["identity"]["clip_grad"] is None


# ---- what must be the same


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--bn-splits", 4), "--bn-splits 4 here, 1 in the checkpoint"),
        (("--aug-plus",), "with --aug-plus here, without --aug-plus in the checkpoint"),
        (("-b", 17), "-b 17 here, 16 in the checkpoint"),  # as many steps an epoch
        (("-lr", 0.1), "-lr 0.1 here, 0.001 in the checkpoint"),
        (("--schedule", 1), "--schedule [1] here, [] in the checkpoint"),
        (("--moco-m", 0.5), "--moco-m 0.5 here, 0.999 in the checkpoint"),
        (("--moco-dim", 16), "--moco-dim 16 here, 128 in the checkpoint"),
        (("--optimizer", "sgd"), "--optimizer sgd here, adam in the checkpoint"),
        (("--sequencelength", 12), "--sequencelength 12 here, 20 in the checkpoint"),
        (("--clip-grad", 1), "--clip-grad 1.0 here, not given in the checkpoint"),
    ],
)
def test_other_options_are_refused_by_name(data_root, plain, tmp_path, capsys, flags, told):
    usual = ("-e", 3, "--rc", "--use-doy", "--mlp", "--resume", plain / "model_last.pth")
    with pytest.raises(SystemExit, match="2"):
        pretrain(data_root, tmp_path, *usual, *flags)
    assert capsys.readouterr().err == (
        f"error: {plain / 'model_last.pth'}: {told}; give the flags and the data it had\n"
    )
    assert not list(tmp_path.iterdir())


def test_other_data_of_as_many_series_are_refused(data_root, plain, tmp_path, capsys):
    """With the same positions held out, but other series at them, it would train on what it evaluates."""
    root = tmp_path / "other"
    shutil.copytree(data_root, root)
    doy = np.load(root / "2019" / "unlabelled" / "doy.npy")
    doy[0] = doy[0] % 366 + 1 if doy[0] < doy[1] else doy[0] - 1
    np.save(root / "2019" / "unlabelled" / "doy.npy", doy)
    write_checksums(root / "2019" / "unlabelled")
    with pytest.raises(SystemExit, match="2"):
        pretrain(root, tmp_path, "-e", 3, "--rc", "--use-doy", "--mlp", "--resume", plain / "model_last.pth")
    assert "data of 60 series" in (line := capsys.readouterr().err) and line.count("\n") == 1


def test_a_copy_of_the_data_and_options_that_change_nothing_are_accepted(data_root, plain, tmp_path):
    shutil.copytree(data_root, tmp_path / "copy")
    usual = ("-e", 3, "--rc", "--use-doy", "--mlp")
    whole = pretrain(data_root, tmp_path / "whole", *usual)
    resumed = pretrain(
        tmp_path / "copy", tmp_path / "resumed", *usual, "-j", 1, "-p", 1, "-c", 5, "-n", 17, "-s", "x",
        "--resume", plain / "model_last.pth",
    )  # fmt: skip
    assert same(weights(resumed), weights(whole))


def test_a_cosine_schedule_keeps_its_length(data_root, tmp_path, capsys):
    path = pretrain(data_root, tmp_path, "-e", 1, "--cos") / "model_last.pth"
    with pytest.raises(SystemExit, match="2"):
        pretrain(data_root, tmp_path, "-e", 2, "--cos", "--resume", path)
    assert "-e 2 here, 1 in the checkpoint" in capsys.readouterr().err


def test_checkpoints_of_before_pretexts_had_names_are_resumed(data_root, tmp_path, capsys):
    """They kept loss and top-1 as one tensor, and less of what identifies the run."""
    usual = ("--rc", "--use-doy", "--mlp")
    whole = pretrain(data_root, tmp_path / "whole", "-e", 2, *usual)
    saved = checkpoint(pretrain(data_root, tmp_path / "part", "-e", 1, *usual), "model_last.pth")
    sums = torch.stack([*saved["training"]["sums"].values()])
    training = saved["training"] | {"optimizer_name": "adam", "sums": sums}
    old = {name: value for name, value in saved.items() if name not in ("pretext", "identity")}
    old |= {"seed": 111, "training": training, "moco": {k: v for k, v in saved["moco"].items() if k != "bn_splits"}}
    torch.save(old, tmp_path / "old.pth")
    resumed = pretrain(data_root, tmp_path / "resumed", "-e", 2, *usual, "--resume", tmp_path / "old.pth")
    assert same(weights(resumed), weights(whole))
    with pytest.raises(SystemExit, match="2"):
        pretrain(data_root, tmp_path, "-e", 2, "--rc", "--mlp", "--seed", 3, "--resume", tmp_path / "old.pth")
    assert capsys.readouterr().err.endswith(
        "without --use-doy here, with --use-doy in the checkpoint; --seed 3 here, 111 in the checkpoint;"
        " give the flags and the data it had\n"
    )
