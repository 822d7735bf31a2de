"""TempCNN, convolutions along time.

C. Pelletier, G. I. Webb and F. Petitjean, "Temporal convolutional neural network for the classification of
satellite image time series", Remote Sensing 11 (2019), 523.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.layers import NUM_BANDS, BatchNorm, Network, check_length


class TempCNN(Network):
    """Three convolutions along time and a dense layer; padding is not masked."""

    run_name = "TempCNN"
    interpolates = True
    fixed_length = True

    def __init__(
        self,
        num_classes: int = 21,
        sequencelength: int = 70,
        hidden_dims: int = 128,
        kernel_size: int = 7,
        dropout: float = 0.2,
    ):
        super().__init__()
        self.sequencelength = sequencelength
        self.num_features = 4 * hidden_dims
        self.conv_bn_relu1 = ConvBlock(NUM_BANDS, hidden_dims, kernel_size, dropout)
        self.conv_bn_relu2 = ConvBlock(hidden_dims, hidden_dims, kernel_size, dropout)
        self.conv_bn_relu3 = ConvBlock(hidden_dims, hidden_dims, kernel_size, dropout)
        self.dense = DenseBlock(hidden_dims * sequencelength, self.num_features, dropout)
        self.decoder = nn.Linear(self.num_features, num_classes)

    def features(self, inputs: tuple) -> Tensor:
        x, _, _, _ = inputs
        check_length(self, x)
        x = self.conv_bn_relu1(x.transpose(1, 2))  # (B, hidden, S)
        x = self.conv_bn_relu3(self.conv_bn_relu2(x))
        return self.dense(x.flatten(1))


class Block(nn.Module):
    """A layer, then batch normalisation, ReLU and dropout."""

    def __init__(self, layer: nn.Module, width: int, dropout: float):
        super().__init__()
        self.block = nn.Sequential(layer, BatchNorm(width), nn.ReLU(), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class ConvBlock(Block):
    """(B, inputs, S) -> (B, outputs, S)."""

    def __init__(self, inputs: int, outputs: int, kernel_size: int, dropout: float):
        super().__init__(nn.Conv1d(inputs, outputs, kernel_size, padding="same"), outputs, dropout)


class DenseBlock(Block):
    """(B, inputs) -> (B, outputs)."""

    def __init__(self, inputs: int, outputs: int, dropout: float):
        super().__init__(nn.Linear(inputs, outputs), outputs, dropout)
