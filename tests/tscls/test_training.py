"""main_tscls.py: what a run writes, fine-tuning, testing again, and every flag about training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import main_tscls
from datasets.store import Store
from tests.support.runs import SMALL, calls_of, checkpoint, column, pretrain, refused, rows, same, train, weights
from tscls import evaluation, inputs, training
from utils.metrics import SCORES

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture(scope="module")
def plain(data_root, tmp_path_factory, no_pictures):
    """Two epochs of the published recipe."""
    return train(data_root, tmp_path_factory.mktemp("results"), "--rc", "-e", 2, "--recipe", "published")


@pytest.fixture(scope="module")
def pretrained(data_root, tmp_path_factory):
    return pretrain(data_root, tmp_path_factory.mktemp("results"), "--rc", "--use-doy", "--mlp") / "model_best.pth"


def trunk(state: dict) -> dict:
    return {name: tensor for name, tensor in state.items() if not name.startswith("decoder.")}


def query_encoder(pretrained: Path) -> dict:
    state = weights(pretrained.parent, pretrained.name)
    return {name.removeprefix("encoder_q."): tensor for name, tensor in state.items()}


def arguments(folder: Path) -> dict:
    return json.loads((folder / "args.json").read_text())


# ---- what a run writes


def test_the_files_of_a_run(plain):
    assert plain.name == "T_STNet_R50_RC_2019_Seed111"
    names = {file.name for file in plain.iterdir() if not file.name.startswith("events.out.tfevents.")}
    needed = {"args.json", "model_best.pth", "trainlog.csv", "testlog.csv", "test_conf_mat.npy", "test_class_f1.npy"}
    needed |= {"finished", "model_last.pth", "model_last.prev.pth"}
    tables = {f"test_{name}.csv" for name in ("class_f1", "reliability", "coverage")}
    assert needed <= names <= needed | {"classes.json"} | tables
    assert {file.name for file in plain.parent.iterdir()} == {plain.name, "comparison.csv", "comparison.md"}


def test_the_log_has_a_row_an_epoch(plain):
    logged = rows(plain)
    assert [row["epoch"] for row in logged] == ["0", "1"]
    assert set(logged[0]) >= {"epoch", "lr", "train_loss", "valid_loss", *(f"valid_{name}" for name in SCORES)}


def test_the_scores_are_those_of_the_confusion_matrix(plain, data_root):
    matrix = np.load(plain / "test_conf_mat.npy")
    labels = Store.open(data_root / "2019" / "eval").labels
    assert matrix.shape == (21, 21)
    np.testing.assert_array_equal(matrix.sum(1), np.bincount(labels, minlength=21))
    assert column(plain, "oa", "testlog.csv") == pytest.approx([np.trace(matrix) / 30])
    class_f1 = np.load(plain / "test_class_f1.npy")
    assert column(plain, "macro_f1", "testlog.csv") == pytest.approx([class_f1.mean()])
    assert column(plain, "series", "testlog.csv") == [30]
    names = pd.read_csv(plain / "test_class_f1.csv")
    assert names["name"].iloc[[0, 2, 20]].tolist() == ["Grass/Pasture", "Corn", "Other"]
    np.testing.assert_allclose(names["f1"], class_f1)


def test_a_checkpoint_tells_what_it_is(plain):
    saved = checkpoint(plain)
    assert saved["model"]["name"] == "stnet" and saved["model"]["num_classes"] == 21
    assert saved["classmap"]["names"][2] == "Corn" and len(saved["classmap"]["codes"]) == 21
    assert "use_doy" not in saved["model"]
    assert saved["length_method"] == "rc" and saved["normalisation"]["scale"] == 1e-4
    losses = column(plain, "valid_loss")
    assert saved["epoch"] == int(np.argmin(losses)) and saved["val_loss_min"] == pytest.approx(min(losses), rel=1e-5)


@pytest.mark.parametrize("recipe", ["auto", "published"])
def test_the_end_of_training_is_printed_without_a_terminal(data_root, tmp_path, capsys, recipe):
    folder = train(data_root, tmp_path, "-e", 2, "--recipe", recipe)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "epochs" in line]
    assert line.startswith(f"{folder.name}: 2 of 2 epochs: loss {column(folder, 'train_loss')[-1]:.4f}, ")
    assert ("held out: loss" in line) == (recipe == "published")


def test_the_published_recipe_stops_when_validation_gets_no_better(data_root, tmp_path):
    folder = train(data_root, tmp_path, "--recipe", "published", "-e", 60, "-lr", 0.3, "--init", "torch")
    losses = column(folder, "valid_loss")
    best = int(np.argmin(losses))
    assert len(losses) == min(60, best + 1 + 10) and checkpoint(folder)["epoch"] == best


def test_testing_is_with_the_best_epoch(data_root, tmp_path):
    """Tested again from the file, the scores are the same."""
    flags = ("--recipe", "published", "--rc", "-e", 4, "-lr", 0.1)
    folder = train(data_root, tmp_path, *flags)
    first, trained = rows(folder, "testlog.csv"), rows(folder)
    assert rows(train(data_root, tmp_path, *flags, "--eval"), "testlog.csv") == first
    assert rows(folder) == trained


# ---- reproducibility


@pytest.mark.parametrize("recipe", ["auto", "published"])
@pytest.mark.parametrize("method", ["--rc", "--interp"])
def test_the_same_seed_gives_the_same_run(data_root, tmp_path, recipe, method):
    flags = (method, "-e", 2, "--recipe", recipe)
    first, again = (train(data_root, tmp_path / str(j), *flags, "-j", j, model="tempcnn") for j in (0, 2))
    assert rows(first) == rows(again) and rows(first, "testlog.csv") == rows(again, "testlog.csv")
    assert same(weights(first, "model_best.pth"), weights(again, "model_best.pth"))


# ---- fine-tuning


def test_fine_tuning_starts_from_the_query_encoder_and_trains_everything(data_root, pretrained, tmp_path, capsys):
    folder = train(data_root, tmp_path, "--rc", "--recipe", "published", "--pretrained", pretrained)
    assert folder.name == "F_Mo_STNet_R50_RC_2019_Seed111"
    assert "took 37 tensors" in capsys.readouterr().out
    source = query_encoder(pretrained)
    tuned = trunk(weights(folder, "model_best.pth"))
    assert not [name for name, tensor in tuned.items() if torch.equal(tensor, source[name])]
    close = [name for name, tensor in tuned.items() if tensor.is_floating_point() and "running" not in name]
    assert all((tuned[name] - source[name]).abs().max() < 0.02 for name in close)


@pytest.mark.parametrize("recipe", ["auto", "published"])
def test_freeze_keeps_the_trunk_and_trains_the_decoder(data_root, pretrained, tmp_path, recipe):
    """To the last bit, running statistics included."""
    flags = ("--pretrained", pretrained, "--freeze", "--recipe", recipe)
    folders = [train(data_root, tmp_path / str(epochs), *flags, "-e", epochs) for epochs in (1, 3)]
    assert folders[0].name == "F_Mo_STNet_R50_RC_2019_Seed111_frozen"
    source = query_encoder(pretrained)
    for folder in folders:
        frozen = trunk(weights(folder, "model_best.pth"))
        assert len(frozen) == 37 and all(torch.equal(tensor, source[name]) for name, tensor in frozen.items())
    short, long = (weights(folder, "model_best.pth")["decoder.0.weight"] for folder in folders)
    assert not torch.equal(short, long)


def test_a_classifier_can_be_fine_tuned_too(data_root, plain, tmp_path):
    folder = train(data_root, tmp_path, "--pretrained", plain / "model_best.pth", model="transformer")
    assert folder.name == "F_ST_TransformerModel_R50_RC_2019_Seed111"


@pytest.mark.parametrize("recipe", ["auto", "published"])
def test_a_classifier_of_the_same_classes_goes_on_with_its_decoder(data_root, plain, tmp_path, capsys, recipe):
    """With a learning rate that changes nothing, what was taken is what is saved."""
    given = ("--pretrained", plain / "model_best.pth", "--recipe", recipe, "-e", 1, "-lr", 1e-12)
    source = weights(plain, "model_best.pth")
    for flags, is_kept in (((), True), (("--new-decoder",), False)):
        folder = train(data_root, tmp_path / str(is_kept), *given, *flags)
        tuned = weights(folder, "model_best.pth")
        near = {name: torch.allclose(tuned[name], source[name], atol=1e-6) for name in tuned if "weight" in name}
        assert all(near[name] for name in near if not name.startswith("decoder."))
        assert {near[f"decoder.{number}.weight"] for number in (0, 3, 6)} == {is_kept}
        assert ("the decoder's among them" in capsys.readouterr().out) == is_kept
        assert arguments(folder)["identity"].get("keeps_decoder", False) == is_kept


def test_the_rate_of_a_kept_decoder_is_that_of_the_recipe(data_root, plain, tmp_path):
    given = ("--pretrained", plain / "model_best.pth", "-e", 1)
    folders = [train(data_root, tmp_path / str(len(flags)), *given, *flags) for flags in ((), ("--new-decoder",))]
    used = [arguments(folder) for folder in folders]
    assert [one["recipe_used"]["learning_rate"] for one in used] == [1e-4, 1e-3]


def test_a_decoder_of_series_up_to_another_day_is_not_taken(data_root, plain, tmp_path, capsys):
    """It would have to unlearn more than the careful rate lets it."""
    given = ("--pretrained", plain / "model_best.pth", "-e", 1, "--until-doy", 200)
    cut = train(data_root, tmp_path / "cut", *given)
    assert "took 37 tensors\n" in capsys.readouterr().out and "keeps_decoder" not in arguments(cut)["identity"]
    assert arguments(cut)["recipe_used"]["learning_rate"] == 1e-3
    again = train(data_root, tmp_path / "again", "--pretrained", cut / "model_best.pth", *given[2:])
    assert arguments(again)["identity"]["keeps_decoder"] and arguments(again)["recipe_used"]["learning_rate"] == 1e-4


def test_a_decoder_of_other_classes_is_not_taken(data_root, plain, tmp_path, capsys):
    other = checkpoint(plain)
    other["classmap"]["names"] = other["classmap"]["names"][::-1]
    torch.save({key: value for key, value in other.items() if key != "digests"}, tmp_path / "other.pth")
    folder = train(data_root, tmp_path / "out", "--pretrained", tmp_path / "other.pth", "-e", 1)
    assert "took 37 tensors\n" in capsys.readouterr().out
    assert "keeps_decoder" not in arguments(folder)["identity"]


@pytest.mark.parametrize(("flags", "method"), [((), "rc"), (("--pad",), "pad"), (("--rc",), "rc")])
def test_series_reach_length_s_as_in_the_pretrained_checkpoint_unless_told(
    data_root, pretrained, tmp_path, capsys, flags, method
):
    folder = train(data_root, tmp_path, "--pretrained", pretrained, *flags)
    assert checkpoint(folder)["length_method"] == method
    assert arguments(folder)["length_method"] == method
    told = f"stnet: series reach length S by rc, as in {pretrained} (--pad: by padding)"
    assert (told in capsys.readouterr().out) == (flags == ())


def test_another_day_encoding_is_told_with_its_remedy(data_root, pretrained, tmp_path, capsys):
    train(data_root, tmp_path, "--pretrained", pretrained, model="transformer")
    start = f"{pretrained}: was trained with days of the year encoded, this model encodes positions: give --use-doy"
    assert start in capsys.readouterr().out
    train(data_root, tmp_path, "--pretrained", pretrained, "--use-doy", model="transformer")
    assert "encoded" not in capsys.readouterr().out
    positions = train(data_root, tmp_path / "positions", model="transformer") / "model_best.pth"
    train(data_root, tmp_path, "--pretrained", positions, "--use-doy", model="transformer")
    assert "encodes days of the year: leave out --use-doy" in capsys.readouterr().out
    train(data_root, tmp_path, "--pretrained", positions)
    assert "encodes days of the year: it is fine-tuned" in capsys.readouterr().out


# ---- testing again


@pytest.mark.parametrize("model", ["rf", "transformer", "tempcnn"])
def test_testing_again_needs_no_settings(data_root, tmp_path, model):
    """S, draws and day encoding are those of the checkpoint."""
    flags = ("--rc", "--draws", 2, "--suffix", "x")
    folder = train(data_root, tmp_path, *flags, "-seq", 15, model=model)
    first = rows(folder, "testlog.csv")
    (folder / "test_conf_mat.npy").unlink()
    again = train(data_root, tmp_path, "--rc", "--suffix", "x", "--eval", "-seq", 99, model=model)
    assert again == folder and rows(folder, "testlog.csv") == first and (folder / "test_conf_mat.npy").exists()
    train(data_root, tmp_path, "--rc", "--suffix", "x", "--eval", "--draws", 0, model=model)
    assert rows(folder, "testlog.csv")[0]["loss"] != first[0]["loss"]


# ---- how it is trained


def recipe_of(folder) -> dict:
    return arguments(folder)["recipe_used"]


def test_few_labels_get_their_recipe_unless_told_otherwise(data_root, plain, tmp_path):
    assert recipe_of(train(data_root, tmp_path))["name"] == "few-label"
    published = recipe_of(plain)
    expected = {"name": "published", "learning_rate": 1e-3, "weight_decay": 1e-4, "patience": 10, "draws": 1}
    assert {key: published[key] for key in expected} == expected


@pytest.mark.parametrize("recipe", ["auto", "published"])
def test_flags_come_before_the_recipe(data_root, tmp_path, recipe):
    flags = ("-e", 3, "-b", 9, "-lr", 0.02, "--weight-decay", 0.5, "--warmup-epochs", 1, "--recipe", recipe)
    used = recipe_of(train(data_root, tmp_path, *flags))
    expected = {"epochs": 3, "batchsize": 9, "learning_rate": 0.02, "weight_decay": 0.5, "warmup_epochs": 1}
    assert {key: used[key] for key in expected} == expected


@pytest.mark.parametrize("recipe", ["auto", "published"])
def test_the_schedule_is_followed(data_root, tmp_path, recipe):
    folder = train(
        data_root, tmp_path, "-e", 3, "--schedule", 1, 2, "-lr", 0.01, "--recipe", recipe, "--warmup-epochs", 0
    )
    assert column(folder, "lr") == pytest.approx([0.01, 1e-3, 1e-4], rel=1e-5)


def test_a_short_run_of_the_few_label_recipe_still_learns(data_root, tmp_path):
    folder = train(data_root, tmp_path, "-e", 10)
    assert max(column(folder, "lr")) > 0.5 * recipe_of(folder)["learning_rate"]


def test_the_temporal_shift_is_for_training_alone(data_root, tmp_path, monkeypatch):
    shifts = calls_of(training, "temporal_shift", monkeypatch)
    train(data_root, tmp_path, "--recipe", "published", "-e", 2)
    assert [len(series.length) for series, _ in shifts] == [16, 16, 13] * 2


@pytest.mark.parametrize(("flags", "draws"), [((), 0), (("--draws", 3), 3), (("--recipe", "published"), 1)])
def test_predictions_are_averaged_over_draws_and_sum_to_one(data_root, tmp_path, monkeypatch, flags, draws):
    saved = checkpoint(train(data_root, tmp_path, "--rc", *flags))
    assert saved["draws"] == draws
    made, scored = calls_of(inputs, "model_input", monkeypatch), calls_of(evaluation, "score", monkeypatch)
    train(data_root, tmp_path, "--rc", "--eval")  # --draws and --recipe are told by the checkpoint
    longest = Store.open(data_root / "2019" / "eval").lengths.max()
    expected = [(20, "rc")] * draws if draws else [(longest, "pad")]
    assert [call[1:3] for call in made] == expected and len(scored) == 1
    probability = scored[0][0].exp()
    assert probability.shape == (30, 21)
    torch.testing.assert_close(probability.sum(1), torch.ones(30))


def test_print_freq_is_the_steps_between_logged_losses(data_root, tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = train(data_root, tmp_path, "--recipe", "published", "-e", 2, "-p", 2)
    events = event_accumulator.EventAccumulator(str(folder)).Reload()
    assert [event.step for event in events.Scalars("step/loss")] == [2, 4, 6]
    shown = {"lr", "train/loss", "valid/loss", *(f"valid/{name}" for name in SCORES)}
    assert shown <= set(events.Tags()["scalars"])


def test_init_chooses_how_fresh_weights_start(data_root, tmp_path):
    spread = {}
    for init in ("published", "torch"):
        folder = train(data_root, tmp_path / init, "--init", init, "-lr", 1e-12)
        spread[init] = weights(folder, "model_best.pth")["mlp1.2.bn.weight"].std().item()
    assert spread["published"] == pytest.approx(1, abs=0.2) and spread["torch"] < 1e-3


def test_losses_are_finite_however_large_the_logits(data_root, tmp_path):
    """Logits may reach thousands; no probability may become zero, and there must be a best epoch."""
    folder = train(data_root, tmp_path, "--recipe", "published", "-lr", 3, model="tempcnn")
    assert np.isfinite(column(folder, "valid_loss")).all()
    assert np.isfinite(column(folder, "loss", "testlog.csv")).all()


# ---- warnings


def test_a_loss_that_grew_beyond_reason_is_warned_of(data_root, tmp_path, capsys):
    train(data_root, tmp_path, "--recipe", "published", "-lr", 1000, "-e", 2, model="tempcnn")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: the training loss")]
    assert line.endswith("at the end of training, so it diverged; lower -lr")


def test_a_loss_that_is_not_finite_ends_the_run(data_root, tmp_path, capsys):
    argv = ["tempcnn", "-n", 50, "--recipe", "published", "-lr", 1e30, "-e", 5, *SMALL, "--datapath", data_root]
    line = refused(main_tscls, [*argv, "-l", tmp_path], capsys)
    where = f"its series are in {tmp_path}/T_TempCNN_R50_Pad_2019_Seed111/bad_batch.json"
    assert line == f"the loss became nan in epoch 0, step 2 of 3; {where}; lower -lr, or give --clip-grad"


def test_fewer_labels_than_classes_are_warned_of(data_root, tmp_path, capsys):
    train(data_root, tmp_path, "-n", 20)
    assert "warning: 20 labelled series for 21 classes, some of which have none; give a larger -n" in (
        capsys.readouterr().out
    )
    train(data_root, tmp_path, "-n", 21)
    assert "warning" not in capsys.readouterr().out
