"""Supervised contrast on series: the pretext ``SupCon``, which draws series of one class together.

P. Khosla, P. Teterwak, C. Wang, A. Sarna, Y. Tian, P. Isola, A. Maschinot, C. Liu and D. Krishnan, "Supervised
contrastive learning", NeurIPS 2020. The views are those of SITS-MoCo; the negatives are the batch's own, of all ranks.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from datasets.transforms import ModelInput, Series
from moco.builder import projection_head, unit
from pretraining.joint import JointEmbedding, Output
from utils import options

NAME = "supcon"
GROUP = 2048  # held-out series that are compared with each other; the cost grows with its square


class SupCon(JointEmbedding):
    """An encoder with an MLP head, trained by the loss L_out (Khosla et al. 2020, equation 2).

    Its figure is top1, the fraction of views whose most similar view is of the same class.

    Args:
        encoder: a network with ``num_features`` and a ``decoder``, which is replaced by the projection head.
        augment: makes two views, each the model input of the whole batch, of (series, generator).
        dim: width of the projections. T: temperature.
    """

    name, run_name = NAME, "SupCon"

    def __init__(self, encoder: nn.Module, augment: Callable, *, dim: int = 128, T: float = 0.1):
        super().__init__(encoder, augment, projection_head(encoder.num_features, dim, mlp=True))
        self.dim, self.T = dim, T

    def identity(self) -> dict:
        """The settings of the pretext, by which a checkpoint is recognised."""
        return {"dim": self.dim, "T": self.T}

    def project(self, view: tuple) -> Tensor:
        """Projections (B, dim) of a view, of length 1."""
        return unit(self.encoder_q(view))

    def views(self, series: Series, generator: Generator) -> tuple[ModelInput, ModelInput, Tensor]:
        """Two random views of each series, and their labels (B,)."""
        return *self.augment(series, generator), series.labels

    def compare(self, first: Tensor, second: Tensor, labels: Tensor) -> Output:
        loss, top1 = supervised_contrast(torch.cat((first, second)), labels.repeat(2), self.T)
        return Output(loss, {"top1": top1})

    def compare_held_out(self, first: Tensor, second: Tensor, labels: Tensor) -> Output:
        """The mean over groups of one size, so that it is comparable between epochs and data."""
        found = [
            (len(part[-1]), self.compare(*part))
            for part in zip(*(tensor.split(GROUP) for tensor in (first, second, labels)), strict=True)
        ]
        loss = sum(count * output.loss for count, output in found) / len(labels)
        return Output(loss, {"top1": sum(count * output.figures["top1"] for count, output in found) / len(labels)})


def supervised_contrast(views: Tensor, labels: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The loss L_out of unit vectors (N, dim) with labels (N,), as the mean over them, and top-1, each ().

    For each view it is the mean, over the other views of its class, of the cross-entropy of finding that one among all
    others. Every view has another of its class, that of the same series.
    """
    with torch.autocast(views.device.type, enabled=False):
        logits = views @ views.T / temperature
    itself = torch.eye(len(views), dtype=torch.bool, device=views.device)
    logits = logits.masked_fill(itself, float("-inf"))
    positive = (labels[:, None] == labels) & ~itself
    log_probability = logits.log_softmax(1).masked_fill(~positive, 0)
    loss = -(log_probability.sum(1) / positive.sum(1)).mean()
    nearest = logits.detach().argmax(1)
    return loss, (labels[nearest] == labels).float().mean()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--supcon-dim", type=options.at_least(1), default=128, help="width of the projections of supcon")
    add("--supcon-t", type=options.positive, default=0.1, help="temperature of supcon")


def build(encoder: nn.Module, augment: Callable, settings: dict) -> SupCon:
    """SupCon of the options ``supcon_dim`` and ``supcon_t``."""
    return SupCon(encoder, augment, dim=settings["supcon_dim"], T=settings["supcon_t"])
