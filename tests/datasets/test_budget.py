"""The label budget: counts, limits, equal probabilities, and the same draw for the same seed."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.budget import class_limit, draw_limited, draw_natural, split_budget
from datasets.errors import DataError

CLASSES = 21


@given(num=st.integers(2, 10**7))
def test_nine_tenths_come_from_train(num):
    assert split_budget(num) == (int(0.9 * num), num - int(0.9 * num))


@pytest.mark.parametrize("num", [1, 0, -5])
def test_a_budget_too_small_to_split_is_refused(num):
    with pytest.raises(DataError, match=f"budget of {num} .* empty"):
        split_budget(num)


def test_a_class_has_at_most_twice_its_balanced_number():
    assert [class_limit(num, CLASSES) for num in (2, 50, 100, 300, 3000)] == [1, 4, 9, 28, 285]


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(0, 60), min_size=CLASSES, max_size=CLASSES).filter(any),
    fraction=st.floats(0.01, 1),
    limit=st.integers(1, 70),
    seed=st.integers(0, 2**32),
)
def test_a_limited_draw_keeps_count_limit_and_seed(sizes, fraction, limit, seed):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(CLASSES), sizes))
    count = max(1, int(fraction * len(labels)))
    drawn = draw_limited(labels, count, limit, seed)
    assert len(drawn) == count and (np.diff(drawn) > 0).all() and 0 <= drawn[0] and drawn[-1] < len(labels)
    np.testing.assert_array_equal(drawn, draw_limited(labels, count, limit, seed))
    taken = np.bincount(labels[drawn], minlength=CLASSES)
    if np.minimum(sizes, limit).sum() >= count:
        assert taken.max() <= limit
    else:
        assert (taken >= np.minimum(sizes, limit)).all()


def test_common_classes_reach_the_limit_and_the_others_keep_their_proportions():
    labels = np.repeat([0, 1, 2, 3], [6000, 3000, 600, 300])
    drawn = [np.bincount(labels[draw_limited(labels, 1000, 400, seed)], minlength=4) for seed in range(20)]
    assert all(counts[0] == 400 for counts in drawn)
    assert np.abs(np.mean(drawn, axis=0) - [400, 400, 133, 67]).max() < 8


def test_series_beyond_the_limit_are_drawn_with_one_warning(caplog):
    labels = np.repeat([0, 1], 50)
    with caplog.at_level(logging.WARNING):
        for seed in (1, 2):
            assert len(draw_limited(labels, 60, 5, seed, where="a test")) == 60
    assert [record.message[:38] for record in caplog.records] == ["a test: only 10 of 60 series can be dr"]


def test_every_series_is_drawn_with_equal_probability():
    labels = np.repeat([0, 1], [20, 20])
    times = np.zeros(40)
    for seed in range(400):
        times[draw_limited(labels, 10, 10, seed)] += 1
    assert 60 < times.min() and times.max() < 145  # 100 expected, standard deviation 8.7


def test_a_small_draw_is_part_of_a_large_one_within_the_limit():
    labels = np.random.default_rng(3).integers(0, 14, 2000)
    small, large = (set(draw_limited(labels, count, 100, seed=7)) for count in (45, 450))
    assert small < large


def test_a_natural_draw_keeps_proportions():
    labels = np.repeat([0, 1], [9000, 1000])
    drawn = draw_natural(len(labels), 2000, 111, "valid")
    assert (np.diff(drawn) > 0).all() and 150 < (labels[drawn] == 1).sum() < 250


def test_streams_differ_by_seed_and_split_and_do_not_touch_global_state():
    state = np.random.get_state()[1].copy()
    draws = [draw_natural(1000, 20, seed, split) for seed in (1, 2) for split in ("valid", "unlabelled")]
    assert len({tuple(draw) for draw in draws}) == 4
    np.testing.assert_array_equal(np.random.get_state()[1], state)


def test_a_budget_beyond_the_data_is_refused():
    with pytest.raises(DataError, match="data/2019: train: the budget needs 11 series, there are 10; .*--useall"):
        draw_limited(np.zeros(10, dtype=int), 11, 4, 1, where="data/2019: train")
    with pytest.raises(DataError, match="valid: the budget needs 3 series, there are 2"):
        draw_natural(2, 3, 1, "valid")
    with pytest.raises(DataError, match="0 series asked for"):
        draw_natural(2, 0, 1, "unlabelled")
    with pytest.raises(DataError, match="seed -1: expected 0 or more"):
        draw_natural(2, 1, -1, "valid")
