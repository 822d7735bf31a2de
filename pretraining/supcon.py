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
from pretraining.joint import Output, UnitEmbedding
from utils import options

NAME = "supcon"
GROUP = 2048  # held-out series that are compared with each other; the cost grows with its square


class SupCon(UnitEmbedding):
    """An encoder with an MLP head, trained by the loss L_out (Khosla et al. 2020, equation 2).

    Its figure is top1, the fraction of views whose most similar view is of the same class.

    Encoder, views, ``dim`` and ``T`` are those of ``UnitEmbedding``.
    """

    name, run_name = NAME, "SupCon"

    def views(self, series: Series, generator: Generator) -> tuple[ModelInput, ModelInput, Tensor]:
        """Two random views of each series, and their labels (B,)."""
        return *self.augment(series, generator), series.labels

    def compare(self, first: Tensor, second: Tensor, labels: Tensor) -> Output:
        loss, top1 = supervised_contrast(torch.cat((first, second)), labels.repeat(2), self.T)
        return Output(loss, {"top1": top1})

    def compare_held_out(self, first: Tensor, second: Tensor, labels: Tensor) -> Output:
        """The mean over groups of one size, so that it is comparable between epochs and data."""
        loss = top1 = 0
        for one, other, known in zip(first.split(GROUP), second.split(GROUP), labels.split(GROUP), strict=True):
            found = self.compare(one, other, known)
            loss += len(known) * found.loss
            top1 += len(known) * found.figures["top1"]
        return Output(loss / len(labels), {"top1": top1 / len(labels)})


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
