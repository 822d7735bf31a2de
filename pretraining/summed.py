"""Several pretexts on one encoder: ``Summed``, whose loss is the weighted sum of theirs.

The sum of a contrastive loss and of a supervised one, or of a restoring one, each with a head of its own on the shared
trunk, is multi-task learning with fixed weights (R. Caruana, "Multitask learning", Machine Learning 28 (1997), 41-75).
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from datasets.transforms import Series
from utils import options
from utils.precision import Precision
from utils.runtime.distributed import World


class SummedOutput(NamedTuple):
    """The loss () of a batch, further numbers () for the log by name, and the outputs of the pretexts."""

    loss: Tensor
    figures: dict[str, Tensor]
    parts: list


class Summed(nn.Module):
    """Pretexts whose encoders have the same trunk; ``encoder_q`` is that of the last one, with its head.

    The loss is that of the first pretext plus ``weight`` times those of the others. Loss and figures of each have its
    name before theirs.
    """

    def __init__(self, pretexts: Sequence[nn.Module], weight: float = 1.0):
        super().__init__()
        self.parts = nn.ModuleDict({pretext.name: pretext for pretext in pretexts})
        self.encoder_q = pretexts[-1].encoder_q
        self.weights = [1.0, *[weight] * (len(pretexts) - 1)]

    @property
    def name(self) -> str:
        return "+".join(self.parts)

    @property
    def run_name(self) -> str:
        """The pretexts in names of run folders."""
        return "+".join(part.run_name for part in self.parts.values())

    @property
    def classmap(self):
        """The classes that ``encoder_q`` predicts, if it does."""
        return getattr([*self.parts.values()][-1], "classmap", None)

    def identity(self) -> dict:
        """The settings of the pretexts, by which a checkpoint is recognised."""
        return {"weights": self.weights, **{name: part.identity() for name, part in self.parts.items()}}

    def views(self, series: Series, generator: Generator) -> tuple[tuple, ...]:
        """The views of each pretext."""
        return tuple(part.views(series, generator) for part in self.parts.values())

    def before_step(self) -> None:
        for part in self.parts.values():
            part.before_step()

    def forward(self, *views: tuple) -> SummedOutput:
        """The losses of all pretexts, each of its views."""
        outputs = [part(*own) for part, own in zip(self.parts.values(), views, strict=True)]
        figures = [{"loss": output.loss.detach(), **output.figures} for output in outputs]
        return SummedOutput(self.total([output.loss for output in outputs]), self.named(figures), outputs)

    def total(self, losses: Sequence) -> Tensor | float:
        """The weighted sum of the pretexts' losses."""
        return sum(weight * loss for weight, loss in zip(self.weights, losses, strict=True))

    def named(self, figures: Sequence[dict]) -> dict:
        """Figures of all pretexts in one dict."""
        pairs = zip(self.parts, figures, strict=True)
        return {f"{part}_{name}": value for part, found in pairs for name, value in found.items()}

    def after_step(self, output: SummedOutput) -> None:
        for part, own in zip(self.parts.values(), output.parts, strict=True):
            part.after_step(own)

    @torch.no_grad()
    def evaluate(self, views: Iterable[tuple], precision: Precision, world: World) -> dict[str, float]:
        """Held-out losses and figures; ``views`` are gone through once for each pretext."""
        found = []
        for i, part in enumerate(self.parts.values()):
            found.append(part.evaluate((group[i] for group in views), precision, world))
        return {"loss": self.total([figures["loss"] for figures in found]), **self.named(found)}


def with_own_decoder(encoder: nn.Module, decoder: nn.Module) -> nn.Module:
    """A network with the trunk of ``encoder``, the same parameters, and another decoder."""
    other = copy.copy(encoder)
    other._modules = dict(encoder._modules)  # or else the decoder would be replaced in both
    other.decoder = decoder
    return other


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--sum-weight", type=options.positive, default=1.0, help="of the second loss in moco+labels and moco+bert")


def build(builders: Sequence[Callable], encoder: nn.Module, augment: Callable, settings: dict) -> Summed:
    """The sum of the pretexts that these functions build, with the option ``sum_weight``."""
    decoder, pretexts = encoder.decoder, []
    for builder in builders:  # on the trunk of the one before, as a pretext may change it
        pretexts.append(builder(with_own_decoder(encoder, decoder), augment, settings))
        encoder = pretexts[-1].encoder_q
    return Summed(pretexts, settings["sum_weight"])
