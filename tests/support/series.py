"""Padded batches of series for tests."""

from __future__ import annotations

import torch

from datasets.transforms import Series, real_observations


def same_tensors(first: tuple, second: tuple) -> bool:
    """Whether two batches hold equal tensors, and None at the same places."""
    pairs = zip(first, second, strict=True)
    return all(a is None and b is None or a is not None and b is not None and torch.equal(a, b) for a, b in pairs)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_batch(lengths: list[int], width: int | None = None, seed: int = 0) -> Series:
    """Series whose days of year are all different, so that an observation can be told by its day."""
    width, length = width or max(lengths), torch.tensor(lengths)
    generator = seeded(seed)
    padding = torch.arange(width) >= length[:, None]
    days = torch.rand(len(lengths), 366, generator=generator).argsort(1)[:, :width] + 1
    doy = days.masked_fill(padding, 1000).sort(1).values.masked_fill(padding, 0)
    values = torch.rand(len(lengths), width, 10, generator=generator).masked_fill(padding[..., None], 0)
    return Series(values, doy, length)


def numbered(count: int, length: int) -> Series:
    """Series whose only band is the number of the observation, and whose doy is that number plus one."""
    time = torch.arange(length).expand(count, length)
    return Series(time[..., None].float(), time + 1, torch.full((count,), length))


def observations(series: Series, i: int) -> list[tuple[int, tuple]]:
    """(doy, values) of the real observations of series i."""
    length = series.length[i]
    return [(int(d), tuple(v.tolist())) for d, v in zip(series.doy[i, :length], series.values[i, :length], strict=True)]


def padding_is_empty(series: Series) -> bool:
    padding = ~real_observations(series)
    return not series.values[padding].any() and not series.doy[padding].any()
