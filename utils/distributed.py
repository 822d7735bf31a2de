"""Several processes, one run: started by ``torchrun``, or a single process that is its own rank 0."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch import distributed as dist

from utils import watchdog
from utils.allocator import keep_freed_memory
from utils.errors import UsageError


class Ranks(NamedTuple):
    """This process's place in the run."""

    rank: int
    count: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes logs and checkpoints."""
        return self.rank == 0

    def share(self, batch: np.ndarray) -> np.ndarray:
        """This rank's part of a global batch: equal parts where the batch can be cut so, else some have one more."""
        return self.share_of(batch, self.rank)

    def share_of(self, batch: np.ndarray, rank: int) -> np.ndarray:
        """Any rank's part of a global batch."""
        return np.array_split(batch, self.count)[rank]


def start(device: str | None) -> Ranks:
    """Pick the device (None: a GPU if there is one) and, under torchrun, join the other ranks.

    Raises:
        UsageError: a device that is not there.
    """
    count, rank, local = (int(os.environ.get(name, value)) for name, value in _TORCHRUN.items())
    name = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(name)
        if chosen.type not in ("cpu", "cuda"):
            raise RuntimeError("no device that this code computes on")
        if chosen.type == "cuda" and chosen.index is None:
            chosen = torch.device("cuda", local)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--device {name}: cannot be used ({reason}); give cpu, cuda or cuda:N") from None
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    else:
        keep_freed_memory()
    if count > 1:
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", rank=rank, world_size=count)
        watch(rank)
    return Ranks(rank, count, chosen)


def watch(rank: int) -> None:
    """Let this process notice when another one on this machine dies."""
    if "GROUP_RANK" in os.environ:  # torchrun's number of this machine
        here = int(os.environ["GROUP_RANK"])
        places = gathered(torch.tensor([[here, os.getpid()]])).tolist()
        watchdog.watch({other: pid for other, (where, pid) in enumerate(places) if where == here and other != rank})


_TORCHRUN = {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}


def parallel(model: nn.Module) -> nn.Module:
    """The model with gradients averaged over ranks; buffers (queue, running statistics) are each rank's own."""
    with warnings.catch_warnings():  # newer versions rename broadcast_buffers, older ones do not know the new name
        warnings.simplefilter("ignore", FutureWarning)
        return nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)


def average_statistics(module: nn.Module) -> None:
    """Give every rank the mean of the ranks' running statistics: all evaluate, and one saves, the same model."""
    if not (dist.is_available() and dist.is_initialized()):
        return
    for name, buffer in module.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            total(buffer).div_(dist.get_world_size())


def wait() -> None:
    """Until every rank is here."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()


@contextmanager
def main_first(ranks: Ranks) -> Iterator[None]:
    """Let rank 0 do this before the others: what it writes to the disk, they find there."""
    if not ranks.is_main:
        wait()
    yield
    if ranks.is_main:
        wait()


def final_barrier() -> None:
    """Until every rank is here, for the last time: a rank that ends earlier is the end of the others."""
    wait()
    watchdog.ending.set()


def finish() -> None:
    """Leave the process group, if there is one, together."""
    final_barrier()
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def total(value: Tensor) -> Tensor:
    """The sum of a tensor over all ranks."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(value)
    return value


def any_rank(flag: bool, device: torch.device) -> bool:
    """Whether the flag is set on at least one rank."""
    if not (dist.is_available() and dist.is_initialized()):
        return flag
    return total(torch.tensor(float(flag), device=device)).item() > 0


def gathered(part: Tensor) -> Tensor:
    """The parts of all ranks, of any lengths, one after another, on this rank's device."""
    if not (dist.is_available() and dist.is_initialized()):
        return part
    parts: list = [None] * dist.get_world_size()
    dist.all_gather_object(parts, part.cpu())
    return torch.cat(parts).to(part.device)
