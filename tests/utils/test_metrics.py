import numpy as np
import pytest
import torch

from tests.conftest import SHARED, needs_shared
from utils.metrics import classification_metrics


@needs_shared
def test_published_metrics():
    golden = torch.load(SHARED / "golden" / "metrics.pt", weights_only=True)
    metrics = classification_metrics(golden["y_true"], golden["y_pred"], 21)
    for name in ("oa", "kappa", "macro_f1", "class_f1", "confusion_matrix"):  # weighted_f1 differs on purpose
        np.testing.assert_allclose(metrics[name], golden[name].numpy(), atol=1e-12)


def test_values_by_hand():
    metrics = classification_metrics([0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 1, 1], num_classes=4)
    np.testing.assert_array_equal(
        metrics["confusion_matrix"], [[2, 1, 0, 0], [0, 2, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    )
    np.testing.assert_allclose(metrics["class_f1"], [0.8, 2 / 3, 0, 0])
    assert metrics["oa"] == pytest.approx(4 / 6)
    assert metrics["kappa"] == pytest.approx((4 / 6 - 14 / 36) / (1 - 14 / 36))  # chance: (3*2 + 2*4) / 6²
    assert metrics["macro_f1"] == pytest.approx((0.8 + 2 / 3) / 4)
    assert metrics["weighted_f1"] == pytest.approx((3 * 0.8 + 2 * 2 / 3) / 6)


def test_one_class_everywhere_has_kappa_zero():
    metrics = classification_metrics([3, 3], [3, 3], num_classes=5)
    assert metrics["oa"] == 1 and metrics["kappa"] == 0 and metrics["macro_f1"] == pytest.approx(0.2)


def test_tensors_and_plain_types():
    metrics = classification_metrics(torch.tensor([0, 1]), torch.tensor([1, 0]), 2)
    assert all(type(metrics[name]) is float for name in ("oa", "kappa", "macro_f1", "weighted_f1"))
    assert metrics["kappa"] == pytest.approx(-1)


@pytest.mark.parametrize("y_true, y_pred, message", [
    ([0, 1], [0], "shapes"),
    ([], [], "shapes"),
    ([0, 21], [0, 0], "0 to 21, expected 0 to 20"),
    ([0, 0], [-1, 0], "from -1 to 0"),
])  # fmt: skip
def test_refuses(y_true, y_pred, message):
    with pytest.raises(ValueError, match=message):
        classification_metrics(y_true, y_pred, 21)
