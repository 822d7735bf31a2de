"""Maps of small scenes, and what they must hold."""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
import torch

from datasets.images import Pixels
from datasets.store import SeriesSet, Store
from mapping import predict
from tests.support.classifiers import small_classifier
from tscls.classifier import Classifier

NO_DATA = 255


def undecided(kind: str = "tempcnn, padded", seed: int = 0) -> Classifier:
    """A small classifier that tells many classes apart: logits that vary much, around 0."""
    classifier = small_classifier(kind, seed=seed)
    if classifier.is_network:
        last = [module for module in classifier.model.modules() if isinstance(module, torch.nn.Linear)][-1]
        random = np.random.default_rng(seed)
        days = np.tile(np.sort(random.choice(np.arange(1, 366), 8, replace=False)).astype(np.int16), 60)
        store = Store(Path("x"), "x", {}, random.integers(1, 9000, (480, 10), np.int16), days, np.arange(61) * 8)
        with torch.no_grad():
            logs = torch.cat(list(classifier.predict(SeriesSet.whole(store))))
            last.weight *= 0.5 / logs.std(0).mean()
            logs = torch.cat(list(classifier.predict(SeriesSet.whole(store))))
            last.bias -= logs.mean(0)
    return classifier


def save_model(path: Path, kind: str = "tempcnn, padded", seed: int = 0) -> Path:
    """A checkpoint of `undecided`; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    undecided(kind, seed).save(path)
    return path


def make_map(model: Path, images: Path, out: Path, *more) -> Path:
    """Run the command in this process."""
    out.parent.mkdir(parents=True, exist_ok=True)
    options = ["--model", model, "--images", images, "--out", out, "--device", "cpu", *more]
    predict.main([str(option) for option in options])
    return out


def read_map(path: Path) -> np.ndarray:
    """Both bands, (2, h, w)."""
    with rasterio.open(path) as file:
        return file.read()


def alone(classifier: Classifier, pixels: Pixels) -> np.ndarray:
    """Probabilities (P, classes) of the series, each predicted by itself."""
    found, first = [], 0
    for length in pixels.lengths:
        part = slice(first, first + length)
        store = Store(Path("x"), "x", {}, pixels.bands[part], pixels.doy[part], np.array([0, length]))
        found += list(classifier.predict(SeriesSet.whole(store), draws=0))
        first += length
    return torch.cat(found).exp().numpy() if found else np.zeros((0, classifier.num_classes), np.float32)


def expected_map(classifier: Classifier, pixels: Pixels, shape: tuple[int, int]) -> np.ndarray:
    """Codes and confidences (2, h, w) of a map whose pixels are predicted one by one."""
    codes, per_cent = codes_and_per_cent(classifier, pixels, shape)
    return np.stack([codes, np.where(np.isnan(per_cent), NO_DATA, per_cent.round()).astype(np.uint8)])


def assert_map(found: np.ndarray, classifier: Classifier, pixels: Pixels, shape: tuple[int, int]) -> None:
    """A map (2, h, w) is `expected_map`, but where a probability is within 1e-5 of a tie of its rounding.

    A batch may be summed in another order than a single series.
    """
    codes, per_cent = codes_and_per_cent(classifier, pixels, shape)
    np.testing.assert_array_equal(found[0], codes)
    is_data = ~np.isnan(per_cent)
    assert (found[1][~is_data] == NO_DATA).all()
    assert (np.abs(found[1][is_data] - per_cent[is_data]) <= 0.5 + 1e-3).all()


def codes_and_per_cent(classifier: Classifier, pixels: Pixels, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Codes and probabilities in per cent, not rounded (NaN: no data), each (h, w), of pixels predicted one by one."""
    codes, per_cent = np.full(shape, NO_DATA, np.uint8), np.full(shape, np.nan)
    for row, col, probability in zip(pixels.row, pixels.col, alone(classifier, pixels), strict=True):
        codes[row, col] = classifier.classmap.codes[probability.argmax()]
        per_cent[row, col] = float(probability.max()) * 100
    return codes, per_cent


def in_child(work: Callable[[], object], killed_after: float | None = None) -> int:
    """Do the work in a forked process, which may be killed after so many seconds; returns its exit code, or minus the
    number of the signal that ended it."""
    child = os.fork()
    if not child:
        code = 70  # of an exception
        try:
            work()
            code = 0
        except SystemExit as end:
            code = end.code
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    if killed_after is not None:
        time.sleep(killed_after)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die_at(count: int) -> None:
    """Let this process be killed at the `count`-th file (from 1) that takes its name; before it for even counts."""
    replace, calls = os.replace, 0

    def dying(source, target):
        nonlocal calls
        calls += 1
        if calls == count and count % 2 == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
        if calls == count:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = dying
