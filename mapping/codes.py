"""Rasters of class codes: opening, reading by windows, and counting their pixels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.errors import DataError
from datasets.imagery.grid import Grid, Sampler
from datasets.imagery.raster import open_alone
from datasets.optional import need
from mapping.ground import pixel_hectares
from mapping.legend import Entry, read_legend

WINDOW = 1024  # pixels a side: what is in memory of each raster at a time
NO_CODE = -(2**40)  # where there is no class
SMALL = 1 << 22  # range of values that are counted by a table


class Counts(NamedTuple):
    """What a map holds: codes in order, (C,) int64; pixels (C,) int64 and hectares (C,) of each; pixels without."""

    codes: np.ndarray
    pixels: np.ndarray
    hectares: np.ndarray
    without: int


def counted(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different whole numbers among `values` (n,), in order, and how often each occurs; as numpy.unique, faster."""
    if not len(values):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    low = values.min()
    if values.max() - low >= SMALL:
        return np.unique(values, return_counts=True)
    counts = np.bincount(values - low)
    found = np.flatnonzero(counts)
    return found + low, counts[found]


class Raster:
    """An open raster, read by windows. `nodata`: the value that means none, or None."""

    def __init__(self, path: Path, file):
        self.path, self.file, self.nodata = path, file, file.nodata
        self.grid = Grid(file.crs, file.transform, file.height, file.width)

    def values(self, window, band: int = 1) -> np.ndarray:
        """A band (from 1) of a window, (h, w), of the type of the file."""
        rasterio = need("rasterio")
        try:
            return self.file.read(band, window=window)
        except rasterio.errors.RasterioError as error:
            raise DataError(f"{self.path}: is corrupt or truncated ({error}); get it again") from None

    def numbers(self, window, band: int = 1) -> np.ndarray:
        """A band of a window as float32, NaN where it has the no-data value."""
        values = self.values(window, band)
        numbers = values.astype(np.float32)
        if self.nodata is not None:
            numbers[values == self.nodata] = np.nan
        return numbers

    def codes(self, window) -> np.ndarray:
        """Class codes of a window, (h, w) int64, NO_CODE where there is none."""
        values = self.values(window)
        known = np.ones(values.shape, dtype=bool)
        if values.dtype.kind == "f":
            known &= np.isfinite(values)
            broken = values[known & (np.where(known, values, 0) % 1 != 0)]
            if broken.size:
                raise DataError(f"{self.path}: holds {broken[0]:g}; expected class codes, which are whole numbers")
        if self.nodata is not None:
            known &= values != self.nodata
        if need("rasterio").enums.MaskFlags.per_dataset in self.file.mask_flag_enums[0]:
            known &= self.file.read_masks(1, window=window) != 0
        return np.where(known, np.where(known, values, 0).astype(np.int64), NO_CODE)

    def at(self, sampler: Sampler, read, outside) -> np.ndarray:
        """What `read(window)` gives for the pixel at the centre of each pixel of another grid's window."""
        window = need("rasterio.windows").Window
        near = sampler.nearest(self.grid)
        found = []
        for _, part in near.strips(4 * WINDOW**2):
            if not part.height:
                found.append(np.full(part.inside.shape, outside))
                continue
            values = read(window(part.left, part.top, part.width, part.height))
            found.append(np.where(part.inside, part.pick(values[None])[0], outside))
        return np.concatenate(found)


@contextmanager
def open_raster(path: str | Path) -> Iterator[Raster]:
    """Open a raster; DataError for one that is not there, is no raster or has no CRS."""
    path = Path(path)
    with open_alone(path) as file:
        if file.crs is None:
            raise DataError(f"{path}: has no CRS; write one into it, as with gdal_edit.py -a_srs EPSG:…")
        yield Raster(path, file)


class Map(Raster):
    """A map of classes in band 1. confidence: the band of it in per cent, or None; legend: what it says of itself."""

    def __init__(self, path: Path, file, classes: str | Path | None = None):
        super().__init__(path, file)
        self.legend: list[Entry] = read_legend(path, classes)
        if self.nodata is None and all(entry.code for entry in self.legend):
            self.nodata = 0  # that no class is 0 leaves it for pixels without
        named = [band for band, text in enumerate(file.descriptions, 1) if "confidence" in (text or "").lower()]
        self.confidence = named[0] if named else 2 if file.count == 2 else None

    def windows(self) -> Iterator:
        """Windows (rasterio) that cover the map."""
        return self.grid.windows(WINDOW)

    def confidence_at(self, window, where) -> np.ndarray | None:
        """Confidence in per cent of some pixels of a window (a mask or an index); None if the map has none."""
        return None if self.confidence is None else self.values(window, self.confidence)[where]

    def count(self) -> Counts:
        """Count the pixels of each class, and add up their areas."""
        total: dict[int, list] = {}
        without = 0
        for window in self.windows():
            codes = self.codes(window)
            known = codes != NO_CODE
            without += int((~known).sum())
            found, pixels = counted(codes[known])
            if self.grid.crs.is_geographic:
                area = np.broadcast_to(pixel_hectares(self.grid, window), codes.shape)[known]
                areas = np.bincount(np.searchsorted(found, codes[known]), weights=area)
            else:
                areas = pixels * pixel_hectares(self.grid, window)
            for code, some, hectares in zip(found.tolist(), pixels.tolist(), areas.tolist(), strict=True):
                entry = total.setdefault(code, [0, 0.0])
                entry[0], entry[1] = entry[0] + some, entry[1] + hectares
        if not total:
            raise DataError(f"{self.path}: has no pixel with a class; expected a map of class codes in band 1")
        codes = sorted(total)
        pixels, hectares = zip(*(total[code] for code in codes), strict=True)
        return Counts(np.array(codes), np.array(pixels, dtype=np.int64), np.array(hectares), without)


@contextmanager
def open_map(path: str | Path, classes: str | Path | None = None) -> Iterator[Map]:
    """Open a map; DataError as `open_raster` and `read_legend`."""
    with open_raster(path) as raster:
        yield Map(raster.path, raster.file, classes)
