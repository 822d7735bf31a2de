"""main_tscls.py: training, fine-tuning and comparing, and that every flag does what it says."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

import main_tscls
from datasets.store import Store
from models import ESTIMATORS
from tests.layout import CLASSES
from tests.runs import checkpoint, column, pretrain, rows, same, train, weights
from utils import report

SCORES = ("oa", "kappa", "macro_f1", "weighted_f1")


DRAWN = report._pictures


@pytest.fixture(scope="module", autouse=True)
def no_pictures():
    """They take most of the time of a small run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "_pictures", lambda: False)
        yield


@pytest.fixture(scope="module")
def plain(data_root, tmp_path_factory):
    """Two epochs of the published recipe."""
    return train(data_root, tmp_path_factory.mktemp("results"), "--rc", "-e", 2, "--recipe", "published")


@pytest.fixture(scope="module")
def pretrained(data_root, tmp_path_factory):
    return pretrain(data_root, tmp_path_factory.mktemp("results"), "--rc", "--use-doy", "--mlp") / "model_best.pth"


def trunk(state: dict) -> dict:
    return {name: tensor for name, tensor in state.items() if not name.startswith("decoder.")}


# ---- what a run leaves


def test_the_files_of_a_run(plain):
    assert plain.name == "T_STNet_R50_RC_2019_Seed111"
    names = {file.name for file in plain.iterdir() if not file.name.startswith("events.out.tfevents.")}
    needed = {"args.json", "model_best.pth", "trainlog.csv", "testlog.csv", "test_conf_mat.npy", "test_class_f1.npy"}
    assert needed <= names <= needed | {"classes.json", "test_class_f1.csv"}
    assert {file.name for file in plain.parent.iterdir()} == {plain.name, "comparison.csv", "comparison.md"}


