"""What Earth Engine is to export, as plain values: nothing here needs the service."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple

from datasets.area import Area, area_of, check_bbox, utm_of
from datasets.errors import DataError
from datasets.season import Season

COLLECTION = "COPERNICUS/S2_SR_HARMONIZED"  # digital numbers without the offset of processing baseline 04.00
BANDS = ("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12")
CLOUDS = "CLOUDY_PIXEL_PERCENTAGE"
LABELS = "USDA/NASS/CDL"
LABEL_FILES = {"cropland": "cdl", "confidence": "confidence"}  # band, file
# The grid of the layer: pixel edges lie at 15 m plus multiples of 30 m (upper left corner -2356095, 3172605)
LABEL_CRS, LABEL_RESOLUTION, LABEL_ANCHOR, LABEL_MARGIN = "EPSG:5070", 30.0, (15.0, 15.0), 1
INSET = 0.25  # pixels by which a region is smaller than its grid, as each pixel that it touches is exported
MAX_PIXELS = 10**13
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class Site(NamedTuple):
    """A place: its bounding box (west, south, east, north) in degrees."""

    name: str
    bbox: tuple[float, float, float, float]


class Destination(NamedTuple):
    """A bucket and the prefix in it, or a folder of Google Drive."""

    kind: str  # "gs" or "drive"
    root: str
    prefix: str = ""

    def of(self, site: str, folder: str, name: str) -> dict[str, str]:
        """The parameters that put a file at SITE/FOLDER/NAME; Drive has no nested folders, so they become one name."""
        if self.kind == "gs":
            return {"bucket": self.root, "fileNamePrefix": "/".join(filter(None, (self.prefix, site, folder, name)))}
        return {"folder": "-".join(filter(None, (self.root, site, folder))), "fileNamePrefix": name}


class Export(NamedTuple):
    """One task: what is selected, and the parameters of Export.image.toCloudStorage or toDrive."""

    selection: dict[str, Any]
    parameters: dict[str, Any]


def read_sites(path: Path) -> list[Site]:
    """Sites of a GeoJSON file: one a feature, with its name in the property `name` or `site`, else its `id`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is not GeoJSON: {error}") from error
    features = content.get("features", [content]) if isinstance(content, dict) else []
    sites = [_site(path, number, feature) for number, feature in enumerate(features, 1)]
    names = [site.name for site in sites]
    if not sites:
        raise DataError(f"{path} has no features: expected one a site")
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise DataError(f"{path} names two features {', '.join(twice)}: expected a name of its own for each site")
    return sites


def _site(path: Path, number: int, feature: Any) -> Site:
    where = f"{path}, feature {number}"
    try:
        properties = feature.get("properties") or {}
        name = str(properties.get("name") or properties.get("site") or feature.get("id") or "")
        points = list(_points(feature["geometry"]["coordinates"]))
        x, y = [float(point[0]) for point in points], [float(point[1]) for point in points]
        bbox = (min(x), min(y), max(x), max(y))
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        raise DataError(f"{where}: expected a GeoJSON feature with the coordinates of a polygon") from None
    if not NAME.fullmatch(name):
        raise DataError(
            f"{where}: name {name!r} cannot be used in file names: expected the property `name` of up to 64 letters,"
            " digits, - and _"
        )
    try:
        check_bbox(bbox)
    except DataError as error:
        raise DataError(f"{where} ({name}): {error}") from None
    return Site(name, bbox)


def _points(coordinates: Any):
    """The points of nested lists of coordinates."""
    if isinstance(coordinates[0], int | float):
        yield coordinates
        return
    for part in coordinates:
        yield from _points(part)


def read_destination(text: str) -> Destination:
    """gs://BUCKET/PREFIX or drive://FOLDER."""
    match = re.fullmatch(r"gs://([^/]+)/?(.*?)/*", text)
    if match:
        return Destination("gs", match[1], match[2])
    match = re.fullmatch(r"drive://([^/]+)/?", text)
    if match:
        return Destination("drive", match[1])
    raise DataError(f"--out {text}: expected gs://BUCKET/PREFIX or drive://FOLDER")


def image_selection(site: Site, first: date, end: date, cloud_cover: float) -> dict[str, Any]:
    """The images of a site from `first` to before `end`, in days of mean solar time there."""
    west, _, east, _ = site.bbox
    return {
        "collection": COLLECTION,
        "bbox": list(site.bbox),
        "start": _midnight(first, (west + east) / 2),
        "end": _midnight(end, (west + east) / 2),
        "max": {CLOUDS: cloud_cover},
        "bands": list(BANDS),
    }


def _midnight(day: date, longitude: float) -> str:
    """The beginning of a day of mean solar time, as UTC to the second."""
    when = datetime(day.year, day.month, day.day, tzinfo=timezone.utc) - timedelta(hours=longitude / 15)
    return (when + timedelta(microseconds=500_000)).strftime("%Y-%m-%dT%H:%M:%SZ")


def plan(
    sites: Sequence[Site],
    year: int,
    season: Season,
    destination: Destination,
    dates: Mapping[str, Sequence[date]],
    *,
    cloud_cover: float = 100.0,
    resolution: float = 10.0,
    labels: bool = True,
) -> list[Export]:
    """The tasks: for each site a mosaic of each of its `dates`, and the Cropland Data Layer with its confidence.

    All mosaics of a site are on one grid, in the UTM zone of its centre. DataError: a date is not of the season.
    """
    exports = []
    for site in sites:
        area = area_of(site.bbox, utm_of(site.bbox), resolution)
        for day in dates[site.name]:
            if not season.holds(day):
                raise DataError(f"{site.name}: {day} is not in the season {season}")
            selection = image_selection(site, day, day + timedelta(days=1), cloud_cover)
            exports.append(_export(selection, area, site.name, destination.of(site.name, "images", str(day))))
        if labels:
            area = area_of(site.bbox, LABEL_CRS, LABEL_RESOLUTION, anchor=LABEL_ANCHOR, margin=LABEL_MARGIN)
            for band, name in LABEL_FILES.items():
                selection = {"image": f"{LABELS}/{year}", "bands": [band]}
                exports.append(_export(selection, area, site.name, destination.of(site.name, "", name)))
    return exports


def _export(selection: dict[str, Any], area: Area, site: str, target: dict[str, str]) -> Export:
    inset = INSET * area.resolution
    right, bottom = area.left + area.width * area.resolution, area.top - area.height * area.resolution
    return Export(
        selection,
        {
            "description": f"{site}-{target['fileNamePrefix'].rpartition('/')[2]}",
            **target,
            "crs": area.crs,
            "crsTransform": list(area.transform),
            "region": [area.left + inset, bottom + inset, right - inset, area.top - inset],  # in crs
            "maxPixels": MAX_PIXELS,
            "fileFormat": "GeoTIFF",
            "formatOptions": {"noData": 0},
        },
    )
