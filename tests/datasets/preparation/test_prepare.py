"""The command on small images of known values, from its options to the bytes in the root."""

import json
import os
import re
import signal
from datetime import date
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pytest
from affine import Affine
from rasterio.crs import CRS
from rasterio.warp import transform
from shapely import box

from datasets.catalog import Selection, open_labelled, open_unlabelled
from datasets.classmap import CDL20, ClassMap, read_classmap, write_classmap
from datasets.images import Images
from datasets.preparation import assemble, extract, pictures
from datasets.preparation import root as root_module
from datasets.prepare import main
from datasets.store import Store
from tests.support.imagery import ORIGIN, UTM, days_of, value_of, write_images, write_raster

SIZE, DATES = 60, days_of(12)
DOYS = np.array([day.timetuple().tm_yday for day in DATES])
THIRTY = ORIGIN @ Affine.scale(3) if hasattr(Affine, "__matmul__") else ORIGIN * Affine.scale(3)
LABELLED = ("train", "valid", "eval")


def codes_of(size=20):
    """Fields of 4 x 4 label pixels with the codes 1, 5, 176 and 99 (Other) in turn."""
    row, col = np.mgrid[:size, :size] // 4
    return np.array([1, 5, 176, 99], np.uint8)[(row + 2 * col) % 4]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Images of 60 x 60 pixels, labels of 20 x 20, sure in the left half, and fields; tests must not write to it."""
    folder = tmp_path_factory.mktemp("place")
    row, col = np.mgrid[:SIZE, :SIZE]

    def lost(number):  # the lower left corner has 4 observations, pixel (1, 1) none
        return ((row > 50) & (col < 10) & (number >= 4)) | ((row == 1) & (col == 1))

    write_images(folder / "images", SIZE, SIZE, DATES, lost=lost)
    write_raster(folder / "labels.tif", codes_of(), THIRTY)
    confidence = np.full((20, 20), 95, np.uint8)
    confidence[:, :10] = 96
    write_raster(folder / "confidence.tif", confidence, THIRTY)
    write_fields(folder / "fields.gpkg")
    return folder


def write_fields(path):
    """25 fields of 12 x 12 pixels side by side, their crops in turn, the last column named by split."""
    shapes, crops, parts = [], [], []
    for row in range(5):
        for col in range(5):
            (west, north), (east, south) = (ORIGIN * (12 * (col + d), 12 * (row + d)) for d in (0, 1))
            shapes.append(box(west, south, east, north))
            crops.append(["Corn", "Soybeans", "Hops"][(row + col) % 3])
            parts.append(LABELLED[row % 3])
    columns = {"crop": crops, "part": parts, "name": [f"f{i}" for i in range(25)]}
    geopandas.GeoDataFrame(columns, geometry=shapes, crs="EPSG:32614").to_file(path)


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    """Many windows in small images; and no pictures, which take most of the time of a small run."""
    monkeypatch.setattr(extract, "window_shape", lambda images: (16, 16))
    monkeypatch.setattr(pictures, "available", lambda: False)


def labelled(place, out, *more):
    return ["labelled", "--images", place / "images", "--labels", place / "labels.tif", "--year", "2019",
            "--block-size", "150", "--out", out, "--quiet", *more]  # fmt: skip


def unlabelled(place, out, *more):
    return ["unlabelled", "--images", place / "images", "--year", "2019", "--out", out, "--quiet", *more]


def polygons(place, out, *more):
    return ["polygons", "--images", place / "images", "--polygons", place / "fields.gpkg", "--label", "crop",
            "--year", "2019", "--block-size", "150", "--out", out, "--quiet", *more]  # fmt: skip


def run(arguments):
    main([str(argument) for argument in arguments])


def refused(arguments, capsys) -> str:
    """The one line that the command ends with, and nothing made."""
    with pytest.raises(SystemExit) as exit_:
        run(arguments)
    line = capsys.readouterr().err
    assert exit_.value.code == 2 and line.startswith("error: ") and line.count("\n") == 1
    return line


def series_of(root, split, year=2019):
    """index.csv with the first band and the days of each series."""
    store = Store.open(Path(root) / str(year) / split)
    store.validate()
    index = store.index.copy()
    index["first"] = [store.series(i)[0][:, 0].tolist() for i in range(len(store))]
    index["last"] = [store.series(i)[0][:, 9].tolist() for i in range(len(store))]
    index["days"] = [store.series(i)[1].tolist() for i in range(len(store))]
    return index


def all_series(root, year=2019):
    return pd.concat([series_of(root, split, year).assign(split=split) for split in LABELLED], ignore_index=True)


def check_values(index):
    """Every series is that of its own pixel."""
    for line in index.itertuples():
        assert line.days == DOYS[: len(line.days)].tolist()
        assert line.first == value_of(line.row, line.col, DOYS[: len(line.days)]).tolist()
        assert line.last == [value + 9 for value in line.first]
        assert (line.x, line.y) == ORIGIN * (line.col + 0.5, line.row + 0.5)


def everything(root):
    files = [path for path in sorted(Path(root).rglob("*")) if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


# -- labelled ----------------------------------------------------------------------------------------------------------


def test_a_series_is_that_of_the_pixel_at_the_centre_of_its_label(place, tmp_path, capsys):
    run(labelled(place, tmp_path / "root", "--confidence", place / "confidence.tif", "--site", "Harvey"))
    index = all_series(tmp_path / "root")
    codes = codes_of()
    expected = {
        (3 * r + 1, 3 * c + 1) for r in range(1, 19) for c in range(1, 10)
        if r % 4 in (1, 2) and c % 4 in (1, 2) and not (3 * r + 1 > 50 and 3 * c + 1 < 10)
    }  # fmt: skip
    assert set(zip(index["row"], index["col"], strict=True)) == expected and len(index) == len(expected)
    assert index["code"].tolist() == codes[index["row"] // 3, index["col"] // 3].tolist()
    assert index["label"].tolist() == CDL20.label_of(index["code"]).tolist()
    assert set(index["region"]) == {"Harvey"}
    check_values(index)
    printed = capsys.readouterr().out
    assert "label pixels: 50 of 400 used; left out: 200 confidence of 95 or less, 150 3 x 3 neighbourhood" in printed
    assert "pixels: 46 of 50 used; left out: 4 pixels with too few observations" in printed
    table = [line.split() for line in printed.splitlines() if line.startswith("all ")]
    assert table == [["all", *(str((index["split"] == split).sum()) for split in LABELLED), "46"]]


def test_blocks_go_whole_to_a_split_and_are_those_of_their_coordinates(place, tmp_path):
    run(labelled(place, tmp_path / "root"))
    index = all_series(tmp_path / "root")
    assert (index.groupby("block")["split"].nunique() == 1).all() and set(index["split"]) == set(LABELLED)
    names = [f"{int(x // 150)}_{int(y // 150)}" for x, y in zip(index["x"], index["y"], strict=True)]
    assert index["block"].tolist() == names and len(set(names)) == 15
    for code, some in index.groupby("code"):
        if some["block"].nunique() >= 3:
            assert set(some["split"]) == set(LABELLED), code


def test_what_was_read_is_kept_in_meta_json(place, tmp_path):
    run(labelled(place, tmp_path / "root", "--site", "A", "--confidence", place / "confidence.tif"))
    sites = json.loads((tmp_path / "root" / "2019" / "train" / "meta.json").read_text())["provenance"]["sites"]
    meta = sites["A"]
    assert meta["command"] == "labelled" and meta["images"]["transform"] == list(ORIGIN)[:6]
    assert len(meta["images"]["files"]) == 12 and meta["images"]["crs"].startswith("PROJCS")
    assert [file["name"] for file in meta["inputs"]] == ["labels.tif", "confidence.tif"]
    assert meta["inputs"][0]["bytes"] == (place / "labels.tif").stat().st_size
    assert len(meta["inputs"][0]["blake2b"]) == 32
    assert meta["options"]["min_confidence"] == 95 and meta["options"]["seed"] == assemble.SEED
    assert {"rasterio", "numpy"} <= set(meta["images"]["versions"])


def test_without_confidence_that_part_of_the_rule_is_skipped_and_said(place, tmp_path, capsys):
    run(labelled(place, tmp_path / "root", "--dry-run"))
    printed = capsys.readouterr().out
    assert "no --confidence: labels are chosen by their neighbourhood alone" in printed
    assert "label pixels: 100 of 400 used" in printed


def test_all_pixels_of_a_label_can_be_taken(place, tmp_path):
    run(labelled(place, tmp_path / "root", "--all-pixels"))
    index = all_series(tmp_path / "root")
    row, col = np.mgrid[:SIZE, :SIZE]
    inside = np.isin(row // 3 % 4, (1, 2)) & np.isin(col // 3 % 4, (1, 2)) & ~((row > 50) & (col < 10))
    assert set(zip(index["row"], index["col"], strict=True)) == set(zip(row[inside], col[inside], strict=True))
    assert len(index) == inside.sum()
    check_values(index)


def test_labels_may_be_on_another_grid_and_crs(place, tmp_path):
    """Labels of degrees: every series carries the code of the label pixel around it, transformed point by point."""
    degrees = CRS.from_epsg(4326)
    (west,), (north,) = transform(UTM, degrees, [600_100], [4_199_900])
    grid = Affine(4e-4, 0, west, 0, -4e-4, north)
    codes = np.kron(np.array([[1, 5, 176], [5, 176, 1], [176, 1, 5]], np.uint8), np.ones((5, 5), np.uint8))
    labels = write_raster(tmp_path / "labels.tif", codes, grid, degrees)
    arguments = labelled(place, tmp_path / "root", "--min-observations", "1")
    arguments[arguments.index("--labels") + 1] = labels
    run(arguments)
    index = all_series(tmp_path / "root")
    xs, ys = transform(UTM, degrees, index["x"].tolist(), index["y"].tolist())
    for line, x, y in zip(index.itertuples(), xs, ys, strict=True):
        col, row = (int(np.floor(value)) for value in ~grid * (x, y))
        assert codes[row, col] == line.code
        (x,), (y,) = transform(degrees, UTM, *([value] for value in grid * (col + 0.5, row + 0.5)))
        assert max(abs(x - line.x), abs(y - line.y)) <= 5.001  # of the pixel's centre
    inside = [r * 3 + c for r in range(1, 14) for c in range(1, 14) if r % 5 in (1, 2, 3) and c % 5 in (1, 2, 3)]
    assert 20 < len(index) <= len(inside)


def test_at_most_so_many_of_a_class_are_taken_by_the_seed(place, tmp_path):
    roots = [tmp_path / name for name in "abc"]
    for root, seed in zip(roots, (1, 1, 2), strict=True):
        run(labelled(place, root, "--max-per-class", "9", "--seed", seed, "--min-observations", "1"))
    first, again, other = (all_series(root) for root in roots)
    assert (first["label"].value_counts() == 9).all() and first["label"].nunique() == 4
    chosen = [set(zip(index["row"], index["col"], strict=True)) for index in (first, again, other)]
    assert chosen[0] == chosen[1] != chosen[2]


def test_the_most_frequent_codes_can_be_the_classes(place, tmp_path):
    run(labelled(place, tmp_path / "root", "--classes", "auto", "--top", "2"))
    classmap = read_classmap(tmp_path / "root" / "classmapping2.csv")
    assert classmap.num_classes == 3 and all(name.startswith("code ") for name in classmap.names[:2])
    index = all_series(tmp_path / "root")
    assert set(index["label"]) == {0, 1, 2}
    assert set(index.loc[index["label"] < 2, "code"]) == set(classmap.codes[:2])


def test_labels_without_a_class_are_an_error_with_strict_and_else_other(place, tmp_path, capsys):
    line = refused(labelled(place, tmp_path / "root", "--strict"), capsys)
    assert "labels.tif: labels that are not in the class map: 99 (20); add them with --classes FILE" in line
    write_classmap(tmp_path / "c.csv", ClassMap.of([(str(c), c, (0, 0, c)) for c in (1, 5, 99, 176)]))
    run(labelled(place, tmp_path / "root", "--strict", "--classes", tmp_path / "c.csv"))
    assert set(all_series(tmp_path / "root")["label"]) == {0, 1, 2, 3}


def test_scripts_open_what_was_prepared(place, tmp_path):
    run(labelled(place, tmp_path / "root"))
    run(unlabelled(place, tmp_path / "root", "--count", "50"))
    splits = open_labelled(tmp_path / "root", 2019, Selection(use_all=True))
    assert sum(map(len, splits)) == 96 and len(open_unlabelled(tmp_path / "root", 2019)) == 50


# -- unlabelled --------------------------------------------------------------------------------------------------------


def test_unlabelled_series_are_of_all_pixels_with_enough_observations(place, tmp_path, capsys):
    run(unlabelled(place, tmp_path / "root", "--site", "A"))
    index = series_of(tmp_path / "root", "unlabelled")
    assert len(index) == 3600 - 90 - 1 and len(index[["row", "col"]].drop_duplicates()) == len(index)
    assert "label" not in index and set(index["region"]) == {"A"}
    check_values(index.iloc[::7])
    printed = capsys.readouterr().out
    assert "left out: 1 pixels without any observation, 90 pixels with too few observations" in printed
    assert "unlabelled series: A 3,509" in printed


def test_unlabelled_series_can_be_drawn_by_the_seed(place, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(unlabelled(place, tmp_path / name, "--count", "700", "--seed", seed))
    first, again, other = (series_of(tmp_path / name, "unlabelled") for name in "abc")
    assert len(first) == len(other) == 700 and first.equals(again.assign(region=first["region"]))
    assert not other["row"].equals(first["row"])
    assert 25 < first["row"].mean() < 34 and first["row"].max() > 50
    check_values(first)


def windows_read(monkeypatch):
    """A list to which every window that is read from now on is added."""
    windows, read_each = [], Images.read_each

    def counted(images, wanted):
        jobs = list(wanted)
        windows.extend(window for window, _ in jobs)
        return read_each(images, jobs)

    monkeypatch.setattr(Images, "read_each", counted)
    return windows


def test_only_windows_that_hold_wanted_pixels_are_read(place, tmp_path, monkeypatch):
    windows = windows_read(monkeypatch)
    run(unlabelled(place, tmp_path / "root", "--count", "2", "--min-observations", "1"))
    assert 1 <= len(windows) <= 4 and all(w.height <= 16 and w.width <= 16 for w in windows)
    assert sum(w.height * w.width for w in windows) < 4 * 256


def test_fewer_series_than_asked_for_are_what_there_is(place, tmp_path, capsys):
    run(unlabelled(place, tmp_path / "root", "--count", "3600"))
    assert len(series_of(tmp_path / "root", "unlabelled")) == 3509


# -- polygons ----------------------------------------------------------------------------------------------------------


def test_polygons_give_the_pixels_inside_them_and_are_never_on_both_sides(place, tmp_path):
    run(polygons(place, tmp_path / "root", "--id", "name", "--block-size", "250"))
    index = all_series(tmp_path / "root")
    check_values(index)
    assert (index.groupby("polygon")["split"].nunique() == 1).all()
    assert (index.groupby("block")["split"].nunique() == 1).all()
    names = [f"{int(x // 250)}_{int(y // 250)}" for x, y in zip(index["x"], index["y"], strict=True)]
    assert index["block"].tolist() == names
    field = index["row"] // 12 * 5 + index["col"] // 12
    assert index["polygon"].tolist() == [f"f{number}" for number in field]
    assert (index["row"] % 12).between(1, 10).all() and (index["col"] % 12).between(1, 10).all()
    assert index["code"].tolist() == [["Corn", "Soybeans", "Hops"][(n // 5 + n % 5) % 3] for n in field]
    assert set(index.loc[index["code"] == "Corn", "label"]) == {CDL20.names.index("Corn")}
    split_of = dict(zip(field, index["split"], strict=True))
    for number, split in split_of.items():  # fields that touch, corners too
        for other in (1, 4, 5, 6):
            if abs(number % 5 - (number + other) % 5) <= 1 and number + other in split_of:
                assert split_of[number + other] == split


def test_at_most_so_many_pixels_of_a_polygon_are_taken(place, tmp_path):
    run(polygons(place, tmp_path / "root", "--pixels-per-polygon", "7", "--buffer", "0", "--split-column", "part"))
    index = all_series(tmp_path / "root")
    assert (index.groupby("polygon").size() <= 7).all() and index["polygon"].nunique() == 25
    assert len(index) == 25 * 7 - (index["polygon"].value_counts() < 7).sum() * 7 + sum(
        n for n in index["polygon"].value_counts() if n < 7
    )
    assert index["split"].tolist() == [LABELLED[row // 12 % 3] for row in index["row"]]


def test_a_users_own_blocks_are_used_with_their_splits(place, tmp_path):
    (west, north), (middle, south), (east, _) = ORIGIN * (0, 0), ORIGIN * (20, 60), ORIGIN * (40, 0)
    shapes = [box(west, south, middle, north), box(middle, south, east, north)]
    path = tmp_path / "blocks.gpkg"
    columns = {"name": ["west", "east"], "split": ["eval", "train"]}
    geopandas.GeoDataFrame(columns, geometry=shapes, crs="EPSG:32614").to_file(path)
    run(labelled(place, tmp_path / "root", "--blocks", path))
    train, evaluation = (series_of(tmp_path / "root", split) for split in ("train", "eval"))
    assert set(train["block"]) == {"east"} and train["col"].between(20, 39).all()
    assert set(evaluation["block"]) == {"west"} and evaluation["col"].between(0, 19).all()
    assert not (tmp_path / "root" / "2019" / "valid").exists()


def test_text_labels_that_cdl_does_not_know_make_their_own_classes(place, tmp_path):
    fields = geopandas.read_file(place / "fields.gpkg")
    fields["crop"] = fields["crop"].map({"Corn": "mais", "Soybeans": "soja", "Hops": "hop"})
    fields.to_file(tmp_path / "fields.gpkg")
    arguments = polygons(place, tmp_path / "root", "--split-column", "part")
    arguments[arguments.index("--polygons") + 1] = tmp_path / "fields.gpkg"
    run(arguments)
    names = read_classmap(tmp_path / "root" / "classmapping3.csv").names
    index = all_series(tmp_path / "root")
    assert sorted(names[:3]) == ["hop", "mais", "soja"]
    assert index["code"].tolist() == [names[label] for label in index["label"]]


# -- growing and mistakes ----------------------------------------------------------------------------------------------


def test_a_root_grows_by_site_and_by_year(place, tmp_path, capsys):
    root = tmp_path / "root"
    run(labelled(place, root, "--site", "A"))
    first = everything(root / "2019" / "train")
    run(labelled(place, root, "--site", "B", "--seed", "5"))
    grown = series_of(root, "train")
    assert everything(root / "2019" / "train")["index.csv"].startswith(first["index.csv"])
    assert list(dict.fromkeys(grown["region"])) == ["A", "B"]
    header = [line for line in capsys.readouterr().out.splitlines() if line.startswith("class ")][-1]
    assert header.split() == "class A train A valid A eval B train B valid B eval all".split()
    write_images(tmp_path / "later", SIZE, SIZE, days_of(12, 2020))
    arguments = labelled(place, root, "--site", "A", "--year", "2020", "--images", tmp_path / "later")
    run(arguments)
    assert set(all_series(root, 2020)["region"]) == {"A"} and len(all_series(root, 2020)) == 100
    before = everything(root)
    line = refused(labelled(place, root, "--site", "A"), capsys)
    assert "2019/train: has series of the site 'A' already" in line
    assert line.rstrip().endswith("give another --site, --year or --out, or replace them with --overwrite")
    assert everything(root) == before


@pytest.mark.parametrize("command", [labelled, unlabelled, polygons])
def test_overwrite_replaces_a_site_and_gives_the_bytes_of_a_new_root(place, tmp_path, command):
    run(command(place, tmp_path / "root", "--seed", "7"))
    run(command(place, tmp_path / "root", "--overwrite"))
    run(command(place, tmp_path / "fresh" / "root"))
    assert everything(tmp_path / "root") == everything(tmp_path / "fresh" / "root")


def test_a_replacement_that_was_killed_is_continued(place, tmp_path):
    run(labelled(place, tmp_path / "root", "--seed", "7"))
    before = everything(tmp_path / "root")
    replacement = labelled(place, tmp_path / "root", "--overwrite")
    assert killed(replacement, kill_before_part(4)) == signal.SIGKILL
    left = everything(tmp_path / "root")
    assert before.items() <= left.items() and len(list(tmp_path.glob("root/.parts/*/*.part"))) == 4
    assert killed(replacement, kill_before_part(3)) == signal.SIGKILL
    assert len(list(tmp_path.glob("root/.parts/*/*.part"))) == 7
    assert killed(replacement, kill_instead_of(assemble, "_show")) == signal.SIGKILL
    run(replacement)
    run(labelled(place, tmp_path / "fresh" / "root"))
    assert everything(tmp_path / "root") == everything(tmp_path / "fresh" / "root")


@pytest.mark.parametrize(
    "command, more, message",
    [
        (labelled, ["--uniform", "19"], "no series is left of 400 label pixels; left out: 400 19 x 19 neighbourhood"),
        (labelled, ["--min-observations", "13"], "no series is left of 100 pixels; left out: 100 pixels with too few"),
        (labelled, ["--block-size", "9000"], "the series lie in 1 block(s)"),
        (labelled, ["--block-size", "-1"], "--block-size -1; expected metres, more than 0"),
        (labelled, ["--uniform", "4"], "a uniform neighbourhood of 4 x 4 pixels; expected an odd number"),
        (labelled, ["--workers", "0"], "--workers 0; expected 1 or more"),
        (labelled, ["--max-per-class", "0"], "--max-per-class 0; expected 1 or more"),
        (labelled, ["--min-observations", "0"], "--min-observations 0; expected 1 or more"),
        (labelled, ["--site", "a/b"], "--site 'a/b'; expected a name without / and \\"),
        (labelled, ["--classes", "absent.csv"], "absent.csv: no such file"),
        (labelled, ["--labels", "absent.tif"], "absent.tif: no such file"),
        (unlabelled, ["--count", "0"], "--count 0; expected 1 or more"),
        (polygons, ["--label", "kind"], "fields.gpkg: no column 'kind'; it has crop, part, name"),
        (polygons, ["--pixels-per-polygon", "0"], "--pixels-per-polygon 0; expected 1 or more"),
        (polygons, ["--buffer", "-60"], "no series is left of 25 polygons and points; left out: 25 nothing left of"),
        (polygons, ["--strict"], "fields.gpkg: labels that are not in the class map: Hops (800)"),
        (polygons, ["--split-column", "part", "--blocks", "b.gpkg"], "--split-column and --blocks both say"),
    ],
)
def test_a_mistake_is_one_line(place, tmp_path, capsys, command, more, message):
    assert message in refused(command(place, tmp_path / "root", *more), capsys)
    assert not (tmp_path / "root" / "2019").exists()


def test_an_unknown_subcommand_is_one_line(capsys):
    assert "invalid choice: 'lables'" in refused(["lables"], capsys)


def test_a_dry_run_says_what_would_be_read_and_makes_nothing(place, tmp_path, capsys):
    run(labelled(place, tmp_path / "root", "--dry-run"))
    printed = capsys.readouterr().out
    assert f"dates: {', '.join(map(str, DATES))}" in printed and "offset 0 for 12 of 12 images" in printed
    assert "grid: EPSG:32614, 10 m, 60 x 60 pixels" in printed
    assert "classes: the 20 of the Cropland Data Layer" in printed
    assert re.search(r"^all +\d+ +\d+ +\d+  100$", printed, re.M) and "16 blocks: train" in printed
    run(unlabelled(place, tmp_path / "root", "--count", "700", "--dry-run"))
    assert "expected: 700 series of 3,600 pixels, unlabelled" in capsys.readouterr().out
    assert not (tmp_path / "root").exists()


def test_small_images_have_small_blocks_unless_their_size_is_given(place, tmp_path, capsys):
    arguments = [argument for argument in labelled(place, tmp_path / "root") if argument not in ("--block-size", "150")]
    run(arguments)
    assert "blocks of 93.75 m: fewer than 24 of 3000 m fit on the images" in capsys.readouterr().out
    index = all_series(tmp_path / "root")
    names = [f"{int(x // 93.75)}_{int(y // 93.75)}" for x, y in zip(index["x"], index["y"], strict=True)]
    assert index["block"].tolist() == names
    of_site = json.loads((tmp_path / "root/2019/train/meta.json").read_text())["provenance"]["sites"]["root"]
    assert of_site["options"]["block_size"] == 93.75
    run([*arguments, "--site", "B", "--block-size", "150", "--dry-run"])
    assert "blocks of" not in capsys.readouterr().out


def test_few_blocks_are_said(place, tmp_path, capsys):
    run(labelled(place, tmp_path / "root", "--block-size", "300", "--dry-run"))
    printed = capsys.readouterr().out
    assert "4 blocks: " in printed and "smaller ones can, such as --block-size 75" in printed


# -- interruptions -----------------------------------------------------------------------------------------------------


def killed(arguments, monkeypatch_at) -> int:
    """Run the command in a process of its own that kills itself; returns what ended it."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        monkeypatch_at()
        try:
            run(arguments)
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1]


