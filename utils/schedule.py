"""Learning rate over training: warm-up, then constant, steps or a cosine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch.optim import Optimizer


class Schedule(NamedTuple):
    """The learning rate of every optimizer step of a run.

    Linear from 0 over the warm-up, then half a cosine down to 0 at the end (Loshchilov & Hutter 2017, without
    restarts), or times 0.1 from each epoch of ``milestones`` on.

    Attributes:
        learning_rate: the largest rate.
        steps_per_epoch, epochs: the length of the run.
        warmup_epochs: may be a fraction.
    """

    learning_rate: float
    steps_per_epoch: int
    epochs: int
    warmup_epochs: float = 0
    milestones: Sequence[int] = ()
    cosine: bool = False

    def rate(self, step: int) -> float:
        """The learning rate of optimizer step ``step``, counted from 0 over the whole run."""
        return self.learning_rate * self.factor(step)

    def factor(self, step: int) -> float:
        """What the learning rate is multiplied by at this step, 0 to 1."""
        epoch = step / self.steps_per_epoch
        if epoch < self.warmup_epochs:
            return (step + 1) / (self.warmup_epochs * self.steps_per_epoch + 1)
        if self.cosine:
            progress = (epoch - self.warmup_epochs) / max(self.epochs - self.warmup_epochs, 1e-9)
            return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
        return 0.1 ** sum(epoch >= milestone for milestone in self.milestones)

    def apply(self, optimizer: Optimizer, step: int) -> None:
        """Set the rate of all parameter groups for this step."""
        for group in optimizer.param_groups:
            group["lr"] = self.rate(step)


def applied_rate(optimizer: Optimizer) -> float:
    """The learning rate of the optimizer's last step, as logs report it."""
    return optimizer.param_groups[0]["lr"]
