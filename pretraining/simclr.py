"""SimCLR on series: the pretext ``SimCLR``, which tells the two views of a series from the views of all others.

T. Chen, S. Kornblith, M. Norouzi and G. Hinton, "A simple framework for contrastive learning of visual
representations", ICML 2020. The views are those of SITS-MoCo; the negatives are the batch's own, of all ranks.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moco.builder import held_out_contrast
from pretraining.joint import Output, UnitEmbedding
from utils import options

NAME = "simclr"


class SimCLR(UnitEmbedding):
    """An encoder with an MLP head, trained by the NT-Xent loss (Chen et al. 2020, section 2.1).

    Its figure is top1, the fraction of views whose most similar view is the other one of the same series.

    Encoder, views, ``dim`` and ``T`` are those of ``UnitEmbedding``.
    """

    name, run_name = NAME, "SimCLR"

    def compare(self, first: Tensor, second: Tensor) -> Output:
        loss, top1 = nt_xent(first, second, self.T)
        return Output(loss, {"top1": top1})

    def compare_held_out(self, first: Tensor, second: Tensor) -> Output:
        """Of finding the second view of each series among those of the others; comparable between epochs and data."""
        loss, top1 = held_out_contrast(first, second, self.T)
        return Output(loss, {"top1": top1})


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
