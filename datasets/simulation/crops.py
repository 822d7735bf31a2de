"""What grows: physiology of each land cover as a table of numbers.

Leaf area index (LAI) ranges follow Scurlock et al. (2001, ORNL/TM-2001/268) in order of magnitude; lags between
planting, green-up, senescence and harvest are typical agronomic values; both are assumed in detail, since what
matters is that the fields drawn around them cover the shapes that occur.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Crop:
    """One land cover. Days are days of year or day counts, LAI in m2/m2, fractions 0-1."""

    name: str
    codes: tuple[int, ...]  # CDL codes, drawn evenly
    kind: str  # annual, winter, double, perennial, fallow
    leaf: str  # canopy spectrum, see canopy.LEAVES
    lai: tuple[float, float]  # peak: low and high of the usual range
    up: tuple[float, float] = (0.0, 8.0)  # planting to mid green-up; logistic width
    down: tuple[float, float] = (25.0, 7.0)  # mid senescence to harvest; logistic width
    brown: float = 0.6  # fraction of the peak LAI that stands dry after senescence
    residue: float = 0.6  # ground cover of dry residue after harvest
    base: float = 0.0  # LAI that stays green all year
    spread: float = 6.5  # standard deviation of the dates among fields, days
    flower: float = 0.0  # cover of yellow flowers at full bloom
    cuts: int = 0  # most mowings a year
    flood: float = 0.0  # fraction of ground under water in the flooded season
    water: float = 0.0  # fraction of open water all year
    shade: float = 0.0  # shadow cast inside the canopy, 0-1
    paved: float = 0.0  # fraction of ground that is built over
    drought: float = 0.0  # chance of a summer dip with autumn regrowth


# name, CDL codes, kind, leaf, peak LAI, green-up (lag, width), senescence (lead, width), brown, residue, base, spread
CROPS = (
    Crop("corn", (1,), "annual", "corn", (3.0, 5.5), (48, 6.5), (32, 8), 0.75, 0.8),
    Crop("soybeans", (5,), "annual", "broadleaf", (3.5, 6.5), (52, 7.5), (20, 5), 0.35, 0.45),
    Crop("cotton", (2,), "annual", "broadleaf", (1.8, 4.2), (58, 9.5), (28, 9), 0.5, 0.4, spread=10),
    Crop("sorghum", (4,), "annual", "corn", (2.0, 4.2), (46, 7.5), (28, 10), 0.75, 0.75, spread=12),
    Crop("rice", (3,), "annual", "cereal", (3.5, 6.0), (52, 7), (20, 7), 0.5, 0.6, flood=0.9),
    Crop("spring wheat", (23,), "annual", "cereal", (2.2, 4.8), (38, 5.5), (26, 5.5), 0.75, 0.75),
    Crop("durum wheat", (22,), "annual", "cereal", (1.9, 4.2), (40, 5.5), (26, 5.5), 0.75, 0.75),
    Crop("winter wheat", (24,), "winter", "cereal", (2.5, 5.5), (0, 9), (26, 6), 0.75, 0.8),
    Crop("double crop", (26,), "double", "cereal", (2.5, 5.0), (0, 9), (22, 5), 0.7, 0.75),
    Crop("canola", (31,), "annual", "broadleaf", (3.0, 5.5), (40, 5.5), (22, 6), 0.6, 0.5, flower=0.55),
    Crop("sunflower", (6,), "annual", "broadleaf", (2.2, 4.5), (44, 6), (42, 9), 0.55, 0.35, flower=0.12),
    Crop("peas", (53,), "annual", "broadleaf", (2.2, 4.8), (40, 5.5), (20, 4.5), 0.5, 0.3),
    Crop("alfalfa", (36,), "perennial", "broadleaf", (2.4, 4.8), (0, 9), (10, 10), 0.15, 0.3, 0.15, 8, cuts=5),
    Crop(
        "other hay", (37,), "perennial", "grass", (1.8, 4.2), (5, 12), (12, 16), 0.4, 0.4, 0.3, 10, cuts=2,
        drought=0.2,
    ),
    Crop("grass", (176,), "perennial", "grass", (0.6, 2.8), (8, 14), (20, 20), 0.55, 0.6, 0.2, 12, drought=0.35),
    Crop("shrubland", (152,), "perennial", "shrub", (0.4, 1.5), (8, 16), (15, 24), 0.35, 0.4, 0.35, 14, drought=0.35),
    Crop("fallow", (61,), "fallow", "grass", (0.0, 1.3), (20, 9), (25, 9), 0.4, 0.55, spread=30),
    Crop(
        "evergreen forest", (142,), "perennial", "needle", (0.4, 1.4), (15, 14), (10, 18), 0.2, 0.4, 2.8,
        8, shade=0.5,
    ),
    Crop(
        "deciduous forest", (141,), "perennial", "deciduous", (3.5, 5.8), (8, 6), (2, 7), 0.25, 0.7, 0.3,
        6, shade=0.25,
    ),
    Crop(
        "woody wetlands", (190,), "perennial", "wetland", (2.6, 5.0), (8, 8), (6, 9), 0.25, 0.5, 0.35, 8,
        flood=0.6, shade=0.3,
    ),
    Crop(
        "minor spring grain", (21, 28, 52, 51, 32, 27), "annual", "cereal", (1.6, 4.8), (38, 6), (24, 6),
        0.6, 0.6, spread=12,
    ),
    Crop(
        "minor summer crop", (42, 43, 41, 10, 29), "annual", "broadleaf", (1.8, 5.0), (46, 8), (20, 8),
        0.4, 0.4, spread=16,
    ),
    Crop(
        "developed", (121, 122, 123, 124), "perennial", "grass", (0.3, 2.8), (8, 14), (12, 16), 0.3, 0.3,
        0.3, 10, paved=0.8,
    ),
    Crop("open water", (111,), "perennial", "wetland", (0.0, 0.05), (8, 14), (12, 16), 0.2, 0.1, 0.0, 10, water=0.97),
)

NUMBER = {crop.name: number for number, crop in enumerate(CROPS)}
