"""Classifiers saved and loaded: networks, scikit-learn, earlier and published checkpoints; and what is refused."""

from __future__ import annotations

import copy
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from datasets import bands
from datasets.classmap import CDL20, ClassMap
from models import ESTIMATORS, ModelError, build_model
from tests.conftest import SHARED, needs_shared
from tests.support.classifiers import KINDS, SIZE, series_of, small_classifier
from tscls import checkpoints
from tscls.checkpoints import infer_model
from tscls.classifier import FILES, load_classifier
from utils.checkpoint import CheckpointError

sio = pytest.importorskip("skops.io")


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    return series_of(tmp_path_factory.mktemp("stores") / "store", [5, 12, 30, 1, 80])


def predicted(classifier, series, **options) -> torch.Tensor:
    return torch.cat(list(classifier.predict(series, **options)))


def written(path: Path, **content) -> Path:
    torch.save({"epoch": 0, "val_loss_min": 1.0, "not_improved_count": 0} | content, path)
    return path


def saved(kind: str, folder: Path, **changes) -> Path:
    """The checkpoint of a small network, some entries changed; None takes one out."""
    small_classifier(kind).save(folder / "model.pth")
    content = torch.load(folder / "model.pth", weights_only=True) | {"digests": None} | changes
    return written(folder / "model.pth", **{name: value for name, value in content.items() if value is not None})


# ---- ours


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_loaded_predicts_what_was_saved(kind, series, tmp_path):
    """From the file and from the folder, without a word on how it was trained."""
    classifier = small_classifier(kind, draws=2)
    path = tmp_path / FILES[classifier.name in ESTIMATORS]
    classifier.save(path)
    for where in (path, tmp_path, str(tmp_path)):
        loaded = load_classifier(where, "cpu")
        assert (loaded.name, loaded.draws, loaded.seed, loaded.classmap) == (classifier.name, 2, 5, CDL20)
        assert loaded.way == classifier.way
        for draws in (0, 2):
            assert torch.equal(predicted(loaded, series, draws=draws), predicted(classifier, series, draws=draws))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_checkpoint_holds_its_settings_and_what_is_added(tmp_path):
    classifier = small_classifier("tempcnn", draws=3)
    classifier.save(tmp_path / "model.pth", epoch=4, val_loss_min=0.5)
    content = torch.load(tmp_path / "model.pth", weights_only=True)
    assert content.pop("digests")
    assert content.pop("model_state").keys() == classifier.model.state_dict().keys()
    assert content == {
        "epoch": 4,
        "val_loss_min": 0.5,
        "model": {"name": "tempcnn", "num_classes": 21, "sequencelength": SIZE, "init": "torch"},
        "sequencelength": SIZE,
        "length_method": "interp",
        "draws": 3,
        "seed": 5,
        "normalisation": bands.normalisation(),
        "classmap": CDL20.as_dict(),
    }


def test_a_network_goes_before_an_estimator_in_a_folder(tmp_path):
    small_classifier("rf").save(tmp_path / FILES[1])
    small_classifier("lstm").save(tmp_path / FILES[0])
    assert load_classifier(tmp_path, "cpu").name == "lstm"


@pytest.mark.parametrize("name", ["T_run", "T_run/model_best.pth", "T_run/model_best.skops", "T_run_0.5"])
def test_a_missing_run_is_said_to_be(tmp_path, name):
    path = tmp_path / name if "." in name[-6:] and "/" in name else tmp_path / name / "model_best.pth"
    with pytest.raises(CheckpointError) as error:
        load_classifier(tmp_path / name, "cpu", advice="train it")
    assert str(error.value) == f"{path}: no such checkpoint (there is no folder {path.parent}); train it"


# ---- earlier checkpoints


@pytest.mark.parametrize(("draws", "expected"), [(8, 8), (1, 1), (None, 0)])
def test_checkpoints_written_before_load(tmp_path, series, draws, expected):
    """With use_doy where the network does not read it, S among the model's arguments, the draws of the recipe."""
    model = {"name": "stnet", "num_classes": 21, "sequencelength": SIZE, "use_doy": False, "init": "torch"}
    path = saved("stnet", tmp_path, model=model, sequencelength=None, seed=None, draws=draws)
    loaded = load_classifier(path, "cpu")
    assert loaded.draws == expected and loaded.seed == 111
    assert loaded.way == small_classifier("stnet").way and "use_doy" not in loaded.model.arguments
    assert torch.equal(predicted(loaded, series, draws=0), predicted(small_classifier("stnet"), series))


# ---- published checkpoints


OPTIONS = {
    "stnet": {},
    "transformer": {},
    "tempcnn": {"hidden_dims": 8, "kernel_size": 5, "sequencelength": SIZE},
    "lstm": {"hidden_dims": 8, "num_layers": 3},
    "ltae": {"sequencelength": SIZE},
}


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("name", OPTIONS)
def test_the_model_is_inferred_from_the_tensors(name, prefix):
    state = build_model(name, num_classes=7, **OPTIONS[name]).state_dict()
    found = infer_model({prefix + key: tensor for key, tensor in state.items()})
    assert found == {"name": "stnet" if name == "transformer" else name, "num_classes": 7, **OPTIONS[name]}


