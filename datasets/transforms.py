"""From ragged series to model input, a whole batch at a time (Xu et al. 2024, the data and method sections).

Every function is pure, works on any device, draws from the generator it is given (or takes numbers that were drawn
before, see datasets/draws.py), and has no Python loop over series or observations. Values are surface
reflectance until ``model_input`` standardises them: linear interpolation, rolling and subsampling commute with
standardising, and noise is scaled by the standard deviations.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from datasets.bands import (
    BLUE,
    CLOUD_BRIGHTNESS,
    DARK_BRIGHTNESS,
    DN_SCALE,
    GREEN,
    MAX_DOY,
    MEAN,
    NIR,
    RED,
    STD,
    SWIR1,
    SWIR2,
)
from datasets.draws import Source, normal, uniform

SHIFT_PROBABILITY, SHIFT_SCALE, SHIFT_STEPS = 0.5, 0.3, 6  # at most 6 observations, 30 days at 5 days each
LENGTH_METHODS = ("pad", "rc", "interp")


class Series(NamedTuple):
    """A padded batch of ragged series.

    values (B, L, 10) float reflectance; doy (B, L) int64; length (B,) int64, the number of real observations, which
    come first. What stands behind them is 0. labels (B,) int64 are class ids, in batches for pretexts that learn from
    them.
    """

    values: Tensor
    doy: Tensor
    length: Tensor
    labels: Tensor | None = None


class ModelInput(NamedTuple):
    """What every model takes.

    x (B, S, 10) float32, standardised reflectance, 0 at padding; mask (B, S) bool, True at padding, or None where
    nothing is padded; doy (B, S) int64, 0 at padding; weight (B, S) float32, rows sum to 1, 0 at padding.
    """

    x: Tensor
    mask: Tensor | None
    doy: Tensor
    weight: Tensor


def real_observations(series: Series) -> Tensor:
    """Where observations are real and not padding, (B, L) bool."""
    return torch.arange(series.doy.shape[1], device=series.doy.device) < series.length[:, None]


def reflectance(dn: Tensor) -> Tensor:
    """Digital numbers (any shape, int16) -> surface reflectance, float32."""
    return dn.float() * DN_SCALE


@torch.compiler.assume_constant_result  # or else each compiled call would copy them to the device
def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    return _copied_once(device)


@lru_cache(maxsize=8)
def _copied_once(device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(MEAN).to(device), torch.from_numpy(STD).to(device)


def standardise(values: Tensor) -> Tensor:
    """Reflectance (..., 10) -> zero mean, unit variance over the published training data."""
    mean, std = _statistics(values.device)
    return (values - mean) / std


def vegetation_weight(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Weight of each observation by its greenness: exp(NDVI), NDVI = -1 where cloudy or dark (Xu et al. 2024, STNet).

    values (B, S, 10) reflectance, mask (B, S) True at padding or None -> (B, S), rows sum to 1, 0 at padding.
    """
    nir, red = values[..., NIR], values[..., RED]
    cloud = values[..., BLUE] + values[..., GREEN] + red > CLOUD_BRIGHTNESS
    dark = nir + values[..., SWIR1] + values[..., SWIR2] < DARK_BRIGHTNESS
    ndvi = ((nir - red) / (nir + red + 1e-8)).clamp(-1, 1)
    weight = ndvi.masked_fill(cloud | dark, -1).exp()
    if mask is not None:
        weight = weight.masked_fill(mask, 0)
    return weight / weight.sum(-1, keepdim=True)


def take(series: Series, positions: Tensor, length: Tensor) -> Series:
    """The observations at ``positions`` (B, S) of each series; those from ``length`` (B,) on become padding."""
    values = series.values.gather(1, positions[..., None].expand(-1, -1, series.values.shape[-1]))
    padding = torch.arange(positions.shape[1], device=positions.device) >= length[:, None]
    doy = series.doy.gather(1, positions).masked_fill(padding, 0)
    return Series(values.masked_fill(padding[..., None], 0), doy, length)


