"""One file from the parts of a map."""

from __future__ import annotations

import json
import os
import re
from collections import namedtuple

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioIOError

from datasets.errors import DataError
from mapping import writing
from mapping.legend import Entry, classes_tag, read_legend
from mapping.parts import Parts
from mapping.windows import NO_DATA, Part
from mapping.writing import write_map, write_probabilities
from tests.support.image_files import ORIGIN, UTM, make_scene
from tests.support.windows import LEGEND, KnownImages, plan_of
from utils.errors import WriteError

HEIGHT, WIDTH = 30, 80
TAGS = {"MODEL": "x"}


def filled(folder, classes=LEGEND, size=16, box=None):
    """A plan, parts of random values, and the map and the probabilities that they make up."""
    images = KnownImages(make_scene(0, days=1, height=HEIGHT, width=WIDTH))
    plan = plan_of(images, classes=classes, size=size, probabilities=True, box=box)
    parts, random = Parts(folder / "map.tif"), np.random.default_rng(0)
    parts.start({})
    shape = plan.box.grid.height, plan.box.grid.width
    values, each = np.zeros((2, *shape), plan.dtype), np.zeros((len(classes), *shape), np.uint8)
    values[0] = random.choice([*(one.code for one in classes), NO_DATA[plan.dtype]], shape)
    values[0, :16, :16] = classes[0].code  # a window of one class, without no-data
    values[1], each[:] = random.integers(0, 101, shape), random.integers(0, 101, each.shape)
    for number, window in enumerate(plan.windows):
        place = (slice(None), *window.toslices())
        counts = {"outside": number, "few": 1, "classified": 100 + number}
        parts.write(number, Part(values[place], each[place], counts))
    return plan, parts, values, each


def read(path):
    with rasterio.open(path) as file:
        return file.read()


@pytest.mark.parametrize("box", [None, (3, 5, 24, 38)])
def test_the_map_holds_its_parts_side_by_side(box, tmp_path):
    plan, parts, values, _ = filled(tmp_path, box=box)
    pixels = write_map(plan, parts, tmp_path / "map.tif", TAGS)
    with rasterio.open(tmp_path / "map.tif") as file:
        np.testing.assert_array_equal(file.read(), values)
        assert file.dtypes == ("uint8", "uint8") and file.nodatavals == (255, 255)
        assert (file.crs, file.transform) == (UTM, plan.box.grid.transform)
        assert file.descriptions == ("class code", "confidence, per cent")
        assert file.colorinterp == (ColorInterp.palette, ColorInterp.undefined)
        assert file.colormap(1)[77] == (7, 8, 9, 255) and file.colormap(1)[255] == (0, 0, 0, 0)
        assert file.tags()["MODEL"] == "x" and file.tags()["CLASSES"] == classes_tag(LEGEND)
        assert json.loads(file.tags()["PIXELS"]) == pixels
    count = len(plan.windows)
    assert pixels["outside"] == sum(range(count)) and pixels["few"] == count
    assert pixels["classified"] == 100 * count + sum(range(count))
    assert pixels["classes"] == {str(code): int((values[0] == code).sum()) for code in (3, 0, 77)}
    assert read_legend(tmp_path / "map.tif") == list(LEGEND)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.tif", "map.tif.parts"]
    assert not list(parts.folder.glob("*.tif"))


def test_codes_of_16_bits_are_written_and_counted(tmp_path):
    classes = (*LEGEND, Entry(65534, "Vines", (9, 9, 9), 3))
    plan, parts, values, _ = filled(tmp_path, classes)
    pixels = write_map(plan, parts, tmp_path / "map.tif", TAGS)
    np.testing.assert_array_equal(read(tmp_path / "map.tif"), values)
    assert pixels["classes"]["65534"] == (values[0] == 65534).sum() > 0


def test_probabilities_have_a_band_a_class(tmp_path):
    plan, parts, _, each = filled(tmp_path)
    write_probabilities(plan, parts, tmp_path / "p.tif", TAGS)
    with rasterio.open(tmp_path / "p.tif") as file:
        np.testing.assert_array_equal(file.read(), each)
        assert file.descriptions == ("Corn, per cent", "Other, per cent", "Rice, per cent")
        assert file.nodatavals == (255,) * 3 and file.dtypes == ("uint8",) * 3
        assert file.tags()["MODEL"] == "x" and file.tags()["CLASSES"] == classes_tag(LEGEND)
        assert file.transform == ORIGIN


def test_it_is_tiled_compressed_and_cloud_optimised(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "TILE", 16)  # the two files are compared 64 x 64 pixels at a time
    monkeypatch.setitem(writing.COPY, "BLOCKSIZE", 128)
    plan, parts, _, _ = filled(tmp_path)
    profiles, plain = [], rasterio.shutil.copy

    def copy(source, target, **options):
        with rasterio.open(source) as file:
            profiles.append((file.block_shapes[0], file.profile["tiled"]))
        plain(source, target, **options)

    monkeypatch.setattr(rasterio.shutil, "copy", copy)
    write_map(plan, parts, tmp_path / "map.tif", TAGS)
    assert profiles == [((16, 16), True)]
    with rasterio.open(tmp_path / "map.tif") as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.compression.name == "deflate" and file.block_shapes[0] == (128, 128)


