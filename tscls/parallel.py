"""The runs of a command, one after another or several at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from tscls.runs import Run
from utils.errors import UsageError
from utils.runtime.distributed import World, start
from utils.runtime.jobs import in_parallel
from utils.runtime.signals import Requests

RunOne = Callable[[Run, World, Requests], Path]  # train and test a run; returns its folder


def check_jobs(jobs: int, world: World) -> None:
    """UsageError where several runs at a time would share more than the cores of a CPU."""
    if jobs > 1 and (world.size > 1 or world.device.type != "cpu"):
        where = f"with {world.size} ranks" if world.size > 1 else f"on {world.device.type}"
        raise UsageError(f"--jobs {jobs}: not {where}, for it shares the cores of a CPU; leave it out, or give -d cpu")


def folders_of(run_one: RunOne, runs: Sequence[Run], jobs: int, world: World, requests: Requests) -> list[Path]:
    """Do ``jobs`` runs at a time, each of more than one in a process of its own; returns their folders.

    ``run_one`` must be picklable. A signal to this process reaches all runs, which save their state.

    Raises:
        UsageError: that of a run; the others have saved their state.
        ProcessDied: the process of a run was killed.
    """
    if jobs == 1:
        return [run_one(run, world, requests) for run in runs]
    names = [str(run.name_of(run.place["suffix"])) for run in runs]
    return in_parallel(_run_alone, [(run_one, run) for run in runs], jobs, names=names, requests=requests)


def _run_alone(run_one: RunOne, run: Run) -> Path:
    """Do a run in a process that has no other one at the time."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    with Requests(is_worker=True).heard() as requests:
        return run_one(run, start("cpu"), requests)
