"""A map holds, pixel by pixel, what the classifier predicts of the pixel's series."""

from __future__ import annotations

import multiprocessing

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mapping import running
from tests.support.image_files import FORMS, ORIGIN, Scene, make_scene, write_dated, write_tif
from tests.support.map_runs import NO_DATA, alone, assert_map, expected_map, make_map, read_map, save_model, undecided

HEIGHT, WIDTH = 20, 22
pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.fixture(scope="module")
def scene() -> Scene:
    scene = make_scene(3, days=6, height=HEIGHT, width=WIDTH, gaps=0.4)
    scene.values[:, :, 6:10, 2:8] = 0  # pixels without an observation
    return scene


@pytest.fixture(scope="module")
def expected(scene):
    return expected_map(undecided(), scene.pixels(), (HEIGHT, WIDTH))


def test_the_scene_has_many_classes_and_pixels_without_an_observation(expected):
    codes = expected[0]
    assert len(np.unique(codes)) > 8 and (codes[6:10, 2:8] == NO_DATA).all()


@pytest.mark.parametrize("kind", ["stnet", "transformer of positions", "lstm", "ltae", "rf", "gbt"])
def test_a_map_is_what_the_classifier_predicts_of_every_pixel_by_itself(kind, scene, images, tmp_path):
    suffix = "skops" if kind in ("rf", "gbt") else "pth"
    model = save_model(tmp_path / "run" / f"model_best.{suffix}", kind)
    found = read_map(make_map(model.parent, images, tmp_path / "map.tif"))
    assert_map(found, undecided(kind), scene.pixels(), (HEIGHT, WIDTH))


@pytest.mark.parametrize("size", [16, 17, 21, 256])
def test_the_size_of_windows_changes_nothing(size, images, model, expected, tmp_path):
    np.testing.assert_array_equal(read_map(make_map(model, images, tmp_path / "map.tif", "--window", size)), expected)


@pytest.mark.parametrize("form", FORMS)
def test_the_form_of_the_images_changes_nothing(form, model, tmp_path):
    scene = make_scene(8, days=5, height=8, width=10)
    options = FORMS[form](tmp_path / "images", scene)
    more = [f"--{name}={value}" for name, value in options.items()]
    found = read_map(make_map(model, tmp_path / "images", tmp_path / "map.tif", *more))
    np.testing.assert_array_equal(found, expected_map(undecided(), scene.pixels(), (8, 10)))


def test_the_order_of_the_files_changes_nothing(scene, model, expected, tmp_path):
    for i, place in enumerate((3, 0, 5, 1, 4, 2)):  # folders are read in the order of their names
        day = scene.dates[place]
        write_tif(tmp_path / "images" / f"{i}" / f"S2_{day}.tif", scene.values[place])
    np.testing.assert_array_equal(read_map(make_map(model, tmp_path / "images", tmp_path / "map.tif")), expected)


def test_several_processes_make_the_same_file(images, model, tmp_path):
    one = make_map(model, images, tmp_path / "one" / "map.tif", "--window", 16)
    two = make_map(model, images, tmp_path / "two" / "map.tif", "--window", 16, "--workers", 2)
    assert one.read_bytes() == two.read_bytes()


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_map_is_what_the_classifier_predicts_however_it_is_made(model, tmp_path_factory, data):
    """Any scene, form of the images, order of the dates on the disk, windows, processes and shards."""
    height, width = 2 * data.draw(st.integers(1, 11)), 2 * data.draw(st.integers(1, 11))
    scene = make_scene(data.draw(st.integers(0, 99)), data.draw(st.integers(1, 6)), height, width, gaps=0.4)
    folder, form = tmp_path_factory.mktemp("any"), data.draw(st.sampled_from([*FORMS, "shuffled", "shuffled"]))
    if form == "shuffled":
        for i, place in enumerate(data.draw(st.permutations(range(len(scene.dates))))):
            write_tif(folder / "images" / f"{i}" / f"S2_{scene.dates[place]}.tif", scene.values[place])
        options = {}
    else:
        options = FORMS[form](folder / "images", scene)
    words = [f"--{name}={value}" for name, value in options.items()] + ["--window", data.draw(st.integers(16, 24))]
    shards, workers = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "get_context", lambda method: multiprocessing.get_context("fork"))
        patch.setattr(running, "POLL", 0.02)
        for i in data.draw(st.permutations(range(1, shards + 1))) if shards > 1 else ():
            part = ("--part", f"{i}/{shards}", "--workers", workers)
            make_map(model, folder / "images", folder / "map.tif", *words, *part)
        last = ("--merge",) if shards > 1 else ("--workers", workers)
        found = read_map(make_map(model, folder / "images", folder / "map.tif", *words, *last))
    np.testing.assert_array_equal(found, expected_map(undecided(), scene.pixels(), (height, width)))


def test_pixels_with_fewer_observations_are_no_data(scene, images, model, expected, tmp_path):
    found = read_map(make_map(model, images, tmp_path / "map.tif", "--min-observations", 4))
    few = scene.values.any(axis=1).sum(axis=0) < 4
    assert few.any() and not few.all()
    np.testing.assert_array_equal(found, np.where(few, NO_DATA, expected))


