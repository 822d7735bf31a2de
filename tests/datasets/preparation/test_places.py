import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from datasets.errors import DataError
from datasets.imagery.grid import Grid
from datasets.preparation import places, split
from datasets.preparation.samples import Samples
from tests.support.imagery import ORIGIN, UTM

DEGREES = CRS.from_epsg(4326)


def test_blocks_are_squares_of_metres_in_the_images_crs():
    blocks = places.blocks_at(np.array([0, 0, 299, 300]), np.array([0, 299, 0, 300]), Grid(UTM, ORIGIN, 600, 600), 3000)
    assert blocks.tolist() == ["200_1399", "200_1399", "200_1399", "201_1398"]


def test_a_crs_of_feet_has_blocks_of_metres_too():
    feet = CRS.from_epsg(2263)  # US survey feet
    grid = Grid(feet, Affine(30, 0, 0, 0, -30, 30_000), 1000, 1000)
    assert places.metres_per_unit(grid) == pytest.approx((0.3048006, 0.3048006), rel=1e-6)
    assert places.pixel_metres(grid) == pytest.approx(9.144, rel=1e-4)
    across = places.blocks_at(np.zeros(1000, int), np.arange(1000), grid, 3000)
    assert np.flatnonzero(across[1:] != across[:-1]).tolist() == [327, 655, 983]  # 3,000 m are 328.08 pixels


@pytest.mark.parametrize("latitude", [0, 38, -60])
def test_degrees_are_metres_at_the_images_latitude(latitude):
    grid = Grid(DEGREES, Affine(1e-4, 0, -97, 0, -1e-4, latitude), 1000, 1000)
    along, across = places.metres_per_unit(grid)
    assert across == pytest.approx(111_195, abs=1) and along == pytest.approx(across * np.cos(np.radians(latitude)))
    nearby = Grid(DEGREES, Affine(1e-4, 0, -97.5, 0, -1e-4, latitude + 0.2), 900, 1100)
    assert places.metres_per_unit(nearby) == (along, across)


def test_the_longer_side_of_a_pixel_counts():
    assert places.pixel_metres(Grid(UTM, Affine(10, 0, 0, 0, -20, 0), 5, 5)) == 20
    assert places.pixel_metres(Grid(UTM, Affine.rotation(30) * Affine.scale(10), 5, 5)) == pytest.approx(10)


def test_a_polygon_keeps_the_pixels_of_the_block_that_holds_most():
    samples = Samples(
        np.zeros(7, int), np.arange(7),
        {"shape": np.array([4, 4, 4, 9, 9, 2, 4]), "block": np.array(["b", "a", "b", "b", "a", "c", "c"])},
    )  # fmt: skip
    assert places.in_home_block(samples).tolist() == [True, False, True, False, True, True, False]


SPLIT = st.sampled_from(["train", "valid", "eval"])


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.integers(0, 12), SPLIT, min_size=1), st.data())
def test_no_two_neighbours_are_of_different_splits_and_eval_stays_whole(split_of, data):
    pairs = data.draw(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=30))
    names = np.repeat(list(split_of), 2)
    kept = places.apart(np.array([split_of[n] for n in names]), names, np.array(pairs, dtype=int).reshape(-1, 2).T)
    left = set(names[kept].tolist())
    assert all(kept[::2] == kept[1::2])
    for first, second in pairs:
        assert not (first in left and second in left and split_of[first] != split_of[second])
    order = ["train", "valid", "eval"]
    for lost in set(split_of) - left:  # each gave way to a stronger neighbour that is still there
        partners = [a if b == lost else b for a, b in pairs if lost in (a, b)]
        assert any(p in left and order.index(split_of[p]) > order.index(split_of[lost]) for p in partners)


FIELDS, CROPS = np.arange(12), np.array(["corn"] * 9 + ["rice"] * 3)


@pytest.mark.parametrize("seed", range(6))
def test_another_deal_is_taken_where_neighbours_take_the_last_of_a_class(seed):
    """Twelve fields in blocks of their own: each rice field touches one of corn, by which a split may lose its rice."""
    pairs = np.array([[9, 10, 11], [0, 1, 2]])
    blocks = FIELDS.astype(str)
    splits = places.deal_apart(blocks, CROPS, FIELDS, pairs, seed)
    for name in split.SPLITS:
        assert set(CROPS[splits == name]) == {"corn", "rice"}
    left = splits[pairs]
    assert ((left[0] == left[1]) | (left == places.NOT_SPLIT).any(axis=0)).all()


def test_the_first_deal_is_kept_where_it_loses_no_class():
    blocks, nothing = FIELDS.astype(str), np.zeros((2, 0), dtype=int)
    dealt = [split.deal(blocks, CROPS, seed) for seed in range(4)]
    for seed, expected in enumerate(dealt):
        assert places.deal_apart(blocks, CROPS, FIELDS, nothing, seed).tolist() == expected.tolist()
    assert len({tuple(some) for some in dealt}) > 1


def test_the_deal_that_loses_fewest_classes_is_taken_where_all_lose_some():
    """All fields touch each other, so one split is left: eval, before which the others give way."""
    pairs = np.array([(a, b) for a in FIELDS for b in FIELDS if a < b]).T
    splits = places.deal_apart(FIELDS.astype(str), CROPS, FIELDS, pairs, 0)
    assert set(splits) == {"eval", places.NOT_SPLIT} and set(CROPS[splits == "eval"]) == {"corn", "rice"}
    first = split.deal(FIELDS.astype(str), CROPS, 0)
    assert ((splits == "eval") == (first == "eval")).all()  # of those that lose as many, the first


@pytest.mark.parametrize("side, size", [(10_980, 3000), (1470, 3000), (1469, 1500), (400, 750), (100, 187.5)])
def test_the_default_block_is_halved_until_24_fit_on_the_images(side, size):
    assert places.default_block_size(Grid(UTM, ORIGIN, side, side)) == size


def test_the_area_of_images_in_degrees_is_that_on_the_ground():
    """0.08 x 0.4 degrees at 60 degrees north are 8.9 x 22.2 km, and 24 blocks of 3 km are 216 square km."""
    for height, size in ((80, 1500), (90, 3000)):
        assert places.default_block_size(Grid(DEGREES, Affine(1e-3, 0, 20, 0, -1e-3, 60.04), height, 400)) == size


def test_a_block_needs_a_size():
    with pytest.raises(DataError, match="--block-size 0; expected metres, more than 0"):
        places.check_block_size(0)
