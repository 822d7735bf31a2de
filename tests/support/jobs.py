"""Tasks for utils.runtime.jobs, in a file that its processes import quickly."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from utils.errors import UsageError
from utils.runtime.signals import Requests

SECONDS = 120  # after which a test fails that waits


def work(name: str, folder: Path) -> tuple:
    """Do what the name says. Task a waits for b, so b has ended first."""
    print(f"{name} begins")
    if name == "a":
        wait_for(folder / "b")
    (folder / name).write_text(str(os.getpid()))
    if name == "wrong":
        print("before the error")
        raise UsageError("wrong: cannot be used")
    if name == "bug":
        raise KeyError("a bug")
    if name == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "exits":
        os._exit(3)
    if name == "saves":
        with Requests(is_worker=True).heard() as requests:
            (folder / "is waiting").touch()
            wait_until(lambda: requests.save)
    if name == "waits":
        wait_and_save(folder)
    print(f"{name} ends", file=sys.stderr)
    return name, os.getpid(), os.environ.get("OMP_NUM_THREADS")


def wait_and_save(folder: Path) -> None:
    """A run in training: it saves when it is asked to stop."""
    with Requests(is_worker=True).heard() as requests, requests.deferred():
        (folder / "is waiting").touch()
        wait_until(lambda: requests.stop)
        time.sleep(0.2)  # another signal comes, as of a terminal
        (folder / "saved").write_text(str(requests.stop))


def wait_until(is_so, seconds: float = SECONDS) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


def wait_for(path: Path) -> None:
    wait_until(path.exists)


def work_when_others_wait(name: str, folder: Path) -> tuple:
    if name != "waits":
        wait_for(folder / "is waiting")
    return work(name, folder)
