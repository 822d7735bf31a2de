"""Polygons with the classes of a map in them."""

import geopandas
import numpy as np
import pandas as pd
import pyogrio
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from mapping import fields, vectors
from mapping.codes import open_map
from mapping.vectors import on_map
from tests.support.maps import LEGEND, NONE, ORIGIN, UTM, pixel_box, refused, write_features, write_map

CODES = np.array([[1, 1, 5, 5, NONE], [1, 1, 5, 24, NONE], [1, 1, 5, 5, NONE], [1, 5, 5, 5, NONE]], np.uint8)
CONFIDENCE = (np.arange(20).reshape(4, 5) * 5).astype(np.uint8)


@pytest.fixture
def a_map(tmp_path):
    return write_map(tmp_path / "map.tif", CODES, CONFIDENCE)


def run(a_map, polygons, out, *more):
    fields.main([str(word) for word in ("--map", a_map, "--polygons", polygons, "--out", out, *more)])
    return geopandas.read_parquet(out) if out.suffix == ".parquet" else geopandas.read_file(out)


def test_a_polygon_gets_its_most_frequent_class_and_the_fractions_of_all(a_map, tmp_path):
    shapes = [pixel_box(0, 2, 2, 2), pixel_box(0, 0, 4, 2), pixel_box(0, 3, 2, 2), pixel_box(0, 4, 4, 1)]
    path = write_features(tmp_path / "fields.gpkg", shapes, farm=["a", "b", "c", "d"])
    found = run(a_map, path, tmp_path / "out.gpkg")
    assert list(found) == [
        "farm", "map_code", "map_class", "map_frac", "map_conf", "map_pixels", "map_f1", "map_f5", "map_f24", "geometry"
    ]  # fmt: skip
    assert found["map_code"].tolist()[:3] == [5, 1, 5] and pd.isna(found["map_code"][3])
    assert found["map_class"].tolist()[:3] == ["Soybeans", "Corn", "Soybeans"] and pd.isna(found["map_class"][3])
    assert found["map_pixels"].tolist() == [4, 8, 2, 0]
    np.testing.assert_allclose(found["map_frac"], [0.75, 0.875, 0.5, np.nan])
    np.testing.assert_allclose(found["map_f1"], [0, 0.875, 0, np.nan])
    np.testing.assert_allclose(found["map_f5"], [0.75, 0.125, 0.5, np.nan])
    np.testing.assert_allclose(found["map_f24"], [0.25, 0, 0.5, np.nan])
    np.testing.assert_allclose(found["map_conf"], [(10 + 15 + 35 + 40) / 4, 40, 27.5, np.nan])


