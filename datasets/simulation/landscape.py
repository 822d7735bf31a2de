"""The ground plan of a scene: square-mile sections with roads, fields, centre pivots, streams, ponds and wild land.

The plan covers an unbounded plane, section by section, so that any window can be drawn on its own. Sections follow
the US Public Land Survey (a mile square, true north up, roads along section lines, fields by halves); sizes and rates
are assumed. What lies where does not depend on the year; what grows on it does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from datasets.optional import need
from datasets.simulation import noise
from datasets.simulation.blocks import WRONG_LABELS
from datasets.simulation.crops import CROPS, NUMBER
from datasets.simulation.fields import Fields, draw_fields
from datasets.simulation.sites import SITES, Site
from datasets.simulation.weather import TILES, TileYear, tile_year

SECTION = 1609.344  # m, one mile
WIDEST_ROAD = 24.0  # m
SMALLEST = 2_000.0  # m2; what is left over in smaller pieces is added to the rest of the section
GRID = 0.01  # m; corners lie on it, so that no sliver is so thin that rounding makes it invalid
STREAM_SPACING = 7_000.0  # m
_PLAN_STREAM, _CROP_STREAM = 11, 12  # keep these random streams apart from those of pools and weather


@dataclass(frozen=True)
class Landscape:
    """What a site looks like from above."""

    longitude: float
    wild: str  # the cover that grows in patches with natural outlines, most along streams
    patch: float  # m, size of the patches
    split: float  # chance that a field of up to a quarter section is halved
    pivots: float  # chance that a quarter section is irrigated by a centre pivot
    stream: float  # m, width


LANDSCAPES = {  # longitudes of the county seats; Randolph as if in Illinois, as its state is not published
    "Adams": Landscape(-102.5, wild="shrubland", patch=500, split=0.35, pivots=0.0, stream=12),
    "Coahoma": Landscape(-90.6, wild="woody wetlands", patch=900, split=0.55, pivots=0.12, stream=34),
    "Garfield": Landscape(-117.6, wild="evergreen forest", patch=1400, split=0.25, pivots=0.0, stream=12),
    "Harvey": Landscape(-97.4, wild="deciduous forest", patch=400, split=0.55, pivots=0.3, stream=22),
    "Haskell": Landscape(-99.7, wild="shrubland", patch=1100, split=0.4, pivots=0.06, stream=14),
    "Randolph": Landscape(-89.8, wild="deciduous forest", patch=700, split=0.7, pivots=0.0, stream=20),
}


@dataclass(frozen=True)
class ScenePlan:
    """Which scene to make: all that a worker needs to know."""

    seed: int
    site: int
    year: int
    size: int  # pixels along a side

    @property
    def landscape(self) -> Landscape:
        return LANDSCAPES[SITES[self.site].name]

    @property
    def weather(self) -> TileYear:
        """Weather and passes of a tile of its own, which no pool of US-sim uses."""
        return tile_year(self.seed, self.site, TILES, self.year)


class Section(NamedTuple):
    """F polygons that cover one section, in metres of the scene's CRS."""

    outline: object  # shapely, the whole square mile
    polygons: list  # (F,) shapely, without overlaps
    kinds: list[str]  # (F,) field, wild, water, farmstead or road
    crop: np.ndarray  # (F,) index into CROPS of what grows
    code: np.ndarray  # (F,) its CDL code
    claimed: np.ndarray  # (F,) the code that the label raster gives the whole polygon; a few are wrong
    certainty: np.ndarray  # (F,) how sure the label raster is inside, 0-1


