"""Errors that a user can cause, and how a script ends on them: one line on stderr, exit code 2, no traceback."""

from __future__ import annotations

import argparse
import functools
import os
import signal
import sys
from collections.abc import Callable
from errno import EDQUOT, ENOSPC, EROFS
from typing import NoReturn

UNWRITABLE = (ENOSPC, EDQUOT, EROFS)  # says the system of disks; other numbers can also mean reading
CLEAR_LINE = "\r\x1b[K"  # on a terminal


class UsageError(ValueError):
    """An input or option that cannot be used; the message is one line that says what is wrong and what to do."""


class WriteError(OSError):
    """A file or folder, ``filename``, that cannot be written: the disk is full, or it is read-only.

    ``strerror`` is the rest of one line: why, how much space it needs, and what to do.
    """

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


class Parser(argparse.ArgumentParser):
    """An argument parser that raises a UsageError of one line instead of printing its usage."""

    def error(self, message: str):
        raise UsageError(f"{message}; see --help")


class ProcessDied(BaseException):
    """A peer has died and this process cannot continue; the message is one line.

    A BaseException like KeyboardInterrupt, so that `except Exception` in a library does not swallow it.
    """


class Stopped(KeyboardInterrupt):
    """A signal has ended this process in good order; the message is one line, the exit code 128 + ``number``."""

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.number = number


_diagnose: Callable[[BaseException], None] = lambda error: None  # noqa: E731


def diagnose_by(diagnose: Callable[[BaseException], None]) -> None:
    """Have ``diagnose`` called with every exception that ends a script; it may raise a ProcessDied in its place."""
    global _diagnose
    _diagnose = diagnose


def _say(line: str) -> None:
    """Write a line to stderr in one call, as peers write there too; on a terminal it replaces a progress bar."""
    sys.stderr.write(f"{CLEAR_LINE if sys.stderr.isatty() else ''}{line}\n")


def _fail(message: str, code: int = 2) -> int:
    """Print the error, with the rank unless it is 0, and return the exit code."""
    rank = os.environ.get("RANK", "0")
    _say(f"{'' if rank == '0' else f'[rank {rank}] '}error: {' '.join(message.split())}")
    return code


def end_at_once(message: str) -> NoReturn:
    """Exit with code 1 because a peer has died; Python's own shutdown could hang in a collective with it."""
    _fail(message)
    try:
        sys.stdout.flush()
    finally:
        os._exit(1)


def exit_cleanly(main):
    """Decorate a script's ``main`` so that a UsageError prints one line and exits with code 2.

    The same for a file that cannot be read; for one that cannot be written, because the disk is full or read-only, the
    exit code is 1. Any other exception is a bug and keeps its traceback, unless the death of a peer caused it: that is
    one line and exit code 1. An interrupt exits with 130 and SIGTERM with 143, as shells expect.
    """

    @functools.wraps(main)
    def wrapped(*args, **kwargs):
        try:
            try:
                return main(*args, **kwargs)
            except BaseException as error:
                _diagnose(error)
                raise
        except ProcessDied as died:
            end_at_once(str(died))
        except UsageError as error:
            sys.exit(_fail(str(error)))
        except BrokenPipeError:  # the reader (`| head`) has exited: no output can reach it
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except WriteError as error:
            sys.exit(_fail(str(error), code=1))
        except OSError as error:
            if error.filename is None:
                raise
            sys.exit(_fail(f"{error.filename}: {error.strerror}", 1 if error.errno in UNWRITABLE else 2))
        except KeyboardInterrupt as interrupt:
            _say(str(interrupt) or "interrupted")
            sys.exit(128 + getattr(interrupt, "number", signal.SIGINT))

    return wrapped
