"""A lock is held by one process, names it, ends with it, and does without the system's locks where there are none."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import signal
import socket
from contextlib import contextmanager
from pathlib import Path

import pytest

from utils import locks
from utils.locks import Held, hold, holder_of

FORK = multiprocessing.get_context("fork")
KINDS = (None, errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # what flock says


@pytest.fixture(params=KINDS, ids=lambda code: "flock" if code is None else errno.errorcode[code])
def kind(request, monkeypatch):
    """A file system with locks, and those without."""

    def missing(*given):
        raise OSError(request.param, os.strerror(request.param))

    if request.param is not None:
        monkeypatch.setattr(fcntl, "flock", missing)
    return request.param


def _hold(path: Path, pipe) -> None:
    with hold(path):
        pipe.send(os.getpid())
        pipe.recv()


@contextmanager
def another_process(path: Path):
    """Another process that holds the lock until told to end."""
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=_hold, args=(path, theirs))
    process.start()
    assert ours.poll(30) and ours.recv() == process.pid
    try:
        yield process, lambda: ours.send("end")
    finally:
        process.kill()
        process.join()


def test_a_held_lock_names_its_holder_and_is_free_after_it(tmp_path, kind):
    path = tmp_path / "in" / "lock"
    with another_process(path) as (process, end):
        for _ in range(2):  # a failed attempt leaves the lock as it is
            with pytest.raises(Held, match=f"^process {process.pid} on {socket.gethostname()}$"):
                with hold(path, wait=False):
                    raise AssertionError
        end()
        process.join(30)
    with hold(path, wait=False):
        assert holder_of(path) == f"process {os.getpid()} on {socket.gethostname()}"
    assert not path.exists()


def test_a_lock_of_a_killed_process_is_taken_over(tmp_path, kind):
    with another_process(tmp_path / "lock") as (process, _):
        os.kill(process.pid, signal.SIGKILL)
        process.join(30)
        assert (tmp_path / "lock").exists()
        with hold(tmp_path / "lock", wait=False):
            assert holder_of(tmp_path / "lock").startswith(f"process {os.getpid()} on ")
    assert not (tmp_path / "lock").exists()


def test_a_lock_is_waited_for(tmp_path, kind):
    with another_process(tmp_path / "lock") as (process, end):
        end()
        with hold(tmp_path / "lock"):
            assert holder_of(tmp_path / "lock").startswith(f"process {os.getpid()} on ")


def test_a_lock_is_released_after_an_error(tmp_path, kind):
    for _ in range(2):
        with pytest.raises(ValueError), hold(tmp_path / "lock", wait=False):
            raise ValueError
    assert not list(tmp_path.iterdir())


def test_a_soft_lock_of_another_host_is_not_taken_over(tmp_path, monkeypatch):
    def missing(*given):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", missing)
    (tmp_path / "lock").write_text("123\nelsewhere\n")
    with pytest.raises(Held, match="^process 123 on elsewhere$"), hold(tmp_path / "lock", wait=False):
        raise AssertionError
    assert (tmp_path / "lock").read_text() == "123\nelsewhere\n"


def test_other_errors_of_a_lock_are_errors(tmp_path, monkeypatch):
    def failing(*given):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", failing)
    with pytest.raises(OSError, match="Input/output error"), hold(tmp_path / "lock"):
        raise AssertionError


def test_a_process_may_hold_a_lock_twice_if_it_says_so(tmp_path, kind):
    first, second = (locks.acquire(tmp_path / "lock", timeout=0, is_singleton=True) for _ in range(2))
    assert first.lock_counter == 2 and first is second
    first.release(force=True)


@pytest.mark.parametrize("text", ["", "word\nhost\n", "12"])
def test_a_holder_that_does_not_say_who_it_is(tmp_path, text):
    (tmp_path / "lock").write_text(text)
    assert holder_of(tmp_path / "lock") == holder_of(tmp_path / "none") == "another process"
