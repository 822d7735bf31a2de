"""What metadata say of the processing baseline and the radiometric offset of a Sentinel-2 image.

From processing baseline 04.00 on, reflectance is (DN - 1000) / 10000; before, DN / 10000 (ESA's BOA_ADD_OFFSET). Some
sources bring all to the old scale, so neither dates nor file names tell; what counts, in this order:

1. tags of the file: BOA_ADD_OFFSET (what is still to be added), BOA_OFFSET_APPLIED
2. the STAC item beside it: earthsearch:boa_offset_applied (true: nothing to add)
3. the product's MTD_MSIL2A.xml: its list of BOA_ADD_OFFSET
4. the STAC item's scale and offset of the asset (raster:bands), then those in the file itself
5. the baseline, from tags (PROCESSING_BASELINE) or the STAC item (s2:processing_baseline)
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from datasets.bands import DN_SCALE
from datasets.errors import DataError
from datasets.imagery.dates import find_date
from datasets.imagery.raster import Header

SHIFT = -1000.0  # DN, BOA_ADD_OFFSET of all bands since baseline 04.00
LARGEST = 10_000  # scale or offset of an asset that is believed
FIRST_SHIFTED = (4, 0)
APPLIED = "earthsearch:boa_offset_applied"


class Item(NamedTuple):
    """A STAC item on disk."""

    path: Path
    properties: dict
    assets: dict


class Radiometry(NamedTuple):
    """DN = value * scale + offset, why, and the processing baseline ("" where nothing names it)."""

    scale: float
    offset: float
    why: str
    baseline: str


def radiometry(header: Header, band: int, root: Path) -> Radiometry:
    """What the metadata of one band (from 0) of a file say, offset and scale being what brings its values to DN."""
    item, product = stac_item(header.path, root), safe_metadata(header.path, root)
    tags = dict(header.tags)
    if header.cube is not None:
        tags |= header.cube.tags[band // len(header.cube.layers)]
    baseline, named_by = _baseline(tags, header.path, item, product)
    scale, offset, why = _decide(header, band, tags, item, product, baseline, named_by)
    return Radiometry(scale, offset, why, baseline)


def _decide(header, band, tags, item, product, baseline, named_by) -> tuple[float, float, str]:
    if "boa_add_offset" in tags:
        return 1.0, _number(tags["boa_add_offset"], header.path, "BOA_ADD_OFFSET"), "tag BOA_ADD_OFFSET"
    for key in ("boa_offset_applied", APPLIED):
        if _true(tags.get(key)):
            return 1.0, 0.0, f"tag {key.upper()} is true"
    if item and _true(item.properties.get(APPLIED)):
        return 1.0, 0.0, f"{APPLIED} is true in the STAC item"
    if product:
        return 1.0, product[1], f"{'' if product[1] else 'no '}BOA_ADD_OFFSET in {product[2]}"
    if item and APPLIED not in item.properties:
        stated = _asset_scale(item, header.path)
        if stated is not None:
            return *stated, "scale and offset of the asset in the STAC item"
    scale, offset = header.scales[band], header.offsets[band]
    if (scale, offset) != (1, 0):
        if not (0 < scale <= LARGEST and abs(offset) <= LARGEST):
            raise DataError(
                f"{header.path}: scale {scale} and offset {offset} cannot be; get it again, or give --offset"
            )
        return _round(scale / DN_SCALE), _round(offset / DN_SCALE), "scale and offset in the file"
    if baseline:
        shifted = _version(baseline) >= FIRST_SHIFTED
        return 1.0, SHIFT if shifted else 0.0, f"processing baseline {baseline} in {named_by}"
    return 1.0, 0.0, "nothing names a processing baseline"


def _baseline(tags: dict[str, str], file: str, item: Item | None, product) -> tuple[str, str]:
    for key in ("processing_baseline", "s2:processing_baseline"):
        if key in tags:
            return _checked(tags[key], file), "the tags"
    if item and "s2:processing_baseline" in item.properties:
        return _checked(item.properties["s2:processing_baseline"], str(item.path)), "the STAC item"
    return (product[0], product[2]) if product else ("", "")


def _checked(baseline, where: str) -> str:
    text = str(baseline).strip().lstrip("Nn")
    if re.fullmatch(r"\d{4}", text):
        text = f"{text[:2]}.{text[2:]}"
    if not re.fullmatch(r"\d{1,2}(\.\d{1,2})?", text):
        raise DataError(f"{where}: processing baseline {baseline!r}; expected one such as 05.00, or give --offset")
    major, _, minor = text.partition(".")
    return f"{int(major):02d}.{minor or '0':0<2}"


def _version(baseline: str) -> tuple[int, int]:
    major, minor = baseline.split(".")
    return int(major), int(minor)


def _number(text: str, where: str, what: str) -> float:
    try:
        if abs(value := float(text)) <= LARGEST:  # False for NaN
            return value
        raise ValueError
    except ValueError:
        raise DataError(f"{where}: {what} is {text!r}; expected a number such as -1000") from None


def _true(value) -> bool:
    return value is True or str(value).lower() in ("true", "yes", "1")


def _asset_scale(item: Item, path: str) -> tuple[float, float] | None:
    """Scale and offset of the asset whose file this is, to DN; `None` where the item states none."""
    name = Path(path).name
    for key, asset in item.assets.items():
        if Path(str(asset.get("href", "")).split("?")[0]).name == name or key == Path(path).stem:
            try:
                bands = asset.get("raster:bands") or asset.get("bands") or [{}]
                entry = {**asset, **bands[0]}
                scale = entry.get("scale", entry.get("raster:scale"))
                offset = entry.get("offset", entry.get("raster:offset"))
                if scale is None and offset is None:
                    return None
                scale, offset = float(DN_SCALE if scale is None else scale), float(offset or 0)
                if not (0 < scale <= LARGEST and abs(offset) <= LARGEST):  # False for NaN as well
                    raise ValueError
            except (TypeError, ValueError, KeyError, IndexError, OverflowError):
                raise DataError(
                    f"{item.path}: scale and offset of {key} are no numbers that can be; get it again, or give --offset"
                ) from None
            return (_round(scale / DN_SCALE), _round(offset / DN_SCALE)) if (scale, offset) != (1, 0) else None
    return None


def _round(value: float) -> float:
    """Without the rounding of decimal fractions: -0.1 / 0.0001 is -1000."""
    return float(f"{value:.9g}")


def stac_item(file: str, root: Path) -> Item | None:
    """The STAC item of a file: the one that names it, beside it or in a folder above up to `root`, or the
    only one there, unless its day is another."""
    return _nearest(Path(file), root, _items_in)


@lru_cache(maxsize=4096)
def _items_in(folder: Path) -> tuple[Item, ...]:
    items = []
    for path in sorted(folder.glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:  # without its item an image may be 1000 DN off
            raise DataError(f"{path}: cannot be read as JSON ({error}); get it again, or move it away") from None
        if isinstance(content, dict) and content.get("type") == "Feature" and "properties" in content:
            properties, assets = content["properties"] or {}, content.get("assets") or {}
            objects = [properties, assets, *(assets.values() if isinstance(assets, dict) else ())]
            if not all(isinstance(part, dict) for part in objects):
                raise DataError(f"{path}: is no STAC item: properties or assets are no objects; get it again")
            items.append(Item(path, properties, assets))
    return tuple(items)


def _nearest(file: Path, root: Path, find: Callable[[Path], tuple[Item, ...]]) -> Item | None:
    for folder in _folders(file, root):
        items = find(folder)
        named = [item for item in items if file.stem.startswith(item.path.stem)]
        named += [item for item in items if any(_names(asset, file.name) for asset in item.assets.values())]
        if named:
            return named[0]
        if len(items) == 1 and _same_day(items[0], file):
            return items[0]
    return None


def _same_day(item: Item, file: Path) -> bool:
    """Whether an item can be that of a file: its day is that in the file's name, or in the name is none."""
    found, day = find_date(file.stem), find_date(str(item.properties.get("datetime") or ""))
    return found is None or day is None or abs((found.day - day.day).days) <= 1


