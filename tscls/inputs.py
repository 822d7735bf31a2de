"""From a set of series to the input of a classifier."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from datasets.batches import open_series
from datasets.store import SeriesSet
from datasets.transforms import ModelInput, Series, evenly_spaced, model_input
from utils.runtime.distributed import World


class Way(NamedTuple):
    """How series become the input of a model.

    Attributes:
        sequencelength: the observations S that the model is trained on.
        method: how a series reaches that length, one of ``datasets.transforms.LENGTH_METHODS``.
        takes_any_length: the model skips padding and reads days, so that it can be given all observations.
    """

    sequencelength: int
    method: str
    takes_any_length: bool

    def drawn(self, series: Series, generator: torch.Generator | None) -> ModelInput:
        """As in training: S observations, drawn at random where ``method`` draws."""
        return model_input(series, self.sequencelength, self.method, generator)

    def whole(self, series: Series) -> ModelInput:
        """Without randomness: all observations, padded to the longest series of the batch.

        A model that takes one length alone gets S evenly spaced observations of a longer series; of a shorter one, S
        with repeats (``rc``) or padding (``pad``).
        """
        if self.method == "interp":
            return self.drawn(series, None)
        if not self.takes_any_length:
            series = evenly_spaced(series, self.sequencelength, repeat=self.method == "rc")
        return model_input(series, series.doy.shape[1], "pad", None)  # which draws nothing, being of that length


def length_method(
    interpolates: bool, *, rc: bool = False, pad: bool = False, interp: bool = False, pretrained: str | None = None
) -> str:
    """How series reach length S, by the flags; without --rc and --pad as the ``pretrained`` checkpoint has it.

    ``interpolates``: the model reads the place of a value as its day, and can be given interpolated series.
    """
    if interp and interpolates:
        return "interp"
    if rc or pad:
        return "rc" if rc else "pad"
    if pretrained == "interp" and not interpolates:
        return "pad"
    return pretrained or "pad"


class LabelledSeries:
    """The series of a set with their labels, batch by batch; each rank gets its shard of a batch."""

    def __init__(self, series: SeriesSet, world: World, workers: int = 0):
        self.reader, self.labels = open_series(series, world.device), series.labels
        self.world, self.workers = world, workers

    def __len__(self) -> int:
        return len(self.labels)

    def stream(self, batches: list[np.ndarray]) -> Iterator[tuple[Series, Tensor]]:
        """Series and labels (B,) of each batch of positions, on the device."""
        shards = [self.world.shard(batch) for batch in batches]
        for shard, series in zip(shards, self.reader.stream(shards, self.workers), strict=True):
            yield series, torch.from_numpy(self.labels[shard]).to(self.world.device)
