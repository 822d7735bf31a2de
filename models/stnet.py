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
    """The Transformer, always with days of year encoded, pooled by the vegetation weight.

    Clear and green observations count most in the pooled features. Trunk and parameter names are the Transformer's, so
    a checkpoint pre-trained with either loads into the other.
    """

    run_name = "STNet"
    uses_doy_flag = False

    def __init__(self, num_classes: int = 21, dropout: float = 0.2):
        super().__init__(num_classes, use_doy=True, dropout=dropout)

    def features(self, inputs: tuple) -> Tensor:
        weight = self.pooling(inputs)  # draws before the encoder does: a seed stands for the same run in every version
        return (self.encode(inputs) * weight.unsqueeze(-1)).sum(1)

    def pooling(self, inputs: tuple) -> Tensor:
        _, _, _, weight = inputs
        return drop_weights(weight, self.dropout.p, self.training)


def drop_weights(weight: Tensor, p: float, training: bool) -> Tensor:
    """In training, drop observations with probability p; each row of weight (B, S) is normalised to sum to 1 again.

    A row in which all would be dropped is kept as it is.
    """
    kept = F.dropout(weight, p, training)
    kept = torch.where(kept.sum(1, keepdim=True) > 0, kept, weight)
    return kept / kept.sum(1, keepdim=True)
