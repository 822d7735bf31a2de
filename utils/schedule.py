"""Learning rate over training: warm-up, then constant, steps or a cosine."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def rate_factor(
    step: int,
    steps_per_epoch: int,
    epochs: int,
    *,
    warmup_epochs: float = 0,
    schedule: Sequence[int] = (),
    cosine: bool = False,
) -> float:
    """What the learning rate is multiplied by at optimizer step ``step`` (from 0).

    Linear from 0 over the warm-up, then half a cosine down to 0 at the end (Loshchilov & Hutter 2017, without
    restarts), or times 0.1 from each epoch of ``schedule`` on.
    """
    epoch = step / steps_per_epoch
    if epoch < warmup_epochs:
        return (step + 1) / (warmup_epochs * steps_per_epoch + 1)
    if cosine:
        progress = (epoch - warmup_epochs) / max(epochs - warmup_epochs, 1e-9)
        return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return 0.1 ** sum(epoch >= milestone for milestone in schedule)


def make_scheduler(optimizer: Optimizer, steps_per_epoch: int, epochs: int, **options) -> LambdaLR:
    """``rate_factor`` as a scheduler to be stepped after every optimizer step."""
    return LambdaLR(optimizer, lambda step: rate_factor(step, steps_per_epoch, epochs, **options))
