"""Dropout whose decisions are cheap on a CPU.

There torch draws a double from a serial generator for every decision, which for the attention weights of SITS-MoCo
takes longer than all arithmetic of the model. Here one draw of 64 bits makes eight decisions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROW, ROWS = 4096, 128  # decisions are made in blocks of this shape: their bits stay in the cache
LEVELS = 256  # values of the byte that makes one decision


def is_cheap(x: Tensor, p: float) -> bool:
    """Whether dropout of x with probability p is better left to ``keep_mask``."""
    return x.device.type == "cpu" and 0 < p < 0.99


@torch.compiler.disable  # which would unroll the loop, and draws more slowly
@torch.no_grad()
def keep_mask(shape: tuple[int, ...], p: float) -> Tensor:
    """Which values survive dropout with probability p: bool of this shape, on the CPU.

    A value is dropped if its random byte is among the 256 p lowest. That is rarely a whole number: every place in a row
    rounds it up or down at random, anew in each call, so that the probability is exactly p. The bits come from torch's
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
    """As F.dropout: x with each value dropped with probability p in training, the others scaled by 1 / (1 - p)."""
    if not training or not is_cheap(x, p):
        return F.dropout(x, p, training)
    keep = keep_mask(x.shape, p).view(torch.uint8)  # converts faster than bool
    return x * keep.to(x.dtype).mul_(1 / (1 - p))


class Dropout(nn.Dropout):
    """nn.Dropout by ``dropout``."""

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p, self.training)
