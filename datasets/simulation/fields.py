"""Fields: what pixels of one field share, drawn at random around the tables of sites and crops.

A field has up to four growing seasons a year: what grew before planting, the main one, regrowth or a second crop,
and what is sown in autumn. An absent season has peak LAI 0. Rates and spreads are assumed, and wide: pre-training
needs the variety of real fields more than it needs their averages.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datasets.simulation import spectra
from datasets.simulation.crops import CROPS, NUMBER
from datasets.simulation.sites import Site
from datasets.simulation.weather import TileYear

BEFORE, MAIN, SECOND, AUTUMN = range(4)
SEASONS = 4
MOST_CUTS = 5
NEVER = 999.0  # a day that never comes

ANNUAL, WINTER, DOUBLE, PERENNIAL, FALLOW = "annual", "winter", "double", "perennial", "fallow"


@dataclass
class Fields:
    """Struct of arrays, one row a field (later: a pixel). Days may lie outside the year."""

    crop: np.ndarray  # (F,) index into CROPS
    lai: np.ndarray  # (F, SEASONS) peak leaf area index
    up: np.ndarray  # (F, SEASONS) day of mid green-up
    up_width: np.ndarray
    down: np.ndarray  # (F, SEASONS) day of mid senescence
    down_width: np.ndarray
    end: np.ndarray  # (F, SEASONS) harvest or killing
    brown: np.ndarray  # (F, SEASONS) fraction of the peak left standing dry
    base: np.ndarray  # (F,) evergreen LAI
    cuts: np.ndarray  # (F, MOST_CUTS) mowing days
    residue: np.ndarray  # (F, 2) dry cover on 1 January, after harvest
    decay: np.ndarray  # (F,) e-folding days of residue
    till: np.ndarray  # (F, 2) days of tillage in spring and after harvest
    flower: np.ndarray  # (F, 3) cover, day, width
    flood: np.ndarray  # (F, 3) cover, first day, last day
    water: np.ndarray  # (F,) open water
    shade: np.ndarray  # (F,)
    wetness: np.ndarray  # (F,) scale of soil moisture
    melt: np.ndarray  # (F,) snow depth, cm, that covers 63 % of the ground
    soil: np.ndarray  # (F, 10) log reflectance, dry
    straw: np.ndarray  # (F, 10) reflectance of residue
    leaf: np.ndarray  # (F, 10) reflectance of a dense green canopy
    withered: np.ndarray  # (F, 10) reflectance of a dense dry canopy
    lake: np.ndarray  # (F, 10) reflectance of standing water

    def take(self, rows: np.ndarray) -> Fields:
        """The rows of these numbers."""
        return Fields(**{name: values[rows] for name, values in vars(self).items()})


def draw_fields(rng: np.random.Generator, site: Site, tile: TileYear, crops: np.ndarray) -> Fields:
    """Draw one field for each entry of `crops` (F,), grown at this site in this tile's year."""
    table = _Table(crops)
    count = len(crops)
    calendar = np.array([site.calendar[CROPS[crop].name] for crop in crops], dtype=np.float64)  # (F, 2)
    delay = rng.normal(0, 1, count) * table.spread + tile.shift
    start, stop = calendar[:, 0] + delay, calendar[:, 1] + 0.6 * delay + rng.normal(0, 5, count)
    fields = _empty(rng, table, site, tile)
    _main_season(rng, fields, table, tile, start, stop)
    _before_planting(rng, fields, table, site, start)
    _after_harvest(rng, fields, table, site, tile, stop)
    _perennials(rng, fields, table)
    _ground_events(rng, fields, table, start, stop)
    return fields


