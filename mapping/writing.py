"""One cloud-optimised GeoTIFF from the parts of a map: a tiled GeoTIFF first, with all tags on it, then GDAL's copy."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import disk_usage

import numpy as np

from datasets.errors import DataError
from datasets.imagery.grid import Grid
from datasets.optional import need
from mapping.legend import CLASSES_TAG, classes_tag
from mapping.parts import Parts
from mapping.styles import palette
from mapping.tiff import unmark_alpha
from mapping.windows import NO_PER_CENT, Plan
from utils.files import cannot_write

TILE = 512  # pixels along a side of a tile
BANDS = ("class code", "confidence, per cent")
COPY = {"COMPRESS": "DEFLATE", "BLOCKSIZE": TILE, "OVERVIEW_RESAMPLING": "MODE", "BIGTIFF": "IF_SAFER"}


def write_map(plan: Plan, parts: Parts, path: Path, tags: dict[str, str]) -> dict[str, int]:
    """Write the map to `path` and return its counts of pixels, `outside`, `few` and `classified`, and by class.

    Raises:
        DataError: a part is missing. WriteError: the file cannot be written, or there is no room for it.
    """
    counts, by_code = Counter(), np.zeros(plan.no_data + 1, np.int64)

    def values(number: int) -> np.ndarray:
        part = _part(parts, number)
        counts.update(part.counts)
        by_code.__iadd__(np.bincount(part.values[0].ravel(), minlength=len(by_code)))
        return part.values

    with _geotiff(plan, parts, path, 2, plan.dtype, plan.no_data) as file:
        file.write_colormap(1, palette(plan.classes, plan.no_data))
        file.descriptions = BANDS
        _write_windows(plan, file, values)
        pixels = {**counts, "classes": {str(one.code): int(by_code[one.code]) for one in plan.classes}}
        file.update_tags(**tags, **{CLASSES_TAG: classes_tag(plan.classes), "PIXELS": json.dumps(pixels)})
    unmark_alpha(path)
    return pixels


def write_probabilities(plan: Plan, parts: Parts, path: Path, tags: dict[str, str]) -> None:
    """Write the probabilities to `path`, per cent, a band a class in the order of their ids; raises as `write_map`."""
    with _geotiff(plan, parts, path, len(plan.classes), "uint8", NO_PER_CENT) as file:
        file.descriptions = [f"{one.name}, per cent" for one in plan.classes]
        file.update_tags(**tags, **{CLASSES_TAG: classes_tag(plan.classes)})
        _write_windows(plan, file, lambda number: _part(parts, number).probabilities)


def _part(parts: Parts, number: int):
    part = parts.read(number)
    if part is None:
        raise DataError(f"{parts.path(number)}: missing or damaged; give the same command again to make it anew")
    return part


def _write_windows(plan: Plan, file, values: Callable[[int], np.ndarray]) -> None:
    for number, window in enumerate(plan.windows):
        file.write(values(number), window=window)


@contextmanager
def _geotiff(plan: Plan, parts: Parts, path: Path, count: int, dtype: str, no_data: int) -> Iterator:
    """A GeoTIFF to fill; it is copied to `path` as a COG at the end, and checked to hold the same."""
    rasterio, copy, grid = need("rasterio", "a map"), need("rasterio.shutil").copy, plan.box.grid
    plain = parts.folder / f"{path.name}.plain.tif"
    profile = {"driver": "GTiff", "tiled": True, "blockxsize": TILE, "blockysize": TILE, "bigtiff": "IF_SAFER"}
    profile |= {"count": count, "dtype": dtype, "nodata": no_data, "crs": grid.crs, "transform": grid.transform}
    failures = (rasterio.errors.RasterioError, need("rasterio._err").CPLE_BaseError)
    size = _size(plan, count * np.dtype(dtype).itemsize)
    if size > disk_usage(path.parent).free:
        raise cannot_write(path, size)
    try:
        with _without_stderr(), rasterio.Env(GDAL_PAM_ENABLED=False):
            with rasterio.open(plain, "w", height=grid.height, width=grid.width, **profile) as file:
                yield file
            copy(plain, path, driver="COG", **COPY)
            if not _same(plain, path, grid):
                raise cannot_write(path, size, why="it was written incompletely")
    except failures as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise cannot_write(path, size, why=reason) from None
    finally:
        with suppress(OSError):
            plain.unlink()


def _size(plan: Plan, pixel_bytes: int) -> int:
    """Bytes of the plain file, and of a copy with overviews that does not get smaller in the worst case."""
    return int(2.4 * plan.box.grid.height * plan.box.grid.width * pixel_bytes)


@contextmanager
def _without_stderr() -> Iterator[None]:
    """libtiff prints lines of its own about a write that fails, beside the error that GDAL raises."""
    sys.stderr.flush()
    saved, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nothing)


def _same(plain: Path, path: Path, grid: Grid) -> bool:
    """Whether the copy holds what the plain file does: GDAL does not report every write that fails."""
    rasterio = need("rasterio")
    with rasterio.open(plain) as one, rasterio.open(path) as other:
        windows = grid.windows(4 * TILE)
        return all(np.array_equal(one.read(window=window), other.read(window=window)) for window in windows)
