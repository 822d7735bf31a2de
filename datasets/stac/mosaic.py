"""Read items of a catalogue on one pixel grid and write them, merged, as one tiled GeoTIFF."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import numpy as np

from datasets.area import Area
from datasets.errors import DataError
from datasets.optional import need
from datasets.stac.items import ItemFailed
from datasets.stac.search import WHAT
from utils.files import atomic_write

if TYPE_CHECKING:
    from pystac import Asset

WINDOW = 2048  # pixels read at a time on each side: about 90 MB an item of ten bands
BLOCK = 256  # pixels on each side of a block of the file
ATTEMPTS = 4  # to read an item, each after the retries of GDAL
BACKOFF = 2.0  # seconds before the second attempt, doubled each time
SCHEMES = ("https://", "http://", "s3://", "gs://")
GDAL = {  # what is not in the user's environment already
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MAX_RETRY": "4",
    "GDAL_HTTP_RETRY_DELAY": "0.5",  # seconds, growing
    "GDAL_HTTP_CONNECTTIMEOUT": "30",
    "GDAL_HTTP_TIMEOUT": "120",
}
# GDAL remembers what it knows of a file, also that it could not be opened; a further attempt is to ask the server
AFRESH = {"CPL_VSIL_CURL_NON_CACHED": "/vsicurl/:/vsis3/:/vsiaz/:/vsigs/"}
SIGNATURE = re.compile(r"(\w+://[^\s?'\"]+)\?[^\s'\"]+")  # is not to be printed
PERMANENT = ("response code: 400", "response code: 401", "response code: 403", "response code: 404")


class Stopped(BaseException):
    """The run was interrupted while this file was being written."""


class Source(NamedTuple):
    """An item to be merged: its asset for each band that is written, and what is added to its values but 0."""

    name: str
    assets: Mapping[str, Asset]
    shift: int = 0


class Reader(NamedTuple):
    """How assets are read: what signs an address if needed, and what tells that the run is to end."""

    sign: Callable[[str], str] | None
    stop: Event

    def attempt(self, read: Callable[[], object]) -> object:
        """The result of `read`, tried again with a growing delay where it fails; ItemFailed after ATTEMPTS.

        Stopped: the run is to end.
        """
        errors = (need("rasterio.errors", WHAT).RasterioError, need("requests", WHAT).RequestException)
        for attempt in range(ATTEMPTS):
            if self.stop.is_set():
                raise Stopped
            try:
                with _gdal_settings(afresh=attempt > 0):
                    return read()
            except errors as error:
                reason = SIGNATURE.sub(r"\1", " ".join(str(error).split()))
                if attempt + 1 == ATTEMPTS or any(code in reason for code in PERMANENT):
                    raise ItemFailed(f"cannot be read: {reason}") from error
                self.stop.wait(BACKOFF * 2**attempt)
        raise AssertionError("not reached")


def _gdal_settings(afresh: bool):
    """The settings of GDAL for reading over the network."""
    rasterio, settings = need("rasterio", WHAT), GDAL | (AFRESH if afresh else {})
    return rasterio.Env(**{key: value for key, value in settings.items() if key not in os.environ})


def write_mosaic(
    path: Path,
    sources: Sequence[Source],
    area: Area,
    bands: Sequence[str],
    reader: Reader,
    *,
    valid: int,
    tags: Mapping[str, str],
    dtype: str = "uint16",
    nodata: int | None = 0,
    colormap: Mapping[int, tuple] | None = None,
) -> dict[str, str]:
    """Write `bands` of the sources on `area`; the first source with a value counts in each pixel, nearest neighbour.

    A pixel of a source has a value where one of its first `valid` bands is not 0. A source that fails is left out of
    the whole file. The file takes its name when it is complete; it is not written if all sources fail.

    Returns:
        The reason of failure by the name of the source. The tag STAC_ITEMS of the file names those that are in it and
        STAC_FAILED those that are not.
    """
    rasterio = need("rasterio", WHAT)
    profile = {
        "driver": "GTiff",
        "crs": area.crs,
        "transform": rasterio.Affine(*area.transform),
        "width": area.width,
        "height": area.height,
        "count": len(bands),
        "dtype": dtype,
        "nodata": nodata,
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "interleave": "band",
        "compress": "deflate",
        "predictor": 2,
        "BIGTIFF": "IF_SAFER",
    }
    remaining, failed = list(sources), {}
    while remaining:
        try:
            with atomic_write(path) as partial, rasterio.open(partial, "w", **profile) as file:
                for window, box in _windows(area):
                    file.write(_merge(remaining, box, bands, valid, dtype, reader), window=window)
                file.descriptions = tuple(bands)
                if colormap:
                    file.write_colormap(1, dict(colormap))
                file.update_tags(**tags, **item_tags([source.name for source in remaining], list(failed)))
            break
        except _SourceFailed as failure:
            failed[failure.source.name] = failure.reason
            remaining.remove(failure.source)
        except rasterio.errors.RasterioError as error:  # those of reading are failures of a source
            raise DataError(f"{path} cannot be written: {error}") from error
    return failed


def item_tags(used: Sequence[str], failed: Sequence[str]) -> dict[str, str]:
    """The tags that say which items a file holds and which it lacks."""
    return {"STAC_ITEMS": " ".join(used), "STAC_FAILED": " ".join(failed)}


def is_complete(path: Path, items: Sequence[str]) -> bool:
    """Whether `path` is a file of write_mosaic that holds just these items, in this order of precedence."""
    if not path.exists():
        return False
    rasterio = need("rasterio", WHAT)
    try:
        with rasterio.open(path) as file:
            tags = file.tags()
    except rasterio.errors.RasterioIOError:
        return False
    return {key: tags.get(key, "") for key in ("STAC_ITEMS", "STAC_FAILED")} == item_tags(items, [])


class _SourceFailed(Exception):
    def __init__(self, source: Source, reason: str):
        super().__init__(reason)
        self.source, self.reason = source, reason


def _windows(area: Area) -> Iterator[tuple[object, object]]:
    """The windows of a grid in block order, each with its own grid for odc-stac."""
    rasterio, geobox = need("rasterio", WHAT), need("odc.geo.geobox", WHAT)
    whole = geobox.GeoBox((area.height, area.width), rasterio.Affine(*area.transform), area.crs)
    for row in range(0, area.height, WINDOW):
        for column in range(0, area.width, WINDOW):
            rows = slice(row, min(row + WINDOW, area.height))
            columns = slice(column, min(column + WINDOW, area.width))
            yield rasterio.windows.Window.from_slices(rows, columns), whole[rows, columns]


def _merge(
    sources: Sequence[Source], box: object, bands: Sequence[str], valid: int, dtype: str, reader: Reader
) -> np.ndarray:
    """The merged values of a window: (len(bands), height, width)."""
    merged = np.zeros((len(bands), *box.shape), dtype)
    empty = np.ones(tuple(box.shape), bool)
    for source in sources:
        try:
            values = reader.attempt(lambda source=source: _load(source, box, bands, dtype, reader.sign))
        except ItemFailed as error:
            raise _SourceFailed(source, str(error)) from error
        if source.shift:  # of the first bands only: a scene classification has no offset
            values[:valid] = _shifted(values[:valid], source.shift)
        fill = empty & (values[:valid] != 0).any(axis=0)
        merged[:, fill] = values[:, fill]
        empty &= ~fill
        if not empty.any():
            break
    return merged


def _shifted(values: np.ndarray, shift: int) -> np.ndarray:
    """Add `shift` >= 0 to all values but 0, which stays no-data."""
    limit = np.iinfo(values.dtype).max
    return np.where(values == 0, 0, np.minimum(values.astype(np.int64) + shift, limit)).astype(values.dtype)


def _load(
    source: Source, box: object, bands: Sequence[str], dtype: str, sign: Callable[[str], str] | None
) -> np.ndarray:
    """The bands of one item in a window, 0 where it has none: (len(bands), height, width)."""
    stac = need("odc.stac", WHAT)
    nodata = [_no_data_of(band, address(source.assets[band], sign)) for band in bands]
    cube = stac.load(
        [_bare_item(source, box, bands)],
        bands=list(bands),
        geobox=box,
        resampling="nearest",
        dtype=dtype,
        nodata=0,
        patch_url=sign,
    )
    values = np.stack([cube[band].values[0] for band in bands])
    for band, missing in zip(values, nodata, strict=True):
        if missing is not None:  # rasterio 1.4 leaves it as it is where it resamples
            band[band == missing] = 0
    return values


def _no_data_of(band: str, url: str) -> float | None:
    """The no-data value of the file of a band.

    RasterioIOError: the file has lost where it lies, which GDAL only warns of. ItemFailed: its values are no DN.
    """
    rasterio = need("rasterio", WHAT)
    with rasterio.open(url, driver=driver_for(url)) as file:
        if file.crs is None or file.transform.is_identity:
            raise rasterio.errors.RasterioIOError(f"{band} has no CRS or no transform, so the file is damaged")
        if np.dtype(file.dtypes[0]).kind not in "iu":
            raise ItemFailed(f"holds {file.dtypes[0]} in {band}, expected whole numbers (DN)")
        return file.nodata


def driver_for(url: str) -> str:
    """GDAL's driver for a file of a catalogue; others than these may fetch from anywhere."""
    return "JP2OpenJPEG" if urlsplit(url).path.lower().endswith((".jp2", ".j2k")) else "GTiff"


