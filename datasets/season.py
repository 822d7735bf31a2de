"""The twelve months that a series covers: a calendar year, or a season across New Year (winter crops)."""

from __future__ import annotations

from datetime import date, timedelta
from typing import NamedTuple

from datasets.errors import DataError


class Season(NamedTuple):
    """Twelve months from `start` on; `end` is the first day after them.

    Across New Year into a leap year they end a day early, with 365 days: else the last day of year would be the first
    one again, and days after New Year are known by lying below the first.
    """

    start: date
    end: date

    @classmethod
    def of(cls, year: int, start: str = "01-01") -> Season:
        """The twelve months that begin on the month and day `start` ("10-01") and have most of their days in `year`.

        Where both candidates have as many days in it, the one that begins in `year`. DataError: `start` is no
        month-day of every year.
        """
        seasons = [cls._from(_date(first, start), _date(first + 1, start)) for first in (year, year - 1)]
        return max(seasons, key=lambda season: season.days_in(year))

    @classmethod
    def _from(cls, start: date, year_later: date) -> Season:
        last = year_later - timedelta(days=1)
        falls_too_late = last.year > start.year and last.timetuple().tm_yday >= start.timetuple().tm_yday
        return cls(start, last if falls_too_late else year_later)

    def days_in(self, year: int) -> int:
        """Days of the season that lie in the calendar year."""
        return max((min(self.end, date(year + 1, 1, 1)) - max(self.start, date(year, 1, 1))).days, 0)

    def holds(self, day: date) -> bool:
        """Whether the day is one of the season's."""
        return self.start <= day < self.end

    def __str__(self) -> str:
        return f"{self.start} to {self.end - timedelta(days=1)}"


def _date(year: int, month_day: str) -> date:
    try:
        month, day = map(int, month_day.split("-"))
        date(2019, month, day)  # so that 02-29 is refused in every year
        return date(year, month, day)
    except ValueError:
        raise DataError(
            f"season start {month_day!r}, year {year}: expected a month and a day such as 10-01"
            " (not 02-29) and a year from 2 to 9998"
        ) from None
