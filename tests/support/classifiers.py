"""Small classifiers, and series for them, for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from datasets.classmap import CDL20
from datasets.store import SeriesSet
from models import ESTIMATORS
from tests.support.layout import make_series, store_of
from tscls.classifier import Classifier, fresh_classifier

SIZE = 12
KINDS = {  # a model, how its series reach length S, and whether it reads days where it could do without
    "stnet": ("stnet", "rc", False),
    "transformer of days": ("transformer", "pad", True),
    "transformer of positions": ("transformer", "rc", False),
    "transformer of positions, padded": ("transformer", "pad", False),
    "tempcnn": ("tempcnn", "interp", False),
    "tempcnn, padded": ("tempcnn", "pad", False),
    "lstm": ("lstm", "rc", False),
    "lstm, padded": ("lstm", "pad", False),
    "ltae": ("ltae", "pad", False),
    "ltae, drawn": ("ltae", "rc", False),
    "rf": ("rf", "interp", False),
    "svm": ("svm", "rc", False),
    "gbt": ("gbt", "pad", False),
}


def series_of(path: Path, lengths: list[int], seed: int = 0, labels: list[int] | None = None) -> SeriesSet:
    """A store of series of these lengths."""
    generator = np.random.default_rng(seed)
    return SeriesSet.whole(store_of(path, [make_series(generator, length) for length in lengths], labels))


def small_classifier(kind: str, *, draws: int = 0, seed: int = 0) -> Classifier:
    """One of KINDS, its weights (or for scikit-learn its training series) drawn by the seed."""
    name, method, use_doy = KINDS[kind]
    torch.manual_seed(seed)
    options = {"sequencelength": SIZE, "use_doy": use_doy, "init": "torch", "draws": draws, "seed": 5}
    classifier = fresh_classifier(name, CDL20, method, **options)
    if name in ESTIMATORS:
        generator = np.random.default_rng(seed)
        x = generator.normal(size=(40, SIZE, 10)).astype(np.float32)
        if name == "rf":
            classifier.model.classifier.set_params(n_estimators=9, n_jobs=1)
        classifier.model.fit(x, np.repeat([0, 3, 7, 20], 10))
        return classifier
    for buffer_name, buffer in classifier.model.named_buffers():  # as after training
        if buffer_name.endswith("running_mean"):
            buffer.normal_(std=0.3)
        elif buffer_name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    return classifier
