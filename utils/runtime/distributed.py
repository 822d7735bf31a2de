"""Several processes as one run: started by ``torchrun``, or a single process that is rank 0 of 1."""

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

from utils.errors import UsageError, diagnose_by
from utils.runtime import watchdog
from utils.runtime.memory import keep_freed_memory

_TORCHRUN = {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}


def rank_and_size() -> tuple[int, int]:
    """This process's rank and the number of ranks, as the process group says; (0, 1) without one."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


class World(NamedTuple):
    """This process's place in the run, and what the ranks do together.

    All methods but ``shard`` are collectives: every rank must call them, in the same order. In a run of one process
    they return at once.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def is_main(self) -> bool:
        """Whether this process writes logs and checkpoints."""
        return self.rank == 0

    def shard(self, batch: np.ndarray, rank: int | None = None) -> np.ndarray:
        """The part of a global batch that belongs to ``rank`` (default: this one); sizes differ by at most one."""
        return np.array_split(batch, self.size)[self.rank if rank is None else rank]

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.size > 1:
            dist.barrier()

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Let rank 0 do this before the others, which then find on the disk what it wrote."""
        if not self.is_main:
            self.barrier()
        yield
        if self.is_main:
            self.barrier()

    def all_reduce_sum_(self, value: Tensor) -> Tensor:
        """Sum a tensor over all ranks, in place."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def largest(self, *values: int) -> tuple[int, ...]:
        """Each of these numbers, the largest that a rank has given."""
        if self.size == 1:
            return values
        together = torch.tensor(values, dtype=torch.int64, device=self.device)
        dist.all_reduce(together, dist.ReduceOp.MAX)
        return tuple(together.tolist())

    def from_main(self, number: int) -> int:
        """The number that rank 0 has."""
        return int(self.all_reduce_sum_(torch.tensor(number * self.is_main, device=self.device)))

    def all_gather(self, part: Tensor) -> Tensor:
        """Concatenate the parts (N_rank, ...) of all ranks, of any lengths, in rank order."""
        if self.size == 1:
            return part
        return torch.cat(self.gather_objects(part.cpu())).to(part.device)

    def gather_objects(self, part: object) -> list:
        """What every rank has given, in rank order; tensors should be on the CPU."""
        parts: list = [part] * self.size
        if self.size > 1:
            dist.all_gather_object(parts, part)
        return parts

    def average_statistics(self, module: nn.Module) -> None:
        """Replace the running statistics of batch normalisation by their mean over ranks.

        DDP averages gradients only. After this all ranks evaluate, and rank 0 saves, the same model.
        """
        if self.size == 1:
            return
        for name, buffer in module.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                self.all_reduce_sum_(buffer).div_(self.size)

    def parallel(self, model: nn.Module) -> nn.Module:
        """Wrap a model so that its gradients are averaged over ranks; buffers stay each rank's own."""
        if self.size == 1:
            return model
        with warnings.catch_warnings():  # torch 2.9 renames broadcast_buffers, older versions lack the new name
            warnings.simplefilter("ignore", FutureWarning)
            return nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)

    def final_barrier(self) -> None:
        """Wait for every rank for the last time; from now on a peer may exit without being missed."""
        self.barrier()
        watchdog.ending.set()

    def finish(self) -> None:
        """Leave the process group, if there is one, together."""
        self.final_barrier()
        if self.size > 1:
            dist.destroy_process_group()


def start(device: str | None) -> World:
    """Pick the device (None: a GPU if there is one) and, under torchrun, join the process group.

    Raises:
        UsageError: the device cannot be used.
    """
    size, rank, local_rank = (int(os.environ.get(name, default)) for name, default in _TORCHRUN.items())
    name = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(name)
        if chosen.type not in ("cpu", "cuda"):
            raise RuntimeError("unsupported device type")
        if chosen.type == "cuda" and chosen.index is None:
            chosen = torch.device("cuda", local_rank)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--device {name}: cannot be used ({reason}); give cpu, cuda or cuda:N") from None
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    else:
        keep_freed_memory()
    world = World(rank, size, chosen)
    if size > 1:
        diagnose_by(watchdog.check)
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", rank=rank, world_size=size)
        _watch_peers(world)
    return world


def _watch_peers(world: World) -> None:
    """Let this process notice when another rank on this machine dies."""
    if "GROUP_RANK" in os.environ:  # torchrun's number of this machine
        machine = int(os.environ["GROUP_RANK"])
        places = world.all_gather(torch.tensor([[machine, os.getpid()]])).tolist()
        pids = {rank: pid for rank, (where, pid) in enumerate(places) if where == machine and rank != world.rank}
        watchdog.watch(pids)


def gather(part: Tensor) -> Tensor:
    """Concatenate the parts (B, ...) of all ranks, of equal shape, in rank order, inside a model; no gradient."""
    _, size = rank_and_size()
    if size == 1:
        return part
    parts = [torch.empty_like(part) for _ in range(size)]
    dist.all_gather(parts, part.contiguous())
    return torch.cat(parts)


def gather_with_gradient(part: Tensor) -> Tensor:
    """``gather`` for a loss over the batches of all ranks, which every rank computes as a whole.

    A rank has the gradient of its own rows alone, times the number of ranks: DDP then takes the mean over ranks, which
    is the gradient of the loss.
    """
    rank, size = rank_and_size()
    if size == 1:
        return part
    parts = list(gather(part.detach()).chunk(size))
    parts[rank] = part.detach() + size * (part - part.detach())
    return torch.cat(parts)


def shared_permutation(count: int, device: torch.device) -> Tensor:
    """A random order of ``count`` items, the same on every rank."""
    order = torch.randperm(count, device=device)
    if rank_and_size()[1] > 1:
        _broadcast_from_main(order)
    return order


@torch.compiler.disable  # torch.compile cannot trace a broadcast
def _broadcast_from_main(part: Tensor) -> None:
    dist.broadcast(part, src=0)
