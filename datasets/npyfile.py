"""A .npy file that grows: rows are appended as they come, the header learns the shape at the end."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np

HEADER_BYTES = 128


class NpyAppender:
    """Writes rows of shape `row_shape` to `path`; the file is a valid .npy array after `close()`."""

    def __init__(self, path: Path, dtype: type, row_shape: tuple[int, ...] = ()):
        self.dtype, self.row_shape, self.rows = np.dtype(dtype), row_shape, 0
        self._file = open(path, "wb")
        self._file.write(self._header())

    def append(self, rows: np.ndarray) -> None:
        """Write rows (n, *row_shape), already within the range of the file's dtype."""
        self._file.write(np.ascontiguousarray(rows, dtype=self.dtype).data)
        self.rows += len(rows)

    def close(self) -> None:
        """Put the final shape into the header and the bytes on the disk."""
        self._file.seek(0)
        self._file.write(self._header())
        sync_and_close(self._file)

    def discard(self) -> None:
        """Close a file that nobody is going to read."""
        self._file.close()

    def _header(self) -> bytes:
        """Header of format 1.0, padded to a fixed size so that a larger shape fits in later."""
        shape = (self.rows, *self.row_shape)
        text = repr({"descr": self.dtype.str, "fortran_order": False, "shape": shape})
        size = HEADER_BYTES - 10  # after magic string, version and this size itself
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", size) + text.ljust(size - 1).encode("latin1") + b"\n"


def sync_and_close(file) -> None:
    """Close an open file once its bytes are on the disk."""
    file.flush()
    os.fsync(file.fileno())
    file.close()
