"""mapping.predict --until-doy: a map of the images up to a day."""

from __future__ import annotations

import json
from datetime import date, timedelta

import numpy as np
import pytest
import rasterio

from datasets.errors import DataError
from datasets.images import open_images
from mapping import predict
from tests.support.image_files import Scene, make_scene, same, write_dated, write_stack, write_tif
from tests.support.map_runs import NO_DATA, assert_map, expected_map, make_map, read_map, undecided
from tests.support.maps import refused

pytestmark = pytest.mark.usefixtures("no_figures")
HEIGHT, WIDTH = 20, 22


@pytest.fixture(scope="module")
def scene() -> Scene:
    scene = make_scene(3, days=6, height=HEIGHT, width=WIDTH, gaps=0.4)
    scene.values[:3, :, 6:10, 2:8] = 0  # pixels that are seen late
    scene.values[3, :, 6:10, 2:8] = 500
    return scene


@pytest.fixture(scope="module")
def day(scene) -> int:
    """That of the third of six images."""
    return scene.dates[2].timetuple().tm_yday


def trained_until(folder, day: int | None, kind: str = "tempcnn, padded"):
    """A checkpoint that says that it was trained on series up to a day."""
    classifier = undecided(kind)
    classifier.until = day
    folder.mkdir()
    classifier.save(folder / "model_best.pth")
    return folder


def first(scene: Scene, count: int) -> Scene:
    return Scene(scene.values[:count], scene.dates[:count])


def tags(path) -> dict:
    with rasterio.open(path) as file:
        return {
            name: json.loads(value) for name, value in file.tags().items() if name in ("DATES", "IMAGES", "OPTIONS")
        }


@pytest.mark.parametrize("kind", ["stnet", "tempcnn"])
def test_a_map_is_that_of_the_images_up_to_the_day(kind, scene, images, day, tmp_path, capsys):
    model = trained_until(tmp_path / "run", None, kind)
    found = make_map(model, images, tmp_path / "map.tif", "--until-doy", day)
    values = read_map(found)
    assert_map(values, undecided(kind), first(scene, 3).pixels(), (HEIGHT, WIDTH))
    assert (values[:, 6:10, 2:8] == NO_DATA).all() and (values[0] != NO_DATA).sum() > 200
    assert tags(found)["DATES"] == [each.isoformat() for each in scene.dates[:3]]
    assert len(tags(found)["IMAGES"]) == 3 and tags(found)["OPTIONS"]["until_doy"] == day
    told = f"series up to day {day}, but {model} was trained on whole series"
    assert told in capsys.readouterr().out.splitlines()


def test_what_the_images_after_it_show_changes_nothing(scene, images, day, model, tmp_path):
    expected = read_map(make_map(model, images, tmp_path / "map.tif", "--until-doy", day))
    for count in (3, 5, 9):
        other = make_scene(8, days=count, height=HEIGHT, width=WIDTH)
        later = tuple(scene.dates[2] + timedelta(days=i) for i in range(1, count - 2))
        changed = Scene(np.concatenate([scene.values[:3], other.values[3:]]), (*scene.dates[:3], *later))
        write_dated(tmp_path / f"{count}" / "images", changed)
        found = make_map(model, tmp_path / f"{count}" / "images", tmp_path / f"{count}.tif", "--until-doy", day)
        np.testing.assert_array_equal(read_map(found), expected)


def test_the_day_of_the_training_is_the_default_and_can_be_another(scene, images, day, tmp_path, capsys):
    model = trained_until(tmp_path / "run", day)
    of_training = make_map(model, images, tmp_path / "default.tif", "--window", 16)
    assert f"series up to day {day}, as in training" in capsys.readouterr().out.splitlines()
    pixels = first(scene, 3).pixels(), scene.pixels()
    np.testing.assert_array_equal(read_map(of_training), expected_map(undecided(), pixels[0], (HEIGHT, WIDTH)))
    later = make_map(model, images, tmp_path / "later.tif", "--until-doy", 366, "--window", 16, "--workers", 2)
    np.testing.assert_array_equal(read_map(later), expected_map(undecided(), pixels[1], (HEIGHT, WIDTH)))
    told = f"series up to day 366, but {model} was trained on series up to day {day}"
    assert told in capsys.readouterr().out.splitlines()


def test_without_the_option_nothing_of_it_is_told(images, model, tmp_path, capsys):
    options = tags(make_map(model, images, tmp_path / "map.tif"))["OPTIONS"]
    assert "until_doy" not in options and "up to day" not in capsys.readouterr().out


def test_parts_of_a_map_up_to_another_day_are_refused(scene, images, day, model, tmp_path, capsys):
    make_map(model, images, tmp_path / "map.tif", "--until-doy", 366, "--window", 16, "--part", "1/2")
    given = ("--model", model, "--images", images, "--out", tmp_path / "map.tif", "--device", "cpu", "--window", 16)
    assert "until_doy" in refused(predict.main, [*given, "--until-doy", 365], capsys)


def test_a_day_before_the_first_image_is_refused_with_its_name(scene, images, model, tmp_path, capsys):
    number = scene.dates[0].timetuple().tm_yday
    given = ("--model", model, "--images", images, "--out", tmp_path / "map.tif", "--device", "cpu")
    line = refused(predict.main, [*given, "--until-doy", number - 1], capsys)
    told = (
        f"is the first image, of {scene.dates[0]} (day {number}), so there is none until day {number - 1}; give a later"
    )
    assert str(images) in line and told in line
    assert "argument --until-doy: 0: expected a day from 1 to 732" in refused(
        predict.main, [*given, "--until-doy", 0], capsys
    )
    assert "argument --until-doy: 733: " in refused(predict.main, [*given, "--until-doy", 733], capsys)


def test_images_of_a_season_across_new_year_are_numbered_on(tmp_path):
    scene = make_scene(5, days=4, height=4, width=4)
    dates = (date(2018, 10, 8), date(2018, 12, 31), date(2019, 1, 1), date(2019, 2, 27))
    for place in (2, 0, 3, 1):  # the order on the disk is another
        write_tif(tmp_path / f"{place}" / f"S2_{dates[3 - place]}.tif", scene.values[3 - place])
    whole = open_images(tmp_path)
    for day, count in ((281, 1), (364, 1), (365, 2), (366, 2), (367, 3), (423, 3), (424, 4), (732, 4)):
        assert whole.until(day).dates == list(dates[:count])
    with pytest.raises(DataError, match=r"S2_2018-10-08: is the first image, of 2018-10-08 \(day 281\), .* 280;"):
        whole.until(280)
    assert whole.until(None) is whole


def test_the_steps_of_a_stack_are_images_too(tmp_path):
    scene = make_scene(6, days=5, height=4, width=6)
    options = write_stack(tmp_path, scene)
    whole = open_images(tmp_path, **options)
    seen = whole.until(scene.dates[1].timetuple().tm_yday)
    (window,) = seen.grid.windows(16)
    same(seen.read(window), first(scene, 2).pixels())
    assert seen.headers == whole.headers and str(seen.grid) == str(whole.grid) and seen.notes == whole.notes
