"""Endmember spectra in the ten bands, and random fields around them.

Shapes follow the literature: green leaves as PROSPECT gives them (Jacquemoud & Baret 1990, RSE 34), soils spanned by
few components (Price 1990, RSE 33), dry vegetation rising to 1.6 um (Nagler et al. 2000, RSE 71), wet soil darker,
most in the short-wave infrared (Lobell & Asner 2002, SSSAJ 66), snow bright in the visible and black in the
short-wave infrared (Dozier 1989, RSE 28). The numbers are no copies of any of these: they were set by hand and then
tuned to unlabelled statistics of real series.
"""

from __future__ import annotations

import numpy as np

# bands:             B2     B3     B4     B5     B6     B7     B8     B8A    B11    B12
LEAVES = {
    "broadleaf": (0.022, 0.046, 0.021, 0.080, 0.370, 0.520, 0.525, 0.550, 0.210, 0.088),
    "corn":      (0.022, 0.042, 0.021, 0.072, 0.310, 0.440, 0.445, 0.475, 0.200, 0.085),
    "cereal":    (0.021, 0.040, 0.021, 0.068, 0.270, 0.360, 0.370, 0.390, 0.160, 0.075),
    "grass":     (0.028, 0.052, 0.034, 0.086, 0.230, 0.280, 0.290, 0.310, 0.200, 0.105),
    "needle":    (0.012, 0.024, 0.014, 0.040, 0.130, 0.158, 0.165, 0.174, 0.082, 0.040),
    "deciduous": (0.017, 0.037, 0.018, 0.064, 0.265, 0.355, 0.365, 0.385, 0.170, 0.072),
    "wetland":   (0.017, 0.034, 0.019, 0.060, 0.235, 0.310, 0.320, 0.335, 0.135, 0.058),
    "shrub":     (0.034, 0.056, 0.048, 0.096, 0.190, 0.225, 0.235, 0.250, 0.225, 0.140),
}
WITHERED = np.array((0.072, 0.100, 0.148, 0.174, 0.200, 0.217, 0.234, 0.248, 0.360, 0.255))
STRAW = np.array((0.115, 0.155, 0.220, 0.248, 0.262, 0.280, 0.296, 0.310, 0.415, 0.315))
SOIL = np.array((0.098, 0.129, 0.172, 0.197, 0.210, 0.227, 0.243, 0.256, 0.405, 0.330))
PAVED = np.array((0.110, 0.125, 0.135, 0.145, 0.150, 0.158, 0.168, 0.172, 0.190, 0.175))
FLOWER = np.array((0.035, 0.150, 0.140, 0.200, 0.370, 0.440, 0.445, 0.460, 0.210, 0.110))
WATER = np.array((0.034, 0.040, 0.030, 0.026, 0.016, 0.014, 0.011, 0.009, 0.006, 0.005))
SNOW = np.array((0.940, 0.935, 0.945, 0.970, 0.935, 0.900, 0.910, 0.860, 0.085, 0.090))

# directions of variation, in log reflectance
CHLOROPHYLL = np.array((0.30, 0.45, 0.50, 0.45, 0.12, 0.02, 0.0, 0.0, 0.0, 0.0))
STRUCTURE = np.array((0.2, 0.3, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0, 0.7, 0.5))
LEAF_WATER = np.array((0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.02, 0.05, 0.7, 1.0))
REDNESS = np.array((-0.9, -0.55, 0.05, 0.15, 0.15, 0.15, 0.15, 0.15, 0.25, 0.25))
TURBID = np.array((0.5, 0.8, 1.2, 1.3, 1.4, 1.4, 1.3, 1.2, 0.5, 0.4))  # sediment, from clear lake to flooded field
SHORT_WAVE = np.array((0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0))
CLAY = np.array((0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.35, 1.0))
HUMUS = np.array((-0.1, -0.25, -0.35, -0.25, -0.1, 0.05, 0.1, 0.15, 0.3, 0.2))  # curvature of dark, organic soils

