"""Which part of the images becomes the map: a bounding box, and the pixels that lie within a raster or polygons."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.errors import DataError
from datasets.imagery.grid import Grid, Sampler
from datasets.imagery.raster import SUFFIXES, read_header
from datasets.imagery.sources import Sources
from datasets.optional import need
from datasets.vectorfile import read_frame

EDGE = 1e-6  # of a pixel: an edge of a box this close to an edge of a pixel lies on it, whatever the rounding


class Box(NamedTuple):
    """A map's first row and column in the grid of the images, and its own grid."""

    row: int
    col: int
    grid: Grid


def crop(grid: Grid, bbox: Sequence[float] | None, crs: str | None = None) -> Box:
    """The pixels of the grid that a box touches; all where there is no box.

    bbox: west, south, east, north, in degrees or in the units of `crs` (anything that rasterio takes, "EPSG:32614").
    DataError: not a box, an unknown CRS, or a box that lies outside the grid.
    """
    if bbox is None:
        return Box(0, 0, grid)
    west, south, east, north = bbox
    text = f"--bbox {' '.join(f'{value:g}' for value in bbox)}"
    if not (west < east and south < north):
        raise DataError(f"{text}: expected west south east north, west below east and south below north")
    cols, rows = ~grid.transform @ _outline(bbox, _crs(crs), grid, text)
    top, bottom = _pixels(rows, grid.height)
    left, right = _pixels(cols, grid.width)
    if top >= bottom or left >= right:
        raise DataError(f"{text}: lies outside the images, which cover {_extent(grid, _crs(crs))}")
    transform = grid.transform @ type(grid.transform).translation(left, top)
    return Box(top, left, Grid(grid.crs, transform, bottom - top, right - left))


def _crs(text: str | None):
    rasterio = need("rasterio.crs", "a map")
    try:
        return rasterio.CRS.from_user_input(text or "EPSG:4326")
    except rasterio.CRSError:
        raise DataError(f"--bbox-crs {text}: unknown; expected a code such as EPSG:32614") from None


def _outline(bbox: Sequence[float], crs, grid: Grid, text: str) -> tuple[np.ndarray, np.ndarray]:
    """x and y of points along the edges of the box, in the CRS of the grid."""
    west, south, east, north = bbox
    along = np.linspace(0, 1, 2 if crs == grid.crs else 21)
    x = np.concatenate([west + along * (east - west)] * 2 + [np.full_like(along, west), np.full_like(along, east)])
    y = np.concatenate([np.full_like(along, south), np.full_like(along, north)] + [south + along * (north - south)] * 2)
    if crs != grid.crs:
        x, y = (np.asarray(values) for values in need("rasterio.warp").transform(crs, grid.crs, x, y))
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise DataError(f"{text}: has no coordinates in {grid.crs.to_string()}, the CRS of the images; see --bbox-crs")
    return x, y


def _pixels(positions: np.ndarray, size: int) -> tuple[int, int]:
    """First pixel and the one after the last that an interval of positions touches, of `size` pixels."""
    first, last = np.floor(positions.min() + EDGE), np.ceil(positions.max() - EDGE)
    return int(max(first, 0)), int(min(last, size))


def _corners(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    return grid.transform @ (np.array([0, 0, grid.width, grid.width]), np.array([0, grid.height, 0, grid.height]))


def _extent(grid: Grid, crs) -> str:
    x, y = _corners(grid)
    x, y = need("rasterio.warp").transform(grid.crs, crs, x, y)
    return f"{min(x):.6g} {min(y):.6g} {max(x):.6g} {max(y):.6g} in {crs.to_string()}"


class Within:
    """The pixels of a grid that a map is confined to. Picklable: another process opens the file itself.

    Raises:
        DataError: the file cannot be read, has no CRS, or lies outside the grid.
    """

    def __init__(self, path: str | Path, grid: Grid):
        self.path, self.grid = Path(path), grid
        if not self.path.exists():
            raise DataError(f"--within {path}: no such file; expected a raster or polygons")
        self._check_overlap()

    def __getstate__(self) -> dict:
        return {"path": self.path, "grid": self.grid}

    @property
    def is_raster(self) -> bool:
        return self.path.suffix.lower() in SUFFIXES

    @cached_property
    def _raster(self) -> tuple:
        return read_header(self.path, self.path.parent), Sources()

    @cached_property
    def _polygons(self):
        """Geometries in the CRS of the grid (GeoSeries)."""
        geopandas = need("geopandas", "--within polygons")
        table = read_frame(self.path, "polygons", columns=[])
        if not isinstance(table, geopandas.GeoDataFrame) or table.active_geometry_name is None:
            raise DataError(f"--within {self.path}: a table without geometries; expected polygons")
        geometry = table.geometry
        if geometry.crs is None:
            raise DataError(f"--within {self.path}: has no coordinate reference system")
        geometry = geometry[~(geometry.isna() | geometry.is_empty)]
        if not geometry.geom_type.isin(["Polygon", "MultiPolygon"]).all():
            kinds = ", ".join(sorted(set(geometry.geom_type)))
            raise DataError(f"--within {self.path}: has geometries of type {kinds}; expected polygons")
        return geometry.to_crs(self.grid.crs.to_wkt()).reset_index(drop=True)

    def _check_overlap(self) -> None:
        x, y = _corners(self.grid)
        if self.is_raster:
            other = self._raster[0].grid
            their_x, their_y = need("rasterio.warp").transform(other.crs, self.grid.crs, *_corners(other))
        else:
            west, south, east, north = self._polygons.total_bounds
            their_x, their_y = (west, east), (south, north)
        apart = min(their_x) >= max(x) or max(their_x) <= min(x) or min(their_y) >= max(y) or max(their_y) <= min(y)
        if apart or not np.isfinite([*their_x, *their_y]).all():
            raise DataError(f"--within {self.path}: does not overlap with the images")

    def inside(self, window) -> np.ndarray:
        """Which pixels of a window of the grid are inside, (h, w) bool.

        Of a raster: where the nearest pixel is neither 0 nor no-data. Of polygons: where the centre lies in one.
        """
        return self._in_raster(window) if self.is_raster else self._in_polygons(window)

    def _in_raster(self, window) -> np.ndarray:
        header, sources = self._raster
        nearest = Sampler(self.grid, window).nearest(header.grid)
        if not nearest.height:
            return np.zeros(nearest.inside.shape, bool)
        values, valid = sources.read(header, [0], nearest)
        good = (values != 0) & ~np.isnan(values)
        if header.nodata[0] is not None:
            good &= values != header.nodata[0]
        if valid is not None:
            good &= valid
        return nearest.pick(good)[0] & nearest.inside

    def _in_polygons(self, window) -> np.ndarray:
        height, width = int(window.height), int(window.width)
        transform = self.grid.transform @ type(self.grid.transform).translation(window.col_off, window.row_off)
        x, y = _corners(Grid(self.grid.crs, transform, height, width))
        near = self._polygons.sindex.query(need("shapely").box(x.min(), y.min(), x.max(), y.max()))
        if not len(near):
            return np.zeros((height, width), bool)
        shapes = ((self._polygons.iloc[i], 1) for i in np.sort(near))
        burnt = need("rasterio.features").rasterize(shapes, (height, width), transform=transform, dtype="uint8")
        return burnt > 0