def test_equal_series_get_equal_values_wherever_they_lie(model, tmp_path):
    scene = make_scene(5, days=6, height=20, width=20, gaps=0.3)
    scene.values[:, :, :, :] = scene.values[:, :, :2, :2].repeat(10, 2).repeat(10, 3)
    write_dated(tmp_path / "images", scene)
    found = read_map(make_map(model, tmp_path / "images", tmp_path / "map.tif", "--window", 16))
    blocks = found.reshape(2, 2, 10, 2, 10).transpose(0, 1, 3, 2, 4).reshape(2, 4, 100)
    assert (blocks == blocks[..., :1]).all()


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_map_of_turned_images_is_the_turned_map(turns, scene, model, expected, tmp_path):
    turned = scene._replace(values=np.ascontiguousarray(np.rot90(scene.values, turns, (2, 3))))
    write_dated(tmp_path / "images", turned)
    found = read_map(make_map(model, tmp_path / "images", tmp_path / "map.tif", "--window", 16))
    np.testing.assert_array_equal(found, np.rot90(expected, turns, (1, 2)))


# ---- parts of the images


def box_of(top: int, left: int, bottom: int, right: int) -> list[float]:
    (west, north), (east, south) = ORIGIN @ (left, top), ORIGIN @ (right, bottom)
    return [west, south, east, north]


@pytest.mark.parametrize("smooth", [1, 5])
@pytest.mark.parametrize("place", [(3, 5, 14, 20), (0, 0, 4, 22), (19, 21, 20, 22)])
def test_a_map_of_a_box_is_cut_from_the_whole_map(place, smooth, images, model, tmp_path):
    top, left, bottom, right = place
    whole = read_map(make_map(model, images, tmp_path / "whole.tif", "--smooth", smooth))
    options = ["--bbox", *box_of(*place), "--bbox-crs", "EPSG:32614", "--smooth", smooth, "--window", 16]
    path = make_map(model, images, tmp_path / "part.tif", *options)
    np.testing.assert_array_equal(read_map(path), whole[:, top:bottom, left:right])
    with rasterio.open(path) as file:
        assert file.transform == ORIGIN @ Affine.translation(left, top)


def test_a_map_within_a_raster_leaves_all_else_out(images, model, expected, tmp_path):
    inside = np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.5
    write_tif(tmp_path / "crop.tif", inside[None].astype(np.uint8))
    path = make_map(model, images, tmp_path / "map.tif", "--within", tmp_path / "crop.tif", "--window", 16)
    np.testing.assert_array_equal(read_map(path), np.where(inside, expected, NO_DATA))


# ---- smoothing and probabilities


@pytest.fixture(scope="module")
def probabilities(scene, images, model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("probabilities")
    make_map(model, images, folder / "map.tif", "--probabilities", folder / "p.tif")
    return read_map(folder / "p.tif")


def test_the_probabilities_of_all_classes_are_written_as_per_cent(probabilities, scene, expected):
    pixels, found = scene.pixels(), probabilities
    assert found.shape == (21, HEIGHT, WIDTH) and found.dtype == np.uint8
    np.testing.assert_array_equal(found.max(0), expected[1])
    rows, cols = pixels.row, pixels.col
    codes = np.array(undecided().classmap.codes)
    clear = np.sort(found, axis=0)[-1] > np.sort(found, axis=0)[-2]
    assert (codes[found.argmax(0)] == expected[0])[clear & (expected[0] != NO_DATA)].all()
    assert (np.abs(found[:, rows, cols].sum(0).astype(int) - 100) <= 10).all()


@pytest.mark.parametrize("side", [3, 7])
def test_smoothing_gives_the_same_bytes_for_windows_of_any_size(side, images, model, tmp_path):
    found = []
    for size in (16, 17, 19, 256):
        out = tmp_path / f"{size}.tif"
        make_map(model, images, out, "--smooth", side, "--window", size, "--probabilities", tmp_path / f"p{size}.tif")
        found.append((read_map(out), read_map(tmp_path / f"p{size}.tif")))
    for values, each in found[1:]:
        np.testing.assert_array_equal(values, found[0][0])
        np.testing.assert_array_equal(each, found[0][1])


def test_smoothing_takes_the_class_of_the_mean_probabilities(scene, images, model, tmp_path):
    classifier, pixels = undecided(), scene.pixels()
    each = alone(classifier, pixels)
    place = {(r, c): i for i, (r, c) in enumerate(zip(pixels.row, pixels.col, strict=True))}
    found = read_map(make_map(model, images, tmp_path / "map.tif", "--smooth", 3))
    for row in range(HEIGHT):
        for col in range(WIDTH):
            if (row, col) not in place:
                assert (found[:, row, col] == NO_DATA).all()
                continue
            near = [place[r, c] for r in range(row - 1, row + 2) for c in range(col - 1, col + 2) if (r, c) in place]
            mean = each[near].astype(np.float64).mean(0)
            assert found[0, row, col] == classifier.classmap.codes[mean.argmax()]
            assert found[1, row, col] == np.rint(100 * mean.max())