WET_SOIL = np.log((0.52, 0.51, 0.50, 0.50, 0.50, 0.48, 0.47, 0.46, 0.39, 0.35))  # saturated over dry
# coarse old grains absorb beyond 0.8 um (Warren 1982, Rev. Geophys. 20): power of the scene's grain darkening
GRAIN = (0.0, 0.0, 0.0, 0.02, 0.05, 0.08, 0.08, 0.12, 1.0, 1.0)
# clods and stubble cast longer shadows under a low sun: power of the sun's height, tuned to unlabelled series
LOW_SUN = (0.26, 0.25, 0.24, 0.23, 0.22, 0.22, 0.21, 0.21, 0.12, 0.10)
WET_STRAW = (0.70, 0.70, 0.70, 0.70, 0.70, 0.70, 0.70, 0.70, 0.55, 0.48)
# extinction per unit of LAI: strong where leaves absorb, weak where they scatter (Baret & Guyot 1991, RSE 35)
EXTINCTION = np.array((0.95, 0.85, 0.95, 0.80, 0.56, 0.50, 0.50, 0.50, 0.65, 0.75))


def draw_soils(rng: np.random.Generator, count: int, site: tuple[float, float, float], paved: np.ndarray) -> np.ndarray:
    """(F, 10) log reflectance of dry ground: the site's soil with brightness, colour, clay and roughness of a field."""
    bright = site[0] + rng.normal(0.06, 0.27, count)
    red = site[1] + rng.normal(0, 0.16, count)
    soil = np.log(SOIL) + bright[:, None] + red[:, None] * REDNESS
    soil += rng.normal(0, 0.10, (count, 1)) * CLAY + rng.normal(site[2] + 0.03, 0.12, (count, 1)) * SHORT_WAVE
    soil += rng.normal(0, 0.15, (count, 1)) * HUMUS + rng.normal(0, 0.02, (count, 10))
    built, fraction = PAVED * np.exp(rng.normal(0, 0.3, (count, 1))), paved[:, None]
    return np.log((1 - fraction) * np.exp(soil) + fraction * built)


def draw_straw(rng: np.random.Generator, count: int, bright: float) -> np.ndarray:
    """(F, 10) reflectance of dry residue, weathered grey to fresh yellow."""
    weathered = rng.normal(0, 0.15, (count, 1))
    spread = bright + rng.normal(0, 0.16, (count, 1)) + 0.5 * weathered * REDNESS
    spread = spread + rng.normal(0, 0.10, (count, 1)) * CLAY
    return STRAW * np.exp(spread + rng.normal(0, 0.02, (count, 10)))


def draw_leaves(rng: np.random.Generator, leaves: list[str]) -> np.ndarray:
    """(F, 10) reflectance of dense green canopies: chlorophyll, structure and leaf water vary among fields."""
    count = len(leaves)
    spread = rng.normal(0, 0.13, (count, 1)) + rng.normal(0.08, 0.28, (count, 1)) * CHLOROPHYLL
    spread = spread + rng.normal(-0.05, 0.13, (count, 1)) * STRUCTURE + rng.normal(0, 0.13, (count, 1)) * LEAF_WATER
    return np.array([LEAVES[leaf] for leaf in leaves]) * np.exp(spread + rng.normal(0, 0.025, (count, 10)))


def draw_withered(rng: np.random.Generator, leaves: list[str]) -> np.ndarray:
    """(F, 10) reflectance of dense senesced canopies; woody ones are darker (bark and shadow)."""
    woody = np.array([leaf in ("needle", "deciduous", "wetland", "shrub") for leaf in leaves])
    count = len(leaves)
    spread = np.where(woody, -0.35, 0.0)[:, None] + rng.normal(0, 0.15, (count, 1))
    spread = spread + rng.normal(0, 0.15, (count, 1)) * REDNESS + rng.normal(0, 0.12, (count, 1)) * LEAF_WATER
    return WITHERED * np.exp(spread + rng.normal(0, 0.025, (count, 10)))


def draw_water(rng: np.random.Generator, count: int) -> np.ndarray:
    """(F, 10) reflectance of standing water, clear to turbid."""
    return WATER * np.exp(rng.normal(0, 0.2, (count, 1)) + rng.gamma(1.0, 0.35, (count, 1)) * TURBID)
