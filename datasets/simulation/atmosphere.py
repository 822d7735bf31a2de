"""From surface reflectance to what the satellite delivers: clouds, shadow, haze, view angle, sensor noise, gaps."""

from __future__ import annotations

import numpy as np

from datasets.simulation.weather import TileYear

# all of it assumed, then tuned to unlabelled series; bands:
#                       B2    B3    B4    B5    B6    B7    B8    B8A   B11   B12
CLOUD = np.array((0.900, 0.880, 0.900, 0.930, 0.910, 0.890, 0.910, 0.880, 0.620, 0.480), np.float32)
# fraction of the shadow's light that is left when full sun is 1: the blue sky fills in (assumed)
SHADOW_LIGHT = np.array((1.0, 0.9, 0.8, 0.75, 0.68, 0.66, 0.64, 0.62, 0.50, 0.47), np.float32)
WAVELENGTH = np.array((492, 560, 665, 704, 740, 783, 833, 865, 1614, 2202), np.float32)  # nm, centre of the band
HAZE = (WAVELENGTH / 492) ** -1.3  # Angstrom exponent of continental aerosol
NOISE = np.array((0.04, 0.025, 0.025, 0.012, 0.012, 0.012, 0.03, 0.012, 0.014, 0.016), np.float32)  # relative
SWIR = slice(8, 10)
# spread of what differs among pixels of a scene: brightness, short-wave infrared (both log), haze
LIGHT_ERROR, SWIR_ERROR, HAZE_ERROR = 0.05, 0.02, 0.002


def keep_observations(
    rng: np.random.Generator, tile: TileYear, field_of: np.ndarray, at_least: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which observations the per-pixel opaque cloud mask leaves, and how near a cloud each lies.

    Clouds are larger than fields: the draws of a field's pixels agree but for the cloud's edge. Returns (P, D) bool
    and (P, D) nearness, about 1 at the edge of an opaque cloud and 0 far away. `at_least` observations are kept.
    """
    fields, scenes = field_of.max() + 1, len(tile.days)
    together = rng.random((fields, scenes), dtype=np.float32)[field_of]
    height = together + 0.04 * rng.standard_normal(together.shape, dtype=np.float32)
    cover = tile.cover.astype(np.float32)
    kept = height > cover
    kept[:, np.argsort(cover, kind="stable")[:at_least]] = True
    return kept, nearness_to_cloud(height, cover)


def nearness_to_cloud(height: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """About 1 at the edge of an opaque cloud (where `height` is `cover`), 0 far away and in clear scenes."""
    return np.exp(-np.maximum(height - cover, 0) / 0.12) * (cover > 0.015)


def thin_cloud_chance(nearness: np.ndarray) -> np.ndarray:
    """Chance of thin cloud at this nearness to an opaque one."""
    return 0.07 + 0.5 * nearness


def observe(
    rng: np.random.Generator, surface: np.ndarray, nearness: np.ndarray, tile: TileYear, field_of: np.ndarray
) -> np.ndarray:
    """Surface reflectance (10, P, D) to Level-2A digital numbers (10, P, D), int16, 1 and up."""
    shape = nearness.shape
    fields = field_of.max() + 1

    def normal(spread: float) -> np.ndarray:
        return np.float32(spread) * rng.standard_normal(shape, dtype=np.float32)

    def of_field() -> np.ndarray:
        return rng.random((fields, shape[1]), dtype=np.float32)[field_of]

    light = np.exp(tile.bright.astype(np.float32) + normal(LIGHT_ERROR))
    swir = np.exp(tile.swir.astype(np.float32) + normal(SWIR_ERROR))
    haze = tile.haze.astype(np.float32) + normal(HAZE_ERROR)
    thin = of_field() < thin_cloud_chance(nearness)
    opacity = np.where(thin, thin_cloud_opacity(of_field()) * np.exp(normal(0.25)), 0).clip(0, 1)
    shaded = (of_field() < 0.10 + 0.40 * nearness) & ~thin
    depth = np.where(shaded, 0.2 + 0.8 * of_field(), 0)
    return deliver(rng, surface, light, swir, haze, opacity, depth)


def deliver(
    rng: np.random.Generator, surface: np.ndarray, light: np.ndarray, swir: np.ndarray, haze: np.ndarray,
    opacity: np.ndarray, depth: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Digital numbers (10, P, D), int16, of surface reflectance (10, P, D) under this sky; all else is (P, D).

    `light` and `swir` are factors, `haze` is reflectance at 490 nm, `opacity` that of cloud, `depth` that of shadow.
    """
    def normal(spread: float) -> np.ndarray:
        return np.float32(spread) * rng.standard_normal(opacity.shape, dtype=np.float32)

    out = np.empty(surface.shape, np.int16)
    for band in range(len(surface)):
        value = surface[band] * light
        if band >= SWIR.start:
            value *= swir
        value *= 1 - depth * (1 - SHADOW_LIGHT[band] * np.float32(0.72))
        value += opacity * (CLOUD[band] - value)
        value += haze * HAZE[band]
        value *= 1 + normal(NOISE[band])
        value += normal(0.0012)
        out[band] = np.clip(np.rint(value * 1e4), 1, 16000)
    return out


def thin_cloud_opacity(uniform: np.ndarray) -> np.ndarray:
    """Opacity of thin cloud from uniform numbers: mostly faint, rarely nearly opaque (tuned to real series)."""
    return 0.01 + 0.75 * uniform**3.5
