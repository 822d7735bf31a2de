"""Runs the windows of a map on a Dask cluster (dask.distributed): SLURM, Kubernetes, several GPUs, several machines.

The workers import this code and read the model and the images at the same paths as this process, which alone writes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import NamedTuple

from datasets.preparation.extract import bound_cache
from mapping.parts import Parts
from mapping.running import CACHE, Job, MapInterrupted
from mapping.windows import Part
from tscls.classifier import Classifier
from utils.errors import UsageError

TIMEOUT = "20s"  # for the scheduler to answer


def run_cluster(
    job: Job, address: str, key: str, parts: Parts, numbers: list[int], done: Callable[[int], None]
) -> None:
    """Make windows on the cluster of the scheduler at `address`; a window whose worker dies is given to another one.

    key: of the map, equal for equal ones. UsageError: no scheduler answers; MapInterrupted: the cluster broke down.
    """
    try:
        from distributed import Client, as_completed
        from distributed.comm import CommClosedError
        from distributed.scheduler import KilledWorker
    except ImportError:
        raise UsageError("--scheduler needs distributed: pip install -r requirements-geo.txt") from None
    try:
        client = Client(address, timeout=TIMEOUT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"--scheduler {address}: no scheduler answers ({' '.join(str(error).split())})") from None
    with client:
        # A task, not scattered data, which is lost with the worker that holds it
        shared = client.submit(_same, job, key=f"job-{key}")
        tasks = client.map(_window, numbers, job=shared, map_key=key, key=[f"window-{key}-{i}" for i in numbers])
        try:
            for task, (number, part) in as_completed(tasks, loop=client.loop, with_results=True):
                parts.write(number, part)
                task.release()
                done(1)
        except (KilledWorker, CancelledError, CommClosedError) as error:
            raise MapInterrupted(f"the cluster broke down ({' '.join(str(error).split())})") from None
        finally:
            client.cancel(tasks)


def _same(job: Job) -> Job:
    return job


class _Loaded(NamedTuple):
    """A job on a worker; of two threads one reads while the model computes for the other."""

    key: str
    job: Job
    classifier: Classifier
    reading: threading.Lock
    computing: threading.Lock


_loaded: list[_Loaded] = []
_loading = threading.Lock()


def _window(number: int, job: Job, map_key: str) -> tuple[int, Part]:
    """Make a window on a worker, which loads the model at its first."""
    with _loading:
        if not _loaded or _loaded[0].key != map_key:
            bound_cache(CACHE)
            _loaded[:] = [_Loaded(map_key, job, job.load(), threading.Lock(), threading.Lock())]
        mine = _loaded[0]
    with mine.reading:
        pixels, inside = mine.job.plan.read(number)
    with mine.computing:
        return number, mine.job.plan.classify(number, mine.classifier, pixels, inside)
