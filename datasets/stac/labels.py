"""The Cropland Data Layer of a catalogue (collection `usda-cdl`, as Planetary Computer has it) on its own grid."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from datasets.area import area_of
from datasets.optional import need
from datasets.stac.items import ItemFailed, newest_first, time_of
from datasets.stac.mosaic import Reader, Source, address, driver_for, is_complete, write_mosaic
from datasets.stac.search import WHAT, search

if TYPE_CHECKING:
    from pystac import Asset, Item
    from pystac_client import Client

COLLECTION = "usda-cdl"
FILES = {"cropland": "cdl.tif", "confidence": "confidence.tif"}  # by the key of the asset
MARGIN = 1  # pixels around the place, as the rule of the labels looks at the neighbours of each


class Header(NamedTuple):
    """What is kept of a label raster."""

    crs: str
    resolution: float
    anchor: tuple[float, float]
    dtype: str
    nodata: int | None
    colormap: dict[int, tuple] | None


def find_labels(catalogue: Client, url: str, bbox: tuple[float, float, float, float], year: int) -> list[Item]:
    """The items of the layer of a year; the collection also has items of cultivated land and of crop frequency."""
    found = search(catalogue, url, COLLECTION, bbox, date(year, 1, 1), date(year, 12, 31))
    return newest_first(item for item in found if "cropland" in item.assets and time_of(item).year == year)


def write_labels(
    items: Sequence[Item], bbox: tuple[float, float, float, float], out: Path, reader: Reader
) -> tuple[list[Path], dict[str, str]]:
    """Write cdl.tif, and confidence.tif where the items have it, with the codes and the palette of the source.

    Returns:
        The files that are there now, and the reason of failure by the name of the item.
    """
    written, failed = [], {}
    for key, name in FILES.items():
        assets = {item.id: item.assets[key] for item in items if key in item.assets}
        if not assets:
            continue
        path = out / name
        if not is_complete(path, list(assets)):
            failed |= _write(path, key, assets, bbox, reader)
        if path.exists():
            written.append(path)
    return written, failed


def _write(
    path: Path, key: str, assets: dict[str, Asset], bbox: tuple[float, float, float, float], reader: Reader
) -> dict[str, str]:
    """Write one file, on the grid of the first raster that can be opened; the reason of failure by the name."""
    failed: dict[str, str] = {}
    header = None
    for name, asset in assets.items():
        try:
            header = reader.attempt(lambda asset=asset: _header(asset, reader))
            break
        except ItemFailed as error:
            failed[name] = str(error)
    if header is None:
        return failed
    return failed | write_mosaic(
        path,
        [Source(name, {key: asset}) for name, asset in assets.items() if name not in failed],
        area_of(bbox, header.crs, header.resolution, anchor=header.anchor, margin=MARGIN),
        [key],
        reader,
        valid=1,
        tags={},
        dtype=header.dtype,
        nodata=header.nodata,
        colormap=header.colormap,
    )


def _header(asset: Asset, reader: Reader) -> Header:
    rasterio = need("rasterio", WHAT)
    url = address(asset, reader.sign)
    with rasterio.open(url, driver=driver_for(url)) as raster:
        if raster.crs is None:
            raise rasterio.errors.RasterioIOError("it has no CRS, so the file is damaged")
        palette = raster.colorinterp[0] == rasterio.enums.ColorInterp.palette
        return Header(
            crs=raster.crs.to_string(),
            resolution=raster.transform.a,
            anchor=(raster.transform.c, raster.transform.f),
            dtype=raster.dtypes[0],
            nodata=None if raster.nodata is None else 0,
            colormap=raster.colormap(1) if palette else None,
        )
