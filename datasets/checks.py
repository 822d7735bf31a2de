"""Checks of ragged series held as flat arrays: each names the first offence by series and observation.

Series are numbered from `first`, so that a chunk of a larger set names a series by its number in the whole set.
"""

from __future__ import annotations

import numpy as np

from datasets.bands import BANDS, MAX_DOY
from datasets.errors import DataError

DN_LIMITS = np.iinfo(np.int16)
DIGITAL_NUMBER = f"a digital number from {DN_LIMITS.min} to {DN_LIMITS.max}"
DAY = f"a whole number from 1 to {MAX_DOY}"
LOWEST = -2000  # DN of a measurement: noise and an offset of -1000 reach a little below -1000; -9999 is a fill value
MAX_LENGTH = 10_000  # observations of a series: padded to such a length a batch fits into memory
TIME_ORDER = "time order (the day of year may fall once, at New Year, and stays below the first day from there on)"


def check_lengths(lengths: np.ndarray, observations: int, where: str, first: int = 0) -> None:
    """Every series has 1 to MAX_LENGTH observations and together they have `observations`."""
    wrong = np.flatnonzero((lengths < 1) | (lengths > MAX_LENGTH))
    if wrong.size:
        found, expected = lengths[wrong[0]], "at least 1" if lengths[wrong[0]] < 1 else f"at most {MAX_LENGTH:,}"
        raise DataError(f"{where}: series {first + wrong[0]} has {found} observations; expected {expected}")
    if lengths.sum() != observations:
        raise DataError(f"{where}: the lengths add up to {lengths.sum()} observations, but there are {observations}")


def are_digital_numbers(values: np.ndarray) -> np.ndarray:
    """Which values are finite numbers that int16 DN can hold."""
    with np.errstate(invalid="ignore"):
        return (values >= DN_LIMITS.min) & (values <= DN_LIMITS.max)  # False for NaN as well


def are_days(values: np.ndarray) -> np.ndarray:
    """Which values are whole days of a year."""
    with np.errstate(invalid="ignore"):
        return (values >= 1) & (values <= MAX_DOY) & (values % 1 == 0)


def are_in_time_order(doy: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Which of the days of year (M,) are not below the one before in their series, or follow New Year.

    A season may lie across New Year: the day of year then falls once, and stays below the first one from there on,
    for a season has twelve months at most. `lengths` (N,), each at least 1, add up to M.
    """
    falls = np.diff(doy, prepend=doy[:1]) < 0
    starts = np.cumsum(lengths) - lengths
    falls[starts] = False  # from one series to the next
    if not falls.any():
        return np.ones(len(doy), dtype=bool)
    fallen = np.cumsum(falls)
    fallen -= np.repeat(fallen[starts], lengths)  # falls so far in the series
    return (fallen == 0) | (fallen == 1) & (doy < np.repeat(doy[starts], lengths))


def check_bands(bands: np.ndarray, lengths: np.ndarray, where: str, first: int = 0) -> None:
    """All of `bands` (M, 10) are finite numbers that int16 DN can hold."""
    if bands.dtype == np.int16:
        return
    good = are_digital_numbers(bands)
    if not good.all():
        row, band = np.argwhere(~good)[0]
        raise DataError(
            f"{where}: {_observation(row, lengths, first)}: {BANDS[band]} is {bands[row, band]};"
            f" expected {DIGITAL_NUMBER}"
        )
    if bands.size and bands.dtype.kind == "f" and np.abs(bands).max() <= 2 and (bands % 1 != 0).any():
        raise DataError(
            f"{where}: the largest band value is {bands.max():.4g}, which looks like reflectance;"
            " expected digital numbers (reflectance x 10000)"
        )


def are_absurd(bands: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Which series of `bands` (M, 10) int16 were never measured: a value below LOWEST, or one value all over."""
    starts = np.cumsum(lengths) - lengths
    flat, places = np.ascontiguousarray(bands).reshape(-1), starts * bands.shape[1]
    low, high = np.minimum.reduceat(flat, places), np.maximum.reduceat(flat, places)
    return (low < LOWEST) | (low == high)


def have_good_days(doy: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Which series have whole days of year from 1 to 366 in time order alone."""
    good = are_days(doy) & are_in_time_order(doy, lengths)
    return np.logical_and.reduceat(good, np.cumsum(lengths) - lengths)


def say_absurd(bands: np.ndarray, doy: np.ndarray) -> str:
    """What is wrong with a series, (T, 10) and (T,), that is absurd or whose days are not good."""
    if found := _bad_day(doy, np.array([len(doy)])):
        return f"observation {found[0]}: {found[1]}"
    if (low := np.argwhere(bands < LOWEST)).size:
        row, band = low[0]
        return f"observation {row}: {BANDS[band]} is {bands[row, band]}; expected {LOWEST} or more"
    return f"all values of all bands are {bands[0, 0]}; expected measurements"


def check_days(doy: np.ndarray, lengths: np.ndarray, where: str, first: int = 0) -> None:
    """All of `doy` (M,) are whole days from 1 to 366, in time order inside a series (see `are_in_time_order`)."""
    if found := _bad_day(doy, lengths):
        raise DataError(f"{where}: {_observation(found[0], lengths, first)}: {found[1]}")


def _bad_day(doy: np.ndarray, lengths: np.ndarray) -> tuple[int, str] | None:
    """The row of the first day that is none, else of the first out of order, and what is wrong with it."""
    if (rows := np.flatnonzero(~are_days(doy))).size:
        return int(rows[0]), f"day of year is {doy[rows[0]]}; expected {DAY}"
    if (rows := np.flatnonzero(~are_in_time_order(doy, lengths))).size:
        return int(rows[0]), f"day of year {doy[rows[0]]} follows {doy[rows[0] - 1]}; expected {TIME_ORDER}"
    return None


def check_labels(labels: np.ndarray, num_classes: int | None, where: str, first: int = 0) -> None:
    """All labels are whole numbers from 0 to num_classes - 1 (`None`: no upper limit)."""
    if labels.dtype.kind not in "iu":
        raise DataError(f"{where}: labels are of type {labels.dtype}; expected class ids (whole numbers)")
    bad = labels < 0 if num_classes is None else (labels < 0) | (labels >= num_classes)
    if bad.any():
        number = np.flatnonzero(bad)[0]
        expected = "a class id, 0 or more" if num_classes is None else f"a class id from 0 to {num_classes - 1}"
        raise DataError(f"{where}: series {first + number} has label {labels[number]}; expected {expected}")


def _observation(row: int, lengths: np.ndarray, first: int) -> str:
    """'series 7, observation 12' for a row of the flat arrays, both counted from 0."""
    ends = np.cumsum(lengths)
    series = int(np.searchsorted(ends, row, side="right"))
    return f"series {first + series}, observation {int(row - ends[series] + lengths[series])}"