@pytest.mark.parametrize("state", [{}, {"a": torch.ones(1)}, {"conv_bn_relu1.block.0.weight": torch.ones(1)}])
def test_other_tensors_are_of_no_model(state, tmp_path):
    assert infer_model(state) == {}
    with pytest.raises(CheckpointError, match="are of no model; name it"):
        load_classifier(written(tmp_path / "model.pth", model_state=state), "cpu")


@needs_shared
@pytest.mark.parametrize("name", OPTIONS)
def test_published_classifiers_give_the_published_logits(name, tmp_path):
    golden = torch.load(SHARED / "golden" / f"model_{name}.pt", weights_only=True)
    path = written(tmp_path / "model.pth", model_state=golden["state_dict"], criterion=nn.CrossEntropyLoss())
    loaded = load_classifier(path, "cpu", model="transformer" if name == "transformer" else None)
    inputs = tuple(golden[part] for part in ("x", "mask", "doy", "weight"))
    scale = max(1, golden["logits"].abs().max().item()) if name == "tempcnn" else 1  # as in tests/models/test_models.py
    with torch.no_grad():
        torch.testing.assert_close(loaded.model.eval()(inputs), golden["logits"], atol=1e-5 * scale, rtol=1e-5)
    assert loaded.classmap is None and loaded.names[20] == "20"


def test_the_same_tensors_are_stnet_unless_told_otherwise(tmp_path, series, caplog):
    path = written(tmp_path / "model.pth", model_state=small_classifier("transformer of days").model.state_dict())
    assert load_classifier(path, "cpu").name == "stnet"
    assert caplog.messages == [f"{path}: does not say whether it is of stnet or transformer; stnet is assumed"]
    assert load_classifier(path, "cpu", model="transformer").model.use_doy is False
    told = load_classifier(path, "cpu", model={"name": "transformer", "use_doy": True}, classmap=CDL20)
    assert len(caplog.messages) == 1 and told.names == CDL20.names
    assert torch.equal(predicted(told, series), predicted(small_classifier("transformer of days"), series))


def test_another_model_than_the_file_names_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="model.pth: is of lstm, not of stnet"):
        load_classifier(saved("lstm", tmp_path), "cpu", model="stnet")


def test_a_class_map_of_another_number_is_refused(tmp_path):
    three = ClassMap.of([("a", 1, (0, 0, 0)), ("b", 2, (0, 0, 0))])
    with pytest.raises(CheckpointError, match="has 21 outputs, the class map 3 classes"):
        load_classifier(saved("lstm", tmp_path), "cpu", classmap=three)


def test_a_pre_training_predicts_nothing(tmp_path):
    state = {f"encoder_q.{name}": tensor for name, tensor in build_model("stnet").state_dict().items()}
    with pytest.raises(CheckpointError, match="a pre-training, which predicts no classes; fine-tune from it"):
        load_classifier(written(tmp_path / "model.pth", model_state=state), "cpu")


# ---- other input, and damage


def test_the_same_normalisation_to_float32_is_taken(tmp_path):
    other = copy.deepcopy(bands.normalisation())
    other["mean"] = [round(value, 3) for value in other["mean"]]
    assert other != bands.normalisation()
    load_classifier(saved("lstm", tmp_path, normalisation=other), "cpu")
    load_classifier(saved("lstm", tmp_path, normalisation=None), "cpu")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"mean": [0.2, *bands.normalisation()["mean"][1:]]}, "another mean: 0.2 for blue, ours is 0.1469"),
        ({"std": [*bands.normalisation()["std"][:9], 1.0]}, "another std: 1.0 for swir2, ours is 0.1059"),
        ({"scale": 1e-3}, "another scale: 0.001, ours is 0.0001"),
        ({"bands": ["red"]}, r"another bands: \['red'\], ours is \['blue'"),
        ({"bands": ["green", *bands.BANDS[1:]]}, "another bands: green for blue, ours is blue"),
        ({"scale": "1e-4"}, "another scale: 1e-4, ours is"),
        ({"offset": 1.0}, "its normalisation is damaged"),
    ],
)
@pytest.mark.parametrize("kind", ["lstm", "rf"])
def test_another_normalisation_is_refused(tmp_path, change, told, kind, monkeypatch):
    other = bands.normalisation() | change
    with monkeypatch.context() as patch:
        patch.setattr(bands, "normalisation", lambda: other)
        path = tmp_path / FILES[kind == "rf"]
        small_classifier(kind).save(path)
    with pytest.raises(CheckpointError, match=told):
        load_classifier(path, "cpu")


