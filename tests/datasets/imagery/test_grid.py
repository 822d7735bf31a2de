"""Every pixel of the grid gets the pixel of the file in which its centre lies."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.warp import Resampling, reproject, transform
from rasterio.windows import Window

from datasets.imagery import sources
from datasets.imagery.grid import Grid, Sampler, finest
from datasets.images import open_images
from tests.support.image_files import ORIGIN, make_scene, write_tif

UTM14, UTM15, WGS84 = CRS.from_epsg(32614), CRS.from_epsg(32615), CRS.from_epsg(4326)
SIZES = st.integers(1, 12)


@st.composite
def grids(draw) -> Grid:
    """Grids near the origin: of any pixel size, shift, rotation, flip."""
    size = draw(st.sampled_from([5.0, 10.0, 20.0, 13.7]))
    angle = draw(st.sampled_from([0, 0, 90, 180, 17.3]))
    flip = draw(st.sampled_from([1, -1]))
    shift = [draw(st.floats(-40, 40)) for _ in range(2)]
    place = Affine.translation(500_000 + shift[0], 4_200_000 + shift[1]) @ Affine.rotation(angle)
    return Grid(UTM14, place @ Affine.scale(size, flip * size), draw(SIZES), draw(SIZES))


def at_centre(values: np.ndarray, source: Grid, x: float, y: float) -> float:
    """The plain reference: NaN outside."""
    col, row = ~source.transform @ (x, y)
    row, col = math.floor(row + 1e-6), math.floor(col + 1e-6)
    return values[row, col] if 0 <= row < source.height and 0 <= col < source.width else np.nan


def sampled(values: np.ndarray, source: Grid, nearest) -> np.ndarray:
    if not nearest.height:
        return np.full(nearest.inside.shape, np.nan)
    part = values[nearest.top : nearest.top + nearest.height, nearest.left : nearest.left + nearest.width]
    assert part.shape == (nearest.height, nearest.width)  # nothing outside the file is read
    return np.where(nearest.inside, nearest.pick(part[None])[0], np.nan)


@given(grid=grids(), source=grids(), top=st.integers(0, 3), left=st.integers(0, 3), pixels=st.sampled_from([4, 10**9]))
@settings(max_examples=200, deadline=None)
def test_a_pixel_gets_the_value_at_its_centre(grid, source, top, left, pixels):
    values = np.arange(source.height * source.width, dtype=float).reshape(source.height, source.width)
    window = Window(left, top, grid.width, grid.height)
    nearest = Sampler(grid, window).nearest(source)
    rows, cols = np.meshgrid(np.arange(grid.height) + top, np.arange(grid.width) + left, indexing="ij")
    x, y = grid.centres(rows, cols)
    expected = [at_centre(values, source, *point) for point in zip(x.ravel(), y.ravel(), strict=True)]
    strips = [sampled(values, source, strip) for _, strip in nearest.strips(pixels)]
    np.testing.assert_array_equal(np.concatenate(strips).ravel(), expected)


def test_a_grid_of_another_crs_gets_what_gdal_gives_it():
    grid = Grid(UTM14, Affine.translation(500_300, 4_217_000) @ Affine.scale(10, -10), 60, 70)
    corner = transform(UTM14, UTM15, [500_650], [4_216_700])
    place = Affine.translation(corner[0][0] - 1300, corner[1][0] + 1300) @ Affine.scale(10, -10)
    source = Grid(UTM15, place, 260, 260)
    values = np.arange(260 * 260, dtype=np.float64).reshape(260, 260)
    theirs = np.full((60, 70), np.nan)
    ends = {"src_transform": place, "src_crs": UTM15, "dst_transform": grid.transform, "dst_crs": UTM14}
    reproject(values, theirs, **ends, resampling=Resampling.nearest, dst_nodata=np.nan, tolerance=0)
    ours = sampled(values, source, Sampler(grid, Window(0, 0, 70, 60)).nearest(source))
    assert np.isfinite(ours).all()
    assert (ours == theirs).mean() > 0.999


def test_finest_covers_all_on_the_finest_lattice():
    fine = Grid(UTM14, ORIGIN, 10, 20)
    coarse = Grid(UTM14, Affine.translation(499_970, 4_200_040) @ Affine.scale(20, -20), 30, 4)
    grid = finest([coarse, fine])
    assert tuple(grid.transform)[:6] == (10, 0, 499_970, 0, -10, 4_200_040)
    assert (grid.height, grid.width) == (60, 23)
    assert grid.same_lattice(fine) and not grid.same_lattice(coarse)


def test_finest_takes_the_lattice_that_most_share():
    shifted = Grid(UTM14, ORIGIN @ Affine.translation(0.5, 0), 4, 4)
    one, two = Grid(UTM14, ORIGIN, 4, 4), Grid(UTM14, ORIGIN @ Affine.translation(8, 0), 4, 4)
    assert finest([shifted, one, two]).transform.c == 500_000
    assert finest([shifted, one, shifted]).transform.c == 499_995  # on its lattice, over both


def test_degrees_and_metres_are_compared():
    degrees = Grid(WGS84, Affine.translation(-99, 37.95) @ Affine.scale(9e-5, -9e-5), 10, 10)  # 10.0 by 7.9 m
    assert degrees.metres() == pytest.approx(9e-5 * 111_320 * math.sqrt(math.cos(math.radians(37.95))), rel=1e-3)
    metres = Grid(UTM14, ORIGIN, 10, 10)
    assert finest([metres, degrees]).crs == WGS84
    feet = Grid(CRS.from_epsg(2277), Affine.scale(10, -10), 5, 5)
    assert feet.metres() == pytest.approx(3.048, rel=1e-4)


def test_windows_cover_the_grid_once_row_by_row():
    seen = np.zeros((7, 10), int)
    windows = list(Grid(UTM14, ORIGIN, 7, 10).windows((3, 4)))
    for window in windows:
        seen[window.row_off : window.row_off + window.height, window.col_off : window.col_off + window.width] += 1
    assert (seen == 1).all()
    assert [(w.row_off, w.col_off) for w in windows[:4]] == [(0, 0), (0, 4), (0, 8), (3, 0)]


def test_centres_are_those_of_rasterio_and_grids_can_be_pickled():
    grid = Grid(UTM14, Affine.translation(3, 5) @ Affine.rotation(30) @ Affine.scale(10, -10), 7, 10)
    x, y = grid.centres([0, 3], [2, 9])
    np.testing.assert_allclose((x, y), rasterio.transform.xy(grid.transform, [0, 3], [2, 9]))
    assert pickle.loads(pickle.dumps(grid)) == grid


def test_a_coarse_grid_is_read_in_strips_with_the_same_result(tmp_path, monkeypatch):
    scene = make_scene(5, days=2, height=40, width=40, gaps=0.1)
    for day, values in zip(scene.dates, scene.values, strict=True):
        write_tif(tmp_path / "images" / f"{day}.tif", values, scene.transform)
    coarse = write_tif(tmp_path / "grid.tif", np.zeros((1, 8, 8), np.uint8), scene.transform @ Affine.scale(5))
    images = open_images(tmp_path / "images", offset="0", grid=coarse)
    whole = images.read(Window(0, 0, 8, 8))
    monkeypatch.setattr(sources, "LARGEST", 10 * 40 * 6)
    for mine, theirs in zip(images.read(Window(0, 0, 8, 8)), whole, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    expected = scene._replace(values=scene.values[:, :, 2::5, 2::5]).pixels()  # the centre of 5 x 5 pixels
    np.testing.assert_array_equal(whole.bands, expected.bands)
    np.testing.assert_array_equal(whole.lengths, expected.lengths)
