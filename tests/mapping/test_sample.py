"""Drawing points: which pixels, how many of each class, how far apart, and in which files."""

import geopandas
import numpy as np
import pytest
from affine import Affine
from rasterio.transform import from_origin
from scipy.spatial.distance import pdist

from mapping import codes as codes_module
from mapping import sample
from mapping.codes import open_map
from tests.support.maps import DEGREES, LEGEND, NONE, ORIGIN, UTM, refused, write_map


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    monkeypatch.setattr(codes_module, "WINDOW", 16)


def field_codes(height=40, width=50):
    """Code 1 in 3 of 5 columns, 5 and 24 in one each; a corner without a class."""
    values = np.array([1, 1, 1, 5, 24], np.uint8)[np.arange(width) % 5] * np.ones((height, 1), np.uint8)
    values[:4, :10] = NONE
    return values


@pytest.fixture
def a_map(tmp_path):
    return write_map(tmp_path / "map.tif", field_codes())


def run(a_map, out, *more):
    sample.main([str(word) for word in ("--map", a_map, "--out", out, *more)])
    return geopandas.read_file(out)


def places(frame, transform=ORIGIN):
    """Row and column of each point, which lies in the centre of a pixel."""
    cols, rows = ~transform @ (frame.geometry.x.to_numpy(), frame.geometry.y.to_numpy())
    np.testing.assert_allclose([rows % 1, cols % 1], 0.5, atol=1e-4)
    return np.floor(rows).astype(int), np.floor(cols).astype(int)


def test_points_are_different_pixels_of_the_classes_in_proportion(a_map, tmp_path):
    frame = run(a_map, tmp_path / "points.gpkg", "--size", 100, "--floor", 10)
    rows, cols = places(frame)
    assert len(set(zip(rows.tolist(), cols.tolist(), strict=True))) == 100
    codes, counts = np.unique(field_codes()[rows, cols], return_counts=True)
    assert codes.tolist() == [1, 5, 24] and counts.tolist() == [60, 20, 20]
    assert frame.crs == UTM and frame["id"].tolist() == list(range(1, 101))


def test_the_class_is_hidden_unless_asked_for(a_map, tmp_path):
    assert list(run(a_map, tmp_path / "a.gpkg", "--size", 30)) == ["id", "geometry"]
    frame = run(a_map, tmp_path / "b.gpkg", "--size", 30, "--with-class")
    assert list(frame) == ["id", "map_code", "map_class", "geometry"]
    names = {entry.code: entry.name for entry in LEGEND}
    codes = field_codes()[places(frame)]
    assert frame["map_code"].tolist() == codes.tolist()
    assert frame["map_class"].tolist() == [names[code] for code in codes.tolist()]


def test_the_order_of_the_points_does_not_tell_their_class(a_map, tmp_path):
    code = run(a_map, tmp_path / "a.gpkg", "--size", 200, "--with-class")["map_code"].to_numpy()
    assert 60 < (np.diff(code) != 0).sum() < 199  # 2 in order of class


def test_equal_allocation_gives_each_class_as_many(a_map, tmp_path):
    frame = run(a_map, tmp_path / "a.gpkg", "--size", 90, "--allocation", "equal", "--with-class")
    assert frame["map_code"].value_counts().to_dict() == {1: 30, 5: 30, 24: 30}


def test_the_same_seed_draws_the_same_points_whatever_the_windows_and_another_seed_others(a_map, tmp_path, monkeypatch):
    first = run(a_map, tmp_path / "a.gpkg", "--size", 60)
    monkeypatch.setattr(codes_module, "WINDOW", 1024)
    again = run(a_map, tmp_path / "b.gpkg", "--size", 60)
    other = run(a_map, tmp_path / "c.gpkg", "--size", 60, "--seed", 1)
    assert first.geometry.geom_equals(again.geometry).all()
    assert first.geometry.geom_equals(other.geometry).mean() < 0.2


