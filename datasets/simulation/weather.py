"""What all pixels of a tile share in a year: acquisition dates, cloud cover, haze, rain, snow and season."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from datasets.simulation.sites import SITES, Site

FIRST_YEAR = 2019
REPEAT = 5  # days between passes of one orbit, Sentinel-2A and 2B together (ESA Sentinel-2 User Handbook, 2015)
SPIN_UP = 60  # days of weather before 1 January, for snow and moisture
CLEAR_SCENES = 0.50  # fraction of kept scenes without opaque clouds, tuned to unlabelled real series
TILES = 24  # tiles a site; labelled pools use the first few only
LATE_SPRING = {2019: 7.0}  # days; a wet spring, very slow planting (USDA NASS, Crop Progress, 2019); size assumed
_WEATHER_STREAM = 7  # keeps these random streams apart from those of the pools
_MONTH_STARTS = np.array([1, 32, 60, 91, 121, 152, 182, 213, 244, 274, 305, 335])


@dataclass(frozen=True)
class TileYear:
    """One tile in one year. Arrays of length D run over the scenes that passed the cloud filter."""

    days: np.ndarray  # (D,) day of year
    orbit: np.ndarray  # (D,) 0 or 1
    cover: np.ndarray  # (D,) fraction of the tile under opaque clouds
    haze: np.ndarray  # (D,) additive error of the atmospheric correction at 490 nm, reflectance
    bright: np.ndarray  # (D,) relative error common to all bands (view angle, calibration)
    swir: np.ndarray  # (D,) the same, of the short-wave infrared alone
    moisture: np.ndarray  # (D,) of the top soil, 0 dry to 1 saturated
    snow: np.ndarray  # (D,) depth, cm
    grain: np.ndarray  # (D,) log darkening of snow in the short-wave infrared
    sun: np.ndarray  # (D,) cosine of the solar zenith angle over its yearly maximum
    shift: float  # days by which the season comes late
    vigour: float  # relative leaf area of the year
    frost: float  # day of the first killing frost


def days_in_year(year: int) -> int:
    """365 or 366."""
    return 366 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 365


def month_of(days: np.ndarray) -> np.ndarray:
    """Month index 0-11 of days of year (clipped to the year)."""
    return np.clip(np.searchsorted(_MONTH_STARTS, days, side="right") - 1, 0, 11)


@lru_cache(maxsize=1024)
def tile_year(seed: int, site_number: int, tile: int, year: int) -> TileYear:
    """Draw what a tile's pixels share; the same arguments always give the same answer."""
    site = SITES[site_number]
    of_tile = np.random.default_rng([seed, _WEATHER_STREAM, site_number, tile])
    of_year = np.random.default_rng([seed, _WEATHER_STREAM, site_number, year, 1])
    rng = np.random.default_rng([seed, _WEATHER_STREAM, site_number, tile, year])
    days, orbit = _passes(site, of_tile, tile, year)
    cloudiness = of_year.normal(0, 0.35, 12)  # a year's departure from the usual clouds, month by month
    chance = _logit(np.array(site.kept)) + cloudiness
    keep = rng.random(len(days)) < logistic(chance[month_of(days)] + _spells(rng, days))
    days, orbit = days[keep], orbit[keep]
    scenes = len(days)
    moisture, snow = _rain_and_snow(site, rng, of_year, days_in_year(year))
    per_orbit = of_tile.normal(0, 0.05, 2)  # forward against back scatter (Roy et al. 2017, RSE 199)
    sun = _sun_height(site.latitude, days)
    return TileYear(
        days=days,
        orbit=orbit,
        cover=_cloud_cover(site, rng, scenes),
        haze=_haze(rng, sun),
        bright=per_orbit[orbit] + rng.normal(0, 0.053, scenes),
        swir=rng.normal(0, 0.035, scenes),
        moisture=moisture[days - 1],
        snow=snow[days - 1],
        grain=rng.normal(-0.35, 0.6, scenes),
        sun=sun,
        shift=float(LATE_SPRING.get(year, 0.0) + of_year.normal(0, 5) + of_tile.normal(0, 4) + rng.normal(0, 2)),
        vigour=float(np.exp(of_year.normal(0, 0.08) + of_tile.normal(0, 0.08))),
        frost=site.frost + float(of_year.normal(0, 7) + rng.normal(0, 3)),
    )


