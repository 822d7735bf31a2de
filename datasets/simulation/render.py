"""Windows of a scene: which polygon a pixel lies in, and the digital numbers of some passes."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from datasets.optional import need
from datasets.simulation import atmosphere, canopy, noise
from datasets.simulation.blocks import WITHIN
from datasets.simulation.fields import Fields
from datasets.simulation.landscape import ScenePlan, frame, grown, section, sections_in
from datasets.simulation.sites import SITES
from datasets.simulation.sky import PIXEL, Sky, outside_swath, sky_of
from datasets.simulation.weather import TileYear

_GROUND_STREAM, _SENSOR_STREAM = 14, 15  # keep these random streams apart from the others
_GREEN, _RED, _NIR, _SWIR = 1, 2, 6, 8  # bands
WATER_CODE = 111
SHADOW, VEGETATION, BARE, WATER, MEDIUM, HIGH, CIRRUS, SNOW = 3, 4, 5, 6, 8, 9, 10, 11  # of the scene classification
_POINT_SPREAD = np.array((0.25, 0.5, 0.25), np.float32)  # in rows and in columns; assumed


class Window(NamedTuple):
    """Part of the image grid; rows and columns may lie outside the scene."""

    row: int
    column: int
    height: int
    width: int

    def grown(self, margin: int) -> Window:
        """The window with `margin` pixels more on each side."""
        return Window(self.row - margin, self.column - margin, self.height + 2 * margin, self.width + 2 * margin)


class Ground(NamedTuple):
    """The polygons of a window, numbered from 0."""

    number: np.ndarray  # (rows, columns) of the polygon
    fields: Fields | None  # (F,) what grows on each; None if not wanted
    code: np.ndarray  # (F,)
    claimed: np.ndarray  # (F,)
    certainty: np.ndarray  # (F,)


def windows(plan: ScenePlan, side: int) -> list[Window]:
    """Windows of `side` pixels that cover the scene, row by row; the last of a row or column is smaller."""
    starts = range(0, plan.size, side)
    return [Window(r, c, min(side, plan.size - r), min(side, plan.size - c)) for r in starts for c in starts]


def centres(plan: ScenePlan, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """x of the columns and y of the rows, at the middle of the pixels."""
    at = frame(SITES[plan.site])
    xs = at.left + PIXEL * (window.column + np.arange(window.width) + 0.5)
    ys = at.top - PIXEL * (window.row + np.arange(window.height) + 0.5)
    return xs, ys


def transform_of(plan: ScenePlan, window: Window):
    """The affine.Affine of a window."""
    at = frame(SITES[plan.site])
    affine = need("affine", "a scene").Affine
    return affine(PIXEL, 0, at.left + PIXEL * window.column, 0, -PIXEL, at.top - PIXEL * window.row)


def ground_of(plan: ScenePlan, window: Window, with_fields: bool = True) -> Ground:
    """The polygons that the pixel centres of a window lie in."""
    features = need("rasterio.features", "a scene")
    transform = transform_of(plan, window)
    left, top = transform.c, transform.f
    bounds = (left, top - PIXEL * window.height, left + PIXEL * window.width, top)
    places = sections_in(plan, bounds)
    sections = [section(plan, *place) for place in places]
    polygons = [polygon for part in sections for polygon in part.polygons]
    last = np.cumsum([len(part.polygons) for part in sections]) - 1
    # a centre may lie in none, by rounding of the corners: such a pixel is of the last polygon of its section
    shapes = [(part.outline, number) for part, number in zip(sections, last.tolist(), strict=True)]
    shapes += [(polygon, number) for number, polygon in enumerate(polygons)]
    number = features.rasterize(shapes, (window.height, window.width), transform=transform, fill=-1, dtype="int32")
    fields = None
    if with_fields:
        parts = [vars(grown(plan, *place)) for place in places]
        fields = Fields(**{name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
    names = ("code", "claimed", "certainty")
    return Ground(number, fields, *(np.concatenate([getattr(part, name) for part in sections]) for name in names))


def passes_of(tile: TileYear, numbers: list[int]) -> TileYear:
    """The weather of some passes."""
    whole = vars(tile)
    return TileYear(**{k: v[numbers] if isinstance(v, np.ndarray) else v for k, v in whole.items()})


def render(plan: ScenePlan, window: Window, numbers: list[int]) -> np.ndarray:
    """(D, 11, rows, columns) uint16: digital numbers of these passes and their scene classes; 0 outside the swath."""
    wide = window.grown(1)
    ground = _wide_ground(plan, wide)
    pixels = _as_pixels(plan, wide, ground)
    tile = passes_of(plan.weather, numbers)
    surface = canopy.reflectance(pixels, canopy.ground_state(pixels, tile.days), tile)
    surface = _mix(surface.reshape(10, wide.height, wide.width, -1), ground.number)
    out = np.empty((len(numbers), 11, window.height, window.width), np.uint16)
    water = (ground.code == WATER_CODE)[ground.number[1:-1, 1:-1]]
    xs, ys = centres(plan, window)
    for place, number in enumerate(numbers):
        key = (plan.seed, _SENSOR_STREAM, plan.site, plan.year, number, window.row, window.column)
        sky = sky_of(plan, number, xs, ys)
        seen = surface[..., place].reshape(10, *sky.opacity.shape)
        rng = np.random.default_rng(key)
        out[place, :10] = atmosphere.deliver(rng, seen, sky.light, sky.swir, sky.haze, sky.opacity, sky.depth)
        out[place, 10] = scene_classes(seen, water, sky)
        out[place, :, outside_swath(plan, number, xs, ys)] = 0
    return out


def scene_classes(surface: np.ndarray, water: np.ndarray, sky: Sky) -> np.ndarray:
    """(rows, columns) classes as Sen2Cor numbers them, from what is known of ground and sky: without its errors.

    surface (10, rows, columns) reflectance of the ground; water (rows, columns) bool. Snow is where the normalised
    difference of green and B11 is above 0.4 and the near infrared above 0.11 (Hall et al. 1995, Remote Sens. Environ.
    54); the other limits are assumed. A cloud hides a shadow, and a shadow the ground.
    """
    green, red, nir, swir = (surface[band] for band in (_GREEN, _RED, _NIR, _SWIR))
    ground = np.where(nir - red > 0.4 * (nir + red), VEGETATION, BARE)
    ground = np.where((green - swir > 0.4 * (green + swir)) & (nir > 0.11), SNOW, ground)
    ground = np.where(water, WATER, ground)
    ground = np.where(sky.depth > 0.4, SHADOW, ground)
    cloud = np.select([sky.opacity > 0.5, sky.opacity > 0.25, sky.opacity > 0.1], [HIGH, MEDIUM, CIRRUS])
    return np.where(cloud > 0, cloud, ground).astype(np.uint16)


@lru_cache(maxsize=1)
def _wide_ground(plan: ScenePlan, window: Window) -> Ground:
    return ground_of(plan, window)


def _as_pixels(plan: ScenePlan, window: Window, ground: Ground) -> Fields:
    """Fields repeated for their pixels, with the spread within a field of `blocks`, in patches instead of at random."""
    xs, ys = centres(plan, window)

    def normal(number: int, scale: float) -> np.ndarray:
        key = (plan.seed, _GROUND_STREAM, plan.site, number)
        return noise.layered(key, xs, ys, scale, 4, gain=0.8).ravel().astype(np.float64)

    pixels = ground.fields.take(ground.number.ravel())
    vigour, late = np.exp(WITHIN["lai"] * normal(0, 160))[:, None], WITHIN["days"] * normal(1, 160)[:, None]
    pixels.lai *= vigour
    pixels.base *= np.exp(WITHIN["base"] * normal(2, 100))
    pixels.up += late
    pixels.down += late
    pixels.soil += WITHIN["soil"] * normal(3, 240)[:, None]
    pixels.leaf *= np.exp(WITHIN["leaf"] * normal(4, 80))[:, None]
    pixels.wetness *= np.exp(WITHIN["wetness"] * normal(5, 200))
    return pixels


def _mix(surface: np.ndarray, number: np.ndarray) -> np.ndarray:
    """(10, rows, columns, D) without the margin of one pixel; pixels beside another polygon see some of it."""
    inner = (slice(1, -1), slice(1, -1))
    edge = at_edge(number)[inner]
    mixed = surface[:, 1:-1, 1:-1].copy()
    rows, columns = np.nonzero(edge)
    blurred = np.zeros((surface.shape[0], len(rows), surface.shape[3]), np.float32)
    for down, weight in enumerate(_POINT_SPREAD):
        for across, other in enumerate(_POINT_SPREAD):
            blurred += weight * other * surface[:, rows + down, columns + across]
    mixed[:, rows, columns] = blurred
    return mixed


def at_edge(number: np.ndarray) -> np.ndarray:
    """(rows, columns) bool: where one of the eight neighbours has another number; beyond the border is the same."""
    padded = np.pad(number, 1, mode="edge")
    height, width = number.shape
    shifts = [(r, c) for r in range(3) for c in range(3) if (r, c) != (1, 1)]
    return np.any([padded[r : r + height, c : c + width] != number for r, c in shifts], axis=0)
