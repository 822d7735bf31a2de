"""The scores of a classification: what test logs and comparison tables hold."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn.functional import nll_loss

SCORE_NAMES = {  # column of a log -> what people read
    "oa": "OA",
    "kappa": "kappa",
    "macro_f1": "macro F1",
    "macro_f1_present": "macro F1 (present)",
    "weighted_f1": "weighted F1",
}
SCORES = tuple(SCORE_NAMES)


def classification_metrics(y_true: ArrayLike, y_pred: ArrayLike, num_classes: int) -> dict[str, float | np.ndarray]:
    """Score predicted against true class ids, both (N,) in 0 … num_classes-1 ("Other" counted in num_classes).

    Floats:
        oa: overall accuracy.
        kappa: Cohen's; 0 if truth and prediction are one and the same class, where agreement cannot exceed chance.
        macro_f1: mean F1 over all num_classes, as published. A class without series counts as 0, so that with absent
            classes it is low even where the OA is high.
        macro_f1_present: mean F1 over the classes that occur in y_true.
        weighted_f1: mean F1 weighted by the true series of a class (the published code weights by predicted ones).
    Arrays: those of `class_accuracies`, and `confusion_matrix` (num_classes, num_classes), rows true.

    Raises:
        ValueError: lengths differ, nothing to score, or a class id outside 0 … num_classes-1.
    """
    from sklearn.metrics import accuracy_score, cohen_kappa_score, confusion_matrix, f1_score  # takes a second

    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    if y_true.shape != y_pred.shape or y_true.ndim != 1 or not y_true.size:
        raise ValueError(f"expected two vectors of one length >= 1, got shapes {y_true.shape} and {y_pred.shape}")
    present = np.union1d(y_true, y_pred)
    if present[0] < 0 or present[-1] >= num_classes:
        raise ValueError(f"class ids run from {present[0]} to {present[-1]}, expected 0 to {num_classes - 1}")
    classes = np.arange(num_classes)
    matrix = confusion_matrix(y_true, y_pred, labels=classes)
    by_class = class_accuracies(matrix)
    return {
        "oa": float(accuracy_score(y_true, y_pred)),
        "kappa": float(cohen_kappa_score(y_true, y_pred)) if len(present) > 1 else 0.0,
        "macro_f1": float(by_class["class_f1"].mean()),
        "macro_f1_present": float(by_class["class_f1"][matrix.sum(1) > 0].mean()),
        "weighted_f1": float(f1_score(y_true, y_pred, labels=classes, average="weighted", zero_division=0)),
        **by_class,
        "confusion_matrix": matrix,
    }


def class_accuracies(matrix: np.ndarray) -> dict[str, np.ndarray]:
    """Accuracies of each class, (C,) each, from a confusion matrix (C, C), rows true.

    class_f1: F1; 0 for a class that occurs in neither truth nor prediction.
    users_accuracy: fraction of the series predicted as a class that are of it (precision, 1 - commission error); NaN
        for a class that is never predicted.
    producers_accuracy: fraction of the series of a class that are predicted as it (recall, 1 - omission error); NaN
        for a class without series.
    """
    hits, true, predicted = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN
        users, producers = hits / predicted, hits / true
    return {
        "class_f1": 2 * hits / np.maximum(true + predicted, 1),
        "users_accuracy": users,
        "producers_accuracy": producers,
    }


def score(log_probability: Tensor, labels: np.ndarray) -> dict[str, float | np.ndarray]:
    """Loss (mean negative log-likelihood) and every metric of predictions (N, classes) against true ids (N,)."""
    loss = nll_loss(log_probability, torch.from_numpy(labels)).item()
    return {"loss": loss, **classification_metrics(labels, log_probability.argmax(1).numpy(), log_probability.shape[1])}


def readable(scores: Mapping[str, object], digits: int = 4) -> str:
    """The SCORES among these as people read them: 'OA 0.8125, kappa 0.7000, macro F1 0.5500'."""
    return ", ".join(f"{name} {scores[key]:.{digits}f}" for key, name in SCORE_NAMES.items() if key in scores)
