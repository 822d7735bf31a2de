"""SimCLR on series: the pretext ``SimCLR``, which tells the two views of a series from the views of all others.

T. Chen, S. Kornblith, M. Norouzi and G. Hinton, "A simple framework for contrastive learning of visual
representations", ICML 2020. The views are those of SITS-MoCo; the negatives are the batch's own, of all ranks.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from datasets.transforms import ModelInput, Series
from moco.builder import held_out_contrast, projection_head, unit
from utils import options
from utils.precision import Precision
from utils.runtime.distributed import World, gather_with_gradient

NAME = "simclr"


class Output(NamedTuple):
    """loss (); top1 (), the fraction of views whose most similar view is the other one of the same series."""

    loss: Tensor
    top1: Tensor

    @property
    def figures(self) -> dict[str, Tensor]:
        return {"top1": self.top1}


class SimCLR(nn.Module):
    """An encoder with an MLP head, trained by the NT-Xent loss (Chen et al. 2020, section 2.1).

    Args:
        encoder: a network with ``num_features`` and a ``decoder``, which is replaced by the projection head.
        augment: makes two views, each the model input of the whole batch, of (series, generator).
        dim: width of the projections. T: temperature.
    """

    name, run_name = NAME, "SimCLR"

    def __init__(self, encoder: nn.Module, augment: Callable, *, dim: int = 128, T: float = 0.1):
        super().__init__()
        self.augment, self.dim, self.T = augment, dim, T
        encoder.decoder = projection_head(encoder.num_features, dim, mlp=True)
        self.encoder_q = encoder

    def identity(self) -> dict:
        """The settings of the pretext, by which a checkpoint is recognised."""
        return {"dim": self.dim, "T": self.T}

    def views(self, series: Series, generator: Generator) -> tuple[ModelInput, ModelInput]:
        """Two random views of each series."""
        return self.augment(series, generator)

    def before_step(self) -> None:
        """Nothing comes before a step."""

    def forward(self, first: tuple, second: tuple) -> Output:
        """The loss of two views of a batch, among the views of all ranks."""
        projections = (gather_with_gradient(self.project(view)) for view in (first, second))
        return Output(*nt_xent(*projections, self.T))

    def project(self, view: tuple) -> Tensor:
        """Projections (B, dim) of a view, of length 1."""
        return unit(self.encoder_q(view))

    def after_step(self, output: Output) -> None:
        """Nothing comes after a step."""

    @torch.no_grad()
    def evaluate(self, views: Iterable[tuple], precision: Precision, world: World) -> dict[str, float]:
        """Loss and top1 of finding the second view of each held-out series among those of the others."""
        first, second = [], []
        for pair in views:
            with precision.autocast():
                for found, view in zip((first, second), pair, strict=True):
                    found.append(self.project(view))
        first, second = (world.all_gather(torch.cat(part)) for part in (first, second))
        return dict(zip(("loss", "top1"), held_out_contrast(first, second, self.T), strict=True))


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The normalised temperature-scaled cross-entropy of pairs (N, dim) of unit vectors, and top-1, each ().

    Each of the 2 N vectors has to find its partner among the 2 N - 1 others.
    """
    both = torch.cat((first, second))
    with torch.autocast(both.device.type, enabled=False):
        logits = both @ both.T / temperature
    logits = logits.masked_fill(torch.eye(len(both), dtype=torch.bool, device=both.device), float("-inf"))
    partner = torch.arange(len(both), device=both.device).roll(len(first))
    return F.cross_entropy(logits, partner), (logits.detach().argmax(1) == partner).float().mean()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--simclr-dim", type=options.at_least(1), default=128, help="width of the projections of simclr")
    add("--simclr-t", type=options.positive, default=0.1, help="temperature of simclr")


def build(encoder: nn.Module, augment: Callable, settings: dict) -> SimCLR:
    """SimCLR of the options ``simclr_dim`` and ``simclr_t``."""
    return SimCLR(encoder, augment, dim=settings["simclr_dim"], T=settings["simclr_t"])