def address(asset: Asset, sign: Callable[[str], str] | None) -> str:
    """Where the file of an asset is, signed if needed. ItemFailed: on this machine, whose files no catalogue names."""
    url = asset.get_absolute_href() or asset.href
    if not url.lower().startswith(SCHEMES):
        raise ItemFailed(f"is at {url[:60]!r}; expected an address that begins with {', '.join(SCHEMES)}")
    return sign(url) if sign else url


def _bare_item(source: Source, box: object, bands: Sequence[str]) -> object:
    """An item of the wanted assets only, under our names, without the footprint and projection of the catalogue.

    Those are wrong in places (stactools-sentinel2#121, #149: tiles at the antimeridian), and the file knows better. The
    item seems to cover the window, so odc-stac opens the file and goes by its own transform.
    """
    pystac = need("pystac", WHAT)
    bounds = box.geographic_extent.boundingbox
    west, south, east, north = bounds.left, bounds.bottom, bounds.right, bounds.top
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    footprint = {"type": "Polygon", "coordinates": [ring]}
    item = pystac.Item(source.name, footprint, [west, south, east, north], datetime(2000, 1, 1), {})
    for band in bands:
        url = address(source.assets[band], sign=None)
        item.add_asset(band, pystac.Asset(url, media_type=pystac.MediaType.GEOTIFF))
    return item