def test_every_pixel_of_a_class_is_drawn_equally_often(a_map):
    with open_map(a_map) as source:
        drawn = np.zeros((40, 50))
        for seed in range(300):
            for part in sample.draw(source, np.array([1, 5, 24]), np.array([100, 40, 0]), seed):
                drawn[tuple(part.T)] += 1
    for code, count in ((1, 100), (5, 40)):
        of_class = drawn[field_codes() == code]
        expected = 300 * count / of_class.size
        assert abs(of_class.mean() - expected) < 1e-9
        assert of_class.var() == pytest.approx(expected * (1 - count / of_class.size), rel=0.12)
    assert not drawn[(field_codes() == 24) | (field_codes() == NONE)].any()


def test_all_pixels_can_be_drawn(a_map, tmp_path):
    frame = run(a_map, tmp_path / "a.gpkg", "--size", 1960)
    assert len(set(zip(*places(frame), strict=True))) == 1960


def test_no_points_are_closer_than_the_least_distance(a_map, tmp_path):
    frame = run(a_map, tmp_path / "a.gpkg", "--size", 60, "--floor", 5, "--min-distance", 35)
    points = np.stack([frame.geometry.x, frame.geometry.y], axis=1)
    assert 35 <= pdist(points).min() < 45
    assert len(frame) == 60


def test_points_exactly_at_the_least_distance_may_stay(tmp_path):
    path = write_map(tmp_path / "map.tif", np.ones((2, 2), np.uint8))
    frame = run(path, tmp_path / "a.gpkg", "--size", 4, "--min-distance", 10)
    assert len(frame) == 4


def test_distances_are_metres_where_the_map_is_in_degrees(tmp_path):
    transform = from_origin(-100, 60, 0.001, 0.001)  # 111 m from north to south, 56 m from west to east
    path = write_map(tmp_path / "map.tif", np.ones((30, 60), np.uint8), transform=transform, crs=DEGREES)
    frame = run(path, tmp_path / "a.gpkg", "--size", 60, "--min-distance", 150).to_crs("EPSG:32614")
    points = np.stack([frame.geometry.x, frame.geometry.y], axis=1)
    assert 149 < pdist(points).min() < 225


@pytest.mark.parametrize("reserve", [1, 50])
def test_what_a_class_cannot_take_so_far_apart_goes_to_the_others(tmp_path, monkeypatch, reserve):
    monkeypatch.setattr(sample, "RESERVE", reserve)
    values = np.ones((40, 40), np.uint8)
    values[:2, :2] = 5  # four pixels, of which 30 m apart one fits
    path = write_map(tmp_path / "map.tif", values)
    frame = run(path, tmp_path / "a.gpkg", "--size", 20, "--floor", 4, "--min-distance", 30, "--with-class")
    assert frame["map_code"].value_counts().to_dict() == {1: 19, 5: 1}


def test_more_candidates_are_drawn_where_the_first_lie_too_close(tmp_path, monkeypatch):
    monkeypatch.setattr(sample, "RESERVE", 1)
    path = write_map(tmp_path / "map.tif", np.ones((40, 40), np.uint8))
    frame = run(path, tmp_path / "a.gpkg", "--size", 30, "--min-distance", 50)
    points = np.stack([frame.geometry.x, frame.geometry.y], axis=1)
    assert len(frame) == 30 and pdist(points).min() >= 50


def test_the_rarest_class_chooses_first(tmp_path):
    values = np.ones((9, 9), np.uint8)
    values[4, 4] = 5
    path = write_map(tmp_path / "map.tif", values)
    for seed in range(5):
        frame = run(path, tmp_path / f"{seed}.gpkg", "--size", 5, "--floor", 1, "--min-distance", 30, "--with-class",
                    "--seed", seed)  # fmt: skip
        assert (frame["map_code"] == 5).sum() == 1


def test_geojson_is_in_longitude_and_latitude(a_map, tmp_path):
    frame = run(a_map, tmp_path / "a.geojson", "--size", 20)
    assert frame.crs == DEGREES and frame.geometry.x.between(-99.1, -98.9).all()
    places(frame.to_crs(UTM))


def test_a_shapefile_appears_with_all_its_files_and_nothing_else_is_left(a_map, tmp_path):
    assert len(run(a_map, tmp_path / "points.shp", "--size", 20)) == 20
    found = {file.name for file in tmp_path.iterdir()} - {"map.tif"}
    assert found == {f"points.{suffix}" for suffix in ("shp", "shx", "dbf", "prj", "cpg")}


