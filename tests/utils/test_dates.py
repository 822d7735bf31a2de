"""Accuracy by date: tables and pictures of runs whose series end with different days."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from utils import report
from utils.metrics import SCORES
from utils.report import write_comparison
from utils.results import dates, figures
from utils.results.figures import readable_day
from utils.results.runs import read_runs, results

NAMES = ["Corn", "Soybeans", "Rice", "Other"]
FILES = {"dates.csv", "dates.md", "dates_classes.csv"}


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr(report, "_pictures", lambda: False)


def write_run(logdir: Path, day: int | None, oa: float, f1: list[float], *, seed: int = 1, years=(2019,), **arguments):
    """A run folder of series up to a day, with F1 of classes of support 3, 2, 0 and 1."""
    shown = "-".join(map(str, arguments.values())).replace("/", "-")
    folder = logdir / f"T_{shown}_Seed{seed}_D{day}"
    folder.mkdir(parents=True)
    arguments = {"model": "stnet", "seed": seed, "year": 2019, "num": 200, "until_doy": day, **arguments}
    (folder / "args.json").write_text(json.dumps(arguments))
    rows = [{"year": year, "regions": "", "prior": "none", **dict.fromkeys(SCORES, oa - i / 10)}
            for i, year in enumerate(years)]  # fmt: skip
    pd.DataFrame(rows).assign(macro_f1_present=oa / 2).to_csv(folder / "testlog.csv", index=False)
    table = {"class": range(4), "name": NAMES, "support": [3, 2, 0, 1], "f1": f1}
    pd.DataFrame(table).to_csv(folder / "test_class_f1.csv", index=False)
    return folder


@pytest.fixture
def logdir(tmp_path):
    """Two days and seeds of one experiment, and one day of another."""
    write_run(tmp_path, 240, 0.9, [0.9, 0.8, 0, 0.7], seed=1)
    write_run(tmp_path, 240, 0.8, [0.7, 0.8, 0, 0.1], seed=2)
    write_run(tmp_path, 90, 0.5, [0.4, 0.2, 0.1, 0], seed=1)
    write_run(tmp_path, 90, 0.3, [0.2, 0.2, 0, 0], seed=2)
    write_run(tmp_path, 90, 0.6, [0.1, 0.1, 0, 0], model="rf")
    write_run(tmp_path, None, 0.95, [1, 1, 0, 1])
    return tmp_path


def test_scores_are_means_over_seeds_by_date(logdir):
    text = write_comparison(logdir, logdir)
    table = pd.read_csv(logdir / "dates.csv")
    assert table["label"].tolist() == ["stnet", "stnet"] and table["until_doy"].tolist() == [90, 240]
    assert table["runs"].tolist() == [2, 2] and table["seeds"].tolist() == ["1 2", "1 2"]
    np.testing.assert_allclose(table["oa_mean"], [0.4, 0.85])
    np.testing.assert_allclose(table["oa_std"], [np.sqrt(0.02), np.sqrt(0.005)])
    np.testing.assert_allclose(table["macro_f1_present_mean"], [0.2, 0.425])
    lines = (logdir / "dates.md").read_text().splitlines()
    assert lines[0].startswith("| model | up to day | OA | kappa |") and len(lines) == 4
    assert lines[2].startswith("| stnet | 90 | 0.400 ± 0.141 |") and lines[3].startswith(
        "| stnet | 240 | 0.850 ± 0.071 |"
    )
    tables = text.split("\n\n")
    assert len(tables) == 2 and tables[1].splitlines()[0].split()[:4] == ["model", "up", "to", "day"]
    assert "stnet (up to day 240)" in tables[0] and "stnet (whole series)" in tables[0]
    assert "rf (up to day 90)" in tables[0]


def test_f1_of_the_classes_of_the_test_by_date(logdir):
    write_comparison(logdir, logdir)
    table = pd.read_csv(logdir / "dates_classes.csv")
    assert list(table) == ["label", "until_doy", "class", "name", "support", "f1_mean", "f1_std"]
    assert table["name"].tolist() == ["Corn", "Soybeans", "Other"] * 2  # no rice is there
    assert table["until_doy"].tolist() == [90] * 3 + [240] * 3 and table["support"].tolist() == [3, 2, 1] * 2
    np.testing.assert_allclose(table["f1_mean"], [0.3, 0.2, 0, 0.8, 0.8, 0.4])
    np.testing.assert_allclose(table["f1_std"], np.array([0.2, 0, 0, 0.2, 0, 0.6]) / np.sqrt(2), atol=1e-12)


def test_curves_of_several_models_stand_one_below_the_other(logdir):
    write_run(logdir, 240, 0.7, [0.1, 0.1, 0, 0], model="rf")
    write_comparison(logdir, logdir)
    table = pd.read_csv(logdir / "dates.csv")
    assert list(zip(table["label"], table["until_doy"], strict=True)) == [
        ("rf", 90), ("rf", 240), ("stnet", 90), ("stnet", 240),
    ]  # fmt: skip
    assert pd.read_csv(logdir / "dates_classes.csv")["f1_std"].isna().sum() == 6  # of one seed


def test_without_several_days_there_is_no_table_and_an_earlier_one_goes(logdir):
    for name in (*FILES, "dates.png"):
        (logdir / name).write_text("of an earlier comparison")
    folders = [
        folder for folder in logdir.iterdir() if folder.name.startswith(("T_rf", "T__Seed1_D240", "T__Seed1_DNone"))
    ]
    assert len(folders) == 3 and "\n\n" not in write_comparison(folders, logdir)
    assert not list(logdir.glob("dates*"))


def test_the_test_on_the_training_year_counts_or_else_the_first(tmp_path):
    for day in (100, 200):
        write_run(tmp_path, day, 0.8, [0.5, 0.5, 0, 0.5], years=(2020, 2019))
        folder = write_run(tmp_path, day, 0.8, [0.5, 0.5, 0, 0.5], years=(2020, 2021), pretrained="a_b/x.pth")
        table = pd.read_csv(folder / "test_class_f1.csv").assign(f1=0.25)
        table.to_csv(folder / "test_class_f1_2020.csv", index=False)
        table.assign(f1=0.75).to_csv(tmp_path / f"T__Seed1_D{day}" / "test_class_f1_2019.csv", index=False)
    rows = dates.dated(results(read_runs(tmp_path)))
    found = rows[["label", "year", "oa", "curve"]].values.tolist()
    assert [(year, curve) for _, year, _, curve in found] == [("2019", "stnet")] * 2 + [
        ("2020", "stnet (pretrained: a_b)")
    ] * 2
    np.testing.assert_allclose(rows["oa"], [0.7, 0.7, 0.8, 0.8])
    classes = dates.by_class(rows)
    assert set(classes[classes["label"] == "stnet"]["f1_mean"]) == {0.5}
    assert set(classes[classes["label"] != "stnet"]["f1_mean"]) == {0.25}


@pytest.mark.parametrize("content", [None, "class,name\n1,Corn\n", ""])
def test_a_run_without_f1_by_class_is_told_and_the_others_count(logdir, content, capsys):
    file = logdir / "T__Seed1_D90" / "test_class_f1.csv"
    file.unlink()
    if content is not None:
        file.write_text(content)
    write_comparison(logdir, logdir)
    assert f"no F1 by class of {file.parent}: test_class_f1.csv " in capsys.readouterr().err
    np.testing.assert_allclose(pd.read_csv(logdir / "dates_classes.csv")["f1_mean"], [0.2, 0.2, 0, 0.8, 0.8, 0.4])
    assert pd.read_csv(logdir / "dates.csv")["runs"].tolist() == [2, 2]


@pytest.mark.skipif(not figures.available(), reason="matplotlib is not installed")
def test_the_picture_shows_the_values_of_the_tables(logdir, monkeypatch):
    drawn = []
    monkeypatch.setattr(report, "_pictures", lambda: True)
    monkeypatch.setattr(figures, "save", lambda figure, path: drawn.append((figure, path)))
    write_run(logdir, 240, 0.7, [0.1, 0.1, 0, 0], model="rf")
    write_comparison(logdir, logdir)
    figure, path = drawn[-1]
    assert path == logdir / "dates.png" and len(figure.axes) == 4
    of_stnet = figure.axes[2:]
    assert of_stnet[0].get_title() == "stnet" and figure.axes[0].get_title() == "rf"
    assert figure.get_suptitle() == "accuracy on the eval split by date, mean ± standard deviation over seeds"
    overall = {line.get_label(): line[0].get_xydata().tolist() for line in of_stnet[0].containers}
    assert overall["OA"] == [[90, pytest.approx(0.4)], [240, pytest.approx(0.85)]]
    assert overall["macro F1 of the classes present"] == [[90, pytest.approx(0.2)], [240, pytest.approx(0.425)]]
    bars = of_stnet[0].containers[0][2][0].get_segments()
    assert np.diff(bars[0][:, 1]) == pytest.approx(2 * np.sqrt(0.02))
    curves = {line.get_label(): line.get_ydata().tolist() for line in of_stnet[1].get_lines()}
    assert list(curves) == ["Corn (3)", "Soybeans (2)", "Other (1)"]
    np.testing.assert_allclose(list(curves.values()), [[0.3, 0.8], [0.2, 0.8], [0, 0.4]], atol=1e-12)
    for axes in of_stnet:
        assert [text.get_text() for text in axes.get_xticklabels()] == ["90\n31 Mar", "240\n28 Aug"]


def test_days_are_shown_with_their_dates():
    days = (1, 60, 365, 366, 367, 424, 732)
    found = [readable_day(day) for day in days]
    assert found == ["1 Jan", "1 Mar", "31 Dec", "31 Dec", "1 Jan", "27 Feb", "31 Dec"]
