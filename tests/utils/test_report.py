import json

import numpy as np
import pandas as pd
import pytest

from utils import report
from utils.errors import UsageError
from utils.metrics import SCORES, classification_metrics
from utils.report import aligned, markdown, summarise, write_comparison, write_run_report
from utils.results import figures
from utils.results.runs import read_run, read_runs, results, run_folders

NAMES = ["Corn", "Soybeans", "Rice", "Other"]
needs_matplotlib = pytest.mark.skipif(not figures.available(), reason="matplotlib is not installed")


@pytest.fixture(autouse=True)
def forget_what_was_said():
    report._pictures.cache_clear()
    yield
    report._pictures.cache_clear()


@pytest.fixture
def without_matplotlib(monkeypatch):
    monkeypatch.setattr(figures, "available", lambda: False)


def write_run(folder, *, oa=(0.8,), years=(2019,), parameters=1000, **arguments):
    """A training run folder as main_tscls.py leaves it, tested on `years` with overall accuracies `oa`."""
    folder.mkdir(parents=True)
    arguments = {"model": "stnet", "seed": 111, "year": 2019, "pretrained": None, "num": 200, **arguments}
    (folder / "args.json").write_text(json.dumps(arguments))
    (folder / "classes.json").write_text(json.dumps(NAMES))
    pd.DataFrame([
        {"year": year, "regions": "", **dict.fromkeys(SCORES, value), "series": 100, "series_per_s": 50.0,
         "train_seconds": 30.0, "parameters": parameters}
        for year, value in zip(years, oa, strict=True)
    ]).to_csv(folder / "testlog.csv", index=False)  # fmt: skip
    metrics = classification_metrics([0, 0, 0, 1, 1, 3], [0, 0, 1, 1, 1, 1], len(NAMES))
    for year in years:
        tag = "" if year == years[0] else f"_{year}"
        np.save(folder / f"test_conf_mat{tag}.npy", metrics["confusion_matrix"])
    pd.DataFrame(
        {"epoch": [0, 1, 2], "train_loss": [3, 2, 1], "valid_loss": [3, 1.5, 2], "valid_oa": [0.1, 0.6, 0.5]}
    ).to_csv(folder / "trainlog.csv", index=False)
    return folder


def write_pretraining(folder):
    folder.mkdir(parents=True)
    (folder / "args.json").write_text('{"model": "transformer"}')
    pd.DataFrame(
        {"epoch": [0, 1], "train_loss": [5, 4], "valid_loss": [6, 5], "train_top1": [0, 0.2], "valid_top1": [0, 0.1]}
    ).to_csv(folder / "trainlog.csv", index=False)
    return folder


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG\r\n")


# --- one run ---


def test_f1_by_class(tmp_path, without_matplotlib):
    folder = write_run(tmp_path / "T_STNet_Seed111")
    assert write_run_report(folder) == [folder / "test_class_f1.csv"]
    table = pd.read_csv(folder / "test_class_f1.csv")
    assert list(table["name"]) == NAMES and list(table["support"]) == [3, 2, 0, 1]
    expected = classification_metrics([0, 0, 0, 1, 1, 3], [0, 0, 1, 1, 1, 1], len(NAMES))["class_f1"]
    np.testing.assert_allclose(table["f1"], expected)


@needs_matplotlib
def test_pictures_of_a_run(tmp_path):
    folder = write_run(tmp_path / "T_STNet_Seed111", years=(2019, 2020), oa=(0.8, 0.7))
    written = {path.name for path in write_run_report(folder)}
    pictures = {"confusion_matrix.png", "confusion_matrix_2020.png", "learning_curve.png"}
    assert written == pictures | {"test_class_f1.csv", "test_class_f1_2020.csv"}
    assert all(is_png(folder / name) for name in pictures)


@needs_matplotlib
def test_picture_of_a_pretraining(tmp_path):
    folder = write_pretraining(tmp_path / "P_MoCo")
    assert write_run_report(folder) == [folder / "learning_curve.png"]
    assert is_png(folder / "learning_curve.png")


@needs_matplotlib
def test_learning_curve_of_one_epoch_without_held_out_loss(tmp_path):
    log = pd.DataFrame({"epoch": [0], "train_loss": [1.0], "valid_loss": [np.nan]})
    figures.learning_curve(log, tmp_path / "curve.png")
    assert is_png(tmp_path / "curve.png")


