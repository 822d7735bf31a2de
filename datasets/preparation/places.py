"""Where pixels are on the ground: metres, and the blocks by which they are dealt to train, valid and eval."""

from __future__ import annotations

import math

import numpy as np

from datasets.errors import DataError
from datasets.preparation.samples import Samples
from datasets.preparation.split import block_of

DEGREE = 111_195.0  # metres of a degree of latitude, on a sphere of radius 6,371 km
BLOCK_SIZE = 3000.0  # metres


def metres_per_unit(grid) -> tuple[float, float]:
    """Metres of one unit of x and of y of the grid's CRS.

    Of a degree of longitude at the grid's middle latitude, rounded to whole degrees so that images of one place have
    the same blocks whatever their exact outline.
    """
    if not grid.crs.is_geographic:
        factor = grid.crs.linear_units_factor[1]
        return factor, factor
    _, middle = grid.centres(grid.height / 2, grid.width / 2)
    return DEGREE * math.cos(math.radians(round(middle))), DEGREE


def pixel_metres(grid) -> float:
    """The longer side of a pixel."""
    along, across = metres_per_unit(grid)
    a, b, _, d, e, _ = tuple(grid.transform)[:6]
    return max(math.hypot(a * along, d * across), math.hypot(b * along, e * across))


def blocks_at(row: np.ndarray, col: np.ndarray, grid, size: float) -> np.ndarray:
    """The block of `size` metres in which the centre of each pixel lies, (N,) of str."""
    along, across = metres_per_unit(grid)
    x, y = grid.centres(row, col)
    return block_of(x * along, y * across, size)


def in_home_block(samples: Samples) -> np.ndarray:
    """Which samples lie in the block that holds most pixels of their polygon (of several, the first), (P,) bool."""
    _, polygon = np.unique(samples.columns["shape"], return_inverse=True)
    _, block = np.unique(samples.columns["block"], return_inverse=True)
    pairs, pair, counts = np.unique(np.stack([polygon, block]), axis=1, return_inverse=True, return_counts=True)
    order = np.lexsort((pairs[1], -counts, pairs[0]))
    home = order[np.unique(pairs[0][order], return_index=True)[1]]  # of each polygon, its pair with most pixels
    return pair.reshape(-1) == home[polygon]


def apart(splits: np.ndarray, polygons: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Which samples to keep so that no two neighbouring polygons are of different splits, (P,) bool.

    `pairs` (2, K): neighbouring polygons. Of two at odds that of valid gives way to eval, and that of train to both.
    """
    names, polygon = np.unique(polygons, return_inverse=True)
    of_polygon = np.full(len(names), -1)
    of_polygon[polygon] = np.array([("train", "valid", "eval").index(split) for split in splits.tolist()])
    known = np.isin(pairs, names).all(axis=0)
    first, second = np.searchsorted(names, pairs[:, known])
    first, second = np.concatenate([first, second]), np.concatenate([second, first])
    dropped = np.zeros(len(names), dtype=bool)
    for weaker in (1, 0):
        dropped[first[(of_polygon[first] == weaker) & (of_polygon[second] > weaker) & ~dropped[second]]] = True
    return ~dropped[polygon]


def check_block_size(size: float) -> None:
    """DataError unless a block has a size."""
    if not size > 0:
        raise DataError(f"--block-size {size:g}; expected metres, more than 0")
