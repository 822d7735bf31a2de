from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.errors import DataError
from datasets.imagery.dates import bare_day, date_in_path, find_date, given_dates, in_season, periods, solar_day
from datasets.season import Season

DAYS = st.dates(date(2015, 1, 1), date(2030, 12, 31))


@given(
    day=DAYS, before=st.sampled_from(["", "S2_", "S2A_MSIL2A_", "tile 14-"]), after=st.sampled_from(["", "_B2", ".x"])
)
def test_dates_are_found_in_every_way_they_are_written(day, before, after):
    for pattern in ("%Y-%m-%d", "%Y%m%d", "%Y_%m_%d", "%Y%j", "%Y-%j", "%Y%m%dT000000"):
        found = find_date(f"{before}{day.strftime(pattern)}{after}")
        assert found.day == day, pattern


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("S2A_MSIL2A_20190503T173911_N0212_R098_T14SPH_20190504T215412", datetime(2019, 5, 3, 17, 39, 11)),
        ("2019-05-03T17:39:11Z", datetime(2019, 5, 3, 17, 39, 11)),
        ("20190503173911", datetime(2019, 5, 3, 17, 39, 11)),
        ("98-togo_2019-02-06_2020-02-01", date(2019, 2, 6)),
        ("x_20191332_20190503", date(2019, 5, 3)),
        ("2019123", date(2019, 5, 3)),
        ("2019366", None),
        ("2020366", date(2020, 12, 31)),
        ("2019000", None),
        ("T14SPH", None),
        ("harvey_2019", None),
        ("0000000000-0000000512", None),
        ("123456789012", None),
        ("13000501", None),
    ],
)
def test_what_is_a_date(text, expected):
    found = find_date(text)
    assert (found and found.date) == expected


def test_the_nearest_folder_with_a_date_counts(tmp_path):
    root = tmp_path / "2018-01-01"
    assert date_in_path(root / "2019-05-03" / "x" / "B2", root) == date(2019, 5, 3)
    assert date_in_path(root / "2019-05-03" / "20200101_B2", root) == date(2020, 1, 1)
    assert date_in_path(root / "x", root) == date(2018, 1, 1)
    assert date_in_path(Path("/2019-05-03/data/x"), Path("/2019-05-03/data")) is None


@pytest.mark.parametrize(
    ("stem", "day"),
    [("045", 45), ("field_45", 45), ("doy045", 45), ("x-doy-366", 366), ("367", None), ("0", None), ("T14SPH", None)],
)
def test_a_bare_day_of_year_ends_the_name(stem, day):
    assert bare_day(stem) == day


def test_a_day_of_year_is_a_date_of_the_season():
    across = Season.of(2019, "10-01")
    assert in_season(300, across, "x") == date(2018, 10, 27)
    assert in_season(45, across, "x") == date(2019, 2, 14)
    assert in_season(366, Season.of(2020), "x") == date(2020, 12, 31)
    with pytest.raises(DataError, match="x.tif: the season .* has no day of year 366"):
        in_season(366, Season.of(2019), "x.tif")
    with pytest.raises(DataError, match="x.tif: day of year 45, but no year; give --year"):
        in_season(45, None, "x.tif")


def test_the_solar_day_is_local():
    assert solar_day(datetime(2019, 5, 3, 22, 30), 175.0) == date(2019, 5, 4)
    assert solar_day(datetime(2019, 5, 3, 22, 30), -100.0) == date(2019, 5, 3)
    assert solar_day(datetime(2019, 5, 3, 3, 0), -100.0) == date(2019, 5, 2)
    assert solar_day(date(2019, 5, 3), 175.0) == date(2019, 5, 3)


def test_periods_are_dated_at_their_middle():
    assert periods("2019-01-01", "month", 3) == [date(2019, 1, 16), date(2019, 2, 15), date(2019, 3, 16)]
    assert periods("2019-12-01", "2 months", 2) == [date(2020, 1, 1), date(2020, 3, 2)]
    assert periods("2019-01-01", "10D", 3) == [date(2019, 1, 6), date(2019, 1, 16), date(2019, 1, 26)]
    assert periods("2019-12-29", "week", 1) == [date(2020, 1, 1)]
    assert periods("2019-10-31", "month", 2) == [date(2019, 11, 15), date(2019, 12, 15)]  # to 30 November, 31 December


@given(start=DAYS, days=st.integers(1, 40), count=st.integers(1, 5))
def test_a_period_of_days_is_dated_half_way(start, days, count):
    expected = [start + timedelta(days=k * days + days // 2) for k in range(count)]
    assert periods(str(start), f"{days}D", count) == expected


def test_dates_are_given_in_one_way(tmp_path):
    listed = tmp_path / "dates.txt"
    listed.write_text("2019-01-05\n20190120\n")
    expected = [date(2019, 1, 5), date(2019, 1, 20)]
    assert given_dates("2019-01-05, 20190120", None, None, 2, "images") == expected
    assert given_dates(str(listed), None, None, 2, "images") == expected
    assert given_dates(None, "2019-01-01", "10D", 1, "images") == [date(2019, 1, 6)]
    assert given_dates(None, None, None, 2, "images") is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("2019-01-05", None, None), "--dates: 1 dates for 2 images; expected as many"),
        (("2019-01-05", "2019-01-01", "month"), "--dates and --start both give the dates"),
        ((None, "2019-01-01", None), "--step is missing"),
        ((None, None, "month"), "--start is missing"),
        ((None, "January", "month"), "--start January: expected a date"),
        ((None, "2019-01-01", "often"), "--step often: expected month"),
        ((None, "2019-01-01", "0D"), "--step 0D: expected month"),
        (("2019-01-05,yesterday", None, None), "--dates yesterday: expected a date"),
        (("nowhere.txt", None, None), "--dates nowhere.txt: neither dates nor a file of dates"),
    ],
)
def test_dates_that_cannot_be_used_are_said(options, message):
    with pytest.raises(DataError, match=message):
        given_dates(*options, 2, "images")
