"""The label budget: which series are used when only N may be labelled.

Of N, int(0.9 N) come from train, with at most 2 N / classes of a class, and the rest from valid in natural
proportions (SITS-MoCo, experimental setup). Every draw has its own random stream, given by the seed and the split.
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
    """How many of `num` series come from train and from valid; DataError if either would be 0."""
    from_train = num * 9 // 10  # int(0.9 num) without floating-point error
    if num < 2:
        raise DataError(f"a budget of {num} labelled series leaves train or valid empty; give -n 2 or more")
    return from_train, num - from_train


def class_limit(num: int, num_classes: int) -> int:
    """The most series of one class in the train draw of a budget of `num`; "Other" is one of `num_classes`.

    Twice the number of a balanced draw: common classes stay more common, and none dominates.
    """
    return max(1, 2 * num // num_classes)


def draw_limited(labels: np.ndarray, count: int, limit: int, seed: int, *, where: str = "train") -> np.ndarray:
    """Sorted positions of `count` series drawn uniformly, with at most `limit` of a class.

    Where the limit leaves too few, the rest are drawn from the other series, with a warning.
    """
    _check_available(count, len(labels), where)
    if count == len(labels):
        return np.arange(count)
    shuffled = _stream(seed, "train").permutation(len(labels))
    is_within = _occurrence(labels[shuffled]) < limit
    if is_within.sum() < count:
        _warn_once(
            f"{where}: only {is_within.sum()} of {count} series can be drawn with at most {limit} of a class;"
            " the rest are drawn from the commoner classes"
        )
    by_preference = np.concatenate([shuffled[is_within], shuffled[~is_within]])
    return np.sort(by_preference[:count])


def draw_natural(available: int, count: int, seed: int, split: str, *, where: str | None = None) -> np.ndarray:
    """Sorted positions of `count` of `available` series, drawn uniformly."""
    _check_available(count, available, where or split)
    return np.sort(_stream(seed, split).permutation(available)[:count])


def _occurrence(labels: np.ndarray) -> np.ndarray:
    """How often the value of each entry has occurred before it: [5, 5, 2, 5] -> [0, 1, 0, 2]."""
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
