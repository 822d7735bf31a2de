"""A block: up to 128 series of one tile, drawn from a stream of its own, so that blocks may be made in any order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datasets.simulation import atmosphere, canopy
from datasets.simulation.crops import CROPS, NUMBER
from datasets.simulation.fields import Fields, draw_fields
from datasets.simulation.sites import SITES, Site
from datasets.simulation.weather import TILES, tile_year

BLOCK = 128  # series
LABELLED_TILES = 3  # tiles a site that the labelled pools cover; the unlabelled pool covers all
# CDL is right for 85-95 % of the area of major crops (Boryan et al. 2011, Geocarto Int. 26), and more often where its
# confidence is above 95 % and the neighbours agree, as the method asks: the rate that is left is assumed
WRONG_LABELS = 0.03
MEAN_PIXELS = 2.5  # pixels a field, assumed
MIXED = 0.15  # fraction of pixels with a strip of another field in them, assumed
# spread within a field, log but for the days of green-up and senescence (assumed)
WITHIN = {"lai": 0.08, "base": 0.08, "days": 1.5, "soil": 0.05, "leaf": 0.03, "wetness": 0.08}
FEWEST_OBSERVATIONS = 20  # a series, as in real data (23)


@dataclass(frozen=True)
class BlockPlan:
    """Which series to make: all that a worker needs to know."""

    seed: int
    pool: int  # number of the pool, which keeps its fields apart from those of other pools
    site: int
    year: int
    number: int  # of the block within pool, site and year
    size: int  # series


@dataclass
class SeriesBlock:
    """n series with m observations in all."""

    bands: np.ndarray  # (m, 10) int16 DN
    doy: np.ndarray  # (m,) int16
    lengths: np.ndarray  # (n,)
    codes: np.ndarray  # (n,) CDL codes, a few of them wrong
    truth: np.ndarray  # (n,) index into CROPS of what really grew
    tile: int
    field: np.ndarray  # (n,) number of the field within the block


def simulate_block(plan: BlockPlan) -> SeriesBlock:
    """Make the series of a plan; the same plan always gives the same bytes."""
    site = SITES[plan.site]
    rng = np.random.default_rng([plan.seed, plan.pool, plan.site, plan.year, plan.number])
    tile_number = int(rng.integers(LABELLED_TILES if plan.pool else TILES))
    tile = tile_year(plan.seed, plan.site, tile_number, plan.year)
    field_of = _deal_pixels(rng)
    crops = _draw_crops(rng, site, field_of.max() + 1)
    fields = draw_fields(rng, site, tile, crops)
    pixels = _as_pixels(rng, fields, field_of)
    surface = canopy.reflectance(pixels, canopy.ground_state(pixels, tile.days), tile)
    surface = _mix(rng, surface)
    kept, nearness = atmosphere.keep_observations(rng, tile, field_of, FEWEST_OBSERVATIONS)
    numbers = atmosphere.observe(rng, surface, nearness, tile, field_of)
    codes = _labels(rng, site, crops, field_of)
    first = slice(0, plan.size)
    kept = kept[first]
    return SeriesBlock(
        bands=np.ascontiguousarray(numbers[:, first][:, kept].T),
        doy=np.broadcast_to(tile.days, kept.shape)[kept].astype(np.int16),
        lengths=kept.sum(axis=1),
        codes=codes[first],
        truth=crops[field_of][first],
        tile=tile_number,
        field=field_of[first],
    )


def _deal_pixels(rng: np.random.Generator) -> np.ndarray:
    """(BLOCK,) field number of each pixel; a field has one pixel or a few, geometrically distributed."""
    return np.cumsum(np.append(0, rng.random(BLOCK - 1) < 1 / MEAN_PIXELS))


def _draw_crops(rng: np.random.Generator, site: Site, count: int) -> np.ndarray:
    fractions = np.array(list(site.land.values()))
    chosen = rng.choice(len(fractions), count, p=fractions / fractions.sum())
    return np.array([NUMBER[name] for name in site.land])[chosen]


def _labels(rng: np.random.Generator, site: Site, crops: np.ndarray, field_of: np.ndarray) -> np.ndarray:
    """CDL code of each pixel; a wrong one belongs to another cover of the site and holds for the whole field."""
    claimed = np.where(rng.random(len(crops)) < WRONG_LABELS, _draw_crops(rng, site, len(crops)), crops)
    pick = rng.random(len(crops))
    codes = [CROPS[crop].codes[int(p * len(CROPS[crop].codes))] for crop, p in zip(claimed, pick, strict=True)]
    return np.array(codes)[field_of]


def _as_pixels(rng: np.random.Generator, fields: Fields, field_of: np.ndarray) -> Fields:
    """Fields repeated for their pixels, with what differs inside a field: vigour, timing, soil."""
    pixels = fields.take(field_of)
    count = len(field_of)
    pixels.lai *= rng.lognormal(0, WITHIN["lai"], (count, 1))
    pixels.base *= rng.lognormal(0, WITHIN["base"], count)
    late = rng.normal(0, WITHIN["days"], (count, 1))
    pixels.up += late
    pixels.down += late
    pixels.soil += rng.normal(0, WITHIN["soil"], (count, 1))
    pixels.leaf *= rng.lognormal(0, WITHIN["leaf"], (count, 1))
    pixels.wetness *= rng.lognormal(0, WITHIN["wetness"], count)
    return pixels


def _mix(rng: np.random.Generator, surface: np.ndarray) -> np.ndarray:
    """Mixed pixels: up to 40 % of the area is a pixel from elsewhere in the tile."""
    count = surface.shape[1]
    rows = np.flatnonzero(rng.random(count) < MIXED)
    other = rng.integers(count, size=count)[rows]
    fraction = (0.4 * rng.beta(1.0, 2.0, count))[rows].astype(np.float32)[:, None]
    mixed = surface.copy()
    mixed[:, rows] += fraction * (surface[:, other] - surface[:, rows])
    return mixed
