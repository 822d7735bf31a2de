"""Losses over the batches of all ranks, as a rank computes them: python -m tests.support.ranks runs this on two."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretraining.barlow import redundancy
from pretraining.simclr import nt_xent
from utils.runtime import distributed
from utils.runtime.distributed import World, gather_with_gradient

LOSSES = {
    "simclr": lambda first, second: nt_xent(F.normalize(first, dim=1), F.normalize(second, dim=1), 0.2)[0],
    "barlow": lambda first, second: redundancy(first, second, 0.1)[0],
}


class Projected(nn.Module):
    """The loss of two views through one linear layer."""

    def __init__(self, name: str):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.name = nn.Linear(6, 4), name

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return LOSSES[self.name](*(gather_with_gradient(self.layer(view)) for view in (first, second)))


def computed(name: str, world: World) -> tuple[Tensor, Tensor]:
    """Loss and gradient of the weights for 8 series, shared out among the ranks."""
    model = Projected(name)
    views = torch.randn(2, 8, 6, generator=torch.Generator().manual_seed(1)).chunk(world.size, dim=1)[world.rank]
    parallel = world.parallel(model)  # must live until the backward
    loss = parallel(*views)
    loss.backward()
    return loss.detach(), model.layer.weight.grad


def main(argv: list[str]) -> None:
    world = distributed.start("cpu")
    found = {name: computed(name, world) for name in LOSSES}
    torch.save(found, Path(argv[0]) / f"{world.rank}.pth")
    world.finish()
