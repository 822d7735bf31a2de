"""The classifiers of scikit-learn: trained on a whole set of series, saved in a file that runs no code when loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datasets.batches import open_series, split_batches
from datasets.store import SeriesSet
from models import SeriesEstimator
from tscls.inputs import Way
from utils.archive import add_digests, check_archive
from utils.checkpoint import CheckpointError
from utils.errors import UsageError
from utils.files import atomic_write
from utils.runtime.seeding import make_generator

BATCH = 512  # series that are made input of together
CLASSIFIERS = ("RandomForestClassifier", "Pipeline", "HistGradientBoostingClassifier")  # of sklearn
# Beside what skops trusts by itself: the trees, which are arrays in a compiled class, and with scikit-learn 1.4 what
# gradient boosting keeps of its binning and its loss.
TRUSTED = (
    "sklearn.tree._tree.Tree",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
    *(f"sklearn._loss.loss.{name}" for name in ("HalfBinomialLoss", "HalfMultinomialLoss")),
    *(f"sklearn._loss.link.{name}" for name in ("Interval", "LogitLink", "HalfLogitLink", "MultinomialLogit")),
)


def training_input(series: SeriesSet, way: Way, seed: int) -> np.ndarray:
    """x (N, S, 10) of a whole set; draws of observations are fixed by the seed."""
    reader = open_series(series, torch.device("cpu"))
    generator = make_generator(seed, "evaluation", 0)
    batches = split_batches(np.arange(len(series)), BATCH)
    return torch.cat([way.drawn(part, generator).x for part in reader.stream(batches)]).numpy()


def save_estimator(path: str | Path, model: SeriesEstimator, settings: dict[str, Any]) -> None:
    """Write a trained classifier and its settings (numbers, strings, lists, dicts) to a skops file, whole or not."""
    io = _skops()
    with atomic_write(path) as partial:
        io.dump({**settings, "estimator": model.classifier}, partial)
        add_digests(partial)


def load_estimator(path: str | Path) -> dict[str, Any]:
    """The settings that ``save_estimator`` wrote, and the ``estimator``.

    Raises:
        CheckpointError: not such a file, or one with an object of a type other than scikit-learn's and ours.
    """
    io = _skops()
    try:
        check_archive(path)
        refused = set(io.get_untrusted_types(file=path)) - set(TRUSTED)
        saved = None if refused else io.load(path, trusted=list(TRUSTED))
    except Exception as error:  # damaged bytes can make it raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        reason = reason.removeprefix("damaged, cut off or of another kind: ")
        raise CheckpointError(f"{path}: cannot be read: damaged, cut off or of another kind ({reason})") from None
    if refused:
        raise CheckpointError(f"{path}: it holds {_listed(sorted(refused))}, which is never loaded")
    if not isinstance(saved, dict) or not _is_classifier(saved.get("estimator")):
        raise CheckpointError(f"{path}: no classifier in it; expected a model_best.skops of main_tscls.py")
    return saved


def _is_classifier(loaded: object) -> bool:
    kind = type(loaded)
    return kind.__module__.startswith("sklearn.") and kind.__name__ in CLASSIFIERS


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")


def _skops():
    try:
        import skops.io
    except ImportError:
        raise UsageError("rf, svm and gbt are saved and loaded by skops: pip install skops") from None
    return skops.io
