"""STNet, the Spectral Temporal Network of SITS-MoCo.

Y. Xu, Y. Ma and Z. Zhang, "Self-supervised pre-training for large-scale crop mapping using Sentinel-2 time series",
ISPRS Journal of Photogrammetry and Remote Sensing 207 (2024), 312-325, the section on STNet.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from models.transformer import TransformerModel


class STNet(TransformerModel):
    """The Transformer with the days of the year always encoded, pooled by the vegetation weight.

    Clear and green observations count most in the pooled description. Trunk and parameter names are the
    Transformer's, so that a checkpoint pre-trained with either loads into the other.
    """

    run_name = "STNet"
    uses_doy_flag = False

    def __init__(self, num_classes: int = 21, dropout: float = 0.2):
        super().__init__(num_classes, use_doy=True, dropout=dropout)

    def features(self, inputs: tuple) -> Tensor:
        _, _, _, weight = inputs
        weight = drop_weights(weight, self.dropout.p, self.training)
        return (self.encode(inputs) * weight.unsqueeze(-1)).sum(1)


def drop_weights(weight: Tensor, p: float, training: bool) -> Tensor:
    """Drop observations with probability p in training; each row of weight (B, S) sums to 1 again.

    A row that loses all its weight keeps what it had.
    """
    kept = F.dropout(weight, p, training)
    kept = torch.where(kept.sum(1, keepdim=True) > 0, kept, weight)
    return kept / kept.sum(1, keepdim=True)
