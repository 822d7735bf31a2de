"""SITS-BERT on series: the pretext ``BERT``, which restores observations that were contaminated with noise.

Y. Yuan and L. Lin, "Self-supervised pretraining of transformers for satellite image time series classification", IEEE
Journal of Selected Topics in Applied Earth Observations and Remote Sensing 14 (2021), 474-487.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable

import torch
from torch import Generator, Tensor, nn

from datasets.draws import Source, uniform
from datasets.transforms import ModelInput, Series, real_observations, standardise, to_length, vegetation_weight
from pretraining.joint import Output
from utils import options
from utils.errors import UsageError
from utils.precision import Precision
from utils.runtime.distributed import World, gather

NAME = "bert"


class BERT(nn.Module):
    """An encoder of observations with a linear head that restores what noise has changed.

    Each observation is contaminated with ``probability``, half of them by noise from [0, noise) and half by noise from
    (-noise, 0] in reflectance, drawn for each band. The loss is the mean squared error of the contaminated
    observations, in standardised reflectance. Its figure is restored, the fraction of the noise's mean square that the
    network removes.

    Args:
        encoder: a network with ``encode``; its ``decoder`` is replaced by the head.
        size, method: length S of the series, and how they are brought to it ("rc" or "pad").
    """

    name, run_name = NAME, "BERT"

    def __init__(self, encoder: nn.Module, *, size: int, method: str, probability: float = 0.15, noise: float = 0.5):
        super().__init__()
        if not hasattr(encoder, "encode"):
            raise UsageError(
                f"--pretext {NAME}: {encoder.run_name} has no features of single observations to restore them from;"
                " choose transformer or stnet"
            )
        self.size, self.method, self.probability, self.noise = size, method, probability, noise
        encoder.decoder = nn.Linear(encoder.num_features, 10)
        self.encoder_q = encoder

    def identity(self) -> dict:
        """The settings of the pretext, by which a checkpoint is recognised."""
        return {"probability": self.probability, "noise": self.noise}

    def views(self, series: Series, generator: Generator) -> tuple[ModelInput, Tensor, Tensor]:
        """Contaminated series, their true values x (B, S, 10), and which observations are contaminated (B, S)."""
        return contaminated(series, generator, self.size, self.method, self.probability, self.noise)

    def before_step(self) -> None:
        """Nothing comes before a step."""

    def forward(self, view: tuple, true: Tensor, chosen: Tensor) -> Output:
        """The loss of restoring the chosen observations of a view; the mean of all ranks' is that of their batches."""
        count = gather(chosen.sum()[None]).float().mean().clamp(min=1)
        loss, noise = (total / count for total in self.errors(view, true, chosen))
        return Output(loss, {"restored": 1 - loss.detach() / noise.clamp(min=1e-12)})

    def errors(self, view: tuple, true: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Sums over the chosen observations of the mean squared error, as restored and as contaminated, each ()."""
        restored = self.encoder_q.decoder(self.encoder_q.encode(view)).float()
        wrong = ((values - true).square().mean(-1) for values in (restored, view[0]))
        return tuple((error * chosen).sum() for error in wrong)

    def after_step(self, output: Output) -> None:
        """Nothing comes after a step."""

    @torch.no_grad()
    def evaluate(self, views: Iterable[tuple], precision: Precision, world: World) -> dict[str, float]:
        """Mean loss of all contaminated observations of the held-out series, and how much of the noise is removed."""
        sums = torch.zeros(3, dtype=torch.float64, device=world.device)  # restored, contaminated, observations
        for view, true, chosen in views:
            with precision.autocast():
                sums[:2] += torch.stack(self.errors(view, true, chosen)).double()
            sums[2] += chosen.sum()
        restored, noise, count = world.all_reduce_sum_(sums).tolist()
        return {"loss": restored / max(count, 1), "restored": 1 - restored / max(noise, 1e-12)}


def contaminated(
    series: Series, generator: Source, size: int, method: str, probability: float, noise: float
) -> tuple[ModelInput, Tensor, Tensor]:
    """Series of length ``size`` with noise, standardised; their true x (B, S, 10); which observations have it (B, S).

    The vegetation weight is that of the contaminated values, as the network would see them.
    """
    fitted = to_length(series, size, method, generator)
    real, device = real_observations(fitted), fitted.doy.device
    draw = uniform(fitted.doy.shape, device, generator)
    chosen = (draw < probability) & real
    sign = torch.where(draw < probability / 2, 1.0, -1.0) * chosen
    values = fitted.values + sign[..., None] * noise * uniform(fitted.values.shape, device, generator)
    mask = ~real if method == "pad" else None
    x, true = (standardise(part) * real[..., None] for part in (values, fitted.values))
    return ModelInput(x, mask, fitted.doy, vegetation_weight(values, mask)), true, chosen


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--bert-probability", type=options.fraction, default=0.15, help="of an observation to be contaminated by bert")
    add("--bert-noise", type=options.positive, default=0.5, help="largest noise of bert, in reflectance")


def build(encoder: nn.Module, augment: Callable, settings: dict) -> BERT:
    """SITS-BERT of the options ``bert_probability`` and ``bert_noise``; it makes its own views."""
    return BERT(
        encoder,
        size=settings["sequencelength"],
        method="rc" if settings["rc"] else "pad",
        probability=settings["bert_probability"],
        noise=settings["bert_noise"],
    )
