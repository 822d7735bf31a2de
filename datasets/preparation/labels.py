"""A raster of class codes: which of its pixels may be used as labels, and what it calls its classes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element

import numpy as np

from datasets.errors import DataError
from datasets.imagery.grid import transform_points
from datasets.imagery.raster import open_alone
from datasets.optional import need
from datasets.xmlfile import parse_xml

MIN_CONFIDENCE, UNIFORM = 95.0, 3


class Legend(NamedTuple):
    """What a raster says about its codes."""

    names: dict[int, str]
    colours: dict[int, tuple[int, int, int]]


class Labels(NamedTuple):
    """The part of a label raster that lies on the images. Entry (0, 0) is pixel (`row`, `col`) of the raster."""

    codes: np.ndarray  # (H, W)
    qualifies: np.ndarray  # (H, W) bool
    row: int
    col: int
    crs: object
    transform: object  # of the whole raster
    filtered: dict[str, int]  # what each part of the rule took, of H * W pixels, one part after another


def is_uniform(codes: np.ndarray, size: int) -> np.ndarray:
    """Where all size x size pixels around a pixel of codes (H, W) have its code; (H, W), False at the border."""
    if size < 1 or size % 2 == 0:
        raise DataError(f"a uniform neighbourhood of {size} x {size} pixels; expected an odd number such as 3")
    reach = size // 2
    uniform = np.zeros(codes.shape, dtype=bool)
    height, width = (length - 2 * reach for length in codes.shape)
    if height <= 0 or width <= 0:
        return uniform
    centre = codes[:, reach : reach + width]
    in_row = np.ones(centre.shape, dtype=bool)
    for shift in range(size):
        in_row &= codes[:, shift : shift + width] == centre
    centre, inner = centre[reach : reach + height], uniform[reach : reach + height, reach : reach + width]
    inner[:] = True
    for shift in range(size):
        inner &= in_row[shift : shift + height]
        inner &= codes[shift : shift + height, reach : reach + width] == centre
    return uniform


def qualifying(
    codes: np.ndarray,
    confidence: np.ndarray | None = None,
    *,
    min_confidence: float = MIN_CONFIDENCE,
    uniform: int = UNIFORM,
    nodata: tuple[float, ...] = (0,),
) -> np.ndarray:
    """Which pixels of codes (H, W) are reliable labels, (H, W) bool (Xu et al. 2024, the data section).

    Their confidence (H, W) is above `min_confidence` and all `uniform` x `uniform` pixels around them have their
    code. Pixels whose neighbourhood crosses the border never qualify, nor do those with a code of `nodata`. Without
    `confidence` the first condition is left out.
    """
    keep = is_uniform(codes, uniform) & ~np.isin(codes, nodata)
    return keep if confidence is None else keep & (confidence > min_confidence)


def read_labels(
    path: Path,
    confidence: Path | None,
    grid,
    *,
    min_confidence: float = MIN_CONFIDENCE,
    uniform: int = UNIFORM,
) -> Labels:
    """The labels of a raster around the images' grid, by the rule of `qualifying` on the raster's own grid.

    No pixel is resampled; the border that is left out is the raster's, not that of the part which is read.

    Raises:
        DataError: a raster without CRS, of several bands or of numbers that are no codes; no overlap with the images;
            a confidence raster of another grid.
    """
    with _open(path) as raster:
        inner = _overlap(raster, grid, path)
        reach = uniform // 2
        outer = _grown(inner, reach, raster)
        codes = _codes(_read(raster, outer, path), path)
        sure = None
        if confidence is not None:
            with _open(confidence) as other:
                _check_same_grid(raster, other, path, confidence)
                sure = _read(other, outer, confidence)
        nodata = (0,) if raster.nodata is None else (0, raster.nodata)
        crs, transform = raster.crs, raster.transform
    rows, cols = (slice(a - b, a - b + n) for a, b, n in zip(inner[:2], outer[:2], inner[2:], strict=True))
    keep = qualifying(codes, sure, min_confidence=min_confidence, uniform=uniform, nodata=nodata)[rows, cols]
    filtered = {}
    left = ~np.isin(codes, nodata)[rows, cols]
    filtered["no label"] = int((~left).sum())
    if sure is not None:
        filtered[f"confidence of {min_confidence:g} or less"] = int((left & (sure[rows, cols] <= min_confidence)).sum())
        left &= sure[rows, cols] > min_confidence
    filtered[f"{uniform} x {uniform} neighbourhood not uniform, or at the border"] = int((left & ~keep).sum())
    return Labels(codes[rows, cols], keep, inner[0], inner[1], crs, transform, filtered)


def read_legend(path: Path) -> Legend:
    """Colours from the raster's palette, names (and colours without a palette) from PATH.aux.xml, where there are."""
    with _open(path) as raster:
        try:
            colours = {code: tuple(colour[:3]) for code, colour in raster.colormap(1).items()}
        except ValueError:  # no palette
            colours = {}
    names: dict[int, str] = {}
    sidecar = path.with_name(f"{path.name}.aux.xml")
    if sidecar.is_file():
        try:
            band = parse_xml(sidecar).find(".//PAMRasterBand")
        except ValueError as error:
            raise DataError(f"{sidecar}: cannot be read as XML: it {error}; remove it, or write it again") from None
        if band is not None:
            names = _category_names(band)
            try:
                table_names, table_colours = _attribute_table(band)
            except (ValueError, IndexError, OverflowError) as error:
                raise DataError(f"{sidecar}: its table of classes is damaged ({error}); remove it") from None
            names, colours = table_names | names, table_colours | colours
    return Legend({code: name for code, name in names.items() if name}, colours)


