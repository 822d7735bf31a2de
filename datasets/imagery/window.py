"""The observations of one window, collected image by image and handed out pixel by pixel."""

from __future__ import annotations

import numpy as np

from datasets.bands import BANDS

AT_ONCE = 512  # pixels that are transposed at once, so that they stay in the processor's cache
PADDING = 40  # values between planes: were they a power of two apart, all would fall on the same lines of the cache


class Window:
    """DN of `pixels` pixels on `days` days: 20 bytes an observation, and as much again for what is handed out."""

    def __init__(self, days: int, pixels: int):
        self._planes = np.empty((days * len(BANDS), pixels + PADDING), np.int16)[:, :pixels]
        self._valid = np.zeros((days, pixels), bool)

    def add(self, day: int, numbers: np.ndarray, good: np.ndarray) -> None:
        """Put an image, (10, n) DN and (n,) which are observations, where its day has none yet."""
        planes, valid = self._planes[day * len(BANDS) : (day + 1) * len(BANDS)], self._valid[day]
        if valid.any():
            new = np.flatnonzero(good & ~valid)
            planes[:, new] = numbers[:, new]
            valid[new] = True
        else:
            planes[:], valid[:] = numbers, good

    def observations(self, doy: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """DN (M, 10) pixel after pixel, each in the order of the days; `doy` (days,) of each (M,); lengths (n,)."""
        days, pixels = self._valid.shape
        valid = np.ascontiguousarray(self._valid.T)
        observed = np.flatnonzero(valid)
        bands, doys = np.empty((len(observed), len(BANDS)), np.int16), np.empty(len(observed), np.int16)
        transposed = np.empty((AT_ONCE, len(self._planes)), np.int16)
        rows, days_of_rows = transposed.reshape(-1, len(BANDS)), np.tile(doy, AT_ONCE)
        edges = np.searchsorted(observed, np.arange(0, pixels + AT_ONCE, AT_ONCE) * days)
        for i, first in enumerate(range(0, pixels, AT_ONCE)):
            some = self._planes[:, first : first + AT_ONCE]
            transposed[: some.shape[1]] = some.T
            mine = slice(edges[i], edges[i + 1])
            row = observed[mine] - first * days
            np.take(rows, row, axis=0, out=bands[mine], mode="clip")
            np.take(days_of_rows, row, out=doys[mine], mode="clip")
        return bands, doys, self._valid.sum(axis=0)