def test_no_window_is_silently_missing(tmp_path):
    plan, parts, _, _ = filled(tmp_path)
    parts.path(3).unlink()
    with pytest.raises(DataError, match=r"000003.part: missing or damaged; give the same command again"):
        write_map(plan, parts, tmp_path / "map.tif", TAGS)
    assert not list(parts.folder.glob("*.tif"))


def told(folder, reason: str, size: float) -> str:
    """How the error about a map begins and ends, as a pattern."""
    text = f"{folder}/map.tif: cannot be written ({reason}); it needs {int(size):,} bytes, "
    return f"^{re.escape(text)}[\\d,]+ are free; make room there and run the same command again$"


def test_what_gdal_cannot_write_interrupts_the_map_in_one_line(tmp_path, monkeypatch, capfd):
    plan, parts, _, _ = filled(tmp_path)

    files = len(os.listdir("/proc/self/fd"))

    def copy(source, target, **options):
        os.write(2, b"TIFFAppendToStrip: write error\n")
        raise RasterioIOError("copying\nfailed") from OSError("strip  3")

    monkeypatch.setattr(rasterio.shutil, "copy", copy)
    with pytest.raises(WriteError, match=told(tmp_path, "strip 3", 2.4 * HEIGHT * WIDTH * 2)):
        write_map(plan, parts, tmp_path / "map.tif", TAGS)
    assert capfd.readouterr().err == "" and not list(parts.folder.glob("*.tif"))
    assert len(os.listdir("/proc/self/fd")) == files
    os.write(2, b"heard again\n")
    assert capfd.readouterr().err == "heard again\n"


def test_what_was_said_before_is_not_silenced_with_libtiff(capfd, monkeypatch):
    with open(2, "w", closefd=False) as stream:  # as at the end of a progress bar, without a line break
        monkeypatch.setattr(writing.sys, "stderr", stream)
        stream.write("done")
        with writing._without_stderr():
            stream.flush()
    assert capfd.readouterr().err == "done"


def test_an_error_without_a_cause_is_told_itself(tmp_path, monkeypatch):
    plan, parts, _, _ = filled(tmp_path)

    def copy(source, target, **options):
        raise RasterioIOError("copying failed")

    monkeypatch.setattr(rasterio.shutil, "copy", copy)
    with pytest.raises(WriteError, match=told(tmp_path, "copying failed", 2.4 * HEIGHT * WIDTH * 2)):
        write_map(plan, parts, tmp_path / "map.tif", TAGS)


@pytest.mark.parametrize("row, col, band", [(0, 0, 1), (29, 79, 2), (0, 79, 1), (29, 0, 2)])
def test_a_copy_that_differs_interrupts_the_map(row, col, band, tmp_path, monkeypatch):
    plain = rasterio.shutil.copy

    def copy(source, target, **options):
        plain(source, target, driver="GTiff")
        with rasterio.open(target, "r+") as file:
            values = file.read(band)
            values[row, col] ^= 1
            file.write(values, band)

    monkeypatch.setattr(rasterio.shutil, "copy", copy)
    plan, parts, _, _ = filled(tmp_path)
    with pytest.raises(WriteError, match=told(tmp_path, "it was written incompletely", 2.4 * HEIGHT * WIDTH * 2)):
        write_map(plan, parts, tmp_path / "map.tif", TAGS)


def test_a_disk_that_is_too_small_is_said_before_anything_is_written(tmp_path, monkeypatch):
    plan, parts, _, _ = filled(tmp_path)
    needed = int(2.4 * HEIGHT * WIDTH * 2)
    space = namedtuple("space", "free")
    monkeypatch.setattr(writing, "disk_usage", lambda path: space(needed if path == tmp_path else 0))
    write_map(plan, parts, tmp_path / "map.tif", TAGS)
    (tmp_path / "map.tif").unlink()
    with pytest.raises(WriteError):  # three bytes a pixel
        write_probabilities(plan, parts, tmp_path / "map.tif", TAGS)
    monkeypatch.setattr(writing, "disk_usage", lambda path: space(needed - 1))
    with pytest.raises(WriteError, match=told(tmp_path, "No space left on device", needed)):
        write_map(plan, parts, tmp_path / "map.tif", TAGS)
    assert not (tmp_path / "map.tif").exists()
    monkeypatch.setattr(writing, "disk_usage", lambda path: space(5e9))
    plan.dtype = "uint16"
    plan.box = plan.box._replace(grid=plan.box.grid._replace(height=100_000, width=50_000))
    with pytest.raises(WriteError, match=told(tmp_path, "No space left on device", 48e9)):
        write_map(plan, parts, tmp_path / "map.tif", TAGS)
