"""Random numbers as a function of seed, epoch, step and rank.

No state is carried from step to step, so a run can be resumed at any step, on any number of ranks, and draws what it
would have drawn.
"""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def derive_seed(*parts: object) -> int:
    """A 56-bit seed from anything printable; different parts give unrelated seeds."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:7], "big")


def make_generator(*parts: object, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator whose numbers depend on ``parts`` only."""
    return torch.Generator(device=device).manual_seed(derive_seed(*parts))


def seed_everything(seed: int) -> None:
    """Seed the global generators of torch (initialisation), NumPy and Python."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


class RandomStreams:
    """The random streams of a training run.

    ``augment`` is the generator for views and draws, on the run's device; torch's default generator serves dropout.
    """

    def __init__(self, seed: int, device: torch.device | str = "cpu", rank: int = 0):
        self.seed, self.rank = seed, rank
        self.augment = torch.Generator(device=device)

    def order(self, epoch: int, count: int) -> np.ndarray:
        """The order in which ``count`` series are used in an epoch, the same on every rank."""
        return torch.randperm(count, generator=make_generator(self.seed, "order", epoch)).numpy()

    def seek(self, epoch: int, step: int) -> None:
        """Seed both generators for this step."""
        self.augment.manual_seed(derive_seed(self.seed, "augment", epoch, step, self.rank))
        torch.manual_seed(derive_seed(self.seed, "dropout", epoch, step, self.rank))
