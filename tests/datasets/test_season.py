"""Seasons of twelve months."""

from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.checks import are_in_time_order
from datasets.errors import DataError
from datasets.season import Season


def test_a_season_from_new_year_is_the_calendar_year():
    assert Season.of(2019) == (date(2019, 1, 1), date(2020, 1, 1))


@pytest.mark.parametrize(
    ("start", "first"),
    [("10-01", 2017), ("07-01", 2018), ("06-30", 2018), ("07-02", 2018), ("07-03", 2017), ("1-1", 2018)],
)
def test_a_season_is_the_one_with_most_days_in_the_year(start, first):
    month, day = map(int, start.split("-"))
    assert Season.of(2018, start) == (date(first, month, day), date(first + 1, month, day))


def test_of_two_seasons_with_as_many_days_the_later_is_taken():
    assert Season.of(2020, "07-02") == (date(2020, 7, 2), date(2021, 7, 2))  # 183 days of the year, as the one before


@given(st.integers(1990, 2100), st.dates(date(2019, 1, 1), date(2019, 12, 31)))
def test_no_other_year_has_more_days_of_a_season(year, start):
    season = Season.of(year, f"{start:%m-%d}")
    before, within, after = (season.days_in(number) for number in (year - 1, year, year + 1))
    assert within >= max(before, after)
    assert before + within + after == (season.end - season.start).days


@given(st.integers(1990, 2100), st.dates(date(2019, 1, 1), date(2019, 12, 31)))
def test_days_of_year_after_new_year_stay_below_the_first_and_at_most_one_day_is_given_up_for_it(year, start):
    season = Season.of(year, f"{start:%m-%d}")
    doy = [(season.start + timedelta(days=n)).timetuple().tm_yday for n in range((season.end - season.start).days)]
    assert are_in_time_order(np.array(doy), np.array([len(doy)])).all()
    assert 365 <= len(doy) <= 366 and (f"{start:%m-%d}" != "01-01" or season.end == date(year + 1, 1, 1))


def test_a_season_into_a_leap_year_ends_a_day_early():
    assert Season.of(2020, "11-17") == (date(2019, 11, 17), date(2020, 11, 16))
    assert Season.of(2021, "11-17") == (date(2020, 11, 17), date(2021, 11, 17))


def test_the_first_day_is_in_the_season_and_the_last_date_is_not():
    season = Season.of(2019, "10-01")
    day = timedelta(days=1)
    held = [season.holds(d) for d in (season.start - day, season.start, season.end - day, season.end)]
    assert held == [False, True, True, False]
    assert str(season) == "2018-10-01 to 2019-09-30"


@pytest.mark.parametrize("start", ["02-29", "13-01", "october", "10", "10-01-01", ""])
def test_a_start_that_no_year_has_is_refused(start):
    with pytest.raises(DataError, match=f"season start '{start}'.*such as 10-01"):
        Season.of(2020, start)
