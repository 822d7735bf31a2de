import geopandas
import numpy as np
import pandas as pd
import pyogrio
import pytest
from affine import Affine
from rasterio.crs import CRS
from shapely import LineString, MultiPoint, MultiPolygon, Point, Polygon, box

from datasets.errors import DataError
from datasets.imagery.grid import Grid
from datasets.preparation import vectors
from tests.support.imagery import ORIGIN, UTM

GRID = Grid(UTM, ORIGIN, 40, 50)


def square(row, col, height, width):
    """The outline of these pixels."""
    (west, north), (east, south) = ORIGIN * (col, row), ORIGIN * (col + width, row + height)
    return box(west, south, east, north)


def write(path, shapes, crs="EPSG:32614", **columns):
    geopandas.GeoDataFrame(columns, geometry=shapes, crs=crs).to_file(path)
    return path


def features(tmp_path, shapes, labels, **options):
    return vectors.read_features(write(tmp_path / "f.gpkg", shapes, crop=labels), "crop", **options)


def found(samples, column="code"):
    return set(zip(samples.row.tolist(), samples.col.tolist(), samples.columns[column].tolist(), strict=True))


@pytest.mark.parametrize(
    "labels, expected",
    [(["Corn", " Rice "], ["Corn", "Rice"]), ([5, 7], [5, 7]), ([5.0, 7.0], [5, 7]), (["05", "7"], [5, 7]),
     (["5", "Corn"], ["5", "Corn"]), ([5.5, 7], ["5.5", "7.0"])],
)  # fmt: skip
def test_labels_are_codes_if_all_are_whole_numbers_else_text(tmp_path, labels, expected):
    read, left_out = features(tmp_path, [square(0, 0, 2, 2), square(5, 5, 2, 2)], labels)
    assert read.labels.tolist() == expected and not any(left_out.values())


def test_what_cannot_be_used_is_left_out_and_counted(tmp_path):
    shapes = [square(0, 0, 2, 2), square(5, 5, 2, 2), LineString([(0, 0), (1, 1)]), None, square(9, 9, 2, 2)]
    read, left_out = features(tmp_path, shapes, ["a", None, "b", "c", ""])
    assert read.labels.tolist() == ["a"] and left_out == {"without a label": 2, "neither polygon nor point": 2}
    assert read.ids.tolist() == [0]


def test_multipoints_are_points_and_a_multipolygon_is_one_polygon(tmp_path):
    points = MultiPoint([ORIGIN * (3.5, 2.5), ORIGIN * (8.5, 7.5)])
    path = write(
        tmp_path / "f.geojson", [points, MultiPolygon([square(20, 20, 1, 1), square(30, 30, 1, 1)])], crop=[1, 2],
        name=["p", "m"],
    )  # fmt: skip
    read, _ = vectors.read_features(path, "crop", id_column="name")
    samples, _ = vectors.pixels_in(read, GRID, path)
    assert found(samples) == {(2, 3, 1), (7, 8, 1), (20, 20, 2), (30, 30, 2)}
    assert read.ids.tolist() == ["p", "p", "m"] and len(set(samples.columns["shape"].tolist())) == 3


def test_a_pixel_lies_in_a_polygon_if_its_centre_does(tmp_path):
    (west, north), (east, south) = ORIGIN * (3.6, 2.4), ORIGIN * (6.6, 4.4)
    path = write(tmp_path / "f.gpkg", [box(west, south, east, north)], crop=[5])
    samples, left_out = vectors.pixels_in(vectors.read_features(path, "crop")[0], GRID, path)
    assert found(samples) == {(row, col, 5) for row in (2, 3) for col in (4, 5, 6)}
    assert not any(left_out.values())


@pytest.mark.parametrize("piece", [vectors.PIECE, 7])
@pytest.mark.parametrize("turn", [0, 30])
def test_pixels_are_those_that_a_plain_loop_finds_on_turned_grids(tmp_path, monkeypatch, turn, piece):
    monkeypatch.setattr(vectors, "PIECE", piece)
    grid = Grid(UTM, ORIGIN * Affine.rotation(turn), 30, 30)
    triangle = Polygon([grid.transform * corner for corner in ((-4, 3), (25, 8), (11, 35))])
    shapes = geopandas.GeoSeries([triangle], crs="EPSG:32614")
    path = write(tmp_path / "f.gpkg", shapes.to_crs("EPSG:4326"), "EPSG:4326", crop=[5])
    samples, _ = vectors.pixels_in(vectors.read_features(path, "crop")[0], grid, path)
    expected = {
        (row, col, 5) for row in range(30) for col in range(30)
        if triangle.contains(Point(grid.transform * (col + 0.5, row + 0.5)))
    }  # fmt: skip
    assert found(samples) == expected and len(expected) > 200


def test_the_buffer_is_of_metres_and_points_stay(tmp_path):
    shapes = [square(5, 5, 6, 6), square(20, 20, 2, 2), Point(ORIGIN * (1.5, 1.5))]
    read, _ = features(tmp_path, shapes, [1, 2, 3])
    shrunk, left_out = vectors.buffered(read, -10, GRID)
    assert left_out == {"nothing left of the polygon after --buffer -10": 1}
    samples, _ = vectors.pixels_in(shrunk, GRID, tmp_path)
    assert found(samples) == {(r, c, 1) for r in range(6, 10) for c in range(6, 10)} | {(1, 1, 3)}
    degrees = Grid(CRS.from_epsg(4326), Affine(1e-4, 0, -98, 0, -1e-4, 38), 10, 10)
    area = vectors.in_metres(vectors.buffered(read, -10, degrees)[0].shapes, GRID).geometry.area
    assert area.iloc[0] == pytest.approx(1600, rel=2e-3)
    assert vectors.buffered(read, 0, GRID)[0] is read