def test_a_rotated_map_gives_the_centres_of_its_pixels(tmp_path):
    transform = ORIGIN @ Affine.rotation(30)
    path = write_map(tmp_path / "map.tif", field_codes(), transform=transform)
    rows, cols = places(run(path, tmp_path / "a.gpkg", "--size", 50), transform)
    assert set(field_codes()[rows, cols].tolist()) == {1, 5, 24}


def test_code_0_is_no_class_of_a_map_that_does_not_name_it(tmp_path):
    values = field_codes()
    values[values == NONE] = 0
    path = write_map(tmp_path / "map.tif", values, nodata=None, legend=LEGEND[:2])
    frame = run(path, tmp_path / "a.gpkg", "--size", 50, "--with-class")
    assert set(frame["map_code"]) == {1, 5, 24}
    assert set(frame["map_class"]) == {"Corn", "Soybeans", "24"}


def test_code_0_is_a_class_of_a_map_that_names_it_other(tmp_path):
    values = field_codes()
    values[values == NONE] = 0
    path = write_map(tmp_path / "map.tif", values, nodata=None)
    frame = run(path, tmp_path / "a.gpkg", "--size", 50, "--with-class")
    assert "Other" in set(frame["map_class"])


def test_a_file_of_points_is_not_replaced_unless_asked_for(a_map, tmp_path, capsys):
    out = tmp_path / "a.gpkg"
    run(a_map, out, "--size", 20)
    before = out.read_bytes()
    line = refused(sample.main, ["--map", a_map, "--out", out, "--size", 30], capsys)
    assert "a.gpkg: exists already; give another --out, or --overwrite" in line and out.read_bytes() == before
    assert len(run(a_map, out, "--size", 30, "--overwrite")) == 30


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["--size", "2"], "2 points for a map of 3 classes"),
        (["--size", "5000"], "can have 1,960 points"),
        (["--size", "60", "--min-distance", "200"], "at least 200 m apart, 60 points for a map of 3 classes"),
        (["--size", "0"], "--size"),
        (["--size", "10", "--allocation", "some"], "--allocation"),
        (["--size", "10", "--min-distance", "-1"], "below 0"),
    ],
)
def test_a_sample_that_cannot_be_drawn_is_refused(a_map, tmp_path, capsys, more, reason):
    assert reason in refused(sample.main, ["--map", a_map, "--out", tmp_path / "a.gpkg", *more], capsys)
    assert not (tmp_path / "a.gpkg").exists()


@pytest.mark.parametrize(
    ("out", "reason"),
    [
        ("a.unknown", "a.unknown: no format for points and polygons"),
        ("a.csv", "no format"),
        ("b/a.gpkg", "b: no such folder"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_and_leaves_nothing(a_map, tmp_path, capsys, out, reason):
    assert reason in refused(sample.main, ["--map", a_map, "--out", tmp_path / out, "--size", 10], capsys)
    assert {file.name for file in tmp_path.iterdir()} == {"map.tif"}


@pytest.mark.parametrize("kind", ["missing", "text", "no CRS", "empty", "fractions"])
def test_a_file_that_is_no_map_is_refused(tmp_path, capsys, kind):
    path = tmp_path / "map.tif"
    if kind == "text":
        path.write_text("no raster")
    elif kind == "no CRS":
        write_map(path, field_codes(), crs=None)
    elif kind == "empty":
        write_map(path, np.full((3, 3), NONE, np.uint8))
    elif kind == "fractions":
        write_map(path, np.full((3, 3), 1.5, np.float32))
    reason = {"missing": "no such file", "text": "cannot be read as a raster", "no CRS": "has no CRS",
              "empty": "no pixel with a class", "fractions": "holds 1.5; expected class codes"}[kind]  # fmt: skip
    line = refused(sample.main, ["--map", path, "--out", tmp_path / "a.gpkg", "--size", 10], capsys)
    assert f"{path}: {reason}" in line or reason in line and str(path) in line
