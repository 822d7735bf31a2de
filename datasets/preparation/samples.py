"""The pixels of the images that become series: where they are, and what is known of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from datasets.preparation.labels import Labels, at, to_crs

STRIP = 1 << 20  # pixels that are located at once
EDGE = 6  # decimals of a pixel: a centre on the line between two pixels belongs to the second, whatever rounding does


@dataclass(frozen=True, eq=False)
class Samples:
    """P pixels of the images' grid, and columns of P values: code, label, polygon, block, split, rank (those known)."""

    row: np.ndarray  # (P,) int32
    col: np.ndarray  # (P,) int32
    columns: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.row)

    def take(self, chosen: np.ndarray) -> Samples:
        """Those at these positions, or where a mask is True."""
        return Samples(self.row[chosen], self.col[chosen], {name: c[chosen] for name, c in self.columns.items()})

    def having(self, **columns: np.ndarray) -> Samples:
        """The same pixels with these columns."""
        return replace(self, columns=self.columns | columns)


def at_centres(labels: Labels, grid) -> tuple[Samples, dict[str, int]]:
    """The image pixel in which the centre of each qualifying label pixel lies, with its code; and what was left out.

    Where several centres lie in one pixel it is used once, and not at all if their codes differ.
    """
    parts, rows = [], np.flatnonzero(labels.qualifies.any(axis=1))
    for some in _pieces(rows, labels.qualifies.shape[1]):
        row, col = np.nonzero(labels.qualifies[some])
        row = some[row]
        x, y = at(labels.transform, labels.col + col + 0.5, labels.row + row + 0.5)
        parts.append((*pixel_at(*to_crs(x, y, labels.crs, grid.crs), grid), labels.codes[row, col]))
    row, col, codes = (np.concatenate(part) for part in zip(*parts, strict=True)) if parts else (np.zeros(0, int),) * 3
    inside = row >= 0
    samples = Samples(row[inside].astype(np.int32), col[inside].astype(np.int32), {"code": codes[inside]})
    samples, twice, disputed = unique(samples, "code", grid)
    return samples, {
        "centre outside the images": int((~inside).sum()),
        "in the pixel of another label": twice,
        "in one pixel with a different label": disputed,
    }


def all_inside(labels: Labels, grid) -> Samples:
    """Every image pixel whose centre lies in a qualifying label pixel, with that pixel's code."""
    parts = []
    for rows in _pieces(np.arange(grid.height), grid.width):
        row, col = (part.reshape(-1) for part in np.meshgrid(rows, np.arange(grid.width), indexing="ij"))
        x, y = grid.centres(row, col)
        label_col, label_row = at(~labels.transform, *to_crs(x, y, grid.crs, labels.crs))
        label_row, label_col = (_floor(v) - first for v, first in ((label_row, labels.row), (label_col, labels.col)))
        height, width = labels.codes.shape
        inside = (label_row >= 0) & (label_row < height) & (label_col >= 0) & (label_col < width)
        inside[inside] = labels.qualifies[label_row[inside], label_col[inside]]
        codes = labels.codes[label_row[inside], label_col[inside]]
        parts.append((row[inside].astype(np.int32), col[inside].astype(np.int32), codes))
    row, col, codes = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Samples(row, col, {"code": codes})


def pixel_at(x: np.ndarray, y: np.ndarray, grid) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of the pixel in which each point lies, (N,) int64; -1, -1 outside the grid."""
    col, row = (_floor(values) for values in at(~grid.transform, np.asarray(x), np.asarray(y)))
    inside = (row >= 0) & (row < grid.height) & (col >= 0) & (col < grid.width)
    return np.where(inside, row, -1), np.where(inside, col, -1)


def unique(samples: Samples, column: str, grid) -> tuple[Samples, int, int]:
    """Each pixel once, in row-major order; a pixel with several values of `column` not at all.

    Returns the samples, how many repeated another, and how many were at odds with another.
    """
    place = samples.row.astype(np.int64) * grid.width + samples.col
    order = np.argsort(place, kind="stable")
    place, values = place[order], samples.columns[column][order]
    first = np.append(True, place[1:] != place[:-1])[: len(place)]
    run = np.cumsum(first) - 1  # which pixel each is of
    disputed = np.bincount(run, weights=values != values[first][run])[run] > 0
    kept = samples.take(order[first & ~disputed])
    return kept, int((~first & ~disputed).sum()), int(disputed.sum())


def draw_per_group(groups: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Positions, ascending, of at most `most` members of each group, drawn by the seed."""
    order = np.random.default_rng([seed, 1]).permutation(len(groups))
    _, group = np.unique(groups, return_inverse=True)
    by_group = order[np.argsort(group[order], kind="stable")]
    sizes = np.bincount(group)
    within = np.arange(len(groups)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.sort(by_group[within < most])


def draw_pixels(grid, count: int, seed: int) -> Samples:
    """`count` different pixels of the whole grid in row-major order; column `rank` tells the order of the draw."""
    drawn = np.random.default_rng([seed, 2]).choice(grid.height * grid.width, count, replace=False)
    rank = np.argsort(drawn)
    row, col = np.divmod(drawn[rank], grid.width)
    return Samples(row.astype(np.int32), col.astype(np.int32), {"rank": rank})


def _floor(values: np.ndarray) -> np.ndarray:
    """Whole pixels; what is not finite lies outside every raster."""
    return np.where(np.isfinite(values), np.floor(np.round(values, EDGE)), -1e9).astype(np.int64)


def _pieces(rows: np.ndarray, width: int) -> Iterator[np.ndarray]:
    """The rows, some at a time, so that they have about STRIP pixels."""
    step = max(STRIP // max(width, 1), 1)
    for first in range(0, len(rows), step):
        yield rows[first : first + step]
