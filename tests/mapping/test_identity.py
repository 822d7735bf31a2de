"""What a map is made of, and how two makings differ."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from affine import Affine

from datasets.images import open_images
from mapping import identity as identity_module
from mapping.area import Within
from mapping.identity import difference, digest, identity, model_file, sha256_of
from mapping.windows import Plan
from tests.support.image_files import ORIGIN, make_scene, write_dated, write_stack, write_tif, write_zarr
from tests.support.windows import plan_of


class Made(NamedTuple):
    """What a map is made of here."""

    folder: Path

    def plan(self, *, within: Path | None = None, skip_bad: bool = False, **options) -> Plan:
        images = open_images(self.folder / "images", skip_bad=skip_bad)
        return plan_of(images, within=within and Within(within, images.grid), **options)

    def identity(self, **options) -> dict:
        return identity(self.plan(**options), self.folder / "model.pth", self.folder / "images")


@pytest.fixture
def made(tmp_path) -> Made:
    write_dated(tmp_path / "images", make_scene(1, days=3, height=8, width=10))
    (tmp_path / "model.pth").write_bytes(b"weights")
    return Made(tmp_path)


def test_it_says_of_what_a_map_is_made(made):
    found = made.identity(size=64, smooth=3)
    assert found["model"] == {"file": "model.pth", "sha256": hashlib.sha256(b"weights").hexdigest()}
    assert found["classes"]["0"] == [3, "Corn", [1, 2, 3]] and list(found["classes"]) == ["0", "1", "2"]
    files = sorted((made.folder / "images").iterdir())
    assert list(found["images"]) == [file.name for file in files]
    first = found["images"][files[0].name]
    assert (first["bytes"], first["time_ns"]) == (files[0].stat().st_size, files[0].stat().st_mtime_ns)
    dates = {file.stem: file.stem.removeprefix("S2_") for file in files}
    assert found["dates"] == dates
    assert found["offsets"] == {name: [1.0, 0] for name in dates}
    assert "offsets" not in found["values"] and "scales" not in found["values"] and found["values"]["mask"] is None
    assert found["left out"] == {}
    assert found["grid"]["transform"] == [10, 0, 500_000, 0, -10, 4_200_000]
    assert (found["grid"]["height"], found["grid"]["width"]) == (8, 10) and "UTM zone 14N" in found["grid"]["crs"]
    options = {"min_observations": 1, "smooth": 3, "probabilities": False, "window": 64, "within": None}
    assert found["options"] == options
    assert json.loads(json.dumps(found)) == found  # plain values


def test_it_is_the_same_wherever_the_images_and_the_model_lie(made, tmp_path):
    before = made.identity()
    (tmp_path / "elsewhere").mkdir()
    for name in ("images", "model.pth"):
        (made.folder / name).rename(tmp_path / "elsewhere" / name)
    assert Made(tmp_path / "elsewhere").identity() == before


def test_a_file_is_named_without_its_folder(tmp_path):
    scene = make_scene(1, days=3, height=8, width=10)
    options = write_stack(tmp_path, scene)
    (path,) = tmp_path.iterdir()
    (tmp_path / "model.pth").write_bytes(b"weights")
    found = identity(plan_of(open_images(path, **options)), tmp_path / "model.pth", path)
    assert list(found["images"]) == [path.name]
    assert len(found["dates"]) == 3 and not any(str(tmp_path) in name for name in found["dates"])


def test_a_cube_of_many_files_counts_with_all_of_them(tmp_path):
    write_zarr(tmp_path / "data", make_scene(1, days=3, height=8, width=10))
    (tmp_path / "model.pth").write_bytes(b"weights")
    path = tmp_path / "data" / "cube.zarr"
    found = identity(plan_of(open_images(path)), tmp_path / "model.pth", path)
    assert all(not os.path.isabs(name) for name in found["images"])
    stats = [file.stat() for file in path.rglob("*") if file.is_file()]
    one = next(iter(found["images"].values()))
    assert one["bytes"] == sum(stat.st_size for stat in stats) > 1000
    assert one["time_ns"] == max(stat.st_mtime_ns for stat in stats)


def rewrite(made: Made, change: Callable[[np.ndarray], np.ndarray] = lambda values: values, **options) -> None:
    """Another first image, which keeps its size and time where it can."""
    scene = make_scene(1, days=3, height=8, width=10)
    path = made.folder / "images" / f"S2_{scene.dates[0]}.tif"
    time = path.stat().st_mtime_ns
    names = options.pop("names", ("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12"))
    write_tif(path, change(scene.values[0]), **{"transform": scene.transform, "names": names, **options})
    os.utime(path, ns=(time, time))


@pytest.mark.parametrize(
    "options",
    [
        {"transform": ORIGIN @ Affine.translation(1, 0)},
        {"transform": ORIGIN @ Affine.translation(0, 1)},
        {"crs": "EPSG:32615"},
        {"nodata": 7},
        {"names": ("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B12", "B11")},
        {"change": lambda values: values.astype(np.int16)},
        {"change": lambda values: np.ascontiguousarray(values.transpose(0, 2, 1))},
        {"tiled": True, "blockxsize": 16, "blockysize": 16},
    ],
)
def test_every_property_in_the_header_of_an_image_counts(options, made, monkeypatch):
    monkeypatch.setattr(identity_module, "_stat", lambda path: {})
    before = made.identity()["images"]
    rewrite(made)
    assert made.identity()["images"] == before
    rewrite(made, **options)
    now = made.identity()["images"]
    assert sum(now[name] != before[name] for name in before) == 1


def test_the_file_that_a_map_is_confined_to_counts(made):
    path = write_tif(made.folder / "crop.tif", np.ones((1, 8, 10), np.uint8))
    found = made.identity(within=path)["options"]["within"]
    stat = path.stat()
    assert found == {"file": str(path), "bytes": stat.st_size, "time_ns": stat.st_mtime_ns}


def test_bad_images_that_are_left_out_count(made):
    (made.folder / "images" / "S2_2019-12-30.tif").write_bytes(b"nothing")
    found = made.identity(skip_bad=True)
    assert list(found["left out"]) == ["0"] and "S2_2019-12-30.tif" in found["left out"]["0"]
    assert len(found["dates"]) == 3


def test_the_model_is_the_file_or_the_one_in_a_run_folder(tmp_path):
    assert model_file(tmp_path / "nothing") == tmp_path / "nothing"
    assert model_file(str(tmp_path)) == tmp_path
    for name in ("model_best.skops", "model_best.pth"):
        (tmp_path / name).write_text("x")
        assert model_file(tmp_path) == tmp_path / name
    assert model_file(tmp_path / "model_best.skops") == tmp_path / "model_best.skops"


def test_a_digest_is_of_the_whole_file(tmp_path, monkeypatch):
    monkeypatch.setattr(identity_module, "PIECE", 3)
    (tmp_path / "a").write_bytes(b"0123456789")
    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"0123456789").hexdigest()


def test_the_difference_is_said_with_what_was_and_what_is():
    old = {"model": {"file": "a", "sha256": "1"}, "classes": {"0": [1, "Corn"]}}
    assert difference(old, json.loads(json.dumps(old))) is None
    assert difference(old, {**old, "model": {"file": "a", "sha256": "2"}}) == "model: sha256 (1, now 2)"
    assert difference(old, {**old, "model": {"file": "b", "sha256": "2"}}) == "model: file and 1 more (a, now b)"
    assert difference(old, {**old, "model": {"sha256": "1"}}) == "model: file (a, now none)"
    assert difference(old, {**old, "model": {**old["model"], "new": 3}}) == "model: new (none, now 3)"
    assert difference(old, {**old, "grid": {"height": 3}}) == "grid: height (none, now 3)"
    three = {"a": 1, "b": 2, "c": 3}
    assert difference({"x": {}}, {"x": three}) == "x: a and 2 more (none, now 1)"
    both = {**old, "classes": {"0": [2, "Corn"]}, "model": {"file": "a", "sha256": "2"}}
    assert difference(old, both).startswith("model")


@pytest.mark.parametrize("length, shown", [(120, "x" * 120), (121, "x" * 117 + "...")])
def test_long_values_are_cut(length, shown):
    assert difference({"a": {"b": "x" * length}}, {"a": {"b": 0}}) == f"a: b ({shown}, now 0)"


def test_equal_maps_have_one_digest_whatever_the_order():
    one, other = digest({"a": 1, "b": {"c": 2, "d": 3}}), digest({"b": {"d": 3, "c": 2}, "a": 1})
    assert one == other and len(one) == 16 and one != digest({"a": 1, "b": {"c": 2, "d": 4}})
