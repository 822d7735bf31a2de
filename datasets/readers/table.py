"""Tables of series: long (a row an observation) or wide (a row a series), in any of the usual names of columns.

Long: columns of bands (`blue`, `B2`, `S2-L2A-B02`), an id, and a date or a day of year. Wide: a column for every band
and step (`blue`, `blue_1`; `OPTICAL-B02-ts0-10m`) or date (`B2_20190503`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from datasets.bands import BANDS, MAX_DOY
from datasets.checks import DAY
from datasets.errors import DataError
from datasets.imagery.dates import parse_date, periods
from datasets.imagery.names import STAND_IN, label, read_name
from datasets.readers.table_files import DATE, bad_cell, batches, column_names, days, numbers

DATE_COLUMNS = ("date", "timestamp", "time", "datetime", "acquisition_date", "observation_date", "image_date", "day")
DOY_COLUMNS = ("doy", "day_of_year", "dayofyear", "yday")
STEP = re.compile(r"(?<![a-z0-9])ts_?(\d+)(?![0-9])", re.IGNORECASE)
FILL = 65535  # what unsigned 16-bit tables have where nothing was observed


class Columns(NamedTuple):
    """What the user says about columns: names, or `None`."""

    id: str
    label: str | None = None
    region: str | None = None
    x: str | None = None
    y: str | None = None
    split: str | None = None
    date: str | None = None

    @property
    def texts(self) -> dict[str, str]:
        """What is kept of each series as text: its name here -> the column."""
        named = {"id": self.id, "code": self.label, "region": self.region, "split": self.split}
        return {name: column for name, column in named.items() if column is not None}


class Dates(NamedTuple):
    """How the user dates steps: `start` is a date or a column, `step` a period; `year` is for days of year."""

    start: str | None = None
    step: str | None = None
    year: int | None = None


class Table(NamedTuple):
    """A table and what its columns mean.

    `bands` has for each of the ten bands the columns of its steps: one in a long table, S in a wide one; `steps` are
    the dates or the numbers of the steps of a wide table, `None` of a long one. `replaced` is the band that B8 or B8A
    stands in for. `scale` makes digital numbers of what is in the bands. `keeps_order`: a long table of days of year
    whose rows are in the order of time (what is known from `scan` on).
    """

    file: Path
    columns: Columns
    dates: Dates
    bands: dict[str, list[str]]
    steps: list[date] | list[int] | None
    date_column: str | None  # of a long table
    is_doy: bool
    nodata: tuple[float, ...] = (FILL,)
    replaced: str | None = None
    scale: float = 1.0
    keeps_order: bool = False

    @property
    def used(self) -> list[str]:
        """The columns that are read."""
        columns = self.columns
        start = self.dates.start if self.starts_in_column else None
        wanted = [*columns.texts.values(), columns.x, columns.y, self.date_column, start, *sum(self.bands.values(), [])]
        return list(dict.fromkeys(name for name in wanted if name is not None))

    @property
    def starts_in_column(self) -> bool:
        """Whether --start names a column; what is no date is one."""
        return self.dates.start is not None and not re.fullmatch(r"\d{4}-?\d{2}-?\d{2}", self.dates.start)


class Dated(NamedTuple):
    """Some series: bands (M, 10) float64, NaN where missing; days (M,) datetime64[D]; lengths (N,) int64, each at least
    1; columns of N texts or numbers."""

    bands: np.ndarray
    days: np.ndarray
    lengths: np.ndarray
    index: dict[str, np.ndarray]


def open_table(file: Path, columns: Columns, dates: Dates, nodata: Sequence[float] = ()) -> Table:
    """Find out what the columns of a table mean.

    Raises:
        DataError: a column of `columns` that is not there; two columns for one band (and step); a band missing (B8 and
            B8A stand in for each other); no dates.
    """
    names = column_names(file)
    for option, name in columns._asdict().items():
        if name is not None and name not in names:
            raise missing_column(file, name, names, option)
    taken = {name for name in columns if name is not None}
    found: dict[tuple[str, object], str] = {}
    for name in names:
        if name not in taken and (key := _band_and_step(name)) is not None:
            if key in found:
                raise DataError(
                    f"{file}: columns {found[key]!r} and {name!r} are both {label(key[0])}; expected one a band, and"
                    " in a wide table one a band and step"
                )
            found[key] = name
    found = _number_first_step(found)
    bands, steps, replaced = _by_band(file, found)
    nodata = tuple({FILL, *nodata})
    table = Table(file, columns, dates, bands, None if steps == [None] else steps, None, False, nodata, replaced)
    return _dated(table, names)


def missing_column(file: Path, name: str, names: Sequence[str], option: str = "") -> DataError:
    """The error for a column that is not there: it lists those that are."""
    listed = ", ".join(names[:60]) + (f" and {len(names) - 60} more" if len(names) > 60 else "")
    asked = f" for --{option}" if option else ""
    return DataError(f"{file}: no column {name!r}{asked}; it has {listed}")


def _band_and_step(name: str) -> tuple[str, object] | None:
    """'OPTICAL-B02-ts3-10m' -> (blue, 3), 'B2' -> (blue, None), 'B2_20190503' -> (blue, that date)."""
    step = STEP.search(name)
    band = read_name(name if step is None else name[: step.start()] + name[step.end() :])
    if band.band not in BANDS:
        return None
    if step is not None:
        return band.band, int(step[1])
    day = band.date.date() if hasattr(band.date, "date") else band.date
    return band.band, day if day is not None else band.number


def _number_first_step(found: dict[tuple[str, object], str]) -> dict[tuple[str, object], str]:
    """`blue, blue_1, blue_2`: the one without a number is step 0, where others of the band have one."""
    numbered = {band for band, step in found if isinstance(step, int)}
    return {(band, 0 if step is None and band in numbered else step): name for (band, step), name in found.items()}


def _by_band(file: Path, found: dict) -> tuple[dict[str, list[str]], list, str | None]:
    steps = sorted({step for _, step in found}, key=lambda step: (str(type(step)), step))
    has = {band for band, _ in found}
    lacking = [band for band in BANDS if band not in has]
    replaced = lacking[0] if len(lacking) == 1 and lacking[0] in STAND_IN else None
    if lacking and replaced is None:
        raise missing_bands(file, lacking, has)
    if len({type(step) for step in steps}) > 1:
        raise DataError(f"{file}: columns of bands have dates, steps or neither in their names; expected one of these")
    for band in has:
        for step in steps:
            if (band, step) not in found:
                raise DataError(f"{file}: {label(band)} has no column for {_step_name(step)}, which other bands have")
    source = {band: STAND_IN[band] if band == replaced else band for band in BANDS}
    return {band: [found[source[band], step] for step in steps] for band in BANDS}, steps, replaced


def missing_bands(file: Path, lacking: Sequence[str], has: set[str], how: str = "no column for") -> DataError:
    there = ", ".join(label(band) for band in BANDS if band in has) or "none of the ten"
    return DataError(
        f"{file}: {how} {', '.join(label(band) for band in lacking)}; expected all ten bands"
        f" (only B8 and B8A can stand in for each other), found {there}"
    )


def _step_name(step: object) -> str:
    return f"step {step}" if isinstance(step, int) else str(step)


def _dated(table: Table, names: Sequence[str]) -> Table:
    """The table with its dates found: every way that does not give a date to each observation is refused."""
    start, step, year = table.dates
    if table.starts_in_column and start not in names:
        raise DataError(f"{table.file}: --start {start} is neither {DATE} nor a column; it has {', '.join(names)}")
    if table.steps is None:
        return _dated_long(table, names)
    if isinstance(table.steps[0], date):
        if start is not None or step is not None:
            raise DataError(f"{table.file}: has dates in the names of its columns; leave --start and --step out")
    elif start is None or step is None:
        raise DataError(
            f"{table.file}: {len(table.steps)} steps without dates ({table.bands['blue'][0]} …); say when they are with"
            " --start (a date, or a column of dates) and --step (month, or days such as 10D)"
        )
    else:
        periods("2019-01-01" if table.starts_in_column else start, step, 1)  # refuses a bad date or step
    return table


def _dated_long(table: Table, names: Sequence[str]) -> Table:
    if table.dates.start is not None:
        raise DataError(
            f"{table.file}: has a date in every row; leave --start out (--step alone: each date begins a step)"
        )
    lowered = {name.lower(): name for name in reversed(names)}
    known = [lowered[name] for name in (*DATE_COLUMNS, *DOY_COLUMNS) if name in lowered]
    column = table.columns.date or next(iter(known), None)
    if column is None:
        expected = ", ".join((*DATE_COLUMNS[:3], DOY_COLUMNS[0]))
        listed = ", ".join(names)
        raise DataError(f"{table.file}: no column of dates ({expected} …); name it with --date; it has {listed}")
    is_doy = column.lower() in DOY_COLUMNS
    if is_doy and table.dates.year is None:
        raise DataError(f"{table.file}: {column} is a day of year; say of which year with --year")
    if table.dates.step is not None:
        periods("2019-01-01", table.dates.step, 1)
    return table._replace(date_column=column, is_doy=is_doy)


# -- reading -----------------------------------------------------------------------------------------------------------


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


SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "val", "validation"), "valid"),
    **dict.fromkeys(("eval", "evaluation", "test", "testing"), "eval"),
}


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
