"""Labelled polygons and points of any vector format, and the pixels of the images that lie in them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from datasets.errors import DataError
from datasets.optional import need
from datasets.preparation.labels import at, extent, outline
from datasets.preparation.places import pixel_metres
from datasets.preparation.samples import Samples, pixel_at, unique
from datasets.vectorfile import read_frame

SPLITS = ("train", "valid", "eval")
PIECE = 1 << 20  # pixels of a polygon's rectangle that are looked at together
SLIVER = 1e-3  # square metres that two polygons may share


class Features(NamedTuple):
    """N polygons and points."""

    shapes: object  # GeoDataFrame of the geometries alone, numbered 0 to N - 1
    labels: np.ndarray  # (N,) whole numbers or str
    ids: np.ndarray  # (N,) what the user calls them, else their numbers in the file
    split: np.ndarray | None  # (N,) of str, of --split-column

    def take(self, chosen: np.ndarray) -> Features:
        """Those where the mask is True."""
        split = None if self.split is None else self.split[chosen]
        return Features(self.shapes[chosen].reset_index(drop=True), self.labels[chosen], self.ids[chosen], split)


def read_vector(path: Path, layer: str | None = None):
    """The GeoDataFrame of a vector file; DataError if it cannot be read or has no CRS."""
    geopandas = need("geopandas", "reading polygons")
    frame = read_frame(path, "polygons or points", layer=layer)
    if not isinstance(frame, geopandas.GeoDataFrame) or frame.active_geometry_name is None:
        raise DataError(f"{path}: a table without geometries; expected polygons or points")
    if frame.crs is None:
        raise DataError(f"{path}: has no CRS, so it cannot be laid on the images; write one into it")
    return frame


def read_features(
    path: Path, column: str, *, layer: str | None = None, id_column: str | None = None, split_column: str | None = None
) -> tuple[Features, dict[str, int]]:
    """The labelled polygons and points of a file, and what was left out.

    Labels are whole numbers where all are, else text. DataError: a column that is not there, a split other than
    train, valid and eval.
    """
    frame = read_vector(path, layer)
    for name in filter(None, (column, id_column, split_column)):
        if name not in frame or name == frame.geometry.name:
            columns = ", ".join(str(other) for other in frame.columns if other != frame.geometry.name)
            raise DataError(f"{path}: no column {name!r}; it has {columns or 'none'}")
    frame["_number"] = np.arange(len(frame))
    several = frame.geom_type == "MultiPoint"
    if several.any():
        frame = pd.concat([frame[~several], frame[several].explode(index_parts=False)])
        frame = frame.sort_values("_number", kind="stable", ignore_index=True)
    blank = frame[column].isna() | (frame[column].astype(str).str.strip() == "")
    usable = frame.geom_type.isin(["Polygon", "MultiPolygon", "Point"]) & ~frame.geometry.is_empty
    left_out = {"without a label": int(blank.sum()), "neither polygon nor point": int((~usable & ~blank).sum())}
    frame = frame[~blank & usable].reset_index(drop=True)
    split = None if split_column is None else _splits(frame, split_column, path)
    ids = frame[id_column or "_number"].to_numpy()
    shapes = frame.geometry.make_valid().rename("geometry").to_frame()
    return Features(shapes, _labels(frame[column]), ids, split), left_out


def _labels(column) -> np.ndarray:
    """Whole numbers where all are (numbers, or digits as text), else text."""
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float)
    if np.isfinite(numbers).all() and (numbers % 1 == 0).all():
        return numbers.astype(np.int64)
    return column.astype(str).str.strip().to_numpy(dtype=object).astype(str)


def _splits(frame, column: str, path: Path) -> np.ndarray:
    values = frame[column].astype(str).str.strip().str.lower().to_numpy(dtype=object).astype(str)
    wrong = ~np.isin(values, SPLITS)
    if wrong.any():
        row, value = int(frame["_number"].iloc[int(wrong.argmax())]), str(values[wrong][0])
        raise DataError(f"{path}: {column} of feature {row} is {value!r}; expected train, valid or eval")
    return values


def in_metres(shapes, grid):
    """The shapes in a CRS of metres: the images' own if it is one, else the UTM zone of the shapes."""
    if grid.crs.is_projected and abs(grid.crs.linear_units_factor[1] - 1) < 1e-9:
        return shapes.to_crs(grid.crs.to_wkt())
    return shapes.to_crs(shapes.estimate_utm_crs())


def buffered(features: Features, metres: float, grid) -> tuple[Features, dict[str, int]]:
    """The polygons grown by `metres` (shrunk if negative), points as they are; those of which nothing is left go."""
    if metres == 0:
        return features, {}
    shapes = in_metres(features.shapes, grid)
    areal = (shapes.geom_type != "Point").to_numpy()
    shapes.loc[areal, "geometry"] = shapes.geometry[areal].buffer(metres)
    empty = shapes.geometry.is_empty.to_numpy()
    grown = features._replace(shapes=shapes).take(~empty)
    return grown, {f"nothing left of the polygon after --buffer {metres:g}": int(empty.sum())}


