"""Plain .npy files: what a header says, mapping an array that is all there, and a file that grows.

A header is text of whoever wrote the file: what it says of the size is compared with the file before anything of that
size is mapped or allocated.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.lib.format import write_array_header_1_0

from datasets.checksums import RunningChecksums


class Header(NamedTuple):
    """What a .npy file says of its array."""

    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype


def read_header(file: BinaryIO) -> Header:
    """The header of a .npy file, which is left at the first byte of the data; ValueError for anything else."""
    try:
        version = npy.read_magic(file)
        header = Header(*(npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(file))
    except Exception as error:  # NumPy evaluates the text of the header: damaged text can raise nearly anything
        raise ValueError(f"its header is no NumPy header: {' '.join(str(error).split())[:80]}") from None
    if any(isinstance(size, bool) or size < 0 for size in header.shape):
        raise ValueError(f"its header says shape {header.shape}")
    return header


def map_array(path: Path, dtype: type, row_shape: tuple[int, ...] = ()) -> np.ndarray:
    """Map the rows (n, *row_shape) of a .npy file that is as long as its header says.

    ValueError for another type, byte order, shape or memory order, or for a file that is shorter or longer.
    """
    with open(path, "rb") as file:
        header, start = read_header(file), file.tell()
        size = file.seek(0, 2) - start
    shape, dtype = header.shape, np.dtype(dtype)
    expected = f"{dtype}, {' x '.join(['rows', *map(str, row_shape)])}"
    if header.dtype != dtype or len(shape) != 1 + len(row_shape) or shape[1:] != row_shape:
        raise ValueError(f"{header.dtype} of shape {shape}; expected {expected}")
    if header.is_fortran and row_shape:
        raise ValueError(f"its columns lie one after another (Fortran order); expected {expected} in C order")
    if size != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{size:,} bytes of data for the shape {shape}; it is damaged or cut off")
    return np.memmap(path, dtype, mode="r", offset=start, shape=shape)


class NpyAppender:
    """Writes rows of shape `row_shape` to `path`; the file is a valid .npy array after `close()`.

    NumPy pads a header so that the first axis may grow to 21 digits: the last one is as long as the first.
    """

    def __init__(self, path: Path, dtype: type, row_shape: tuple[int, ...] = ()):
        self.dtype, self.row_shape, self.rows = np.dtype(dtype), row_shape, 0
        self.checksums = RunningChecksums()
        self._file = open(path, "wb")
        self._write_header()

    def append(self, rows: np.ndarray) -> None:
        """Write rows (n, *row_shape), already within the range of the file's dtype."""
        rows = np.ascontiguousarray(rows, dtype=self.dtype)
        self._file.write(rows.data)
        self.checksums.add(rows)
        self.rows += len(rows)

    def close(self) -> None:
        """Put the final shape into the header."""
        self._file.seek(0)
        self._write_header()
        self._file.close()

    def discard(self) -> None:
        """Close a file that nobody will read."""
        self._file.close()

    def _write_header(self) -> None:
        shape = (self.rows, *self.row_shape)
        write_array_header_1_0(self._file, {"descr": self.dtype.str, "fortran_order": False, "shape": shape})
