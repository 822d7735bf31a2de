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


def check_lengths(lengths: np.ndarray, observations: int, where: str, first: int = 0) -> None:
    """Every series has at least one observation and together they have `observations`."""
    empty = np.flatnonzero(lengths < 1)
    if empty.size:
        found = lengths[empty[0]]
        raise DataError(f"{where}: series {first + empty[0]} has {found} observations; expected at least 1")
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


def check_days(doy: np.ndarray, lengths: np.ndarray, where: str, first: int = 0) -> None:
    """All of `doy` (M,) are whole days from 1 to 366 that never decrease inside a series."""
    good = are_days(doy)
    if not good.all():
        row = np.flatnonzero(~good)[0]
        raise DataError(f"{where}: {_observation(row, lengths, first)}: day of year is {doy[row]}; expected {DAY}")
    backwards = np.diff(doy) < 0
    backwards[np.cumsum(lengths)[:-1] - 1] = False  # from one series to the next
    if backwards.any():
        row = np.flatnonzero(backwards)[0] + 1
        raise DataError(
            f"{where}: {_observation(row, lengths, first)}: day of year {doy[row]} follows {doy[row - 1]};"
            " expected observations sorted by day of year"
        )


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
