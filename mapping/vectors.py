"""Points and polygons of any vector format: reading, writing, and the pixels of a map that lie in them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from datasets.errors import DataError
from datasets.imagery.grid import EDGE, Grid
from datasets.optional import need
from datasets.vectorfile import read_frame
from utils.files import PARTIAL, naming, sync

PIECE = 1 << 20  # pixels of a polygon's rectangle that are in memory at a time
WHAT = "reading points and polygons"
PARQUET, TABLES = ".parquet", ("CSV", "XLSX", "ODS")  # tables have no geometries
IN_DEGREES = (".geojson", ".json", ".geojsonl", ".kml")  # formats whose coordinates are longitude and latitude


def read_vector(path: str | Path, layer: str | None = None):
    """The GeoDataFrame of a vector file, its rows as in the file; DataError if it cannot be read or has no CRS."""
    geopandas, path = need("geopandas", WHAT), Path(path)
    frame = read_frame(path, "points or polygons", layer=layer)
    if not isinstance(frame, geopandas.GeoDataFrame) or frame.active_geometry_name is None:
        raise DataError(f"{path}: a table without geometries; expected points or polygons")
    if frame.crs is None:
        raise DataError(f"{path}: has no CRS, so it cannot be laid on the map; write one into it")
    if frame.empty:
        raise DataError(f"{path}: has no features; expected points or polygons")
    return frame.reset_index(drop=True)


def check_column(frame, column: str, path: str | Path) -> None:
    """DataError, with the columns that there are, if the column is none of the attributes."""
    if column not in frame or column == frame.active_geometry_name:
        columns = ", ".join(str(name) for name in frame.columns if name != frame.active_geometry_name)
        raise DataError(f"{path}: no column {column!r}; it has {columns or 'none'}")


def check_geometries(frame, path: str | Path, expected: tuple[str, ...], remedy: str) -> None:
    """DataError for the first geometry, but missing ones, that is of none of the expected types."""
    wrong = ~frame.geom_type.isin(expected) & ~_missing(frame)
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        raise DataError(f"{path}: feature {row} is a {frame.geom_type[row]}; expected {expected[0]}s{remedy}")


def _missing(frame):
    return frame.geometry.isna() | frame.geometry.is_empty


def on_map(frame, grid: Grid):
    """The geometries in the CRS of the map, (N,) of shapely's, None where there is none."""
    return np.where(_missing(frame), None, frame.geometry.to_crs(grid.crs.to_wkt()).to_numpy())


def pixels_at(x: np.ndarray, y: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row and column (n,) int64 of the pixel in which each point lies, and whether there is one (n,) bool."""
    finite = np.isfinite(x) & np.isfinite(y)
    cols, rows = ~grid.transform @ (np.where(finite, x, 0.0), np.where(finite, y, 0.0))
    rows, cols = (np.floor(values + EDGE).astype(np.int64) for values in (rows, cols))
    return rows, cols, finite & (rows >= 0) & (rows < grid.height) & (cols >= 0) & (cols < grid.width)


def pieces_of(geometry, grid: Grid) -> Iterator[tuple[object, np.ndarray]]:
    """Windows of the map, PIECE pixels at most, and which of their pixels have their centre in a polygon (h, w)."""
    window = need("rasterio.windows").Window
    west, south, east, north = geometry.bounds
    corners = np.array([west, west, east, east]), np.array([south, north, south, north])
    cols, rows = ~grid.transform @ corners
    top, bottom = max(int(np.floor(rows.min())), 0), min(int(np.ceil(rows.max())), grid.height)
    left, right = max(int(np.floor(cols.min())), 0), min(int(np.ceil(cols.max())), grid.width)
    if left >= right:
        return
    step = max(PIECE // (right - left), 1)
    for first in range(top, bottom, step):
        part = window(left, first, right - left, min(step, bottom - first))
        yield part, inside([geometry], grid, part)


def inside(geometries: list, grid: Grid, window) -> np.ndarray:
    """Which pixels of a window have their centre in one of the polygons, (h, w) bool."""
    transform = need("rasterio.windows").transform(window, grid.transform)
    shape = int(window.height), int(window.width)
    return need("rasterio.features").geometry_mask(geometries, shape, transform, invert=True)


def check_output(path: str | Path, overwrite: bool) -> None:
    """DataError for a file that is there already, one in a folder that is not, or a format without geometries."""
    path = Path(path)
    _driver_of(path)
    if path.exists() and not overwrite:
        raise DataError(f"{path}: exists already; give another --out, or --overwrite")
    if not path.parent.is_dir():
        raise DataError(f"{path.parent}: no such folder; make it, or give another --out")


def _driver_of(path: Path) -> str:
    """GDAL's driver for a file by its suffix, or PARQUET."""
    if path.suffix == PARQUET:
        return PARQUET
    try:
        driver = need("pyogrio", WHAT).detect_write_driver(path)
    except ValueError:
        driver = None
    if driver in (None, *TABLES):
        raise DataError(f"{path}: no format for points and polygons; expected one such as .gpkg, .geojson or .parquet")
    return driver


def write_vector(frame, path: str | Path) -> None:
    """Write a vector file in the format of its suffix, whole or not at all; formats of several files one after another.

    GeoJSON and KML are in longitude and latitude (WGS 84). DataError for a format that cannot be written.
    """
    path = Path(path)
    driver = _driver_of(path)
    if path.suffix.lower() in IN_DEGREES:
        frame = frame.to_crs("EPSG:4326")
    with tempfile.TemporaryDirectory(prefix=f".{path.stem}{PARTIAL}", dir=path.parent) as folder:
        whole = Path(folder) / path.name
        try:
            with naming(path, whole):
                if driver == PARQUET:
                    frame.to_parquet(whole)
                else:
                    options = {"SPATIAL_INDEX": "NO"} if driver == "FlatGeobuf" else {}  # with one, the order changes
                    frame.to_file(whole, driver=driver, engine="pyogrio", **options)
        except (ValueError, RuntimeError) as error:
            reason = " ".join(str(error).replace(str(whole), path.name).split())
            raise DataError(f"{path}: cannot be written ({reason}); such as .gpkg, .geojson and .parquet can") from None
        for file in sorted(Path(folder).iterdir(), key=lambda file: file.name == path.name):  # the named one last
            sync(file)
            os.replace(file, path.with_name(file.name))
        sync(path.parent)