@pytest.mark.parametrize("count, text", [
    (0, "0"), (99_999, "99999"), (123_456, "123k"), (999_500, "1M"), (4_500_000, "4.5M"),
])  # fmt: skip
def test_counts_fit_a_cell(count, text):
    assert figures._short(count) == text


def test_missing_matplotlib_is_said_once(tmp_path, without_matplotlib, capsys):
    for seed in (111, 222):
        write_run_report(write_run(tmp_path / f"T_Seed{seed}", seed=seed))
    write_comparison(tmp_path, tmp_path)
    assert capsys.readouterr().err == "no pictures: matplotlib is not installed (pip install matplotlib)\n"
    assert (tmp_path / "comparison.csv").exists() and not list(tmp_path.rglob("*.png"))


@pytest.mark.parametrize("name, content", [
    ("test_conf_mat.npy", b"not numpy"),
    ("test_conf_mat.npy", b""),
    ("classes.json", b'["Corn"]'),
    ("classes.json", b"4"),
])  # fmt: skip
def test_damaged_file_is_one_line(tmp_path, without_matplotlib, name, content):
    folder = write_run(tmp_path / "T_run")
    (folder / name).write_bytes(content)
    with pytest.raises(UsageError, match="T_run: no full report"):
        write_run_report(folder)


# --- over runs ---


def test_mean_and_std_over_seeds(tmp_path):
    for seed, oa in ((111, 0.7), (222, 0.8), (333, 0.9)):
        write_run(tmp_path / f"T_STNet_Seed{seed}", seed=seed, oa=(oa,), seeds=[seed])
    write_run(tmp_path / "T_RF_Seed111", model="rf", oa=(0.85,), parameters=None)
    summary = summarise(results(read_runs(tmp_path)))
    assert list(summary["label"]) == ["rf", "stnet"]  # best OA first
    assert list(summary["runs"]) == [1, 3] and list(summary["seeds"]) == ["111", "111 222 333"]
    np.testing.assert_allclose(summary["oa_mean"], [0.85, 0.8])
    np.testing.assert_allclose(summary["macro_f1_std"], [0, 0.1], atol=1e-12)
    assert np.isnan(summary["parameters"][0]) and summary["parameters"][1] == 1000


def labels_of(tmp_path, *experiments):
    for i, arguments in enumerate(experiments):
        write_run(tmp_path / f"T_{i}", oa=(0.9 - 0.1 * i,), **arguments)
    return list(summarise(results(read_runs(tmp_path)))["label"])


PRETRAINED = "checkpoints/pretrained/MoCoV2_TRSF_doy/model_best.pth"


@pytest.mark.parametrize("experiments, labels", [
    ([{}, {"pretrained": PRETRAINED}, {"pretrained": PRETRAINED, "freeze": True}],
     ["stnet", "stnet (pretrained: MoCoV2_TRSF_doy)", "stnet (pretrained: MoCoV2_TRSF_doy, frozen)"]),
    ([{"num": 50}, {"useall": True}], ["stnet (50 labels)", "stnet (all labels)"]),
    ([{"lr": 0.1}, {"lr": 0.2}, {"model": "rf", "lr": 0.3}], ["stnet (lr=0.1)", "stnet (lr=0.2)", "rf"]),
    ([{"suffix": None}, {"suffix": "x"}], ["stnet", "stnet (suffix=x)"]),
    ([{"datapath": "a"}, {"datapath": "b"}], ["stnet (data: a)", "stnet (data: b)"]),
    ([{"epochs": 2, "recipe_used": {"epochs": 2}}, {"epochs": 3, "recipe_used": {"epochs": 3}}],
     ["stnet (epochs=2)", "stnet (epochs=3)"]),
    ([{"recipe_used": {"epochs": 2}}, {"recipe_used": {"epochs": 3}}],
     ["stnet (recipe_used=epochs:2)", "stnet (recipe_used=epochs:3)"]),
    ([{}, {"regions": ["Adams", "Harvey"]}], ["stnet", "stnet (regions=Adams+Harvey)"]),
])  # fmt: skip
def test_labels_say_what_differs(tmp_path, experiments, labels):
    assert labels_of(tmp_path, *experiments) == labels


