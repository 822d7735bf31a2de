"""A process of a run dies: how the others notice, and end with one line that says so.

Under gloo what waits for the dead process fails at once, and ``check`` says why. Under NCCL it may wait for minutes, in
which a signal handler does not run, but a thread does. torchrun sends SIGTERM to those that are left.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable

from utils.errors import ProcessDied, end_at_once

CHECK_SECONDS = 1.0  # between two looks at the other processes
STUCK_SECONDS = 5.0  # a process that has not ended so long after another one waits for it, and always will
ENDING_SECONDS = 5.0  # in which one that has left the others ends

_LOST = re.compile(  # what gloo and NCCL say
    "Connection (closed|reset) by (remote )?peer|Broken pipe|end of file|remote process exit", re.IGNORECASE
)
_others: dict[int, int] = {}  # rank and process id of those that torchrun has started on this machine
ending = threading.Event()  # this process ends by itself, and the others may
_hint: Callable[[], str] = str  # what the user can do if a process dies; by default nothing is said


def set_hint(hint: Callable[[], str]) -> None:
    """What to tell the user if from now on another process dies, asked for when it has happened."""
    global _hint
    _hint = hint


def watch(others: dict[int, int]) -> None:
    """Notice the death of other processes of this machine, given as rank and process id."""
    if os.name != "posix":
        return
    ending.clear()
    _others.clear()
    _others.update(others)
    signal.signal(signal.SIGTERM, _on_sigterm)
    threading.Thread(target=_end_if_stuck, daemon=True).start()


def _missing() -> list[int]:
    """The ranks on this machine whose process has ended and was seen to by torchrun."""
    return [rank for rank, pid in _others.items() if not _is_there(pid)]


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):  # the number may be another process' by now
        return False
    return True


def _died(how: str = "") -> ProcessDied:
    missing = [f"rank {rank}" for rank in _missing()]
    who, whose = " and ".join(missing) or "another process", "their own messages" if missing[1:] else "its own message"
    return ProcessDied(f"{who} of this run ended too early{how}; look at {whose}, or torchrun's{_hint()}")


def _on_sigterm(number: int, _frame) -> None:
    if not ending.is_set() and _missing():
        raise _died()
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


def _end_if_stuck() -> None:
    while not ending.wait(CHECK_SECONDS):
        if _missing():
            if not ending.wait(STUCK_SECONDS):
                end_at_once(str(_died()))
            return


def check(error: BaseException) -> None:
    """Find out whether this process ends by an exception because another one has died.

    Raises:
        ProcessDied: so it is.
    """
    ending.set()
    while error is not None and not isinstance(error, KeyboardInterrupt):
        if isinstance(error, ProcessDied):
            raise error
        if isinstance(error, RuntimeError) and (found := _LOST.search(str(error))):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # this is the end already
            end = time.monotonic() + ENDING_SECONDS
            while _others and not _missing() and time.monotonic() < end:  # so that torchrun sees the other one first
                time.sleep(0.02)
            raise _died(f" ({found[0]})")
        error = error.__cause__ or error.__context__
