"""L-TAE, the lightweight temporal attention encoder, behind the pointwise MLP of SITS-MoCo.

V. Sainte Fare Garnot and L. Landrieu, "Lightweight temporal self-attention for classifying satellite images time
series", Advanced Analytics and Learning on Temporal Data (AALTD) 2020, Springer, 171-181.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.layers import (
    BatchNorm,
    Network,
    PointwiseMLP,
    TableEncoding,
    check_length,
    classification_head,
    sinusoid_table,
)

WIDTH = 256  # of the vectors attended to
LAST_DAY = 366  # days after the first observation, at most


class LTAE(Network):
    """Attention with one learned query a head; each head averages its own slice of the channels over time.

    As published, padding is attended to; ``ltae_mask`` masks it.
    """

    run_name = "LTAE"
    fixed_length = True
    num_features = 128

    def __init__(
        self,
        num_classes: int = 21,
        sequencelength: int = 70,
        dropout: float = 0.2,
        attention_dropout: float = 0.1,
        ltae_mask: bool = False,
    ):
        super().__init__()
        self.sequencelength = sequencelength
        self.ltae_mask = ltae_mask
        self.mlp1 = PointwiseMLP()
        self.inlayernorm = nn.LayerNorm(128)
        self.inconv = nn.Sequential(nn.Conv1d(128, WIDTH, 1), nn.LayerNorm((WIDTH, sequencelength)))
        self.position_enc = TableEncoding(sinusoid_table(LAST_DAY + 1, WIDTH))
        self.attention_heads = QueryAttention(WIDTH, heads=16, key_width=8, dropout=attention_dropout)
        self.mlp2 = nn.Sequential(nn.Linear(WIDTH, self.num_features), BatchNorm(self.num_features), nn.ReLU())
        self.dropout = nn.Dropout(dropout)
        self.outlayernorm = nn.LayerNorm(self.num_features)
        self.decoder = classification_head(self.num_features, num_classes)

    def features(self, inputs: tuple) -> Tensor:
        x, mask, doy, _ = inputs
        check_length(self, x)
        x = self.inlayernorm(self.mlp1(x))
        x = self.inconv(x.transpose(1, 2)).transpose(1, 2) + self.position_enc(days_since_first(doy))
        x = self.attention_heads(x, mask if self.ltae_mask else None)
        return self.outlayernorm(self.dropout(self.mlp2(x)))


def days_since_first(doy: Tensor) -> Tensor:
    """Days since the first observation of each series from doy (B, S); 0 at padding, where doy is 0.

    A day of year below the first one is taken to lie after New Year, with 366 days in a year.
    """
    return torch.remainder(doy - doy[:, :1], LAST_DAY).masked_fill(doy == 0, 0)


class QueryAttention(nn.Module):
    """Attention of one learned query a head (Garnot and Landrieu 2020, section 3).

    Keys are projections of all channels; a head's values are its own slice of the channels.
    """

    def __init__(self, width: int, heads: int, key_width: int, dropout: float):
        super().__init__()
        self.Q = nn.Parameter(torch.empty(heads, key_width))
        self.fc1_k = nn.Linear(width, heads * key_width)
        self.dropout = nn.Dropout(dropout)
        for weight in (self.Q, self.fc1_k.weight):
            nn.init.normal_(weight, std=math.sqrt(2 / key_width))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (B, S, width), mask (B, S) True at positions to ignore or None -> (B, width)."""
        heads, key_width = self.Q.shape
        keys = self.fc1_k(x).unflatten(-1, (heads, key_width))
        scores = torch.einsum("hd,bshd->bhs", self.Q, keys) / math.sqrt(key_width)
        if mask is not None:
            scores = scores.masked_fill(mask.unsqueeze(1), float("-inf"))
        weights = self.dropout(scores.softmax(-1))  # (B, heads, S)
        return torch.einsum("bhs,bshd->bhd", weights, x.unflatten(-1, (heads, -1))).flatten(1)