def kill_before_part(number):
    """SIGKILL instead of writing the n-th part from now on."""

    def prepare():
        write, written = extract.write_part, []

        def counted(*args):
            written.append(1)
            if len(written) > number:
                os.kill(os.getpid(), signal.SIGKILL)
            return write(*args)

        extract.write_part = counted

    return prepare


def kill_instead_of(module, name):
    def prepare():
        setattr(module, name, lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGKILL))

    return prepare


def kill_before_the_stores_take_their_places():
    settle = root_module._settle

    def killed_once_complete(root):
        if (root / root_module.ADDING / root_module.COMPLETE).exists():
            os.kill(os.getpid(), signal.SIGKILL)
        settle(root)

    root_module._settle = killed_once_complete


@pytest.mark.parametrize("command", [labelled, unlabelled, polygons])
def test_a_command_killed_again_and_again_ends_with_the_same_bytes(place, tmp_path, command):
    more = ["--site", "S", *(["--count", "900"] if command is unlabelled else [])]
    run(command(place, tmp_path / "whole", *more))
    root = tmp_path / "killed"
    steps = [kill_before_part(3), kill_before_part(4), kill_instead_of(assemble, "_pieces"),
             kill_before_the_stores_take_their_places,
             kill_instead_of(assemble, "_show"), kill_instead_of(assemble.pictures, "draw")]  # fmt: skip
    parts = []
    for step in steps:
        assert killed(command(place, root, *more), step) == signal.SIGKILL
        parts.append(len(list(root.glob(".parts/*/*.part"))))
    assert parts[:2] == [3, 7] and parts[2] >= 9
    run(command(place, root, *more))
    assert everything(root) == everything(tmp_path / "whole")
    assert not (root / ".parts").exists()


