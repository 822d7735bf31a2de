"""How long things take, side by side."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection

import torch
from torch import multiprocessing


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """How long work takes, that of the device included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def best(works: dict[str, Callable[[], object]], rounds: int, device: torch.device) -> dict[str, float]:
    """The shortest time of each work, done in turns."""
    times = [{name: seconds(work, device) for name, work in works.items()} for _ in range(rounds)]
    return {name: min(row[name] for row in times) for name in works}


class OwnProcess:
    """Work that another process makes ready, by ``build(*args)``, and does whenever this is called.

    So it is timed with the settings of torch and of the C library as they come, whatever this process has changed.
    """

    def __init__(self, build: Callable, *args):
        context = multiprocessing.get_context("spawn")
        self.end, other = context.Pipe()
        threads = torch.get_num_threads()
        self.process = context.Process(target=serve, args=(other, threads, build, args), daemon=True)
        self.process.start()
        other.close()
        self.end.recv()

    def __call__(self) -> None:
        self.end.send(None)
        self.end.recv()


def serve(end: Connection, threads: int, build: Callable, args: tuple) -> None:
    """The other process of OwnProcess, which ends with the first one."""
    torch.set_num_threads(threads)
    work = build(*args)
    end.send(None)
    with suppress(EOFError, KeyboardInterrupt):
        while True:
            end.recv()
            work()
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
            end.send(None)
