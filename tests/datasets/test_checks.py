"""Time order inside a series, with New Year in it at most once."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.checks import are_in_time_order, check_days
from datasets.errors import DataError

series_of_days = st.lists(st.integers(1, 366), min_size=1, max_size=8)


def first_offence(days: list[int]) -> int | None:
    """The first observation out of order in one series, by walking along it."""
    fallen = False
    for i in range(1, len(days)):
        if days[i] < days[i - 1]:
            if fallen:
                return i
            fallen = True
        if fallen and days[i] >= days[0]:
            return i
    return None


@given(st.lists(series_of_days, min_size=1, max_size=5))
def test_time_order_is_that_of_a_walk_along_each_series(series):
    ordered = are_in_time_order(np.concatenate(series), np.array([len(days) for days in series]))
    starts = np.cumsum([0, *(len(days) for days in series)])
    for days, start in zip(series, starts, strict=False):
        wrong = np.flatnonzero(~ordered[start : start + len(days)])
        assert (wrong[0] if wrong.size else None) == first_offence(days)


@given(st.dates(date(1999, 1, 1), date(2030, 1, 1)), st.lists(st.integers(0, 364), min_size=1, max_size=9))
def test_any_365_days_are_in_time_order(start, offsets):
    doy = [(start + timedelta(days=offset)).timetuple().tm_yday for offset in sorted(offsets)]
    check_days(np.array(doy), np.array([len(doy)]), "here")


@pytest.mark.parametrize(
    ("doy", "words"),
    [
        ([300, 5, 300], "observation 2: day of year 300 follows 5"),
        ([300, 5, 4], "observation 2: day of year 4 follows 5"),
        ([300, 5, 301, 2], "observation 2: day of year 301 follows 5"),
    ],
)
def test_what_is_longer_than_twelve_months_is_named(doy, words):
    with pytest.raises(DataError, match=f"here: series 8, {words}; expected time order .*once, at New Year"):
        check_days(np.array([9, *doy]), np.array([1, 3 if len(doy) == 3 else 4]), "here", first=7)