def test_the_number_of_processes_does_not_change_a_byte(place, tmp_path):
    run(labelled(place, tmp_path / "one", "--site", "S"))
    run(labelled(place, tmp_path / "two", "--site", "S", "--workers", "2"))
    assert everything(tmp_path / "one") == everything(tmp_path / "two")


def test_a_damaged_part_is_made_again(place, tmp_path):
    run(labelled(place, tmp_path / "whole", "--site", "S"))
    root = tmp_path / "root"
    killed(labelled(place, root, "--site", "S"), kill_before_part(5))
    parts = sorted(root.glob(".parts/*/*.part"))
    content = bytearray(parts[1].read_bytes())
    content[-9] ^= 4
    parts[1].write_bytes(content)
    parts[2].write_bytes(parts[2].read_bytes()[:-1])
    run(labelled(place, root, "--site", "S"))
    assert everything(root) == everything(tmp_path / "whole")


def test_only_the_windows_that_are_left_are_read_again(place, tmp_path, monkeypatch):
    root = tmp_path / "root"
    killed(unlabelled(place, root), kill_before_part(10))
    windows = windows_read(monkeypatch)
    run(unlabelled(place, root))
    assert len(windows) == 16 - 10


@pytest.mark.parametrize(
    "more, message",
    [
        (["--seed", "7"], "options.seed was 2019, is 7"),
        (["--min-observations", "3"], "options.min_observations was 10, is 3"),
        (["--offset", "-1000"], "images.offset"),
        (["--uniform", "1"], "options.uniform was 3, is 1"),
    ],
)
def test_other_options_do_not_continue_an_interrupted_run(place, tmp_path, capsys, more, message):
    root = tmp_path / "root"
    killed(labelled(place, root), kill_before_part(5))
    line = refused(labelled(place, root, *more), capsys)
    assert "holds parts of an interrupted run with other input" in line and message in line and "--overwrite" in line
    assert len(list(root.glob(".parts/*/*.part"))) == 5
    run(labelled(place, root, *more, "--overwrite"))
    run(labelled(place, tmp_path / "fresh" / "root", *more))
    assert everything(root) == everything(tmp_path / "fresh" / "root")


def test_images_that_changed_do_not_continue_an_interrupted_run(place, tmp_path, capsys):
    write_images(tmp_path / "images", SIZE, SIZE, DATES)
    arguments = labelled(place, tmp_path / "root", "--images", tmp_path / "images")
    killed(arguments, kill_before_part(5))
    write_images(tmp_path / "images", SIZE, SIZE, [date(2019, 1, 5)], lost=lambda number: np.ones((SIZE, SIZE), bool))
    assert re.search(r"images\.files\[0\]\.sha256 was", refused(arguments, capsys))


def test_an_interrupt_says_that_the_command_continues(place, tmp_path, capsys, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(extract, "write_part", interrupted)
    with pytest.raises(SystemExit) as exit_:
        run(labelled(place, tmp_path / "root"))
    assert exit_.value.code == 130 and "the same command continues where it was" in capsys.readouterr().err
