"""Areas of pixels and distances, against pyproj and by hand."""

import numpy as np
import pyproj
import pytest
from affine import Affine
from rasterio.crs import CRS
from rasterio.transform import from_origin
from rasterio.windows import Window

from datasets.errors import DataError
from datasets.imagery.grid import Grid
from mapping.ground import area_distortion, check_overlap, pixel_hectares, positions
from tests.support.maps import DEGREES, ORIGIN, UTM


def grid(crs, transform, height=10, width=10):
    return Grid(CRS.from_user_input(crs), transform, height, width)


def geodesic_hectares(around: Grid, row: int, col: int) -> float:
    """Area of a pixel by pyproj, its sides cut so finely that they follow the parallels."""
    along = np.linspace(0, 1, 200)
    cols = np.concatenate([along, 0 * along + 1, along[::-1], 0 * along]) + col
    rows = np.concatenate([0 * along, along, 0 * along + 1, along[::-1]]) + row
    x, y = around.centres(rows - 0.5, cols - 0.5)
    ellipsoid = pyproj.CRS.from_wkt(around.crs.to_wkt()).get_geod()
    return abs(ellipsoid.polygon_area_perimeter(x, y)[0]) / 10_000


def test_a_pixel_of_10_m_in_utm_has_a_hundredth_of_a_hectare():
    assert pixel_hectares(grid(UTM, ORIGIN), Window(0, 0, 3, 3)) == pytest.approx(0.01)


def test_a_rotated_pixel_has_the_area_of_its_sides():
    assert pixel_hectares(grid(UTM, ORIGIN @ Affine.rotation(30)), None) == pytest.approx(0.01)


def test_pixels_in_feet_are_brought_to_metres():
    crs = CRS.from_epsg(2264)  # North Carolina, US survey feet
    assert pixel_hectares(grid(crs, from_origin(0, 0, 100, 100)), None) == pytest.approx((1200 / 3937) ** 2)


@pytest.mark.parametrize("crs", [DEGREES, "EPSG:4008"])  # WGS 84 and Clarke 1866
def test_pixels_in_degrees_have_the_area_of_the_ellipsoid_row_by_row(crs):
    wide = grid(crs, from_origin(-100, 60, 0.5, 0.5), height=200)
    areas = pixel_hectares(wide, Window(2, 100, 3, 100))
    assert areas.shape == (100, 1)
    for row in (0, 17, 20, 99):
        assert areas[row, 0] == pytest.approx(geodesic_hectares(wide, 100 + row, 2), rel=1e-5)


def test_the_pixels_of_the_whole_earth_have_its_area():
    earth = grid(DEGREES, from_origin(-180, 90, 10, 10), 18, 36)
    total = 36 * pixel_hectares(earth, Window(0, 0, 36, 18)).sum()
    assert total == pytest.approx(510_065_621.7e6 / 10_000, rel=1e-9)  # WGS 84 ellipsoid, km² in hectares


def test_on_a_sphere_a_pixel_has_the_area_between_its_parallels():
    sphere = grid("+proj=longlat +R=6371000 +type=crs", from_origin(0, 30, 1, 1))
    expected = 6_371_000**2 * np.radians(1) * (np.sin(np.radians(30)) - np.sin(np.radians(29))) / 10_000
    assert pixel_hectares(sphere, Window(0, 0, 1, 1))[0, 0] == pytest.approx(expected)


def test_rotated_pixels_in_degrees_have_an_area_each():
    rotated = grid(DEGREES, from_origin(-100, 40, 0.01, 0.01) @ Affine.rotation(25))
    areas = pixel_hectares(rotated, Window(1, 2, 4, 3))
    assert areas.shape == (3, 4)
    for row, col in ((0, 0), (2, 3)):
        assert areas[row, col] == pytest.approx(geodesic_hectares(rotated, row + 2, col + 1), rel=1e-6)


def test_the_areas_of_web_mercator_are_too_large_and_those_of_an_equal_area_crs_are_not():
    mercator = grid("EPSG:3857", from_origin(-11_000_000, 4_865_942, 10, 10))  # 40° north
    assert area_distortion(mercator) == pytest.approx(1 / np.cos(np.radians(40)) ** 2, rel=0.01)
    assert area_distortion(grid("EPSG:5070", from_origin(0, 1_500_000, 30, 30))) == pytest.approx(1, abs=1e-3)
    assert area_distortion(grid(UTM, ORIGIN)) == pytest.approx(0.9996**2, abs=1e-4)
    assert area_distortion(grid(DEGREES, from_origin(-100, 40, 1, 1))) == 1


def test_positions_are_metres_in_every_crs():
    in_feet = grid("EPSG:2264", from_origin(0, 0, 100, 100))
    between = np.diff(positions(in_feet, np.array([0, 3]), np.array([0, 4])), axis=0)
    assert np.hypot(*between[0]) == pytest.approx(500 * 1200 / 3937)
    in_degrees = grid(DEGREES, from_origin(-100, 40, 0.01, 0.01))
    one, other = positions(in_degrees, np.array([0, 3]), np.array([1, 5]))
    x, y = in_degrees.centres(np.array([0, 3]), np.array([1, 5]))
    _, _, metres = pyproj.Geod(ellps="WGS84").inv(x[0], y[0], x[1], y[1])
    assert np.linalg.norm(one - other) == pytest.approx(metres, rel=5e-3)


@pytest.mark.parametrize(("east", "south"), [(100, 0), (-100, 0), (0, 100), (0, -100)])
def test_grids_that_only_touch_do_not_overlap(east, south):
    beside = ORIGIN @ Affine.translation(east / 10, south / 10)
    with pytest.raises(DataError, match=r"b: no overlap with a; it covers x .* y .* the map x 500000 to 500100"):
        check_overlap("a", grid(UTM, ORIGIN), "b", grid(UTM, beside))
    almost = ORIGIN @ Affine.translation(east / 10.1, south / 10.1)
    check_overlap("a", grid(UTM, ORIGIN), "b", grid(UTM, almost))


def test_grids_in_other_crs_overlap_where_they_do_on_the_ground():
    check_overlap("a", grid(UTM, ORIGIN), "b", grid(DEGREES, from_origin(-99.1, 38.1, 0.1, 0.1), 3, 3))
    with pytest.raises(DataError, match="no overlap"):
        check_overlap("a", grid(UTM, ORIGIN), "b", grid(DEGREES, from_origin(20, 38.1, 0.1, 0.1), 3, 3))
