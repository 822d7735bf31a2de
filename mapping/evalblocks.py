"""The blocks of a data root that only its eval split has, so that an assessment leaves training pixels out."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd

from datasets.errors import DataError
from datasets.imagery.grid import EDGE, Grid, transform_points
from datasets.optional import need
from datasets.preparation.split import SPLITS, block_of
from datasets.store import Store
from datasets.tables import read_csv

DEGREE = 111_195.0  # metres of a degree of latitude in datasets.prepare
NEEDED = ("region", "block", "x", "y")


class EvalBlocks:
    """Where the eval split of a data root lies on a map.

    Blocks that some year has in train or valid too are left out. A site whose blocks are the squares that
    datasets.prepare makes counts with the whole squares; one with blocks of another shape with the pixels of its eval
    series alone, as the shape is not recorded. `notes` says which.
    """

    def __init__(self, root: str | Path, grid: Grid):
        self.grid, self.notes = grid, []
        self._squares: list[tuple] = []  # CRS, metres of x and y, size, (n, 2) column and row of the squares
        self._pixels = np.zeros(0, dtype=np.int64)  # row * width + column
        sites = _sites(Path(root))
        for (site, wkt), parts in sites.items():
            self._add(site, need("rasterio.crs").CRS.from_wkt(wkt), parts)
        if not self._squares and not len(self._pixels):
            raise DataError(f"{root}: no eval block that train and valid do not share; check --blocks")

    def _add(self, site: str, crs, parts: list[tuple[str, dict, pd.DataFrame]]) -> None:
        of_eval = pd.concat([index for split, _, index in parts if split == "eval"] or [pd.DataFrame(columns=NEEDED)])
        others = {block for split, _, index in parts if split != "eval" for block in index["block"]}
        mine = of_eval[~of_eval["block"].isin(others)]
        sizes = {_square(meta, crs, index) for _, meta, index in parts}
        if len(sizes) == 1 and None not in sizes and len(mine):
            along, across, size = sizes.pop()
            squares = np.array([[int(part) for part in name.split("_")] for name in mine["block"].unique()])
            self._squares.append((crs, along, across, size, squares))
            self.notes.append(f"{site}: {len(squares)} eval blocks of {size:g} m")
            return
        x, y = (of_eval[name].to_numpy(dtype=float) for name in ("x", "y"))
        x, y = (x, y) if crs == self.grid.crs else transform_points(crs, self.grid.crs, x, y)
        cols, rows = (np.floor(values + EDGE) for values in ~self.grid.transform @ (x, y))
        good = (rows >= 0) & (rows < self.grid.height) & (cols >= 0) & (cols < self.grid.width)
        places = (rows[good] * self.grid.width + cols[good]).astype(np.int64)
        self._pixels = np.union1d(self._pixels, places)
        self.notes.append(
            f"{site}: only the {len(np.unique(places)):,} pixels of eval series, as its blocks are no eval-only squares"
        )

    def contain(self, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
        """Whether pixels of the map lie in the blocks; rows and cols broadcast."""
        rows, cols = np.broadcast_arrays(rows, cols)
        found = np.isin(rows * np.int64(self.grid.width) + cols, self._pixels)
        for crs, along, across, size, squares in self._squares:
            x, y = self.grid.centres(rows, cols)
            x, y = (x, y) if crs == self.grid.crs else transform_points(self.grid.crs, crs, x, y)
            known = np.isfinite(x) & np.isfinite(y)
            column, row = (
                np.floor(np.where(known, values, 0) * metres / size).astype(np.int64)
                for values, metres in ((x, along), (y, across))
            )
            found |= known & np.isin(_joined(column, row), _joined(*squares.T))
        return found


def _joined(column: np.ndarray, row: np.ndarray) -> np.ndarray:
    """One number for the column and row of a square."""
    return column * np.int64(2**32) + row


def _square(meta: dict, crs, index: pd.DataFrame) -> tuple[float, float, float] | None:
    """Metres of a unit of x and of y and the size of the squares; None if the blocks are no such squares."""
    size = meta.get("options", {}).get("block_size")
    if not isinstance(size, int | float) or not size > 0:
        return None
    if crs.is_geographic:
        images = meta["images"]
        a, b, c, d, e, f = images["transform"]
        middle = d * (images["width"] / 2 + 0.5) + e * (images["height"] / 2 + 0.5) + f
        along, across = DEGREE * math.cos(math.radians(round(middle))), DEGREE
    else:
        along = across = crs.linear_units_factor[1]
    x, y = (index[name].to_numpy(dtype=float) for name in ("x", "y"))
    agree = block_of(x * along, y * across, size) == index["block"].to_numpy(dtype=str)
    return (along, across, float(size)) if agree.all() else None


def _sites(root: Path) -> dict[tuple[str, str], list[tuple[str, dict, pd.DataFrame]]]:
    """(name, CRS) -> (split, what meta.json keeps of the site, its part of index.csv) of every year and split."""
    stores = sorted(path for split in SPLITS for path in root.glob(f"*/{split}") if (path / "meta.json").is_file())
    if not any(path.name == "eval" for path in stores):
        raise DataError(f"{root}: no eval split in it; expected a data root made by datasets.prepare")
    sites: dict[tuple[str, str], list] = {}
    for path in stores:
        known = Store.open(path).meta["provenance"].get("sites", {})
        index = read_csv(path / "index.csv", NEEDED, dtype=str)
        for site, meta in known.items():
            wkt = meta.get("images", {}).get("crs")
            part = index[(index["region"].str.lower() == site.lower()) & (index["x"] != "")]
            if wkt and len(part):
                sites.setdefault((site, wkt), []).append((path.name, meta, part))
    if not sites:
        raise DataError(f"{root}: its series do not say where they lie; expected a data root made from images")
    return sites
