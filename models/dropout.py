"""Dropout with cheap random numbers on a CPU.

On a CPU torch draws a double from a serial generator for every value, which for the attention weights of SITS-MoCo
takes longer than all arithmetic of the model. Here one draw of 64 bits serves eight values.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROW, ROWS = 4096, 128  # the mask is drawn in blocks of this shape, whose random bits fit the cache
LEVELS = 256  # values of the random byte of one value


def is_cheap(x: Tensor, p: float) -> bool:
    """Whether ``keep_mask`` is the faster way to apply dropout with probability p to x."""
    return x.device.type == "cpu" and 0 < p < 0.99


@torch.compiler.disable  # torch.compile would unroll the loop, and draws more slowly
@torch.no_grad()
def keep_mask(shape: tuple[int, ...], p: float) -> Tensor:
    """Which values dropout with probability p keeps: bool of this shape, on the CPU.

    A value is dropped if its random byte is among the 256 p lowest. As 256 p is rarely a whole number, each column
    rounds it up or down at random in every call, so that the probability is exactly p. The bits come from torch's
    default generator, so ``torch.manual_seed`` fixes them.
    """
    count = math.prod(shape)
    keep = torch.empty(math.ceil(count / ROW), ROW, dtype=torch.bool)
    lowest = int(LEVELS * p)
    dropped = lowest + (torch.rand(ROW) < LEVELS * p - lowest)
    threshold = (dropped - LEVELS // 2).to(torch.int8)  # signed: the lowest byte is -128
    draws = torch.empty(min(ROWS, len(keep)), ROW // 8, dtype=torch.int64)
    for rows in keep.split(ROWS):
        bits = draws.random_(-(1 << 63), None).view(torch.int8)  # any of the 2^64 values
        torch.ge(bits[: len(rows)], threshold, out=rows)
    return keep.view(-1)[:count].view(shape)


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """F.dropout: in training each value of x is dropped with probability p and the others are scaled by 1 / (1 - p)."""
    if not training or not is_cheap(x, p):
        return F.dropout(x, p, training)
    keep = keep_mask(x.shape, p).view(torch.uint8)  # converts faster than bool
    return x * keep.to(x.dtype).mul_(1 / (1 - p))


class Dropout(nn.Dropout):
    """nn.Dropout with the random numbers of ``keep_mask`` on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p, self.training)