class _Table:
    """The crop table as arrays, a row a field."""

    def __init__(self, crops: np.ndarray):
        rows = [CROPS[crop] for crop in crops]
        self.crop = crops
        self.kind = np.array([crop.kind for crop in rows])
        self.leaf = [crop.leaf for crop in rows]
        for name in ("lai", "up", "down"):
            setattr(self, name, np.array([getattr(crop, name) for crop in rows]))
        for name in ("brown", "residue", "base", "spread", "flower", "cuts", "flood", "water", "shade", "paved",
                     "drought"):
            setattr(self, name, np.array([float(getattr(crop, name)) for crop in rows]))

    def __len__(self) -> int:
        return len(self.crop)

    def of_kind(self, *kinds: str) -> np.ndarray:
        return np.isin(self.kind, kinds)


def _chance(rng: np.random.Generator, probability: np.ndarray | float, count: int) -> np.ndarray:
    return rng.random(count) < probability


def _empty(rng: np.random.Generator, table: _Table, site: Site, tile: TileYear) -> Fields:
    """Fields without seasons, with their soils and canopy spectra."""
    count = len(table)
    seasons = (count, SEASONS)
    paved = table.paved * rng.random(count)
    return Fields(
        crop=table.crop,
        lai=np.zeros(seasons), up=np.zeros(seasons), up_width=np.full(seasons, 8.0), down=np.full(seasons, NEVER),
        down_width=np.full(seasons, 8.0), end=np.full(seasons, NEVER), brown=np.zeros(seasons),
        base=table.base * rng.lognormal(0, 0.3, count),
        cuts=np.full((count, MOST_CUTS), NEVER),
        residue=np.stack([rng.beta(1.3, 1.6, count), np.clip(table.residue * rng.lognormal(0, 0.25, count), 0, 1)], 1),
        decay=rng.uniform(120, 500, count),
        till=np.full((count, 2), NEVER),
        flower=np.stack(
            [table.flower * rng.uniform(0.3, 1.3, count), np.full(count, NEVER), rng.uniform(5, 10, count)], 1
        ),
        flood=np.zeros((count, 3)),
        water=np.clip(table.water * rng.uniform(0.85, 1.0, count), 0, 1),
        shade=np.clip(table.shade * rng.uniform(0.5, 1.5, count), 0, 0.8),
        wetness=rng.uniform(0.35, 1.15, count),
        melt=rng.uniform(1.5, 9.0, count),
        soil=spectra.draw_soils(rng, count, site.soil, paved),
        straw=spectra.draw_straw(rng, count, site.straw),
        leaf=spectra.draw_leaves(rng, table.leaf),
        withered=spectra.draw_withered(rng, table.leaf),
        lake=spectra.draw_water(rng, count),
    )


def _main_season(
    rng: np.random.Generator, fields: Fields, table: _Table, tile: TileYear, start: np.ndarray, stop: np.ndarray
) -> None:
    """The crop itself. Winter crops green up in spring, some days after the year's warming, not after planting."""
    count = len(table)
    winter = table.of_kind(WINTER, DOUBLE)
    low, high = table.lai.T
    peak = (low + (high - low) * rng.beta(1.6, 1.6, count)) * tile.vigour * rng.lognormal(-0.04, 0.22, count)
    peak *= np.where(_chance(rng, 0.03, count), rng.uniform(0.1, 0.5, count), 1.0)  # failed stands, assumed rate
    fields.lai[:, MAIN] = peak
    spring = stop - rng.normal(92, 9, count)  # tillering to harvest, winter wheat
    fields.up[:, MAIN] = np.where(winter, spring, start + table.up[:, 0] + rng.normal(0, 4, count))
    fields.up_width[:, MAIN] = table.up[:, 1] * rng.lognormal(0, 0.2, count)
    down = stop - table.down[:, 0] * rng.lognormal(0, 0.2, count)
    fields.down[:, MAIN] = np.maximum(down, fields.up[:, MAIN] + 18)
    fields.down_width[:, MAIN] = table.down[:, 1] * rng.lognormal(0, 0.25, count)
    harvested = ~table.of_kind(PERENNIAL)
    fields.end[:, MAIN] = np.where(harvested, np.maximum(stop, fields.down[:, MAIN] + 4), NEVER)
    fields.brown[:, MAIN] = np.clip(table.brown * rng.lognormal(0, 0.25, count), 0, 1.2)
    in_flower = fields.up[:, MAIN] + 0.42 * (fields.down[:, MAIN] - fields.up[:, MAIN])
    fields.flower[:, 1] = in_flower + rng.normal(0, 3, count)
    fallow = table.of_kind(FALLOW)  # weeds come when they like and are sprayed or tilled under
    fields.up[fallow, MAIN] = rng.uniform(70, 240, fallow.sum())
    fields.down[fallow, MAIN] = fields.up[fallow, MAIN] + rng.uniform(25, 90, fallow.sum())
    fields.end[fallow, MAIN] = fields.up[fallow, MAIN] + rng.uniform(25, 110, fallow.sum())


