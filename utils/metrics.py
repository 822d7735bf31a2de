"""The scores of a classification: what the comparison tables and the test logs hold."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.metrics import accuracy_score, cohen_kappa_score, confusion_matrix, f1_score
from torch import Tensor
from torch.nn.functional import nll_loss

SCORES = ("oa", "kappa", "macro_f1", "weighted_f1")  # what tables show of them


def classification_metrics(y_true: ArrayLike, y_pred: ArrayLike, num_classes: int) -> dict[str, float | np.ndarray]:
    """Score predicted against true class ids, both (N,) in 0 … num_classes-1 ("Other" counted in num_classes).

    Returns floats: `oa` (overall accuracy), `kappa` (Cohen; 0 where truth and prediction hold one and the same class,
    for agreement cannot then exceed chance), `macro_f1` (mean over all num_classes, a class in neither truth nor
    prediction counts 0), `weighted_f1` (weighted by true support; the published code weights by predicted).
    And arrays: `class_f1` (num_classes,) and `confusion_matrix` (num_classes, num_classes), rows true.

    Raises:
        ValueError: lengths differ, nothing to score, or a class id outside 0 … num_classes-1.
    """
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    if y_true.shape != y_pred.shape or y_true.ndim != 1 or not y_true.size:
        raise ValueError(f"expected two vectors of one length >= 1, got shapes {y_true.shape} and {y_pred.shape}")
    present = np.union1d(y_true, y_pred)
    if present[0] < 0 or present[-1] >= num_classes:
        raise ValueError(f"class ids run from {present[0]} to {present[-1]}, expected 0 to {num_classes - 1}")
    classes = np.arange(num_classes)
    class_f1 = f1_score(y_true, y_pred, labels=classes, average=None, zero_division=0)
    return {
        "oa": float(accuracy_score(y_true, y_pred)),
        "kappa": float(cohen_kappa_score(y_true, y_pred)) if len(present) > 1 else 0.0,
        "macro_f1": float(class_f1.mean()),
        "weighted_f1": float(f1_score(y_true, y_pred, labels=classes, average="weighted", zero_division=0)),
        "class_f1": class_f1,
        "confusion_matrix": confusion_matrix(y_true, y_pred, labels=classes),
    }


def score(log_probability: Tensor, labels: np.ndarray) -> dict[str, float | np.ndarray]:
    """Loss (mean negative log-likelihood) and every metric of predictions (N, classes) against true ids (N,)."""
    loss = nll_loss(log_probability, torch.from_numpy(labels)).item()
    return {"loss": loss, **classification_metrics(labels, log_probability.argmax(1).numpy(), log_probability.shape[1])}
