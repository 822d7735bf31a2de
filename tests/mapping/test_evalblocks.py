"""Which pixels of a map lie in the eval blocks of a data root."""

import json

import numpy as np
import pandas as pd
import pytest
from rasterio.crs import CRS
from rasterio.transform import from_origin
from rasterio.warp import transform as warp_points

from datasets.errors import DataError
from datasets.imagery.grid import Grid
from datasets.preparation.split import block_of
from datasets.store import StoreWriter
from mapping import assess
from mapping.evalblocks import EvalBlocks
from tests.support.maps import DEGREES, ORIGIN, UTM, refused, write_map

GRID = Grid(CRS.from_user_input(UTM), ORIGIN, 60, 60)  # 600 m; blocks of 200 m
ROWS, COLS = np.mgrid[:60, :60]
X, Y = GRID.centres(ROWS, COLS)
BLOCKS = block_of(X.ravel(), Y.ravel(), 200).reshape(60, 60)
OPTIONS = {"block_size": 200.0}


def write_split(root, split, places, *, year=2019, site="Harvey", crs=UTM, options=OPTIONS, names=None, grid=GRID):
    """A store of one series a place (row, column), as datasets.prepare writes it, named by its block."""
    rows, cols = np.array(places).T
    x, y = grid.centres(rows, cols)
    blocks = names if names is not None else block_of(x, y, 200)
    images = {"crs": CRS.from_user_input(crs).to_wkt(), "transform": list(grid.transform)[:6],
              "height": grid.height, "width": grid.width}  # fmt: skip
    provenance = {"sites": {site: {"options": options, "images": images}}}
    count = len(rows)
    with StoreWriter(root / str(year) / split, provenance=provenance) as writer:
        writer.append(
            np.ones((count, 10)), np.ones(count), np.ones(count, int),
            {"label": np.zeros(count, int), "region": [site] * count, "block": blocks, "row": rows, "col": cols, "x": x,
             "y": y},
        )  # fmt: skip
    return root


def contained(root, grid=GRID):
    blocks = EvalBlocks(root, grid)
    rows, cols = np.arange(grid.height)[:, None], np.arange(grid.width)[None, :]
    return blocks.contain(rows, cols), blocks


def test_whole_blocks_of_eval_count_and_those_of_train_and_valid_do_not(tmp_path):
    write_split(tmp_path, "eval", [(3, 3), (30, 50), (31, 50)])
    write_split(tmp_path, "train", [(30, 3)])
    write_split(tmp_path, "valid", [(50, 50)])
    found, blocks = contained(tmp_path)
    np.testing.assert_array_equal(found, np.isin(BLOCKS, [BLOCKS[3, 3], BLOCKS[30, 50]]))
    assert found.sum() == 800 and blocks.notes == ["Harvey: 2 eval blocks of 200 m"]


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_block_that_another_year_trains_or_selects_on_does_not_count(tmp_path, split):
    write_split(tmp_path, "eval", [(3, 3), (30, 50)])
    write_split(tmp_path, split, [(3, 4)], year=2020)
    found, _ = contained(tmp_path)
    np.testing.assert_array_equal(found, BLOCKS == BLOCKS[30, 50])


def test_blocks_count_on_a_map_in_another_crs(tmp_path):
    write_split(tmp_path, "eval", [(3, 3), (30, 50)])
    (west, east), (south, north) = warp_points(UTM, DEGREES, [500_000, 500_600], [4_199_400, 4_200_000])
    grid = Grid(CRS.from_user_input(DEGREES), from_origin(west, north, 1e-4, 1e-4), 50, 60)
    found, _ = contained(tmp_path, grid)
    x, y = grid.centres(*np.mgrid[:50, :60])
    u, v = warp_points(DEGREES, UTM, x.ravel(), y.ravel())
    expected = np.isin(block_of(u, v, 200), [BLOCKS[3, 3], BLOCKS[30, 50]]).reshape(50, 60)
    assert expected.sum() > 100
    np.testing.assert_array_equal(found, expected)


def test_blocks_of_images_in_degrees_are_metres_at_their_latitude(tmp_path):
    grid = Grid(CRS.from_user_input(DEGREES), from_origin(-99, 38.4, 1e-4, 1e-4), 60, 60)
    along, across = 111_195 * np.cos(np.radians(38)), 111_195
    x, y = grid.centres(ROWS, COLS)
    names = block_of(x.ravel() * along, y.ravel() * across, 200).reshape(60, 60)
    write_split(tmp_path, "eval", [(30, 30)], crs=DEGREES, grid=grid, names=names[30:31, 30])
    found, _ = contained(tmp_path, grid)
    np.testing.assert_array_equal(found, names == names[30, 30])
    assert 100 < found.sum() < 500