def _before_planting(
    rng: np.random.Generator, fields: Fields, table: _Table, site: Site, start: np.ndarray
) -> None:
    """Dormant winter crops; winter weeds and cover crops before annuals, more of them in mild climates."""
    count = len(table)
    mild = np.clip((44.0 - site.latitude) / 10.0, 0.05, 1.0)
    annual = table.of_kind(ANNUAL, FALLOW)
    weedy = annual & _chance(rng, 0.2 + 0.3 * mild, count)
    winter = table.of_kind(WINTER, DOUBLE)
    weeds = rng.gamma(1.3, 0.35, count) * (0.5 + mild)
    fields.lai[:, BEFORE] = np.where(winter, rng.gamma(2.5, 0.22, count) * (0.6 + mild), np.where(weedy, weeds, 0.0))
    warming = 45 + 4.0 * (site.latitude - 33.0)
    fields.up[:, BEFORE] = np.where(winter, rng.normal(-60, 12, count), rng.normal(warming, 15, count))
    early = weedy & _chance(rng, mild, count)  # autumn germinated
    fields.up[early, BEFORE] = -40
    fields.up_width[:, BEFORE] = rng.uniform(7, 16, count)
    kill = start - rng.gamma(2.0, 7.0, count)
    fields.end[:, BEFORE] = np.where(winter, fields.up[:, MAIN] + 25, kill)
    fields.down[:, BEFORE] = np.where(winter, fields.up[:, MAIN] + 15, kill + 10)
    fields.brown[:, BEFORE] = 0.2


def _after_harvest(
    rng: np.random.Generator, fields: Fields, table: _Table, site: Site, tile: TileYear, stop: np.ndarray
) -> None:
    """Soybeans after wheat; volunteers and weeds after harvest; the next winter crop."""
    count = len(table)
    double, annual = table.of_kind(DOUBLE), table.of_kind(ANNUAL, WINTER, FALLOW)
    season_left = np.clip((tile.frost - stop) / 60.0, 0, 1)
    regrown = annual & _chance(rng, 0.7 * season_left, count)
    green = np.where(regrown, rng.gamma(1.4, 0.35, count), 0.0)
    fields.lai[:, SECOND] = np.where(double, rng.uniform(1.8, 5.0, count) * tile.vigour, green)
    fields.up[:, SECOND] = stop + np.where(double, rng.normal(52, 7, count), 12 + rng.gamma(2.0, 12.0, count))
    fields.up_width[:, SECOND] = rng.uniform(5, 11, count)
    fields.down[:, SECOND] = np.where(double, rng.normal(268, 8, count), tile.frost + rng.normal(10, 12, count))
    fields.down_width[:, SECOND] = rng.uniform(4, 10, count)
    sprayed = regrown & _chance(rng, 0.3, count)
    end = np.where(double, fields.down[:, SECOND] + rng.uniform(12, 35, count), NEVER)
    fields.end[:, SECOND] = np.where(sprayed, fields.up[:, SECOND] + rng.uniform(15, 60, count), end)
    fields.brown[:, SECOND] = 0.35
    sown = table.of_kind(WINTER, DOUBLE, FALLOW, ANNUAL) & (stop < 290)
    chance = np.select([table.kind == WINTER, table.kind == FALLOW, table.kind == ANNUAL], [0.45, 0.4, 0.1], 0.15)
    if "winter wheat" not in site.land:
        chance = chance * 0.3
    planted = site.calendar.get("winter wheat", (285, 0))[0] + rng.normal(0, 10, count)
    sown &= _chance(rng, chance, count)
    fields.lai[:, AUTUMN] = np.where(sown, rng.gamma(2.5, 0.25, count), 0.0)
    fields.up[:, AUTUMN] = np.maximum(planted, stop + 10) + rng.normal(28, 5, count)
    fields.end[sown, SECOND] = np.minimum(fields.end[sown, SECOND], fields.up[sown, AUTUMN] - 25)


