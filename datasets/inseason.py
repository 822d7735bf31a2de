"""In season: series up to a day, as a map has them that is made before the season has ended.

A day counts as the stored days do, from 1 January: 1 to 366. In a season across New Year it counts on after it:
366 + 58 = 424 is 27 February of the second year. A series across New Year is known by a last day of the year below its
first one. In a set with such series, others that begin no later than these end have observations after New Year alone.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np

from datasets.bands import MAX_DOY
from datasets.errors import DataError
from datasets.store import SeriesSet

LAST_DAY = 2 * MAX_DOY
PIECE = 1 << 14  # series whose days are looked at together


def day_of(day: date, first_year: int) -> int:
    """The number of a day in a season that begins in ``first_year``."""
    return day.timetuple().tm_yday + MAX_DOY * (day.year - first_year)


def until(series: SeriesSet, day: int | None) -> SeriesSet:
    """The series with their observations up to a day (None: all), without those that have none.

    What comes later is not read: the set is as one of a store that ends with that day.

    Raises:
        DataError: no series is left.
    """
    if day is None or not len(series):
        return series
    first = _first_days(series)
    left = np.flatnonzero(first <= day)
    if not left.size:
        raise DataError(
            f"{series.store.source}: no series has an observation until day {day}, the first is of day {first.min()};"
            " give a later --until-doy"
        )
    return _cut(series, first, day).take(left)


def cut(series: SeriesSet, day: int | None) -> SeriesSet:
    """The same, of series that all have an observation until then.

    Raises:
        DataError: one has none; the message has its number.
    """
    if day is None or not len(series):
        return series
    first = _first_days(series)
    if (late := np.flatnonzero(first > day)).size:
        raise DataError(
            f"{series.store.source}: series {series.rows[late[0]]} has no observation until day {day}, its first is of"
            f" day {first[late[0]]}; leave such series out (datasets.inseason.until)"
        )
    return _cut(series, first, day)


def _first_days(series: SeriesSet) -> np.ndarray:
    """The number of the day of the first observation of each series, (n,) int64."""
    start = np.asarray(series.store.offsets[series.rows])
    first = np.asarray(series.store.doy[start], np.int64)
    last = np.asarray(series.store.doy[start + series.lengths - 1])
    end = last[last < first].max(initial=0)  # of the season, in the second year
    return first + MAX_DOY * (first <= end)


def _cut(series: SeriesSet, first: np.ndarray, day: int) -> SeriesSet:
    """The set with the observations up to a day; ``first`` as of ``_first_days``."""
    positions = np.split(np.arange(len(series)), range(PIECE, len(series), PIECE))
    return replace(series, seen=np.concatenate([_seen(series.take(each), first[each], day) for each in positions]))


def _seen(series: SeriesSet, first: np.ndarray, day: int) -> np.ndarray:
    """Observations of each series before the first one that is later than a day, (n,) int64."""
    start, lengths = np.asarray(series.store.offsets[series.rows])[:, None], series.lengths[:, None]
    time = np.arange(lengths.max())
    doy = np.asarray(series.store.doy[start + np.minimum(time, lengths - 1)], np.int64)  # (n, L)
    number = np.where(doy < first[:, None], doy + MAX_DOY, doy)
    return np.cumprod((number <= day) & (time < lengths), axis=1).sum(1)
