"""The label budget: which series are used when only N labelled ones may be.

Of N, int(0.9 N) come from train, balanced over the classes, and the rest from valid in natural proportions
(SITS-MoCo, experimental setup). Every draw has a random stream of its own, given by the seed and the split.
"""

from __future__ import annotations

import functools
import logging

import numpy as np

from datasets.errors import DataError

LABELLED = ("train", "valid", "eval")
SPLITS = (*LABELLED, "unlabelled")

logger = logging.getLogger(__name__)


def split_budget(num: int) -> tuple[int, int]:
    """Series from train and from valid for a budget of `num` in all; DataError if either would get none."""
    from_train = num * 9 // 10  # int(0.9 num) without its rounding
    if num < 2:
        raise DataError(f"a budget of {num} labelled series leaves train or valid empty; give -n 2 or more")
    return from_train, num - from_train


def draw_balanced(labels: np.ndarray, count: int, num_classes: int, seed: int, *, where: str = "train") -> np.ndarray:
    """Positions, sorted, of `count` series drawn in turn from every class.

    Round after round each class, in a seeded order, gives one series, so rare classes are used up and no class gives
    more than 2·count/num_classes (at least 1), num_classes being the outputs, "Other" included. Where that cannot
    make up the count, the rest is drawn at random from what is left, with a warning.
    """
    _check_available(count, len(labels), where)
    if count == len(labels):
        return np.arange(count)
    generator = _stream(seed, "train")
    shuffled = generator.permutation(len(labels))
    place_of_class = generator.permutation(num_classes)
    rounds = _occurrence(labels[shuffled])
    in_turn = np.lexsort((place_of_class[labels[shuffled]], rounds))
    limit = max(1, 2 * count // num_classes)
    capped, left = in_turn[rounds[in_turn] < limit], in_turn[rounds[in_turn] >= limit]
    if len(capped) < count:
        _warn_once(
            f"{where}: only {len(capped)} of {count} series can be drawn with at most {limit} of a class;"
            " the rest are drawn from the commoner classes"
        )
        capped = np.concatenate([capped, generator.permutation(left)])
    return np.sort(shuffled[capped[:count]])


def draw_natural(available: int, count: int, seed: int, split: str, *, where: str | None = None) -> np.ndarray:
    """Positions, sorted, of `count` of `available` series drawn with equal chance."""
    _check_available(count, available, where or split)
    return np.sort(_stream(seed, split).permutation(available)[:count])


def _occurrence(labels: np.ndarray) -> np.ndarray:
    """How often each entry's value came before it: [5, 5, 2, 5] -> [0, 1, 0, 2]."""
    by_class = np.argsort(labels, kind="stable")
    _, starts, counts = np.unique(labels[by_class], return_index=True, return_counts=True)
    occurrence = np.empty(len(labels), dtype=np.int64)
    occurrence[by_class] = np.arange(len(labels)) - np.repeat(starts, counts)
    return occurrence


def _check_available(count: int, available: int, where: str) -> None:
    if count < 1:
        raise DataError(f"{where}: {count} series asked for; expected at least 1")
    if count > available:
        raise DataError(
            f"{where}: the budget needs {count:,} series, there are {available:,}; give a smaller -n or --useall"
        )


def _stream(seed: int, split: str) -> np.random.Generator:
    if seed < 0:
        raise DataError(f"seed {seed}: expected 0 or more")
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(SPLITS.index(split),)))


@functools.cache
def _warn_once(message: str) -> None:
    logger.warning(message)