@pytest.mark.parametrize(
    "change",
    [
        {"length_method": "magic"},
        {"draws": -1},
        {"draws": "many"},
        {"sequencelength": 0},
        {"draws": 4097},
        {"sequencelength": 4097},
        {"model": {"name": "lstm", "hidden_dims": 10**9}},
        {"model": {"name": "lstm", "num_layers": -1}},
        {"model": {"name": "lstm", "size": 3}},
        {"classmap": {"names": []}},
        {"classmap": 3},
    ],
)
def test_damaged_settings_are_refused_in_one_line(tmp_path, change):
    with pytest.raises(CheckpointError, match="model.pth: its settings are damaged .*; train it again$"):
        load_classifier(saved("lstm", tmp_path, **change), "cpu")


@pytest.mark.parametrize("model", [{"name": 3}, {"nom": "lstm"}, [1], 5])
def test_a_model_that_is_no_model_is_refused(tmp_path, model):
    with pytest.raises(CheckpointError, match="model.pth: its 'model' is damaged; expected the arguments of build_mod"):
        load_classifier(saved("lstm", tmp_path, model=model), "cpu")


def test_a_model_larger_than_its_weights_is_refused_before_it_is_built(tmp_path, monkeypatch):
    path = saved("lstm", tmp_path, model={"name": "lstm", "hidden_dims": 4096, "num_layers": 64})
    where = []

    def build(**arguments):
        network = build_model(**arguments)
        where.append(next(network.parameters()).device.type)
        return network

    monkeypatch.setattr(checkpoints, "build_model", build)
    with pytest.raises(CheckpointError, match="does not fit LSTM: "):
        load_classifier(path, "cpu")
    assert where == ["meta"]


def test_arrays_of_a_file_of_scikit_learn_have_digests(tmp_path):
    path = tmp_path / "model.skops"
    small_classifier("rf").save(path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    one, other = [name for name in parts if name.endswith(".npy")][:2]
    parts[one], parts[other] = parts[other], parts[one]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    with pytest.raises(CheckpointError, match="model.skops: cannot be read: .*its members do not have their digests"):
        load_classifier(path, "cpu")
    assert json.loads(parts["digests.json"]).keys() == parts.keys() - {"digests.json"}


def test_a_compressed_file_of_scikit_learn_is_refused(tmp_path):
    estimator = small_classifier("rf").model.classifier
    sio.dump({"estimator": estimator}, tmp_path / "model.skops", compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="is compressed; expected plain members"):
        load_classifier(tmp_path / "model.skops", "cpu")


def test_an_unknown_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match="unknown model 'resnet'"):
        load_classifier(saved("lstm", tmp_path, model={"name": "resnet"}), "cpu")


# ---- files of scikit-learn


def test_a_type_beyond_the_list_is_refused(tmp_path):
    class Unknown:
        pass

    Unknown.__module__, Unknown.__qualname__ = "tests.tscls.test_loading", "Unknown"
    globals()["Unknown"] = Unknown
    sio.dump({"estimator": Unknown(), "model": {"name": "rf"}}, tmp_path / "model.skops")
    with pytest.raises(CheckpointError, match="it holds tests.tscls.test_loading.Unknown, which is never loaded"):
        load_classifier(tmp_path / "model.skops", "cpu")


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04"])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "model.skops").write_bytes(content)
    with pytest.raises(CheckpointError, match="model.skops: cannot be read: damaged, cut off or of another kind"):
        load_classifier(tmp_path / "model.skops", "cpu")


def test_a_cut_file_is_refused(tmp_path):
    small_classifier("gbt").save(tmp_path / "whole.skops")
    whole = (tmp_path / "whole.skops").read_bytes()
    (tmp_path / "model.skops").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_classifier(tmp_path / "model.skops", "cpu")


@pytest.mark.parametrize("content", [[1], {"a": 1}, {"estimator": np.arange(3)}])
def test_a_skops_file_without_a_classifier_is_refused(tmp_path, content):
    sio.dump(content, tmp_path / "model.skops")
    with pytest.raises(CheckpointError, match="no classifier in it; expected a model_best.skops of main_tscls.py"):
        load_classifier(tmp_path / "model.skops", "cpu")


def test_an_estimator_without_its_settings_is_refused(tmp_path):
    classifier = small_classifier("rf").model.classifier
    for settings in ({}, {"model": {"name": "stnet"}}, {"model": {"name": "rf"}}):
        sio.dump({"estimator": classifier, **settings}, tmp_path / "model.skops")
        with pytest.raises(CheckpointError, match="its settings are damaged"):
            load_classifier(tmp_path / "model.skops", "cpu")


def test_a_save_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model_best.skops"
    small_classifier("svm").save(path)
    before = path.read_bytes()

    def torn(content, partial):
        Path(partial).write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(sio, "dump", torn)
    with pytest.raises(OSError, match="no space"):
        small_classifier("svm", seed=1).save(path)
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_file_of_scikit_learn_holds_no_pickle(tmp_path):
    for kind in ESTIMATORS:
        small_classifier(kind).save(tmp_path / f"{kind}.skops")
        with zipfile.ZipFile(io.BytesIO((tmp_path / f"{kind}.skops").read_bytes())) as archive:
            assert {Path(name).suffix for name in archive.namelist()} <= {".json", ".npy", ".npz", ".bin", ""}
