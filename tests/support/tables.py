"""Tables of series with known values, in every layout that is read."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from datasets.bands import BANDS

CODES = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")


class Observed(NamedTuple):
    """A series: bands (T, 10) DN, NaN where missing, and dates."""

    id: str
    label: str
    bands: np.ndarray
    days: list[date]


def some_observed(count: int, days: list[date], seed: int = 0) -> list[Observed]:
    """Series of these dates, whose values are all different within a series."""
    rng = np.random.default_rng(seed)
    return [
        Observed(f"p{i}", ("corn", "rice")[i % 2], rng.permutation(16000)[: len(days) * 10].reshape(-1, 10) + 1.0, days)
        for i in range(count)
    ]


def long_table(series: list[Observed], names=BANDS) -> pd.DataFrame:
    """A row an observation."""
    parts = []
    for one in series:
        part = pd.DataFrame(one.bands, columns=list(names))
        part.insert(0, "date", [f"{day}" for day in one.days])
        part.insert(0, "crop", one.label)
        part.insert(0, "id", one.id)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def wide_table(series: list[Observed], name) -> pd.DataFrame:
    """A row a series; `name(band number, step)` names the columns."""
    rows = []
    for one in series:
        values = {name(band, step): one.bands[step, band] for step in range(len(one.days)) for band in range(10)}
        rows.append({"id": one.id, "crop": one.label} | values)
    return pd.DataFrame(rows)


def save(table: pd.DataFrame, path: Path) -> Path:
    """By the ending: .parquet, .csv or .csv.gz; missing values are blank cells."""
    if path.suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False)
    return path