def test_pictures_are_drawn(data_root, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(report, "_pictures", DRAWN)
    folder = train(data_root, tmp_path)
    assert (folder / "confusion_matrix.png").stat().st_size > 10_000
    assert (folder / "learning_curve.png").exists() and (tmp_path / "comparison.png").exists()


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
    assert saved["length_method"] == "rc" and saved["normalisation"]["scale"] == 1e-4
    losses = column(plain, "valid_loss")
    assert saved["epoch"] == int(np.argmin(losses)) and saved["val_loss_min"] == pytest.approx(min(losses), rel=1e-5)


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


# ---- the same again


@pytest.mark.parametrize("recipe", ["auto", "published"])
@pytest.mark.parametrize("method", ["--rc", "--interp"])
def test_the_same_seed_gives_the_same_run(data_root, tmp_path, recipe, method):
    flags = (method, "-e", 2, "--recipe", recipe)
    first, again = (train(data_root, tmp_path / str(j), *flags, "-j", j, model="tempcnn") for j in (0, 2))
    assert rows(first) == rows(again) and rows(first, "testlog.csv") == rows(again, "testlog.csv")
    assert same(weights(first, "model_best.pth"), weights(again, "model_best.pth"))


def test_seeds_are_runs_of_their_own(data_root, tmp_path, capsys):
    train(data_root, tmp_path, "--rc", "--seeds", 7, 8, 9)
    folders = sorted(path for path in tmp_path.iterdir() if path.is_dir())
    assert [folder.name for folder in folders] == [f"T_STNet_R50_RC_2019_Seed{seed}" for seed in (7, 8, 9)]
    assert len({tuple(column(folder, "train_loss")) for folder in folders}) == 3
    scores = [column(folder, "oa", "testlog.csv")[0] for folder in folders]
    (summary,) = pd.read_csv(tmp_path / "comparison.csv").to_dict("records")
    assert summary["runs"] == 3 and summary["oa_mean"] == pytest.approx(np.mean(scores))
    assert summary["oa_std"] == pytest.approx(np.std(scores, ddof=1))
    assert f"{np.mean(scores):.3f} ± {np.std(scores, ddof=1):.3f}" in capsys.readouterr().out


# ---- fine-tuning


def test_fine_tuning_starts_from_the_query_encoder_and_trains_everything(data_root, pretrained, tmp_path, capsys):
    folder = train(data_root, tmp_path, "--rc", "--pretrained", pretrained)
    assert folder.name == "F_Mo_STNet_R50_RC_2019_Seed111"
    assert "took 37 tensors" in capsys.readouterr().out
    source = {n.removeprefix("encoder_q."): t for n, t in torch.load(pretrained)["model_state"].items()}
    tuned = trunk(weights(folder, "model_best.pth"))
    assert not [name for name, tensor in tuned.items() if torch.equal(tensor, source[name])]
    close = [name for name, tensor in tuned.items() if tensor.is_floating_point() and "running" not in name]
    assert all((tuned[name] - source[name]).abs().max() < 0.02 for name in close)


@pytest.mark.parametrize("recipe", ["auto", "published"])
def test_freeze_keeps_the_trunk_and_trains_the_decoder(data_root, pretrained, tmp_path, recipe):
    """To the last bit, running statistics included."""
    flags = ("--pretrained", pretrained, "--freeze", "--recipe", recipe)
    folders = [train(data_root, tmp_path / str(epochs), *flags, "-e", epochs) for epochs in (1, 3)]
    assert folders[0].name == "F_Mo_STNet_R50_Pad_2019_Seed111_frozen"
    source = {n.removeprefix("encoder_q."): t for n, t in torch.load(pretrained)["model_state"].items()}
    for folder in folders:
        frozen = trunk(weights(folder, "model_best.pth"))
        assert len(frozen) == 37 and all(torch.equal(tensor, source[name]) for name, tensor in frozen.items())
    short, long = (weights(folder, "model_best.pth")["decoder.0.weight"] for folder in folders)
    assert not torch.equal(short, long)


def test_a_classifier_is_something_to_fine_tune_too(data_root, plain, tmp_path):
    folder = train(data_root, tmp_path, "--pretrained", plain / "model_best.pth", model="transformer")
    assert folder.name == "F_ST_TransformerModel_R50_Pad_2019_Seed111"


# ---- which series


def test_regions_are_trained_and_tested_on_alone(data_root, tmp_path, capsys):
    folder = train(data_root, tmp_path, "-n", 20, "--regions", "Adams", "Harvey")
    assert "train 18, valid 2, eval 20 series" in capsys.readouterr().out
    (row,) = rows(folder, "testlog.csv")
    assert (row["regions"], row["series"]) == ("Adams+Harvey", "20")
    assert folder.name.endswith("_Adams+Harvey")


def test_a_site_left_out_is_tested_on_alone(data_root, tmp_path, capsys):
    folder = train(data_root, tmp_path, "-n", 20, "--leave-out", "Adams", "--years", 2019, 2020)
    assert "train 18, valid 2, eval 10 series" in capsys.readouterr().out
    tested = rows(folder, "testlog.csv")
    assert [(row["year"], row["regions"], row["series"]) for row in tested] == [
        ("2019", "Adams", "10"),
        ("2020", "Adams", "10"),
    ]
    assert np.load(folder / "test_conf_mat.npy").sum() == 10


def test_years_are_tested_on_each(data_root, tmp_path, capsys):
    folder = train(data_root, tmp_path, "--years", 2019, 2020)
    tested = rows(folder, "testlog.csv")
    assert [row["year"] for row in tested] == ["2019", "2020"]
    labels = Store.open(data_root / "2020" / "eval").labels
    matrix = np.load(folder / "test_conf_mat_2020.npy")
    np.testing.assert_array_equal(matrix.sum(1), np.bincount(labels, minlength=21))
    assert float(tested[1]["oa"]) == pytest.approx(np.trace(matrix) / 30)
    assert {"years.csv", "years.md"} <= {file.name for file in tmp_path.iterdir()}


def test_useall_and_the_budget(data_root, tmp_path, capsys):
    folder = train(data_root, tmp_path, "--useall")
    assert folder.name == "T_STNet_Pad_2019_Seed111"
    assert "train 90, valid 20, eval 30 series of 2019" in capsys.readouterr().out
    train(data_root, tmp_path, "-n", 30)
    assert "train 27, valid 3, eval 30 series of 2019" in capsys.readouterr().out


def test_another_number_of_classes(data_root, tmp_path):
    """As many as the class map has, and "Other"."""
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "2019").symlink_to(data_root / "2019")
    lines = (data_root / "classmapping20.csv").read_text().splitlines()
    (tmp_path / "root" / f"classmapping{CLASSES}.csv").write_text("\n".join(lines[: CLASSES + 1]) + "\n")
    folder = train(tmp_path / "root", tmp_path / "results", "-c", CLASSES)
    assert np.load(folder / "test_conf_mat.npy").shape == (CLASSES + 1, CLASSES + 1)
    assert checkpoint(folder)["model_state"]["decoder.6.bias"].shape == (CLASSES + 1,)


# ---- how series reach the model


