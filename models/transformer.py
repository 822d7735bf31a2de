"""The Transformer of SITS-MoCo, pooled by the mean over observations.

Y. Xu, Y. Ma and Z. Zhang, "Self-supervised pre-training for large-scale crop mapping using Sentinel-2 time series",
ISPRS Journal of Photogrammetry and Remote Sensing 207 (2024), 312-325, the section on STNet; its encoder is that of
A. Vaswani et al., "Attention is all you need", NeurIPS 2017.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.attention import Encoder, masked_mean
from models.dropout import Dropout
from models.errors import ModelError
from models.inference import InferenceForm
from models.layers import DAYS, DayEncoding, Network, PointwiseMLP, classification_head


class TransformerModel(Network):
    """Spectral embedding of each observation, one encoder layer over the series, mean over real observations."""

    run_name = "TransformerModel"
    uses_doy_flag = True
    num_features = 128

    def __init__(self, num_classes: int = 21, use_doy: bool = False, dropout: float = 0.2):
        super().__init__()
        self.use_doy = use_doy
        self.mlp1 = PointwiseMLP()
        self.inlayernorm = nn.LayerNorm(self.num_features)
        self.position_enc = DayEncoding(self.num_features)
        self.dropout = Dropout(dropout)
        self.transformerencoder = Encoder(self.num_features, heads=16, feedforward=128, dropout=dropout)
        self.decoder = classification_head(self.num_features, num_classes)

    @property
    def takes_any_length(self) -> bool:
        """Only with days of year: in a series of another length a position means another time of year."""
        return self.use_doy

    def encode(self, inputs: tuple) -> Tensor:
        """One vector for each observation, (B, S, 128); those at padding are meaningless."""
        x, mask, _, _ = inputs
        x = self.inlayernorm(self.mlp1(x)) + self.position_enc(self.days(inputs))
        return self.transformerencoder(self.dropout(x), mask)

    def days(self, inputs: tuple) -> Tensor:
        """What the day encoding reads: days of year (B, S), or positions (S,)."""
        x, _, doy, _ = inputs
        return doy if self.use_doy else positions(x)

    def features(self, inputs: tuple) -> Tensor:
        _, mask, _, _ = inputs
        return masked_mean(self.encode(inputs), mask)

    def pooling(self, inputs: tuple) -> Tensor:
        """The weights (B, S) by which ``features`` averages the observations, in evaluation mode."""
        x, mask, _, _ = inputs
        real = x.new_ones(x.shape[:2]) if mask is None else (~mask).to(x.dtype)
        return real / real.sum(1, keepdim=True).clamp(min=1)

    def for_inference(self, dtype: torch.dtype = torch.float32) -> Network:
        return InferenceForm(self, dtype) if self.inlayernorm.weight.device.type == "cpu" else self


def positions(x: Tensor) -> Tensor:
    """Positions 1 to S of the observations of x (B, S, 10), as days for the day encoding."""
    length = x.shape[1]
    check_positions(length)
    return torch.arange(1, length + 1, device=x.device)


def check_positions(length: int) -> None:
    """ModelError if series are too long for their positions to be encoded as days."""
    if length > DAYS:
        raise ModelError(f"positions are encoded up to {DAYS} and the series have length {length}: use --use-doy")
