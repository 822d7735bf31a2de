"""The bidirectional LSTM that SITS-MoCo is compared with, classified by its cell states.

S. Hochreiter and J. Schmidhuber, "Long short-term memory", Neural Computation 9 (1997), 1735-1780; for crop types
from satellite series: M. Russwurm and M. Koerner, "Self-attention for raw optical satellite time series
classification", ISPRS Journal of Photogrammetry and Remote Sensing 169 (2020), 421-435.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.layers import NUM_BANDS, Network


class LSTM(Network):
    """Features are the last cell states of all layers and both directions; padding is read like observations."""

    run_name = "LSTM"
    interpolates = True

    def __init__(self, num_classes: int = 21, hidden_dims: int = 128, num_layers: int = 4, dropout: float = 0.2):
        super().__init__()
        self.num_features = 2 * num_layers * hidden_dims
        self.inlayernorm = nn.LayerNorm(NUM_BANDS)
        self.lstm = nn.LSTM(
            NUM_BANDS, hidden_dims, num_layers, bias=False, batch_first=True, dropout=dropout, bidirectional=True
        )
        self.clayernorm = nn.LayerNorm(self.num_features)
        self.decoder = nn.Linear(self.num_features, num_classes)

    def features(self, inputs: tuple) -> Tensor:
        x, _, _, _ = inputs
        _, (_, cells) = self.lstm(self.inlayernorm(x))  # (layers * directions, B, hidden)
        return self.clayernorm(cells.transpose(0, 1).flatten(1))
