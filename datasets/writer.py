"""Writing a store piece by piece: it appears whole or not at all."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd

from datasets import checks, checksums
from datasets.bands import BANDS
from datasets.errors import DataError
from datasets.npyfile import NpyAppender
from utils.files import atomic_folder

FORMAT, VERSION = "sits-store", 1


class StoreWriter:
    """Context manager that writes a store at `path` in constant memory.

    Everything is written to a folder `<name>.partial-…` beside it, which a clean exit renames to `path` and an
    exception removes. `provenance` is kept in meta.json, `source` is what errors name (the path by default),
    `overwrite` lets a finished store replace what is at `path`.
    """

    def __init__(
        self, path: str | Path, *, provenance: dict | None = None, overwrite: bool = False, source: str | None = None
    ):
        self.path, self.provenance, self.overwrite = Path(path), provenance or {}, overwrite
        self.source = source or str(self.path)
        self.series = self.observations = self.absurd = 0
        self._classes: set[int] = set()
        self.columns: list[str] | None = None  # of the index, known from the first piece on

    def __enter__(self) -> StoreWriter:
        if self.path.exists() and not self.overwrite:
            raise DataError(f"{self.path}: already exists; remove it or choose another path")
        self._place = atomic_folder(self.path, overwrite=self.overwrite)
        self._folder = self._place.__enter__()
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
        bands = (np.rint(bands) if bands.dtype.kind == "f" else bands).astype(np.int16)
        self.absurd += int(checks.are_absurd(bands, lengths).sum()) if len(lengths) else 0
        self._bands.append(bands)
        self._doy.append(doy)
        self._offsets.append(self.observations + np.cumsum(lengths))
        self.series += len(lengths)
        self.observations += len(doy)

    def _append_index(self, index: dict[str, np.ndarray] | None, count: int) -> None:
        columns = list(index or {})
        if self.columns is None:
            self.columns = columns
            if columns:
                pd.DataFrame(columns=columns).to_csv(self._index, index=False, lineterminator="\n")
        if columns != self.columns:
            raise DataError(
                f"{self.source}: series from {self.series} on have the index columns {columns};"
                f" expected {self.columns} as in the series before"
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

    def __exit__(self, *raised) -> None:
        try:
            with ExitStack() as stack:
                stack.push(lambda *own: self._place.__exit__(*(own if own[0] else raised)))
                stack.callback(self._close)
                if raised[0] is None:
                    self._finish()
        except FileExistsError:
            raise DataError(f"{self.path}: another process has written it meanwhile") from None

    def _close(self) -> None:
        for array in (self._bands, self._doy, self._offsets):
            array.discard()
        self._index.close()

    def _finish(self) -> None:
        if not self.series:
            raise DataError(f"{self.source}: no series; expected at least one")
        for array in (self._bands, self._doy, self._offsets):
            array.close()
        self._index.close()
        if not self.columns:
            (self._folder / "index.csv").unlink()
        meta = {
            "format": FORMAT,
            "version": VERSION,
            "series": self.series,
            "observations": self.observations,
            "classes": len(self._classes) if "label" in self.columns else None,
            "absurd": self.absurd,  # series (checks.are_absurd): where there are none, none are looked for
            "provenance": self.provenance,
        }
        arrays = {"bands.npy": self._bands, "doy.npy": self._doy, "offsets.npy": self._offsets}
        sums = {name: array.checksums.as_text() for name, array in arrays.items()}
        if self.columns:
            sums["index.csv"] = checksums.of_file(self._folder / "index.csv")
        meta = checksums.add_to_meta(meta, sums)
        (self._folder / "meta.json").write_text(json.dumps(meta, indent=2), encoding="utf-8")
