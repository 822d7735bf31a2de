"""The rows of a table as series with dates, in constant memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd

from datasets.bands import BANDS, MAX_DOY
from datasets.checks import DAY
from datasets.imagery.dates import parse_date, periods
from datasets.readers.dated import Dated
from datasets.readers.table import Table
from datasets.readers.table_files import bad_cell, batches, days, numbers

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "val", "validation"), "valid"),
    **dict.fromkeys(("eval", "evaluation", "test", "testing"), "eval"),
}


class Frame(NamedTuple):
    """Rows of a long table, or observations of a wide one, in the order of the file: which series each is of is told
    by `ids`, and by runs of one id."""

    bands: np.ndarray  # (M, 10) float64
    days: np.ndarray  # (M,) datetime64[D]
    index: pd.DataFrame  # M rows, or one a series


def frames(table: Table) -> Iterator[Frame]:
    """The table some rows at a time. DataError names the row and value of a cell that cannot be used."""
    for batch in batches(table.file, table.used, list(table.columns.texts.values())):
        if len(batch):
            yield Frame(_bands(table, batch), _days(table, batch), _index(table, batch))


def _bands(table: Table, batch: pd.DataFrame) -> np.ndarray:
    """(rows * steps, 10), the steps of a row one after another; NaN where missing."""
    read = {name: numbers(table.file, batch[name]) for name in dict.fromkeys(sum(table.bands.values(), []))}
    values = np.stack([np.stack([read[name] for name in table.bands[band]], axis=1) for band in BANDS], axis=-1)
    values = values.reshape(-1, len(BANDS))
    values[~np.isfinite(values) | np.isin(values, table.nodata)] = np.nan
    values[(values == 0).all(axis=1)] = np.nan
    return values


def _days(table: Table, batch: pd.DataFrame) -> np.ndarray:
    count = 1 if table.steps is None else len(table.steps)
    if table.steps is None:
        column = batch[table.date_column]
        if table.is_doy:
            return _from_doy(table, column)
        found = days(table.file, column)
        return found if table.dates.step is None else _middles(found, table.dates.step, [0])[:, 0]
    if isinstance(table.steps[0], date):
        return np.tile(np.array(table.steps, dtype="datetime64[D]"), len(batch))
    if table.starts_in_column:
        starts = days(table.file, batch[table.dates.start])
    else:
        starts = np.full(len(batch), np.datetime64(parse_date(table.dates.start, "--start")))
    return _middles(starts, table.dates.step, table.steps).reshape(len(batch) * count)


def _from_doy(table: Table, column: pd.Series) -> np.ndarray:
    doy = numbers(table.file, column)
    good = (doy >= 1) & (doy <= MAX_DOY) & (doy % 1 == 0)
    if not good.all():
        raise bad_cell(table.file, column, int(np.argmin(good)), DAY)
    return np.datetime64(date(table.dates.year, 1, 1)) + (doy.astype(np.int64) - 1)


def _middles(starts: np.ndarray, step: str, steps: Sequence[int]) -> np.ndarray:
    """The middle of each of these steps (numbers from 0) after each start, (N, S) datetime64[D]."""
    unique, which = np.unique(starts, return_inverse=True)
    middles = [_step_middles(str(start), step, max(steps) + 1) for start in unique]
    return np.stack(middles)[:, list(steps)][which]


@lru_cache(maxsize=4096)
def _step_middles(start: str, step: str, count: int) -> np.ndarray:
    return np.array(periods(start, step, count), dtype="datetime64[D]")


def _index(table: Table, batch: pd.DataFrame) -> pd.DataFrame:
    index = pd.DataFrame({name: batch[column] for name, column in table.columns.texts.items()})
    blank = (index["id"] == "").to_numpy()
    if blank.any():
        raise bad_cell(table.file, batch[table.columns.id], int(np.argmax(blank)), "an id of the series")
    for name in ("x", "y"):
        if (column := getattr(table.columns, name)) is not None:
            index[name] = numbers(table.file, batch[column], "a coordinate")
            if index[name].isna().any():
                raise bad_cell(table.file, batch[column], int(index[name].isna().argmax()), "a coordinate")
    if "split" in index:
        index["split"] = index["split"].str.lower().map(SPLIT_NAMES)
        if index["split"].isna().any():
            position = int(index["split"].isna().argmax())
            raise bad_cell(table.file, batch[table.columns.split], position, "train, valid (or val) or eval (or test)")
    return index


def series(table: Table) -> Iterator[Dated]:
    """The series of a wide table, or of a long one whose rows of one id follow each other; memory is constant."""
    if table.steps is None:
        yield from (in_calendar(table, piece) for piece in grouped(frames(table)))
        return
    for frame in frames(table):
        lengths = np.full(len(frame.index), len(table.steps))
        yield Dated(frame.bands, frame.days, lengths, _arrays(frame.index))


def in_calendar(table: Table, piece: Dated) -> Dated:
    """Series of a table with days of year and no dates, where it keeps the order of time: what comes before the day
    of year falls is of the year before."""
    if not table.keeps_order:
        return piece
    new_year = np.datetime64(date(table.dates.year, 1, 1))
    starts = np.repeat(np.cumsum(piece.lengths) - piece.lengths, piece.lengths)
    after = piece.days < piece.days[starts]
    falls = np.repeat(np.logical_or.reduceat(after, np.unique(starts)), piece.lengths)
    last_year = np.datetime64(date(table.dates.year - 1, 1, 1)) + (piece.days - new_year)
    return piece._replace(days=np.where(falls & ~after, last_year, piece.days))


def grouped(rows: Iterator[Frame]) -> Iterator[Dated]:
    """Series of frames of a long table whose rows of one id follow each other, also from one frame to the next."""
    waiting: list[Frame] = []  # rows of the last id, which may continue in the next frame
    for frame in rows:
        ids = frame.index["id"].to_numpy()
        begins = len(ids) - (int(np.argmax(ids[::-1] != ids[-1])) or len(ids))  # of the last id's rows
        if begins or waiting and waiting[-1].index["id"].iloc[-1] != ids[0]:
            yield as_series([*waiting, _slice(frame, 0, begins)])
            waiting = []
        waiting.append(_slice(frame, begins, len(ids)))
    if waiting:
        yield as_series(waiting)


def _slice(frame: Frame, first: int, last: int) -> Frame:
    return Frame(frame.bands[first:last], frame.days[first:last], frame.index.iloc[first:last])


def as_series(parts: Sequence[Frame]) -> Dated:
    """The series of frames one after another, each run of rows of one id being one."""
    index = pd.concat([part.index for part in parts])
    ids = index["id"].to_numpy()
    starts = np.flatnonzero(np.append(True, ids[1:] != ids[:-1]))
    lengths = np.diff(np.append(starts, len(ids)))
    bands, days = (np.concatenate([getattr(part, name) for part in parts]) for name in ("bands", "days"))
    return Dated(bands, days, lengths, _arrays(index.iloc[starts]))


def _arrays(index: pd.DataFrame) -> dict[str, np.ndarray]:
    return {name: index[name].to_numpy() for name in index}
