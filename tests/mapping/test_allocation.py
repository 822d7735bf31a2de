"""How many points each class of a map gets."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.errors import DataError
from mapping.allocation import METHODS, allocate


@st.composite
def maps(draw):
    """Pixels of 1 to 12 classes, and a size that they can give."""
    pixels = draw(st.lists(st.one_of(st.integers(1, 60), st.integers(1, 10**10)), min_size=1, max_size=12))
    return np.array(pixels), draw(st.integers(len(pixels), min(sum(pixels), 2000)))


@given(maps(), st.sampled_from(METHODS), st.integers(0, 80))
def test_points_sum_to_the_size_and_no_class_has_more_than_pixels(given_map, method, floor):
    pixels, size = given_map
    numbers = allocate(pixels, size, method, floor)
    assert numbers.sum() == size and numbers.dtype == np.int64
    assert ((numbers >= 0) & (numbers <= pixels)).all()
    if method == "equal":
        assert (numbers >= np.minimum(pixels, size // len(pixels))).all()
        free = numbers[numbers < pixels]
        assert not len(free) or free.max() - free.min() <= 1 and numbers.max() - free.min() <= 1
    elif np.minimum(pixels, floor).sum() <= size:
        assert (numbers >= np.minimum(pixels, floor)).all()
    elif floor:
        assert (numbers >= 1).all()


@given(maps(), st.integers(0, 80), st.data())
def test_no_class_has_more_points_than_it_can_take(given_map, floor, data):
    pixels, _ = given_map
    most = np.array([data.draw(st.integers(0, int(min(p, 300)))) for p in pixels])
    if most.sum() < len(pixels):
        return
    size = data.draw(st.integers(len(pixels), int(most.sum())))
    numbers = allocate(pixels, size, "proportional", floor, most)
    assert numbers.sum() == size and (numbers <= most).all()


@given(maps(), st.integers(0, 80))
def test_a_class_with_more_pixels_has_no_fewer_points(given_map, floor):
    pixels, size = given_map
    order = np.argsort(pixels, kind="stable")
    numbers = allocate(pixels, size, "proportional", floor)[order]
    assert (np.diff(numbers)[np.diff(pixels[order]) > 0] >= -1).all()  # a remainder may go to either


def test_points_are_in_proportion_above_the_floor():
    assert allocate([6000, 3000, 1000], 100, floor=0).tolist() == [60, 30, 10]
    assert allocate([9000, 900, 100], 200, floor=50).tolist() == [100, 50, 50]
    assert allocate([8000, 1900, 100], 200, floor=20).tolist() == [145, 35, 20]


def test_the_largest_remainders_get_the_points_that_are_left():
    assert allocate([270, 370, 360], 10, floor=0).tolist() == [3, 4, 3]
    assert allocate([245, 245, 510], 10, floor=0).tolist() in ([3, 2, 5], [2, 3, 5])


def test_a_class_with_fewer_pixels_than_the_floor_gives_all_of_them():
    assert allocate([9000, 7], 100, floor=50).tolist() == [93, 7]


def test_floors_that_do_not_fit_are_lowered_to_half_of_the_points():
    assert allocate([9700, 200, 100], 100, floor=50).tolist() == [67, 17, 16]


def test_equal_numbers_go_on_where_a_class_has_too_few():
    assert allocate([1000, 500, 4], 100, "equal").tolist() == [48, 48, 4]
    assert allocate([5, 5, 5], 15, "equal").tolist() == [5, 5, 5]


@pytest.mark.parametrize("method", METHODS)
def test_of_classes_alike_the_first_ones_get_the_points_that_are_left(method):
    assert allocate([10] * 60, 90, method, floor=1).tolist() == [2] * 30 + [1] * 30


@pytest.mark.parametrize("size", [1, 16])
def test_a_size_that_the_classes_cannot_give_is_refused(size):
    with pytest.raises(DataError, match=f"{size} points for a map of 2 classes that can have 15 points"):
        allocate([10, 5], size)
