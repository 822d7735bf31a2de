from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from datasets.errors import DataError
from datasets.imagery.values import digital_numbers, is_reflectance, missing, parse_mask
from datasets.imagery.window import AT_ONCE, Window

TYPES = [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64]


def is_missing(values, nodata) -> bool:
    """The rule for the ten values of one pixel, one by one."""
    if any(not np.isfinite(value) or value == 65535 for value in values) or all(value == 0 for value in values):
        return True
    return any(
        known is not None and value == values.dtype.type(known) for value, known in zip(values, nodata, strict=True)
    )


@pytest.mark.parametrize("dtype", TYPES)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_missing_observations_are_found(dtype, data):
    some = [0, 1, 7, 200] + ([65535] if np.dtype(dtype).itemsize > 1 and dtype != np.int16 else [])
    some += [np.nan, np.inf, -np.inf] if np.dtype(dtype).kind == "f" else []
    values = data.draw(arrays(dtype, (10, 3, 2), elements=st.sampled_from(some), fill=st.nothing()))
    values = np.where(data.draw(arrays(bool, (3, 2))), np.maximum(values, 1), values).astype(dtype)
    one = data.draw(st.sampled_from([None, 0, 7, 200]))
    nodata = data.draw(st.sampled_from([[one] * 10, [one] + [None] * 9, [7, 0] + [None] * 8]))
    expected = [[is_missing(values[:, y, x], nodata) for x in range(2)] for y in range(3)]
    np.testing.assert_array_equal(missing(values, nodata), expected)


def test_a_no_data_value_that_the_type_cannot_hold_is_never_met():
    values = np.full((10, 1, 1), 10, np.uint16)
    assert not missing(values, [-9999.0] * 10).any()
    assert not missing(values, [10.5] * 10).any()
    assert not missing(values.astype(np.int16), [65535.0] * 10).any()
    assert not missing(values, [float("nan")] * 10).any()


def test_a_no_data_value_of_a_float_is_compared_as_that_type():
    values = np.full((10, 1, 1), np.float32(-3.4028234e38))
    assert missing(values, [-3.4028234663852886e38] * 10).all()
    assert missing(np.full((10, 1, 1), np.float32(0.1)), [0.1] * 10).all()


def numbers(values, scale=1.0, offset=0.0, valid=True):
    array = np.array(values)
    array = np.broadcast_to(array, (10, *array.shape))[:, None]
    dn, clipped = digital_numbers(array, scale, offset, np.full(array.shape[1:], valid))
    assert dn.dtype == np.int16
    return dn[0, 0].tolist(), clipped


def test_digital_numbers_are_kept_as_they_are():
    assert numbers(np.array([0, 1, 9000, 32767], np.uint16)) == ([0, 1, 9000, 32767], 0)
    assert numbers(np.array([-5, 9000], np.int16)) == ([-5, 9000], 0)
    assert numbers(np.array([3.0, 8.6], np.float64)) == ([3, 9], 0)


def test_an_offset_brings_valid_pixels_to_1_at_least():
    for dtype in (np.uint16, np.int16, np.int32, np.float32):
        assert numbers(np.array([1, 999, 1000, 1001, 5000], dtype), offset=-1000) == ([1, 1, 1, 1, 4000], 0)


def test_reflectance_becomes_digital_numbers():
    assert numbers(np.array([0, 0.00004, 0.12344, 0.12346, 1.2], np.float32), 10_000) == ([0, 0, 1234, 1235, 12000], 0)
    assert numbers(np.array([0.2, 0.05], np.float32), 10_000, -1000) == ([1000, 1], 0)
    assert numbers(np.array([2000, 3000], np.uint16), 0.5) == ([1000, 1500], 0)


def test_what_int16_cannot_hold_is_clipped_and_counted():
    assert numbers(np.array([32767, 32768, 65534], np.uint16)) == ([32767, 32767, 32767], 20)
    assert numbers(np.array([33767, 33768], np.uint16), offset=-1000) == ([32767, 32767], 10)
    assert numbers(np.array([5.0], np.float32), 10_000) == ([32767], 10)
    assert numbers(np.array([70_000, -70_000], np.int32)) == ([32767, -32768], 10)
    assert numbers(np.array([65535], np.uint16), valid=False) == ([32767], 0)
    assert numbers(np.array([np.nan], np.float32), valid=False)[1] == 0


def test_reflectance_is_known_by_type_and_range():
    assert is_reflectance(np.array([0.0, 0.3, 1.2]))
    assert not is_reflectance(np.array([0.0, 300.0, 1200.0]))
    assert not is_reflectance(np.array([0, 1], np.uint16))
    assert not is_reflectance(np.array([]))
    assert is_reflectance(np.append(np.full(1000, 0.2), 3.0))  # a glint


def test_masks_name_scene_classes():
    assert parse_mask(None) == ()
    assert parse_mask("scl:3,8, 9,10,11") == (3, 8, 9, 10, 11)
    assert parse_mask("SCL:3") == (3,)


@pytest.mark.parametrize("text", ["scl", "scl:", "scl:12", "scl:a", "qa60:1", "3,8"])
def test_other_masks_are_refused(text):
    with pytest.raises(DataError, match=f"--mask {text}: expected scl: and classes from 0 to 11"):
        parse_mask(text)


@given(data=st.data(), days=st.integers(1, 3), pixels=st.sampled_from([1, 7, AT_ONCE, AT_ONCE + 1]))
@settings(max_examples=25, deadline=None)
def test_the_first_valid_image_of_a_day_wins(data, days, pixels):
    random = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    window, expected = Window(days, pixels), {}
    for _ in range(data.draw(st.integers(0, 6))):
        day, values = int(random.integers(days)), random.integers(-99, 9999, (10, pixels)).astype(np.int16)
        good = random.random(pixels) < 0.5
        window.add(day, values, good)
        for pixel in np.flatnonzero(good):
            expected.setdefault((int(pixel), day), values[:, pixel].tolist())
    bands, doy, lengths = window.observations(np.arange(100, 100 + days, dtype=np.int16))
    keys = sorted(expected)
    assert bands.tolist() == [expected[key] for key in keys]
    assert doy.tolist() == [100 + day for _, day in keys]
    assert lengths.tolist() == [sum(key[0] == pixel for key in keys) for pixel in range(pixels)]
    assert (bands.dtype, doy.dtype, lengths.dtype) == (np.int16, np.int16, np.int64)
