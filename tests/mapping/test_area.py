"""Which pixels a map is confined to."""

from __future__ import annotations

import geopandas
import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS
from rasterio.transform import from_origin
from rasterio.warp import transform_bounds
from rasterio.windows import Window
from shapely.geometry import Point, Polygon, box

from datasets.errors import DataError
from datasets.imagery.grid import Grid
from mapping.area import Within, crop
from tests.support.image_files import ORIGIN, UTM, write_tif

GRID = Grid(CRS.from_user_input(UTM), ORIGIN, 20, 30)
WHOLE = Window(0, 0, 30, 20)


# ---- boxes


@pytest.mark.parametrize(
    "bbox, place",
    [
        ((500_000, 4_199_800, 500_300, 4_200_000), (0, 0, 20, 30)),
        ((500_050, 4_199_900, 500_100, 4_199_980), (2, 5, 10, 10)),
        ((500_051, 4_199_901, 500_099, 4_199_979), (2, 5, 10, 10)),
        ((500_049, 4_199_899, 500_101, 4_199_981), (1, 4, 11, 11)),
        ((0, 4_199_995, 500_005, 9_000_000), (0, 0, 1, 1)),
        ((500_295, 0, 900_000, 4_199_805), (19, 29, 20, 30)),
    ],
)
def test_a_box_takes_the_pixels_that_it_touches(bbox, place):
    top, left, bottom, right = place
    found = crop(GRID, bbox, UTM)
    assert (found.row, found.col, found.grid.height, found.grid.width) == (top, left, bottom - top, right - left)
    assert found.grid.transform == ORIGIN @ Affine.translation(left, top) and found.grid.crs == GRID.crs


def test_a_box_is_in_degrees_unless_said_otherwise():
    bounds = transform_bounds(UTM, "EPSG:4326", 500_052, 4_199_902, 500_098, 4_199_978)
    found = crop(GRID, bounds)
    assert (found.row, found.col, found.grid.height, found.grid.width) == (2, 5, 8, 5)


def test_without_a_box_all_is_mapped():
    assert crop(GRID, None) == (0, 0, GRID)


@pytest.mark.parametrize(
    "bbox, crs, message",
    [
        ((-99, 37, -98, 36), None, "west below east and south below north"),
        ((-98, 36, -99, 37), None, "west below east and south below north"),
        ((10, 50, 11, 51), None, "lies outside the images, which cover -9"),
        ((0, 0, 1, 1), "EPSG:99999", "--bbox-crs EPSG:99999: unknown"),
        ((500_300, 4_199_800, 500_310, 4_200_000), UTM, "lies outside the images, which cover 500000 4.1998e+06"),
    ],
)
def test_a_box_that_cannot_be_is_refused(bbox, crs, message):
    with pytest.raises(DataError, match="bbox") as error:
        crop(GRID, bbox, crs)
    assert message in str(error.value)


# ---- rasters and polygons


def test_a_raster_is_where_it_is_neither_zero_nor_no_data(tmp_path):
    values = np.random.default_rng(0).integers(0, 3, (1, 20, 30)).astype(np.uint8)
    within = Within(write_tif(tmp_path / "a.tif", values, nodata=2), GRID)
    np.testing.assert_array_equal(within.inside(WHOLE), values[0] == 1)
    np.testing.assert_array_equal(within.inside(Window(4, 7, 9, 5)), values[0, 7:12, 4:13] == 1)


def test_nan_is_outside(tmp_path):
    values = np.ones((1, 20, 30), np.float32)
    values[0, 3, 4] = np.nan
    inside = Within(write_tif(tmp_path / "a.tif", values), GRID).inside(WHOLE)
    assert inside.sum() == 599 and not inside[3, 4]


def test_a_coarse_raster_that_covers_a_part_counts_by_its_nearest_pixel(tmp_path):
    values = np.array([[[1, 0], [0, 1]]], np.uint8)
    place = from_origin(500_100, 4_199_900, 40, 40)
    inside = Within(write_tif(tmp_path / "a.tif", values, place), GRID).inside(WHOLE)
    expected = np.zeros((20, 30), bool)
    expected[10:14, 10:14] = expected[14:18, 14:18] = True
    np.testing.assert_array_equal(inside, expected)
    assert not Within(tmp_path / "a.tif", GRID).inside(Window(0, 0, 5, 5)).any()


def write_polygons(path, shapes, crs=UTM):
    geopandas.GeoDataFrame({"name": ["x"] * len(shapes)}, geometry=shapes, crs=crs).to_file(path)
    return path


@pytest.mark.parametrize("name", ["a.gpkg", "a.geojson"])
def test_polygons_hold_the_pixels_whose_centres_lie_in_one(name, tmp_path):
    triangle = Polygon([(500_000, 4_200_000), (500_200, 4_200_000), (500_000, 4_199_800)])
    square = box(500_204, 4_199_816, 500_266, 4_199_884)
    crs = "EPSG:4326" if name.endswith("geojson") else UTM
    table = geopandas.GeoSeries([triangle, square], crs=UTM).to_crs(crs)
    within = Within(write_polygons(tmp_path / name, list(table), crs), GRID)
    x, y = GRID.centres(*np.mgrid[:20, :30])
    points = [Point(place) for place in zip(x.flat, y.flat, strict=True)]
    expected = np.array([triangle.contains(point) or square.contains(point) for point in points])
    edge = np.array([triangle.boundary.distance(point) for point in points]) < 0.01
    found = within.inside(WHOLE).ravel()
    np.testing.assert_array_equal(found[~edge], expected[~edge])
    assert found.sum() > 200
    np.testing.assert_array_equal(within.inside(Window(3, 5, 20, 11)), found.reshape(20, 30)[5:16, 3:23])


@pytest.mark.parametrize(
    "shapes, crs, message",
    [
        ([box(0, 0, 10, 10)], UTM, "does not overlap with the images"),
        ([Point(500_100, 4_199_900)], UTM, "has geometries of type Point; expected polygons"),
        ([box(500_000, 4_199_800, 500_100, 4_200_000)], None, "has no coordinate reference system"),
    ],
)
def test_polygons_that_cannot_be_used_are_refused(shapes, crs, message, tmp_path):
    path = write_polygons(tmp_path / "a.gpkg", shapes, crs)
    with pytest.raises(DataError, match=message) as error:
        Within(path, GRID)
    assert str(error.value).startswith(f"--within {path}")


def test_a_raster_elsewhere_or_none_is_refused(tmp_path):
    path = write_tif(tmp_path / "a.tif", np.ones((1, 5, 5), np.uint8), from_origin(100_000, 4_200_000, 10, 10))
    with pytest.raises(DataError, match="does not overlap"):
        Within(path, GRID)
    with pytest.raises(DataError, match="no such file"):
        Within(tmp_path / "b.gpkg", GRID)
    (tmp_path / "c.gpkg").write_text("nothing")
    with pytest.raises(DataError, match="cannot be read"):
        Within(tmp_path / "c.gpkg", GRID)
