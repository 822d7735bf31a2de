"""Functions in a process of its own: what they give and raise, and what becomes of those that exceed a limit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from utils.errors import UsageError
from utils.runtime import limited
from utils.runtime.limited import Exceeded, Failed, call


@pytest.fixture(autouse=True)
def ended():
    yield
    limited._end()


def spin(seconds: float) -> str:
    end = time.process_time() + seconds
    while time.process_time() < end:
        ...
    return "done"


def take(size: int) -> int:
    return len(np.empty(size, np.uint8))


def refuse() -> None:
    raise UsageError("one line")


def fail() -> None:
    raise KeyError("a bug")


def printing(text: str) -> str:
    print(text, flush=True)
    return text


def test_one_process_serves_all_calls():
    first, second = call(os.getpid, seconds=5), call(os.getpid, seconds=5)
    assert first == second != os.getpid()
    assert call(np.arange, 2, 5, seconds=5).tolist() == [2, 3, 4]
    assert call(printing, "no answer", seconds=5) == "no answer"


def test_what_takes_too_long_is_ended_and_the_next_call_works():
    first = call(os.getpid, seconds=5)
    with pytest.raises(Exceeded, match=r"^took more than 0.3 s of computing$"):
        call(spin, 60, seconds=0.3)
    assert call(os.getpid, seconds=5) != first


def test_the_limit_holds_where_the_caller_ignores_its_signal():
    before = signal.signal(signal.SIGPROF, signal.SIG_IGN)
    try:
        with pytest.raises(Exceeded, match="of computing"):
            call(spin, 2, seconds=0.2)
        names = "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"
        found = call(eval, f"[__import__('os').environ[name] for name in {names}]", seconds=5)
        assert found == ["1", "1"]  # threads take address space
    finally:
        signal.signal(signal.SIGPROF, before)


def test_waiting_and_earlier_calls_do_not_count():
    for _ in range(3):
        assert call(spin, 0.2, seconds=0.4) == "done"
    assert call(time.sleep, 0.6, seconds=0.4) is None
    assert call(os.getpid, seconds=0.4) == call(os.getpid, seconds=0.4)


def test_imports_do_not_count(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    source = "import time\nwhile time.process_time() < 1.2:\n    ...\nimported = True\n"
    (tmp_path / "slow_to_import.py").write_text(source)
    modules = ("no_such_library", "slow_to_import")
    assert call(eval, "__import__('slow_to_import').imported", seconds=0.4, modules=modules)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")
def test_what_takes_too_much_memory_is_refused():
    assert call(take, limited.MEMORY // 2, seconds=5) == limited.MEMORY // 2
    with pytest.raises(Exceeded, match=r"^took more than 1,792 MB of memory$"):
        call(take, limited.MEMORY + (64 << 20), seconds=5)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (os._exit, (7,), "^crashed, exit code 7$"),
        (signal.raise_signal, (signal.SIGSEGV,), "^crashed, SIGSEGV$"),
        (signal.raise_signal, (signal.SIGKILL,), "^was killed, as for want of memory$"),
    ],
)
def test_what_ends_the_process_is_said(function, arguments, message):
    with pytest.raises(Exceeded, match=message):
        call(function, *arguments, seconds=5)
    assert call(len, "abc", seconds=5) == 3


def test_errors_are_raised_here():
    with pytest.raises(UsageError, match="^one line$"):
        call(refuse, seconds=5)
    with pytest.raises(Failed, match=r"in fail\n(.|\n)*KeyError: 'a bug'"):
        call(fail, seconds=5)
    assert call(len, "abc", seconds=5) == 3


def test_an_interrupted_call_leaves_no_answer_behind():
    def interrupt(*_):
        raise KeyboardInterrupt

    call(len, "", seconds=5)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            call(time.sleep, 1, seconds=5)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert call(len, "abc", seconds=5) == 3


@pytest.mark.parametrize("name", limited.IGNORED)
def test_signals_of_the_job_are_left_to_the_caller(name):
    process = call(os.getpid, seconds=5)
    os.kill(process, getattr(signal, name))
    assert call(os.getpid, seconds=5) == process


def test_a_fork_has_a_process_of_its_own():
    process = call(os.getpid, seconds=5)
    child = os.fork()
    if child == 0:
        own = -1
        try:
            own = call(os.getpid, seconds=5)
            limited._end()
        finally:
            os._exit(0 if own not in (-1, process) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert call(os.getpid, seconds=5) == process


@pytest.mark.parametrize("end", ["", "os.kill(os.getpid(), 9)"])
def test_the_process_ends_with_its_caller(end):
    code = f"import os; from utils.runtime.limited import call; print(call(os.getpid, seconds=5), flush=True); {end}"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, timeout=60)
    process, end = int(done.stdout), time.monotonic() + 20
    while time.monotonic() < end:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("it still runs")
