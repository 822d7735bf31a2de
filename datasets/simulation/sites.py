"""The six study sites: climate, soils, orbits, crop calendars and land cover fractions.

Crop calendars are planting and harvest days in the manner of USDA NASS, "Field Crops: Usual Planting and Harvesting
Dates", Agricultural Handbook 628 (2010): about the middle of the most active period of the state. They are set by
hand, not copied row by row: take them as good to ten or fifteen days. Perennial cover has no such table: its green-up
and dormancy are assumed, in line with the land surface phenology of Zhang et al. (2003, RSE 84). Which covers a site
has is as in the published study; their fractions are assumed, more even than acreage so that rare classes are seen. Sky
tables (`kept`, `snowfall`, `melt`), the brightness of soil and straw, some dates (by up to ten days) and some fractions
are tuned to *unlabelled* real series; no label took part.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Site:
    """One study site. Twelve-tuples run from January to December; days are days of year."""

    name: str
    latitude: float
    weight: float  # fraction of all series
    two_orbits: float  # fraction of tiles seen from two orbits
    orbit_gap: int  # days from the first orbit's pass to the second's
    kept: tuple[float, ...]  # chance that a scene passes the metadata cloud filter
    cover: float  # mean opaque cloud cover of the scenes kept
    rain: tuple[float, ...]  # chance of rain a day
    snowfall: tuple[float, ...]  # chance of snow a day
    melt: tuple[float, ...]  # cm of snow lost a day
    soil: tuple[float, float, float]  # log brightness, redness, short-wave infrared
    straw: float  # log brightness of crop residue
    frost: int  # first killing frost, which ends weeds and volunteer growth
    land: dict[str, float] = field(hash=False)  # crop -> fraction of the series
    calendar: dict[str, tuple[int, int]] = field(hash=False)  # crop -> planting (green-up), harvest (dormancy)


_NO_SNOW = (0.0,) * 12

ADAMS = Site(
    name="Adams",  # North Dakota
    latitude=46.1, weight=0.24, two_orbits=1.0, orbit_gap=2,
    kept=(0.40, 0.42, 0.68, 0.48, 0.62, 0.69, 0.74, 0.80, 0.58, 0.45, 0.35, 0.30), cover=0.20,
    rain=(0.02, 0.02, 0.08, 0.20, 0.28, 0.32, 0.27, 0.24, 0.22, 0.18, 0.08, 0.03),
    snowfall=(0.08, 0.28, 0.16, 0.01, 0.0, 0.0, 0.0, 0.0, 0.0, 0.04, 0.04, 0.18),
    melt=(0.55, 0.20, 1.0, 6.0, 9.0, 9.0, 9.0, 9.0, 9.0, 2.5, 1.2, 0.55),
    soil=(-0.05, -0.05, 0.03), straw=-0.5, frost=275,
    land={
        "spring wheat": 0.19, "sunflower": 0.11, "durum wheat": 0.09, "grass": 0.14, "canola": 0.08, "peas": 0.07,
        "other hay": 0.07, "shrubland": 0.05, "corn": 0.10, "alfalfa": 0.06, "minor spring grain": 0.015,
        "minor summer crop": 0.01, "developed": 0.01, "open water": 0.012,
    },
    calendar={
        "spring wheat": (128, 230), "durum wheat": (133, 237), "sunflower": (150, 288), "canola": (132, 240),
        "peas": (125, 217), "corn": (133, 298), "alfalfa": (122, 285), "other hay": (126, 280), "grass": (128, 275),
        "shrubland": (128, 270), "minor spring grain": (128, 228), "minor summer crop": (145, 262),
        "developed": (122, 285), "open water": (122, 285),
    },
)

COAHOMA = Site(
    name="Coahoma",  # Mississippi
    latitude=34.2, weight=0.12, two_orbits=0.05, orbit_gap=3,
    kept=(0.50, 0.26, 0.56, 0.60, 0.74, 0.72, 0.56, 0.70, 0.82, 0.70, 0.42, 0.20), cover=0.14,
    rain=(0.33, 0.34, 0.34, 0.32, 0.30, 0.28, 0.29, 0.24, 0.20, 0.22, 0.29, 0.33),
    snowfall=_NO_SNOW, melt=(9.0,) * 12, soil=(0.07, 0.05, -0.12), straw=-0.2, frost=312,
    land={
        "woody wetlands": 0.16, "cotton": 0.17, "rice": 0.16, "soybeans": 0.24, "other hay": 0.05, "fallow": 0.06,
        "corn": 0.11, "minor summer crop": 0.02, "developed": 0.015, "open water": 0.015,
    },
    calendar={
        "cotton": (135, 290), "rice": (126, 260), "soybeans": (140, 276), "corn": (102, 244), "other hay": (82, 315),
        "fallow": (85, 300), "woody wetlands": (92, 312), "minor summer crop": (125, 265), "developed": (85, 315),
        "open water": (85, 315),
    },
)

GARFIELD = Site(
    name="Garfield",  # Washington
    latitude=46.4, weight=0.23, two_orbits=1.0, orbit_gap=2,
    kept=(0.32, 0.30, 0.62, 0.42, 0.62, 0.84, 0.86, 0.92, 0.76, 0.76, 0.55, 0.28), cover=0.23,
    rain=(0.35, 0.32, 0.32, 0.28, 0.25, 0.17, 0.06, 0.06, 0.11, 0.23, 0.36, 0.37),
    snowfall=(0.09, 0.26, 0.06, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.005, 0.04, 0.10),
    melt=(1.2, 0.40, 1.2, 5.0, 9.0, 9.0, 9.0, 9.0, 9.0, 6.0, 2.5, 1.2),
    soil=(0.08, 0.0, -0.14), straw=0.10, frost=285,
    land={
        "evergreen forest": 0.25, "winter wheat": 0.25, "fallow": 0.20, "grass": 0.13, "peas": 0.06,
        "spring wheat": 0.07, "canola": 0.03, "minor spring grain": 0.01, "developed": 0.005, "open water": 0.012,
    },
    calendar={
        "winter wheat": (262, 205), "spring wheat": (95, 216), "peas": (105, 206), "canola": (100, 212),
        "fallow": (85, 290), "grass": (85, 190), "evergreen forest": (110, 290), "minor spring grain": (95, 215),
        "developed": (95, 290), "open water": (95, 290),
    },
)

HARVEY = Site(
    name="Harvey",  # Kansas
    latitude=38.0, weight=0.16, two_orbits=0.9, orbit_gap=3,
    kept=(0.48, 0.40, 0.46, 0.50, 0.50, 0.68, 0.82, 0.70, 0.76, 0.74, 0.62, 0.48), cover=0.18,
    rain=(0.10, 0.12, 0.20, 0.25, 0.32, 0.28, 0.25, 0.24, 0.20, 0.18, 0.13, 0.11),
    snowfall=(0.07, 0.09, 0.02, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.015, 0.07),
    melt=(1.3, 1.0, 3.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 3.5, 1.2),
    soil=(0.12, 0.05, 0.0), straw=-0.15, frost=295,
    land={
        "double crop": 0.09, "corn": 0.17, "alfalfa": 0.06, "soybeans": 0.19, "sorghum": 0.17, "winter wheat": 0.12,
        "grass": 0.11, "deciduous forest": 0.05, "minor summer crop": 0.015, "developed": 0.01, "open water": 0.012,
    },
    calendar={
        "double crop": (278, 172), "winter wheat": (278, 172), "corn": (115, 260), "alfalfa": (82, 305),
        "soybeans": (148, 283), "sorghum": (152, 288), "grass": (105, 285), "deciduous forest": (105, 298),
        "minor summer crop": (140, 265), "developed": (90, 305), "open water": (90, 305),
    },
)

HASKELL = Site(
    name="Haskell",  # Texas
    latitude=33.2, weight=0.13, two_orbits=0.45, orbit_gap=3,
    kept=(0.62, 0.48, 0.55, 0.52, 0.55, 0.70, 0.86, 0.74, 0.70, 0.76, 0.76, 0.60), cover=0.14,
    rain=(0.09, 0.10, 0.13, 0.16, 0.23, 0.20, 0.13, 0.15, 0.17, 0.16, 0.11, 0.10),
    snowfall=(0.012, 0.012, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.015),
    melt=(3.0, 3.0, 6.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 6.0, 3.0),
    soil=(0.06, 0.15, 0.05), straw=-0.1, frost=315,
    land={
        "shrubland": 0.22, "sorghum": 0.12, "winter wheat": 0.18, "cotton": 0.30, "fallow": 0.12,
        "minor summer crop": 0.015, "developed": 0.015, "open water": 0.01,
    },
    calendar={
        "shrubland": (95, 310), "sorghum": (135, 258), "winter wheat": (282, 158), "cotton": (142, 315),
        "fallow": (90, 300), "minor summer crop": (138, 285), "developed": (85, 315), "open water": (85, 315),
    },
)

RANDOLPH = Site(
    name="Randolph",  # the state is not published: Corn Belt dates assumed
    latitude=38.5, weight=0.12, two_orbits=0.25, orbit_gap=2,
    kept=(0.52, 0.44, 0.42, 0.52, 0.55, 0.66, 0.84, 0.58, 0.74, 0.72, 0.76, 0.60), cover=0.26,
    rain=(0.26, 0.27, 0.31, 0.34, 0.34, 0.30, 0.27, 0.25, 0.22, 0.24, 0.27, 0.28),
    snowfall=(0.10, 0.11, 0.03, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.03, 0.09),
    melt=(1.2, 1.1, 3.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 3.0, 1.2),
    soil=(0.12, -0.05, -0.03), straw=-0.15, frost=295,
    land={
        "deciduous forest": 0.36, "soybeans": 0.28, "corn": 0.22, "fallow": 0.08, "minor summer crop": 0.01,
        "developed": 0.03, "open water": 0.02,
    },
    calendar={
        "deciduous forest": (110, 295), "soybeans": (142, 282), "corn": (123, 275), "fallow": (95, 290),
        "minor summer crop": (140, 265), "developed": (95, 300), "open water": (95, 300),
    },
)

SITES = (ADAMS, COAHOMA, GARFIELD, HARVEY, HASKELL, RANDOLPH)
