"""Pixel grids: what all images are brought to, and which pixel of a file each of its pixels gets (nearest neighbour).

The nearest pixel of a file is the one in which the centre of a pixel of the grid lies. This is exact for shifted,
flipped and rotated grids, other pixel sizes and other coordinate systems alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from datasets.errors import DataError
from datasets.optional import need

METRES_PER_DEGREE = 111_320.0  # of latitude
EDGE = 1e-6  # of a pixel: a centre this close to an edge lies on it, whatever the rounding


class Grid(NamedTuple):
    """A raster's grid. crs: rasterio CRS; transform: affine.Affine from (column, row) to (x, y)."""

    crs: object
    transform: object
    height: int
    width: int

    def windows(self, size: int | tuple[int, int] = 256) -> Iterator:
        """Windows (rasterio) of `size` pixels (or rows, columns), row by row, that cover the grid."""
        window = need("rasterio.windows", "reading images").Window
        rows, cols = (size, size) if isinstance(size, int) else size
        for row in range(0, self.height, rows):
            for col in range(0, self.width, cols):
                yield window(col, row, min(cols, self.width - col), min(rows, self.height - row))

    def centres(self, rows: np.ndarray, cols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """x and y of the centres of pixels (counted from 0), in the units of the CRS."""
        rows, cols = np.asarray(rows) + 0.5, np.asarray(cols) + 0.5
        t = self.transform
        return t.a * cols + t.b * rows + t.c, t.d * cols + t.e * rows + t.f

    def metres(self) -> float:
        """Size of a pixel, the root of its area; degrees are taken at the grid's own latitude."""
        size = math.sqrt(abs(self.transform.determinant))
        if self.crs.is_geographic:
            _, y = self.centres(self.height / 2, self.width / 2)
            return size * METRES_PER_DEGREE * math.sqrt(max(math.cos(math.radians(float(y))), EDGE))
        return size * self.crs.linear_units_factor[1]

    def same_lattice(self, other: Grid) -> bool:
        """Whether pixels of both lie exactly on one another."""
        if self.crs != other.crs:
            return False
        t = ~self.transform @ other.transform
        close = np.allclose((t.a, t.b, t.d, t.e), (1, 0, 0, 1), atol=1e-3 / max(*other[2:], *self[2:]))
        return close and np.allclose((t.c, t.f), np.round((t.c, t.f)), atol=1e-3)

    def __str__(self) -> str:
        t = self.transform
        size = f"{math.hypot(t.a, t.d):.6g}" if self.crs.is_geographic else f"{math.hypot(t.a, t.d):.4g}"
        unit = "degrees" if self.crs.is_geographic else "m" if self.crs.linear_units_factor[1] == 1 else "units"
        return f"{self.crs.to_string()[:60]}, {size} {unit}, {self.height} x {self.width} pixels"


def share(grids: Sequence[Grid]) -> list[Grid]:
    """The same grids, equal ones being one object."""
    known: dict[tuple, Grid] = {}
    return [known.setdefault((grid.crs.to_wkt(), *grid[1:]), grid) for grid in grids]


def finest(grids: Sequence[Grid]) -> Grid:
    """The lattice of the finest grid (of several, the one that most share, then the first), over the extent of all."""
    grids = share(grids)
    sizes = np.array([grid.metres() for grid in grids])
    fine = [grid for grid, size in zip(grids, sizes, strict=True) if size <= sizes.min() * 1.01]
    lattices: list[list[Grid]] = []
    for grid in fine:
        lattice = next((known for known in lattices if known[0].same_lattice(grid)), None)
        if lattice is None:
            lattices.append([grid])
        else:
            lattice.append(grid)
    lattice = max(lattices, key=len)[0]
    boxes = np.array([_box_on(lattice, grid) for grid in {id(grid): grid for grid in grids}.values()])
    top, left = np.floor(boxes[:, :2].min(axis=0) + 1e-3).astype(int)
    bottom, right = np.ceil(boxes[:, 2:].max(axis=0) - 1e-3).astype(int)
    affine = type(lattice.transform)
    return Grid(lattice.crs, lattice.transform @ affine.translation(left, top), int(bottom - top), int(right - left))


def _box_on(lattice: Grid, grid: Grid) -> tuple[float, float, float, float]:
    """Top, left, bottom, right of a grid in rows and columns of another one's lattice."""
    along = np.linspace(0, 1, 2 if grid.crs == lattice.crs else 21)
    ends = np.zeros_like(along)
    rows = np.concatenate([ends, ends + 1, along, along]) * grid.height
    cols = np.concatenate([along, along, ends, ends + 1]) * grid.width
    x, y = grid.centres(rows - 0.5, cols - 0.5)
    if grid.crs != lattice.crs:
        x, y = transform_points(grid.crs, lattice.crs, x, y)
    cols, rows = ~lattice.transform @ (x, y)
    known = np.isfinite(rows) & np.isfinite(cols)
    if not known.any():
        raise DataError(f"an image in {grid.crs} cannot be brought to {lattice.crs}; give a grid with --grid FILE")
    return rows[known].min(), cols[known].min(), rows[known].max(), cols[known].max()


def transform_points(source, target, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates in another CRS; inf where there are none."""
    xs, ys = need("rasterio.warp").transform(source, target, np.ravel(x), np.ravel(y))
    return np.reshape(xs, np.shape(x)), np.reshape(ys, np.shape(y))


class Nearest(NamedTuple):
    """Which pixels of a file the pixels of a window get.

    top, left, height, width: the part of the file that is needed (height 0: the window lies outside); rows, cols: the
    pixels in that part, (h, 1) and (1, w), or both (h, w), 0 where outside; inside (h, w) bool: which pixels of the
    window the file covers; `plain`: the part is the window as it is.
    """

    top: int
    left: int
    height: int
    width: int
    rows: np.ndarray
    cols: np.ndarray
    inside: np.ndarray
    plain: bool

    def pick(self, part: np.ndarray) -> np.ndarray:
        """(n, height, width) of the file -> (n, h, w) of the window; what lies outside has any value."""
        return part if self.plain else part[:, self.rows, self.cols]

    def strips(self, pixels: int) -> Iterator[tuple[slice, Nearest]]:
        """Rows of the window and their Nearest, so few at a time that parts of the file have about `pixels` at most.

        For windows on a grid much coarser than the file's; a plain one is left whole.
        """
        count = math.ceil(self.height * self.width / pixels)
        if self.plain or count <= 1:
            yield slice(None), self
            return
        step = max(len(self.inside) // count, 1)
        for first in range(0, len(self.inside), step):
            rows = slice(first, first + step)
            yield rows, self._strip(rows)

    def _strip(self, rows: slice) -> Nearest:
        inside, separable = self.inside[rows], self.rows.shape[1] == 1 and self.cols.shape[0] == 1
        if not inside.any():
            return Nearest(0, 0, 0, 0, self.rows[rows], self.cols, inside, False)
        good_rows = inside.any(axis=1, keepdims=True) if separable else inside
        good_cols = inside.any(axis=0, keepdims=True) if separable else inside
        top, height, in_rows = _extent(self.rows[rows] + self.top, good_rows)
        left, width, in_cols = _extent((self.cols if separable else self.cols[rows]) + self.left, good_cols)
        return Nearest(top, left, height, width, in_rows, in_cols, inside, False)


class Sampler:
    """Finds the nearest pixels for one window of a grid; files that share a grid or a CRS share the work."""

    def __init__(self, grid: Grid, window):
        self.grid = grid
        self.rows = np.arange(int(window.row_off), int(window.row_off) + int(window.height))
        self.cols = np.arange(int(window.col_off), int(window.col_off) + int(window.width))
        self._known: dict[int, Nearest] = {}  # by the identity of a grid, which files share
        self._points: list[tuple] = []  # (crs, x, y)

    def nearest(self, source: Grid) -> Nearest:
        """The pixels of a file with the grid `source`."""
        if id(source) not in self._known:
            rows, cols = self._positions(source)
            self._known[id(source)] = _nearest(rows, cols, source)
        return self._known[id(source)]

    def _positions(self, source: Grid) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the file (floats) at the centres of the window: (h, 1) and (1, w), or both (h, w)."""
        rows, cols = self.rows[:, None] + 0.5, self.cols[None, :] + 0.5
        if source.crs == self.grid.crs:
            t = ~source.transform @ self.grid.transform
            if abs(t.b) * self.grid.height < 1e-3 and abs(t.d) * self.grid.width < 1e-3:
                return t.e * rows + t.f, t.a * cols + t.c
            return t.d * cols + t.e * rows + t.f, t.a * cols + t.b * rows + t.c
        x, y = self._points_in(source.crs)
        cols, rows = ~source.transform @ (x, y)
        return rows, cols

    def _points_in(self, crs) -> tuple[np.ndarray, np.ndarray]:
        for known, x, y in self._points:
            if known == crs:
                return x, y
        rows, cols = np.meshgrid(self.rows, self.cols, indexing="ij")
        x, y = transform_points(self.grid.crs, crs, *self.grid.centres(rows, cols))
        self._points.append((crs, x, y))
        return x, y


def _nearest(rows: np.ndarray, cols: np.ndarray, source: Grid) -> Nearest:
    with np.errstate(invalid="ignore"):
        good_rows = np.isfinite(rows) & (rows + EDGE >= 0) & (rows + EDGE < source.height)
        good_cols = np.isfinite(cols) & (cols + EDGE >= 0) & (cols + EDGE < source.width)
    inside = good_rows & good_cols
    if not inside.any():
        return Nearest(0, 0, 0, 0, rows, cols, inside, False)
    if rows.shape == inside.shape:  # every pixel has its own
        good_rows = good_cols = inside
    top, height, rows = _extent(rows, good_rows)
    left, width, cols = _extent(cols, good_cols)
    separable = rows.shape[1] == 1 and cols.shape[0] == 1
    plain = (
        separable
        and bool(inside.all())
        and (height, width) == inside.shape
        and bool((np.diff(rows[:, 0]) == 1).all() and (np.diff(cols[0]) == 1).all())
    )
    return Nearest(top, left, height, width, rows, cols, inside, plain)


def _extent(positions: np.ndarray, good: np.ndarray) -> tuple[int, int, np.ndarray]:
    """First pixel, number of pixels and the pixels counted from the first (0 where not good) for positions (floats)."""
    pixels = np.floor(np.where(good, positions, 0) + EDGE).astype(np.intp)
    first = pixels[good].min()
    return int(first), int(pixels[good].max() - first + 1), np.where(good, pixels - first, 0)
