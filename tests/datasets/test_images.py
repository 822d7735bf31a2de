"""What is opened, how images are merged and dated, what a user is told, and what cannot be used."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from datetime import date
from functools import partial

import numpy as np
import pytest
import rasterio
import rasterio.warp
from affine import Affine
from rasterio.windows import Window

from datasets.bands import BANDS
from datasets.errors import DataError
from datasets.imagery.raster import BadFile
from datasets.images import add_arguments, open_from, open_images
from datasets.season import Season
from tests.conftest import SHARED, needs_shared
from tests.support.image_files import (
    CODES,
    LONG_CODES,
    ORIGIN,
    Scene,
    cube,
    make_scene,
    same,
    write_dated,
    write_item,
    write_netcdf,
    write_safe,
    write_stac,
    write_tif,
)
from utils.errors import Parser
from utils.runtime import limited

YEAR = Season.of(2019)


def plane(value, dtype=np.uint16, size=(10, 2, 2)) -> np.ndarray:
    return np.full(size, value, dtype)


def whole(images):
    return images.read(Window(0, 0, images.grid.width, images.grid.height))


def told(images, text) -> str:
    """The only note with a text."""
    found = [note for note in images.notes if text in note]
    assert len(found) == 1, images.notes
    return found[0]


# ---------------------------------------------------------------------------------------------- bands


def test_ten_bands_without_names_are_ours_in_our_order(tmp_path):
    scene = make_scene(1)
    write_dated(tmp_path, scene, names=None)
    same(whole(open_images(tmp_path)), scene.pixels())


def test_bands_are_found_by_name_in_any_order(tmp_path):
    scene = make_scene(2)
    order = np.random.default_rng(0).permutation(10)
    extra = np.ones((len(scene.dates), 1, *scene.values.shape[2:]), np.uint16)
    shuffled = scene._replace(values=np.concatenate([extra, scene.values[:, order]], axis=1))
    write_dated(tmp_path, shuffled, names=["B1", *(BANDS[i] for i in order)])
    same(whole(open_images(tmp_path)), scene.pixels())


def test_bands_are_those_that_the_user_names(tmp_path):
    scene = make_scene(2)
    reversed_bands = scene._replace(values=scene.values[:, ::-1])
    write_dated(tmp_path / "a", reversed_bands, names=CODES)
    images = open_images(tmp_path / "a", bands=",".join(CODES[::-1]))
    same(whole(images), scene.pixels())
    extra = np.concatenate([scene.values, scene.values[:, :2]], axis=1)
    write_dated(tmp_path / "b", scene._replace(values=extra), names=None)
    same(whole(open_images(tmp_path / "b", bands=[*CODES, "-", "x"])), scene.pixels())


def test_a_stack_without_names_is_cut_by_the_names_of_the_user(tmp_path):
    scene = make_scene(2, days=3)
    write_tif(tmp_path / "stack.tif", scene.values.reshape(30, *scene.values.shape[2:]))
    images = open_images(tmp_path / "stack.tif", bands=",".join(CODES), dates=",".join(map(str, scene.dates)))
    same(whole(images), scene.pixels())


@pytest.mark.parametrize(("missing", "other"), [(7, 6), (6, 7)])
def test_b8_and_b8a_stand_in_for_each_other_and_it_is_said_and_recorded(tmp_path, missing, other):
    scene = make_scene(4)
    kept = [band for band in range(10) if band != missing]
    nine = scene._replace(values=scene.values[:, kept])
    write_dated(tmp_path, nine, names=[CODES[band] for band in kept])
    images = open_images(tmp_path)
    replaced = scene.values.copy()
    replaced[:, missing] = replaced[:, other]
    same(whole(images), scene._replace(values=replaced).pixels())
    note = f"band {LONG_CODES[missing]} ({BANDS[missing]}) is missing in 4 of 4 images: {LONG_CODES[other]}"
    assert told(images, "is missing").startswith(note)
    assert images.provenance["stand_in"] == [BANDS[missing]]


def test_a_file_of_nine_bands_is_named_with_what_it_lacks(tmp_path):
    nine = make_scene(4)
    write_dated(tmp_path, nine._replace(values=nine.values[:, :9]), names=CODES[:9])
    with pytest.raises(DataError, match=rf"S2_{nine.dates[0]}.tif: band B12 \(swir2\) is missing .* --bands"):
        open_images(tmp_path)
    write_dated(tmp_path, nine._replace(values=nine.values[:, :9]), names=None)
    with pytest.raises(DataError, match="band B02 .* is missing .it has none of ours"):
        open_images(tmp_path)


def test_a_missing_file_of_a_band_is_named(tmp_path):
    scene = make_scene(4)
    write_stac(tmp_path, scene)
    (tmp_path / str(scene.dates[2]) / "swir16.tif").unlink()
    with pytest.raises(DataError, match=rf"{scene.dates[2]}: band B11 \(swir1\) is missing"):
        open_images(tmp_path)


def test_files_of_no_band_are_left_out_and_named(tmp_path):
    scene = make_scene(1)
    write_dated(tmp_path, scene)
    write_tif(tmp_path / "cdl.tif", plane(1, np.uint8, (1, 3, 3)), ORIGIN @ Affine.scale(3))
    (tmp_path / ".hidden.tif").write_bytes(b"")
    images = open_images(tmp_path)
    same(whole(images), scene.pixels())
    assert told(images, "left out") == "left out, as they hold none of the bands: 1 files (cdl.tif)"


# ---------------------------------------------------------------------------------------------- grids


def test_images_of_other_grids_are_warped_to_the_finest_and_it_is_said(tmp_path):
    write_tif(tmp_path / "2019-01-01.tif", plane(100, size=(10, 4, 4)))
    write_tif(
        tmp_path / "2019-02-01.tif", np.arange(1, 41, dtype=np.uint16).reshape(10, 2, 2), ORIGIN @ Affine.scale(2)
    )
    images = open_images(tmp_path)
    assert images.grid.transform == ORIGIN and (images.grid.height, images.grid.width) == (4, 4)
    found = whole(images)
    assert found.lengths.tolist() == [2] * 16
    assert found.bands[1::2, 0].reshape(4, 4).tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
    assert told(images, "grid:") == "grid: EPSG:32614, 10 m, 4 x 4 pixels, the finest of the images"
    assert told(images, "nearest").startswith("1 of 2 images have bands on another grid")


def test_images_of_another_crs_are_warped(tmp_path):
    write_tif(tmp_path / "2019-01-01.tif", plane(100, size=(10, 20, 20)))
    ((x,), (y,)) = rasterio.warp.transform("EPSG:32614", "EPSG:32615", [500_100], [4_199_900])
    place = Affine.translation(x - 400, y + 400) @ Affine.scale(20, -20)
    write_tif(tmp_path / "2019-02-01.tif", plane(7, size=(10, 40, 40)), place, "EPSG:32615")
    images = open_images(tmp_path)
    assert images.grid.crs.to_epsg() == 32614 and images.grid.height > 60
    found = whole(images)
    pair = np.flatnonzero(found.lengths == 2)
    assert len(pair) == 400  # all of the first image lie in the second one
    ends = np.cumsum(found.lengths)[pair]
    assert (found.bands[ends - 2] == 100).all() and (found.bands[ends - 1] == 7).all()


def test_the_grid_can_be_that_of_a_file(tmp_path):
    scene = make_scene(6)
    write_dated(tmp_path / "images", scene)
    grid = write_tif(tmp_path / "labels.tif", plane(1, np.uint8, (1, 3, 4)), ORIGIN @ Affine.translation(2, 1))
    images = open_images(tmp_path / "images", grid=grid)
    same(whole(images), scene._replace(values=scene.values[:, :, 1:4, 2:6]).pixels())
    assert told(images, "grid:").endswith(f"that of {grid}")


def test_flipped_and_rotated_images_are_read_right_way_up(tmp_path):
    scene = make_scene(6, days=1, height=4, width=4, gaps=0)
    write_dated(tmp_path / "a", scene)
    flip = ORIGIN @ Affine.translation(0, 4) @ Affine.scale(1, -1)
    write_tif(tmp_path / "b" / f"{scene.dates[0]}.tif", scene.values[0, :, ::-1], flip)
    turn = ORIGIN @ Affine.translation(0, 4) @ Affine.rotation(-90)
    write_tif(tmp_path / "c" / f"{scene.dates[0]}.tif", np.rot90(scene.values[0], -1, axes=(1, 2)), turn)
    expected = whole(open_images(tmp_path / "a"))
    for folder in ("b", "c"):
        found = whole(open_images(tmp_path / folder, grid=tmp_path / "a" / f"S2_{scene.dates[0]}.tif"))
        same(found, expected)


# ---------------------------------------------------------------------------------------------- merging


def test_of_two_images_of_a_day_the_first_valid_value_counts_the_newest_baseline_first(tmp_path):
    old, new, newest = plane(100), plane(200), plane(300)
    new[:, 0, 0] = 0
    newest[:, :, 0] = 0
    write_tif(tmp_path / "2019-05-03_a.tif", old, tags={"PROCESSING_BASELINE": "02.09"})
    write_tif(tmp_path / "2019-05-03_b.tif", new, tags={"PROCESSING_BASELINE": "02.14"})
    write_tif(tmp_path / "2019-05-03_c.tif", newest, tags={"PROCESSING_BASELINE": "03.01"})
    images = open_images(tmp_path)
    assert images.dates == [date(2019, 5, 3)]
    found = whole(images)
    assert found.lengths.tolist() == [1, 1, 1, 1]
    assert found.bands[:, 0].tolist() == [100, 300, 200, 300]


def test_baselines_in_the_names_of_products_order_images_of_a_day(tmp_path):
    write_tif(tmp_path / "S2A_MSIL2A_20190503T173911_N0209_R098_T14SPH.tif", plane(1))
    write_tif(tmp_path / "S2A_MSIL2A_20190503T173912_N0500_R098_T14SPH.tif", plane(2))
    assert whole(open_images(tmp_path)).bands[0, 0] == 2


def test_without_baselines_names_order_images_of_a_day(tmp_path):
    write_tif(tmp_path / "20190503_b.tif", plane(2))
    write_tif(tmp_path / "20190503_a.tif", plane(1))
    assert whole(open_images(tmp_path)).bands[:, 0].tolist() == [1, 1, 1, 1]


def test_images_of_one_solar_day_are_merged_although_their_utc_days_differ(tmp_path):
    place = Affine.translation(500_000, 5_500_000) @ Affine.scale(10, -10)  # at 177 degrees east
    write_tif(tmp_path / "20190502T225911.tif", plane(1), place, "EPSG:32760")
    write_tif(tmp_path / "20190503T000411.tif", plane(2), place, "EPSG:32760")
    assert open_images(tmp_path).dates == [date(2019, 5, 3)]


# ---------------------------------------------------------------------------------------------- values


def test_the_offset_is_decided_from_metadata_and_said_with_the_reason(tmp_path):
    scene = make_scene(7, days=2, gaps=0.2)
    write_dated(tmp_path, scene, tags={"PROCESSING_BASELINE": "05.00"})
    images = open_images(tmp_path)
    same(whole(images), scene.pixels(offset=-1000))
    assert told(images, "offset -1000 for") == "offset -1000 for 2 of 2 images: processing baseline 05.00 in the tags"
    assert set(images.provenance["offsets"].values()) == {-1000}


def test_the_user_overrules_the_offset(tmp_path):
    scene = make_scene(7, days=2, gaps=0.2)
    write_dated(tmp_path, scene, tags={"PROCESSING_BASELINE": "05.00"})
    images = open_images(tmp_path, offset="0")
    same(whole(images), scene.pixels())
    assert told(images, "offset 0 for") == "offset 0 for 2 of 2 images: --offset"
    same(whole(open_images(tmp_path, offset=-1000)), scene.pixels(offset=-1000))
    with pytest.raises(DataError, match="--offset 7: expected one of auto, 0, -1000"):
        open_images(tmp_path, offset="7")


def test_the_offset_is_decided_for_every_image(tmp_path):
    write_tif(tmp_path / "2019-05-03.tif", plane(3000), tags={"PROCESSING_BASELINE": "02.09"})
    write_tif(tmp_path / "2019-06-03.tif", plane(3000), tags={"PROCESSING_BASELINE": "05.00"})
    images = open_images(tmp_path)
    assert whole(images).bands[:2, 0].tolist() == [3000, 2000]
    assert told(images, "offset -1000 for").startswith("offset -1000 for 1 of 2")
    assert told(images, "offset 0 for").startswith("offset 0 for 1 of 2")


def test_bands_of_an_image_that_differ_in_their_offset_are_an_error(tmp_path):
    scene = make_scene(7, days=1)
    write_stac(tmp_path, scene)
    bands = {"red": {"href": "red.tif", "raster:bands": [{"scale": 0.0001, "offset": -0.1}]}}
    write_item(tmp_path / str(scene.dates[0]), {}, bands)
    with pytest.raises(DataError, match="its bands have different scales and offsets"):
        open_images(tmp_path)


def test_dark_pixels_warn_of_an_offset_that_is_still_in(tmp_path):
    random = np.random.default_rng(0)
    values = random.integers(1100, 4000, (3, 10, 20, 20)).astype(np.uint16)
    scene = Scene(values, (date(2019, 1, 1), date(2019, 2, 1), date(2019, 3, 1)))
    write_dated(tmp_path, scene)
    assert told(open_images(tmp_path), "warning").startswith(
        "warning: the darkest pixels of 3 images are above 1000 in every"
    )
    assert not [note for note in open_images(tmp_path, offset="-1000").notes if "warning" in note]
    values[:, 3] -= 1000  # one band is dark
    write_dated(tmp_path, scene)
    assert not [note for note in open_images(tmp_path).notes if "warning" in note]
    assert told(open_images(tmp_path, offset="-1000"), "warning").endswith("check the source, or give --offset 0")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_reflectance_is_brought_to_digital_numbers_and_it_is_said(tmp_path, dtype):
    scene = make_scene(8, gaps=0.4)
    floats = scene.values.astype(dtype) / 10_000
    floats[:, :, ::2][scene.values[:, :, ::2] == 0] = np.nan
    write_dated(tmp_path, scene._replace(values=floats))
    images = open_images(tmp_path)
    same(whole(images), scene.pixels())
    assert "are reflectance: brought to digital numbers" in told(images, "reflectance")


def test_floats_that_are_digital_numbers_stay_such(tmp_path):
    scene = make_scene(8)
    write_dated(tmp_path, scene._replace(values=scene.values.astype(np.float64)))
    images = open_images(tmp_path)
    same(whole(images), scene.pixels())
    assert not [note for note in images.notes if "reflectance" in note]


@pytest.mark.parametrize(("fill", "nodata"), [(0, None), (65535, None), (65535, 65535), (7, 7)])
def test_what_is_missing_is_no_observation(tmp_path, fill, nodata):
    scene = make_scene(9)
    values = np.where(scene.values == 0, fill, np.maximum(scene.values, 8)).astype(np.uint16)
    write_dated(tmp_path, scene._replace(values=values), nodata=nodata)
    expected = scene._replace(values=np.where(scene.values == 0, 0, np.maximum(scene.values, 8)).astype(np.uint16))
    found = whole(open_images(tmp_path))
    same(found, expected.pixels())
    assert found.counts == expected.pixels().counts


def test_an_internal_mask_says_what_is_missing(tmp_path):
    path = write_tif(tmp_path / "2019-05-03.tif", plane(500))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(np.array([[True, False], [True, True]]))
    found = whole(open_images(tmp_path))
    assert list(zip(found.row.tolist(), found.col.tolist(), strict=True)) == [(0, 0), (1, 0), (1, 1)]


def test_values_that_are_too_large_are_clipped_and_counted(tmp_path):
    values = plane(500)
    values[2, 0, 0], values[3, 1, 1] = 32768, 40000
    write_tif(tmp_path / "2019-05-03.tif", values)
    found = whole(open_images(tmp_path))
    assert found.counts == {"missing": 0, "masked": 0, "clipped": 2}
    assert found.bands[0, 2] == found.bands[3, 3] == 32767


def test_a_mask_drops_observations_by_the_scene_classification(tmp_path):
    scene = make_scene(10, days=2, gaps=0)
    classes = np.random.default_rng(1).choice([4, 5, 8, 9], (2, 1, 6, 8)).astype(np.uint16)
    with_scl = scene._replace(values=np.concatenate([scene.values, classes], axis=1))
    write_dated(tmp_path, with_scl, names=[*CODES, "SCL"])
    expected = scene._replace(values=np.where(classes >= 8, 0, scene.values).astype(np.uint16)).pixels()
    found = whole(open_images(tmp_path, mask="scl:8,9"))
    same(found, expected)
    assert found.counts == {"missing": 0, "masked": int((classes >= 8).sum()), "clipped": 0}
    same(whole(open_images(tmp_path)), scene.pixels())


def test_a_scene_classification_of_20_m_is_taken_by_nearest_neighbour(tmp_path):
    scene = make_scene(10, days=1, gaps=0)
    write_safe(tmp_path, scene)
    classes = np.array([[8, 4, 4, 4], [4, 4, 4, 9], [4, 4, 4, 4]], np.uint8)
    folder = next(tmp_path.rglob("R20m"))
    day = f"{scene.dates[0]:%Y%m%d}"
    write_tif(
        folder / f"T14SPH_{day}T173911_SCL_20m.jp2", classes[None], ORIGIN @ Affine.scale(2), driver="JP2OpenJPEG"
    )
    dropped = np.kron(classes, np.ones((2, 2))) >= 8
    expected = scene._replace(values=np.where(dropped, 0, scene.values).astype(np.uint16))
    same(whole(open_images(tmp_path, mask="scl:8,9")), expected.pixels())


def test_a_mask_needs_a_scene_classification_of_every_image(tmp_path):
    scene = make_scene(10, days=2)
    write_dated(tmp_path, scene)
    with pytest.raises(DataError, match=f"S2_{scene.dates[0]}: no SCL band or file, which --mask needs"):
        open_images(tmp_path, mask="scl:8")


def test_only_some_pixels_can_be_read(tmp_path):
    scene = make_scene(11)
    write_dated(tmp_path, scene)
    images = open_images(tmp_path)
    wanted = np.random.default_rng(0).random((6, 8)) < 0.4
    expected = scene._replace(values=np.where(wanted, scene.values, 0).astype(np.uint16)).pixels()
    same(images.read(Window(0, 0, 8, 6), wanted), expected)
    assert images.read(Window(0, 0, 8, 6), np.zeros((6, 8), bool)).lengths.size == 0


def test_windows_read_one_after_another_hold_what_each_holds_alone(tmp_path):
    scene = make_scene(12, days=11, height=16, width=16)
    write_dated(tmp_path, scene)
    images = open_images(tmp_path)
    some = np.random.default_rng(1).random((6, 8)) < 0.4
    wanted = [(Window(0, 0, 8, 6), some), (Window(8, 6, 8, 6), None), (Window(8, 6, 8, 6), some)]
    for found, (window, pixels) in zip(images.read_each(iter(wanted)), wanted, strict=True):
        same(found, images.read(window, pixels))
        expected = scene._replace(values=np.where(inside(window, pixels, 16), scene.values, 0).astype(np.uint16))
        same(found, expected.pixels())


def inside(window, pixels, side):
    """Which pixels of a square scene are wanted in a window."""
    where = np.zeros((side, side), bool)
    block = where[window.row_off : window.row_off + window.height, window.col_off : window.col_off + window.width]
    block[:] = True if pixels is None else pixels
    return where


# ---------------------------------------------------------------------------------------------- dates


def with_days(scene: Scene, first: int) -> Scene:
    """With a last band that holds the day of year, counted from `first`."""
    days = np.array([day.timetuple().tm_yday - 1 + first for day in scene.dates], np.uint16)
    plane = np.broadcast_to(days[:, None, None, None], (len(days), 1, *scene.values.shape[2:]))
    return scene._replace(values=np.concatenate([scene.values, plane], axis=1))


def write_unnamed(folder, scene: Scene) -> None:
    for number, values in enumerate(scene.values):
        write_tif(folder / f"export_{'abcdef'[number]}.tif", values, names=[*CODES, "doy"])


def test_dates_come_from_a_doy_band_that_counts_from_0(tmp_path):
    scene = make_scene(12)._replace(dates=(date(2019, 1, 1), date(2019, 1, 6), date(2019, 5, 3), date(2019, 12, 31)))
    write_unnamed(tmp_path, with_days(scene, 0))
    images = open_images(tmp_path, season=YEAR)
    assert images.dates == list(scene.dates)
    same(whole(images), scene.pixels())
    assert told(images, "doy band") == "dates are those of the doy band, which counts days from 0 (a 0 occurs)"


def test_a_doy_band_is_taken_to_count_from_0_unless_a_366_occurs_and_it_is_said(tmp_path):
    scene = make_scene(12)._replace(dates=(date(2020, 1, 2), date(2020, 1, 6), date(2020, 5, 3), date(2020, 12, 31)))
    write_unnamed(tmp_path / "a", with_days(scene, 0))
    images = open_images(tmp_path / "a", season=Season.of(2020))
    assert images.dates == list(scene.dates)
    assert told(images, "doy band").endswith("counts days from 0 (assumed, as in published exports)")
    write_unnamed(tmp_path / "b", with_days(scene, 1))
    images = open_images(tmp_path / "b", season=Season.of(2020))
    assert images.dates == list(scene.dates)
    assert told(images, "doy band").endswith("counts days from 1 (a 366 occurs)")


def test_a_doy_band_of_several_days_or_without_a_year_is_an_error(tmp_path):
    scene = with_days(make_scene(12, gaps=0), 0)
    write_unnamed(tmp_path, scene)
    with pytest.raises(DataError, match="export_a: day of year .*, but no year; give --year"):
        open_images(tmp_path)
    scene.values[0, 10, :3] += 1
    write_unnamed(tmp_path, scene)
    with pytest.raises(DataError, match="export_a.tif: its doy band holds .*, .*; expected one day of year"):
        open_images(tmp_path, season=YEAR)


def test_images_without_a_valid_pixel_have_no_day_in_their_doy_band(tmp_path):
    scene = make_scene(12, gaps=0)
    scene.values[1] = 0
    write_unnamed(tmp_path, with_days(scene, 0))
    images = open_images(tmp_path, season=YEAR)
    assert images.dates == [day for i, day in enumerate(scene.dates) if i != 1]
    assert told(images, "no valid pixel").endswith("1 images")


def test_a_bare_day_of_year_needs_the_year(tmp_path):
    write_tif(tmp_path / "045.tif", plane(1))
    assert open_images(tmp_path, season=YEAR).dates == [date(2019, 2, 14)]
    assert open_images(tmp_path, season=Season.of(2019, "10-01")).dates == [date(2019, 2, 14)]
    with pytest.raises(DataError, match="045.tif: day of year 45, but no year; give --year"):
        open_images(tmp_path)


def test_a_name_without_a_date_is_named(tmp_path):
    write_tif(tmp_path / "harvey.tif", plane(1))
    with pytest.raises(DataError, match="harvey.tif: no date in its name; expected one such as 2019-05-03"):
        open_images(tmp_path, season=YEAR)
    write_tif(tmp_path / "harvey.tif", plane(1, size=(9, 2, 2)))
    with pytest.raises(DataError, match="harvey.tif: no date in its name"):
        open_images(tmp_path, season=YEAR, skip_bad=True)


def test_composites_are_dated_at_the_middle_of_their_periods_in_the_order_of_their_names(tmp_path):
    for number in (1, 2, 10):
        write_tif(tmp_path / f"month_{number}.tif", plane(number))
    images = open_images(tmp_path, start="2019-01-01", step="month")
    assert images.dates == [date(2019, 1, 16), date(2019, 2, 15), date(2019, 3, 16)]
    assert whole(images).bands[:3, 0].tolist() == [1, 2, 10]
    assert whole(images).doy[:3].tolist() == [16, 46, 75]


def test_a_stack_that_says_no_dates_needs_them(tmp_path):
    write_tif(tmp_path / "stack_2019-01-01.tif", plane(1, size=(20, 2, 2)), names=[*CODES, *(f"{c}_1" for c in CODES)])
    with pytest.raises(
        DataError, match="stack_2019-01-01.tif: holds several dates.*give --start and --step, or --dates"
    ):
        open_images(tmp_path)
    assert len(open_images(tmp_path, start="2019-01-01", step="10D").dates) == 2


def test_a_stack_whose_bands_clash_is_named(tmp_path):
    write_tif(tmp_path / "stack.tif", plane(1, size=(20, 2, 2)), names=[*CODES, *CODES])
    with pytest.raises(DataError, match=r"stack.tif: band 11 \(B2\) is blue of the same day as band 1"):
        open_images(tmp_path)


def test_dates_outside_the_season_are_left_out_and_counted(tmp_path):
    for day in ("2018-12-31", "2019-01-01", "2019-12-31", "2020-01-01"):
        write_tif(tmp_path / f"{day}.tif", plane(1))
    images = open_images(tmp_path, season=YEAR)
    assert images.dates == [date(2019, 1, 1), date(2019, 12, 31)]
    assert told(images, "outside").startswith("2 of 4 dates are outside 2019-01-01 to 2019-12-31")
    assert len(images.provenance["files"]) == 2
    with pytest.raises(DataError, match="all dates, 2018-12-31 to 2020-01-01, are outside 2017-01-01 to"):
        open_images(tmp_path, season=Season.of(2017))
    with pytest.raises(DataError, match="2018-12-31 to 2020-01-01 span more than twelve months; give --year"):
        open_images(tmp_path)


@pytest.mark.parametrize(
    ("days", "fits"),
    [
        (("2019-03-01", "2020-02-28"), True),
        (("2019-03-01", "2020-02-29"), False),  # both are day 60
        (("2019-03-02", "2020-03-01"), False),
        (("2018-12-31", "2020-01-01"), False),
        (("2020-01-01", "2020-12-31"), True),
    ],
)
def test_without_a_year_no_day_of_year_may_come_twice(tmp_path, days, fits):
    for day in days:
        write_tif(tmp_path / f"{day}.tif", plane(1))
    if fits:
        assert [str(day) for day in open_images(tmp_path).dates] == list(days)
    else:
        with pytest.raises(DataError, match="span more than twelve months; give --year"):
            open_images(tmp_path)


def test_a_season_across_new_year_is_in_the_order_of_time(tmp_path):
    for day in ("2018-11-01", "2019-02-01"):
        write_tif(tmp_path / f"{day}.tif", plane(int(day[5:7])))
    found = whole(open_images(tmp_path, season=Season.of(2019, "10-01")))
    assert found.doy[:2].tolist() == [305, 32]
    assert found.bands[:2, 0].tolist() == [11, 2]


# ---------------------------------------------------------------------------------------------- cubes


def test_a_cube_in_flipped_order_with_packed_values_is_read(tmp_path):
    scene = make_scene(13, gaps=0)
    data = cube(scene, by_band=False).isel(y=slice(None, None, -1))
    for code in LONG_CODES:
        data[code].attrs.update(scale_factor=0.0001, add_offset=-0.1, _FillValue=np.uint16(0))
    data.to_netcdf(tmp_path / "cube.nc", engine="h5netcdf")
    reference = write_tif(tmp_path / "grid.tif", plane(1, np.uint8, (1, 6, 8)))
    images = open_images(tmp_path / "cube.nc", grid=reference)
    same(whole(images), scene.pixels(offset=-1000))
    assert "scale and offset in the file" in told(images, "offset -1000 for")


def test_a_classic_netcdf_file_is_read(tmp_path):
    scene = make_scene(13)
    data = cube(scene, by_band=False).astype(np.int16)
    data["time"].encoding["dtype"] = "int32"
    data.to_netcdf(tmp_path / "cube.nc", engine="scipy")
    same(whole(open_images(tmp_path)), scene.pixels())


def test_baselines_along_the_time_of_a_cube_decide(tmp_path):
    scene = make_scene(13, days=2, gaps=0)
    data = cube(scene, by_band=True).assign_coords({"s2:processing_baseline": ("time", ["02.14", "05.00"])})
    data.to_zarr(tmp_path / "cube.zarr")
    images = open_images(tmp_path / "cube.zarr")
    assert [image.offset for image in images.images] == [0, -1000]


def test_cubes_of_one_date_each_are_dated_by_name(tmp_path):
    scene = make_scene(13, days=2)
    for t, day in enumerate(scene.dates):
        data = cube(scene, by_band=True).isel(time=t).drop_vars("time")
        data.to_netcdf(tmp_path / f"{day}.nc", engine="h5netcdf")
    same(whole(open_images(tmp_path)), scene.pixels())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.drop_vars("spatial_ref"), "has no coordinate reference system"),
        (lambda data: data.drop_vars("x"), "no coordinates along x and y"),
        (lambda data: data.assign_coords(x=np.arange(8.0) ** 2), "coordinates along x are not evenly spaced"),
        (lambda data: data.drop_vars("B11"), r"cube.nc: band B11 \(swir1\) is missing"),
        (lambda data: data.rename(x="a", y="b"), "no variable over y and x"),
        (lambda data: data.drop_vars("time"), "holds several dates, but nothing tells them"),
    ],
)
def test_cubes_that_cannot_be_used_are_said(tmp_path, change, message):
    change(cube(make_scene(13), by_band=False)).to_netcdf(tmp_path / "cube.nc", engine="h5netcdf")
    with pytest.raises(DataError, match=message):
        open_images(tmp_path)


# ---------------------------------------------------------------------------------------------- bad files


def truncated(path, keep=0.5) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


def large_scene() -> Scene:
    return make_scene(14, days=3, height=64, width=64, gaps=0)


def test_a_truncated_file_ends_the_run_with_its_name(tmp_path):
    scene = large_scene()
    write_dated(tmp_path, scene)
    truncated(tmp_path / f"S2_{scene.dates[1]}.tif", 0.95)
    with pytest.raises(DataError, match=f"S2_{scene.dates[1]}.tif: cannot be read, it is corrupt or truncated"):
        whole(open_images(tmp_path, offset="0"))


@pytest.mark.parametrize("keep", [0, 0.0005, 0.5, 0.95])
def test_bad_images_can_be_left_out_and_are_listed(tmp_path, keep):
    scene = large_scene()
    write_dated(tmp_path, scene)
    truncated(tmp_path / f"S2_{scene.dates[1]}.tif", keep)
    images = open_images(tmp_path, skip_bad=True)
    kept = scene._replace(values=scene.values[[0, 2]], dates=(scene.dates[0], scene.dates[2]))
    assert images.dates == list(kept.dates)
    same(whole(images), kept.pixels())
    assert len(images.skipped) == 1
    assert (
        images.skipped[0].startswith(f"{scene.dates[1]} left out: ") and f"S2_{scene.dates[1]}.tif" in images.skipped[0]
    )
    assert images.provenance["skipped"] == images.skipped


def test_the_whole_date_of_a_bad_file_of_a_band_is_left_out(tmp_path):
    scene = large_scene()
    write_stac(tmp_path, scene)
    truncated(tmp_path / str(scene.dates[0]) / "swir16.tif", 0)
    with pytest.raises(DataError, match="swir16.tif: cannot be read"):
        open_images(tmp_path)
    assert open_images(tmp_path, skip_bad=True).dates == list(scene.dates[1:])


def test_given_dates_count_bad_images_too(tmp_path):
    scene = large_scene()
    write_dated(tmp_path, scene)
    truncated(tmp_path / f"S2_{scene.dates[1]}.tif", 0)
    images = open_images(tmp_path, skip_bad=True, start="2019-01-01", step="month")
    assert images.dates == [date(2019, 1, 16), date(2019, 3, 16)]


def test_nothing_left_is_an_error(tmp_path):
    (tmp_path / "2019-05-03.tif").write_bytes(b"II*\0")
    with pytest.raises(DataError, match="2019-05-03.tif"):
        open_images(tmp_path)
    write_tif(tmp_path / "2019-06-03.tif", plane(1, size=(10, 64, 64)))
    truncated(tmp_path / "2019-06-03.tif", 0.5)
    with pytest.raises(DataError, match="no date has files that can all be read"):
        open_images(tmp_path, skip_bad=True)


def test_a_broken_cube_is_named(tmp_path):
    write_netcdf(tmp_path, large_scene())
    truncated(tmp_path / "cube.nc", 0.5)
    with pytest.raises(DataError, match="cube.nc: cannot be read, it is corrupt or truncated"):
        whole(open_images(tmp_path))


def test_a_cube_that_takes_too_long_is_named_or_left_out(tmp_path, monkeypatch):
    scene = make_scene(13, days=2)
    for t, day in enumerate(scene.dates):
        data = cube(scene, by_band=True).isel(time=t).drop_vars("time")
        data.to_netcdf(tmp_path / f"{day}.nc", engine="h5netcdf")
    slow = tmp_path / f"{scene.dates[0]}.nc"
    with open(slow, "ab") as file:
        file.write(b"\0" * 1000)
    usual, given = limited.call, {}

    def call(function, file, *args, seconds, modules):
        given.setdefault(file.name, []).append(seconds)
        return usual(function, file, *args, seconds=1e-6 if file == slow else seconds, modules=modules)

    monkeypatch.setattr(limited, "call", call)
    with pytest.raises(BadFile, match=f"{slow.name}: cannot be read, .*reading it took more than 1e-06 s of computing"):
        open_images(tmp_path)
    images = open_images(tmp_path, skip_bad=True)
    assert whole(images).doy.tolist() and images.dates == [scene.dates[1]]
    assert "took more than" in images.skipped[0]
    for name, seconds in given.items():
        assert set(seconds) == {3 + (tmp_path / name).stat().st_size / (4 << 20)}
    assert given[slow.name] and len(given[f"{scene.dates[1]}.nc"]) > 2  # header and parts


def test_a_cube_that_another_one_has_replaced_is_read_again(tmp_path):
    for seed in (13, 14):
        scene = make_scene(seed)
        write_netcdf(tmp_path, scene)
        same(whole(open_images(tmp_path)), scene.pixels())


def test_a_raster_without_a_crs_is_named(tmp_path):
    write_tif(tmp_path / "2019-05-03.tif", plane(1), crs=None)
    with pytest.raises(DataError, match="2019-05-03.tif: has no coordinate reference system"):
        open_images(tmp_path)


def test_no_images_are_said(tmp_path):
    with pytest.raises(DataError, match="no images found; expected .tif"):
        open_images(tmp_path)
    with pytest.raises(DataError, match="nowhere: no such file or folder"):
        open_images(tmp_path / "nowhere")
    write_tif(tmp_path / "cdl.tif", plane(1, np.uint8, (1, 3, 3)))
    with pytest.raises(DataError, match="no images found; left out, as they hold none of the bands"):
        open_images(tmp_path)


VIRTUAL = """<VRTDataset rasterXSize="2" rasterYSize="2"><SRS>EPSG:32614</SRS>
<GeoTransform>500000, 10, 0, 4200000, 0, -10</GeoTransform>{bands}</VRTDataset>"""
VIRTUAL_BAND = """<VRTRasterBand dataType="UInt16" band="{n}"><SimpleSource>
<SourceFilename relativeToVRT="1">{file}</SourceFilename><SourceBand>{n}</SourceBand></SimpleSource></VRTRasterBand>"""


def virtual(file: str) -> str:
    return VIRTUAL.format(bands="".join(VIRTUAL_BAND.format(n=n, file=file) for n in range(1, 11)))


@pytest.mark.parametrize("name", ["2019-05-03.vrt", "2019-05-03.tif"])
def test_a_virtual_raster_may_only_point_into_the_folder(tmp_path, name):
    folder = tmp_path / "images"
    source = write_tif(tmp_path / "2019-05-03_source.tif", plane(5))
    folder.mkdir()
    for target in ("../2019-05-03_source.tif", str(source), "/vsicurl/https://x/y.tif", "missing.tif"):
        (folder / name).write_text(virtual(target))
        with pytest.raises(DataError, match=f"{name}: points to .*, which is no file in "):
            open_images(folder)
    source.rename(folder / "inner.bin")
    (folder / name).write_text(virtual("inner.bin"))
    assert whole(open_images(folder)).bands.tolist() == [[5] * 10] * 4


def test_a_virtual_raster_behind_another_is_seen(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    write_tif(tmp_path / "outside.tif", plane(5))
    (folder / "inner.bin").write_text(virtual("../outside.tif"))
    (folder / "2019-05-03.vrt").write_text(virtual("inner.bin"))
    with pytest.raises(DataError, match="inner.bin: points to ../outside.tif"):
        open_images(folder)


# ---------------------------------------------------------------------------------------------- the rest


def test_provenance_names_files_with_size_and_hash(tmp_path):
    scene = make_scene(1)
    write_dated(tmp_path, scene)
    known = open_images(tmp_path).provenance
    file = tmp_path / f"S2_{scene.dates[0]}.tif"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert known["files"][0] == {"file": str(file), "size": file.stat().st_size, "sha256": digest}
    assert known["transform"] == [10, 0, 500_000, 0, -10, 4_200_000]
    assert rasterio.crs.CRS.from_wkt(known["crs"]).to_epsg() == 32614
    assert known["dates"] == [str(day) for day in scene.dates]
    assert known["versions"]["rasterio"] == rasterio.__version__
    assert json.loads(json.dumps(known)) == known


def read_window(images, window):
    return images.read(window)


def test_forked_processes_open_the_files_themselves(tmp_path):
    scene = make_scene(14, days=3, height=64, width=64)
    write_dated(tmp_path, scene)
    images = open_images(tmp_path)
    windows = [Window(0, 16 * top, 64, 16) for top in range(4)]
    expected = [images.read(window) for window in windows]  # the parent has the files open
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for found, known in zip(pool.map(partial(read_window, images), windows * 3), expected * 3, strict=True):
            same(found, known)
    process = images._sources._process
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "getpid", lambda: process + 1)
        same(images.read(windows[0]), expected[0])
        assert images._sources._process == process + 1


def test_the_options_of_commands_open_the_same(tmp_path):
    scene = make_scene(10, days=2, gaps=0)
    classes = np.full((2, 1, 6, 8), 8, np.uint16)
    classes[1] = 4
    values = np.concatenate([scene.values, classes], axis=1)
    write_dated(tmp_path, scene._replace(values=values, dates=(date(2018, 10, 1), date(2019, 9, 30))), [*CODES, "SCL"])
    grid = write_tif(tmp_path / "grid.tif", plane(1, np.uint8, (1, 2, 3)))
    parser = Parser()
    add_arguments(parser)
    line = f"--images {tmp_path} --year 2019 --season-start 10-01 --offset -1000 --mask scl:8 --grid {grid}"
    images = open_from(parser.parse_args(line.split()))
    assert images.dates == [date(2018, 10, 1), date(2019, 9, 30)]
    found = whole(images)
    np.testing.assert_array_equal(found.bands[0], np.maximum(scene.values[1, :, 0, 0].astype(int) - 1000, 1))
    assert len(found.doy) == 6 and set(found.doy) == {273}
    stack = ["--bands", ",".join([*CODES, "SCL"]), "--start", "2019-01-01", "--step", "month", "--skip-bad-images"]
    images = open_from(parser.parse_args(["--images", str(tmp_path), *stack]))
    assert images.dates == [date(2019, 1, 16), date(2019, 2, 15)]
    images = open_from(parser.parse_args(["--images", str(tmp_path), "--dates", "2019-03-01,2019-04-01"]))
    assert images.dates == [date(2019, 3, 1), date(2019, 4, 1)]


@needs_shared
def test_the_togo_stack_has_289_series_of_twelve():
    images = open_images(SHARED / "rasters/ee", start="2019-02-01", step="month")
    found = whole(images)
    assert found.lengths.tolist() == [12] * 289
    assert found.bands[0].tolist() == [1929, 1821, 1976, 2045, 2266, 2529, 2428, 2810, 3564, 2532]
    with rasterio.open(SHARED / "rasters/ee/98-togo_2019-02-06_2020-02-01.tif") as file:
        last = file.read([file.descriptions.index(f"{code}_11") + 1 for code in CODES])
    np.testing.assert_array_equal(found.bands[11::12].T.reshape(10, 17, 17), np.rint(last))
    assert images.dates[0] == date(2019, 2, 15) and images.dates[-1] == date(2020, 1, 16)


@needs_shared
def test_flanders_has_series_of_the_ten_images_with_values_and_b8_for_b8a():
    images = open_images(SHARED / "rasters/flanders")
    found = whole(images)
    assert len(images.dates) == 12
    assert found.lengths.tolist() == [10] * 10_000
    months = [11, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert found.doy[:10].tolist() == [
        date(2020 if month == 11 else 2021, month, 1).timetuple().tm_yday for month in months
    ]
    assert (found.bands[:, 6] == found.bands[:, 7]).all()
    assert told(images, "is missing") == "band B8A (red4) is missing in 12 of 12 images: B08 (nir) stands in for it"
    with rasterio.open(SHARED / "rasters/flanders/S2_2021-05-01.tif") as file:
        np.testing.assert_array_equal(found.bands[4::10, [0, 1, 2, 3, 4, 5, 6, 8, 9]].T, file.read().reshape(9, -1))
