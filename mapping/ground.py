"""What pixels are on the ground: their areas, and positions in metres."""

from __future__ import annotations

import numpy as np

from datasets.errors import DataError
from datasets.imagery.grid import Grid, transform_points
from datasets.optional import need

HECTARE = 10_000.0  # square metres
DISTORTION = 0.01  # of area, from which on a projection is warned of
EARTH = 6_371_008.8  # metres, mean radius


def pixel_hectares(grid: Grid, window) -> np.ndarray | float:
    """Area of the pixels of a window: one number, or in degrees (h, 1) by row (h, w if the grid is rotated).

    In degrees that of the ellipsoid between the parallels, exactly; in a projected CRS that of the plane.
    """
    t = grid.transform
    if not grid.crs.is_geographic:
        return abs(t.determinant) * grid.crs.linear_units_factor[1] ** 2 / HECTARE
    unit = grid.crs.units_factor[1]  # radians
    rows = np.arange(int(window.row_off), int(window.row_off) + int(window.height))[:, None]
    cols = np.arange(int(window.col_off), int(window.col_off) + int(window.width))[None, :] if t.d else 0
    _, latitude = grid.centres(rows, cols)
    half = (abs(t.d) + abs(t.e)) / 2
    north, south = (np.clip((latitude + side * half) * unit, -np.pi / 2, np.pi / 2) for side in (1, -1))
    axis, eccentricity = _ellipsoid(grid.crs)
    of_radian = _up_to(north, axis, eccentricity) - _up_to(south, axis, eccentricity)  # m² a radian of longitude
    return of_radian * abs(t.determinant) / (2 * half) * unit / HECTARE


def _ellipsoid(crs) -> tuple[float, float]:
    """Semi-major axis in metres, and eccentricity."""
    ellipsoid = need("pyproj", "areas of pixels in degrees").CRS.from_wkt(crs.to_wkt()).ellipsoid
    minor, major = ellipsoid.semi_minor_metre, ellipsoid.semi_major_metre
    return major, float(np.sqrt(1 - (minor / major) ** 2))


def _up_to(latitude: np.ndarray, axis: float, eccentricity: float) -> np.ndarray:
    """Area from the equator to a latitude (radians) for a radian of longitude (Snyder 1987, equation 3-12)."""
    sine, e = np.sin(latitude), eccentricity
    if e == 0:
        return axis**2 * sine
    return axis**2 * (1 - e**2) / 2 * (sine / (1 - (e * sine) ** 2) + np.arctanh(e * sine) / e)


def area_distortion(grid: Grid) -> float:
    """Area of the middle pixel in the plane of a projected CRS by that on the ellipsoid; 1 in degrees."""
    if grid.crs.is_geographic:
        return 1.0
    pyproj = need("pyproj", "areas of pixels")
    crs = pyproj.CRS.from_wkt(grid.crs.to_wkt())
    cols, rows = np.array([0, 1, 1, 0]) + grid.width / 2, np.array([0, 0, 1, 1]) + grid.height / 2
    x, y = grid.centres(rows - 0.5, cols - 0.5)
    longitude, latitude = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True).transform(x, y)
    area, _ = crs.get_geod().polygon_area_perimeter(longitude, latitude)
    return abs(grid.transform.determinant) * grid.crs.linear_units_factor[1] ** 2 / abs(area)


def positions(grid: Grid, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """Centres of pixels in metres: (n, 2) in the plane of a projected CRS, in degrees (n, 3) on a sphere."""
    x, y = grid.centres(rows, cols)
    if not grid.crs.is_geographic:
        return np.stack([x, y], axis=-1) * grid.crs.linear_units_factor[1]
    longitude, latitude = x * grid.crs.units_factor[1], y * grid.crs.units_factor[1]
    level = np.cos(latitude)
    return EARTH * np.stack([level * np.cos(longitude), level * np.sin(longitude), np.sin(latitude)], axis=-1)


def check_overlap(first: str, grid: Grid, second: str, other: Grid) -> None:
    """DataError if the rectangles around two grids do not overlap in the CRS of the first."""
    along = np.linspace(0, 1, 21)
    rows = np.concatenate([0 * along, 0 * along + 1, along, along])
    cols = np.concatenate([along, along, 0 * along, 0 * along + 1])
    x, y = grid.centres(rows * grid.height - 0.5, cols * grid.width - 0.5)
    u, v = other.centres(rows * other.height - 0.5, cols * other.width - 0.5)
    u, v = (u, v) if other.crs == grid.crs else transform_points(other.crs, grid.crs, u, v)
    known = np.isfinite(u) & np.isfinite(v)
    apart = not known.any() or x.max() <= u[known].min() or u[known].max() <= x.min()
    if apart or y.max() <= v[known].min() or v[known].max() <= y.min():
        raise DataError(
            f"{second}: no overlap with {first}; it covers {extent(u[known], v[known])}, the map {extent(x, y)}"
            f" (in {grid.crs.to_string()[:60]})"
        )


def extent(x: np.ndarray, y: np.ndarray) -> str:
    """'x 1 to 2, y 3 to 4', or 'nothing' of no points."""
    if not len(x):
        return "nothing"
    return f"x {x.min():.7g} to {x.max():.7g}, y {y.min():.7g} to {y.max():.7g}"
