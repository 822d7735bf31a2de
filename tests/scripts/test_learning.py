"""Both scripts learn what can be learned: on series that are easy to tell apart, the scores become good."""

from __future__ import annotations

import numpy as np
import pytest

from datasets.classmap import CDL20, write_classmap
from tests.support.layout import make_series, store_of
from tests.support.runs import column, pretrain, train

CLASSES = 4
COUNTS = {"train": 60, "valid": 20, "eval": 40}


def series_around(spectra: np.ndarray, noise: int, seed: int) -> list[np.ndarray]:
    """A series for each spectrum (N, 10), every observation with noise of its own."""
    generator = np.random.default_rng(seed)
    series = [make_series(generator, int(generator.integers(10, 30))) for _ in spectra]
    for array, spectrum in zip(series, spectra, strict=True):
        array[:, :10] = spectrum + generator.integers(-noise, noise, (len(array), 10))
    return series


@pytest.mark.parametrize(("recipe", "epochs"), [("published", 25), ("few-label", 8)])
def test_a_classifier_learns_classes_with_spectra_of_their_own(tmp_path, no_pictures, recipe, epochs):
    spectra = np.random.default_rng(0).integers(500, 9000, (CLASSES, 10))
    for split, count in COUNTS.items():
        labels = np.arange(count) % CLASSES
        store_of(tmp_path / "2019" / split, series_around(spectra[labels], 300, seed=count), labels.tolist())
    write_classmap(tmp_path / "classmapping20.csv", CDL20)
    flags = ("--useall", "--rc", "--recipe", recipe, "-e", epochs, "--init", "torch")
    folder = train(tmp_path, tmp_path / "results", *flags)
    losses = column(folder, "train_loss")
    assert column(folder, "oa", "testlog.csv")[0] > 0.9 and losses[-1] < 0.7 * losses[0]


def test_pretraining_learns_to_tell_series_apart(tmp_path):
    """Spectra that differ little: at first their keys are all alike, and the loss among 30 is near log 30 = 3.4."""
    spectra = 3000 + np.random.default_rng(0).integers(-300, 300, (300, 10))
    store_of(tmp_path / "2019" / "unlabelled", series_around(spectra, 150, seed=1), None)
    flags = ("--rc", "--use-doy", "--mlp", "--moco-t", 0.1, "--moco-m", 0.99, "--moco-k", 128, "-b", 32, "-e", 9)
    folder = pretrain(tmp_path, tmp_path / "results", *flags)
    losses, top1 = column(folder, "valid_loss"), column(folder, "valid_top1")
    assert losses[0] > 2 and losses[-1] < 0.5 and top1[-1] > 0.9
    assert column(folder, "train_top1")[-1] > 0.7
