"""Counting codes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mapping import codes as codes_module
from mapping.codes import counted, open_map
from mapping.reference import Tally
from tests.support.maps import NONE, write_map

SOME = st.one_of(st.integers(-5, 5), st.integers(-(2**33), 2**33))


@given(arrays(np.int64, st.integers(0, 50), elements=SOME))
def test_whole_numbers_are_counted_as_numpy_counts_them(values):
    for found, expected in zip(counted(values), np.unique(values, return_counts=True), strict=True):
        np.testing.assert_array_equal(found, expected)


@given(st.lists(st.tuples(st.integers(0, 65535), st.one_of(st.integers(-4, 9), st.integers(0, 2**32))), max_size=30))
def test_pairs_are_counted_whatever_their_codes(pairs):
    tally = Tally("")
    for part in (pairs[:7], pairs[7:]):
        mapped, true = np.array(part, dtype=np.int64).reshape(-1, 2).T
        tally.add(mapped, true, None)
    assert dict(tally.pairs) == {pair: pairs.count(pair) for pair in pairs}


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_pixels_of_every_type_are_counted_window_by_window(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(codes_module, "WINDOW", 7)
    values = np.random.default_rng(0).choice([3, 300, 40_000, NONE], (20, 30)).astype(kind)
    with open_map(write_map(tmp_path / "map.tif", values, legend=None)) as source:
        counts = source.count()
    assert counts.codes.tolist() == [3, 300, 40_000]
    assert counts.pixels.tolist() == [(values == code).sum() for code in (3, 300, 40_000)]
    np.testing.assert_allclose(counts.hectares, counts.pixels * 0.01)
    assert counts.without == (values == NONE).sum() and counts.pixels.dtype == np.int64
