"""Rasters of codes: reading and counting them."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rasterio.windows import Window

from datasets.classmap import CDL20, write_classmap
from datasets.errors import DataError
from datasets.imagery.grid import Grid, Sampler
from mapping import codes as codes_module
from mapping.codes import NO_CODE, counted, open_map, open_raster
from mapping.ground import pixel_hectares
from mapping.reference import Tally
from tests.support.image_files import write_tif
from tests.support.maps import LEGEND, NONE, ORIGIN, UTM, write_map

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


def test_nothing_is_counted_of_nothing():
    for found in counted(np.zeros(0, np.int64)):
        assert found.shape == (0,) and found.dtype == np.int64


@pytest.mark.parametrize("least", [1, 5, 6, 7])
def test_numbers_far_apart_are_counted_as_those_close_together(least, monkeypatch):
    monkeypatch.setattr(codes_module, "SMALL", least)
    values, counts = counted(np.array([9, 3, 3, 9, 9, 8]))
    assert values.tolist() == [3, 8, 9] and counts.tolist() == [2, 1, 3]


# ---- reading

WINDOW = Window(2, 1, 3, 2)


def opened(path, values, confidence=None, **options):
    return open_map(write_map(path, np.asarray(values), confidence, **options))


def test_a_window_holds_codes_where_there_are_some(tmp_path):
    values = np.arange(20, dtype=np.int16).reshape(4, 5) - 3
    with opened(tmp_path / "a.tif", values, nodata=5) as source:
        assert source.codes(WINDOW).tolist() == [[4, NO_CODE, 6], [9, 10, 11]]
        assert source.codes(WINDOW).dtype == np.int64
        assert source.codes(Window(0, 0, 5, 1)).tolist() == [[-3, -2, -1, 0, 1]]
        assert source.values(WINDOW).dtype == np.int16
        assert source.grid == (source.file.crs, ORIGIN, 4, 5)


def test_codes_may_be_floats_as_long_as_they_are_whole(tmp_path):
    values = np.array([[1, 300, np.nan, np.inf, -7, 0]], np.float32)
    whole = Window(0, 0, 6, 1)
    with opened(tmp_path / "a.tif", values, nodata=-7) as source:
        assert source.codes(whole).tolist() == [[1, 300, NO_CODE, NO_CODE, NO_CODE, 0]]
    values[0, 1] = 300.5
    with opened(tmp_path / "a.tif", values) as source, pytest.raises(DataError, match="a.tif: holds 300.5; expected"):
        source.codes(whole)


def test_pixels_that_the_mask_of_a_file_leaves_out_have_no_code(tmp_path):
    values, good = np.arange(20, dtype=np.uint8).reshape(4, 5), np.random.default_rng(0).random((4, 5)) < 0.5
    path = write_map(tmp_path / "a.tif", values, values, nodata=None)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(good)
    with open_map(path) as source:
        np.testing.assert_array_equal(source.codes(WINDOW), np.where(good, values.astype(np.int64), NO_CODE)[1:3, 2:5])


def test_numbers_are_nan_where_there_are_none(tmp_path):
    confidence = np.array([[10, NONE, 30]], np.uint8)
    with opened(tmp_path / "a.tif", np.array([[1, 2, 3]], np.uint8), confidence) as source:
        found = source.numbers(Window(0, 0, 3, 1), 2)
        np.testing.assert_array_equal(found, np.array([[10, np.nan, 30]], np.float32))
        assert found.dtype == np.float32 and source.numbers(Window(1, 0, 2, 1)).tolist() == [[2, 3]]
    with opened(tmp_path / "a.tif", confidence, nodata=None, legend=LEGEND) as source:
        assert source.numbers(Window(0, 0, 3, 1)).tolist() == [[10, NONE, 30]]


@pytest.mark.parametrize("side", [1024, 2])
def test_another_grid_gets_the_pixel_at_each_centre(side, tmp_path, monkeypatch):
    monkeypatch.setattr(codes_module, "WINDOW", side)
    values = np.random.default_rng(0).integers(1, 200, (12, 14), np.uint8)
    grid = Grid(rasterio.CRS.from_user_input(UTM), ORIGIN @ Affine.translation(-3, 4) @ Affine.scale(2), 9, 8)
    window = Window(1, 2, 6, 7)
    expected = np.full((7, 6), NO_CODE)
    for row, col in np.ndindex(7, 6):
        r, c = 4 + 2 * (row + 2) + 1, -3 + 2 * (col + 1) + 1
        if 0 <= r < 12 and 0 <= c < 14:
            expected[row, col] = values[r, c]
    assert 0 < (expected == NO_CODE).sum() < 42
    with opened(tmp_path / "a.tif", values) as source:
        found = source.at(Sampler(grid, window), source.codes, NO_CODE)
        np.testing.assert_array_equal(found, expected)
        far = grid._replace(transform=ORIGIN @ Affine.translation(100, 0))
        assert (source.at(Sampler(far, window), source.codes, -9) == np.full((7, 6), -9)).all()


def test_strips_are_read_so_that_little_is_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(codes_module, "WINDOW", 4)
    grid = Grid(rasterio.CRS.from_user_input(UTM), ORIGIN @ Affine.scale(4), 10, 10)
    with opened(tmp_path / "a.tif", np.ones((40, 40), np.uint8)) as source:
        sizes = []

        def read(window):
            sizes.append(window.height * window.width)
            return source.codes(window)

        source.at(Sampler(grid, Window(0, 0, 10, 10)), read, NO_CODE)
    assert len(sizes) > 5 and max(sizes) <= 4 * 40


# ---- maps


@pytest.mark.parametrize(
    "nodata, legend, expected", [(None, LEGEND[:3], 0), (None, LEGEND, None), (7, LEGEND[:3], 7), (7, LEGEND, 7)]
)
def test_without_a_no_data_value_0_is_none_unless_a_class_has_it(nodata, legend, expected, tmp_path):
    with opened(tmp_path / "a.tif", np.zeros((2, 2), np.uint8), nodata=nodata, legend=legend) as source:
        assert source.nodata == expected


@pytest.mark.parametrize(
    "descriptions, band",
    [
        ([None], None),
        ([None, None], 2),
        ([None, None, None], None),
        (["Confidence of it", None], 1),
        (["class", None, "CONFIDENCE"], 3),
        (["class", "x", "confidence", "confidence"], 3),
    ],
)
def test_confidence_is_in_the_band_of_that_name_or_the_second_of_two(descriptions, band, tmp_path):
    values = np.arange(4 * 6, dtype=np.uint8).reshape(4, 2, 3)[: len(descriptions)]
    path = write_tif(tmp_path / "a.tif", values)
    with rasterio.open(path, "r+") as file:
        for number, text in enumerate(descriptions, 1):
            if text:
                file.set_band_description(number, text)
    with open_map(path) as source:
        assert source.confidence == band
        some = source.confidence_at(Window(1, 0, 2, 2), np.array([[True, False], [True, True]]))
        if band is None:
            assert some is None
        else:
            assert some.tolist() == values[band - 1][:, 1:].ravel()[[0, 2, 3]].tolist()


def test_areas_of_classes_in_degrees_are_added_up_row_by_row(tmp_path, monkeypatch):
    monkeypatch.setattr(codes_module, "WINDOW", 4)
    values = np.random.default_rng(0).choice([3, 9, NONE], (10, 7)).astype(np.uint8)
    place = Affine(0.01, 0, 10, 0, -0.01, 60)
    with opened(tmp_path / "a.tif", values, crs="EPSG:4326", transform=place, legend=None) as source:
        found, each = source.count(), pixel_hectares(source.grid, Window(0, 0, 7, 10))
    for code, pixels, hectares in zip(found.codes, found.pixels, found.hectares, strict=True):
        assert pixels == (values == code).sum()
        assert hectares == pytest.approx((each * (values == code)).sum())
    assert found.codes.tolist() == [3, 9] and found.without == (values == NONE).sum()


def test_a_class_map_names_the_classes_of_a_map(tmp_path):
    write_classmap(tmp_path / "classes.csv", CDL20)
    path = write_map(tmp_path / "a.tif", np.ones((2, 2), np.uint8))
    with open_map(path, tmp_path / "classes.csv") as source:
        assert len(source.legend) == 21 and source.path == path
    with open_map(path) as source:
        assert source.legend == list(LEGEND)


def test_a_map_without_a_pixel_of_a_class_is_refused(tmp_path):
    with opened(tmp_path / "a.tif", np.full((2, 2), NONE, np.uint8)) as source:
        with pytest.raises(DataError, match="a.tif: has no pixel with a class; expected a map of class codes"):
            source.count()


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_what_is_no_raster_with_a_crs_is_refused(tmp_path):
    (tmp_path / "text.tif").write_text("text")
    write_map(tmp_path / "plain.tif", np.ones((2, 2), np.uint8), crs=None)
    path = write_map(tmp_path / "cut.tif", np.random.default_rng(0).integers(0, 9, (200, 200), np.uint8))
    path.write_bytes(path.read_bytes()[:20_000])
    for name, message in {
        "none.tif": "none.tif: no such file",
        "text.tif": "text.tif: cannot be read as a raster",
        "plain.tif": "plain.tif: has no CRS; write one into it",
    }.items():
        with pytest.raises(DataError, match=message), open_raster(tmp_path / name):
            pass
    with pytest.raises(DataError, match="is corrupt or truncated|cannot be read"), open_raster(path) as source:
        source.values(Window(0, 0, 200, 200))
