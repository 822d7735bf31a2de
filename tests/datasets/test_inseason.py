"""Series up to a day: as those of a store that ends with it."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from datasets import inseason
from datasets.batches import MappedSeries, ResidentSeries
from datasets.errors import DataError
from datasets.inseason import cut, day_of, until
from datasets.store import SeriesSet, Store, join
from tests.support.series import same_tensors

CPU = torch.device("cpu")
READERS = {"mapped": MappedSeries, "resident": ResidentSeries}
Numbered = list[list[int]]  # the numbers of the days of series: above 366 after New Year


@st.composite
def seasons(draw) -> tuple[Numbered, int]:
    """Series of a season that begins on a day of a year, with the last day up to which they are seen.

    Where the season lies across New Year, so does one of the series, up to its end.
    """
    start = draw(st.integers(1, 366))
    days = st.lists(st.integers(start, start + 364), min_size=1, max_size=9, unique=True).map(sorted)
    found = draw(st.lists(days, min_size=1, max_size=6))
    if start > 2:
        found.append([draw(st.integers(start, 366)), start + 364])
    return draw(st.permutations(found)), draw(st.integers(1, 732))


def store_of(numbered: Numbered, seed: int = 0, name: str = "here/train") -> SeriesSet:
    """Series of these days; equal values for equal days of the series at a place."""
    random = np.random.default_rng(seed)
    bands = [random.integers(1, 9000, (800, 10), np.int16)[np.array(days, int)] for days in numbered]
    doy = (np.concatenate([np.array(days, int) for days in numbered]) - 1) % 366 + 1
    offsets = np.cumsum([0, *map(len, numbered)])
    return SeriesSet.whole(Store(Path(name), name, {}, np.concatenate(bands), doy.astype(np.int16), offsets))


def before(numbered: Numbered, day: int) -> Numbered:
    return [[each for each in days if each <= day] for days in numbered]


def test_without_a_day_sets_are_whole():
    series = store_of([[3, 80], [200]])
    assert until(series, None) is series and cut(series, None) is series
    assert series.seen is None and series.take(np.array([1])).seen is None
    none = series.take(np.array([], int))
    assert until(none, 5) is none and cut(none, 5) is none


def test_the_last_day_is_seen():
    series = store_of([[149, 150, 151]])
    assert [cut(series, day).lengths.tolist() for day in (149, 150, 151)] == [[1], [2], [3]]


def test_days_after_new_year_count_on_from_366():
    series = store_of([[280, 360, 366 + 1, 366 + 58], [300, 366 + 58, 366 + 270]])
    assert series.store.doy.tolist() == [280, 360, 1, 58, 300, 58, 270]
    assert cut(series, 366).lengths.tolist() == [2, 1]
    assert cut(series, 367).lengths.tolist() == [3, 1]
    assert cut(series, 424).lengths.tolist() == [4, 2]
    assert cut(series, 366 + 269).lengths.tolist() == [4, 2]


def test_series_of_a_season_across_new_year_that_begin_after_it_are_told_by_the_others():
    series = store_of([[366 + 20, 366 + 100], [280, 366 + 30]])
    assert until(series, 366).rows.tolist() == [1]
    assert until(series, 366 + 30).lengths.tolist() == [1, 2]
    assert until(store_of([[366 + 30], [280, 366 + 30]]), 366).rows.tolist() == [1]
    alone = series.take(np.array([0]))  # nothing tells it from a series of one year
    assert until(alone, 20).lengths.tolist() == [1]
    assert until(store_of([[20, 100], [280, 300]]), 300).lengths.tolist() == [2, 2]
    assert until(store_of([[300], [280, 366 + 30]]), 300).lengths.tolist() == [1, 1]


def test_days_that_are_out_of_order_do_not_let_the_future_in():
    assert cut(store_of([[10, 90, 40, 95]]), 50).lengths.tolist() == [1]


def test_a_series_without_an_observation_by_then_is_left_out_or_named():
    series = store_of([[200, 210], [20, 250], [151]]).take(np.array([1, 2, 0]))
    assert until(series, 150).rows.tolist() == [1]
    told = "^here/train: series 2 has no observation until day 150, its first is of day 151; leave such"
    with pytest.raises(DataError, match=told):
        cut(series, 150)


def test_days_of_the_calendar_are_numbered_from_the_first_year_on():
    assert day_of(date(2018, 10, 1), 2018) == 274
    assert day_of(date(2019, 2, 27), 2018) == 366 + 58
    assert day_of(date(2020, 12, 31), 2020) == 366


@settings(max_examples=80, deadline=None)
@given(season=seasons(), piece=st.integers(1, 4), order=st.randoms())
def test_a_set_is_as_that_of_a_store_that_ends_with_the_day(season, piece, order):
    numbered, day = season
    left = [i for i, days in enumerate(before(numbered, day)) if days]
    whole = store_of(numbered)
    if not left:
        first = min(days[0] for days in numbered)
        told = f"^here/train: no series has an observation until day {day}, the first is of day {first}; give a later"
        with pytest.raises(DataError, match=told):
            until(whole, day)
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inseason, "PIECE", piece)
        seen = until(whole, day)
    assert seen.rows.tolist() == left and seen.lengths.dtype == np.int64
    short = store_of(before(numbered, day)).take(np.array(left))
    assert seen.lengths.tolist() == short.lengths.tolist() and seen.fingerprint() == short.fingerprint()
    positions = np.array(order.sample(range(len(left)), order.randint(1, len(left))))
    for reader in READERS.values():
        found, expected = (reader(each, CPU).gather(positions) for each in (seen, short))
        assert same_tensors(found, expected)
    one, other = join([seen.take(positions), seen]), join([short.take(positions), short])
    for part in ("bands", "doy", "offsets"):
        np.testing.assert_array_equal(getattr(one.store, part), getattr(other.store, part))


@settings(max_examples=60, deadline=None)
@given(season=seasons(), later=st.integers(0, 400))
def test_cutting_again_changes_nothing(season, later):
    numbered, day = season
    assume(any(days[0] <= day for days in numbered))
    seen = until(store_of(numbered), day)
    for again in (cut(seen, day + later), until(seen, day + later)):
        assert again.rows.tolist() == seen.rows.tolist() and again.lengths.tolist() == seen.lengths.tolist()
