"""Dealing series to splits by whole blocks."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.errors import DataError
from datasets.preparation.split import SPLITS, block_of, deal


def test_blocks_are_squares_counted_from_the_origin():
    x, y = [0, 2999.9, 3000, -0.1, 500_000], [0, 2999.9, 6000, -3000.1, 4_200_000]
    assert block_of(x, y, 3000).tolist() == ["0_0", "0_0", "1_2", "-1_-2", "166_1400"]


def test_no_points_have_no_blocks():
    assert block_of([], [], 3000).shape == (0,)


def test_a_coordinate_that_is_no_number_is_named():
    with pytest.raises(DataError, match=r"point 1 is \(nan, 5\)"):
        block_of([1, np.nan], [4, 5], 3000)
    with pytest.raises(DataError, match="block size 0"):
        block_of([1], [4], 0)


def missing(splits, labels, blocks) -> int:
    """Pairs of a split and a class of at least three blocks that the split has not, and splits without series."""
    holders = {label: set(blocks[labels == label].tolist()) for label in set(labels.tolist())}
    wanted = [label for label, held in holders.items() if len(held) >= 3]
    pairs = sum(label not in labels[splits == part] for label in wanted for part in SPLITS)
    return pairs + sum(part not in splits for part in SPLITS)


def fewest_missing(labels, blocks) -> int:
    """The same for the best of all ways to deal the blocks."""
    names, which = np.unique(blocks, return_inverse=True)
    every_deal = (np.array(SPLITS)[list(dealt)] for dealt in product(range(3), repeat=len(names)))
    return min(missing(dealt[which], labels, blocks) for dealt in every_deal)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_class_of_three_blocks_is_in_every_split_where_that_is_possible(data):
    count = data.draw(st.integers(3, 6))
    held = [data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=3)) for _ in range(count)]  # classes of a block
    blocks, labels = np.repeat(np.arange(count), [len(classes) for classes in held]), np.concatenate(held)
    splits = deal(blocks, labels, seed=data.draw(st.integers(0, 3)))
    assert missing(splits, labels, blocks) == fewest_missing(labels, blocks)


@given(st.integers(0, 2**31), st.integers(3, 60), st.integers(0, 1000))
@settings(deadline=None, max_examples=50)
def test_blocks_are_whole_and_do_not_depend_on_the_order_of_the_series(seed, count, draw):
    rng = np.random.default_rng(draw)
    blocks, labels = rng.integers(count, size=500), rng.choice(["corn", "rice", "rye"], size=500)
    if len(np.unique(blocks)) < 3:
        return
    splits = deal(blocks, labels, seed)
    assert all(len(set(splits[blocks == block])) == 1 for block in np.unique(blocks))
    order = rng.permutation(500)
    assert (deal(blocks[order], labels[order], seed) == splits[order]).all()


def test_shares_are_two_thirds_and_a_sixth_each():
    rng = np.random.default_rng(0)
    even = deal(np.repeat(np.arange(600), 5), rng.integers(4, size=3000), seed=1)
    assert [int((even == part).sum()) for part in SPLITS] == [2000, 500, 500]
    sizes = rng.integers(1, 60, size=300)
    uneven = deal(np.repeat(np.arange(300), sizes), rng.integers(4, size=sizes.sum()), seed=1)
    shares = [(uneven == part).mean() for part in SPLITS]
    assert np.allclose(shares, [4 / 6, 1 / 6, 1 / 6], atol=60 / sizes.sum())


def test_sizes_stay_near_their_shares_when_rare_classes_force_moves():
    rng = np.random.default_rng(3)
    blocks = np.repeat(np.arange(120), 20)
    labels = rng.integers(3, size=len(blocks))
    for rare in range(10):  # each in three blocks of its own, one series a block
        labels[rng.choice(120, 3, replace=False) * 20 + rare] = 3 + rare
    splits = deal(blocks, labels, seed=0)
    assert missing(splits, labels, blocks) == 0
    assert np.allclose([(splits == part).mean() for part in SPLITS], [4 / 6, 1 / 6, 1 / 6], atol=0.03)


def test_the_seed_decides_and_another_seed_deals_otherwise():
    blocks, labels = np.arange(100), np.zeros(100)
    assert (deal(blocks, labels, 1) == deal(blocks, labels, 1)).all()
    assert (deal(blocks, labels, 1) != deal(blocks, labels, 2)).any()


def test_fewer_than_three_blocks_are_refused():
    with pytest.raises(DataError, match=r"2 block\(s\).*smaller"):
        deal(np.array([0, 1, 1]), np.zeros(3), 0)