class Frame(NamedTuple):
    """Where the local axes (metres along true east and north) lie in the scene's UTM zone."""

    epsg: int
    left: float  # m, the top left corner of the scene, which is the local origin
    top: float
    turn: float  # radians from the local axes to those of the zone: the convergence of its meridians

    def to_zone(self) -> list[float]:
        """Coefficients of shapely.affinity.affine_transform."""
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        return [cos, -sin, sin, cos, self.left, self.top]

    def to_local(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        return cos * (x - self.left) + sin * (y - self.top), cos * (y - self.top) - sin * (x - self.left)


@lru_cache(maxsize=8)
def frame(site: Site) -> Frame:
    """The frame of a site; its corner lies on the 60 m grid that bands of all resolutions share."""
    longitude = LANDSCAPES[site.name].longitude
    zone = int((longitude + 180) // 6) + 1
    epsg = 32600 + zone
    warp = need("rasterio.warp", "a scene")
    (x,), (y,) = warp.transform("EPSG:4326", f"EPSG:{epsg}", [longitude], [site.latitude])
    turn = np.deg2rad(longitude - (6 * zone - 183)) * np.sin(np.deg2rad(site.latitude))
    return Frame(epsg, float(x // 60 * 60), float(y // 60 * 60), float(turn))


def sections_in(plan: ScenePlan, bounds: tuple[float, float, float, float]) -> list[tuple[int, int]]:
    """Numbers of the sections that may touch these bounds (left, bottom, right, top) of the scene's CRS."""
    left, bottom, right, top = bounds
    at = frame(SITES[plan.site])
    us, vs = at.to_local(np.array([left, left, right, right]), np.array([bottom, top, bottom, top]))
    first, last = (
        [int(np.floor((limit + margin) / SECTION)) for limit in (pick(us), pick(vs))]
        for pick, margin in ((np.min, -WIDEST_ROAD), (np.max, WIDEST_ROAD))
    )
    return [(i, j) for j in range(first[1], last[1] + 1) for i in range(first[0], last[0] + 1)]


@lru_cache(maxsize=512)
def section(plan: ScenePlan, i: int, j: int) -> Section:
    """The section at column i and row j of the plane (the origin is the lower left corner of section 0, 0)."""
    shapely, affinity = need("shapely", "a scene"), need("shapely.affinity", "a scene")
    site, to_zone = SITES[plan.site], frame(SITES[plan.site]).to_zone()
    rng = _rng(plan, _PLAN_STREAM, i, j)
    pieces = _ground_plan(plan, rng, i, j)
    rng = _rng(plan, _CROP_STREAM, plan.year, i, j)
    crops = _plant(rng, site, plan.landscape.wild, [kind for kind, _ in pieces])
    fields = np.array([kind == "field" for kind, _ in pieces])
    pick, certainty = rng.random(len(crops)), rng.beta(2.2, 1.2, len(crops))
    claimed = crops.copy()
    wrong = fields & (rng.random(len(crops)) < WRONG_LABELS)
    claimed[wrong] = rng.permutation(crops[fields])[: wrong.sum()]
    outline = shapely.box(i * SECTION, j * SECTION, (i + 1) * SECTION, (j + 1) * SECTION)
    return Section(
        affinity.affine_transform(outline, to_zone),
        [affinity.affine_transform(polygon, to_zone) for _, polygon in pieces],
        [kind for kind, _ in pieces],
        crops, _codes(crops, pick), _codes(claimed, pick), certainty,
    )  # fmt: skip


@lru_cache(maxsize=512)
def grown(plan: ScenePlan, i: int, j: int) -> Fields:
    """What grows on the polygons of a section, as canopy and spectra need it."""
    rng = _rng(plan, _CROP_STREAM, plan.year, i, j, 1)
    return draw_fields(rng, SITES[plan.site], plan.weather, section(plan, i, j).crop)


def _rng(plan: ScenePlan, *key: int) -> np.random.Generator:
    """A random stream; sections left of and below the origin have negative numbers, which a seed cannot have."""
    return np.random.default_rng([plan.seed, plan.site, *(2 * k if k >= 0 else -2 * k - 1 for k in key)])


def _ground_plan(plan: ScenePlan, rng: np.random.Generator, i: int, j: int) -> list[tuple[str, object]]:
    """(kind, polygon) of all that a section is made of, in local metres: the parts cover it without overlaps."""
    shapely = need("shapely", "a scene")
    lines = ((0, i), (1, j), (0, i + 1), (1, j + 1))
    west, south, east, north = (_road_width(plan, *line) / 2 for line in lines)
    x, y = i * SECTION, j * SECTION
    inner = (x + west, y + south, x + SECTION - east, y + SECTION - north)
    box = shapely.box(*inner)
    with_roads = shapely.box(x - west, y - south, inner[2], inner[3])
    water = _within(_union([_stream(plan, i, j), *_ponds(rng, inner)]), box)
    farms = _without(_union(_farmsteads(rng, inner)), water)
    outlines = _fields(rng, inner, plan.landscape)
    irrigated = [outline for outline, pivot in outlines if pivot]
    wild = _without(_wild_land(plan, inner), _union([water, farms, *irrigated]))
    taken = _union([water, farms, wild])
    fields, left_over = [], []
    for outline, _ in outlines:
        for part in shapely.get_parts(_without(outline, taken)):
            (fields if part.area >= SMALLEST else left_over).append(part)
    around = [("road", _without(with_roads, box)), ("water", water), ("farmstead", farms)]
    around.append(("wild", _union([wild, *left_over])))
    return [(kind, part) for kind, part in around if part.area > 0] + [("field", part) for part in fields]


def _union(polygons: list):
    return need("shapely", "a scene").union_all(polygons, grid_size=GRID)


def _without(polygon, other):
    return need("shapely", "a scene").difference(polygon, other, grid_size=GRID)


def _within(polygon, box):
    """The areas that the two share, without the lines and points where they touch."""
    shapely = need("shapely", "a scene")
    parts = shapely.get_parts(shapely.intersection(polygon, box, grid_size=GRID))
    return _union([part for part in parts if part.area > 0])


def _road_width(plan: ScenePlan, direction: int, line: int) -> float:
    """Width of the road along a section line that runs north (0) or east (1): paved, gravel or a track."""
    return float(_rng(plan, _PLAN_STREAM, line, direction, 0, 0).choice((WIDEST_ROAD, 18.0, 10.0), p=(0.3, 0.5, 0.2)))


def _fields(rng: np.random.Generator, bounds: tuple[float, ...], landscape: Landscape) -> list[tuple]:
    """(outline, whether a pivot irrigates it) of the fields within `bounds`: halves of halves, some with a circle."""
    shapely = need("shapely", "a scene")
    left, bottom, right, top = bounds
    width, height = right - left, top - bottom
    hectares, longer = width * height / 1e4, max(width, height)
    square = longer < 1.25 * min(width, height)
    if square and 40 < hectares < 100 and rng.random() < landscape.pivots:
        return _pivot(rng, shapely.box(*bounds))
    if hectares > 80 or (hectares > 9 and longer > 320 and rng.random() < landscape.split):
        at = 0.5 if rng.random() < 0.7 else rng.uniform(0.34, 0.66)
        upright = rng.random() < 0.5 if square else width > height
        if upright:
            x = left + at * width
            halves = (left, bottom, x, top), (x, bottom, right, top)
        else:
            y = bottom + at * height
            halves = (left, bottom, right, y), (left, y, right, top)
        return [field for half in halves for field in _fields(rng, half, landscape)]
    return [(shapely.box(*bounds), False)]


def _pivot(rng: np.random.Generator, quarter) -> list[tuple]:
    """A centre pivot circle, sometimes of two crops, and the corners it leaves, which are one field."""
    shapely = need("shapely", "a scene")
    left, bottom, right, top = quarter.bounds
    circle = quarter.centroid.buffer(0.492 * min(right - left, top - bottom), quad_segs=32)
    corners = quarter.difference(circle)
    if rng.random() < 0.3:
        half = shapely.box(left, bottom, (left + right) / 2, top)
        return [(circle.intersection(half), True), (circle.difference(half), True), (corners, False)]
    return [(circle, True), (corners, False)]


def _stream_course(plan: ScenePlan, number: int, us: np.ndarray) -> np.ndarray:
    """Northing of a stream's middle at these eastings: bends of several lengths."""
    rng = _rng(plan, _PLAN_STREAM, number)
    middle = (number - 0.36 + rng.uniform(-0.07, 0.07)) * STREAM_SPACING
    for swing, length in ((420, 6_300), (170, 1_900), (60, 610), (16, 210)):
        middle = middle + swing * rng.uniform(0.6, 1.2) * np.sin(2 * np.pi * (us / length + rng.random()))
    return middle


def _streams_near(v: float) -> range:
    """Numbers of the streams that may pass a section whose lower side is at northing v."""
    nearest = round(v / STREAM_SPACING + 0.36)
    return range(nearest - 1, nearest + 2)


def _stream(plan: ScenePlan, i: int, j: int):
    """The streams of a section."""
    shapely = need("shapely", "a scene")
    us = np.arange(i * SECTION - 60, (i + 1) * SECTION + 60, 12.0)
    lines = [
        shapely.LineString(np.stack([us, _stream_course(plan, number, us)], axis=1))
        for number in _streams_near(j * SECTION)
    ]
    return shapely.union_all(lines).buffer(plan.landscape.stream / 2)


def _ponds(rng: np.random.Generator, bounds: tuple[float, ...]) -> list:
    """Farm ponds, and now and then a lake: circles with a few waves in their shore."""
    shapely = need("shapely", "a scene")
    lakes = int(rng.random() < 0.07)
    radii = [*rng.uniform(18, 55, rng.poisson(0.7)), *rng.uniform(120, 300, lakes)]
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    ponds = []
    for radius in radii:
        centre = rng.uniform(bounds[:2], bounds[2:])
        shore = 1 + sum(rng.uniform(0, 0.36) / k * np.sin(k * angle + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 5))
        ring = centre + radius * shore[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        ponds.append(shapely.Polygon(ring))
    return ponds


def _farmsteads(rng: np.random.Generator, bounds: tuple[float, ...]) -> list:
    """House and yard beside the road on the west or east side."""
    shapely = need("shapely", "a scene")
    left, bottom, right, top = bounds
    farms = []
    for _ in range(rng.poisson(0.8)):
        width, height = rng.uniform(60, 130, 2)
        y = rng.uniform(bottom, top - height)
        x = left if rng.random() < 0.5 else right - width
        farms.append(shapely.box(x, y, x + width, y + height))
    return farms


def _wild_land(plan: ScenePlan, bounds: tuple[float, ...]):
    """Patches of the site's wild cover: where a smooth random field is low, and lower near streams."""
    shapely = need("shapely", "a scene")
    step = 20.0
    us, vs = (np.arange(low - step / 2, high + step, step) for low, high in (bounds[::2], bounds[1::2]))
    level = noise.uniform(noise.layered((plan.seed, plan.site, _PLAN_STREAM, 0), us, vs, plan.landscape.patch, 3))
    for number in _streams_near(bounds[1]):
        away = np.abs(vs[:, None] - _stream_course(plan, number, us)[None])
        level = level - 0.5 * np.exp(-((away / 90) ** 2))
    site = SITES[plan.site]
    share = site.land[plan.landscape.wild] / sum(site.land.values())
    features, transform = need("rasterio.features", "a scene"), need("rasterio.transform", "a scene")
    grid = transform.Affine(step, 0, us[0] - step / 2, 0, step, vs[0] - step / 2)
    low = (level < share).astype(np.uint8)
    outlines = [shapely.geometry.shape(shape) for shape, _ in features.shapes(low, mask=low > 0, transform=grid)]
    rounded = shapely.union_all(outlines).buffer(-8).simplify(12).buffer(28).buffer(-20)
    return _within(rounded, shapely.box(*bounds))


def _plant(rng: np.random.Generator, site: Site, wild: str, kinds: list[str]) -> np.ndarray:
    """(F,) cover of each polygon. The fields of a section share out the site's covers by systematic sampling."""
    fixed = {"road": "developed", "farmstead": "developed", "water": "open water", "wild": wild}
    shares = {name: share for name, share in site.land.items() if name not in fixed.values()}
    limits = np.cumsum(list(shares.values())) / sum(shares.values())
    count = kinds.count("field")
    drawn = np.searchsorted(limits, (rng.permutation(count) + rng.random()) / max(count, 1), side="right")
    names = list(shares)
    of_fields = iter([names[min(number, len(names) - 1)] for number in drawn])
    return np.array([NUMBER[next(of_fields) if kind == "field" else fixed[kind]] for kind in kinds])


def _codes(crops: np.ndarray, pick: np.ndarray) -> np.ndarray:
    """CDL code of each cover; covers with several codes take the one that `pick` (0-1) chooses."""
    codes = [CROPS[crop].codes[int(p * len(CROPS[crop].codes))] for crop, p in zip(crops, pick, strict=True)]
    return np.array(codes, dtype=np.uint8)
