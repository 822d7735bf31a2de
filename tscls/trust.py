"""How far a classifier's confidence can be trusted: calibration, and accuracy where it is sure.

The confidence of a prediction is the probability of the predicted class. It is calibrated if of all predictions with a
confidence of 0.8 four of five are right.

    C. Guo, G. Pleiss, Y. Sun and K. Weinberger, "On calibration of modern neural networks", ICML 2017
    R. El-Yaniv and Y. Wiener, "On the foundations of noise-free selective classification", JMLR 11 (2010)
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

BINS = 10  # of confidence, from 0 to 1
TEMPERATURES = (0.05, 20.0)  # least and largest that is fitted


def reliability(log_probability: np.ndarray, labels: np.ndarray, bins: int = BINS) -> pd.DataFrame:
    """Rows of bins of confidence with at least one series: low, high, series, mean confidence, accuracy.

    log_probability (N, C), labels (N,). Bins are (low, high], equally wide.
    """
    confidence, is_right = _predictions(log_probability, labels)
    number = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    rows = pd.DataFrame({"bin": number, "confidence": confidence, "accuracy": is_right}).groupby("bin")
    means = rows.mean()
    places = {"low": means.index / bins, "high": (means.index + 1) / bins, "series": rows.size()}
    return means.assign(**places).reset_index(drop=True)[["low", "high", "series", "confidence", "accuracy"]]


def calibration_error(log_probability: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error: mean over series of |confidence - accuracy| of their bin (Guo et al. 2017, eq. 3)."""
    rows = reliability(log_probability, labels, bins)
    return float(np.average((rows["confidence"] - rows["accuracy"]).abs(), weights=rows["series"]))


def coverage(log_probability: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """Rows in the order of confidence, the surest first: coverage (fraction kept), least confidence, accuracy."""
    confidence, is_right = _predictions(log_probability, labels)
    order = np.argsort(-confidence, kind="stable")
    count = np.arange(1, len(order) + 1)
    return pd.DataFrame(
        {
            "coverage": count / len(order),
            "confidence": confidence[order],
            "accuracy": np.cumsum(is_right[order]) / count,
        }
    )


def at_per_cents(rows: pd.DataFrame) -> pd.DataFrame:
    """Of the rows of a ``coverage`` those at each per cent of the series, at most 100 and the last among them."""
    ends = -(-np.arange(1, 101) * len(rows) // 100) - 1  # rounded up
    return rows.iloc[np.unique(ends)].reset_index(drop=True)


def _predictions(log_probability: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Confidence (N,) and whether the prediction is right (N,)."""
    best = log_probability.argmax(1)
    return np.exp(log_probability[np.arange(len(best)), best].astype(np.float64)), best == labels


def fit_temperature(log_probability: Tensor, labels: Tensor) -> float:
    """The temperature T under which log-probabilities / T, normalised, are most likely (Guo et al. 2017, section 4.2).

    log_probability (N, C) and labels (N,) of series that were not trained on. The likelihood has one maximum in 1 / T,
    which is found by bisection of its derivative.
    """
    scores = log_probability.double()
    low, high = (1 / bound for bound in TEMPERATURES[::-1])
    for _ in range(60):
        middle = torch.tensor((low + high) / 2, dtype=torch.float64, requires_grad=True)
        cross_entropy(scores * middle, labels).backward()
        low, high = (middle.item(), high) if middle.grad < 0 else (low, middle.item())
    return 2 / (low + high)


def cooled(log_probability: Tensor, temperature: float) -> Tensor:
    """Log-probabilities (N, C) at a temperature; 1 leaves them as they are."""
    return log_probability if temperature == 1 else (log_probability / temperature).log_softmax(-1)
