"""Accuracy and areas from a stratified sample: pure functions of an error matrix and of the map's pixel counts.

Every figure is a mean or a ratio of means over the map, Y / X with Y = Σ_i W_i ȳ_i and X = Σ_i W_i x̄_i, where W_i is
the fraction of the map that is class i and ȳ_i the mean over the n_i samples in it. Its variance is, linearised,
Σ_i W_i² s²_i(z) / n_i with z = (y - (Y / X) x) / X (combined ratio estimator: Cochran 1977, 6.11; Stehman 2014).
For overall, user's and producer's accuracy and the areas this is exactly Olofsson et al. 2014, equations 5 to 11. For
F1 and kappa it is the delta method under the same design (kappa: Stehman 1996); neither is in Olofsson et al.

    Cochran 1977, Sampling Techniques, 3rd edition.
    Olofsson et al. 2014, Remote Sensing of Environment 148, 42-57.
    Stehman 1996, Photogrammetric Engineering and Remote Sensing 62, 401-407.
    Stehman 2014, International Journal of Remote Sensing 35, 4923-4939.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Z95 = 1.96


@dataclass(frozen=True, eq=False)
class Accuracy:
    """Accuracies as fractions, areas in hectares; `…_ci95` is the half width of the 95 % interval; NaN: undefined.

    Arrays are (C,), by class. `too_few`: classes of the map with fewer than two samples, which have no variance. What
    needs their samples is NaN. In figures of the whole map, a class with one sample enters with the largest variance
    that a single observation can have; one without is left out, and `coverage` is the fraction of the map's pixels
    that the figures are of. `area_ha` sums to the area of that part.
    """

    oa: float
    oa_ci95: float
    kappa: float
    kappa_ci95: float
    macro_f1: float
    users: np.ndarray
    users_ci95: np.ndarray
    producers: np.ndarray
    producers_ci95: np.ndarray
    f1: np.ndarray
    f1_ci95: np.ndarray
    area_ha: np.ndarray
    area_ci95_ha: np.ndarray
    too_few: np.ndarray
    coverage: float


def assess(matrix: np.ndarray, pixels: np.ndarray, hectares: np.ndarray) -> Accuracy:
    """Accuracies and areas from a sample stratified by map class.

    matrix: (C, C) counts of samples, rows map, columns reference; pixels: (C,) int64 of each class in the map;
    hectares: (C,) its area in the map. Accuracies are weighted by pixels, areas by hectares; the two differ only where
    the pixels of a map differ in size.

    Raises:
        ValueError: shapes differ, there are no samples, or samples of a class that the map does not have.
    """
    matrix, pixels, hectares = np.asarray(matrix), np.asarray(pixels), np.asarray(hectares)
    count = len(pixels)
    if matrix.shape != (count, count) or hectares.shape != (count,):
        raise ValueError(f"shapes {matrix.shape}, {pixels.shape}, {hectares.shape}; expected (C, C), (C,) and (C,)")
    samples = matrix.sum(axis=1)
    if not samples.any():
        raise ValueError("no samples")
    if samples[pixels == 0].any():
        raise ValueError("samples of a class of which the map has no pixel")
    sampled, too_few = samples > 0, (pixels > 0) & (samples < 2)
    by_pixels = _Sample(np.where(sampled, pixels, 0) / pixels[sampled].sum(), matrix)
    by_area = _Sample(np.where(sampled, hectares, 0), matrix)
    hit = np.eye(count)
    oa, oa_ci95 = by_pixels.ratio(hit)
    kappa, kappa_ci95 = by_pixels.kappa()
    shape = np.zeros((count, count))
    users, producers, f1, areas = (np.full((count, 2), np.nan) for _ in range(4))
    for j in range(count):
        mapped, true = shape.copy(), shape.copy()
        mapped[j], true[:, j] = 1, 1
        both = mapped * true
        users[j] = by_pixels.ratio(both, mapped)
        if sampled[j] or not pixels[j]:
            producers[j] = by_pixels.ratio(both, true)
            f1[j] = by_pixels.ratio(2 * both, mapped + true)
            areas[j] = by_area.ratio(true)
    for figures in (users, producers, f1, areas):
        figures[too_few, 1] = np.nan
    areas *= hectares[sampled].sum()
    return Accuracy(
        oa, oa_ci95, kappa, kappa_ci95, float(np.nanmean(f1[:, 0])), *users.T, *producers.T, *f1.T, *areas.T,
        too_few=too_few, coverage=float(pixels[sampled].sum() / pixels.sum()),
    )  # fmt: skip


class _Sample:
    """weights (C,) of the strata, 0 for those without samples; matrix (C, C) of counts.

    Ratios need no more of the weights than their proportions; for kappa they sum to 1."""

    def __init__(self, weights: np.ndarray, matrix: np.ndarray):
        self.weights, self.matrix = weights, matrix
        self.sizes = matrix.sum(axis=1)
        self.fractions = matrix / np.maximum(self.sizes, 1)[:, None]

    def mean(self, values: np.ndarray) -> float:
        """Estimated mean over the map of a value that a pixel has by its row and column, (C, C)."""
        return float(self.weights @ (self.fractions * values).sum(axis=1))

    def half_width(self, values: np.ndarray) -> float:
        """Half width of the 95 % interval of `mean(values)`."""
        means = (self.fractions * values).sum(axis=1, keepdims=True)
        spread = (self.fractions * (values - means) ** 2).sum(axis=1)  # s² (n - 1) / n
        largest = (values.max(axis=1) - values.min(axis=1)) ** 2 / 4
        variance = np.where(self.sizes > 1, spread / np.maximum(self.sizes - 1, 1), largest)
        return float(Z95 * np.sqrt(self.weights**2 @ variance))

    def ratio(self, numerator: np.ndarray, denominator: np.ndarray | float = 1.0) -> tuple[float, float]:
        """Ratio of two means over the map and the half width of its interval; NaN if the denominator's is 0."""
        denominator = np.broadcast_to(denominator, numerator.shape)
        below = self.mean(denominator)
        if below == 0:
            return np.nan, np.nan
        ratio = self.mean(numerator) / below
        return ratio, self.half_width((numerator - ratio * denominator) / below)

    def kappa(self) -> tuple[float, float]:
        """Cohen's kappa and the half width of its interval; NaN if map and reference are of one class.

        The map's marginals are known, so the agreement by chance, Σ_j W_j p_·j, is itself a mean: of W_j where the
        reference is j.
        """
        hit, chance = np.eye(len(self.weights)), np.broadcast_to(self.weights, self.matrix.shape)
        observed, expected = self.mean(hit), self.mean(chance)
        if expected >= 1:
            return np.nan, np.nan
        kappa = (observed - expected) / (1 - expected)
        return kappa, self.half_width((hit * (1 - expected) - chance * (1 - observed)) / (1 - expected) ** 2)
