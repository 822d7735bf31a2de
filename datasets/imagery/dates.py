"""Dates of images: in names, given by the user, or as periods of composites."""

from __future__ import annotations

import re
from calendar import monthrange
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from datasets.errors import DataError

YEARS = range(1972, 2101)
DATED = re.compile(r"(?<!\d)(\d{4})([-_.]?)(\d{2})\2(\d{2})(?:[T_ ]?(\d{2}):?(\d{2}):?(\d{2})(?!\d)|(?!\d))")
ORDINAL = re.compile(r"(?<!\d)(\d{4})[-_]?(\d{3})(?!\d)")
STEP = re.compile(r"(\d*)\s*(d|days?|w|weeks?|m|months?)", re.IGNORECASE)


class Found(NamedTuple):
    """A date in a text, with where it stands. `date` is a datetime where there is a time as well (UTC)."""

    date: date
    start: int
    end: int

    @property
    def day(self) -> date:
        """Without the time."""
        return self.date.date() if isinstance(self.date, datetime) else self.date


def find_date(text: str) -> Found | None:
    """The first date in a text: 2019-05-03, 20190503, 20190503T173911, 2019_05_03, 2019123, 2019-123 (day of year)."""
    found = [_calendar(match) for match in DATED.finditer(text)] + [_ordinal(match) for match in ORDINAL.finditer(text)]
    return min(filter(None, found), key=lambda one: one.start, default=None)


def date_in_path(path: Path, root: Path) -> date | None:
    """The date in the name of a path, or in that of the nearest folder above it up to `root`; `None` for none."""
    for part in (path, *path.parents):
        found = find_date(part.name)
        if found or part == root:
            return found and found.date
    return None


def _calendar(match: re.Match) -> Found | None:
    year, _, month, day, *clock = match.groups()
    try:
        when = date(int(year), int(month), int(day))
        if clock[0] is not None:
            when = datetime(when.year, when.month, when.day, *map(int, clock))
    except ValueError:
        return None
    return Found(when, *match.span()) if when.year in YEARS else None


def _ordinal(match: re.Match) -> Found | None:
    year, day = map(int, match.groups())
    when = day_of(year, day)
    return Found(when, *match.span()) if when and year in YEARS else None


def day_of(year: int, doy: int) -> date | None:
    """The date of a day of year counted from 1; `None` where that year has no such day."""
    when = date(year, 1, 1) + timedelta(days=doy - 1) if doy >= 1 else None
    return when if when and when.year == year else None


def bare_day(stem: str) -> int | None:
    """The day of year at the end of a name: '045', 'field_45', 'doy045' -> 45."""
    match = re.fullmatch(r"(?:.*[_\-. ])?(?:doy|day)?[_\-]?(\d{1,3})", stem, re.IGNORECASE)
    return int(match[1]) if match and 1 <= int(match[1]) <= 366 else None


def in_season(doy: int, season, where: str) -> date:
    """The date in the season's twelve months that has this day of year (from 1)."""
    if season is None:
        raise DataError(f"{where}: day of year {doy}, but no year; give --year")
    days = [day_of(year, doy) for year in range(season.start.year, season.end.year + 1)]
    day = next((day for day in days if day and season.holds(day)), None)
    if day is None:
        raise DataError(f"{where}: the season {season} has no day of year {doy}; check --year and the name")
    return day


def solar_day(when: date, longitude: float) -> date:
    """The local date of a time in UTC (15 degrees an hour); a date without a time is taken as it is."""
    if not isinstance(when, datetime):
        return when
    return (when + timedelta(hours=longitude / 15)).date()


def periods(start: str, step: str, count: int) -> list[date]:
    """The middles of `count` periods: period k runs from start + k steps to start + (k + 1) steps."""
    first = parse_date(start, "--start")
    match = STEP.fullmatch(step.strip())
    if not match or match[1] == "0":
        raise DataError(f"--step {step}: expected month, or days such as 10D")
    size, unit = int(match[1] or 1), match[2][0].lower()
    edges = [after(first, k * size, unit) for k in range(count + 1)]
    return [a + (b - a) // 2 for a, b in zip(edges, edges[1:], strict=False)]


def after(start: date, steps: int, unit: str) -> date:
    """`steps` days ("d"), weeks ("w") or months ("m") after a date; a month too short for its day gives its last."""
    if unit != "m":
        return start + timedelta(days=steps * (7 if unit == "w" else 1))
    years, month = divmod(start.month - 1 + steps, 12)
    year, month = start.year + years, month + 1
    return date(year, month, min(start.day, monthrange(year, month)[1]))


def parse_date(text: str, what: str) -> date:
    found = find_date(text.strip())
    if found is None or found.start or found.end != len(text.strip()):
        raise DataError(f"{what} {text}: expected a date such as 2019-05-03")
    return found.day


def listed(dates: str) -> list[date]:
    """--dates: dates separated by commas, or a file with one a line."""
    path = Path(dates)
    if find_date(dates) is None or path.is_file():
        try:
            lines = path.read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not a text file"
            raise DataError(f"--dates {dates}: neither dates nor a file of dates ({reason})") from None
        return [parse_date(line, f"{dates}, line {number}:") for number, line in enumerate(lines, 1)]
    return [parse_date(text, "--dates") for text in dates.split(",") if text.strip()]


def given_dates(dates: str | None, start: str | None, step: str | None, count: int, what: str) -> list[date] | None:
    """What the user gave for `count` time steps: --dates, or --start with --step; `None` for neither."""
    if (start is None) != (step is None):
        raise DataError(f"{'--step' if step is None else '--start'} is missing: --start and --step go together")
    if dates is not None and start is not None:
        raise DataError("--dates and --start both give the dates; expected one of them")
    if dates is None:
        return None if start is None else periods(start, step, count)
    days = listed(dates)
    if len(days) != count:
        raise DataError(f"--dates: {len(days)} dates for {count} {what}; expected as many")
    return days