def test_training_year_is_the_headline(tmp_path):
    write_run(tmp_path / "T_a", years=(2019, 2020), oa=(0.9, 0.6))
    write_run(tmp_path / "T_b", model="rf", year=2020, years=(2019, 2020), oa=(0.5, 0.8))
    summary = summarise(results(read_runs(tmp_path)))
    assert list(summary["oa_mean"]) == [0.9, 0.8]
    assert list(summary["label"]) == ["stnet (trained on 2019) on 2019", "rf (trained on 2020) on 2020"]


def test_years_table(tmp_path, without_matplotlib):
    for seed, shift in ((111, 0), (222, 0.02)):
        write_run(tmp_path / f"T_a{seed}", seed=seed, years=(2019, 2020, 2021), oa=np.array([0.9, 0.7, 0.6]) + shift)
    write_run(tmp_path / "T_b", model="lstm", years=(2019, 2020, 2021), oa=(0.5, 0.4, 0.3))
    text = write_comparison(tmp_path, tmp_path / "out")
    years = pd.read_csv(tmp_path / "out" / "years.csv")
    assert list(years["label"]) == ["stnet"] * 3 + ["lstm"] * 3  # as in the comparison, not by name
    assert list(years["year"]) == [2019, 2020, 2021] * 2
    np.testing.assert_allclose(years["oa_mean"][:3], [0.91, 0.71, 0.61])
    table = (tmp_path / "out" / "years.md").read_text(encoding="utf-8")
    assert "| stnet | 2021 | 0.610 ± 0.014 |" in table and "| lstm | 2021 | 0.300 | 0.300 |" in table
    assert years["oa_std"][3] == 0
    assert "tested on" in text


def test_one_test_year_needs_no_years_table(tmp_path, without_matplotlib):
    write_run(tmp_path / "T_a")
    assert "tested on" not in write_comparison(tmp_path, tmp_path)
    assert not (tmp_path / "years.csv").exists()


def test_the_years_of_an_earlier_comparison_do_not_stay(tmp_path, without_matplotlib):
    folders = [write_run(tmp_path / "T_a", years=(2019, 2020), oa=(0.9, 0.7)), write_run(tmp_path / "T_b", model="rf")]
    write_comparison(folders, tmp_path)
    assert {"years.csv", "years.md"} <= {file.name for file in tmp_path.iterdir()}
    write_comparison(folders[1], tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"T_a", "T_b", "comparison.csv", "comparison.md"}


@needs_matplotlib
def test_comparison_files(tmp_path):
    write_run(tmp_path / "T_a", oa=(0.8125,))
    text = write_comparison([tmp_path / "T_a"], tmp_path / "out")
    assert "0.812 " in text and "±" not in text and "1,000" in text and "30.0 s" in text
    assert pd.read_csv(tmp_path / "out" / "comparison.csv")["oa_mean"][0] == 0.8125  # numbers, not rounded
    assert is_png(tmp_path / "out" / "comparison.png")


@needs_matplotlib
def test_the_axis_of_a_comparison_ends_at_one(tmp_path, monkeypatch):
    drawn = []
    new_figure = figures.new_figure
    monkeypatch.setattr(figures, "new_figure", lambda *size: drawn.append(new_figure(*size)) or drawn[-1])
    stds = {"of seeds": [0.0, 0.2, np.nan], "of one": [np.nan] * 3}
    for name, spread in stds.items():
        figures.comparison(["a", "b", "c"], {"OA": ([0.3, 0.9, 0.999], spread)}, tmp_path / f"{name}.png")
    first, second = (figure.axes[0] for figure in drawn)
    assert first.get_xlim() == (0, 1) and first.get_xticks()[-1] == 1
    assert [text.get_text() for text in first.texts] == ["0.300 ± 0.000", "0.900 ± 0.200", "0.999"]
    assert [text.get_position()[0] for text in first.texts] == pytest.approx([0.312, 1.012, 1.011])
    assert "±" in first.get_xlabel() and "±" not in second.get_xlabel()


@pytest.mark.parametrize("label, lines", [
    ("stnet (pretrained: MoCoV2_TRSF_doy, frozen)", ["stnet (pretrained: MoCoV2_TRSF_doy,", "frozen)"]),
    ("stnet (pretrained: P_MoCoV2TransformerModel_R3000_RC_2019_doy)",
     ["stnet (pretrained:", "P_MoCoV2TransformerModel_R3000_RC_", "2019_doy)"]),
    ("stnet (" + "x" * 50 + "/few-label)", ["stnet", "(" + "x" * 50 + "/", "few-label)"]),
])  # fmt: skip
def test_labels_are_broken_between_words(label, lines):
    assert figures._broken(label).split("\n") == lines


