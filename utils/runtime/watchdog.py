"""A peer dies: how the other processes of a run end soon, with one line that says so and what to do.

torchrun reports the root cause and sends SIGTERM, and SIGKILL 30 s later. It does not, with its error files
(torch.distributed.elastic's ``record``) either, spare the peers their tracebacks, say how to resume, or end a rank
before the SIGKILL that is hung in a collective, where a Python handler of SIGTERM cannot run. Under gloo a collective
with a dead peer fails at once, and ``check`` says why. Under NCCL it can hang for minutes; only a thread can act then.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable

from utils.errors import ProcessDied, end_at_once

CHECK_SECONDS = 1.0  # between two checks of the peers
STUCK_SECONDS = 5.0  # a process that has not ended so long after a peer died is hung in a collective
ENDING_SECONDS = 5.0  # that a dying peer may take to exit

_LOST = re.compile(  # in the messages of gloo and NCCL
    "Connection (closed|reset) by (remote )?peer|Broken pipe|end of file|remote process exit", re.IGNORECASE
)
_peers: dict[int, int] = {}  # rank -> process id of the other ranks on this machine
ending = threading.Event()  # this process is about to exit, and its peers may have done so
_hint: Callable[[], str] = str  # what the user can do after a peer died; by default nothing


def set_hint(hint: Callable[[], str]) -> None:
    """Set what the error tells the user to do; called when a peer has died."""
    global _hint
    _hint = hint


def watch(peers: dict[int, int]) -> None:
    """Watch the other ranks on this machine, given as rank and process id."""
    if os.name != "posix":
        return
    ending.clear()
    _peers.clear()
    _peers.update(peers)
    signal.signal(signal.SIGTERM, _on_sigterm)
    threading.Thread(target=_end_if_hung, daemon=True).start()


def _dead_peers() -> list[int]:
    """The ranks on this machine whose process has exited and was reaped by torchrun."""
    return [rank for rank, pid in _peers.items() if not _is_alive(pid)]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):  # denied: the number belongs to another user's process by now
        return False
    return True


def _died(how: str = "") -> ProcessDied:
    dead = [f"rank {rank}" for rank in _dead_peers()]
    who, whose = " and ".join(dead) or "a peer", "their own messages" if dead[1:] else "its own message"
    return ProcessDied(f"{who} of this run ended too early{how}; look at {whose}, or torchrun's{_hint()}")


def _on_sigterm(number: int, _frame) -> None:
    if not ending.is_set() and _dead_peers():
        raise _died()
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


def _end_if_hung() -> None:
    while not ending.wait(CHECK_SECONDS):
        if _dead_peers():
            if not ending.wait(STUCK_SECONDS):
                end_at_once(str(_died()))
            return


def check(error: BaseException) -> None:
    """Determine whether an exception that ends this process was caused by the death of a peer.

    Raises:
        ProcessDied: it was.
    """
    ending.set()
    while error is not None and not isinstance(error, KeyboardInterrupt):
        if isinstance(error, ProcessDied):
            raise error
        if isinstance(error, RuntimeError) and (found := _LOST.search(str(error))):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # of torchrun: this process is exiting already
            end = time.monotonic() + ENDING_SECONDS
            while _peers and not _dead_peers() and time.monotonic() < end:  # torchrun should reap the dead peer first
                time.sleep(0.02)
            raise _died(f" ({found[0]})")
        error = error.__cause__ or error.__context__
