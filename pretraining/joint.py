"""What pretexts that compare two views of the same batch have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from datasets.transforms import ModelInput, Series
from moco.builder import projection_head, unit
from utils.precision import Precision
from utils.runtime.distributed import World, gather, gather_with_gradient


class Output(NamedTuple):
    """The loss () of a batch, and further numbers () for the log by name."""

    loss: Tensor
    figures: dict[str, Tensor]


class JointEmbedding(nn.Module):
    """Projects two random views of each series and compares them over the batches of all ranks.

    A pretext's ``compare(first, second, *known)`` makes an Output of the projections (N, dim) of two views, and of what
    its ``views`` gives beside these, (N, ...).

    Args:
        encoder: a network with a ``decoder``, which is replaced by ``head``.
        augment: makes two views, each the model input of the whole batch, of (series, generator).
    """

    def __init__(self, encoder: nn.Module, augment: Callable, head: nn.Module):
        super().__init__()
        self.augment = augment
        encoder.decoder = head
        self.encoder_q = encoder

    def project(self, view: tuple) -> Tensor:
        """Projections (B, dim) of a view, in float32."""
        return self.encoder_q(view).float()

    def compare_held_out(self, first: Tensor, second: Tensor, *known: Tensor) -> Output:
        """What ``compare`` says of all held-out series."""
        return self.compare(first, second, *known)

    def views(self, series: Series, generator: Generator) -> tuple[ModelInput, ModelInput]:
        """Two random views of each series."""
        return self.augment(series, generator)

    def before_step(self) -> None:
        """Nothing comes before a step."""

    def forward(self, first: tuple, second: tuple, *known: Tensor) -> Output:
        """Compare two views of a batch."""
        projections = [gather_with_gradient(self.project(view)) for view in (first, second)]
        return self.compare(*projections, *map(gather, known))

    def after_step(self, output: Output) -> None:
        """Nothing comes after a step."""

    @torch.no_grad()
    def evaluate(self, views: Iterable[tuple], precision: Precision, world: World) -> dict[str, float]:
        """Loss and figures of two views of all held-out series; changes nothing."""
        batches = []
        for first, second, *known in views:
            with precision.autocast():
                batches.append([self.project(first), self.project(second), *known])
        found = self.compare_held_out(*(world.all_gather(torch.cat(part)) for part in zip(*batches, strict=True)))
        return {"loss": float(found.loss), **{name: float(value) for name, value in found.figures.items()}}


class UnitEmbedding(JointEmbedding):
    """Projects to the unit sphere by an MLP, as contrastive losses with a temperature need.

    Args:
        encoder: a network with ``num_features`` and a ``decoder``, which is replaced by the projection head.
        augment: makes two views, each the model input of the whole batch, of (series, generator).
        dim: width of the projections. T: temperature.
    """

    def __init__(self, encoder: nn.Module, augment: Callable, *, dim: int = 128, T: float = 0.1):
        super().__init__(encoder, augment, projection_head(encoder.num_features, dim, mlp=True))
        self.dim, self.T = dim, T

    def identity(self) -> dict:
        """The settings of the pretext, by which a checkpoint is recognised."""
        return {"dim": self.dim, "T": self.T}

    def project(self, view: tuple) -> Tensor:
        """Projections (B, dim) of a view, of length 1."""
        return unit(self.encoder_q(view))
