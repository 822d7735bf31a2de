"""main_tscls.py over models, seeds, sites and years: the series that are used, the model's input, and the tables."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import main_tscls
from datasets.store import Store
from models import ESTIMATORS
from tests.support.layout import CLASSES
from tests.support.runs import calls_of, checkpoint, column, pretrain, rows, train
from tscls import inputs
from utils import report
from utils.metrics import SCORES

pytestmark = pytest.mark.usefixtures("no_pictures")


# ---- which series


def test_regions_are_trained_and_tested_on_alone(data_root, tmp_path, capsys):
    folder = train(data_root, tmp_path, "-n", 20, "--regions", "Adams", "Harvey")
    assert "train 18, valid 2, eval 20 series of 2019 from " in (printed := capsys.readouterr().out)
    assert "; Adams, Harvey only\n" in printed
    (row,) = rows(folder, "testlog.csv")
    assert (row["regions"], row["series"]) == ("Adams+Harvey", "20")
    assert folder.name.endswith("_Adams+Harvey")


def test_a_site_left_out_is_tested_on_alone(data_root, tmp_path, capsys):
    folder = train(data_root, tmp_path, "-n", 20, "--leave-out", "Adams", "--years", 2019, 2020)
    printed = capsys.readouterr().out
    assert "train 18, valid 2, eval 10 series" in printed
    assert "; Adams is left out of training and tested on alone\n" in printed
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


def test_useall_takes_all_and_the_budget_its_number(data_root, tmp_path, capsys):
    folder = train(data_root, tmp_path, "--useall")
    assert folder.name == "T_STNet_Pad_2019_Seed111"
    assert "train 90, valid 20, eval 30 series of 2019" in capsys.readouterr().out
    train(data_root, tmp_path, "-n", 30)
    assert "train 27, valid 3, eval 30 series of 2019" in capsys.readouterr().out


def test_the_model_has_an_output_for_each_class_of_the_map_and_other(data_root, tmp_path):
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
def test_interpolation_is_for_models_that_take_a_position_for_a_day(
    data_root, tmp_path, monkeypatch, capsys, model, flags, method, word
):
    seen = calls_of(inputs, "model_input", monkeypatch)
    folder = train(data_root, tmp_path, *flags, "--draws", 1, model=model)
    assert {call[1:3] for call in seen} == {(20, method)} and f"_R50_{word}_2019_" in folder.name
    told = f"{model}: --interp is not for it" in capsys.readouterr().out
    assert told == ("--interp" in flags and method != "interp")


def test_use_doy_changes_the_transformer_alone(data_root, tmp_path, capsys):
    folder = train(data_root, tmp_path / "doy", "--use-doy", model="transformer")
    assert folder.name.endswith("_Seed111_doy")
    plain = train(data_root, tmp_path / "plain", model="transformer")
    assert column(folder, "train_loss") != column(plain, "train_loss")
    capsys.readouterr()
    assert not train(data_root, tmp_path, "--use-doy").name.endswith("doy")
    assert capsys.readouterr().out.count("stnet: --use-doy changes nothing") == 1


# ---- comparing


def test_each_seed_is_a_run(data_root, tmp_path, capsys, monkeypatch):
    drawn = calls_of(main_tscls, "open_labelled", monkeypatch)
    train(data_root, tmp_path, "--rc", "--seeds", 7, 8, 9)
    folders = sorted(path for path in tmp_path.iterdir() if path.is_dir())
    assert [folder.name for folder in folders] == [f"T_STNet_R50_RC_2019_Seed{seed}" for seed in (7, 8, 9)]
    assert len({tuple(column(folder, "train_loss")) for folder in folders}) == 3
    assert [selection.seed for *_, selection in drawn] == [7, 8, 9]  # of the label budget too
    scores = [column(folder, "oa", "testlog.csv")[0] for folder in folders]
    (summary,) = pd.read_csv(tmp_path / "comparison.csv").to_dict("records")
    assert summary["runs"] == 3 and summary["oa_mean"] == pytest.approx(np.mean(scores))
    assert summary["oa_std"] == pytest.approx(np.std(scores, ddof=1))
    assert f"{np.mean(scores):.3f} ± {np.std(scores, ddof=1):.3f}" in capsys.readouterr().out


def test_a_seed_given_twice_is_run_once(data_root, tmp_path, capsys):
    train(data_root, tmp_path, "--seeds", 1, 2, 1)
    printed = capsys.readouterr().out
    assert "--seeds: one is given more than once; it is run once" in printed
    assert [line.split(":")[0] for line in printed.splitlines() if line.startswith("seed ")] == ["seed 1", "seed 2"]


def test_several_models_are_in_one_table_best_first(data_root, tmp_path, capsys):
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
    assert (tmp_path / "comparison.md").read_text().count("±") == 3 * len(SCORES)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators_are_trained_by_the_same_command(data_root, tmp_path, name):
    first, again = (train(data_root, tmp_path / str(i), "--interp", model=name) for i in range(2))
    assert first.name == f"T_{name.upper()}_R50_Int_2019_Seed111"
    assert rows(first, "testlog.csv") == rows(again, "testlog.csv")
    assert column(first, "oa", "testlog.csv")[0] > 0.5  # of 15 classes
    assert json.loads((first / "args.json").read_text())["model"] == name


def test_runs_of_one_name_that_differ_in_the_rate_are_rows_of_the_report(data_root, tmp_path, capsys):
    for rate in ("0.001", "0.002", "0.003"):
        train(data_root, tmp_path, "-lr", rate, "--suffix", "auto", "--seeds", 1, 2)
    train(data_root, tmp_path, "-lr", "0.002", "--suffix", "auto", "--seeds", 2, 1)
    names = [f"T_STNet_R50_Pad_2019_Seed{seed}{number}" for seed in (1, 2) for number in ("", "_2", "_3")]
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == names
    capsys.readouterr()
    report.main([str(tmp_path)])
    assert capsys.readouterr().err == ""  # no run repeats another
    table = pd.read_csv(tmp_path / "comparison.csv").set_index("label")
    assert sorted(table.index) == [f"stnet (learning_rate={rate})" for rate in ("0.001", "0.002", "0.003")]
    assert (table["runs"] == 2).all()
    for rate, number in (("0.001", ""), ("0.002", "_2"), ("0.003", "_3")):
        folders = [tmp_path / f"T_STNet_R50_Pad_2019_Seed{seed}{number}" for seed in (1, 2)]
        assert {json.loads((folder / "args.json").read_text())["learning_rate"] for folder in folders} == {float(rate)}
        mean = np.mean([column(folder, "oa", "testlog.csv")[0] for folder in folders])
        assert table.loc[f"stnet (learning_rate={rate})", "oa_mean"] == pytest.approx(mean)


# ---- the published layout


def test_the_published_layout_is_trained_on(published_root, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = pretrain(published_root, tmp_path, "--rc", "--use-doy", "--mlp")
    assert "60 series" in capsys.readouterr().out
    tuned = train(published_root, tmp_path, "--rc", "--pretrained", folder / "model_best.pth")
    assert "train 45, valid 5, eval 30 series of 2019" in capsys.readouterr().out
    assert tuned.name == "F_Mo_STNet_R50_RC_2019_Seed111"
    site = train(published_root, tmp_path, "-n", 10, "--regions", "Adams")
    assert rows(site, "testlog.csv")[0]["series"] == "10"
