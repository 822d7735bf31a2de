"""What the items of a STAC catalogue say: the assets of the ten bands, the radiometric offset, their precedence.

Catalogues name the same things in different ways: Planetary Computer `B02`, earth-search `blue`, the Copernicus Data
Space `B02_10m`; others only have common names in `eo:bands` (STAC 1.0) or `bands` (STAC 1.1).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pystac import Asset, Item

# The ten bands in the order of a series: our name, then what catalogues call it, as asset, band or common name.
BANDS = {
    "B2": ("B02", "B2", "blue"),
    "B3": ("B03", "B3", "green"),
    "B4": ("B04", "B4", "red"),
    "B5": ("B05", "B5", "rededge1", "rededge071"),
    "B6": ("B06", "B6", "rededge2", "rededge075"),
    "B7": ("B07", "B7", "rededge3", "rededge078"),
    "B8": ("B08", "B8", "nir"),
    "B8A": ("B8A", "nir08"),
    "B11": ("B11", "swir16"),
    "B12": ("B12", "swir22"),
}
SCL = {"SCL": ("SCL", "scl")}
OFFSET = -1000  # BOA_ADD_OFFSET of processing baseline 04.00 and later
FIRST_WITH_OFFSET = (4, 0)
RESOLUTION_SUFFIX = re.compile(r"_(10|20|60)m$")


class ItemFailed(Exception):
    """An item that cannot be used; the message is one line that says why."""


class Radiometry(NamedTuple):
    """How DN become reflectance: (DN + offset) / 10,000. `offset` is None where nothing in the item tells."""

    baseline: str | None
    offset: int | None
    reason: str


def find_assets(item: Item, names: Mapping[str, tuple[str, ...]]) -> dict[str, Asset]:
    """The asset of each of `names` (BANDS, SCL), by its key or by the name of its only band; ItemFailed if none."""
    found = {ours: _find_asset(item, theirs) for ours, theirs in names.items()}
    missing = [ours for ours, asset in found.items() if asset is None]
    if missing:
        raise ItemFailed(f"has no asset for {', '.join(missing)}; its assets are {', '.join(item.assets) or 'none'}")
    return found


def _find_asset(item: Item, names: tuple[str, ...]) -> Asset | None:
    for name in names:
        if name in item.assets:
            return item.assets[name]
    candidates = [asset for key, asset in item.assets.items() if RESOLUTION_SUFFIX.sub("", key) in names]
    for field in ("name", "common_name"):
        candidates = candidates or [asset for asset in item.assets.values() if _band_of(asset).get(field) in names]
    return min(candidates, key=_metres, default=None)


def _band_of(asset: Asset) -> dict:
    """The description of the only band of an asset, or nothing: pictures of several bands are not what is wanted."""
    bands = asset.extra_fields.get("bands") or asset.extra_fields.get("eo:bands") or []
    if len(bands) != 1 or {"overview", "thumbnail", "visual"} & set(asset.roles or []):
        return {}
    return {"common_name": bands[0].get("eo:common_name"), **bands[0]}


def _metres(asset: Asset) -> float:
    """Pixel size, as far as the item tells it; infinite where it does not."""
    return float(asset.extra_fields.get("gsd") or asset.extra_fields.get("raster:spatial_resolution") or "inf")


def baseline_of(item: Item) -> tuple[int, int] | None:
    """Processing baseline as (major, minor), from the properties or else from the name of the product."""
    properties = item.properties
    text = str(properties.get("s2:processing_baseline") or properties.get("processing:version") or "")
    match = re.fullmatch(r"(\d+)\.(\d+)", text)
    product = str(properties.get("s2:product_uri") or item.id)
    match = match or re.search(r"_N(\d\d)(\d\d)_", product)
    return (int(match[1]), int(match[2])) if match else None


def radiometry_of(item: Item, assets: Iterable[Asset]) -> Radiometry:
    """Decide the radiometric offset of an item. ItemFailed: its bands differ.

    The baseline decides, not the date (products are reprocessed). earth-search v1 has shifted the values where
    `earthsearch:boa_offset_applied` says so, whatever its `raster:bands` says (Element84/earth-search#9);
    Planetary Computer serves the values as produced (PlanetaryComputer#134).
    """
    baseline, assets = baseline_of(item), list(assets)
    text = f"{baseline[0]:02}.{baseline[1]:02}" if baseline else None
    stated = {_stated_offset(asset) for asset in assets} - {None}
    if item.properties.get("earthsearch:boa_offset_applied") is True:
        return Radiometry(text, 0, "earthsearch:boa_offset_applied is true")
    if baseline and baseline < FIRST_WITH_OFFSET:
        return Radiometry(text, 0, f"processing baseline {text} is before 04.00")
    if len(stated) > 1:
        raise ItemFailed(f"states different offsets for its bands: {', '.join(map(str, sorted(stated)))} DN")
    if stated:
        return Radiometry(text, stated.pop(), "the offset that its assets state")
    if baseline:
        return Radiometry(text, OFFSET, f"processing baseline {text} is 04.00 or later")
    return Radiometry(None, None, "no processing baseline and no offset in the catalogue")


def _raster(asset: Asset) -> dict:
    """What the raster extension says of the first band, in its version 1 or 2 (STAC 1.1)."""
    fields = asset.extra_fields
    band = (fields.get("raster:bands") or fields.get("bands") or [{}])[0]
    return {key.removeprefix("raster:"): value for key, value in {**fields, **band}.items()}


def _stated_offset(asset: Asset) -> int | None:
    """The offset in DN: catalogues give it in reflectance, beside the scale."""
    raster = _raster(asset)
    if raster.get("offset") is None:
        return None
    return round(float(raster["offset"]) / float(raster.get("scale") or 1e-4))


def time_of(item: Item) -> datetime:
    """When the image was taken; ItemFailed if the item does not tell."""
    when = item.datetime or item.common_metadata.start_datetime
    if when is None:
        raise ItemFailed("has no datetime")
    return when


def newest_first(items: Iterable[Item]) -> list[Item]:
    """Items of one day in the order in which their pixels count: newest baseline, then newest production, then id."""

    def age(item: Item) -> tuple:
        produced = item.properties.get("s2:generation_time") or item.properties.get("created") or ""
        return baseline_of(item) or (0, 0), str(produced), item.id

    return sorted(items, key=age, reverse=True)