def test_polygons_of_different_labels_that_overlap_are_both_dropped(tmp_path):
    shapes = [square(0, 0, 5, 5), square(4, 4, 5, 5), square(20, 0, 5, 5), square(22, 2, 5, 5), square(0, 5, 4, 5),
              square(30, 30, 8, 8), square(32, 32, 2, 2), Point(ORIGIN * (33.5, 21.5))]  # fmt: skip
    read, _ = features(tmp_path, shapes, ["a", "b", "c", "c", "d", "e", "f", "g"])
    left, left_out = vectors.without_overlaps(read, GRID)
    assert left.labels.tolist() == ["c", "c", "d", "g"] and left_out == {"overlaps a polygon of a different label": 4}


def test_shared_pixels_count_for_the_first_polygon_and_not_at_all_with_different_labels(tmp_path):
    shapes = [square(0, 0, 3, 3), square(2, 2, 3, 3), Point(ORIGIN * (0.5, 0.5)), Point(ORIGIN * (60, 60))]
    read, _ = features(tmp_path, shapes, ["a", "a", "b", "c"])
    samples, left_out = vectors.pixels_in(read, GRID, tmp_path)
    assert left_out == {"shapes": 1, "in another of the same label": 1, "of several labels": 2}
    assert (2, 2, 0) in found(samples, "shape") and (0, 0) not in {place[:2] for place in found(samples)}
    assert len(samples) == 16


def test_neighbours_are_no_more_than_a_pixel_apart(tmp_path):
    shapes = [square(0, 0, 3, 3), square(0, 3, 3, 3), square(0, 7, 3, 3), square(0, 12, 3, 3), Point(ORIGIN * (0, 3.9))]
    read, _ = features(tmp_path, shapes, list("abcde"))
    pairs = {tuple(sorted(pair)) for pair in vectors.neighbours(read, GRID).T.tolist()}
    assert pairs == {(0, 1), (1, 2), (0, 4)}
    shrunk, _ = vectors.buffered(read, -10, GRID)
    assert {tuple(sorted(p)) for p in vectors.neighbours(shrunk, GRID, 10).T.tolist()} >= {(0, 1), (1, 2)}
    assert (2, 3) not in {tuple(sorted(p)) for p in vectors.neighbours(shrunk, GRID, 10).T.tolist()}


def test_a_split_column_may_be_in_any_case_and_holds_three_names(tmp_path):
    path = write(tmp_path / "f.gpkg", [square(0, 0, 2, 2)] * 2, crop=[1, 2], part=["Train", " eval"])
    assert vectors.read_features(path, "crop", split_column="part")[0].split.tolist() == ["train", "eval"]
    path = write(tmp_path / "g.gpkg", [square(0, 0, 2, 2)] * 2, crop=[1, 2], part=["train", "test"])
    with pytest.raises(DataError, match="g.gpkg: part of feature 1 is 'test'; expected train, valid or eval"):
        vectors.read_features(path, "crop", split_column="part")


def test_blocks_of_a_file_are_named_by_a_column_and_may_have_splits(tmp_path):
    shapes, pixels = [square(0, 0, 10, 10), square(0, 10, 10, 10)], (np.array([1, 1, 1]), np.array([1, 11, 30]))
    path = write(tmp_path / "b.gpkg", shapes)
    names, split = vectors.blocks_of_file(path, *pixels, GRID)
    assert names.tolist() == ["0", "1", ""] and split is None
    path = write(tmp_path / "c.gpkg", shapes, block=["west", "east"], split=["train", "EVAL"])
    names, split = vectors.blocks_of_file(path, *pixels, GRID)
    assert names.tolist() == ["west", "east", ""] and split.tolist() == ["train", "eval", ""]


def test_bad_vector_files_are_named(tmp_path):
    good = write(tmp_path / "f.gpkg", [square(0, 0, 2, 2)], crop=["a"], area=[1])
    with pytest.raises(DataError, match=r"f.gpkg: no column 'label'; it has crop, area"):
        vectors.read_features(good, "label")
    with pytest.raises(DataError, match=r"f.gpkg: no column 'geometry'; it has crop, area"):
        vectors.read_features(good, "geometry")
    with pytest.raises(DataError, match="absent.gpkg: no such file"):
        vectors.read_features(tmp_path / "absent.gpkg", "crop")
    (tmp_path / "text.gpkg").write_text("no polygons")
    with pytest.raises(DataError, match="text.gpkg: cannot be read as polygons or points"):
        vectors.read_features(tmp_path / "text.gpkg", "crop")
    pyogrio.write_dataframe(pd.DataFrame({"crop": ["a"], "x": [1]}), tmp_path / "table.gpkg")
    with pytest.raises(DataError, match="table.gpkg: a table without geometries"):
        vectors.read_features(tmp_path / "table.gpkg", "crop")
    nowhere = write(tmp_path / "n.shp", [square(0, 0, 2, 2)], None, crop=["a"])
    with pytest.raises(DataError, match="n.shp: has no CRS"):
        vectors.read_features(nowhere, "crop")
    far = write(tmp_path / "far.gpkg", [square(100, 0, 2, 2)], crop=["a"])
    with pytest.raises(DataError, match="far.gpkg: no overlap with the images; it covers x 600000 to 600020, .* x"):
        vectors.pixels_in(vectors.read_features(far, "crop")[0], GRID, far)


def test_geoparquet_is_read_too(tmp_path):
    path = tmp_path / "f.parquet"
    geopandas.GeoDataFrame({"crop": [3]}, geometry=[square(0, 0, 2, 2)], crs="EPSG:32614").to_parquet(path)
    assert vectors.read_features(path, "crop")[0].labels.tolist() == [3]