def test_rows_keep_their_order_and_columns_in_every_format(a_map, tmp_path):
    rng = np.random.default_rng(0)
    shapes = [pixel_box(int(r), int(c), 1, 1) for r, c in rng.integers(0, 4, (30, 2))]
    columns = {"name": [f"n{i}" for i in rng.permutation(30)], "size": rng.random(30), "count": rng.integers(0, 9, 30)}
    path = write_features(tmp_path / "fields.gpkg", shapes, **columns)
    for suffix in (".gpkg", ".geojson", ".shp", ".parquet", ".fgb"):
        found = run(a_map, path, tmp_path / f"out{suffix}", *(["--overwrite"] if suffix == ".gpkg" else []))
        assert found["name"].tolist() == columns["name"], suffix
        np.testing.assert_allclose(found["size"], columns["size"])
        assert found["count"].tolist() == columns["count"].tolist()
        again = found.to_crs(UTM).geometry.centroid
        np.testing.assert_allclose(again.x, [shape.centroid.x for shape in shapes], atol=0.01)
        rows, cols = ((4_200_000 - again.y) // 10).astype(int), ((again.x - 500_000) // 10).astype(int)
        codes = CODES[rows, cols].astype(float)
        codes[codes == NONE] = np.nan
        np.testing.assert_array_equal(found["map_code"].astype(float), codes)


def test_of_classes_alike_often_the_lowest_code_counts(a_map, tmp_path):
    path = write_features(tmp_path / "fields.gpkg", [pixel_box(0, 1, 1, 2)])
    assert run(a_map, path, tmp_path / "out.gpkg")["map_code"].tolist() == [1]


def test_polygons_without_pixels_are_counted_and_named(a_map, tmp_path, capsys):
    tiny = shapely.box(500_001, 4_199_991, 500_004, 4_199_994)  # in a pixel, but not at its centre
    shapes = [tiny, pixel_box(0, 0, 1, 1), pixel_box(100, 100, 5, 5), None, shapely.Polygon()]
    path = write_features(tmp_path / "fields.gpkg", shapes)
    assert run(a_map, path, tmp_path / "out.gpkg")["map_pixels"].tolist() == [0, 1, 0, 0, 0]
    said = capsys.readouterr().out
    assert "1 of 5 polygons have pixels" in said and "4 have none" in said and "first rows: 0, 2, 3, 4" in said


def test_a_hole_and_the_parts_of_a_multipolygon_count_as_they_are(a_map, tmp_path):
    holed = pixel_box(0, 0, 4, 4) - pixel_box(0, 0, 4, 2)
    parts = shapely.MultiPolygon([pixel_box(0, 0, 1, 1), pixel_box(3, 3, 1, 1)])
    path = write_features(tmp_path / "fields.gpkg", [holed, parts])
    found = run(a_map, path, tmp_path / "out.gpkg")
    assert found["map_pixels"].tolist() == [8, 2] and found["map_f1"].tolist() == [0, 0.5]


def test_a_polygon_that_crosses_itself_has_the_pixels_in_its_parts(a_map, tmp_path):
    (west, north), (east, south) = (ORIGIN @ place for place in ((0, 0), (4, 4)))
    tie = shapely.Polygon([(west, north), (east, south), (east, north), (west, south)])
    found = run(a_map, write_features(tmp_path / "fields.gpkg", [tie]), tmp_path / "out.gpkg")
    assert 4 <= found["map_pixels"][0] <= 12  # the centres of 8 lie on its edges


def test_polygons_in_another_crs_are_brought_to_the_map(a_map, tmp_path):
    path = tmp_path / "fields.gpkg"
    frame = geopandas.GeoDataFrame({"a": [1]}, geometry=[pixel_box(0, 2, 2, 2)], crs=UTM).to_crs("EPSG:4326")
    frame.to_file(path)
    found = run(a_map, path, tmp_path / "out.gpkg")
    assert found["map_pixels"].tolist() == [4] and found.crs == "EPSG:4326"


def test_a_map_without_confidence_gives_none(tmp_path):
    path = write_features(tmp_path / "fields.gpkg", [pixel_box(0, 0, 1, 1)])
    assert "map_conf" not in run(write_map(tmp_path / "map.tif", CODES), path, tmp_path / "out.gpkg")


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 359),
    st.lists(st.tuples(st.floats(-3, 23), st.floats(-3, 18)), min_size=3, max_size=6, unique=True),
    st.sampled_from([7, 1 << 20]),
)
def test_counts_are_those_of_the_centres_in_the_polygon_on_any_grid(tmp_path_factory, angle, corners, piece):
    transform = ORIGIN @ Affine.rotation(angle)
    codes = np.random.default_rng(angle).choice([1, 5, 24, NONE], (15, 20)).astype(np.uint8)
    polygon = shapely.MultiPoint([transform @ corner for corner in corners]).convex_hull
    if polygon.geom_type != "Polygon":
        return
    rows, cols = np.mgrid[:15, :20]
    x, y = transform @ (cols + 0.5, rows + 0.5)
    inside = shapely.contains_xy(polygon, x, y)
    edge = shapely.distance(shapely.points(x, y), polygon.exterior) < 1e-3
    path = write_map(tmp_path_factory.mktemp("map") / "map.tif", codes, transform=transform)
    with pytest.MonkeyPatch.context() as patch, open_map(path) as source:
        patch.setattr(vectors, "PIECE", piece)
        counts, _ = fields.summary_of(source, polygon)
    for code in (1, 5, 24):
        exact = inside & (codes == code)
        assert (exact & ~edge).sum() <= counts.get(code, 0) <= (exact | edge & (codes == code)).sum()
    assert NONE not in counts


def test_a_second_map_takes_another_prefix(a_map, tmp_path, capsys):
    path = write_features(tmp_path / "fields.gpkg", [pixel_box(0, 0, 1, 1)])
    run(a_map, path, tmp_path / "one.gpkg")
    words = ["--map", a_map, "--polygons", tmp_path / "one.gpkg", "--out", tmp_path / "two.gpkg"]
    assert "has a column 'map_code' already; give another --prefix" in refused(fields.main, words, capsys)
    found = run(a_map, tmp_path / "one.gpkg", tmp_path / "two.gpkg", "--prefix", "m2_")
    assert found["map_code"].tolist() == found["m2_code"].tolist() == [1]


@pytest.mark.parametrize("kind", ["points", "no CRS", "elsewhere", "table", "missing", "empty", "exists"])
def test_polygons_that_cannot_be_used_are_refused_in_a_line(a_map, tmp_path, capsys, kind):
    path, out = tmp_path / "fields.gpkg", tmp_path / "out.gpkg"
    if kind == "points":
        write_features(path, [shapely.Point(0, 0)])
    elif kind == "no CRS":
        write_features(path, [pixel_box(0, 0, 1, 1)], crs=None)
    elif kind == "elsewhere":
        write_features(path, [pixel_box(500, 500, 1, 1)])
    elif kind == "table":
        path = tmp_path / "table.gpkg"
        pyogrio.write_dataframe(pd.DataFrame({"a": [1], "b": [2]}), path)
    elif kind == "empty":
        write_features(path, [])
    elif kind == "exists":
        write_features(path, [pixel_box(0, 0, 1, 1)])
        out.write_text("mine")
    reason = {"points": "feature 0 is a Point; expected Polygons", "no CRS": "has no CRS", "missing": "no such file",
              "elsewhere": "no polygon has a pixel of", "table": "a table without geometries", "empty": "no features",
              "exists": "exists already"}[kind]  # fmt: skip
    line = refused(fields.main, ["--map", a_map, "--polygons", path, "--out", out], capsys)
    assert reason in line
    assert out.exists() == (kind == "exists") and (kind != "exists" or out.read_text() == "mine")


def test_the_legend_names_codes_that_the_map_does_not(tmp_path):
    path = write_map(tmp_path / "map.tif", CODES, legend=LEGEND[:1])
    with open_map(path) as source:
        frame = geopandas.GeoDataFrame(geometry=[pixel_box(0, 2, 2, 2)], crs=UTM)
        table = fields.columns_of(source, on_map(frame, source.grid), [1, 5, 24])
    assert table["map_class"].tolist() == ["5"]
