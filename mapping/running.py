"""Runs the windows of a map: in this process, or in several, each of which reads ahead while the model computes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import NamedTuple

import numpy as np
import torch

from datasets.classmap import ClassMap
from mapping.parts import Parts
from mapping.windows import Part, Plan
from tscls.classifier import Classifier, load_classifier
from utils.runtime import distributed
from utils.runtime.ahead import read_ahead

CACHE = 512  # MB of GDAL's cache in a process: blocks of 512 x 512 pixels of ten bands at 70 dates
POLL = 0.2  # seconds between two looks at how far the processes are


class Job(NamedTuple):
    """All that a process needs to make windows of a map. Picklable.

    model: a run folder or a checkpoint; device: "cpu", "cuda:1" …, None is a GPU if there is one; classmap: of a
    checkpoint that has none; there: class shares that predictions are corrected for.
    """

    plan: Plan
    model: str
    device: str | None
    classmap: ClassMap | None
    there: Sequence[float] | None = None

    def load(self, device: torch.device | None = None) -> Classifier:
        """The classifier; `device` in place of the job's own."""
        classifier = load_classifier(self.model, device or self.device, classmap=self.classmap)
        self.adjust(classifier)
        return classifier

    def adjust(self, classifier: Classifier) -> None:
        """Let the classifier see the images of the map, up to their last day, and correct for the shares."""
        classifier.until = self.plan.options.until_doy
        if self.there is not None:
            classifier.there = np.array(self.there)


class MapInterrupted(Exception):
    """The map is unfinished for a reason that is no fault of the input, its parts are kept; the message is one line."""


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def finished(plan: Plan, classifier: Classifier, numbers: Iterable[int]) -> Iterator[tuple[int, Part]]:
    """The windows of these numbers, one after another."""
    for number, (pixels, inside) in read_ahead(numbers, plan.read):
        yield number, plan.classify(number, classifier, pixels, inside)


def run_here(job: Job, classifier: Classifier, parts: Parts, numbers: list[int], done: Callable[[int], None]) -> None:
    """Make windows in this process; `done` is told how many more are written."""
    for number, part in finished(job.plan, classifier, numbers):
        parts.write(number, part)
        done(1)


def run_processes(job: Job, parts: Parts, numbers: list[int], workers: int, done: Callable[[int], None]) -> None:
    """Make windows in `workers` processes, each with an even part of the cores, and on a GPU of its own in turn.

    MapInterrupted: a process was killed.
    """
    context = get_context("spawn")
    claimed, written, started = (context.Value("q", 0) for _ in range(3))
    stopped = context.RawValue("b", 0)
    setup = (job, parts, numbers, workers, claimed, written, started, stopped)
    told = 0
    with ProcessPoolExecutor(workers, context, initializer=_start, initargs=setup) as pool:
        tasks = [pool.submit(_work) for _ in range(workers)]
        try:
            while True:
                ready, waiting = wait(tasks, POLL, FIRST_EXCEPTION)
                told, before = written.get_obj().value, told  # without the lock: who is killed may hold it
                done(told - before)
                for task in ready:
                    task.result()
                if not waiting:
                    return
        except BrokenProcessPool:
            raise MapInterrupted("a worker process was killed, maybe for want of memory") from None
        finally:
            stopped.value = 1  # no process begins another window


_state: tuple | None = None  # of a worker process


def _start(job: Job, parts: Parts, numbers: list[int], workers: int, claimed, written, started, stopped) -> None:
    """Prepare a worker process."""
    global _state
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops the workers
    torch.set_num_threads(max(1, cores() // workers))
    with started.get_lock():
        place, started.value = started.value, started.value + 1
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    device = f"cuda:{place % gpus}" if gpus and job.device in (None, "cuda") else job.device
    _state = job.load(distributed.start(device).device), job, parts, numbers, claimed, written, stopped


def _work() -> None:
    """Make windows until none is left, or the parent is gone."""
    classifier, job, parts, numbers, claimed, written, stopped = _state
    for number, part in finished(job.plan, classifier, _claim(numbers, claimed, stopped)):
        parts.write(number, part)
        with written.get_lock():
            written.value += 1


def _claim(numbers: list[int], claimed, stopped) -> Iterator[int]:
    while parent_process().is_alive() and not stopped.value:
        with claimed.get_lock():
            place, claimed.value = claimed.value, claimed.value + 1
        if place >= len(numbers):
            return
        yield numbers[place]
