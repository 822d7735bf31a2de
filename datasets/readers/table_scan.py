"""A first pass over a table: what has to be known of all its rows before the first series is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from datasets.bands import BANDS, DN_SCALE
from datasets.checks import are_in_time_order
from datasets.errors import DataError
from datasets.imagery.names import STAND_IN, label
from datasets.optional import need
from datasets.readers.dated import Dated
from datasets.readers.table import Table, missing_bands
from datasets.readers.table_rows import Frame, as_series, frames, series

LARGEST_REFLECTANCE = 2.0
ROWS = 1_000_000  # of a part of a table that is brought into order in memory


class Scan(NamedTuple):
    """Counts over all rows: `valid` (10,) values of each band, `small` of them like reflectance, and whether there are
    `fractions`; whether the rows of each id are `together`, and each in the order of time; the extent of x and y."""

    rows: int
    valid: np.ndarray
    small: int
    fractions: bool
    together: bool
    keeps_order: bool
    first: np.datetime64
    last: np.datetime64
    extent: float  # the largest x or y, sign left out


def scan(table: Table) -> Scan:
    """Read the whole table once; DataError names the first cell that cannot be used."""
    rows, small, fractions, extent = 0, 0, False, 0.0
    valid, runs, ordered = np.zeros(len(BANDS), dtype=np.int64), _Runs(), True
    first, last = np.datetime64("9999-01-01"), np.datetime64("0001-01-01")
    for frame in frames(table):
        rows += len(frame.index)
        known = np.isfinite(frame.bands)
        valid += known.sum(axis=0)
        small += int((np.abs(frame.bands) <= LARGEST_REFLECTANCE).sum())  # False for NaN
        fractions = fractions or bool((frame.bands[known] % 1 != 0).any())
        first, last = min(first, frame.days.min()), max(last, frame.days.max())
        if "x" in frame.index and "y" in frame.index:
            extent = max(extent, float(np.abs(frame.index[["x", "y"]]).max(axis=None)))
        if table.steps is None:
            runs.add(frame.index["id"].to_numpy())
            ordered = ordered and _in_order(table, frame)
    if not rows:
        raise DataError(f"{table.file}: no rows below the names of the columns")
    return Scan(rows, valid, small, fractions, runs.are_distinct(), ordered, first, last, extent)


def _in_order(table: Table, frame: Frame) -> bool:
    """Whether days of year may be those of seasons in the order of the rows."""
    if not table.is_doy:
        return False
    ids = frame.index["id"].to_numpy()
    starts = np.flatnonzero(np.append(True, ids[1:] != ids[:-1]))
    return bool(are_in_time_order(frame.days.astype(np.int64), np.diff(np.append(starts, len(ids)))).all())


class _Runs:
    """Whether every id has one run of rows: 8 bytes a run are kept."""

    def __init__(self):
        self.hashes, self.last, self.split_up, self.checked = [], None, False, 0

    def add(self, ids: np.ndarray) -> None:
        begins = np.append(ids[0] != self.last, ids[1:] != ids[:-1])
        self.last = ids[-1]
        if self.split_up:
            return
        self.hashes.append(pd.util.hash_array(ids[begins].astype(object)))
        count = sum(map(len, self.hashes))
        if count > 2 * self.checked:  # so that a table in no order is found out early
            self.checked = count
            self.are_distinct()

    def are_distinct(self) -> bool:
        if not self.split_up and self.hashes:
            whole = np.concatenate(self.hashes)
            self.split_up = len(np.unique(whole)) < len(whole)
            self.hashes = [] if self.split_up else [whole]
        return not self.split_up


def settle(table: Table, found: Scan) -> tuple[Table, list[str]]:
    """The table with all that the scan decides, and lines that say so.

    DataError: a band without any value that neither B8 nor B8A can stand in for.
    """
    notes = []
    empty = [band for band, count in zip(BANDS, found.valid, strict=True) if not count]
    if len(empty) == 1 and empty[0] in STAND_IN and table.replaced is None:
        table = table._replace(bands=table.bands | {empty[0]: table.bands[STAND_IN[empty[0]]]}, replaced=empty[0])
    elif empty:
        raise missing_bands(table.file, empty, set(BANDS) - set(empty), "no value in any row for")
    if table.replaced is not None:
        notes.append(f"{label(table.replaced)} is missing: {label(STAND_IN[table.replaced])} stands in for it")
    if found.fractions and found.small >= 0.99 * found.valid.sum():
        table = table._replace(scale=1 / DN_SCALE)
        notes.append("values are reflectance (fractions of about 0 to 1): multiplied by 10,000")
    if table.is_doy and found.together and found.keeps_order:
        table = table._replace(keeps_order=True)
    if not found.together:
        notes.append("rows of one id do not follow each other: the table is put in order on the disk first")
    return table, notes


def read_series(table: Table, found: Scan, folder: Path) -> Iterator[Dated]:
    """The series of the table, in its order; those of a long table in disorder by parts that fit in memory.

    The parts are files in `folder`: each holds all rows of some of the ids, in the order in which they begin.
    """
    if found.together:
        yield from series(table)
        return
    for part in _deal_rows(table, -(-found.rows // ROWS), folder):
        yield as_series([_in_runs(part)])


def _deal_rows(table: Table, parts: int, folder: Path) -> Iterator[Frame]:
    """Write each row to one of so many files, by its id, and read one after another."""
    pyarrow = need("pyarrow", "putting a table in order")
    writers: dict[int, object] = {}
    paths = [folder / f"part-{number}.arrow" for number in range(parts)]
    try:
        for frame in frames(table):
            rows = _as_table(frame)
            part = pd.util.hash_array(frame.index["id"].to_numpy().astype(object)) % parts
            for number in np.unique(part).tolist():
                batch = pyarrow.RecordBatch.from_pandas(rows[part == number], preserve_index=False)
                if number not in writers:
                    writers[number] = pyarrow.ipc.new_file(paths[number], batch.schema)
                writers[number].write_batch(batch)
    finally:
        for writer in writers.values():
            writer.close()
    for number in sorted(writers):
        with pyarrow.OSFile(str(paths[number])) as file:
            rows = pyarrow.ipc.open_file(file).read_pandas()
        paths[number].unlink()
        yield _as_frame(rows)


def _as_table(frame: Frame) -> pd.DataFrame:
    days = frame.days.astype("datetime64[D]").astype(np.int64)
    return pd.DataFrame(frame.bands, columns=list(BANDS)).assign(_days=days, **dict(frame.index.reset_index(drop=True)))


def _as_frame(rows: pd.DataFrame) -> Frame:
    index = rows.drop(columns=[*BANDS, "_days"])
    return Frame(rows[list(BANDS)].to_numpy(), rows["_days"].to_numpy().astype("datetime64[D]"), index)


def _in_runs(frame: Frame) -> Frame:
    """The rows of each id together, ids in the order of their first row."""
    order = np.argsort(pd.factorize(frame.index["id"])[0], kind="stable")
    return Frame(frame.bands[order], frame.days[order], frame.index.iloc[order])
