"""The pixel grid and the days of a place that is given in degrees, for what fetches images of it."""

from __future__ import annotations

import math
from datetime import date, datetime, timedelta
from typing import NamedTuple

from datasets.errors import DataError
from datasets.optional import need

LON_LAT = "EPSG:4326"
SLACK = 1e-6  # pixels that a bound may lie beyond a pixel edge by rounding


class Area(NamedTuple):
    """A grid of square pixels; `left`, `top` and `resolution` in the units of `crs` (metres)."""

    crs: str
    left: float
    top: float
    resolution: float
    width: int
    height: int

    @property
    def transform(self) -> tuple[float, float, float, float, float, float]:
        """The six numbers of an affine transform: x = a * column + b * row + c, y = d * column + e * row + f."""
        return self.resolution, 0.0, self.left, 0.0, -self.resolution, self.top


def check_bbox(bbox: tuple[float, float, float, float]) -> None:
    """DataError unless west < east and south < north are degrees."""
    west, south, east, north = bbox
    if not (-180 <= west < east <= 180 and -90 <= south < north <= 90):
        raise DataError(
            f"bounding box {west:g} {south:g} {east:g} {north:g}: expected degrees WEST SOUTH EAST NORTH with west < "
            "east and south < north; cut a place that lies across the antimeridian into two"
        )


def utm_of(bbox: tuple[float, float, float, float]) -> str:
    """The UTM zone of the centre of a bounding box in degrees, on WGS 84."""
    west, south, east, north = bbox
    zone = min(int(((west + east) / 2 + 180) // 6) + 1, 60)
    return f"EPSG:{(32600 if south + north >= 0 else 32700) + zone}"


def area_of(
    bbox: tuple[float, float, float, float],
    crs: str,
    resolution: float,
    *,
    anchor: tuple[float, float] = (0.0, 0.0),
    margin: int = 0,
) -> Area:
    """The smallest grid that covers a bounding box in degrees, and `margin` pixels more on each side.

    A pixel corner lies on `anchor`. With (0, 0) the pixels are those of the Sentinel-2 tiles, whose corners are
    multiples of 60 m in UTM. DataError: `crs` is not known or is not in metres.
    """
    rasterio = need("rasterio", "the grid of a bounding box")
    warp = need("rasterio.warp", "the grid of a bounding box")
    try:
        target = rasterio.crs.CRS.from_user_input(crs)
    except rasterio.errors.CRSError:
        raise DataError(f"CRS {crs!r} is not known: expected a code such as EPSG:32614") from None
    if not target.is_projected or target.linear_units_factor[1] != 1.0:
        raise DataError(f"CRS {crs} is not in metres: expected a projected one, such as the UTM zone {utm_of(bbox)}")
    left, bottom, right, top = warp.transform_bounds(LON_LAT, target, *bbox, densify_pts=21)
    columns = _pixels(left, right, anchor[0], resolution, margin)
    rows = _pixels(bottom, top, anchor[1], resolution, margin)
    return Area(
        crs=crs,
        left=anchor[0] + columns[0] * resolution,
        top=anchor[1] + rows[1] * resolution,
        resolution=resolution,
        width=columns[1] - columns[0],
        height=rows[1] - rows[0],
    )


def _pixels(low: float, high: float, anchor: float, resolution: float, margin: int) -> tuple[int, int]:
    """The first pixel edge and the last of an interval, counted from the anchor."""
    first = math.floor((low - anchor) / resolution + SLACK) - margin
    last = math.ceil((high - anchor) / resolution - SLACK) + margin
    return first, max(last, first + 1)


def solar_day(when: datetime, longitude: float) -> date:
    """The calendar day of mean solar time at a longitude in degrees; `when` is UTC."""
    return (when + timedelta(hours=longitude / 15)).date()
