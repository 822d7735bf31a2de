"""Parts shared by the networks: their interface, the pointwise MLP, the day encoding, the classification head."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.errors import ModelError

NUM_BANDS = 10
DAYS = 426  # rows of the day encoding: a year, and two months past it
PERIOD = 1000.0  # the T of the sinusoids; shorter than the 10000 used for text, as a year has few days


class Network(nn.Module):
    """A classifier of series: ``features`` makes a feature vector of each series, ``decoder`` its logits.

    ``inputs`` is always the tuple (x, mask, doy, weight) of a batch: x (B, S, 10) standardised reflectance, mask
    (B, S) True at padding or None where nothing is padded, doy (B, S) day of year with 0 at padding, weight (B, S)
    the vegetation weight, whose rows sum to 1. Networks do not modify their inputs.
    """

    run_name: str  # part of the names of run folders
    uses_doy_flag = False  # takes use_doy: encodes the day of year, or else the position in the series
    interpolates = False  # accepts series interpolated to a regular grid of days
    fixed_length = False  # is built for one sequence length
    takes_any_length = False  # masks padding and reads days: can use all observations, whatever S it was trained with

    arguments: dict  # of build_model, to build the same network again
    num_features: int  # the F of features()
    decoder: nn.Module

    def features(self, inputs: tuple) -> Tensor:
        """The feature vectors (B, F) that ``decoder`` takes."""
        raise NotImplementedError

    def forward(self, inputs: tuple) -> Tensor:
        """Logits (B, classes)."""
        return self.decoder(self.features(inputs))

    def for_inference(self, dtype: torch.dtype = torch.float32) -> Network:
        """The fastest network with the outputs of this one in evaluation mode, as long as its weights do not change.

        ``dtype``: of products with weights, where the form chooses it (others leave it to ``torch.autocast``).
        """
        return self


def check_length(network: Network, x: Tensor) -> None:
    """ModelError if S of x (B, S, 10) is not the length that the network was built for."""
    if x.shape[1] != network.sequencelength:
        raise ModelError(
            f"this {network.run_name} was built for series of length {network.sequencelength} and was given series "
            f"of length {x.shape[1]}: use --sequencelength {network.sequencelength}, or train it for the new length"
        )


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation that uses the running statistics for a batch of one, which has no variance."""

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C) or (N, C, S) -> the same shape."""
        if self.training and x.numel() == self.num_features:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


class PointwiseLayer(nn.Module):
    """Linear layer, batch normalisation and ReLU, observation by observation: (N, inputs) -> (N, outputs)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.lin = nn.Linear(inputs, outputs)
        self.bn = BatchNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.lin(x)))


class PointwiseMLP(nn.Sequential):
    """The spectral embedding of each observation: (B, S, 10) -> (B, S, 128).

    Batch normalisation runs over batch and time together, padding included.
    """

    def __init__(self, widths: tuple[int, ...] = (NUM_BANDS, 32, 64, 128)):
        super().__init__(*(PointwiseLayer(*pair) for pair in zip(widths, widths[1:], strict=False)))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def sinusoid_table(rows: int, dim: int, period: float = PERIOD) -> Tensor:
    """Sinusoids (rows, dim): sin (even columns 2i) and cos (odd columns 2i + 1) of row * period^(-2i/dim).

    The position encoding of Vaswani et al. 2017, section 3.5, with another period.
    """
    frequency = period ** (-torch.arange(0, dim, 2) / dim)
    angle = torch.arange(rows).unsqueeze(1) * frequency  # (rows, dim / 2)
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)


class TableEncoding(nn.Module):
    """Looks up rows of a fixed table, which is not trained and not stored in checkpoints."""

    def __init__(self, table: Tensor):
        super().__init__()
        self.register_buffer("pe", table, persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        """Row numbers, int of any shape -> that shape with the table's width appended."""
        return F.embedding(rows, self.pe)


class DayEncoding(TableEncoding):
    """Sinusoids of days 1 to 426, day 1 at angle 0; day 0, which is padding, is encoded as zeros."""

    def __init__(self, dim: int):
        super().__init__(torch.cat((torch.zeros(1, dim), sinusoid_table(DAYS, dim))))


def classification_head(num_features: int, num_classes: int) -> nn.Sequential:
    """The decoder of the attention networks: (B, num_features) -> logits (B, num_classes)."""
    return nn.Sequential(
        nn.Linear(num_features, 64),
        BatchNorm(64),
        nn.ReLU(),
        nn.Linear(64, 32),
        BatchNorm(32),
        nn.ReLU(),
        nn.Linear(32, num_classes),
    )
