"""Dealing series to train, valid and eval by whole spatial blocks (Xu et al. 2024, the data section).

Neighbouring pixels are alike, so a series of eval must have no neighbour in train: blocks are dealt, not pixels.
"""

from __future__ import annotations

import hashlib

import numpy as np

from datasets.errors import DataError

SPLITS = ("train", "valid", "eval")
WEIGHTS = np.array([4, 1, 1]) / 6
ATTEMPTS = 2000  # moves of a block that the search for a missing class may make


def block_of(x: np.ndarray, y: np.ndarray, size: float) -> np.ndarray:
    """The block of each point, (N,) of str "column_row": squares of `size` (units of x and y) counted from 0, 0.

    Blocks do not depend on which other points there are, so a second year of a place has the same ones.
    """
    if not size > 0:
        raise DataError(f"block size {size}; expected more than 0")
    cells = np.floor(np.stack([np.asarray(x, np.float64), np.asarray(y, np.float64)], axis=-1) / size)
    if not np.isfinite(cells).all():
        row = int(np.argmin(np.isfinite(cells).all(axis=-1)))
        raise DataError(f"point {row} is ({x[row]}, {y[row]}); expected coordinates that are finite numbers")
    places, which = np.unique(cells.astype(np.int64).reshape(-1, 2), axis=0, return_inverse=True)
    names = np.array([f"{column}_{row}" for column, row in places.tolist()], dtype=str)
    return names[which.reshape(-1)]


def deal(blocks: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """"train", "valid" or "eval" for each series, (N,) of str, by its block (N,) and its label (N,) of any kind.

    Blocks go whole, in an order that the seed and the names of the blocks alone decide, to the split that lacks most
    of its 2/3, 1/6 and 1/6 of the series. Then blocks move until every split has each class that at least three
    blocks hold (several classes in few shared blocks can make that impossible: then as many as can be found) and
    the sizes are as close to their shares as such moves bring them. DataError: fewer than three blocks.
    """
    names, block = np.unique(np.asarray(blocks), return_inverse=True)
    if len(names) < len(SPLITS):
        raise DataError(
            f"the series lie in {len(names)} block(s), and train, valid and eval need one each;"
            " make the blocks smaller, or say which series are of which split"
        )
    classes, label = np.unique(np.asarray(labels), return_inverse=True)
    held = np.zeros((len(names), len(classes) + 1), dtype=bool)
    held[block, label] = True
    held[:, -1] = True  # a class that all blocks hold: no split may be empty
    held = held[:, held.sum(axis=0) >= len(SPLITS)]
    order = np.argsort([_key(seed, name) for name in names.tolist()], kind="stable")
    dealt = _Dealt(held[order], np.bincount(block)[order])
    dealt.find_missing(np.random.default_rng([seed, len(names)]))
    dealt.even_out()
    splits = np.empty(len(names), dtype=np.int64)
    splits[order] = dealt.split
    return np.array(SPLITS)[splits[block]]


def _key(seed: int, name: object) -> bytes:
    return hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()


class _Dealt:
    """Which split each block is in: held (B, K) tells the classes of a block, size (B,) its series."""

    def __init__(self, held: np.ndarray, size: np.ndarray):
        self.held, self.size = held, size
        self.target = WEIGHTS * size.sum()
        self.filled = np.zeros(len(SPLITS))
        self.split = np.zeros(len(size), dtype=np.int64)
        for number, series in enumerate(size):
            self.split[number] = np.argmax(self.target - self.filled)
            self.filled[self.split[number]] += series
        self.holders = np.stack([held[self.split == part].sum(axis=0) for part in range(len(SPLITS))])  # (3, K)

    def find_missing(self, rng: np.random.Generator) -> None:
        """Move blocks to splits that lack a class of theirs: the move that leaves least missing, ties at random."""
        best, fewest = self.split.copy(), self._missing()
        for _ in range(ATTEMPTS):
            lacking = np.argwhere(self.holders == 0)
            if not len(lacking):
                return
            to, which = lacking[rng.integers(len(lacking))]
            blocks = np.flatnonzero(self.held[:, which] & (self.split != to))
            cost = self._missing_after(blocks, to) + 1e-3 * rng.random(len(blocks))
            self._move(blocks[np.argmin(cost)], to)
            if (missing := self._missing()) < fewest:
                best, fewest = self.split.copy(), missing
        for number in np.flatnonzero(self.split != best):
            self._move(number, best[number])

    def even_out(self) -> None:
        """Move blocks as long as the sizes come closer to their targets and no split loses its last of a class."""
        for _ in range(len(self.size)):
            excess = self.filled - self.target
            to, source = int(np.argmin(excess)), int(np.argmax(excess))
            blocks = np.flatnonzero(self.split == source)
            after = self._missing_after(blocks, to)
            gain = (excess[source] - excess[to]) - np.abs(excess[source] - excess[to] - 2 * self.size[blocks])
            gain[after > self._missing()] = 0
            if not len(blocks) or gain.max() <= 0:
                return
            self._move(blocks[np.argmax(gain)], to)

    def _missing(self) -> int:
        return int((self.holders == 0).sum())

    def _missing_after(self, blocks: np.ndarray, to: int) -> np.ndarray:
        """Pairs of split and class that lack once a block has moved to the split `to`, for each of `blocks`."""
        lost = (self.held[blocks] & (self.holders[self.split[blocks]] == 1)).sum(axis=1)
        found = (self.held[blocks] & (self.holders[to] == 0)).sum(axis=1)
        return self._missing() + lost - found

    def _move(self, number: int, to: int) -> None:
        source = self.split[number]
        self.filled[source] -= self.size[number]
        self.filled[to] += self.size[number]
        self.holders[source] -= self.held[number]
        self.holders[to] += self.held[number]
        self.split[number] = to
