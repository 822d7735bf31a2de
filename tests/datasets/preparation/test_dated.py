"""Years, twelve months, missing values and digital numbers of series with dates."""

from __future__ import annotations

import tempfile
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.checks import are_in_time_order
from datasets.preparation.dated import (
    day_of_year,
    digital_numbers,
    in_time_order,
    sort_by_year,
    within_twelve_months,
    year_of_most,
)
from datasets.readers.dated import Dated
from datasets.store import Store

some_days = st.lists(st.dates(date(2018, 1, 1), date(2021, 12, 31)), min_size=1, max_size=12)


def flat(series: list[list[date]]) -> tuple[np.ndarray, np.ndarray]:
    days = np.array([day for one in series for day in one], dtype="datetime64[D]")
    return days, np.array([len(one) for one in series])


def monthly(year: int, month: int, count: int) -> list[date]:
    return [date(year + (month - 1 + k) // 12, (month - 1 + k) % 12 + 1, 16) for k in range(count)]


@given(st.lists(some_days, min_size=1, max_size=4))
def test_the_year_of_a_series_is_that_of_most_observations_and_of_equals_the_last(series):
    expected = []
    for one in series:
        counts = Counter(day.year for day in one)
        expected.append(max(year for year, count in counts.items() if count == max(counts.values())))
    assert year_of_most(*flat(series)).tolist() == expected


def kept(days: list[date], year: int) -> list[date]:
    keep = within_twelve_months(*flat([days]), np.array([year]))
    return [day for day, there in zip(days, keep, strict=True) if there]


def test_of_a_longer_series_the_year_itself_is_kept_where_the_series_covers_it():
    days = [date(2019, 11, 2), date(2020, 1, 1), date(2020, 6, 1), date(2020, 12, 31), date(2021, 1, 1)]
    assert kept(days, 2020) == days[1:4]


def test_else_the_twelve_months_at_the_end_that_lies_in_the_year_are_kept():
    assert kept(monthly(2020, 8, 16), 2021) == monthly(2020, 12, 12)  # ends in November 2021
    assert kept(monthly(2021, 2, 16), 2021) == monthly(2021, 2, 12)  # ends in May 2022
    assert kept([date(2020, 5, 1), date(2021, 4, 30), date(2021, 5, 1)], 2021) == [date(2021, 4, 30), date(2021, 5, 1)]


def test_a_series_of_twelve_months_stays_whole():
    for start in (date(2019, 3, 1), date(2019, 10, 1), date(2020, 2, 29)):
        days = [start + timedelta(days=k) for k in range(365)]
        assert kept(days, 2020) == days
    leap = [date(2020, 1, 1) + timedelta(days=k) for k in range(366)]
    assert kept(leap, 2020) == leap


def test_a_series_without_an_observation_in_the_year_is_left_out():
    assert kept(monthly(2019, 1, 12), 2020) == [] and kept(monthly(2019, 1, 12), 2018) == []
    assert kept(monthly(2018, 1, 24) + monthly(2021, 1, 1), 2020) == []


@given(st.lists(some_days.map(sorted), min_size=1, max_size=4), st.integers(2018, 2021))
def test_what_is_kept_can_be_stored_and_no_other_twelve_months_have_more_of_the_year(series, year):
    days, lengths = flat(series)
    keep = within_twelve_months(days, lengths, np.full(len(lengths), year))
    doy, ends = day_of_year(days), np.cumsum(lengths)
    for one, end in zip(series, ends, strict=True):
        there = keep[end - len(one) : end]
        left = [day for day, inside in zip(one, there, strict=True) if inside]
        if left:
            assert are_in_time_order(doy[end - len(one) : end][there], np.array([len(left)])).all()
            assert sum(day.year == year for day in left) == sum(day.year == year for day in one)
            assert (left[-1] - left[0]).days <= 365
        else:
            assert not any(day.year == year for day in one)


def test_observations_are_sorted_by_date_and_those_of_a_day_keep_their_order():
    days = np.array(["2019-03-02", "2019-03-01", "2019-03-02", "2018-01-05", "2018-01-04"], dtype="datetime64[D]")
    bands = np.arange(5.0)[:, None] * np.ones(10)
    piece = in_time_order(Dated(bands, days, np.array([3, 2]), {}))
    assert piece.bands[:, 0].tolist() == [1, 0, 2, 4, 3]
    assert day_of_year(piece.days).tolist() == [60, 61, 61, 4, 5]


@given(st.dates(date(1990, 1, 1), date(2040, 1, 1)))
def test_days_of_year_are_the_calendars(day):
    assert day_of_year(np.array([day], dtype="datetime64[D]")) == [day.timetuple().tm_yday]


def test_digital_numbers_are_rounded_and_those_above_the_limit_clipped_and_counted():
    numbers, clipped = digital_numbers(np.array([[32767.4, 40000, 32768, -40000, 0.6, -3]]), 1)
    assert numbers.tolist() == [[32767, 32767, 32767, -32768, 1, -3]] and clipped == 2
    assert digital_numbers(np.array([[0.12345]]), 1e4)[0].tolist() == [[1234]]


def piece_of(series: list[tuple[list[date], str]], lost=()) -> Dated:
    """Series whose band values are the number of the observation; `lost` (observation, band) are missing."""
    days, lengths = flat([days for days, _ in series])
    bands = np.arange(1.0, len(days) + 1)[:, None] * np.ones(10)
    for observation, band in lost:
        bands[observation, band] = np.nan
    index = {"id": np.array([f"p{i}" for i in range(len(series))], dtype=object)}
    return Dated(bands, days, lengths, index | {"code": np.array([label for _, label in series], dtype=object)})


def test_series_go_to_the_store_of_their_year_and_what_is_left_out_is_counted(tmp_path):
    pieces = [
        piece_of([(monthly(2019, 1, 3), "a"), (monthly(2020, 1, 2), "b"), (monthly(2020, 5, 2), "")], lost=[(1, 0)]),
        piece_of([(monthly(2019, 8, 12), "a"), (monthly(2019, 3, 1), "b")], lost=[(12, 4), (12, 5)]),
        piece_of([(monthly(2020, 8, 16), "c")], lost=[(0, 0), (15, 9)]),
    ]
    made = sort_by_year(pieces, tmp_path)
    assert list(made.stores) == [2019, 2020, 2021]
    assert made.counts == {
        "series": 6,
        "observations": 2 + 2 + 12 + 11,
        "series outside the year": 0,
        "series cut to twelve months": 1,
        "observations outside the twelve months": 4,
        "observations with a missing band": 3,
        "series without an observation left": 1,
        "series without a label": 1,
        "band values clipped to 32,767": 0,
    }
    first, second, third = (Store.open(path) for path in made.stores.values())
    assert first.index["id"].tolist() == ["p0"] and first.series(0)[1].tolist() == [16, 75]
    assert first.bands[:, 0].tolist() == [1, 3]
    assert second.index["code"].tolist() == ["b", "a"]
    assert second.series(1)[1].tolist() == [228, 259, 289, 320, 350, 16, 47, 76, 107, 137, 168, 198]
    assert third.doy.tolist()[:2] == [351, 16] and len(third.doy) == 11
    for store in (first, second, third):
        store.validate()


def test_a_year_for_all_series(tmp_path):
    made = sort_by_year([piece_of([(monthly(2019, 8, 12), "a"), (monthly(2018, 1, 3), "b")])], tmp_path, year=2019)
    assert list(made.stores) == [2019] and made.counts["series outside the year"] == 1
    assert len(Store.open(made.stores[2019])) == 1


@given(st.integers(1, 5), st.integers(0, 99))
@settings(max_examples=5, deadline=None)
def test_stores_do_not_depend_on_how_series_come_in_pieces(count, seed):
    rng = np.random.default_rng(seed)
    offsets = np.sort(rng.integers(0, 900, (6, 5)))
    series = [([date(2019, 1, 1) + timedelta(days=int(day)) for day in row], "a") for row in offsets]
    whole = piece_of(series)
    parts = []
    for first in range(0, 6, count):
        rows = slice(5 * first, 5 * (first + count))
        index = {name: values[first : first + count] for name, values in whole.index.items()}
        parts.append(Dated(whole.bands[rows], whole.days[rows], whole.lengths[first : first + count], index))
    with tempfile.TemporaryDirectory() as folder:
        one, many = (sort_by_year(p, Path(folder) / name) for p, name in (([whole], "one"), (parts, "many")))
        assert one.counts == many.counts and list(one.stores) == list(many.stores)
        for year in one.stores:
            for name in ("bands.npy", "doy.npy", "offsets.npy", "index.csv"):
                assert (one.stores[year] / name).read_bytes() == (many.stores[year] / name).read_bytes()