def _passes(site: Site, of_tile: np.random.Generator, tile: int, year: int) -> tuple[np.ndarray, np.ndarray]:
    """All overpass days of the year and their orbits; the five-day rhythm runs on over the years."""
    phase = int(of_tile.integers(REPEAT))
    two = (tile * 0.618034 + 0.3) % 1 < site.two_orbits  # golden ratio steps: even fractions of few tiles
    elapsed = sum(days_in_year(y) for y in range(FIRST_YEAR, year))
    first = (phase - elapsed) % REPEAT
    days = [np.arange(first + 1, days_in_year(year) + 1, REPEAT)]
    if two:
        second = (phase + site.orbit_gap - elapsed) % REPEAT
        days.append(np.arange(second + 1, days_in_year(year) + 1, REPEAT))
    orbit = np.repeat(np.arange(len(days)), [len(d) for d in days])
    order = np.argsort(np.concatenate(days), kind="stable")
    return np.concatenate(days)[order], orbit[order]


def _spells(rng: np.random.Generator, days: np.ndarray) -> np.ndarray:
    """Spells of fair and foul weather: noise with an e-folding time of six days, on the scale of log odds."""
    noise = rng.normal(0, 1, SPIN_UP + 366)
    kernel = np.exp(-np.arange(30) / 6.0)
    return np.convolve(noise, kernel / np.sqrt((kernel**2).sum()))[SPIN_UP + days]


def _cloud_cover(site: Site, rng: np.random.Generator, scenes: int) -> np.ndarray:
    """Opaque cover of kept scenes: about half are clear, the rest broken, none overcast (the filter took those)."""
    broken = rng.beta(0.9, 1.4, scenes) * site.cover / (1 - CLEAR_SCENES) / 0.39
    return np.where(rng.random(scenes) < CLEAR_SCENES, 0.01, np.clip(broken, 0.01, 0.97))


def _haze(rng: np.random.Generator, sun: np.ndarray) -> np.ndarray:
    """Aerosol left over or taken away too much by the correction, a tail of smoke and cirrus (assumed, tuned)."""
    smoke = 0.012 * rng.exponential(1.0, len(sun)) * (rng.random(len(sun)) < 0.25)
    return 0.002 + 0.006 * (sun - 0.75) + rng.normal(0, 0.005, len(sun)) + smoke


def _rain_and_snow(
    site: Site, rng: np.random.Generator, of_year: np.random.Generator, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Daily soil moisture (0-1) and snow depth (cm), a bucket with random filling and steady loss."""
    total = SPIN_UP + length
    month = month_of((np.arange(total) - SPIN_UP) % 365 + 1)
    wetness, cold = np.exp(of_year.normal(0, 0.25, 12)), np.exp(of_year.normal(0, 0.35, 12))
    rains = rng.random(total) < (np.array(site.rain) * wetness)[month]
    snows = rng.random(total) < (np.array(site.snowfall) * cold)[month]
    fill, fall = rng.beta(1.2, 1.1, total), rng.gamma(1.2, 2.5, total) * snows
    melt = np.array(site.melt)[month] * rng.uniform(0.4, 1.6, total)
    season = np.cos(2 * np.pi * (np.arange(total) - SPIN_UP - 15) / 365.25)  # 1 in mid January
    drying = np.exp(-1.0 / (4.0 + 2.8 * season))  # the top millimetres dry in 1.2 to 7 days, assumed
    moisture, snow, water, depth = np.empty(total), np.empty(total), 0.5, 0.0
    for day in range(total):
        thaw = min(depth, melt[day])
        water = max(water * drying[day], fill[day] if rains[day] else 0.0, 0.8 if thaw > 0.3 else 0.0)
        depth = min(depth - thaw + fall[day], 40.0)
        moisture[day], snow[day] = water, depth
    return moisture[SPIN_UP:], snow[SPIN_UP:]


def _sun_height(latitude: float, days: np.ndarray) -> np.ndarray:
    """Cosine of the solar zenith angle at about 10:45 local solar time, over its value at midsummer."""
    def cosine(day: np.ndarray | float) -> np.ndarray:
        declination = np.deg2rad(-23.44) * np.cos(2 * np.pi * (day + 10) / 365.25)
        hour, phi = np.deg2rad(-19.0), np.deg2rad(latitude)
        return np.sin(phi) * np.sin(declination) + np.cos(phi) * np.cos(declination) * np.cos(hour)

    return cosine(days.astype(float)) / cosine(172.0)


def logistic(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), safe for any x."""
    return 0.5 + 0.5 * np.tanh(0.5 * x)


def _logit(p: np.ndarray) -> np.ndarray:
    p = np.clip(p, 0.02, 0.98)
    return np.log(p / (1 - p))
