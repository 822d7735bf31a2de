"""What a preparation made, in numbers: series by class, split and site, and the NDVI of each class by date."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from datasets.bands import MAX_DOY, NIR, RED
from datasets.classmap import ClassMap
from datasets.preparation.root import LABELLED, UNLABELLED
from datasets.tables import OPTIONS

ROWS = 65536  # of an index that are read at once


def count_series(folder: Path) -> Counter:
    """Series of the labelled stores of ROOT/<year> by (class id, split, site)."""
    counts: Counter = Counter()
    for split in LABELLED:
        file = folder / split / "index.csv"
        if not file.exists():
            continue
        options = OPTIONS | {"low_memory": True}
        with pd.read_csv(file, usecols=lambda name: name in ("label", "region"), chunksize=ROWS, **options) as parts:
            for part in parts:
                sites = part["region"].astype(str) if "region" in part else [""] * len(part)
                counts.update(zip(part["label"].tolist(), [split] * len(part), sites, strict=True))
    return counts


def table(folder: Path, classmap: ClassMap | None) -> str:
    """Class x split x site of the labelled series of ROOT/<year>; for no class map a line on the unlabelled ones."""
    if classmap is not None:
        return counts_table(count_series(folder), classmap)
    file = folder / UNLABELLED / "index.csv"
    options = OPTIONS | {"low_memory": True}
    sites: Counter = Counter()
    with pd.read_csv(file, usecols=["region"], dtype=str, chunksize=ROWS, **options) as parts:
        for part in parts:
            sites.update(part["region"])
    return "unlabelled series: " + ", ".join(f"{site or '(no site)'} {count:,}" for site, count in sites.items())


def counts_table(counts: dict[tuple[int, str, str], int], classmap: ClassMap) -> str:
    """Counts by (class id, split, site) as aligned text: a row a class that is there, a column a site and split."""
    sites = list(dict.fromkeys(site for _, _, site in counts))
    columns = [(site, split) for site in sites for split in LABELLED]
    classes = sorted({label for label, _, _ in counts})
    rows = [[counts.get((label, split, site), 0) for site, split in columns] for label in classes]
    rows = [[*row, sum(row)] for row in rows]
    rows.append([sum(column) for column in zip(*rows, strict=True)])
    names = [*(classmap.names[label] for label in classes), "all"]
    titles = [*(f"{site} {split}".strip() for site, split in columns), "all"]
    lines = [["class", *titles], *([name, *(f"{n:,}" for n in row)] for name, row in zip(names, rows, strict=True))]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))])
        for cells in lines
    )


class NdviByDay:
    """Mean and spread of the NDVI of each class and date, gathered piece by piece."""

    def __init__(self, classmap: ClassMap | None, dates: Sequence[date]):
        self.names = ["unlabelled"] if classmap is None else list(classmap.names)
        self.dates = list(dates)
        self.sums = np.zeros((3, len(self.names), MAX_DOY + 1))  # count, sum, sum of squares

    def add(self, labels: np.ndarray, lengths: np.ndarray, bands: np.ndarray, doy: np.ndarray) -> None:
        """Add n series with these class ids (n,): bands (m, 10) DN, doy (m,)."""
        red, nir = bands[:, RED].astype(np.float64), bands[:, NIR].astype(np.float64)
        bright = red + nir > 0
        ndvi = np.clip((nir - red)[bright] / (nir + red)[bright], -1, 1)
        cell = np.repeat(labels, lengths)[bright] * (MAX_DOY + 1) + doy[bright]
        for total, values in zip(self.sums, (None, ndvi, ndvi**2), strict=True):
            total += np.bincount(cell, values, minlength=total.size).reshape(total.shape)

    def of(self, label: int) -> tuple[list[date], np.ndarray, np.ndarray]:
        """Dates on which the class was observed, mean and standard deviation of its NDVI on each."""
        days = np.array([day.timetuple().tm_yday for day in self.dates])
        count, total, squares = self.sums[:, label, days]
        seen = count > 0
        mean = total[seen] / count[seen]
        deviation = np.sqrt(np.maximum(squares[seen] / count[seen] - mean**2, 0))
        return [day for day, there in zip(self.dates, seen, strict=True) if there], mean, deviation

    def present(self) -> list[int]:
        """Class ids with an observation."""
        return np.flatnonzero(self.sums[0].any(axis=1)).tolist()
