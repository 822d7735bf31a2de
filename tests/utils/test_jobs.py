"""Tasks in processes: results and lines in order, exceptions, deaths and signals."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.support.jobs import SECONDS, wait_for, work, work_when_others_wait
from tests.support.ranks import REPOSITORY
from utils.errors import ProcessDied, Stopped, UsageError
from utils.runtime import jobs
from utils.runtime.jobs import in_parallel, threads_of
from utils.runtime.signals import Requests


def tasks(folder: Path, *names: str) -> list[tuple]:
    return [(name, folder) for name in names]


def test_results_and_lines_are_in_the_order_of_the_tasks(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    results = in_parallel(work, tasks(tmp_path, "a", "b", "c"), 2)
    assert [name for name, _, _ in results] == ["a", "b", "c"]
    pids = [pid for _, pid, _ in results]
    assert pids[0] != pids[1] and pids[2] in pids[:2] and os.getpid() not in pids
    assert [threads for *_, threads in results] == ["3", "3", "3"]
    out, err = capfd.readouterr()
    assert out == "a begins\nb begins\nc begins\n" and err == "a ends\nb ends\nc ends\n"
    assert os.environ["OMP_NUM_THREADS"] == "7" and signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


@pytest.mark.parametrize(("names", "count"), [(("b", "c"), 1), (("b",), 2)])
def test_one_job_or_one_task_needs_no_process(tmp_path, names, count):
    assert {pid for _, pid, _ in in_parallel(work, tasks(tmp_path, *names), count)} == {os.getpid()}


def test_processes_share_the_threads(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert [threads_of(count) for count in (1, 2, 3, 8, 20)] == [8, 4, 2, 1, 1]


@pytest.mark.parametrize(("name", "kind"), [("wrong", UsageError), ("bug", KeyError)])
def test_an_exception_of_a_task_ends_all(tmp_path, capfd, name, kind):
    """The other one saves; no third one begins; what ended is printed."""
    with pytest.raises(kind, match="wrong: cannot be used|a bug") as raised:
        in_parallel(work_when_others_wait, tasks(tmp_path, "waits", name, "c"), 2)
    assert (tmp_path / "saved").read_text() == str(int(signal.SIGTERM)) and not (tmp_path / "c").exists()
    out, err = capfd.readouterr()
    assert out == f"{name} begins\n" + "before the error\n" * (name == "wrong") and not err
    assert "in work\n" in str(raised.value.__cause__)  # its traceback


@pytest.mark.parametrize(("name", "how"), [("killed", "was ended by SIGKILL"), ("exits", "ended with exit code 3")])
def test_a_process_that_dies_is_one_line(tmp_path, name, how):
    with pytest.raises(ProcessDied) as died:
        in_parallel(work, tasks(tmp_path, name, "c"), 2, names=["run/x", "run/y"], requests=Requests("; do this"))
    assert str(died.value) == f"run/x: its process {how}; if memory was short, give fewer --jobs; do this"


def test_a_signal_stops_all_tasks_which_save_first(tmp_path, monkeypatch):
    with Requests("; continue").heard() as requests:

        def signalled(workers, _):
            wait_for(tmp_path / "is waiting")
            for worker in workers:  # as Ctrl-C: to the process group
                os.kill(worker.process.pid, signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

        monkeypatch.setattr(jobs, "_answered", signalled)
        with pytest.raises(Stopped, match="stopped; continue") as stopped:
            in_parallel(work, tasks(tmp_path, "waits", "c", "b"), 2, requests=requests)
    assert stopped.value.number == signal.SIGINT and (tmp_path / "saved").exists() and not (tmp_path / "b").exists()


def test_a_second_signal_does_not_wait(tmp_path, monkeypatch):
    with Requests().heard() as requests:

        def signalled(workers, _):
            wait_for(tmp_path / "is waiting")
            os.kill(workers[0].process.pid, signal.SIGSTOP)  # it never saves
            monkeypatch.setattr(workers[0].process, "join", lambda: signal.raise_signal(signal.SIGTERM))
            signal.raise_signal(signal.SIGTERM)

        monkeypatch.setattr(jobs, "_answered", signalled)
        with pytest.raises(Stopped):
            in_parallel(work, tasks(tmp_path, "waits", "c"), 2, requests=requests)
    assert not (tmp_path / "saved").exists()


def test_a_request_to_save_is_handed_on(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "SAVE_SECONDS", 0.05)
    with Requests().heard() as requests:
        show = jobs._show

        def shown(*texts):  # of the first task
            wait_for(tmp_path / "is waiting")
            signal.raise_signal(signal.SIGUSR1)
            show(*texts)

        monkeypatch.setattr(jobs, "_show", shown)
        assert len(in_parallel(work, tasks(tmp_path, "b", "saves"), 2, requests=requests)) == 2
        assert requests.stop == 0


def test_tasks_save_and_end_if_the_main_process_is_killed(tmp_path):
    program = (
        "from pathlib import Path; from tests.support.jobs import *; from utils.runtime.jobs import *;"
        f"in_parallel(work, [('waits', Path({str(tmp_path)!r}))] * 2, 2)"
    )
    main = subprocess.Popen([sys.executable, "-c", program], cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
    wait_for(tmp_path / "waits")
    wait_for(tmp_path / "is waiting")
    main.kill()
    error = main.communicate(timeout=SECONDS)[1]  # ends with the last process that could write to it
    assert (tmp_path / "saved").exists() and not re.search("Traceback|Error", error)
