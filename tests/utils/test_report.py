"""Tables and pictures of runs: the values in them, and the errors of damaged files."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils import report
from utils.errors import UsageError
from utils.metrics import SCORES, classification_metrics
from utils.report import aligned, markdown, summarise, write_comparison, write_run_report
from utils.results import figures, runs
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


def test_accuracies_by_class_are_those_of_the_confusion_matrix(tmp_path, without_matplotlib):
    folder = write_run(tmp_path / "T_STNet_Seed111")
    assert write_run_report(folder) == [folder / "test_class_f1.csv"]
    table = pd.read_csv(folder / "test_class_f1.csv")
    assert list(table["name"]) == NAMES and list(table["support"]) == [3, 2, 0, 1]
    np.testing.assert_allclose(table["f1"], [0.8, 2 / 3, 0, 0])
    np.testing.assert_allclose(table["users_accuracy"], [1, 1 / 2, np.nan, np.nan])
    np.testing.assert_allclose(table["producers_accuracy"], [2 / 3, 1, np.nan, 0])


@needs_matplotlib
def test_a_run_has_a_confusion_matrix_a_test_set_and_a_learning_curve(tmp_path):
    folder = write_run(tmp_path / "T_STNet_Seed111", years=(2019, 2020), oa=(0.8, 0.7))
    written = {path.name for path in write_run_report(folder)}
    pictures = {"confusion_matrix.png", "confusion_matrix_2020.png", "learning_curve.png"}
    assert written == pictures | {"test_class_f1.csv", "test_class_f1_2020.csv"}
    assert all(is_png(folder / name) for name in pictures)


@needs_matplotlib
def test_a_pretraining_has_a_learning_curve(tmp_path):
    folder = write_pretraining(tmp_path / "P_MoCo")
    assert write_run_report(folder) == [folder / "learning_curve.png"]
    assert is_png(folder / "learning_curve.png")


@pytest.fixture
def drawn(monkeypatch) -> list:
    """The figures that are drawn."""
    found = []
    new_figure = figures.new_figure
    monkeypatch.setattr(figures, "new_figure", lambda *size: found.append(new_figure(*size)) or found[-1])
    return found


def ink(path, colour: str) -> int:
    """Pixels of about this colour."""
    image = pytest.importorskip("matplotlib.image").imread(path)[..., :3]
    wanted = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return int((np.abs(image - wanted).max(-1) < 0.02).sum())


@needs_matplotlib
def test_the_curve_of_one_epoch_is_visible_beside_the_line_of_the_best_epoch(tmp_path, drawn):
    log = pd.DataFrame({"epoch": [0], "train_loss": [1.0], "valid_loss": [2.0]})
    figures.learning_curve(log, tmp_path / "one.png")
    legend = 30  # pixels of a legend's line and marker, at most, of an ordinary curve
    assert all(ink(tmp_path / "one.png", colour) > 150 + legend for colour in figures.COLOURS[:2])
    figures.learning_curve(log.assign(valid_loss=np.nan), tmp_path / "two.png")
    assert len(drawn[0].axes[0].lines) == 3 and len(drawn[1].axes[0].lines) == 2  # no best epoch


@needs_matplotlib
def test_the_axes_of_a_learning_curve_name_their_scores(tmp_path, drawn):
    scores = {"train_oa": [0, 1], "valid_oa": [0, 0.5], "valid_macro_f1": [0, 0.2], "valid_macro_f1_present": [0, 0.4]}
    log = pd.DataFrame({"epoch": [0, 1], "train_loss": [100, 1], "valid_loss": [50, 2], **scores})
    figures.learning_curve(log, tmp_path / "a.png")
    figures.learning_curve(log[["epoch", "train_loss"]].assign(train_top1=0.5), tmp_path / "b.png")
    assert [[axes.get_ylabel() for axes in figure.axes] for figure in drawn] == [
        ["loss", "OA", "macro F1"], ["loss", "top-1 accuracy"],
    ]  # fmt: skip
    loss, _, f1 = drawn[0].axes
    assert loss.get_yscale() == "log" and [line.get_ydata()[-1] for line in f1.lines[1:]] == [0.2, 0.4]
    assert [text.get_text() for text in f1.get_legend().texts] == [
        "best epoch: 1", "held out, all classes", "held out, present classes",
    ]  # fmt: skip


@needs_matplotlib
def test_a_confusion_matrix_has_rows_of_true_classes_and_columns_of_predicted_ones_too(tmp_path, drawn):
    matrix = np.zeros((5, 5), dtype=int)
    matrix[0, 0], matrix[0, 3], matrix[2, 2] = 3, 1, 2
    figures.confusion_matrix(matrix, list("abcde"), tmp_path / "m.png", "title")
    axes = drawn[0].axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a (4)", "c (2)"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "c", "d"]
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.75, 0, 0.25], [0, 1, 0]])
    assert {(text.get_position(), text.get_text()) for text in axes.texts} == {
        ((0, 0), "3"), ((2, 0), "1"), ((1, 1), "2"),
    }  # fmt: skip
    assert axes.get_title() == (
        "title\nof 5 classes: 1 predicted but without series; 2 in neither truth nor prediction, not shown"
    )


def test_offsets_are_symmetric():
    np.testing.assert_allclose(figures.offsets(3, 0.1), [-0.1, 0, 0.1])
    np.testing.assert_allclose(figures.offsets(2, 0.1), [-0.05, 0.05])
    assert figures.offsets(1, 0.1).tolist() == [0]


@pytest.mark.parametrize("count, text", [
    (0, "0"), (99_999, "99999"), (123_456, "123k"), (999_500, "1M"), (4_500_000, "4.5M"),
])  # fmt: skip
def test_counts_fit_a_cell(count, text):
    assert figures._short(count) == text


def test_without_matplotlib_one_line_says_so(tmp_path, without_matplotlib, capsys):
    for seed in (111, 222):
        write_run_report(write_run(tmp_path / f"T_Seed{seed}", seed=seed))
    write_comparison(tmp_path, tmp_path)
    assert capsys.readouterr().err == "no pictures: matplotlib is not installed (pip install matplotlib)\n"
    assert (tmp_path / "comparison.csv").exists() and not list(tmp_path.rglob("*.png"))


@pytest.mark.parametrize("name, content, expected", [
    ("test_conf_mat.npy", b"not numpy", "this file is damaged"),
    ("test_conf_mat.npy", b"", "this file is damaged"),
    ("classes.json", b'["Corn"', "this file is damaged"),
    ("classes.json", b'["Corn"]', r"test_conf_mat.npy has shape \(4, 4\), classes.json 1 names"),
    ("classes.json", b"4", "classes.json no names"),
])  # fmt: skip
def test_a_damaged_file_is_one_line(tmp_path, without_matplotlib, name, content, expected):
    folder = write_run(tmp_path / "T_run")
    (folder / name).write_bytes(content)
    with pytest.raises(UsageError, match=f"T_run.*: no full report: .*{expected}") as error:
        write_run_report(folder)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path, without_matplotlib):
    folder = write_run(tmp_path / "T_run")
    (folder / "classes.json").unlink()
    with pytest.raises(UsageError, match="classes.json: no full report: this file is missing"):
        write_run_report(folder)


def test_a_folder_that_cannot_be_written_to_is_not_called_damaged(tmp_path, without_matplotlib):
    folder = write_run(tmp_path / "T_run")
    (folder / "test_class_f1.csv" / "in the way").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"test_class_f1.csv: cannot be written \(.*\); no full report"):
        write_run_report(folder)


# --- over runs ---


def test_a_summary_has_mean_and_standard_deviation_over_seeds(tmp_path):
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


def test_the_training_year_is_the_headline(tmp_path):
    write_run(tmp_path / "T_a", years=(2019, 2020), oa=(0.9, 0.6))
    write_run(tmp_path / "T_b", model="rf", year=2020, years=(2019, 2020), oa=(0.5, 0.8))
    summary = summarise(results(read_runs(tmp_path)))
    assert list(summary["oa_mean"]) == [0.9, 0.8]
    assert list(summary["label"]) == ["stnet (trained on 2019) on 2019", "rf (trained on 2020) on 2020"]


def test_scores_are_averaged_by_test_year(tmp_path, without_matplotlib):
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
    head = "| model | tested on | OA | kappa | macro F1 | macro F1 (present) | weighted F1 |"
    assert table.splitlines()[0] == head
    assert years["oa_std"][3] == 0
    assert "tested on" in text


@needs_matplotlib
def test_scores_are_drawn_by_test_year_with_offsets(tmp_path, drawn):
    for seed, shift in ((111, 0), (222, 0.02)):
        write_run(tmp_path / f"T_a{seed}", seed=seed, years=(2019, 2021), oa=np.array([0.9, 0.6]) + shift)
    write_run(tmp_path / "T_b", model="lstm", years=(2019, 2020, 2021), oa=(0.5, 0.4, 0.3))
    write_comparison(tmp_path, tmp_path / "out")
    assert is_png(tmp_path / "out" / "years.png")
    axes = drawn[-1].axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2019", "2020", "2021"]
    assert [axes.get_ylabel() for axes in drawn[-1].axes] == ["OA", "macro F1", "macro F1 (present)"]
    stnet, lstm = (container.lines[0] for container in axes.containers)
    np.testing.assert_allclose(stnet.get_xydata(), [[-0.03, 0.91], [1.97, 0.61]])
    np.testing.assert_allclose(lstm.get_xydata(), [[0.03, 0.5], [1.03, 0.4], [2.03, 0.3]])
    bars = axes.containers[0].lines[2][0].get_segments()
    np.testing.assert_allclose(np.ptp(bars[0][:, 1]), 2 * np.std([0.9, 0.92], ddof=1))


def test_runs_of_earlier_versions_have_no_macro_f1_of_present_classes(tmp_path, without_matplotlib):
    for folder in (write_run(tmp_path / "T_old"), write_run(tmp_path / "T_old2", seed=222)):
        tests = pd.read_csv(folder / "testlog.csv").drop(columns="macro_f1_present")
        tests.to_csv(folder / "testlog.csv", index=False)
    write_run(tmp_path / "T_new", model="rf", oa=(0.7,))
    text = write_comparison(tmp_path, tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "comparison.csv")
    np.testing.assert_array_equal(table["macro_f1_present_mean"], [np.nan, 0.7])
    np.testing.assert_array_equal(table["macro_f1_present_std"], [np.nan, 0])
    assert text.splitlines()[1].split()[-9:-2] == ["–", "0.800", "±", "0.000", "1,000", "30.0", "s"]


@needs_matplotlib
def test_a_comparison_with_runs_of_earlier_versions_is_drawn(tmp_path, drawn):
    nan = np.nan
    figures.comparison(["a", "b"], {"OA": ([0.3, 0.9], [nan, nan]), "F1": ([nan, 0.5], [nan, 0.1])}, tmp_path / "c.png")
    assert [text.get_text() for text in drawn[0].axes[0].texts] == ["0.300", "0.900", "–", "0.500 ± 0.100"]
    assert drawn[0].axes[0].get_xlabel() == "OA, F1 on the eval split, mean ± standard deviation over seeds"
    figures.comparison(["a"], {"OA": ([0.3], [nan])}, tmp_path / "d.png")
    assert drawn[1].axes[0].get_xlabel() == "OA on the eval split"


def test_one_test_year_needs_no_years_table(tmp_path, without_matplotlib):
    write_run(tmp_path / "T_a")
    assert "tested on" not in write_comparison(tmp_path, tmp_path)
    assert not (tmp_path / "years.csv").exists()


def test_the_years_of_an_earlier_comparison_do_not_stay(tmp_path, without_matplotlib):
    folders = [write_run(tmp_path / "T_a", years=(2019, 2020), oa=(0.9, 0.7)), write_run(tmp_path / "T_b", model="rf")]
    write_comparison(folders, tmp_path)
    (tmp_path / "years.png").write_bytes(b"")
    assert {"years.csv", "years.md"} <= {file.name for file in tmp_path.iterdir()}
    write_comparison(folders[1], tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"T_a", "T_b", "comparison.csv", "comparison.md"}


@needs_matplotlib
def test_a_comparison_is_numbers_and_a_picture(tmp_path):
    write_run(tmp_path / "T_a", oa=(0.8125,))
    text = write_comparison([tmp_path / "T_a"], tmp_path / "out")
    assert "0.812 " in text and "±" not in text and "1,000" in text and "30.0 s" in text
    assert pd.read_csv(tmp_path / "out" / "comparison.csv")["oa_mean"][0] == 0.8125  # numbers, not rounded
    assert is_png(tmp_path / "out" / "comparison.png")


@needs_matplotlib
def test_the_axis_of_a_comparison_ends_at_one(tmp_path, drawn):
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
     ["stnet (pretrained:", "P_MoCoV2TransformerModel_R3000_RC_2019_doy)"]),
    ("stnet (" + "x" * 50 + "/few-label)", ["stnet", "(" + "x" * 50 + "/few-label)"]),
])  # fmt: skip
def test_labels_are_broken_between_words_alone(label, lines):
    assert figures.wrap(label).split("\n") == lines


@needs_matplotlib
def test_long_labels_are_in_the_picture(tmp_path, drawn):
    """The figure is wide enough for the longest word, beside an axis of at least 4 inches."""
    figures.comparison(["stnet (pretrained: " + "x" * 80 + ")", "rf"], {"OA": ([0.3, 0.9], [0, 0])}, tmp_path / "c.png")
    axes = drawn[0].axes[0]
    assert axes.get_window_extent().width / drawn[0].dpi > 4


def test_tables_are_aligned():
    cells = pd.DataFrame({"model": ["stnet", "rf"], "OA": ["0.9", "0.81"]})
    assert aligned(cells).splitlines() == ["model    OA", "stnet   0.9", "rf     0.81"]
    assert markdown(cells).splitlines() == ["| model | OA |", "| --- | ---: |", "| stnet | 0.9 |", "| rf | 0.81 |"]


@pytest.mark.parametrize("seconds, text", [
    (np.nan, "–"), (1.23, "1.2 s"), (99.9, "99.9 s"), (150, "2 min"), (7200, "2 h 00 min"),
])  # fmt: skip
def test_durations_are_readable(seconds, text):
    assert report._duration(seconds) == text


@pytest.mark.parametrize("name, content, message", [
    ("args.json", "{", "damaged"),
    ("args.json", "[]", "does not name a model"),
    ("testlog.csv", "", "damaged"),
    ("testlog.csv", "year,oa,kappa,macro_f1\n2019,1,1,1\n", "lacks weighted_f1"),
    ("testlog.csv", "year,oa,kappa,macro_f1,weighted_f1\n", "lacks a row"),
    ("testlog.csv", "year,oa,kappa,macro_f1,weighted_f1\n2019,1,1,1,high\n", "not a number"),
])  # fmt: skip
def test_a_damaged_run_is_named_and_skipped(tmp_path, capsys, name, content, message):
    write_run(tmp_path / "T_good")
    bad = write_run(tmp_path / "T_bad", seed=222)
    (bad / name).write_text(content)
    assert list(summarise(results(read_runs(tmp_path)))["runs"]) == [1]
    error = capsys.readouterr().err
    assert "T_bad" in error and message in error and error.count("\n") == 1
    with pytest.raises(UsageError):
        read_run(bad)


# --- the command ---


def test_the_command_rebuilds_everything(tmp_path, without_matplotlib, capsys):
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
def test_a_folder_without_runs_is_one_line(tmp_path, name, message, capsys):
    with pytest.raises(SystemExit) as ended:
        report.main([str(tmp_path / name)])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and message in error and error.count("\n") == 1


def test_earlier_runs_of_a_name_are_rows_of_their_own(tmp_path, capsys):
    """NAME.1 is what NAME was before it was trained with other flags."""
    rates = {"T_a": 0.001, "T_a.1": 0.002, "T_a.2": 0.003, "T_a.10": 0.004}
    for i, (name, rate) in enumerate(rates.items()):
        write_run(tmp_path / name, oa=(0.9 - 0.1 * i,), learning_rate=rate)
    assert [folder.name for folder in run_folders(tmp_path)] == ["T_a", "T_a.10", "T_a.2", "T_a.1"]
    report.main([str(tmp_path)])
    table = pd.read_csv(tmp_path / "comparison.csv")
    assert list(table["label"]) == [f"stnet (learning_rate={rate})" for rate in rates.values()]
    np.testing.assert_allclose(table["oa_mean"], [0.9, 0.8, 0.7, 0.6])
    assert (table["runs"] == 1).all() and "not counted" not in capsys.readouterr().err


def test_a_repeated_run_counts_once_and_the_newest_counts(tmp_path, capsys):
    """The same seed twice, on another device say, is no second sample for a standard deviation."""
    write_run(tmp_path / "T_a", oa=(0.8,), device="cuda")
    write_run(tmp_path / "T_a.1", oa=(0.2,), device="cpu")
    write_run(tmp_path / "T_a.2", oa=(0.3,), device=None)
    write_run(tmp_path / "T_b", oa=(0.6,), seed=222)
    (summary,) = summarise(results(read_runs(tmp_path))).to_dict("records")
    assert summary["runs"] == 2 and summary["oa_mean"] == pytest.approx(0.7)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f"not counted: {tmp_path / name} repeats another run, with the same arguments and seed"
        for name in ("T_a.2", "T_a.1")
    ]


def test_test_years_of_a_repeated_run_that_the_newest_lacks_count(tmp_path):
    write_run(tmp_path / "T_a", oa=(0.8,), years=(2019,))
    write_run(tmp_path / "T_a.1", oa=(0.2, 0.4), years=(2019, 2020))
    rows = results(read_runs(tmp_path))
    assert list(rows["year"]) == ["2019", "2020"] and list(rows["oa"]) == [0.8, 0.4]


def test_an_option_that_an_earlier_version_did_not_have_makes_no_other_experiment(tmp_path):
    write_run(tmp_path / "T_a", seed=1)
    write_run(tmp_path / "T_b", seed=2, leave_out=None)
    assert list(summarise(results(read_runs(tmp_path)))["runs"]) == [2]


@settings(max_examples=60, deadline=None)
@given(st.lists(
    st.fixed_dictionaries({"model": st.sampled_from(["stnet", "rf"])}, optional={
        "learning_rate": st.sampled_from([None, 0.001, 0.01]), "freeze": st.booleans(), "useall": st.booleans(),
        "pretrained": st.sampled_from([None, "a/x/m.pth", "b/x/m.pth"]), "num": st.sampled_from([50, 60]),
        "year": st.sampled_from([2019, 2020]), "regions": st.sampled_from([None, ["a"], ["a", "b"]]),
        "suffix": st.sampled_from([None, "x"]), "datapath": st.sampled_from(["a", "b"]),
    }), min_size=1, max_size=6))  # fmt: skip
def test_experiments_that_differ_have_labels_that_differ(experiments):
    distinct = {runs._experiment(arguments): arguments for arguments in experiments}
    labels = runs._labels(list(distinct.values()))
    assert len(set(labels)) == len(distinct), (labels, distinct)


def test_a_run_folder_given_twice_counts_once(tmp_path):
    folder = write_run(tmp_path / "T_a")
    assert run_folders([tmp_path, folder]) == [folder]