def test_tables():
    cells = pd.DataFrame({"model": ["stnet", "rf"], "OA": ["0.9", "0.81"]})
    assert aligned(cells).splitlines() == ["model    OA", "stnet   0.9", "rf     0.81"]
    assert markdown(cells).splitlines() == ["| model | OA |", "| --- | ---: |", "| stnet | 0.9 |", "| rf | 0.81 |"]


@pytest.mark.parametrize("seconds, text", [
    (np.nan, "–"), (1.23, "1.2 s"), (99.9, "99.9 s"), (150, "2 min"), (7200, "2 h 00 min"),
])  # fmt: skip
def test_durations(seconds, text):
    assert report._duration(seconds) == text


@pytest.mark.parametrize("name, content, message", [
    ("args.json", "{", "damaged"),
    ("args.json", "[]", "does not name a model"),
    ("testlog.csv", "", "damaged"),
    ("testlog.csv", "year,oa,kappa,macro_f1\n2019,1,1,1\n", "lacks weighted_f1"),
    ("testlog.csv", "year,oa,kappa,macro_f1,weighted_f1\n", "lacks a row"),
    ("testlog.csv", "year,oa,kappa,macro_f1,weighted_f1\n2019,1,1,1,high\n", "not a number"),
])  # fmt: skip
def test_damaged_run_is_named_and_skipped(tmp_path, capsys, name, content, message):
    write_run(tmp_path / "T_good")
    bad = write_run(tmp_path / "T_bad", seed=222)
    (bad / name).write_text(content)
    assert list(summarise(results(read_runs(tmp_path)))["runs"]) == [1]
    error = capsys.readouterr().err
    assert "T_bad" in error and message in error and error.count("\n") == 1
    with pytest.raises(UsageError):
        read_run(bad)


# --- the command ---


def test_command_rebuilds_everything(tmp_path, without_matplotlib, capsys):
    write_run(tmp_path / "runs" / "T_a")
    write_pretraining(tmp_path / "runs" / "P_b")
    (tmp_path / "runs" / "T_cut").mkdir()
    (tmp_path / "runs" / "T_cut" / "args.json").write_text('{"model": "stnet"}')
    report.main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")])
    out, err = capsys.readouterr()
    assert "0.800" in out and "T_cut: no testlog.csv" in err
    assert (tmp_path / "runs" / "T_a" / "test_class_f1.csv").exists()
    assert (tmp_path / "out" / "comparison.md").exists()


def test_pretraining_alone_is_no_error(tmp_path, capsys):
    write_pretraining(tmp_path / "P_b")
    report.main([str(tmp_path)])
    assert "no training run to compare" in capsys.readouterr().out


@pytest.mark.parametrize("name, message", [("", "no run in"), ("absent", "no such folder")])
def test_nothing_there(tmp_path, name, message, capsys):
    with pytest.raises(SystemExit) as ended:
        report.main([str(tmp_path / name)])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and message in error and error.count("\n") == 1


def test_runs_that_were_moved_away_do_not_count(tmp_path):
    """The newest keeps the name; the earlier ones count where they are asked for."""
    newest, moved = write_run(tmp_path / "T_a_Seed1", oa=(0.8,)), write_run(tmp_path / "T_a_Seed1.1", oa=(0.2,))
    (moved.with_name("T_a_Seed1.2")).mkdir()
    (moved.with_name("T_a_Seed1.2") / "args.json").write_text("{")  # stopped, and damaged
    other = write_run(tmp_path / "T_b_Seed1.1")  # there is no T_b_Seed1
    assert run_folders(tmp_path) == [newest, other]
    assert run_folders([tmp_path, moved]) == [newest, other, moved]
    summary = summarise(results(read_runs([tmp_path])))
    assert summary["runs"].sum() == 2 and summary["oa_mean"].min() == 0.8


def test_a_suffix_that_looks_like_a_moved_run(tmp_path):
    names = {"T_a_v1": "v1", "T_a_v1.5": "v1.5", "T_a_v1.5.1": "v1.5", "T_a_v1.1": "v1"}
    folders = [write_run(tmp_path / name, suffix=suffix) for name, suffix in names.items()]
    assert run_folders(tmp_path) == folders[:2]


def test_run_folder_given_twice_counts_once(tmp_path):
    folder = write_run(tmp_path / "T_a")
    assert run_folders([tmp_path, folder]) == [folder]
