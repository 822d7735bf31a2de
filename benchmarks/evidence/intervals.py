"""Paired differences with bootstrap intervals over seeds and series together."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

ROUNDS = 5000
LEVEL = 0.95


class Interval(NamedTuple):
    """An estimate with the limits of its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the sign is certain at this level."""
        return self.low > 0 or self.high < 0


def bootstrap(values: np.ndarray, groups: np.ndarray | None = None, rounds: int = ROUNDS) -> Interval:
    """Mean of ``values`` (seeds, series) with the percentile interval of a bootstrap that draws both with replacement.

    Seeds and series are crossed: a seed drawn twice counts twice on every series drawn, and the reverse (Owen 2007,
    "The pigeonhole bootstrap", Annals of Applied Statistics 1). For a paired difference of two classifiers, give that
    of their hits. ``groups`` (series,) names the block that each series is of; then whole blocks are drawn, as series
    of one block are alike. The draws are the same every time.
    """
    rng = np.random.default_rng(0)
    seeds, series = values.shape
    _, block = np.unique(np.arange(series) if groups is None else groups, return_inverse=True)
    blocks = block.max() + 1
    seed_weights = rng.multinomial(seeds, np.full(seeds, 1 / seeds), rounds)
    series_weights = rng.multinomial(blocks, np.full(blocks, 1 / blocks), rounds)[:, block]
    totals = np.einsum("rs,rs->r", seed_weights @ values, series_weights)
    means = totals / (seeds * np.maximum(series_weights.sum(1), 1))
    low, high = np.quantile(means, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Interval(float(values.mean()), float(low), float(high))
