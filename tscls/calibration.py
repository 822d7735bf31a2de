"""--calibrate: a temperature for a classifier, fitted on series that networks trained in the same way have not seen.

The labelled series are dealt into folds. Each fold is predicted by a classifier that is trained on the others, and the
temperature is the one under which all these predictions are most likely (Guo et al. 2017; ``tscls.trust``). The
classifier itself is then trained on all series.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from datasets.catalog import Splits
from datasets.store import SeriesSet, join
from tscls.classifier import load_classifier
from tscls.evaluation import predict_all
from tscls.trust import fit_temperature
from utils.errors import UsageError
from utils.precision import Precision
from utils.results.logs import RunLog
from utils.runtime.distributed import World

FOLDS = 3
FOLDER = "folds"  # in that of the run, while they are trained
HELP = f"fit a temperature on held-out training series, in {FOLDS} folds: takes about {FOLDS + 1} trainings"


def deal(labels: np.ndarray, is_valid: np.ndarray, seed: int) -> np.ndarray:
    """The fold (N,) of each series, 0 … FOLDS - 1: of train and of valid, and of each class in them, equally many."""
    shuffled = np.random.default_rng(seed).random(len(labels))
    folds = np.empty(len(labels), np.int64)
    folds[np.lexsort((shuffled, labels, is_valid))] = np.arange(len(labels)) % FOLDS
    return folds


def folds(splits: Splits, seed: int) -> Iterator[tuple[Splits, SeriesSet]]:
    """Splits without a fold, and the series of that fold.

    Raises:
        UsageError: a fold, or the series without it, would be empty.
    """
    sizes = [len(splits.train), len(splits.valid)]
    if sizes[0] < FOLDS or sizes[1] == 1:
        raise UsageError(f"--calibrate: {sizes[0]} train and {sizes[1]} valid series are too few for {FOLDS} folds")
    numbers = deal(np.concatenate([splits.train.labels, splits.valid.labels]), np.repeat([0, 1], sizes), seed)
    of_train, of_valid = np.split(numbers, [sizes[0]])
    for fold in range(FOLDS):
        parts = [part.take(of == fold) for part, of in ((splits.train, of_train), (splits.valid, of_valid))]
        rest = splits._replace(train=splits.train.take(of_train != fold), valid=splits.valid.take(of_valid != fold))
        yield rest, join([part for part in parts if len(part)])


def held_out_temperature(
    train: Callable[[Splits, Path, int], object],
    splits: Splits,
    folder: Path,
    seed: int,
    world: World,
    precision: Precision,
) -> float:
    """The temperature of a run that trains in ``folder``.

    ``train(splits, folder, number)`` trains the classifier of fold ``number``, counted from 1, and saves it there.
    """
    predicted, labels = [], []
    for number, (rest, held_out) in enumerate(folds(splits, seed), 1):
        place = folder / FOLDER / str(number)
        train(rest, place, number)
        world.barrier()
        predicted.append(predict_all(load_classifier(place, world.device), held_out, world, precision=precision))
        labels.append(held_out.labels)
    temperature = fit_temperature(torch.cat(predicted), torch.from_numpy(np.concatenate(labels)))
    if world.is_main:
        print(f"temperature {temperature:.3f}, from {sum(map(len, labels))} series in {FOLDS} folds", flush=True)
    return temperature


def open_log(folder: Path, described: dict, world: World, resume_epoch: int | None) -> RunLog | None:
    """The log of a fold; None in all but the main process."""
    return RunLog(folder, described, resume_epoch=resume_epoch) if world.is_main else None


def forget(folder: Path, world: World) -> None:
    """Remove what the folds of a run have left in its folder."""
    world.barrier()
    if world.is_main:
        shutil.rmtree(folder / FOLDER, ignore_errors=True)
