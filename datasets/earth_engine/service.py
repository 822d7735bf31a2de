"""All that needs Earth Engine. It has not been run against the service: the project has no account there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timezone
from types import ModuleType

from datasets.area import solar_day
from datasets.earth_engine.plan import Destination, Export, Site
from datasets.errors import DataError


def connect(project: str | None) -> ModuleType:
    """The package `ee`, logged in. DataError: it is not installed, or there is no login or project."""
    try:
        import ee
    except ModuleNotFoundError:
        raise DataError("Earth Engine needs its package: pip install earthengine-api") from None
    try:
        ee.Initialize(project=project)
    except Exception as error:  # ee.EEException, and several of google.auth
        text = " ".join(str(error).split())
        raise DataError(f"Earth Engine: {text}; run `earthengine authenticate`, and give --project") from error
    return ee


@contextmanager
def _answers(ee: ModuleType, what: str) -> Iterator[None]:
    try:
        yield
    except ee.EEException as error:
        raise DataError(f"Earth Engine: {what}: {' '.join(str(error).split())}") from error


def _images(ee: ModuleType, selection: dict):
    """The images of a selection, the newest processing baseline last: a mosaic puts its last image on top."""
    images = ee.ImageCollection(selection["collection"])
    images = images.filterBounds(ee.Geometry.Rectangle(selection["bbox"], None, False))
    images = images.filterDate(selection["start"], selection["end"])
    for name, highest in selection["max"].items():
        images = images.filter(ee.Filter.lte(name, highest))
    return images.sort("PROCESSING_BASELINE").select(selection["bands"])


def days_with_images(ee: ModuleType, site: Site, selection: dict) -> list[date]:
    """The solar days on which a selection has an image."""
    with _answers(ee, site.name):
        times = _images(ee, selection).aggregate_array("system:time_start").getInfo()
    longitude = (site.bbox[0] + site.bbox[2]) / 2
    return sorted({solar_day(datetime.fromtimestamp(time / 1000, timezone.utc), longitude) for time in times})


def start(ee: ModuleType, export: Export, destination: Destination) -> str:
    """Start a task and return its id."""
    selection, parameters = export
    if "image" in selection:
        image = ee.Image(selection["image"]).select(selection["bands"]).unmask(0).toUint8()
    else:
        image = _images(ee, selection).mosaic().unmask(0).toUint16()
    region = ee.Geometry.Rectangle(parameters["region"], parameters["crs"], False)
    batch = ee.batch.Export.image
    create = batch.toCloudStorage if destination.kind == "gs" else batch.toDrive
    with _answers(ee, parameters["description"]):
        task = create(image=image, **{**parameters, "region": region})
        task.start()
    return task.id
