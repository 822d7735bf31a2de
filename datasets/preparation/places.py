"""Where pixels are on the ground: metres, and the blocks by which they are dealt to train, valid and eval."""

from __future__ import annotations

import math

import numpy as np

from datasets.errors import DataError
from datasets.preparation.samples import Samples
from datasets.preparation.split import block_of, deal

DEGREE = 111_195.0  # metres of a degree of latitude, on a sphere of radius 6,371 km
BLOCK_SIZE = 3000.0  # metres
FEWEST_BLOCKS = 24  # that should fit on the images; of fewer the splits seldom get 2/3, 1/6, 1/6 of every class
DEALS = 20  # tried, at most, to find one that leaves all classes where neighbours are dropped
NOT_SPLIT = ""  # of a sample that no split takes


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


def deal_apart(
    blocks: np.ndarray, labels: np.ndarray, polygons: np.ndarray, pairs: np.ndarray, seed: int
) -> np.ndarray:
    """The split of each sample, by whole blocks and without what `apart` drops (NOT_SPLIT): (P,) of str.

    Where a split loses all samples of a class that it was dealt, the next seeds are tried; of DEALS at most, the first
    that loses fewest classes is taken.
    """
    best, fewest = None, math.inf
    for attempt in range(DEALS):
        dealt = deal(blocks, labels, seed + attempt)
        left = np.where(apart(dealt, polygons, pairs), dealt, NOT_SPLIT)
        kept = left != NOT_SPLIT
        lost = _classes_of_splits(dealt, labels) - _classes_of_splits(left[kept], labels[kept])
        if lost < fewest:
            best, fewest = left, lost
        if not lost:
            break
    return best


def _classes_of_splits(splits: np.ndarray, labels: np.ndarray) -> int:
    """Number of pairs of a split and a class that occur."""
    return sum(len(np.unique(labels[splits == split])) for split in np.unique(splits))


def default_block_size(grid) -> float:
    """BLOCK_SIZE, halved until FEWEST_BLOCKS blocks fit on the images."""
    along, across = metres_per_unit(grid)
    a, b, _, d, e, _ = tuple(grid.transform)[:6]
    area = abs(a * e - b * d) * along * across * grid.height * grid.width
    size = BLOCK_SIZE
    while area < FEWEST_BLOCKS * size**2:
        size /= 2
    return size


def check_block_size(size: float | None) -> None:
    """DataError unless a block has a size; None: the default."""
    if size is not None and not size > 0:
        raise DataError(f"--block-size {size:g}; expected metres, more than 0")
