"""The label budget: which series are used when only N labelled ones may be.

Of N, int(0.9 N) come from train, no class giving more than 2 N / classes, and the rest from valid in natural
proportions (SITS-MoCo, experimental setup). Every draw has a random stream of its own, given by the seed and the split.
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


def class_limit(num: int, num_classes: int) -> int:
    """Series that one class may give to the train draw of a budget of `num`, "Other" being one of `num_classes`.

    Twice an equal share: classes keep an order of how common they are, and none fills the draw.
    """
    return max(1, 2 * num // num_classes)


def draw_limited(labels: np.ndarray, count: int, limit: int, seed: int, *, where: str = "train") -> np.ndarray:
    """Positions, sorted, of `count` series drawn with equal chance, but at most `limit` of a class.

    Where that cannot make up the count, the rest is drawn from what is left, with a warning.
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
    in_turn = np.concatenate([shuffled[is_within], shuffled[~is_within]])
    return np.sort(in_turn[:count])


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