@pytest.mark.parametrize("kind", ["names", "no size", "shared"])
def test_of_blocks_that_are_no_squares_of_eval_alone_the_eval_series_count(tmp_path, kind):
    places = [(3, 3), (3, 3), (30, 50)]
    names = ["north", "north", "south"] if kind == "names" else None
    write_split(tmp_path, "eval", places, names=names, options={} if kind == "no size" else OPTIONS)
    if kind == "shared":
        write_split(tmp_path, "train", [(4, 4), (31, 51)])
    found, blocks = contained(tmp_path)
    assert np.argwhere(found).tolist() == [[3, 3], [30, 50]]
    assert "Harvey: only the 2 pixels of eval series" in blocks.notes[0]


def test_each_site_counts_with_its_own_blocks(tmp_path):
    write_split(tmp_path, "eval", [(3, 3)])
    write_split(tmp_path, "train", [(30, 3)], year=2020, site="Adams")
    found, _ = contained(tmp_path)
    np.testing.assert_array_equal(found, BLOCKS == BLOCKS[3, 3])


def test_eval_series_outside_the_map_do_not_count(tmp_path):
    write_split(tmp_path, "eval", [(3, 3), (-5, 3), (3, 70)], options={})
    found, _ = contained(tmp_path)
    assert np.argwhere(found).tolist() == [[3, 3]]


@pytest.mark.parametrize("kind", ["nothing", "no eval", "simulated", "outside"])
def test_a_root_without_eval_blocks_is_refused(tmp_path, kind):
    if kind == "no eval":
        write_split(tmp_path, "train", [(3, 3)])
    elif kind == "simulated":
        with StoreWriter(tmp_path / "2019" / "eval") as writer:
            index = {"label": [0], "region": ["a"], "block": ["0_0"], "x": [1.0], "y": [1.0]}
            writer.append(np.ones((1, 10)), np.ones(1), [1], {name: np.array(value) for name, value in index.items()})
    elif kind == "outside":
        write_split(tmp_path, "eval", [(300, 3)], options={})
    reason = {"nothing": "no eval split", "no eval": "no eval split", "simulated": "do not say where they lie",
              "outside": "no eval block"}[kind]  # fmt: skip
    with pytest.raises(DataError, match=reason):
        EvalBlocks(tmp_path, GRID)


@pytest.mark.parametrize("truth", ["reference", "points"])
def test_an_assessment_keeps_to_the_eval_blocks(tmp_path, capsys, monkeypatch, truth):
    monkeypatch.setattr("utils.results.figures.available", lambda: False)
    from tests.support.maps import centre, write_features

    write_split(tmp_path / "root", "eval", [(3, 3)])
    codes = np.where(COLS % 2, 1, 5).astype(np.uint8)
    write_map(tmp_path / "map.tif", codes)
    write_map(tmp_path / "truth.tif", codes, legend=None)
    places = [(3, 3), (30, 30), (4, 4)]
    write_features(tmp_path / "points.gpkg", [centre(*place) for place in places], crop=[1, 1, 5])
    words = ["--reference", "truth.tif"] if truth == "reference" else ["--points", "points.gpkg", "--label", "crop"]
    words = [str(tmp_path / word) if "." in word else word for word in words]
    assess.main(["--map", str(tmp_path / "map.tif"), "--blocks", str(tmp_path / "root"), "--out", str(tmp_path / "out"),
                 *words])  # fmt: skip
    overall = json.loads((tmp_path / "out" / "overall.json").read_text())
    samples, outside = (400, 3200) if truth == "reference" else (2, 1)
    assert (overall["samples"], overall["left_out"]) == (samples, {"outside the eval blocks": outside})
    assert "--blocks: Harvey: 1 eval blocks of 200 m" in capsys.readouterr().out
    assert pd.read_csv(tmp_path / "out" / "classes.csv")["pixels"].sum() == 3600  # the weights are of the whole map
    assert "outside the eval blocks" in refused(
        assess.main, ["--map", tmp_path / "map.tif", "--blocks", tmp_path / "root", "--out", tmp_path / "b", "--label",
                      "crop", "--points", write_features(tmp_path / "far.gpkg", [centre(50, 50)], crop=[1])], capsys
    )  # fmt: skip
