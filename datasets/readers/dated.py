"""Series with dates, as tables and folders of tables are read."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Dated(NamedTuple):
    """Some series: bands (M, 10) float64, NaN where missing; days (M,) datetime64[D]; lengths (N,) int64, each at least
    1; columns of N texts or numbers."""

    bands: np.ndarray
    days: np.ndarray
    lengths: np.ndarray
    index: dict[str, np.ndarray]
