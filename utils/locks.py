"""Locks between processes: one at a time does what only one may do, and the others learn who it is.

A lock is a file that exists as long as it is held, with the process and the host of its holder in two lines. The system
keeps it (flock; LockFile on Windows), so it ends with its process, also by SIGKILL or on another host. Where the file
system has no such locks, as some network file systems, the existence of the file is the lock (filelock's
SoftFileLock): that of a process that has died is taken over on its own host, and elsewhere has to be removed by hand.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import ENOLCK, ENOSYS, ENOTSUP, EOPNOTSUPP
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

WITHOUT_LOCKS = frozenset((ENOLCK, ENOSYS, ENOTSUP, EOPNOTSUPP))  # what file systems say that have none

GRACE_SECONDS = 0.2  # in which a soft lock of a process that has died is found and taken over


class Held(Exception):
    """Another process holds the lock; the message names it."""


@contextmanager
def hold(path: str | Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock file `path`, which is removed at the end; its folder is made if it is not there.

    Who waits for it must check what was done meanwhile.

    Raises:
        Held: another process holds it, and `wait` is False.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = acquire(path, timeout=-1 if wait else GRACE_SECONDS)
    try:
        yield
    finally:
        with suppress(OSError):  # Windows, where a file that is open stays
            path.unlink(missing_ok=True)
        lock.release()


def acquire(path: Path, **options) -> BaseFileLock:
    """A lock of filelock at `path`, acquired; ``options`` are those of FileLock.

    Raises:
        Held: another process has held it for the whole ``timeout``.
    """
    kind = FileLock if _has_locks(path.parent) else SoftFileLock
    try:
        lock = kind(path, **options)
        lock.acquire()
    except Timeout:
        raise Held(holder_of(path)) from None
    if kind is FileLock:  # the other one does it itself
        with suppress(OSError):  # Windows, where a locked file cannot be written
            path.write_text(f"{os.getpid()}\n{socket.gethostname()}\n", encoding="utf-8")
    return lock


def _has_locks(folder: Path) -> bool:
    """Whether the file system of a folder has locks; on Windows every one has."""
    if fcntl is None:
        return True
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                raise
            return False
    return True


def holder_of(path: Path) -> str:
    """Who holds a lock file: 'process 4711 on HOST', or 'another process' where it does not say."""
    try:
        pid, host = path.read_text(encoding="utf-8").split("\n")[:2]
        return f"process {int(pid)} on {host}"
    except (OSError, ValueError):
        return "another process"
