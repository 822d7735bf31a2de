"""The picture of a map."""

from __future__ import annotations

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread
from rasterio.crs import CRS
from rasterio.transform import from_origin
from rasterio.windows import Window

from datasets.imagery.grid import METRES_PER_DEGREE, Grid
from mapping import quicklook
from mapping.ground import pixel_hectares
from mapping.quicklook import bar_length, class_hectares, draw, pixel_metres
from tests.support.maps import LEGEND, NONE, UTM, write_map

CODES = np.random.default_rng(0).choice([1, 5, 24, NONE], (20, 30), p=[0.5, 0.3, 0.1, 0.1]).astype(np.uint8)


@pytest.mark.parametrize("rows", [1024, 7])
@pytest.mark.parametrize("crs, transform", [(UTM, from_origin(0, 0, 10, 20)), ("EPSG:4326", from_origin(9, 60, 1, 1))])
def test_areas_of_classes_are_those_of_their_pixels(crs, transform, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(quicklook, "ROWS", rows)
    path = write_map(tmp_path / "map.tif", CODES, CODES, crs=crs, transform=transform)
    each = pixel_hectares(Grid(CRS.from_user_input(crs), transform, 20, 30), Window(0, 0, 30, 20))
    found = class_hectares(path, LEGEND)
    assert list(found) == [1, 5, 24, 0] and found[0] == 0
    for code in (1, 5, 24):
        assert found[code] == pytest.approx((each * (CODES == code)).sum())


def test_pixels_have_their_size_on_the_ground():
    size = pixel_metres(Grid(CRS.from_user_input(UTM), Affine(10, 0, 0, 0, -20, 0), 5, 6))
    assert size == (10, 20)
    turned = Affine.rotation(30) @ Affine.scale(10, 20)
    assert pixel_metres(Grid(CRS.from_user_input(UTM), turned, 5, 6)) == pytest.approx((10, 20))
    feet = pixel_metres(Grid(CRS.from_epsg(2263), Affine(10, 0, 0, 0, -20, 0), 5, 6))
    assert feet == pytest.approx((3.048, 6.096), rel=1e-4)
    grid = Grid(CRS.from_epsg(4326), from_origin(9, 61, 0.1, 0.2), 9, 30)  # its middle pixel lies at 60 degrees
    expected = (0.1 * METRES_PER_DEGREE * np.cos(np.radians(61 - 0.2 * 5)), 0.2 * METRES_PER_DEGREE)
    assert pixel_metres(grid) == pytest.approx(expected)


@pytest.mark.parametrize(
    "metres, length", [(4, 1), (7.9, 1), (8, 2), (19.9, 2), (20, 5), (40, 10), (5000, 1000), (2, 0.5)]
)
def test_a_scale_bar_is_at_most_a_quarter_of_the_width(metres, length):
    assert bar_length(metres) == pytest.approx(length)


@given(st.floats(1, 1e7))
def test_a_scale_bar_is_never_much_shorter_than_a_quarter(metres):
    assert metres / 10 <= bar_length(metres) * (1 + 1e-9) and bar_length(metres) <= metres / 4


def drawn(monkeypatch, path, picture):
    """The axes of a picture, as they are when it is saved."""
    figures, save = [], quicklook.save

    def saving(figure, to):
        figures.append(figure)
        save(figure, to)

    monkeypatch.setattr(quicklook, "save", saving)
    draw(path, picture, LEGEND, "a title")
    return figures[0].axes[0]


def test_the_picture_has_the_map_the_areas_and_a_scale_bar(tmp_path, monkeypatch):
    place = from_origin(0, 0, 100, 200)
    axes = drawn(monkeypatch, write_map(tmp_path / "map.tif", CODES, CODES, transform=place), tmp_path / "map.png")
    (image,) = axes.images
    colours = {one.code: one.colour for one in LEGEND} | {NONE: (255, 255, 255)}
    np.testing.assert_array_equal(image.get_array(), [[colours[code] for code in row] for row in CODES.tolist()])
    assert image.get_extent() == [0, 3000, 0, 4000] and axes.get_title() == "a title"
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    counts = {one.name: int((CODES == one.code).sum()) for one in LEGEND}
    total = sum(counts.values())
    expected = sorted(((counts[name], name) for name in ("Corn", "Soybeans", "Winter Wheat")), reverse=True)
    assert texts == [f"{name}  {2 * count:,} ha, {count / total:.1%}" for count, name in expected]
    patches = [patch.get_facecolor()[:3] for patch in axes.get_legend().get_patches()]
    np.testing.assert_allclose(patches[0], np.array(LEGEND[0].colour) / 255)
    assert [text.get_text() for text in axes.texts] == ["500 m"]
    (bar,) = axes.collections
    box = bar.get_paths()[0].get_extents()
    assert box.width == pytest.approx(500) and box.height == pytest.approx(0.008 * 4000)
    assert (box.x0, box.y0) == pytest.approx((90, 120))
    assert axes.texts[0].get_position() == pytest.approx((90 + 250, 120 + 2 * 32))
    assert imread(tmp_path / "map.png").shape[2] in (3, 4)


def test_a_large_map_is_drawn_smaller_and_a_wide_one_has_kilometres(tmp_path, monkeypatch):
    monkeypatch.setattr(quicklook, "MOST", 15)
    path = write_map(tmp_path / "map.tif", CODES, CODES, transform=from_origin(0, 0, 1000, 1000))
    axes = drawn(monkeypatch, path, tmp_path / "map.png")
    assert axes.images[0].get_array().shape == (10, 15, 3)
    assert [text.get_text() for text in axes.texts] == ["5 km"]


def test_a_map_of_nothing_has_no_legend(tmp_path, monkeypatch):
    path = write_map(tmp_path / "map.tif", np.full((3, 4), NONE, np.uint8), np.full((3, 4), NONE, np.uint8))
    assert drawn(monkeypatch, path, tmp_path / "map.png").get_legend() is None


def test_small_areas_keep_two_digits(tmp_path, monkeypatch):
    path = write_map(tmp_path / "map.tif", np.array([[1, 1, 5, NONE]], np.uint8))
    axes = drawn(monkeypatch, path, tmp_path / "map.png")
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts == ["Corn  0.02 ha, 66.7%", "Soybeans  0.01 ha, 33.3%"]