# -- augmentation ------------------------------------------------------------------------------------------------------


def temporal_shift(series: Series, generator: Source, probability: float = SHIFT_PROBABILITY) -> Series:
    """Roll the values, not the days, along time: by trunc(clip(0.3 N(0, 1), -1, 1) * 6) observations."""
    device, (count, width) = series.doy.device, series.doy.shape
    shifted = uniform((count,), device, generator) < probability
    draw = normal((count,), device, generator).mul(SHIFT_SCALE).clamp(-1, 1)
    steps = (draw * SHIFT_STEPS).trunc().long() * shifted
    time = torch.arange(width, device=device)
    source = torch.remainder(time - steps[:, None], series.length[:, None])  # (B, L)
    source = torch.where(time < series.length[:, None], source, time)
    values = series.values.gather(1, source[..., None].expand_as(series.values))
    return Series(values, *series[1:])


def spectral_noise(series: Series, generator: Source, probability: float = 0.15, scale: float = 0.5) -> Series:
    """Darken or brighten some observations: each with ``probability``, half by -|n| and half by +|n| in each band.

    n is N(0, scale^2) in units of the band's standard deviation.
    """
    values, device = series.values, series.doy.device
    draw = uniform(series.doy.shape, device, generator)
    sign = (draw < probability / 2).float() - ((draw >= probability / 2) & (draw < probability)).float()
    noise = normal(values.shape, device, generator).abs().mul_(scale)
    noise *= _statistics(device)[1] * (sign * real_observations(series))[..., None]
    return Series(values + noise, *series[1:])


def remove(series: Series, generator: Source, probability: float = 0.15) -> Series:
    """Drop each observation with ``probability``; at least one is kept, and those kept keep their order."""
    draw = uniform(series.doy.shape, series.doy.device, generator)
    draw = draw.masked_fill(~real_observations(series), -1)
    kept = (draw >= probability) | (draw == draw.amax(1, keepdim=True))
    positions = (~kept).byte().sort(dim=1, stable=True).indices
    return take(series, positions, kept.sum(1))


# -- to length S -------------------------------------------------------------------------------------------------------


def without_replacement(length: Tensor, width: int, size: int, generator: Source) -> Tensor:
    """Sorted positions (B, size) of a random subset of each series' observations.

    ``length`` (B,), ``width`` the padded length, at least ``size``. Padding is drawn only once a series is used up.
    """
    padding = torch.arange(width, device=length.device) >= length[:, None]
    draw = uniform((len(length), width), length.device, generator) + padding
    chosen = draw.topk(size, dim=1, largest=False, sorted=False).indices
    return chosen.sort(dim=1).values


def with_replacement(length: Tensor, size: int, generator: Source) -> Tensor:
    """Sorted positions (B, size), each drawn from all observations of its series."""
    draw = uniform((len(length), size), length.device, generator)
    return (draw * length[:, None]).long().minimum(length[:, None] - 1).sort(dim=1).values


def random_choice(series: Series, size: int, generator: Source) -> Series:
    """``size`` observations of each series at random, in order; with replacement where there are fewer (``--rc``)."""
    width = series.doy.shape[1]
    positions = with_replacement(series.length, size, generator)
    if width >= size:
        subset = without_replacement(series.length, width, size, generator)
        positions = torch.where(series.length[:, None] >= size, subset, positions)
    return take(series, positions, torch.full_like(series.length, size))


def pad(series: Series, size: int, generator: Source) -> Series:
    """Copy a series of up to ``size`` observations and pad it; of a longer one take a sorted random subset."""
    width = series.doy.shape[1]
    if width <= size:
        missing = size - width
        values = torch.nn.functional.pad(series.values, (0, 0, 0, missing))
        return Series(values, torch.nn.functional.pad(series.doy, (0, missing)), series.length)
    subset = without_replacement(series.length, width, size, generator)
    positions = torch.where(series.length[:, None] > size, subset, torch.arange(size, device=subset.device))
    return take(series, positions, series.length.clamp(max=size))


