"""The series of a pre-training run: which are held out, and in what batches the others come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Generator

from datasets.batches import open_series, split_batches
from datasets.catalog import Selection, open_labelled, open_unlabelled
from datasets.numbers import series_at
from datasets.store import SeriesSet, join
from datasets.transforms import Series
from utils.errors import UsageError
from utils.runtime.distributed import World
from utils.runtime.seeding import RandomStreams, make_generator

HELD_OUT = 0.1  # fraction of the series that is never trained on


class PretrainingData:
    """Batches of this rank's shards, on the device.

    Args:
        series: all series of the run; a tenth, drawn by the seed, is held out.
        batch_size: series in a batch, of all ranks together.
        streams: gives the order of an epoch.
        workers: threads that read ahead.
        has_labels: whether batches come with the labels of their series.
    """

    def __init__(
        self,
        series: SeriesSet,
        batch_size: int,
        streams: RandomStreams,
        world: World,
        workers: int = 0,
        *,
        has_labels: bool = False,
    ):
        self.batch_size, self.streams, self.world, self.workers = batch_size, streams, world, workers
        self.series = series
        self.labels = torch.from_numpy(series.labels) if has_labels else None
        self.train_positions, self.held_out_positions = hold_out(series, streams.seed, world.size)
        self.reader = open_series(series, world.device, fixed_width=True)
        self.steps_per_epoch = len(split_batches(self.train_positions, batch_size, drop_last=True))

    def train(self, epoch: int, first_step: int = 0) -> Iterator[Series]:
        """The shuffled training batches of an epoch, from one of its steps on."""
        return self._shards(self.train_batches(epoch)[first_step:])

    def train_batches(self, epoch: int) -> list[np.ndarray]:
        """Positions of the training batches of an epoch, of all ranks; an incomplete last batch is left out."""
        order = self.train_positions[self.streams.order(epoch, len(self.train_positions))]
        order = order[: len(order) - len(order) % self.world.size]  # equal shards, also of an incomplete only batch
        return split_batches(order, self.batch_size, drop_last=True)

    def series_of(self, epoch: int, step: int) -> list[dict]:
        """Where the series of this rank in a step come from (``datasets.numbers``); steps are counted from 0."""
        return series_at([self.series], self.world.shard(self.train_batches(epoch)[step]))

    def held_out(self) -> Iterator[Series]:
        """The held-out series, in their order."""
        return self._shards(split_batches(self.held_out_positions, self.batch_size, smallest=self.world.size))

    def example(self) -> Series:
        """A batch as training sees it, to compile for."""
        return next(self._shards(self.train_batches(0)[:1]))

    def _shards(self, batches: list[np.ndarray]) -> Iterator[Series]:
        shards = [self.world.shard(batch) for batch in batches]
        for shard, series in zip(shards, self.reader.stream(shards, self.workers), strict=True):
            labels = None if self.labels is None else self.labels[shard].to(self.world.device, non_blocking=True)
            yield series._replace(labels=labels)


class HeldOutViews:
    """Views of the held-out series of a rank, the same in every pass over them.

    Args:
        views: a pretext's ``views`` of (series, generator).
    """

    def __init__(self, views: Callable[[Series, Generator], tuple], data: PretrainingData):
        self.views, self.data = views, data

    def __iter__(self) -> Iterator[tuple]:
        world = self.data.world
        generator = make_generator(self.data.streams.seed, "held-out", world.rank, device=world.device)
        return (self.views(series, generator) for series in self.data.held_out())


def open_pool(datapath: str | Path, year: int, selection: Selection, *, has_labels: bool) -> SeriesSet:
    """The series of a run: the unlabelled ones of a year, or those of train and valid with their labels.

    Raises:
        DataError: there are none, or fewer than selected.
    """
    if not has_labels:
        num = None if selection.use_all else selection.num
        return open_unlabelled(datapath, year, num=num, seed=selection.seed, skip_bad=selection.skip_bad)
    splits = open_labelled(datapath, year, selection)
    return join((splits.train, splits.valid))


def hold_out(series: SeriesSet, seed: int, ranks: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Positions, sorted, of the series to train on and of those held out, drawn by the seed.

    Raises:
        UsageError: too few series for both.
    """
    order = torch.randperm(len(series), generator=make_generator(seed, "held-out split")).numpy()
    count = max(int(HELD_OUT * len(order)), ranks)
    if len(order) - count < max(2, ranks):
        raise UsageError(f"{series.store.path}: {len(order)} series are too few to pre-train on; expected at least 3")
    return np.sort(order[count:]), np.sort(order[:count])
