"""Scores of a classifier, and what they leave in a run's folder."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

from tests.support.classifiers import series_of, small_classifier
from tscls import evaluation
from tscls.evaluation import evaluate, predict_all, scores_on
from utils.results.logs import read_rows
from utils.runtime.distributed import World

pytestmark = pytest.mark.usefixtures("no_pictures")
LABELS = [0, 0, 1, 3, 3, 3, 20, 7, 1, 0, 5]


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    lengths = [5, 12, 30, 1, 40, 12, 13, 9, 20, 3, 8]
    return series_of(tmp_path_factory.mktemp("stores") / "store", lengths, labels=LABELS)


@pytest.mark.parametrize("kind", ["stnet", "rf"])
@pytest.mark.parametrize("size", [2, 3, 13])
def test_the_shards_of_all_ranks_are_the_predictions_of_one(series, kind, size, monkeypatch):
    """Also of several batches."""
    monkeypatch.setattr(evaluation, "BATCH", 4)
    classifier, parts = small_classifier(kind), []

    class Collecting(World):
        def all_gather(self, part):
            parts.append(part)
            return torch.zeros(len(LABELS), 21)

    class Gathering(World):
        def all_gather(self, part):
            return torch.cat(parts)

    for rank in range(size):
        predict_all(classifier, series, Collecting(rank, size))
    gathered = predict_all(classifier, series, Gathering(0, size))
    torch.testing.assert_close(gathered, predict_all(classifier, series, World()), atol=1e-6, rtol=1e-6)


def test_scores_are_of_the_predictions(series):
    classifier = small_classifier("stnet", draws=2)
    log_probability = predict_all(classifier, series, World())
    scores = scores_on(classifier, series, World())
    expected = -log_probability[torch.arange(len(LABELS)), torch.tensor(LABELS)].mean().item()
    assert scores["loss"] == pytest.approx(expected)
    assert scores["oa"] == pytest.approx((log_probability.argmax(1).numpy() == LABELS).mean())
    assert scores["series"] == len(LABELS) and scores["series_per_s"] > 0
    assert scores_on(classifier, series, World(), draws=0)["loss"] != scores["loss"]


def known_scores(monkeypatch) -> None:
    """Predictions that are known: right but for one of class 3, which goes to class 1."""
    def predict(classifier, series, world, **options):
        classes = [1 if i == 3 else label for i, label in enumerate(LABELS)]
        return torch.full((len(LABELS), 21), 1e-3).scatter_(1, torch.tensor(classes)[:, None], 1.0).log()

    monkeypatch.setattr(evaluation, "predict_all", predict)


def test_the_files_of_a_test(series, tmp_path, capsys, monkeypatch):
    known_scores(monkeypatch)
    classifier = small_classifier("stnet")
    evaluate(classifier, {2019: series, 2020: series}, tmp_path, World(), train_year=2019, regions=["A", "B"],
             train_seconds=1.5)  # fmt: skip
    first, second = read_rows(tmp_path / "testlog.csv")
    f1 = {0: 1, 1: 4 / 5, 3: 4 / 5, 5: 1, 7: 1, 20: 1}
    expected = {"oa": 10 / 11, "macro_f1": sum(f1.values()) / 21, "macro_f1_present": sum(f1.values()) / 6}
    assert {name: float(first[name]) for name in expected} == pytest.approx(expected)
    assert (first["year"], first["regions"], first["train_seconds"], first["series"]) == ("2019", "A+B", "1.5", "11")
    assert second["year"] == "2020" and first["parameters"] == str(classifier.num_parameters)
    for tag in ("", "_2020"):
        matrix = np.load(tmp_path / f"test_conf_mat{tag}.npy")
        assert matrix.sum() == 11 and matrix[3, 1] == 1
        np.testing.assert_allclose(np.load(tmp_path / f"test_class_f1{tag}.npy")[[0, 1, 2, 3]], [1, 0.8, 0, 0.8])
        table = pd.read_csv(tmp_path / f"test_class_f1{tag}.csv")
        assert table["users_accuracy"][[0, 1, 3]].tolist() == pytest.approx([1, 2 / 3, 1])
        assert table["producers_accuracy"][[0, 1, 3]].tolist() == pytest.approx([1, 1, 2 / 3])
        assert table[["users_accuracy", "producers_accuracy"]].loc[[2, 4]].isna().all(axis=None)
    assert json.loads((tmp_path / "classes.json").read_text()) == list(classifier.names)
    line = capsys.readouterr().out.splitlines()[0]
    assert line == (
        f"{tmp_path.name}, 2019: OA 0.9091, kappa 0.8866, macro F1 0.2667, macro F1 (present) 0.9333,"
        " weighted F1 0.9091"
    )


def test_a_test_on_another_year_keeps_what_is_known(series, tmp_path):
    classifier = small_classifier("lstm")
    common = {"train_year": 2019}
    evaluate(classifier, {2019: series}, tmp_path, World(), train_seconds=2.0, **common)
    evaluate(classifier, {2020: series.take([0, 1])}, tmp_path, World(), **common)
    rows = read_rows(tmp_path / "testlog.csv")
    assert [(row["year"], row["series"], row["train_seconds"]) for row in rows] == [
        ("2019", "11", "2.0"), ("2020", "2", "2.0"),
    ]  # fmt: skip
    assert np.load(tmp_path / "test_conf_mat.npy").sum() == 11
    assert np.load(tmp_path / "test_conf_mat_2020.npy").sum() == 2
    evaluate(classifier, {2019: series.take([0])}, tmp_path, World(), train_seconds=3.0, **common)
    assert [row["year"] for row in read_rows(tmp_path / "testlog.csv")] == ["2019"]


def test_a_single_test_on_another_year_is_the_test(series, tmp_path):
    evaluate(small_classifier("lstm"), {2021: series}, tmp_path, World(), train_year=2019, train_seconds=1.0)
    assert (tmp_path / "test_conf_mat.npy").exists()


def test_other_ranks_write_nothing(series, tmp_path, capsys):
    class Other(World):
        def all_gather(self, part):
            return predict_all(small_classifier("lstm"), series, World())

    evaluate(small_classifier("lstm"), {2019: series}, tmp_path, Other(1, 2), train_year=2019, train_seconds=1.0)
    assert not list(tmp_path.iterdir()) and capsys.readouterr().out == ""