def evenly_spaced(series: Series, size: int, *, repeat: bool) -> Series:
    """``size`` observations of each series, evenly spaced in their order; without randomness, as prediction needs.

    Of T observations, number (2i + 1) T // (2 size) for i = 0 … size - 1. With ``repeat`` a shorter series has
    observations more than once, otherwise it is copied and padded.
    """
    grid, length = torch.arange(size, device=series.doy.device), series.length[:, None]
    positions = (2 * grid + 1) * length // (2 * size)  # (B, size)
    if repeat:
        return take(series, positions, torch.full_like(series.length, size))
    copied = grid.clamp(max=series.doy.shape[1] - 1)
    return take(series, torch.where(length > size, positions, copied), series.length.clamp(max=size))


def interpolate(series: Series, size: int) -> Series:
    """Linear interpolation of every band to the days int(linspace(0, 366, size)), constant outside the series.

    Days are counted from the start of the year, or in a series across New Year from its first observation; the doy
    of what comes out is the calendar's in either case.
    """
    device, count = series.doy.device, len(series.length)
    days = torch.from_numpy(np.linspace(0, MAX_DOY, size).astype(np.int64)).to(device).expand(count, size).contiguous()
    elapsed, start = days_of_season(series)
    known = elapsed.masked_fill(~real_observations(series), MAX_DOY + 1)
    last = series.length[:, None] - 1
    after = torch.searchsorted(known, days, right=True)
    left, right = (after - 1).clamp(min=0).minimum(last), after.minimum(last)  # (B, S)
    before, behind = elapsed.gather(1, left), elapsed.gather(1, right)
    weight = ((days - before).float() / (behind - before).clamp(min=1)).clamp(0, 1)[..., None]
    bands = (-1, -1, series.values.shape[-1])
    low = series.values.gather(1, left[..., None].expand(bands))
    high = series.values.gather(1, right[..., None].expand(bands))
    doy = torch.where(start > 0, (start + days - 1) % MAX_DOY + 1, days)
    return Series(low + weight * (high - low), doy, torch.full_like(series.length, size))


def days_of_season(series: Series) -> tuple[Tensor, Tensor]:
    """Days since the season's start (B, L), and the day of year that they are counted from (B, 1).

    A series across New Year is known by days of year below its first; its days count from the first observation,
    and a year has 366 (one too many, where it is no leap year). All others count from day 0 of the year. Padding
    has no meaning here.
    """
    after_new_year = real_observations(series) & (series.doy < series.doy[:, :1])
    start = series.doy[:, :1] * after_new_year.any(dim=1, keepdim=True)
    return series.doy + MAX_DOY * after_new_year - start, start


def to_length(series: Series, size: int, method: str, generator: Source) -> Series:
    """Every series to ``size`` observations, by one of LENGTH_METHODS."""
    if method == "pad":
        return pad(series, size, generator)
    if method == "rc":
        return random_choice(series, size, generator)
    if method == "interp":
        return interpolate(series, size)
    raise ValueError(f"unknown way to length {method!r}; expected one of {', '.join(LENGTH_METHODS)}")


def model_input(series: Series, size: int, method: str, generator: Source) -> ModelInput:
    """Series of any length -> model input of length ``size``, by one of LENGTH_METHODS."""
    fitted = to_length(series, size, method, generator)
    if method != "pad":  # nothing is padded: no mask, so that attention kernels which take none can be used
        return ModelInput(standardise(fitted.values), None, fitted.doy, vegetation_weight(fitted.values))
    mask = ~real_observations(fitted)
    x = standardise(fitted.values).masked_fill(mask[..., None], 0)
    return ModelInput(x, mask, fitted.doy, vegetation_weight(fitted.values, mask))
