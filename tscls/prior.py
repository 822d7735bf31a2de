"""Class shares of the place that is classified: known from statistics, or estimated from its unlabelled series.

A classifier learns the shares of the classes among its labels, which are often drawn evenly, while a landscape is not
even. By Bayes' rule its probabilities p(class | series) are corrected by the ratio of the shares:

    p'(class | series) ~ p(class | series) * share there / share in training      (Saerens et al. 2002, eq. 2.4)

    M. Saerens, P. Latinne and C. Decaestecker, "Adjusting the outputs of a classifier to new a priori probabilities: a
    simple procedure", Neural Computation 14 (2002), 21-41
    A. Alexandari, A. Kundaje and A. Shrikumar, "Maximum likelihood with bias-corrected calibration is hard-to-beat at
    label shift adaptation", ICML 2020
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from datasets.classmap import ClassMap
from datasets.tables import read_csv
from utils.errors import UsageError
from utils.report import aligned

NONE, ESTIMATE = CHOICES = "none", "estimate"  # as --prior, beside the name of a file
SAMPLE = 50_000  # series that shares are estimated from, at most
LEAST = 1e-4  # share of a class that statistics do not have, or that an estimate would make vanish
ROUNDS, TOLERANCE = 2000, 1e-7  # of expectation maximisation, at most; largest change of a share at the end
STRENGTH = 2.0  # of the Dirichlet prior of an estimate, in series a class


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add --prior to the options of a command that classifies."""
    told = f"correct for the class shares of the place: {NONE}, {ESTIMATE} (without labels), or a CSV: class, share"
    parser.add_argument("--prior", default=NONE, metavar=f"{NONE}|{ESTIMATE}|FILE", help=told)


def check_prior(prior: str, trained: np.ndarray | None, classmap: ClassMap | None, path: str | Path) -> None:
    """UsageError where --prior cannot be used with the classifier in ``path``; ``trained`` are its shares, if known."""
    if prior == NONE:
        return
    if trained is None:
        raise UsageError(
            f"{path}: does not say the class shares of its training, which --prior needs; train it again with"
            " main_tscls.py, or leave out --prior"
        )
    if prior != ESTIMATE:
        read_shares(prior, classmap)


def shares_there(
    prior: str, trained: np.ndarray, classmap: ClassMap | None, log_probability: Callable[[], np.ndarray]
) -> np.ndarray | None:
    """Shares (C,) that --prior asks for; None where it asks for none.

    ``log_probability`` gives what a classifier of the shares ``trained`` says of unlabelled series, (N, C), and is
    called to estimate.
    """
    if prior == NONE:
        return None
    if prior == ESTIMATE:
        return estimated(log_probability().astype(np.float64), trained)
    return read_shares(prior, classmap)


def spread(count: int, size: int = SAMPLE) -> np.ndarray:
    """Positions of at most ``size`` of ``count`` series, evenly spaced and each once."""
    kept = min(count, size)
    return (2 * np.arange(kept) + 1) * count // (2 * max(kept, 1))


def share_table(names: Sequence[str], trained: np.ndarray, there: np.ndarray) -> pd.DataFrame:
    """Rows of classes: class, name, training, there."""
    return pd.DataFrame({"class": range(len(names)), "name": names, "training": trained, "there": there})


def readable_shares(table: pd.DataFrame) -> str:
    """A ``share_table`` as people read it, the most frequent class there first."""
    rows = table.sort_values("there", ascending=False, kind="stable")
    shown = {"class": rows["name"], "in training": rows["training"].map("{:.3f}".format)}
    return aligned(pd.DataFrame({**shown, "there": rows["there"].map("{:.3f}".format)}))


def training_shares(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Shares (C,) of the classes among training labels (N,), with one more series for each class (Laplace)."""
    counts = np.bincount(labels, minlength=num_classes) + 1.0
    return counts / counts.sum()


def corrected(log_probability: np.ndarray, trained: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Log-probabilities (N, C) for classes of the shares ``there`` (C,), from those of a training with ``trained``."""
    weighted = log_probability + (np.log(there) - np.log(trained))
    return weighted - np.logaddexp.reduce(weighted, axis=1, keepdims=True)


def estimated(log_probability: np.ndarray, trained: np.ndarray, strength: float = STRENGTH) -> np.ndarray:
    """The shares (C,) under which log-probabilities (N, C) of unlabelled series are most likely, by EM.

    The maximum of the posterior under a Dirichlet prior around the shares of the training, ``strength`` series a class,
    so that rare classes do not vanish (Alexandari et al. 2020, section 2.2). No share is below LEAST.
    """
    believed = strength * len(trained) * trained
    shares = trained
    for _ in range(ROUNDS):
        expected = np.exp(corrected(log_probability, trained, shares)).sum(0) + believed
        shares, before = np.maximum(expected / expected.sum(), LEAST), shares
        shares = shares / shares.sum()
        if np.abs(shares - before).max() < TOLERANCE:
            break
    return shares


def read_shares(path: str | Path, classmap: ClassMap) -> np.ndarray:
    """Shares (C,) from a CSV with the columns class (a name or a code of the class map) and share (or area).

    They need not add up to 1. A class without a row gets LEAST.

    Raises:
        UsageError: an unknown class, one that is given twice, or a share that is no number above or equal to 0.
    """
    path = Path(path)
    table = read_csv(path)
    column = next((name for name in ("share", "area") if name in table), None)
    if "class" not in table or column is None:
        raise UsageError(f"{path}: has the columns {', '.join(table)}; expected class and share (or area)")
    places = _places(classmap)
    shares = np.full(classmap.num_classes, np.nan)
    for line, (name, value) in enumerate(zip(table["class"], table[column], strict=True), 2):
        place = places.get(str(name).strip().lower())
        if place is None:
            raise UsageError(f"{path}: line {line}: {name!r} is no class; expected of {', '.join(classmap.names)}")
        if not np.isnan(shares[place]):
            raise UsageError(f"{path}: line {line}: {name!r} has a row already; give each class once")
        shares[place] = _share(value, path, line)
    total = np.nansum(shares)
    if not total > 0:
        raise UsageError(f"{path}: the shares add up to 0; expected at least one above")
    shares = np.maximum(np.nan_to_num(shares / total), LEAST)
    return shares / shares.sum()


def _places(classmap: ClassMap) -> dict[str, int]:
    """Class ids by name and by code."""
    names: Sequence[str] = [name.strip().lower() for name in classmap.names]
    return {str(code): i for i, code in enumerate(classmap.codes)} | {name: i for i, name in enumerate(names)}


def _share(value: object, path: Path, line: int) -> float:
    try:
        share = float(value)
    except (TypeError, ValueError):
        share = np.nan
    if not (share >= 0 and np.isfinite(share)):
        raise UsageError(f"{path}: line {line}: share {value!r}; expected a number of at least 0")
    return share
