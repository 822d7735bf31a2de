"""The sky over a scene on one pass: clouds that hang together, the shadows they cast, haze, and the swath's edge.

The chances are those of `atmosphere`; uniform numbers from coherent random fields take the place of its draws a field.
Opaque clouds, which the mask behind the series of US-sim takes out, are left in, as in Level-2A images.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from datasets.simulation import atmosphere, noise
from datasets.simulation.landscape import ScenePlan, frame
from datasets.simulation.sites import SITES

_SKY_STREAM = 13  # keeps these random streams apart from the others
_COVER, _THIN, _TEXTURE, _LIGHT, _SWIR, _HAZE = range(6)  # random fields of a pass
PIXEL = 10.0  # m


class Sky(NamedTuple):
    """What lies between the ground and the satellite; all (rows, columns), float32."""

    opacity: np.ndarray  # of clouds, 0-1
    depth: np.ndarray  # of their shadows, 0-1
    light: np.ndarray  # factor on all bands
    swir: np.ndarray  # factor on the short-wave infrared
    haze: np.ndarray  # reflectance at 490 nm


def sky_of(plan: ScenePlan, number: int, xs: np.ndarray, ys: np.ndarray) -> Sky:
    """The sky of pass `number` of the plan's year over the grid `ys` x `xs` (metres of the scene's CRS)."""
    tile = plan.weather
    opacity = cloud_opacity(plan, number, xs, ys)
    east, north = shadow_offset(plan, number)
    depth = np.sqrt(cloud_opacity(plan, number, xs - east, ys - north))  # faint clouds cast visible shadows; assumed

    def error(field: int, spread: float) -> np.ndarray:
        return np.float32(spread) * noise.layered(_key(plan, number, field), xs, ys, 90.0, 3, gain=0.8)

    return Sky(
        opacity, depth,
        np.exp(np.float32(tile.bright[number]) + error(_LIGHT, atmosphere.LIGHT_ERROR)),
        np.exp(np.float32(tile.swir[number]) + error(_SWIR, atmosphere.SWIR_ERROR)),
        np.float32(tile.haze[number]) + error(_HAZE, atmosphere.HAZE_ERROR),
    )  # fmt: skip


def cloud_height(plan: ScenePlan, number: int, xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    """(rows, columns) standard normal numbers; the lowest, as many as the cover of the pass says, are opaque cloud."""
    size = np.exp(_rng(plan, number).normal(np.log(1_500.0), 0.5))  # m, of the largest clouds; assumed
    return noise.layered(_key(plan, number, _COVER), xs, ys, size, 6)


def cloud_limit(plan: ScenePlan, number: int) -> float:
    """The height below which cloud is opaque."""
    return NormalDist().inv_cdf(float(plan.weather.cover[number]))


def cloud_opacity(plan: ScenePlan, number: int, xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    """(rows, columns) opacity of opaque and thin clouds, which grow denser from their edges inwards."""
    height, cover = cloud_height(plan, number, xs, ys), np.float32(plan.weather.cover[number])
    chance = atmosphere.thin_cloud_chance(atmosphere.nearness_to_cloud(noise.uniform(height), cover))
    drawn = noise.uniform(noise.layered(_key(plan, number, _THIN), xs, ys, 2_200.0, 5))
    texture = np.exp(np.float32(0.25) * noise.layered(_key(plan, number, _TEXTURE), xs, ys, 160.0, 4, gain=0.75))
    inward = np.maximum(1 - drawn / chance, 0)  # uniform within thin clouds
    thin = np.where(inward > 0, atmosphere.thin_cloud_opacity(inward) * texture, 0)
    inside = np.maximum(np.float32(cloud_limit(plan, number)) - height, 0)
    opaque = (1 - np.exp(-inside / 0.2)) * np.minimum(texture**0.5, 1)
    return np.minimum(np.maximum(thin, opaque), 1)


def shadow_offset(plan: ScenePlan, number: int) -> tuple[float, float]:
    """Metres east and north from a cloud to its shadow."""
    east, north, up = sun_direction(SITES[plan.site].latitude, float(plan.weather.days[number]))
    base = _rng(plan, number, 1).uniform(500, 1_800)  # m above the ground, of fair-weather cumulus; assumed
    return -base * east / up, -base * north / up


def sun_direction(latitude: float, day: float) -> tuple[float, float, float]:
    """East, north and up components of the unit vector to the sun at about 10:45 local solar time."""
    declination = np.deg2rad(-23.44) * np.cos(2 * np.pi * (day + 10) / 365.25)
    hour, phi = np.deg2rad(-19.0), np.deg2rad(latitude)
    east = -np.cos(declination) * np.sin(hour)
    north = np.sin(declination) * np.cos(phi) - np.cos(declination) * np.sin(phi) * np.cos(hour)
    up = np.sin(declination) * np.sin(phi) + np.cos(declination) * np.cos(phi) * np.cos(hour)
    return float(east), float(north), float(up)


def outside_swath(plan: ScenePlan, number: int, xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    """(rows, columns) bool: what pass `number` does not see. The first orbit sees all of a scene.

    The second orbit's swath ends within the scene, along a line that leans by 13 degrees (the ground track of an orbit
    inclined by 98.6 degrees at mid latitudes), and moves a little from pass to pass.
    """
    if not plan.weather.orbit[number]:
        return np.zeros((len(ys), len(xs)), dtype=bool)
    at, side = frame(SITES[plan.site]), plan.size * PIXEL
    middle = at.left + side * np.random.default_rng([plan.seed, _SKY_STREAM, plan.site]).uniform(0.55, 0.85)
    middle += np.clip(0.02 * side, 0, 150) * np.clip(_rng(plan, number, 2).normal(), -2, 2)
    edge = middle + (ys - (at.top - side / 2)) * np.tan(np.deg2rad(13.0))
    return xs[None, :] > edge[:, None]


def _key(plan: ScenePlan, number: int, *rest: int) -> tuple[int, ...]:
    return (plan.seed, _SKY_STREAM, plan.site, plan.year, number, *rest)


def _rng(plan: ScenePlan, number: int, *rest: int) -> np.random.Generator:
    return np.random.default_rng([*_key(plan, number), 99, *rest])
