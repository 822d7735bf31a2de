"""Small maps of classes, with values that a test can count by hand."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import rasterio
from affine import Affine
from rasterio.transform import from_origin
from shapely import Point, box

from mapping.legend import CLASSES_TAG, Entry, classes_tag

UTM, DEGREES = "EPSG:32614", "EPSG:4326"
ORIGIN = from_origin(500_000, 4_200_000, 10, 10)
LEGEND = (
    Entry(1, "Corn", (255, 212, 0), 0),
    Entry(5, "Soybeans", (38, 115, 0), 1),
    Entry(24, "Winter Wheat", (168, 112, 0), 2),
    Entry(0, "Other", (128, 128, 128), 3),
)
NONE = 255  # no data


def write_map(
    path: Path, codes, confidence=None, *, transform: Affine = ORIGIN, crs=UTM, nodata: int | None = NONE, legend=LEGEND
) -> Path:
    """A map of codes (h, w), with a band of confidence where there is one."""
    bands = [np.asarray(codes), *([] if confidence is None else [np.asarray(confidence)])]
    height, width = bands[0].shape
    profile = {"driver": "GTiff", "dtype": bands[0].dtype, "crs": crs, "transform": transform, "nodata": nodata}
    with rasterio.open(path, "w", height=height, width=width, count=len(bands), **profile) as file:
        file.write(np.stack(bands).astype(bands[0].dtype))
        if len(bands) > 1:
            file.descriptions = ("class code", "confidence, per cent")
        if legend:
            file.update_tags(**{CLASSES_TAG: classes_tag(legend)})
    return path


def pixel_box(row: int, col: int, height: int, width: int, transform: Affine = ORIGIN):
    """The polygon of some pixels of an upright grid."""
    west, north = transform @ (col, row)
    east, south = transform @ (col + width, row + height)
    return box(west, south, east, north)


def centre(row: int, col: int, transform: Affine = ORIGIN) -> Point:
    return Point(transform @ (col + 0.5, row + 0.5))


def write_features(path: Path, geometries: list, crs=UTM, **columns) -> Path:
    geopandas.GeoDataFrame(columns, geometry=geometries, crs=crs).to_file(path)
    return path


def refused(command, arguments, capsys) -> str:
    """The line with which a command ends that exits with code 2."""
    try:
        command([str(argument) for argument in arguments])
    except SystemExit as ended:
        line = capsys.readouterr().err
        assert ended.code == 2 and line.startswith("error: ") and line.count("\n") == 1
        return line
    raise AssertionError("the command was not refused")
