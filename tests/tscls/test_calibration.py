"""--calibrate: a temperature from series that were held out of training; and what a test says of confidence."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import main_tscls
from datasets.catalog import Selection, Splits, open_eval, open_labelled
from tests.support.classifiers import series_of, small_classifier
from tests.support.runs import checkpoint, refused, rows, same, train, weights
from tscls import calibration, evaluation, trust
from tscls.classifier import load_classifier
from tscls.evaluation import predict_all, scores_on
from utils import report
from utils.checkpoint import CheckpointError, save_checkpoint
from utils.errors import UsageError
from utils.results import figures
from utils.runtime.distributed import World

FLAGS = ("--rc", "-e", 2, "-lr", 0.01)


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Pictures take most of the time of a small run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "_pictures", lambda: False)
        yield


@pytest.fixture(scope="module")
def run(data_root, tmp_path_factory):
    return train(data_root, tmp_path_factory.mktemp("results"), *FLAGS, "--calibrate")


# ---- folds


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=60), st.integers(0, 9))
def test_folds_have_as_many_series_of_train_of_valid_and_of_each_class(series, seed):
    labels, is_valid = (np.array(column) for column in zip(*series, strict=True))
    dealt = calibration.deal(labels, is_valid, seed)
    for part in (False, True):
        sizes = np.bincount(dealt[is_valid == part], minlength=3)
        assert len(sizes) == 3 and np.ptp(sizes) <= 1
        for label in range(4):
            assert np.ptp(np.bincount(dealt[(is_valid == part) & (labels == label)], minlength=3)) <= 1
    assert (dealt == calibration.deal(labels, is_valid, seed)).all()


def test_another_seed_deals_otherwise():
    labels, none = np.zeros(60, int), np.zeros(60, bool)
    assert (calibration.deal(labels, none, 1) != calibration.deal(labels, none, 2)).any()


def splits_of(root, train_size: int, valid_size: int) -> Splits:
    splits = open_labelled(root, 2019, Selection(use_all=True))
    return splits._replace(train=splits.train.take(range(train_size)), valid=splits.valid.take(range(valid_size)))


@pytest.mark.parametrize("valid", [0, 2, 20])
def test_each_series_is_held_out_once_and_not_trained_on_then(data_root, valid):
    splits, labels = splits_of(data_root, 40, valid), []
    for rest, held_out in calibration.folds(splits, 3):
        labels += held_out.labels.tolist()
        assert len(rest.train) + len(rest.valid) + len(held_out) == 40 + valid and len(held_out) in (13, 14, 20)
        assert 26 <= len(rest.train) <= 27 and (valid == 0 or len(rest.valid))
        seen = set(rest.train.rows)
        assert len(set(splits.train.rows) - seen) in (13, 14) and seen <= set(splits.train.rows)
        assert rest.eval is splits.eval
    assert sorted(labels) == sorted([*splits.train.labels, *splits.valid.labels])


@pytest.mark.parametrize(("train_size", "valid_size"), [(2, 5), (9, 1)])
def test_too_few_series_are_refused(data_root, train_size, valid_size):
    told = f"--calibrate: {train_size} train and {valid_size} valid series are too few for 3 folds"
    with pytest.raises(UsageError, match=told):
        next(calibration.folds(splits_of(data_root, train_size, valid_size), 1))


def test_the_temperature_is_that_of_the_held_out_predictions(data_root, tmp_path, capsys):
    """Each fold is predicted by the classifier that was trained without it."""
    splits, logs, labels = splits_of(data_root, 30, 6), [], []

    def learn(rest, folder, number):
        classifier = small_classifier("stnet", seed=number)
        folder.mkdir(parents=True)
        classifier.save(folder / "model_best.pth")

    found = calibration.held_out_temperature(learn, splits, tmp_path, 3, World(), None)
    for number, (_, held_out) in enumerate(calibration.folds(splits, 3), 1):
        logs.append(predict_all(small_classifier("stnet", seed=number), held_out, World()))
        labels.append(held_out.labels)
    assert found == trust.fit_temperature(torch.cat(logs), torch.from_numpy(np.concatenate(labels))) != 1
    assert capsys.readouterr().out == f"temperature {found:.3f}, from 36 series in 3 folds\n"


# ---- the classifier


@pytest.mark.parametrize("draws", [0, 2])
def test_a_temperature_is_applied_after_the_mean_over_draws(draws, tmp_path):
    series = series_of(tmp_path / "store", [5, 12, 30, 9])
    classifier = small_classifier("stnet", draws=draws)
    plain = predict_all(classifier, series, World())
    classifier.temperature = 2.5
    found = predict_all(classifier, series, World())
    torch.testing.assert_close(found, (plain / 2.5).log_softmax(-1))
    torch.testing.assert_close(predict_all(classifier, series, World(), temperature=1), plain)
    classifier.shares, classifier.there = np.full(21, 1 / 21), np.linspace(1, 2, 21) / 31.5
    torch.testing.assert_close(predict_all(classifier, series, World()), classifier.corrected(found, classifier.there))


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), 1e6, "warm"])
def test_a_damaged_temperature_is_refused(temperature, tmp_path):
    classifier = small_classifier("stnet")
    content = {"model_state": classifier.model.state_dict(), **classifier.settings(), "temperature": temperature}
    save_checkpoint(tmp_path / "a.pth", content)
    with pytest.raises(CheckpointError, match="its settings are damaged"):
        load_classifier(tmp_path / "a.pth", "cpu")


# ---- main_tscls.py


@pytest.mark.parametrize("flags", [(), ("--recipe", "published")])
def test_the_network_is_the_one_without_and_its_classes_too(data_root, tmp_path, run, flags):
    calibrated = train(data_root, tmp_path / "b", *FLAGS, *flags, "--calibrate") if flags else run
    plain = train(data_root, tmp_path / "a", *FLAGS, *flags)
    assert same(weights(plain), weights(calibrated))
    assert [row["train_loss"] for row in rows(plain)] == [row["train_loss"] for row in rows(calibrated)]
    temperature = checkpoint(calibrated)["temperature"]
    assert temperature != 1 and "temperature" not in checkpoint(plain)
    assert load_classifier(calibrated, "cpu").temperature == temperature
    (before,), (after,) = rows(plain, "testlog.csv"), rows(calibrated, "testlog.csv")
    assert before["oa"] == after["oa"] and before["ece"] != after["ece"] and before["loss"] != after["loss"]
    assert not (calibrated / "folds").exists()
    series = open_eval(data_root, 2019)
    expected = scores_on(load_classifier(plain, "cpu"), series, World(), temperature=temperature)
    assert float(after["loss"]) == pytest.approx(expected["loss"], rel=1e-4)


def test_an_estimator_is_calibrated_too(data_root, tmp_path):
    folder = train(data_root, tmp_path, "--calibrate", model="svm")
    assert load_classifier(folder).temperature != 1 and not (folder / "folds").exists()


def test_a_run_without_is_another_run(run, data_root, capsys):
    argv = ["stnet", "-n", 50, *FLAGS, "--datapath", data_root, "-l", run.parent, "-d", "cpu", "-b", 16]
    line = refused(main_tscls, [*argv, "--sequencelength", 20], capsys)
    assert "without --calibrate here, with --calibrate there" in line


def test_a_run_killed_among_the_folds_resumes_exactly(run, data_root, tmp_path, monkeypatch):
    """A finished fold is not trained again."""
    predict = calibration.predict_all
    asked = []

    def killed(*args, **options):
        asked.append(1)
        if len(asked) == 2:
            raise RuntimeError("killed")
        return predict(*args, **options)

    monkeypatch.setattr(calibration, "predict_all", killed)
    with pytest.raises(RuntimeError):
        train(data_root, tmp_path, *FLAGS, "--calibrate")
    (folder,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    first = (folder / "folds" / "1" / "model_best.pth").stat().st_mtime_ns
    seen = []
    monkeypatch.setattr(calibration, "predict_all", predict)
    monkeypatch.setattr(
        calibration, "forget",
        lambda place, world: seen.append((place / "folds" / "1" / "model_best.pth").stat().st_mtime_ns),
    )  # fmt: skip
    train(data_root, tmp_path, *FLAGS, "--calibrate", "--resume", "auto")
    assert seen == [first]
    assert checkpoint(folder)["temperature"] == checkpoint(run)["temperature"]
    assert same(weights(folder), weights(run))


def test_a_run_that_is_resumed_later_keeps_its_temperature(run, data_root, tmp_path, monkeypatch):
    evaluate = main_tscls.evaluate
    monkeypatch.setattr(main_tscls, "evaluate", lambda *args, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(data_root, tmp_path, *FLAGS, "--calibrate")
    monkeypatch.setattr(main_tscls, "evaluate", evaluate)
    monkeypatch.setattr(calibration, "held_out_temperature", lambda *args, **options: 1 / 0)
    folder = train(data_root, tmp_path, *FLAGS, "--calibrate", "--resume", "auto")
    assert checkpoint(folder)["temperature"] == checkpoint(run)["temperature"]
    assert rows(folder, "testlog.csv") == rows(run, "testlog.csv")


# ---- what a test says of confidence


def test_a_test_leaves_calibration_and_coverage(run, data_root, tmp_path, monkeypatch):
    classifier, series = load_classifier(run, "cpu"), open_eval(data_root, 2019)
    log_probability = predict_all(classifier, series, World()).numpy()
    (row,) = rows(run, "testlog.csv")
    assert float(row["ece"]) == pytest.approx(trust.calibration_error(log_probability, series.labels), abs=1e-5)
    table = pd.read_csv(run / "test_reliability.csv")
    pd.testing.assert_frame_equal(table, trust.reliability(log_probability, series.labels), rtol=1e-4)
    kept = pd.read_csv(run / "test_coverage.csv")
    pd.testing.assert_frame_equal(kept, trust.coverage(log_probability, series.labels), rtol=1e-4)  # 30 series
    monkeypatch.setattr(evaluation, "at_per_cents", lambda rows: rows[:1])
    evaluation.evaluate(classifier, {2019: series}, tmp_path, World(), train_year=2019)
    assert len(pd.read_csv(tmp_path / "test_coverage.csv")) == 1


@pytest.mark.skipif(not figures.available(), reason="matplotlib is an optional extra")
def test_the_picture_is_drawn_from_the_tables(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "_pictures", lambda: True)
    rows = pd.DataFrame({"low": [0.5, 0.9], "high": [0.6, 1.0], "series": [30, 10], "confidence": [0.55, 0.95],
                         "accuracy": [0.5, 0.76]})  # fmt: skip
    rows.to_csv(tmp_path / "test_reliability_2020.csv", index=False)
    pd.DataFrame({"coverage": [0.25, 1], "accuracy": [0.75, 0.5625]}).to_csv(tmp_path / "test_coverage_2020.csv")
    drawn, save = [], figures.save
    monkeypatch.setattr(figures, "save", lambda figure, path: drawn.append(figure) or save(figure, path))
    assert report.write_run_report(tmp_path) == [tmp_path / "trust_2020.png"]
    assert (tmp_path / "trust_2020.png").read_bytes().startswith(b"\x89PNG")
    left, right = drawn[0].axes
    assert left.get_title() == f"expected calibration error {(30 * 0.05 + 10 * 0.19) / 40:.3f}"
    assert [bar.get_height() for bar in left.patches] == [0.5, 0.76]
    assert [bar.get_x() for bar in left.patches] == [0.5, 0.9]
    assert [bar.get_width() for bar in left.patches] == pytest.approx([0.1, 0.1])
    assert right.lines[0].get_ydata().tolist() == [0.75, 0.5625] and right.get_title() == "all: 0.562"
    assert drawn[0].get_suptitle() == f"{tmp_path.name}, tested on 2020"
    (tmp_path / "test_coverage_2020.csv").write_text("coverage\n1\n")
    with pytest.raises(UsageError, match=r"test_coverage_2020.csv: no full report: no accuracy in it"):
        report.write_run_report(tmp_path)
