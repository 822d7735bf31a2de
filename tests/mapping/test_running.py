"""Windows made in this process and in several, which may fail or be killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch

from mapping import running
from mapping.parts import Parts
from mapping.running import Job, MapInterrupted, cores, finished, run_here, run_processes
from mapping.windows import Options, Part

COUNT = 12


class Numbers:
    """A plan whose windows hold their number; `hurt(number)` is called in the process that makes one."""

    def __init__(self, hurt=None):
        self.hurt, self.windows = hurt, [None] * COUNT

    def read(self, number: int):
        return number * 10, f"inside {number}"

    def classify(self, number, classifier, pixels, inside) -> Part:
        assert (pixels, inside) == (number * 10, f"inside {number}")
        if self.hurt:
            self.hurt(number)
        values = np.full((2, 1, 1), number, np.uint8)
        return Part(values, None, {"by": os.getpid(), "with": classifier})


class FakeJob(NamedTuple):
    """A job whose classifier is the name of its device, and the threads of torch there."""

    plan: Numbers
    device: str | None = "cpu"

    def load(self, device):
        return f"{device}, {torch.get_num_threads()} threads"


@pytest.fixture
def parts(tmp_path):
    parts = Parts(tmp_path / "map.tif")
    parts.start({})
    return parts


@pytest.fixture
def forked(monkeypatch):
    """Processes that start at once, as copies of this one."""
    monkeypatch.setattr(running, "get_context", lambda method: multiprocessing.get_context("fork"))
    monkeypatch.setattr(running, "POLL", 0.02)


def written(parts) -> list[int]:
    found = [parts.read(number) for number in range(COUNT)]
    assert all(part is None or (part.values == number).all() for number, part in enumerate(found))
    return [number for number, part in enumerate(found) if part is not None]


def test_windows_are_made_one_after_another(parts):
    plan, done = Numbers(), []
    assert [(number, int(part.values[0, 0, 0])) for number, part in finished(plan, "x", [3, 1])] == [(3, 3), (1, 1)]
    run_here(FakeJob(plan), "classifier", parts, [5, 2, 9], done.append)
    assert written(parts) == [2, 5, 9] and done == [1, 1, 1]
    assert parts.read(5).counts == {"by": os.getpid(), "with": "classifier"}


# ---- several processes


def test_processes_share_the_windows_and_their_progress_is_told(parts, forked):
    done = []
    plan = Numbers(lambda number: time.sleep(0.03))
    run_processes(FakeJob(plan), parts, [0, 1, 2, 3, 5, 7, 8, 11], 2, done.append)
    assert written(parts) == [0, 1, 2, 3, 5, 7, 8, 11] and sum(done) == 8
    assert min(done) >= 0 and sum(count > 0 for count in done) > 1  # not all at the end
    by = {parts.read(number).counts["by"] for number in written(parts)}
    assert len(by) == 2 and os.getpid() not in by


def test_every_process_has_its_part_of_the_cores(parts, forked, monkeypatch):
    monkeypatch.setattr(running, "cores", lambda: 6)
    run_processes(FakeJob(Numbers()), parts, [0], 2, lambda count: None)
    assert parts.read(0).counts["with"] == "cpu, 3 threads"
    monkeypatch.setattr(running, "cores", lambda: 1)
    run_processes(FakeJob(Numbers()), parts, [1], 2, lambda count: None)
    assert parts.read(1).counts["with"] == "cpu, 1 threads"


def test_a_process_that_is_killed_ends_the_run_and_the_parts_stay(parts, forked):
    def hurt(number):
        time.sleep(0.05)
        if number == 4:
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(MapInterrupted, match="a worker process was killed, maybe for want of memory"):
        run_processes(FakeJob(Numbers(hurt)), parts, list(range(COUNT)), 2, lambda count: None)
    found = written(parts)
    assert 0 in found and 4 not in found and len(found) < COUNT
    run_processes(FakeJob(Numbers()), parts, parts.missing(COUNT), 2, lambda count: None)
    assert written(parts) == list(range(COUNT))


@pytest.mark.parametrize("which", [-3, -2], ids=["claimed", "written"])
def test_a_process_may_be_killed_while_it_holds_a_lock(which, parts, forked):
    def hurt(number):
        if number == 3:
            running._state[which].get_lock().acquire()
            os.kill(os.getpid(), signal.SIGKILL)

    def hangs(*_):
        raise AssertionError("waits for a process that is gone")

    signal.signal(signal.SIGALRM, hangs)
    signal.alarm(20)
    try:
        with pytest.raises(MapInterrupted):
            run_processes(FakeJob(Numbers(hurt)), parts, list(range(COUNT)), 2, lambda count: None)
    finally:
        signal.alarm(0)


def test_what_fails_in_a_process_fails_here_and_no_further_window_is_begun(parts, forked):
    def hurt(number):
        time.sleep(0.05)
        if number == 2:
            raise ValueError("window 2")

    with pytest.raises(ValueError, match="window 2"):
        run_processes(FakeJob(Numbers(hurt)), parts, list(range(COUNT)), 2, lambda count: None)
    assert 2 not in written(parts) and len(written(parts)) < COUNT - 3
    assert not multiprocessing.active_children()


def test_more_processes_than_windows_are_not_too_many(parts, forked):
    done = []
    run_processes(FakeJob(Numbers()), parts, [3], 3, done.append)
    assert written(parts) == [3] and sum(done) == 1


def test_processes_are_started_afresh(parts, monkeypatch):
    asked = []

    def context(method):
        asked.append(method)
        return multiprocessing.get_context("fork")

    monkeypatch.setattr(running, "get_context", context)
    run_processes(FakeJob(Numbers()), parts, [0], 1, lambda count: None)
    assert asked == ["spawn"]  # a fork of a process with threads may hang


class Counter:
    """A number that processes share."""

    def __init__(self, value: int = 0):
        self.value, self.lock = value, threading.Lock()

    def get_lock(self):
        return self.lock


def started(monkeypatch, gpus: int, device: str | None, places: int) -> list[str]:
    """The devices of processes, started one after another."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(running.signal, "signal", lambda *_: None)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)

    class World(NamedTuple):
        device: str | None

    monkeypatch.setattr(running.distributed, "start", World)
    count, found = Counter(), []
    for _ in range(places):
        running._start(FakeJob(Numbers(), device), None, [], places, None, None, count, None)
        found.append(running._state[0].split(",")[0])
    running._state = None
    assert count.value == places
    return found