def _perennials(rng: np.random.Generator, fields: Fields, table: _Table) -> None:
    """Mowing of alfalfa and hay; summer dip and autumn regrowth of cool-season grass; wet ground of wetlands."""
    count = len(table)
    mown = table.cuts > 0
    length = fields.down[:, MAIN] - fields.up[:, MAIN]
    times = np.floor(rng.uniform(0.4, 1.0, count) * (table.cuts + 0.99))
    times = np.where(mown, np.minimum(times, np.floor(length / 28) + 1), 0)
    first = fields.up[:, MAIN] + rng.normal(38, 7, count)
    gap = np.where(table.cuts > 2, rng.normal(34, 4, count), rng.normal(55, 10, count))
    for cut in range(MOST_CUTS):
        day = first + cut * gap + rng.normal(0, 3, count)
        fields.cuts[:, cut] = np.where((cut < times) & (day < fields.down[:, MAIN] + 15), day, NEVER)
    dips = _chance(rng, table.drought, count)
    end = fields.down[:, MAIN].copy()
    fields.down[dips, MAIN] = (fields.up[:, MAIN] + rng.uniform(0.25, 0.5, count) * length)[dips]
    regrows = dips & _chance(rng, 0.6, count)
    fields.lai[:, SECOND] = np.where(regrows, fields.lai[:, MAIN] * rng.uniform(0.2, 0.8, count), fields.lai[:, SECOND])
    fields.up[regrows, SECOND] = (end - rng.uniform(15, 60, count))[regrows]
    fields.down[regrows, SECOND] = (end + rng.uniform(10, 50, count))[regrows]


def _ground_events(
    rng: np.random.Generator, fields: Fields, table: _Table, start: np.ndarray, stop: np.ndarray
) -> None:
    """Tillage, which buries residue, and flooding of rice and wetlands."""
    count = len(table)
    tilled = table.of_kind(ANNUAL, FALLOW) & _chance(rng, 0.55, count)
    fields.till[:, 0] = np.where(tilled, start - rng.gamma(2.0, 6.0, count), NEVER)
    after = ~table.of_kind(PERENNIAL) & _chance(rng, 0.4, count)
    fields.till[:, 1] = np.where(after, stop + rng.gamma(2.0, 14.0, count), NEVER)
    stubble_fallow = table.of_kind(FALLOW) & _chance(rng, 0.6, count)
    fields.residue[stubble_fallow, 0] = rng.uniform(0.4, 1.0, stubble_fallow.sum())
    rice = table.crop == NUMBER["rice"]
    fields.flood[:, 0] = np.clip(table.flood * rng.uniform(0.5, 1.15, count), 0, 1)
    fields.flood[:, 1] = np.where(rice, start + rng.normal(24, 6, count), rng.normal(-20, 30, count))
    fields.flood[:, 2] = np.where(rice, stop - rng.normal(20, 5, count), rng.normal(150, 45, count))
