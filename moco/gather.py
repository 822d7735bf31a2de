"""The ranks of a distributed run seen from inside a model; a run of one process is its own and only rank."""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributed as dist


def rank_and_count() -> tuple[int, int]:
    """This process's rank, and how many there are."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def gather(part: Tensor) -> Tensor:
    """The parts (B, ...) of all ranks, of equal shape, one after another (ranks * B, ...); without gradient."""
    _, ranks = rank_and_count()
    if ranks == 1:
        return part
    parts = [torch.empty_like(part) for _ in range(ranks)]
    dist.all_gather(parts, part.contiguous())
    return torch.cat(parts)


def shared_permutation(count: int, device: torch.device) -> Tensor:
    """A random order of ``count`` items, the same on every rank."""
    order = torch.randperm(count, device=device)
    if rank_and_count()[1] > 1:
        take_from_first(order)
    return order


@torch.compiler.disable  # which cannot follow a broadcast
def take_from_first(part: Tensor) -> None:
    """Give every rank, in place, what the first has."""
    dist.broadcast(part, src=0)
