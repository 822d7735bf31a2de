"""`datasets.simulate --scene`: files that agree with each other, the same bytes for a seed, clear refusals."""

from __future__ import annotations

import subprocess
import sys
from datetime import date
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from rasterio.features import rasterize
from rasterio.warp import transform

from datasets import simulate as module
from datasets.errors import DataError
from datasets.simulate import simulate_scene
from datasets.simulation.landscape import ScenePlan, frame, section
from datasets.simulation.legend import COVERS
from datasets.simulation.render import Window, at_edge, ground_of, render
from datasets.simulation.scene import (
    BANDS,
    _polygon_table,
    run_task,
    tasks_of,
    write_labels,
    write_polygons,
    write_truth,
)
from datasets.simulation.sites import HARVEY, SITES

SIZE, SEED = 60, 5
SMALL = dict(site="harvey", year=2019, size=SIZE, seed=SEED, progress=False)
SCENE = ["--scene", "x", "--site", "Harvey", "--year", "2019"]
PLAN = ScenePlan(SEED, SITES.index(HARVEY), 2019, SIZE)


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    return simulate_scene(tmp_path_factory.mktemp("scenes") / "scene", **SMALL)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read(1)


def test_a_scene_is_these_files(scene):
    days = [date.fromordinal(date(2019, 1, 1).toordinal() + int(day) - 1) for day in PLAN.weather.days]
    images = {f"images/S2_{day}.tif" for day in days}
    assert set(contents(scene)) == images | {"cdl.tif", "confidence.tif", "truth.tif", "fields.gpkg"}
    assert len(images) == len(days) > 50


def test_images_are_ten_bands_and_the_scene_classes_on_the_grid_of_the_site(scene):
    at = frame(HARVEY)
    for path in (scene / "images").iterdir():
        with rasterio.open(path) as file:
            assert file.descriptions == BANDS == tuple("B2 B3 B4 B5 B6 B7 B8 B8A B11 B12 SCL".split())
            assert set(file.dtypes) == {"uint16"} and file.nodata == 0 and file.crs.to_epsg() == 32614
            assert file.transform[:6] == (10, 0, at.left, 0, -10, at.top) and file.shape == (SIZE, SIZE)
            assert file.profile["tiled"] and file.compression.name == "deflate"


def test_image_files_hold_what_is_rendered(scene):
    for number in (0, 11, len(PLAN.weather.days) - 1):
        rendered = render(PLAN, Window(0, 0, SIZE, SIZE), [number])[0]
        path = sorted((scene / "images").iterdir())[number]
        with rasterio.open(path) as file:
            np.testing.assert_array_equal(file.read(), rendered)


def test_a_scene_of_several_windows_has_them_in_their_places(tmp_path, monkeypatch):
    from datasets.simulation import scene as writing

    monkeypatch.setattr(writing, "SIDE", 32)
    folder, plan = tmp_path, ScenePlan(SEED, PLAN.site, 2019, 72)
    tasks = tasks_of(plan, folder)
    for task in (tasks[0], next(task for task in tasks if task.write is write_truth)):
        run_task(task)
    path = sorted((folder / "images").iterdir())[3]
    for window in (Window(32, 0, 32, 32), Window(64, 32, 8, 32)):
        with rasterio.open(path) as file:
            part = file.read(window=((window.row, window.row + window.height), (window.column, window.column + 32)))
        np.testing.assert_array_equal(part, render(plan, window, [3])[0])
    whole = ground_of(plan, Window(0, 0, 72, 72))
    np.testing.assert_array_equal(read(folder / "truth.tif"), whole.code[whole.number])


def test_truth_is_the_code_of_the_polygon_at_the_centre(scene):
    with rasterio.open(scene / "truth.tif") as file:
        truth, grid, palette = file.read(1), file.transform, file.colormap(1)
        assert file.nodata == 0 and file.dtypes == ("uint8",)
    assert (truth > 0).all()
    fields = geopandas.read_file(scene / "fields.gpkg")
    painted = rasterize(zip(fields.geometry, fields.code, strict=True), truth.shape, transform=grid, dtype="uint8")
    assert (painted == truth).mean() > 0.999
    assert all(palette[code][:3] == COVERS[code][1] for code in np.unique(truth))


