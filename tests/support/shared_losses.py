"""Losses over the batches of all ranks, as a rank computes them: python -m tests.support.ranks runs this on two."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from datasets.classmap import CDL20
from pretraining.barlow import BarlowTwins
from pretraining.labels import Labels
from pretraining.simclr import SimCLR
from pretraining.summed import Summed, with_own_decoder
from pretraining.supcon import SupCon
from utils.runtime import distributed
from utils.runtime.distributed import World

SERIES = 8  # of all ranks


class Small(nn.Module):
    """A network of one linear layer, whose input is a tensor (B, 6) in a tuple."""

    num_features = 4

    def __init__(self):
        super().__init__()
        self.layer, self.decoder = nn.Linear(6, 4), nn.Identity()

    def forward(self, view: tuple) -> Tensor:
        return self.decoder(self.layer(view[0]))


def headless(pretext: nn.Module) -> nn.Module:
    """A pretext whose projections are the features."""
    pretext.encoder_q.decoder = nn.Identity()
    return pretext


def summed(encoder: nn.Module) -> Summed:
    """SimCLR and SupCon on one encoder."""
    parts = [
        headless(kind(with_own_decoder(encoder, encoder.decoder), None, dim=4, T=0.3)) for kind in (SimCLR, SupCon)
    ]
    return Summed(parts, 0.5)


PRETEXTS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "simclr": lambda encoder: headless(SimCLR(encoder, None, dim=4, T=0.2)),
    "barlow": lambda encoder: headless(BarlowTwins(encoder, None, dim=4, weight=0.1)),
    "supcon": lambda encoder: headless(SupCon(encoder, None, dim=4, T=0.2)),
    "labels": lambda encoder: Labels(encoder, None, CDL20),
    "summed": summed,
}


def views_of(name: str, rank: int, ranks: int) -> tuple:
    """The views of a rank, as its pretext takes them."""
    first, second = torch.randn(2, SERIES, 6, generator=torch.Generator().manual_seed(1)).chunk(ranks, dim=1)[rank]
    labels = torch.tensor([0, 1, 2, 0, 1, 1, 3, 3]).chunk(ranks)[rank]
    pair = (first,), (second,)
    views = {"labels": ((first,), labels), "supcon": (*pair, labels), "summed": (pair, (*pair, labels))}
    return views.get(name, pair)


def computed(name: str, world: World) -> tuple[Tensor, Tensor]:
    """Loss and gradient of the weights for 8 series, shared out among the ranks; the loss as their mean."""
    torch.manual_seed(0)
    pretext = PRETEXTS[name](Small())
    parallel = world.parallel(pretext)  # must live until the backward
    loss = parallel(*views_of(name, world.rank, world.size)).loss
    loss.backward()
    return world.all_reduce_sum_(loss.detach()) / world.size, pretext.encoder_q.layer.weight.grad


def main(argv: list[str]) -> None:
    world = distributed.start("cpu")
    found = {name: computed(name, world) for name in PRETEXTS}
    torch.save(found, Path(argv[0]) / f"{world.rank}.pth")
    world.finish()
