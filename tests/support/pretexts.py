"""What tests of pretexts share."""

from __future__ import annotations

import torch

from datasets.transforms import ModelInput, Series
from utils.precision import Precision
from utils.runtime.distributed import World

WORLD, OFF = World(), Precision("off", torch.device("cpu"))


def input_of(count: int, seed: int, size: int = 12) -> ModelInput:
    """Random model input of a batch."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, size, 10, generator=generator)
    doy = torch.randint(1, 367, (count, size), generator=generator).sort(1).values
    return ModelInput(x, None, doy, torch.full((count, size), 1 / size))


def random_series(lengths: list[int], seed: int = 0) -> Series:
    """A batch of series of random reflectance and increasing days, padded with zeros."""
    generator = torch.Generator().manual_seed(seed)
    length = torch.tensor(lengths)
    width = int(length.max())
    real = torch.arange(width) < length[:, None]
    values = torch.rand(len(lengths), width, 10, generator=generator) * real[..., None]
    doy = (1 + torch.arange(width) * 5).expand(len(lengths), width) * real
    return Series(values, doy, length)