@pytest.mark.parametrize(
    ("model", "flags", "method", "word"),
    [
        ("stnet", (), "pad", "Pad"),
        ("stnet", ("--rc",), "rc", "RC"),
        ("stnet", ("--rc", "--interp"), "rc", "RC"),
        ("transformer", ("--interp",), "pad", "Pad"),
        ("ltae", ("--interp",), "pad", "Pad"),
        ("tempcnn", ("--rc", "--interp"), "interp", "Int"),
        ("lstm", ("--interp",), "interp", "Int"),
        ("rf", ("--interp",), "interp", "Int"),
        ("rf", ("--rc",), "rc", "RC"),
    ],
)
def test_interpolation_is_for_those_that_read_a_place_as_a_day(
    data_root, tmp_path, monkeypatch, capsys, model, flags, method, word
):
    seen, make = [], main_tscls.model_input

    def spy(series, size, method, generator):
        seen.append((size, method))
        return make(series, size, method, generator)

    monkeypatch.setattr(main_tscls, "model_input", spy)
    folder = train(data_root, tmp_path, *flags, model=model)
    assert set(seen) == {(20, method)} and f"_R50_{word}_2019_" in folder.name
    told = f"{model}: --interp is not for it" in capsys.readouterr().out
    assert told == ("--interp" in flags and method != "interp")


def test_use_doy_is_for_the_transformer(data_root, tmp_path, capsys):
    folder = train(data_root, tmp_path / "doy", "--use-doy", model="transformer")
    assert folder.name.endswith("_Seed111_doy")
    plain = train(data_root, tmp_path / "plain", model="transformer")
    assert column(folder, "train_loss") != column(plain, "train_loss")
    capsys.readouterr()
    assert not train(data_root, tmp_path, "--use-doy").name.endswith("doy")
    assert capsys.readouterr().out.count("stnet: --use-doy changes nothing") == 1


# ---- how it is trained


def recipe_of(folder) -> dict:
    return json.loads((folder / "args.json").read_text())["recipe_used"]


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


def test_init_chooses_how_fresh_weights_start(data_root, tmp_path):
    spread = {}
    for init in ("published", "torch"):
        folder = train(data_root, tmp_path / init, "--init", init, "-lr", 1e-12)
        spread[init] = weights(folder, "model_best.pth")["mlp1.2.bn.weight"].std().item()
    assert spread["published"] == pytest.approx(1, abs=0.2) and spread["torch"] < 1e-3


def test_losses_are_finite_however_sure_the_network_is(data_root, tmp_path):
    """Logits may reach thousands: no probability may end as zero, and a best epoch there is."""
    folder = train(data_root, tmp_path, "--recipe", "published", "-lr", 3, model="tempcnn")
    assert np.isfinite(column(folder, "valid_loss")).all()
    assert np.isfinite(column(folder, "loss", "testlog.csv")).all()


# ---- comparing


def test_several_models_end_in_one_table_best_first(data_root, tmp_path, capsys):
    main_tscls.main(
        f"stnet RF LSTM --rc -n 50 -e 1 -b 16 --sequencelength 20 -d cpu --seeds 1 2 --datapath {data_root}"
        f" -l {tmp_path}".split()
    )
    table = pd.read_csv(tmp_path / "comparison.csv")
    assert sorted(table["model"]) == ["lstm", "rf", "stnet"] and (table["runs"] == 2).all()
    assert table["oa_mean"].is_monotonic_decreasing
    assert {f"{name}_{part}" for name in SCORES for part in ("mean", "std")} <= set(table)
    sizes = dict(zip(table["model"], table["parameters"], strict=True))
    assert sizes["stnet"] == 122_549 and sizes["lstm"] > sizes["stnet"]
    assert (table[["train_seconds", "series_per_s"]] > 0).all(axis=None)
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if "±" in line]
    assert [line.split()[0] for line in lines] == table["model"].tolist()
    assert (tmp_path / "comparison.md").read_text().count("±") == 3 * 4


@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators_go_through_the_same_door(data_root, tmp_path, name):
    first, again = (train(data_root, tmp_path / str(i), "--interp", model=name) for i in range(2))
    assert first.name == f"T_{name.upper()}_R50_Int_2019_Seed111"
    assert rows(first, "testlog.csv") == rows(again, "testlog.csv")
    assert column(first, "oa", "testlog.csv")[0] > 0.5  # of 15 classes
    assert json.loads((first / "args.json").read_text())["model"] == name


# ---- the published layout


def test_the_published_layout(published_root, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = pretrain(published_root, tmp_path, "--rc", "--use-doy", "--mlp")
    assert "60 series" in capsys.readouterr().out
    tuned = train(published_root, tmp_path, "--rc", "--pretrained", folder / "model_best.pth")
    assert "train 45, valid 5, eval 30 series of 2019" in capsys.readouterr().out
    assert tuned.name == "F_Mo_STNet_R50_RC_2019_Seed111"
    site = train(published_root, tmp_path, "-n", 10, "--regions", "Adams")
    assert rows(site, "testlog.csv")[0]["series"] == "10"
