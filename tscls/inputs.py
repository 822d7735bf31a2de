"""From a set of series to a classifier's input, and to its predictions: what training and testing share."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from datasets.batches import open_series, split_batches
from datasets.store import SeriesSet
from datasets.transforms import ModelInput, Series, model_input
from utils.precision import Precision
from utils.runtime.distributed import World
from utils.runtime.seeding import make_generator

EVAL_BATCH = 512  # series predicted together


def length_method(args: Namespace, model) -> str:
    """How series reach length S for this model: --interp is for those that read the place of a value as its day."""
    if args.interp and model.interpolates:
        return "interp"
    return "rc" if args.rc else "pad"


class Inputs:
    """Model input and labels of a series set, batch by batch."""

    def __init__(self, args: Namespace, method: str, series: SeriesSet, world: World):
        self.args, self.method, self.world, self.labels = args, method, world, series.labels
        self.reader = open_series(series, world.device)

    def __len__(self) -> int:
        return len(self.labels)

    def eval_batches(self) -> list[np.ndarray]:
        """Positions of the whole set, in its order; every rank has a share of each batch."""
        return split_batches(np.arange(len(self)), EVAL_BATCH, smallest=self.world.size)

    def stream(self, batches: list[np.ndarray]) -> Iterator[tuple[Series, Tensor]]:
        """Series and labels of each batch, this rank's share of it."""
        shares = [self.world.shard(batch) for batch in batches]
        for share, series in zip(shares, self.reader.stream(shares, self.args.workers), strict=True):
            yield series, torch.from_numpy(self.labels[share]).to(self.world.device)

    def model_input(self, series: Series, generator: torch.Generator) -> ModelInput:
        return model_input(series, self.args.sequencelength, self.method, generator)


@torch.no_grad()
def predict(model: nn.Module, inputs: Inputs, seed: int, precision: Precision, draws: int = 1) -> Tensor:
    """Log-probabilities (N, classes) on the CPU, averaged over ``draws`` random choices, which the seed fixes."""
    model.eval()
    world = inputs.world
    generator = make_generator(seed, "evaluation", world.rank, device=world.device)
    draws = draws if inputs.method == "rc" else 1
    batches = inputs.eval_batches()
    parts = []
    for series, _ in inputs.stream(batches):
        with precision.autocast():
            logits = [model(inputs.model_input(series, generator)) for _ in range(draws)]
        log_probability = torch.stack(logits).float().log_softmax(-1)  # (draws, B, classes)
        parts.append(log_probability.logsumexp(0) - math.log(draws))
    order = np.concatenate([world.shard(batch, rank) for rank in range(world.size) for batch in batches])
    return world.all_gather(torch.cat(parts).cpu())[np.argsort(order)]