def test_truth_and_polygons_say_what_grows_where_the_labels_are_wrong(tmp_path):
    """A fifth of the scene of seed 25 is a field whose label is wrong as a whole."""
    plan = ScenePlan(25, PLAN.site, 2019, SIZE)
    for task in tasks_of(plan, tmp_path):
        if task.write in (write_truth, write_polygons):
            run_task(task)
    ground = ground_of(plan, Window(0, 0, SIZE, SIZE), with_fields=False)
    wrong = (ground.code != ground.claimed)[ground.number]
    assert wrong.mean() > 0.1
    np.testing.assert_array_equal(read(tmp_path / "truth.tif"), ground.code[ground.number])
    area = geopandas.read_file(tmp_path / "fields.gpkg").dissolve("code").area / 100
    for code in np.unique(ground.code[ground.number[wrong]]):
        assert area[code] == pytest.approx((ground.code[ground.number] == code).sum(), rel=0.1)


@pytest.mark.parametrize("side, kept", [(9, 0), (11, 1), (20, 1)])
def test_polygons_that_cover_less_than_a_pixel_are_left_out(side, kept):
    polygon = section(PLAN, 0, -1).polygons[-1].representative_point()
    bounds = (polygon.x, polygon.y, polygon.x + side, polygon.y + side)
    assert len(_polygon_table(PLAN, [(0, -1)], bounds)) == kept


def test_polygons_have_kind_crop_and_code(scene):
    fields = geopandas.read_file(scene / "fields.gpkg")
    assert fields.crs.to_epsg() == 32614 and fields.field.is_unique
    assert set(fields.kind) <= {"field", "wild", "water", "farmstead", "road"} and "field" in set(fields.kind)
    assert all(COVERS[code][0] == crop for code, crop in zip(fields.code, fields.crop, strict=True))
    at = frame(HARVEY)
    left, bottom, right, top = fields.total_bounds
    assert (left, top) == pytest.approx((at.left, at.top)) and (right, bottom) == pytest.approx((left + 600, top - 600))
    assert fields.area.sum() == pytest.approx(600**2, rel=1e-3)


