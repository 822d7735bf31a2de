"""Barlow Twins on series: the pretext ``BarlowTwins``; features agree between views and are not redundant.

J. Zbontar, L. Jing, I. Misra, Y. LeCun and S. Deny, "Barlow Twins: self-supervised learning via redundancy reduction",
ICML 2021. The views are those of SITS-MoCo. It needs no negatives, so small batches do.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor, nn

from models.layers import BatchNorm
from pretraining.joint import JointEmbedding, Output
from utils import options

NAME = "barlow"


class BarlowTwins(JointEmbedding):
    """An encoder with a projector, trained so that the cross-correlation of two views is the identity matrix.

    Its figure is agreement, the mean correlation of a feature between the two views (1 is the aim).

    Args:
        encoder: a network with ``num_features`` and a ``decoder``, which is replaced by the projector.
        augment: makes two views, each the model input of the whole batch, of (series, generator).
        dim: width of the projector. weight: the lambda of the paper, of the off-diagonal elements.
    """

    name, run_name = NAME, "Barlow"

    def __init__(self, encoder: nn.Module, augment: Callable, *, dim: int = 512, weight: float = 0.005):
        super().__init__(encoder, augment, projector(encoder.num_features, dim))
        self.dim, self.weight = dim, weight

    def identity(self) -> dict:
        """The settings of the pretext, by which a checkpoint is recognised."""
        return {"dim": self.dim, "weight": self.weight}

    def compare(self, first: Tensor, second: Tensor) -> Output:
        loss, agreement = redundancy(first, second, self.weight)
        return Output(loss, {"agreement": agreement})


def projector(num_features: int, dim: int) -> nn.Sequential:
    """Three linear layers, the first two with batch normalisation and ReLU (Zbontar et al. 2021, section 2.2)."""
    return nn.Sequential(
        nn.Linear(num_features, dim, bias=False), BatchNorm(dim), nn.ReLU(),
        nn.Linear(dim, dim, bias=False), BatchNorm(dim), nn.ReLU(),
        nn.Linear(dim, dim, bias=False),
    )  # fmt: skip


def redundancy(first: Tensor, second: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """The loss of projections (N, dim) of two views (Zbontar et al. 2021, equation 1), and their agreement, each ()."""
    with torch.autocast(first.device.type, enabled=False):
        correlation = standardised(first).T @ standardised(second) / len(first)  # (dim, dim)
    diagonal = correlation.diagonal()
    on, off = (1 - diagonal).square().sum(), correlation.square().sum() - diagonal.square().sum()
    return on + weight * off, diagonal.detach().mean()


def standardised(projected: Tensor) -> Tensor:
    """Columns of mean 0 and variance 1 over the batch (N, dim)."""
    centred = projected - projected.mean(0)
    return centred / centred.square().mean(0).add(1e-5).sqrt()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--barlow-dim", type=options.at_least(1), default=512, help="width of the projector of barlow")
    add("--barlow-weight", type=options.positive, default=0.005, help="of the off-diagonal elements in barlow")


def build(encoder: nn.Module, augment: Callable, settings: dict) -> BarlowTwins:
    """Barlow Twins of the options ``barlow_dim`` and ``barlow_weight``."""
    return BarlowTwins(encoder, augment, dim=settings["barlow_dim"], weight=settings["barlow_weight"])
