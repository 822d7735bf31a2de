"""A .npy file that grows: rows are appended as they come, the header learns the shape at the end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.lib.format import write_array_header_1_0


class NpyAppender:
    """Writes rows of shape `row_shape` to `path`; the file is a valid .npy array after `close()`.

    NumPy pads a header so that the first axis may grow to 21 digits: the last one is as long as the first.
    """

    def __init__(self, path: Path, dtype: type, row_shape: tuple[int, ...] = ()):
        self.dtype, self.row_shape, self.rows = np.dtype(dtype), row_shape, 0
        self._file = open(path, "wb")
        self._write_header()

    def append(self, rows: np.ndarray) -> None:
        """Write rows (n, *row_shape), already within the range of the file's dtype."""
        self._file.write(np.ascontiguousarray(rows, dtype=self.dtype).data)
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
