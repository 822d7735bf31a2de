"""Checksums of a store: CRC-32 of every ROWS rows of an array, kept in meta.json and checked when rows are first read.

Opening a store reads none of its rows, and an epoch checks each block once, whatever the order of the series.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

ROWS = 4096  # of an array that have one checksum
METHOD = {"method": "crc32", "rows": ROWS}  # what meta.json says of them, beside those of the files


class RunningChecksums:
    """The checksums of an array whose rows come piece by piece."""

    def __init__(self):
        self._finished: list[int] = []
        self._crc = self._rows = 0  # of the block that is not full yet

    def add(self, rows: np.ndarray) -> None:
        """Take rows (n, …), which lie one after another in memory."""
        while len(rows):
            piece, rows = rows[: ROWS - self._rows], rows[ROWS - self._rows :]
            self._crc, self._rows = zlib.crc32(piece.data, self._crc), self._rows + len(piece)
            if self._rows == ROWS:
                self._finished.append(self._crc)
                self._crc = self._rows = 0

    def as_text(self) -> str:
        """Eight hexadecimal digits a block."""
        return "".join(f"{crc:08x}" for crc in [*self._finished, *([self._crc] if self._rows else [])])


def of_array(array: np.ndarray) -> str:
    """The checksums of a whole array."""
    running = RunningChecksums()
    running.add(array)
    return running.as_text()


def of_file(path: Path) -> str:
    """The checksum of a whole file, as one block."""
    crc = 0
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            crc = zlib.crc32(piece, crc)
    return f"{crc:08x}"


def of_meta(meta: dict) -> str:
    """The checksum of what meta.json says, its own aside."""
    sums = {name: text for name, text in meta.get("checksums", {}).items() if name != "meta.json"}
    return f"{zlib.crc32(json.dumps({**meta, 'checksums': sums}, sort_keys=True).encode()):08x}"


def add_to_meta(meta: dict, sums: dict[str, str]) -> dict:
    """`meta` with the checksums of the files, by name, and its own."""
    meta = {**meta, "checksums": {**METHOD, **sums}}
    meta["checksums"]["meta.json"] = of_meta(meta)
    return meta


class CheckedArray(NDArrayOperatorsMixin):
    """A memory-mapped array whose rows are checked, a block at a time, when they are first read.

    Indexed along its first axis, or taken as a whole, it gives plain arrays. `check(first, values)` is called once for
    each block, with the number of its first row and its rows followed by the next one; it raises an error.
    """

    def __init__(self, array: np.ndarray, check: Callable[[int, np.ndarray], None]):
        self._array, self._check = array, check
        self._waiting = np.ones(-(-len(array) // ROWS), dtype=bool)
        self._is_checked = False

    shape = property(lambda self: self._array.shape)
    dtype = property(lambda self: self._array.dtype)
    nbytes = property(lambda self: self._array.nbytes)

    def __len__(self) -> int:
        return len(self._array)

    def __getattr__(self, name: str):
        """Anything else that an array has, of the whole one."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(np.asarray(self), name)

    def __getitem__(self, rows) -> np.ndarray:
        if not self._is_checked:
            self._check_blocks(self._blocks_of(rows[0] if isinstance(rows, tuple) else rows))
        return self._array[rows]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        self.check_all()
        return np.array(self._array, dtype=dtype) if copy is not False else np.asarray(self._array, dtype=dtype)

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        plain = (np.asarray(item) if isinstance(item, CheckedArray) else item for item in inputs)
        return getattr(ufunc, method)(*plain, **options)

    def check_all(self) -> None:
        """Check every block that has not been read yet."""
        if not self._is_checked:
            self._check_blocks(np.arange(len(self._waiting)))
            self._is_checked = True

    def _blocks_of(self, rows) -> np.ndarray:
        if isinstance(rows, slice):
            first, last, step = rows.indices(len(self))
            low, high = (first, last - 1) if step > 0 else (last + 1, first)
            return np.arange(low // ROWS, high // ROWS + 1) if low <= high else np.empty(0, dtype=np.int64)
        rows = np.asarray(rows)
        if rows.dtype == bool:
            rows = np.flatnonzero(rows)
        rows = np.where(rows < 0, rows + len(self), rows) if rows.size and rows.min() < 0 else rows
        blocks = rows // ROWS
        if blocks.size and not 0 <= blocks.min() <= blocks.max() < len(self._waiting):
            return np.empty(0, dtype=np.int64)  # the array itself says that there is no such row
        return blocks

    def _check_blocks(self, blocks: np.ndarray) -> None:
        waiting = blocks[self._waiting[blocks]]
        for block in np.unique(waiting).tolist():
            first = block * ROWS
            self._check(first, self._array[first : first + ROWS + 1])
            self._waiting[block] = False
        if waiting.size:
            self._is_checked = not self._waiting.any()