def without_overlaps(features: Features, grid) -> tuple[Features, dict[str, int]]:
    """Those polygons that share no area with a polygon of a different label."""
    geometries = in_metres(features.shapes, grid).geometry
    first, second = geometries.sindex.query(geometries, predicate="intersects")
    areal = (geometries.geom_type != "Point").to_numpy()
    at_odds = (first < second) & areal[first] & areal[second] & (features.labels[first] != features.labels[second])
    first, second = first[at_odds], second[at_odds]
    shared = geometries.iloc[first].intersection(geometries.iloc[second], align=False).area.to_numpy() > SLIVER
    dropped = np.zeros(len(geometries), dtype=bool)
    dropped[first[shared]] = dropped[second[shared]] = True
    return features.take(~dropped), {"overlaps a polygon of a different label": int(dropped.sum())}


def neighbours(features: Features, grid, shrunk: float = 0.0) -> np.ndarray:
    """Pairs (2, K) of polygons or points that lay no more than a pixel apart before they were shrunk, by number."""
    geometries = in_metres(features.shapes, grid).geometry
    distance = pixel_metres(grid) + 2 * shrunk
    first, second = geometries.sindex.query(geometries, predicate="dwithin", distance=distance)
    return np.stack([first, second])[:, first < second]


def pixels_in(features: Features, grid, path: Path) -> tuple[Samples, dict[str, int]]:
    """The image pixels whose centre lies in a polygon, and those that hold a point; and what was left out.

    Columns: code (the user's label) and shape (number of the feature). A pixel in several shapes counts for the
    first; with different labels it is left out. Left out are `shapes` without a pixel, and pixels.
    DataError: no shape lies on the images.
    """
    shapes = features.shapes.to_crs(grid.crs.to_wkt())
    rows, cols, numbers = [], [], []
    point = (shapes.geom_type == "Point").to_numpy()
    if point.any():
        some = np.flatnonzero(point)
        at_points = shapes.geometry[point]
        row, col = pixel_at(at_points.x.to_numpy(), at_points.y.to_numpy(), grid)
        inside = row >= 0
        rows, cols, numbers = [row[inside]], [col[inside]], [some[inside]]
    for number in np.flatnonzero(~point):
        row, col = _pixels_of(shapes.geometry.iloc[number], grid)
        rows.append(row)
        cols.append(col)
        numbers.append(np.full(len(row), number))
    row, col, number = (np.concatenate([np.zeros(0, dtype=np.int64), *part]) for part in (rows, cols, numbers))
    if len(shapes) and not len(row):
        _check_overlap(shapes, grid, path)
    order = np.argsort(number, kind="stable")
    row, col, number = row[order].astype(np.int32), col[order].astype(np.int32), number[order]
    samples = Samples(row, col, {"code": features.labels[number], "shape": number})
    without = len(shapes) - len(np.unique(number))
    samples, twice, disputed = unique(samples, "code", grid)
    return samples, {"shapes": without, "in another of the same label": twice, "of several labels": disputed}


def _pixels_of(shape, grid) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of the pixels whose centre lies in a polygon."""
    shapely = need("shapely", "reading polygons")
    west, south, east, north = shape.bounds
    corners = np.array([west, west, east, east]), np.array([south, north, south, north])
    corner_cols, corner_rows = at(~grid.transform, *corners)
    top, bottom = max(int(np.floor(corner_rows.min())), 0), min(int(np.ceil(corner_rows.max())), grid.height)
    left, right = max(int(np.floor(corner_cols.min())), 0), min(int(np.ceil(corner_cols.max())), grid.width)
    if top >= bottom or left >= right:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    shapely.prepare(shape)
    rows, cols, step = [], [], max(PIECE // (right - left), 1)
    for first in range(top, bottom, step):
        row, col = np.mgrid[first : min(first + step, bottom), left:right].reshape(2, -1)
        inside = shapely.contains_xy(shape, *grid.centres(row, col))
        rows.append(row[inside])
        cols.append(col[inside])
    return np.concatenate(rows), np.concatenate(cols)


def _check_overlap(shapes, grid, path: Path) -> None:
    west, south, east, north = shapes.total_bounds
    x, y = outline(grid.transform, grid.height, grid.width)
    if not (west < x.max() and east > x.min() and south < y.max() and north > y.min()):
        covers = extent(np.array([west, east]), np.array([south, north]))
        raise DataError(f"{path}: no overlap with the images; it covers {covers}, the images {extent(x, y)}")


def blocks_of_file(path: Path, row: np.ndarray, col: np.ndarray, grid) -> tuple[np.ndarray, np.ndarray | None]:
    """The block of each pixel by the polygons of a file, (N,) of str, "" outside all; and its split where the file
    has a column `split`. Blocks are named by a column `block`, `name` or `id`, else numbered."""
    geopandas = need("geopandas", "reading blocks")
    frame = read_vector(path).to_crs(grid.crs.to_wkt()).reset_index(drop=True)
    name = next((column for column in ("block", "name", "id") if column in frame), None)
    names = np.arange(len(frame)).astype(str) if name is None else frame[name].astype(str).to_numpy(dtype=str)
    frame["_number"] = np.arange(len(frame))
    x, y = grid.centres(row, col)
    points = geopandas.GeoSeries(geopandas.points_from_xy(x, y))
    which = np.full(len(points), -1)
    point, block = frame.sindex.query(points, predicate="within")
    which[point[::-1]] = block[::-1]  # of several, the first
    found = np.where(which >= 0, names[which], "")
    if "split" not in frame:
        return found, None
    return found, np.where(which >= 0, _splits(frame, "split", path)[which], "")