def _category_names(band: Element) -> dict[int, str]:
    return {code: (entry.text or "").strip() for code, entry in enumerate(band.findall("./CategoryNames/Category"))}


def _attribute_table(band: Element) -> tuple[dict[int, str], dict[int, tuple[int, int, int]]]:
    """Names and colours by code of a GDAL raster attribute table, its columns found by usage or name."""
    table = band.find("./GDALRasterAttributeTable")
    if table is None:
        return {}, {}
    usages = {"2": "name", "5": "value", "6": "red", "7": "green", "8": "blue"}  # GDALRATFieldUsage
    place = {}
    for number, field in enumerate(table.findall("./FieldDefn")):
        title = field.findtext("Name", "").strip().lower().replace("_", "")
        titles = {"value": "value", "classname": "name", "name": "name", "red": "red", "green": "green", "blue": "blue"}
        place.setdefault(usages.get(field.findtext("Usage", "").strip(), titles.get(title)), number)
    names, colours = {}, {}
    for entry in table.findall("./Row"):
        cells = [(cell.text or "").strip() for cell in entry.findall("./F")]
        if "value" not in place or not cells[place["value"]]:
            continue
        code = int(float(cells[place["value"]]))
        if "name" in place:
            names[code] = cells[place["name"]]
        if {"red", "green", "blue"} <= set(place):
            red, green, blue = (min(int(float(cells[place[channel]])), 255) for channel in ("red", "green", "blue"))
            colours[code] = (red, green, blue)
    return names, colours


@contextmanager
def _open(path: Path) -> Iterator:
    with open_alone(path) as raster:
        if raster.crs is None:
            raise DataError(
                f"{path}: has no CRS, so it cannot be laid on the images; write one into it (gdal_edit.py -a_srs …)"
            )
        if raster.count != 1:
            raise DataError(f"{path}: has {raster.count} bands; expected one, of whole numbers")
        yield raster


