"""Which pixels a map is confined to."""

from __future__ import annotations

import pickle

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.transform import from_origin
from rasterio.warp import transform, transform_bounds
from rasterio.windows import Window
from shapely.geometry import MultiPolygon, Point, Polygon, box

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
        ((-98, 36, -98, 37), None, "west below east and south below north"),
        ((-99, 37, -98, 37), None, "west below east and south below north"),
        ((10, 50, 11, 51), None, "lies outside the images, which cover -9"),
        ((0, 0, 1, 1), "EPSG:99999", "--bbox-crs EPSG:99999: unknown"),
        ((500_300, 4_199_800, 500_310, 4_200_000), UTM, "lies outside the images, which cover 500000 4.1998e+06"),
        ((499_990, 4_199_800, 500_000, 4_200_000), UTM, "lies outside the images"),
        ((500_000, 4_200_000, 500_300, 4_200_010), UTM, "lies outside the images"),
        ((500_000, 4_199_790, 500_300, 4_199_800), UTM, "lies outside the images"),
        ((500_000, 4_500_000, 500_300, 4_600_000), UTM, "lies outside the images"),
    ],
)
def test_a_box_that_cannot_be_is_refused(bbox, crs, message):
    with pytest.raises(DataError, match="bbox") as error:
        crop(GRID, bbox, crs)
    assert message in str(error.value)


def test_edges_of_a_box_that_are_bent_in_the_grid_are_followed():
    """The middle of the upper edge lies furthest north, where neither corner is."""
    grid = Grid(CRS.from_epsg(5070), from_origin(-2_000_000, 3_000_000, 100, 100), 25_000, 40_000)
    found = crop(grid, (-106, 30, -86, 40))
    along = np.linspace(0, 1, 2001)
    north = np.array(transform("EPSG:4326", grid.crs, -106 + 20 * along, np.full(2001, 40)))
    south = np.array(transform("EPSG:4326", grid.crs, -106 + 20 * along, np.full(2001, 30)))
    bounds = [south[0].min(), south[1].min(), south[0].max(), north[1].max()]
    (west, top), (east, bottom) = (np.array(place) for place in (~grid.transform @ (bounds[0], bounds[3]),
                                                                 ~grid.transform @ (bounds[2], bounds[1])))  # fmt: skip
    assert (found.row, found.col) == (np.floor(top), np.floor(west))
    assert (found.row + found.grid.height, found.col + found.grid.width) == (np.ceil(bottom), np.ceil(east))


@pytest.mark.parametrize("bbox", [(-10, 0, 10, 90), (-10, -90, 10, 0)])
def test_a_box_that_the_crs_of_the_images_has_no_coordinates_for_is_refused(bbox, monkeypatch):
    grid = Grid(CRS.from_epsg(3857), from_origin(0, 0, 10, 10), 20, 30)
    monkeypatch.setattr("rasterio.warp.transform", lambda source, target, x, y: (x, np.where(abs(y) < 90, y, np.inf)))
    with pytest.raises(DataError, match="has no coordinates in EPSG:3857, the CRS of the images; see --bbox-crs"):
        crop(grid, bbox)


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


def test_a_mask_in_the_raster_is_outside(tmp_path):
    good = np.random.default_rng(0).random((20, 30)) < 0.5
    path = write_tif(tmp_path / "a.tif", np.ones((1, 20, 30), np.uint8))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(good)
    np.testing.assert_array_equal(Within(path, GRID).inside(WHOLE), good)


def test_a_raster_of_another_crs_counts_by_the_pixel_at_each_centre(tmp_path):
    west, north = (values[0] for values in transform(UTM, "EPSG:4326", [500_040], [4_199_950]))
    place, values = from_origin(west, north, 3e-4, 2e-4), np.random.default_rng(1).integers(0, 2, (1, 4, 5), np.uint8)
    path = write_tif(tmp_path / "a.tif", values, place, crs="EPSG:4326")
    x, y = transform(UTM, "EPSG:4326", *(part.ravel() for part in GRID.centres(*np.mgrid[:20, :30])))
    cols, rows = (np.floor(part).astype(int) for part in ~place @ (np.array(x), np.array(y)))
    known = (rows >= 0) & (rows < 4) & (cols >= 0) & (cols < 5)
    expected = np.array([bool(ok and values[0, r, c]) for ok, r, c in zip(known, rows, cols, strict=True)])
    assert 20 < expected.sum() < known.sum() < 600
    np.testing.assert_array_equal(Within(path, GRID).inside(WHOLE), expected.reshape(20, 30))


def test_polygons_may_have_parts_and_rows_may_lack_one(tmp_path):
    parts = MultiPolygon([box(500_000, 4_199_980, 500_020, 4_200_000), box(500_280, 4_199_800, 500_300, 4_199_810)])
    within = Within(write_polygons(tmp_path / "a.gpkg", [None, parts, Polygon()]), GRID)
    expected = np.zeros((20, 30), bool)
    expected[:2, :2] = expected[19, 28:] = True
    np.testing.assert_array_equal(within.inside(WHOLE), expected)
    assert not within.inside(Window(5, 5, 4, 3)).any() and within.inside(Window(5, 5, 4, 3)).shape == (3, 4)


@pytest.mark.parametrize("name", ["a.tif", "a.gpkg"])
def test_it_can_be_sent_to_another_process_when_it_was_used(name, tmp_path):
    if name == "a.tif":
        write_tif(tmp_path / name, np.eye(20, 30, dtype=np.uint8)[None])
    else:
        write_polygons(tmp_path / name, [box(500_000, 4_199_980, 500_020, 4_200_000)])
    within = Within(tmp_path / name, GRID)
    found = within.inside(WHOLE)
    other = pickle.loads(pickle.dumps(within))
    assert found.any() and len(pickle.dumps(within)) < 5000
    np.testing.assert_array_equal(other.inside(WHOLE), found)


@pytest.mark.parametrize("name", ["a.tif", "a.gpkg"])
@pytest.mark.parametrize("place", [(-20, 0), (0, -30), (20, 0), (0, 30)])
def test_what_only_touches_the_images_is_refused_and_a_pixel_of_overlap_is_not(name, place, tmp_path):
    rows, cols = place

    def write(rows, cols):
        at = ORIGIN @ Affine.translation(cols, rows)
        if name == "a.tif":
            return write_tif(tmp_path / name, np.ones((1, 20, 30), np.uint8), at)
        return write_polygons(tmp_path / name, [box(at.c, at.f - 200, at.c + 300, at.f)])

    with pytest.raises(DataError, match="does not overlap with the images"):
        Within(write(rows, cols), GRID)
    nearer = Within(write(rows - np.sign(rows), cols - np.sign(cols)), GRID)
    assert nearer.inside(WHOLE).sum() == (30 if rows else 20)


def test_a_raster_elsewhere_or_none_is_refused(tmp_path):
    path = write_tif(tmp_path / "a.tif", np.ones((1, 5, 5), np.uint8), from_origin(100_000, 4_200_000, 10, 10))
    with pytest.raises(DataError, match="does not overlap"):
        Within(path, GRID)
    with pytest.raises(DataError, match="no such file"):
        Within(tmp_path / "b.gpkg", GRID)
    (tmp_path / "c.gpkg").write_text("nothing")
    with pytest.raises(DataError, match="cannot be read"):
        Within(tmp_path / "c.gpkg", GRID)