def test_labels_are_right_but_at_edges_and_at_the_stated_rates(tmp_path):
    for task in tasks_of(ScenePlan(SEED, PLAN.site, 2019, 240), folder := tmp_path):
        if task.write in (write_labels, write_truth):
            run_task(task)
    with rasterio.open(folder / "cdl.tif") as file, rasterio.open(folder / "confidence.tif") as sure:
        codes, confidence, grid = file.read(1), sure.read(1), file.transform
        assert file.crs.to_epsg() == sure.crs.to_epsg() == 5070 and file.transform == sure.transform
        assert file.res == (30, 30) and file.nodata == 0 and file.dtypes == sure.dtypes == ("uint8",)
        assert file.colormap(1)[24][:3] == (168, 112, 0)
    assert codes.min() > 0 and 1 <= confidence.min() and confidence.max() <= 100
    truth, at = read(folder / "truth.tif"), frame(HARVEY)
    rows, columns = np.indices(codes.shape)
    x, y = grid * (columns.ravel() + 0.5, rows.ravel() + 0.5)
    east, north = (np.array(v) for v in transform("EPSG:5070", "EPSG:32614", x, y))
    c, r = ((east - at.left) // 10).astype(int), ((at.top - north) // 10).astype(int)
    far = ~at_edge(truth)
    for _ in range(9):  # 100 m from any edge, three cells
        far = far & ~at_edge(far)
    inside = (r >= 0) & (r < 240) & (c >= 0) & (c < 240)
    interior = inside.copy()
    interior[inside] = far[r[inside], c[inside]]
    right = codes.ravel()[inside] == truth[r[inside], c[inside]]
    assert interior.sum() > 500
    right_inside = codes.ravel()[interior] == truth[r[interior], c[interior]]
    assert right_inside.mean() > 0.9 > 0.88 > right[~interior[inside]].mean() > 0.6
    assert confidence.ravel()[interior].mean() > confidence.ravel()[inside & ~interior].mean() + 5


def test_the_same_seed_gives_the_same_bytes_whatever_the_workers(scene, tmp_path):
    again = simulate_scene(tmp_path / "again", workers=2, **SMALL)
    assert contents(scene) == contents(again)


def test_another_seed_gives_another_scene(scene, tmp_path):
    for task in tasks_of(ScenePlan(SEED + 1, PLAN.site, 2019, SIZE), tmp_path)[-4:]:  # the last passes, and the rest
        run_task(task)
    other, one = contents(tmp_path), contents(scene)
    assert {"cdl.tif", "confidence.tif", "truth.tif", "fields.gpkg"} < set(other)
    assert all(other[name] != one.get(name) for name in other)


def test_an_interrupted_scene_leaves_nothing(tmp_path, monkeypatch):
    calls = []

    def interrupted(task):
        calls.append(task)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return run_task(task)

    monkeypatch.setattr(module, "run_task", interrupted)
    with pytest.raises(KeyboardInterrupt):
        simulate_scene(tmp_path / "data" / "scene", **SMALL)
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize(
    "wrong, text",
    [
        (dict(site="Atlantis"), "unknown site 'Atlantis'; expected one of Adams, Coahoma"),
        (dict(year=2015), "2019 to 2100"),
        (dict(size=29), "size 29; expected 30 to 20000 pixels"),
        (dict(size=20_001), "size 20001"),
        (dict(seed=-1), "seed -1"),
        (dict(workers=0), "0 workers"),
    ],
)
def test_what_cannot_be_is_one_clear_line(tmp_path, wrong, text):
    with pytest.raises(DataError, match=text) as error:
        simulate_scene(tmp_path / "x", **SMALL | wrong)
    assert "\n" not in str(error.value) and not (tmp_path / "x").exists()


def test_a_folder_that_exists_is_refused(scene):
    with pytest.raises(DataError, match="already exists; remove it or choose another --scene"):
        simulate_scene(scene, **SMALL)


@pytest.mark.parametrize("library", ["rasterio", "geopandas", "pyogrio"])
def test_a_missing_library_is_one_clear_line(tmp_path, monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(DataError, match=f"a scene needs {library}: pip install -r requirements-geo.txt"):
        simulate_scene(tmp_path / "x", **SMALL)
    assert not (tmp_path / "x").exists()


def refused(monkeypatch, capsys, *arguments: str) -> str:
    monkeypatch.setattr(sys, "argv", ["simulate", *arguments])
    with pytest.raises(SystemExit) as ended:
        module.main()
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    "arguments, text",
    [
        ([*SCENE, "--train", "5", "--eval", "1"], "--train, --eval: not for a scene"),
        ([*SCENE, "--out", "y"], "--out: not for a scene"),
        ([*SCENE, "--years", "2019"], "--years: not for a scene"),
        (["--scene", "x", "--year", "2019"], "--scene needs --site"),
        (["--scene", "x", "--site", "Harvey"], "--scene needs --year"),
        (["--site", "Harvey", "--size", "60"], "--site, --size: for a scene only; add --scene FOLDER"),
    ],
)
def test_options_of_a_scene_and_of_pools_do_not_mix(tmp_path, monkeypatch, capsys, arguments, text):
    monkeypatch.chdir(tmp_path)
    assert text in refused(monkeypatch, capsys, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_the_command_line(tmp_path):
    command = [sys.executable, "-m", "datasets.simulate", "--scene", str(tmp_path / "s"), "--site", "Coahoma"]
    command += ["--year", "2020", "--size", "30", "--seed", "3", "--workers", "2", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert read(tmp_path / "s" / "truth.tif").shape == (30, 30)
    assert all(path.name.startswith("S2_2020-") for path in (tmp_path / "s" / "images").iterdir())