def _read(raster, part: tuple[int, int, int, int], path: Path) -> np.ndarray:
    rasterio = need("rasterio")
    row, col, height, width = part
    try:
        return raster.read(1, window=rasterio.windows.Window(col, row, width, height))
    except rasterio.errors.RasterioIOError as error:
        raise DataError(f"{path}: cannot be read, truncated perhaps ({error}); get it again") from None


def _codes(values: np.ndarray, path: Path) -> np.ndarray:
    """Whole numbers as they are; floats that are whole numbers as int64, NaN as 0."""
    if values.dtype.kind in "iu":
        return values
    values = np.nan_to_num(values, nan=0.0)
    if (values % 1 != 0).any():
        raise DataError(f"{path}: holds {values[values % 1 != 0][0]:g}; expected class codes, which are whole numbers")
    return values.astype(np.int64)


def _overlap(raster, grid, path: Path) -> tuple[int, int, int, int]:
    """The raster's pixels (row, col, height, width) around the images' outline."""
    border = np.array(to_crs(*outline(grid.transform, grid.height, grid.width), grid.crs, raster.crs))
    finite = border[:, np.isfinite(border).all(axis=0)]
    if finite.size:
        cols, rows = at(~raster.transform, *finite)
        top, left = max(int(np.floor(rows.min())), 0), max(int(np.floor(cols.min())), 0)
        bottom, right = min(int(np.ceil(rows.max())), raster.height), min(int(np.ceil(cols.max())), raster.width)
        if top < bottom and left < right:
            return top, left, bottom - top, right - left
    labels = to_crs(*outline(raster.transform, raster.height, raster.width), raster.crs, grid.crs)
    raise DataError(
        f"{path}: no overlap with the images; it covers {extent(*labels)}, the images"
        f" {extent(*outline(grid.transform, grid.height, grid.width))} (in the CRS of the images)"
    )


def outline(transform, height: int, width: int, points: int = 21) -> tuple[np.ndarray, np.ndarray]:
    """Points along the border of a raster, (4 * points,) x and y."""
    along = np.linspace(0, 1, points)
    col = np.concatenate([along, along, 0 * along, 0 * along + 1]) * width
    row = np.concatenate([0 * along, 0 * along + 1, along, along]) * height
    return at(transform, col, row)


def extent(x: np.ndarray, y: np.ndarray) -> str:
    keep = np.isfinite(x) & np.isfinite(y)
    if not keep.any():
        return "nothing"
    return f"x {x[keep].min():.6g} to {x[keep].max():.6g}, y {y[keep].min():.6g} to {y[keep].max():.6g}"


def _grown(part: tuple[int, int, int, int], reach: int, raster) -> tuple[int, int, int, int]:
    """The part with `reach` more pixels on every side, as far as the raster goes."""
    row, col, height, width = part
    top, left = max(row - reach, 0), max(col - reach, 0)
    bottom, right = min(row + height + reach, raster.height), min(col + width + reach, raster.width)
    return top, left, bottom - top, right - left


def _check_same_grid(raster, other, path: Path, confidence: Path) -> None:
    same = raster.crs == other.crs and raster.shape == other.shape
    if not same or not raster.transform.almost_equals(other.transform, precision=1e-6 * abs(raster.transform.a)):
        raise DataError(
            f"{confidence}: {other.width} x {other.height} pixels, {other.crs}, {tuple(other.transform)[:6]}; expected"
            f" the grid of {path}: {raster.width} x {raster.height}, {raster.crs}, {tuple(raster.transform)[:6]}"
        )


def at(transform, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An affine transform of coordinates (N,), as from columns and rows to x and y; infinite ones lie nowhere."""
    with np.errstate(invalid="ignore"):
        a, b, c, d, e, f = tuple(transform)[:6]
        return a * x + b * y + c, d * x + e * y + f


def to_crs(x: np.ndarray, y: np.ndarray, source, target) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (N,) of one CRS in another; infinite where the target has no place for them."""
    return (np.asarray(x), np.asarray(y)) if source == target else transform_points(source, target, x, y)