def _names(asset: dict, name: str) -> bool:
    return Path(str(asset.get("href", "")).split("?")[0]).name == name


def _folders(file: Path, root: Path) -> list[Path]:
    """The folder of a file and those above it, up to `root`."""
    folders = [file.parent, *file.parent.parents]
    return folders[: folders.index(root) + 1] if root in folders else folders[:1]


def safe_metadata(file: str, root: Path) -> tuple[str, float, str] | None:
    """Baseline, offset and name of the MTD_MSIL2A.xml of a SAFE product; `None` where there is none."""
    for folder in _folders(Path(file), root):
        found = _read_safe(folder / "MTD_MSIL2A.xml")
        if found:
            return found
    return None


@lru_cache(maxsize=4096)
def _read_safe(path: Path) -> tuple[str, float, str] | None:
    if not path.is_file():
        return None
    text = path.read_text(encoding="utf-8", errors="replace")
    baseline = re.search(r"<PROCESSING_BASELINE>\s*([\d.]+)\s*<", text)
    offsets = {float(value) for value in re.findall(r"<BOA_ADD_OFFSET\b[^>]*>\s*(-?[\d.]+)\s*<", text)}
    if len(offsets) > 1:
        raise DataError(f"{path}: offsets {sorted(offsets)} differ between bands; expected one, or give --offset")
    return _checked(baseline[1], str(path)) if baseline else "", offsets.pop() if offsets else 0.0, path.name
