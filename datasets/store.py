"""The store: ragged series as flat, memory-mapped arrays in a folder.

    bands.npy    (M, 10) int16   digital numbers, all observations of all series one after another
    doy.npy      (M,)    int16   day of year, 1-366
    offsets.npy  (N+1,)  int64   series i is rows offsets[i] to offsets[i+1]
    index.csv    N rows          label (class id), code, region, id …; absent for unlabelled data
    meta.json                    format, version, counts, provenance, checksums (datasets/checksums.py)

That is 22 bytes an observation and 8 a series. Opening reads the headers alone, whatever the number of series; what
the checksums say is compared when series are first read. Stores of other programs, and older ones, have none.

    python -m datasets.store PATH                      # check everything in a store and describe it
    python -m datasets.store PATH --write-checksums    # and give it checksums of what is in it now
"""

from __future__ import annotations

import copyreg
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd

from datasets import checks, storefiles
from datasets.checksums import CheckedArray
from datasets.errors import DataError
from datasets.tables import read_csv, whole_numbers
from datasets.writer import StoreWriter
from utils.errors import Parser, exit_cleanly

__all__ = ["SeriesSet", "Store", "StoreWriter", "join"]

CHUNK = 65536  # series that validate() checks together
CLASS_ID = "a class id (a whole number)"


