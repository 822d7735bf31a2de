"""Small dated images and label rasters whose values are known."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS

from datasets.bands import BANDS

UTM = CRS.from_epsg(32614)
ORIGIN = Affine(10, 0, 600_000, 0, -10, 4_200_000)  # 10 m pixels, in Kansas
NAMES = ("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12")


def write_raster(path: Path, values: np.ndarray, transform=ORIGIN, crs=UTM, **profile) -> Path:
    """A GeoTIFF of values (H, W) or (bands, H, W)."""
    values = values[None] if values.ndim == 2 else values
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", count=len(values), height=values.shape[1], width=values.shape[2],
        dtype=values.dtype, crs=crs, transform=transform, **profile,
    ) as raster:  # fmt: skip
        raster.write(values)
    return path


def days_of(count: int, year: int = 2019, step: int = 20) -> list[date]:
    return [date(year, 1, 5) + timedelta(days=step * number) for number in range(count)]


def value_of(row: np.ndarray, col: np.ndarray, doy: np.ndarray) -> np.ndarray:
    """The DN of the first band, different for each pixel and day of small images; band b has b more."""
    return (np.asarray(row) * 131 + np.asarray(col) * 17 + np.asarray(doy) * 3) % 9000 + 200


def write_images(folder: Path, height: int, width: int, dates: list[date], transform=ORIGIN, crs=UTM, lost=None):
    """A GeoTIFF a date with the values of `value_of`, 0 (no data) where lost(number of the date) (H, W) is True."""
    row, col = np.mgrid[:height, :width]
    for number, day in enumerate(dates):
        first = value_of(row, col, day.timetuple().tm_yday)
        values = np.stack([first + band for band in range(len(BANDS))]).astype(np.uint16)
        if lost is not None:
            values[:, lost(number)] = 0
        path = write_raster(folder / f"{day.isoformat()}.tif", values, transform, crs, nodata=0)
        with rasterio.open(path, "r+") as raster:
            raster.descriptions = NAMES
    return folder
