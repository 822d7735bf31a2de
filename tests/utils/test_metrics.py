import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, precision_recall_fscore_support

from tests.conftest import SHARED, needs_shared
from utils.metrics import SCORES, classification_metrics, readable


@needs_shared
def test_metrics_are_the_published_ones():
    golden = torch.load(SHARED / "golden" / "metrics.pt", weights_only=True)
    metrics = classification_metrics(golden["y_true"], golden["y_pred"], 21)
    for name in ("oa", "kappa", "macro_f1", "class_f1", "confusion_matrix"):  # weighted_f1 differs on purpose
        np.testing.assert_allclose(metrics[name], golden[name].numpy(), atol=1e-12)


def test_values_are_those_computed_by_hand():
    metrics = classification_metrics([0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 1, 1], num_classes=4)
    np.testing.assert_array_equal(metrics["confusion_matrix"], [[2, 1, 0, 0], [0, 2, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(metrics["class_f1"], [0.8, 2 / 3, 0, 0])
    assert metrics["oa"] == pytest.approx(4 / 6)
    assert metrics["kappa"] == pytest.approx((4 / 6 - 14 / 36) / (1 - 14 / 36))  # chance: (3*2 + 2*4) / 6²
    assert metrics["macro_f1"] == pytest.approx((0.8 + 2 / 3) / 4)
    assert metrics["macro_f1_present"] == pytest.approx((0.8 + 2 / 3) / 3)
    assert metrics["weighted_f1"] == pytest.approx((3 * 0.8 + 2 * 2 / 3) / 6)
    np.testing.assert_allclose(metrics["users_accuracy"], [1, 1 / 2, np.nan, np.nan])  # 2 of 2 and 2 of 4 predicted
    np.testing.assert_allclose(metrics["producers_accuracy"], [2 / 3, 1, 0, np.nan])  # 2 of 3, 2 of 2, 0 of 1 true


def test_a_class_that_is_predicted_but_absent_counts_in_neither_macro_f1_of_present_classes_nor_support():
    metrics = classification_metrics([0, 0, 1, 1], [0, 3, 1, 1], num_classes=4)
    assert metrics["macro_f1"] == pytest.approx((2 / 3 + 1) / 4)
    assert metrics["macro_f1_present"] == pytest.approx((2 / 3 + 1) / 2)
    np.testing.assert_allclose(metrics["users_accuracy"], [1, 1, np.nan, 0])
    np.testing.assert_allclose(metrics["producers_accuracy"], [1 / 2, 1, np.nan, np.nan])


@settings(max_examples=60, deadline=None)
@given(pairs=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=40))
def test_accuracies_are_those_of_scikit_learn(pairs):
    y_true, y_pred = np.array(pairs).T
    metrics = classification_metrics(y_true, y_pred, 6)
    users, producers, f1, support = precision_recall_fscore_support(
        y_true, y_pred, labels=range(6), zero_division=np.nan
    )
    np.testing.assert_allclose(metrics["users_accuracy"], users)
    np.testing.assert_allclose(metrics["producers_accuracy"], producers)
    np.testing.assert_allclose(metrics["class_f1"], np.nan_to_num(f1), atol=1e-12)
    present = f1_score(y_true, y_pred, labels=np.unique(y_true), average="macro", zero_division=0)
    assert metrics["macro_f1_present"] == pytest.approx(present) and metrics["macro_f1"] <= present + 1e-12


def test_scores_have_names_for_people():
    metrics = classification_metrics([0, 1], [0, 1], 4)
    text = "OA 1.0000, kappa 1.0000, macro F1 0.5000, macro F1 (present) 1.0000, weighted F1 1.0000"
    assert readable(metrics) == text and readable({"oa": 0.12345, "other": 1}, digits=2) == "OA 0.12"


def test_one_class_everywhere_has_kappa_zero():
    metrics = classification_metrics([3, 3], [3, 3], num_classes=5)
    assert metrics["oa"] == 1 and metrics["kappa"] == 0 and metrics["macro_f1"] == pytest.approx(0.2)


def test_tensors_are_taken_and_scores_are_floats():
    metrics = classification_metrics(torch.tensor([0, 1]), torch.tensor([1, 0]), 2)
    assert all(type(metrics[name]) is float for name in SCORES)
    assert metrics["kappa"] == pytest.approx(-1)


@pytest.mark.parametrize("y_true, y_pred, message", [
    ([0, 1], [0], "shapes"),
    ([], [], "shapes"),
    ([0, 21], [0, 0], "0 to 21, expected 0 to 20"),
    ([0, 0], [-1, 0], "from -1 to 0"),
])  # fmt: skip
def test_what_cannot_be_scored_is_refused(y_true, y_pred, message):
    with pytest.raises(ValueError, match=message):
        classification_metrics(y_true, y_pred, 21)
