"""Writing a store in pieces, so that it is either there whole or not there at all."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from datasets import checks
from datasets.bands import BANDS
from datasets.errors import DataError
from datasets.npyfile import NpyAppender, sync_and_close

FORMAT, VERSION = "sits-store", 1


class StoreWriter:
    """Context manager that writes a store at `path` in constant memory.

    Everything goes to a sibling folder `<name>.partial-…`, which a clean exit renames to `path` and an exception
    removes. `provenance` is kept in meta.json, `source` is what errors name (the path by default), `overwrite`
    lets a finished store take the place of what is at `path`.
    """

    def __init__(
        self, path: str | Path, *, provenance: dict | None = None, overwrite: bool = False, source: str | None = None
    ):
        self.path, self.provenance, self.overwrite = Path(path), provenance or {}, overwrite
        self.source = source or str(self.path)
        self.series = self.observations = 0
        self._classes: set[int] = set()
        self._columns: list[str] | None = None  # of the index, known from the first piece on

    def __enter__(self) -> StoreWriter:
        if self.path.exists() and not self.overwrite:
            raise DataError(f"{self.path}: already exists; remove it or choose another path")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(self.path)
        self._folder = Path(tempfile.mkdtemp(prefix=_partial_prefix(self.path), dir=self.path.parent))
        self._folder.chmod(0o755)
        self._bands = NpyAppender(self._folder / "bands.npy", np.int16, (len(BANDS),))
        self._doy = NpyAppender(self._folder / "doy.npy", np.int16)
        self._offsets = NpyAppender(self._folder / "offsets.npy", np.int64)
        self._offsets.append(np.zeros(1, dtype=np.int64))
        self._index = open(self._folder / "index.csv", "w", encoding="utf-8", newline="")
        return self

    def append(
        self, bands: np.ndarray, doy: np.ndarray, lengths: np.ndarray, index: dict[str, np.ndarray] | None = None
    ) -> None:
        """Add n series at once.

        bands (m, 10) DN, rounded to int16; doy (m,); lengths (n,) summing to m; index: columns of n values, the same
        columns in every call. DataError names the series (numbered over all calls), the observation and the value.
        """
        bands, doy, lengths = np.asarray(bands), np.asarray(doy), np.asarray(lengths, dtype=np.int64)
        if bands.ndim != 2 or bands.shape[1] != len(BANDS) or doy.shape != bands.shape[:1]:
            raise DataError(
                f"{self.source}: bands of shape {bands.shape} with days of year of shape {doy.shape};"
                f" expected (m, {len(BANDS)}) and (m,)"
            )
        checks.check_lengths(lengths, len(doy), self.source, self.series)
        checks.check_bands(bands, lengths, self.source, self.series)
        checks.check_days(doy, lengths, self.source, self.series)
        self._append_index(index, len(lengths))
        self._bands.append(np.rint(bands) if bands.dtype.kind == "f" else bands)
        self._doy.append(doy)
        self._offsets.append(self.observations + np.cumsum(lengths))
        self.series += len(lengths)
        self.observations += len(doy)

    def _append_index(self, index: dict[str, np.ndarray] | None, count: int) -> None:
        columns = list(index or {})
        if self._columns is None:
            self._columns = columns
            if columns:
                pd.DataFrame(columns=columns).to_csv(self._index, index=False, lineterminator="\n")
        if columns != self._columns:
            raise DataError(
                f"{self.source}: series from {self.series} on have the index columns {columns};"
                f" expected {self._columns} as in the series before"
            )
        for name, values in (index or {}).items():
            if np.shape(values) != (count,):
                raise DataError(
                    f"{self.source}: index column {name!r} has shape {np.shape(values)}; expected ({count},)"
                )
        if columns:
            if "label" in index:
                labels = np.asarray(index["label"])
                checks.check_labels(labels, None, self.source, self.series)
                self._classes.update(np.unique(labels).tolist())
            pd.DataFrame(index).to_csv(self._index, index=False, header=False, lineterminator="\n")

    def __exit__(self, error_type, error, traceback) -> None:
        try:
            if error_type is None:
                self._finish()
        finally:
            for array in (self._bands, self._doy, self._offsets):
                array.discard()
            self._index.close()
            shutil.rmtree(self._folder, ignore_errors=True)  # already renamed away after a clean exit

    def _finish(self) -> None:
        if not self.series:
            raise DataError(f"{self.source}: no series; expected at least one")
        for array in (self._bands, self._doy, self._offsets):
            array.close()
        sync_and_close(self._index)
        if not self._columns:
            (self._folder / "index.csv").unlink()
        meta = {
            "format": FORMAT,
            "version": VERSION,
            "series": self.series,
            "observations": self.observations,
            "classes": len(self._classes) if "label" in self._columns else None,
            "provenance": self.provenance,
        }
        with open(self._folder / "meta.json", "w", encoding="utf-8") as file:
            json.dump(meta, file, indent=2)
            sync_and_close(file)
        _sync_folder(self._folder)
        self._put_in_place()
        _sync_folder(self.path.parent)

    def _put_in_place(self) -> None:
        """Rename the finished folder; what it replaces is moved aside first and then removed."""
        replaced = None
        if self.overwrite and self.path.exists():
            replaced = Path(tempfile.mkdtemp(prefix=_partial_prefix(self.path), dir=self.path.parent))
            self.path.rename(replaced / "replaced")
        try:
            self._folder.rename(self.path)
        except OSError as error:
            raise DataError(f"{self.path}: appeared while it was being written ({error.strerror})") from None
        finally:
            if replaced is not None:
                shutil.rmtree(replaced, ignore_errors=True)


def _partial_prefix(path: Path) -> str:
    """Names the writing process, so that the next writer can tell a crash's leftovers from work under way."""
    return f"{path.name}.partial-{socket.gethostname()}-{os.getpid()}-"


def _remove_leftovers(path: Path) -> None:
    """Remove partial folders of `path` whose process, on this machine, is gone."""
    own = re.compile(re.escape(f"{path.name}.partial-{socket.gethostname()}-") + r"(\d+)-[^-]+")
    for sibling in path.parent.iterdir():
        match = own.fullmatch(sibling.name)
        if match and not _is_running(int(match[1])):
            shutil.rmtree(sibling, ignore_errors=True)


def _is_running(pid: int) -> bool:
    if os.name != "posix":  # signal 0 asks only on POSIX
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's, and running
        return True
    return True


def _sync_folder(path: Path) -> None:
    """Make renames and new files in a folder survive a power cut (folders can be opened on POSIX alone)."""
    if os.name == "posix":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
