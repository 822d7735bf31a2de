"""Opening vector files that may come from anybody: which formats, and what is in them that is not followed.

GDAL opens nearly a hundred formats, some of which name other files, servers or databases that it then reads. A file is
known by its first bytes here, not by what GDAL takes it for.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np

from datasets.errors import DataError
from datasets.optional import need

START = 4096  # bytes in which a file says what it is
FORMATS = {
    b"SQLite format 3\0": "GeoPackage",
    b"\0\0\x27\x0a": "Shapefile",
    b"fgb\x03": "FlatGeobuf",
    b"PAR1": "GeoParquet",
}
EXPECTED = "GeoPackage, Shapefile, FlatGeobuf, GeoJSON, GeoParquet or KML"


def read_frame(path: Path, what: str, **options):
    """The GeoDataFrame (or, without geometries, DataFrame) of a vector file. `options`: layer, columns.

    DataError for a file that is not there or of another format, cannot be read as `what`, or could reach beyond itself.
    """
    geopandas = need("geopandas", f"reading {what}")
    need("pyogrio", f"reading {what}")
    if not path.exists():
        raise DataError(f"{path}: no such file")
    kind = format_of(path, what)
    options = {name: value for name, value in options.items() if value is not None}
    try:
        if kind == "GeoParquet":
            frame = geopandas.read_parquet(path)
        else:
            frame = geopandas.read_file(path, engine="pyogrio", **options)
    except Exception as error:  # of many kinds, by the library that reads the format
        raise DataError(f"{path}: cannot be read as {what} ({' '.join(str(error).split())})") from None
    if isinstance(frame, geopandas.GeoDataFrame) and frame.active_geometry_name is not None:
        _check_coordinates(frame, path)
    return frame


def _check_coordinates(frame, path: Path) -> None:
    coordinates, features = need("shapely", "reading polygons").get_coordinates(frame.geometry, return_index=True)
    bad = ~np.isfinite(coordinates).all(axis=1)
    if bad.any():
        place = int(bad.argmax())
        x, y = coordinates[place]
        raise DataError(f"{path}: feature {features[place]} has the coordinates {x:g}, {y:g}; expected finite numbers")


def format_of(path: Path, what: str) -> str:
    """The format of a vector file by its first bytes; DataError for any other, and for what is not followed."""
    if path.is_dir():
        raise _refused(path, what, "a folder")
    with open(path, "rb") as file:
        start = file.read(START)
    for magic, kind in FORMATS.items():
        if start.startswith(magic):
            if kind == "GeoPackage":
                _check_tables(path)
            return kind
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"{"):
        return "GeoJSON"
    if re.search(rb"^(<\?xml[^>]*>)?(\s|<!--.*?-->)*<kml[\s>]", text, re.DOTALL):
        if re.search(rb"<!(ENTITY|DOCTYPE)", path.read_bytes()):
            raise DataError(f"{path}: declares XML entities; expected plain KML")
        return "KML"
    raise _refused(path, what, "of another format")


def _refused(path: Path, what: str, found: str) -> DataError:
    return DataError(f"{path}: cannot be read as {what}: it is {found}; expected {EXPECTED} (ogr2ogr converts others)")


def _check_tables(path: Path) -> None:
    """DataError for a database with views or virtual tables but R-trees: they run functions when they are read."""
    query = "SELECT type, name, coalesce(sql, '') FROM sqlite_master"
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as database:
            database.execute("PRAGMA trusted_schema = OFF")
            entries = database.execute(query).fetchall()
    except (sqlite3.Error, UnicodeError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as GeoPackage ({' '.join(str(error).split())})") from None
    for kind, name, sql in entries:
        if not isinstance(sql, str):
            raise DataError(f"{path}: cannot be read as GeoPackage (its schema is damaged)")
        virtual = re.match(r"\s*CREATE\s+VIRTUAL\s+TABLE", sql, re.IGNORECASE)
        if kind == "view" or virtual and not re.search(r"\bUSING\s+rtree\b", sql, re.IGNORECASE):
            raise DataError(f"{path}: has the {'virtual table' if virtual else 'view'} {name}; expected plain tables")