def test_processes_take_the_gpus_in_turn(monkeypatch):
    assert started(monkeypatch, 2, None, 3) == ["cuda:0", "cuda:1", "cuda:0"]
    assert started(monkeypatch, 2, "cuda", 2) == ["cuda:0", "cuda:1"]
    assert started(monkeypatch, 2, "cuda:1", 2) == ["cuda:1", "cuda:1"]
    assert started(monkeypatch, 2, "cpu", 2) == ["cpu", "cpu"]
    assert started(monkeypatch, 0, None, 2) == ["None", "None"]


def test_processes_leave_ctrl_c_to_their_parent(parts, forked):
    plan = Numbers(lambda number: os.kill(os.getpid(), signal.SIGINT))
    run_processes(FakeJob(plan), parts, [0, 1], 1, lambda count: None)
    assert written(parts) == [0, 1]


def test_processes_begin_nothing_when_their_parent_is_gone(monkeypatch):
    class Parent:
        alive = iter([True, True, False])

        def is_alive(self):
            return next(self.alive)

    monkeypatch.setattr(running, "parent_process", Parent)
    claimed = Counter(1)
    assert list(running._claim([4, 5, 6, 7], claimed, Counter())) == [5, 6] and claimed.value == 3


def test_processes_begin_nothing_once_they_are_stopped(monkeypatch):
    monkeypatch.setattr(running, "parent_process", multiprocessing.current_process)
    monkeypatch.setattr(type(multiprocessing.current_process()), "is_alive", lambda self: True)
    claimed, stopped = Counter(), Counter()
    numbers = running._claim([4, 5, 6], claimed, stopped)
    assert next(numbers) == 4
    stopped.value = 1
    assert list(numbers) == [] and claimed.value == 1


def test_a_job_loads_its_classifier_for_its_device_or_another(monkeypatch):
    def load(model, device, *, classmap):
        return SimpleNamespace(given=(model, device, classmap), until=120, there=None)

    monkeypatch.setattr(running, "load_classifier", load)
    job = Job(SimpleNamespace(options=Options(until_doy=150)), "run", "cuda:1", "classes")
    assert job.load().given == ("run", "cuda:1", "classes")
    assert job.load("cpu").given == ("run", "cpu", "classes")
    assert job.load().until == 150 and job.load().there is None
    assert job._replace(there=[0.2, 0.8]).load().there.tolist() == [0.2, 0.8]


def test_cores_are_those_that_may_be_used(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0: {2, 3, 7}}[process])
    assert cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert cores() == 5
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores() == 1
