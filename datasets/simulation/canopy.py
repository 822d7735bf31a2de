"""From the state of the ground to surface reflectance on given days: phenology, then canopy-to-band mixing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datasets.simulation import spectra
from datasets.simulation.fields import SEASONS, Fields
from datasets.simulation.weather import TileYear, logistic


@dataclass
class GroundState:
    """What is on the ground; all (P, D), pixels by scenes."""

    green: np.ndarray  # green LAI
    brown: np.ndarray  # standing dry LAI
    residue: np.ndarray  # ground cover of dry residue
    flower: np.ndarray  # cover of flowers
    water: np.ndarray  # fraction of the ground under water


def ground_state(fields: Fields, days: np.ndarray) -> GroundState:
    """State of each pixel on each day (D,): a double logistic a season (Zhang et al. 2003; Beck et al. 2006)."""
    shape = (len(fields.crop), len(days))
    green, brown = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    day = days[None, :].astype(np.float32)
    for season in range(SEASONS):
        grows = np.flatnonzero(fields.lai[:, season])
        column = _columns(fields, season, grows)
        up = logistic((day - column["up"]) / column["up_width"])
        down = logistic((day - column["down"]) / column["down_width"])
        standing = up * column["lai"] * logistic((column["end"] - day) / 1.2)
        green[grows] += standing * (1 - down)
        brown[grows] += standing * down * column["brown"]
    left = _mown(fields.cuts, day)
    green = green * left + fields.base.astype(np.float32)[:, None]
    water = _flooded(fields, day)
    return GroundState(green, brown * left, _residue(fields, day), _bloom(fields, day), water)


def _columns(fields: Fields, season: int, rows: np.ndarray) -> dict[str, np.ndarray]:
    names = ("lai", "up", "up_width", "down", "down_width", "end", "brown")
    return {name: getattr(fields, name)[rows, season].astype(np.float32)[:, None] for name in names}


def _mown(cuts: np.ndarray, day: np.ndarray) -> np.ndarray:
    """Fraction of the canopy left by mowing: a twentieth after a cut, half of it regrown in 19 days (assumed)."""
    left = np.ones((len(cuts), day.shape[1]), np.float32)
    for cut in range(cuts.shape[1]):
        rows = np.flatnonzero(cuts[:, cut] < 400)
        since = day - cuts[rows, cut].astype(np.float32)[:, None]
        regrown = 0.05 + 0.95 * logistic((since - 19) / 4.5)
        left[rows] *= np.where(since > 0, regrown, 1.0)
    return left


def _residue(fields: Fields, day: np.ndarray) -> np.ndarray:
    """Dry cover: last year's, then this year's after harvest; both rot, and tillage buries three quarters."""
    first, second = fields.residue.astype(np.float32).T[:, :, None]
    decay = fields.decay.astype(np.float32)[:, None]
    end = fields.end[:, 1].astype(np.float32)[:, None]
    spring, autumn = fields.till.astype(np.float32).T[:, :, None]
    harvested = logistic((day - end) / 1.2)
    old = first * np.exp(-day / decay) * (1 - 0.75 * (day > spring)) * (1 - harvested)
    new = second * np.exp(-np.maximum(day - end, 0) / decay) * (1 - 0.75 * (day > autumn)) * harvested
    return old + new


def _bloom(fields: Fields, day: np.ndarray) -> np.ndarray:
    bloom = np.zeros((len(fields.crop), day.shape[1]), np.float32)
    rows = np.flatnonzero(fields.flower[:, 0])
    cover, peak, width = fields.flower[rows].astype(np.float32).T[:, :, None]
    bloom[rows] = cover * np.exp(-0.5 * ((day - peak) / width) ** 2)
    return np.minimum(bloom, 0.9)


def _flooded(fields: Fields, day: np.ndarray) -> np.ndarray:
    water = np.repeat(fields.water.astype(np.float32)[:, None], day.shape[1], axis=1)
    rows = np.flatnonzero(fields.flood[:, 0])
    cover, first, last = fields.flood[rows].astype(np.float32).T[:, :, None]
    water[rows] = np.maximum(water[rows], cover * logistic((day - first) / 1.5) * logistic((last - day) / 4.0))
    return water


def reflectance(fields: Fields, state: GroundState, tile: TileYear) -> np.ndarray:
    """Surface reflectance (10, P, D) under the tile's moisture, snow and sun."""
    materials = ("soil", "straw", "leaf", "withered", "lake")
    per_band = {name: getattr(fields, name).astype(np.float32).T[:, :, None] for name in materials}
    moisture = np.minimum(fields.wetness.astype(np.float32)[:, None] * tile.moisture.astype(np.float32), 1.0)
    total = state.green + state.brown
    green_fraction = np.where(total > 0, state.green / np.maximum(total, 1e-6), 0.0)
    snow = 1 - np.exp(-tile.snow.astype(np.float32) / fields.melt.astype(np.float32)[:, None])  # (P, D) of the ground
    bare, flowers = 1 - state.residue, state.flower
    dark = 1 - fields.shade.astype(np.float32)[:, None] * (1.25 - tile.sun.astype(np.float32))
    low_sun = np.log(tile.sun.astype(np.float32))
    hidden = 1 - np.exp(-0.25 * total)  # snow seen less under a canopy
    snow_seen = snow * (1 - 0.7 * hidden * (fields.shade[:, None] > 0))
    out = np.empty((10, *total.shape), np.float32)
    for band in range(10):
        wet = np.float32(spectra.WET_SOIL[band])
        soil = np.exp(per_band["soil"][band] + wet * moisture)
        straw = per_band["straw"][band] * (1 - np.float32(1 - spectra.WET_STRAW[band]) * moisture)
        ground = (soil * bare + straw * state.residue) * np.exp(np.float32(spectra.LOW_SUN[band]) * low_sun)
        ground += state.water * (per_band["lake"][band] - ground)
        thick = per_band["withered"][band] + green_fraction * (per_band["leaf"][band] - per_band["withered"][band])
        through = np.exp(np.float32(-spectra.EXTINCTION[band]) * total)
        surface = thick + (ground - thick) * through
        surface += flowers * (np.float32(spectra.FLOWER[band]) - surface)
        surface *= dark
        white = spectra.SNOW[band] * np.exp(spectra.GRAIN[band] * tile.grain)
        out[band] = surface + snow_seen * (white.astype(np.float32) - surface)
    return out