class Store:
    """A finished store, open for reading. Pickled, it is a path that the other process maps (or the arrays of `join`).

    `source` is what errors about the series name: what the store was converted from, or the store itself.
    """

    def __init__(self, path: Path, source: str, meta: dict, bands: np.ndarray, doy: np.ndarray, offsets: np.ndarray):
        self.path, self.source, self.meta = path, source, meta
        self.bands, self.doy, self.offsets = bands, doy, offsets

    @classmethod
    def open(cls, path: str | Path, source: str | None = None, *, check_days: bool = True) -> Store:
        """Map the store at `path`; DataError if it is not a store, is unfinished, or its files disagree.

        Days of year are checked when they are read, or, without `check_days`, by `datasets.screening`.
        """
        path = Path(path)
        meta = storefiles.read_meta(path)
        arrays = storefiles.map_arrays(path, source or str(path), meta, check_days=check_days)
        store = cls(path, source or str(path), meta, *arrays)
        store._check_days = check_days
        _ = store.offsets[0], store.offsets[-1]  # which are checked so
        return store

    def __reduce__(self):
        if isinstance(self.bands, CheckedArray):
            return partial(Store.open, check_days=self._check_days), (self.path, self.source)
        return copyreg.__newobj__, (Store,), vars(self)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __repr__(self) -> str:
        size = self.bands.nbytes + self.doy.nbytes + self.offsets.nbytes
        classes = self.meta["classes"]
        return (
            f"Store({self.path}: {len(self):,} series, {len(self.doy):,} observations,"
            f" {'unlabelled' if classes is None else f'{classes} classes'}, {_human(size)})"
        )

    @property
    def lengths(self) -> np.ndarray:
        """Observations of each series, (N,) int64."""
        return np.diff(self.offsets)

    @cached_property
    def index(self) -> pd.DataFrame | None:
        """index.csv, one row a series (`None` if there is none); read at the first use."""
        file = self.path / "index.csv"
        if not storefiles.check_index(self.path, self.source, self.meta):
            return None
        index = read_csv(file)
        if len(index) != len(self):
            raise DataError(
                f"{file}: {len(index)} rows for {len(self)} series, blank lines not counted; expected a row a series"
            )
        if "label" in index:
            index["label"] = whole_numbers(index, file, "label", what=CLASS_ID)
        return index

    @cached_property
    def absurd(self) -> np.ndarray:
        """Numbers of the series that were never measured (`checks.are_absurd`) or whose days of year are no days or
        out of order, sorted; found at the first use."""
        if self.meta.get("absurd") == 0:
            return np.empty(0, dtype=np.int64)
        found = []
        for first in range(0, len(self), CHUNK):
            offsets = np.asarray(self.offsets[first : first + CHUNK + 1])
            rows, lengths = slice(offsets[0], offsets[-1]), np.diff(offsets)
            are_good = ~checks.are_absurd(self.bands[rows], lengths) & checks.have_good_days(self.doy[rows], lengths)
            found.append(first + np.flatnonzero(~are_good))
        return np.concatenate(found)

    @cached_property
    def labels(self) -> np.ndarray | None:
        """Class id of each series, (N,) int64; `None` for unlabelled data."""
        if self.index is None or "label" not in self.index:
            return None
        return self.index["label"].to_numpy()

    def check_labels(self, num_classes: int | None) -> None:
        """Labels run from 0 to num_classes - 1; DataError names the line of index.csv, or the series of `source`."""
        if num_classes is not None and self.source == str(self.path):
            whole_numbers(self.index, self.path / "index.csv", "label", 0, num_classes - 1, what=CLASS_ID)
        else:
            checks.check_labels(self.labels, num_classes, self.source)

    def series(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Bands (T, 10) int16 DN and day of year (T,) int16 of series i."""
        if not 0 <= i < len(self):
            raise IndexError(f"series {i} of {len(self)}")
        rows = slice(self.offsets[i], self.offsets[i + 1])
        return self.bands[rows], self.doy[rows]

    def validate(self, num_classes: int | None = None) -> None:
        """Check everything, a chunk at a time; DataError names the first offence.

        Lengths of at least 1, days of year 1-366 in time order inside a series (checks.are_in_time_order), labels
        from 0 to num_classes - 1 (`None`: any class id), and what checksums there are. Every int16 is a digital number.
        """
        for array in (self.bands, self.doy, self.offsets):
            if isinstance(array, CheckedArray):
                array.check_all()
        for first in range(0, len(self), CHUNK):
            offsets = self.offsets[first : first + CHUNK + 1]
            lengths, doy = np.diff(offsets), self.doy[offsets[0] : offsets[-1]]
            checks.check_lengths(lengths, len(doy), str(self.path), first)
            checks.check_days(doy, lengths, str(self.path), first)
        if self.labels is not None:
            self.check_labels(num_classes)


@dataclass(frozen=True, eq=False)
class SeriesSet:
    """Some series of a store: `rows` (n,) int64 are their numbers, in the order of use.

    `seen` (n,) int64: how many observations of each are used, its first ones; `None`: all.
    """

    store: Store
    rows: np.ndarray
    seen: np.ndarray | None = None

    @classmethod
    def whole(cls, store: Store) -> SeriesSet:
        """Every series of the store, in the order of the store."""
        return cls(store, np.arange(len(store)))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def lengths(self) -> np.ndarray:
        """Observations of each series, (n,) int64."""
        if self.seen is not None:
            return self.seen
        return np.asarray(self.store.offsets[self.rows + 1] - self.store.offsets[self.rows])

    @property
    def labels(self) -> np.ndarray | None:
        """Class ids, (n,) int64; `None` for unlabelled data."""
        return None if self.store.labels is None else self.store.labels[self.rows]

    @property
    def regions(self) -> np.ndarray | None:
        """Site names, (n,) of str; `None` where the index has no region column."""
        index = self.store.index
        if index is None or "region" not in index:
            return None
        return index["region"].to_numpy(dtype=object)[self.rows]

    def fingerprint(self, *, with_labels: bool = False) -> str:
        """A digest of the lengths (and all labels), and of the values of up to 1,000 series spread over the set."""
        digest = hashlib.sha256(self.lengths.tobytes())
        if with_labels:
            digest.update(self.labels.tobytes())
        for position in np.unique(np.linspace(0, len(self) - 1, 1000, dtype=np.int64)):
            for part in self.series(position):
                digest.update(part.tobytes())
        return digest.hexdigest()[:16]

    def take(self, positions: np.ndarray) -> SeriesSet:
        """The series at these positions of this set (or where a mask of its length is True)."""
        return SeriesSet(self.store, self.rows[positions], None if self.seen is None else self.seen[positions])

    def series(self, position: int) -> tuple[np.ndarray, np.ndarray]:
        """Bands (T, 10) int16 DN and day of year (T,) int16 of the series at a position."""
        bands, doy = self.store.series(self.rows[position])
        return (bands, doy) if self.seen is None else (bands[: self.seen[position]], doy[: self.seen[position]])


def join(parts: Sequence[SeriesSet]) -> SeriesSet:
    """Concatenate several sets, copied into memory: for sets of few series."""
    series = [part.series(position) for part in parts for position in range(len(part))]
    bands, doy = (np.concatenate(arrays) for arrays in zip(*series, strict=True))
    offsets = np.cumsum([0, *(len(days) for _, days in series)])
    source = " + ".join(part.store.source for part in parts)
    meta = {"series": len(series), "observations": len(doy), "classes": None, "provenance": {}}
    store = Store(Path(source), source, meta, bands, doy, offsets)
    indices = [part.store.index for part in parts]
    if all(index is not None for index in indices):
        rows = [index.iloc[part.rows] for index, part in zip(indices, parts, strict=True)]
        store.index = pd.concat(rows, ignore_index=True)
        meta["classes"] = len(np.unique(store.labels)) if store.labels is not None else None
    return SeriesSet.whole(store)


def _human(size: float) -> str:
    """Bytes for people: 1536 -> '1.5 KiB'."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} TiB"


@exit_cleanly
def main(arguments: list[str] | None = None) -> None:
    parser = Parser(prog="python -m datasets.store", description="Check everything in a store.")
    parser.add_argument("path", type=Path, help="folder of the store")
    parser.add_argument("--write-checksums", action="store_true", help="of what is in it now, after changing it")
    args = parser.parse_args(arguments)
    if args.write_checksums:
        storefiles.write_checksums(args.path)
    store = Store.open(args.path)
    store.validate()
    print(store)


if __name__ == "__main__":
    main()
