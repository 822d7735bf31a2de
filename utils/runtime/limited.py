"""Calling functions in a process of its own, whose computing time and memory have limits.

For libraries that loop or take all memory over some damaged files, in C code that nothing else can interrupt. The
process is started with the first call and serves all later ones. Where the system has no such limits (Windows; of
memory also macOS) it protects from crashes alone.
"""

from __future__ import annotations

import atexit
import importlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress

from utils.errors import UsageError

MEMORY = 1792 << 20  # bytes of address space that calls may take
START = "import sys; sys.path[:] = sys.argv[1:]; from utils.runtime.limited import serve; serve()"
IGNORED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")  # sent to all processes of a job; the caller decides


class Exceeded(RuntimeError):
    """A call has gone over a limit, or ended the process; the message says which: "took more than 3 s of computing"."""


class Failed(Exception):
    """A call has raised what is no UsageError; the message is its traceback."""


def call(function: Callable, *args, seconds: float, modules: Sequence[str] = ()):
    """What ``function(*args)`` gives, a function of a module that is imported there by its name.

    ``seconds``: of computing; waiting for a disk does not count, nor importing ``modules``, of which some may be
    missing.

    Raises:
        UsageError: as the function raises it.
        Exceeded: the call took more than that, or more memory than MEMORY, or it crashed.
        Failed: the function raised anything else.
    """
    global _process
    with _lock:
        if _process is None:
            _process = _start()
        try:
            pickle.dump((modules, seconds, function, args), _process.stdin, pickle.HIGHEST_PROTOCOL)
            _process.stdin.flush()
            raised, answer = pickle.load(_process.stdout)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            process, _process = _process, None
            with process:
                process.kill()
            raise Exceeded(_said(process.returncode, seconds)) from None
        except BaseException:  # an interrupt: what it waited for must not be taken for the next answer
            _end()
            raise
    if raised is not None:
        raise raised(*answer)
    return answer


def _said(code: int, seconds: float) -> str:
    name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    if name == "SIGPROF":
        return f"took more than {seconds:.3g} s of computing"
    return "was killed, as for want of memory" if name == "SIGKILL" else f"crashed, {name}"


# ---- the caller's side

_lock = threading.Lock()
_process: subprocess.Popen | None = None


def _start() -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # a thread takes address space
    command = [sys.executable, "-c", START, *sys.path]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)


def _end() -> None:
    """Kill the process, if there is one."""
    global _process
    process, _process = _process, None
    if process is not None:
        process.kill()
        with suppress(BrokenPipeError), process:
            pass


def _forget() -> None:
    """In a fork: the process is the parent's."""
    global _lock, _process
    _lock, _process = threading.Lock(), None


atexit.register(_end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


# ---- the process


def serve() -> None:
    """Answer calls from stdin until it ends."""
    for name in IGNORED:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    is_limited = False
    while True:
        try:
            modules, seconds, function, args = pickle.load(requests)
        except EOFError:
            return
        for module in modules:
            with suppress(ImportError):
                importlib.import_module(module)
        if not is_limited:
            _limit_memory()
            is_limited = True
        pickle.dump(_answer(seconds, function, args), answers, pickle.HIGHEST_PROTOCOL)
        answers.flush()


def _answer(seconds: float, function: Callable, args: tuple) -> tuple[type[Exception] | None, object]:
    """The kind of error that the call raised and the error's arguments, or None and what it gave.

    Errors are not pickled themselves: what they came from may be no picklable one.
    """
    _limit_time(seconds)
    try:
        return None, function(*args)
    except UsageError as error:
        return type(error), error.args
    except MemoryError:
        return Exceeded, (f"took more than {MEMORY >> 20:,} MB of memory",)
    except Exception:
        return Failed, (traceback.format_exc(),)
    finally:
        _limit_time(0)


def _limit_time(seconds: float) -> None:
    """End this process after so much computing; 0: without a limit."""
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _limit_memory() -> None:
    try:
        import resource

        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):  # no Linux
        return
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    wanted = used + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
