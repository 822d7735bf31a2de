"""What the columns of a table of series mean: long (a row an observation) or wide (a row a series), in any usual names.

Long: columns of bands (`blue`, `B2`, `S2-L2A-B02`), an id, and a date or a day of year. Wide: a column for every band
and step (`blue`, `blue_1`; `OPTICAL-B02-ts0-10m`) or date (`B2_20190503`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

from datasets.bands import BANDS
from datasets.errors import DataError
from datasets.imagery.dates import periods
from datasets.imagery.names import STAND_IN, label, read_name
from datasets.readers.table_files import DATE, column_names

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
