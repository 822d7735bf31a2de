"""Errors of the user, and how a script ends on them: one line on stderr and exit code 2, no traceback."""

from __future__ import annotations

import argparse
import functools
import os
import sys
from typing import NoReturn

CLEAR_LINE = "\r\x1b[K"  # of a terminal


class UsageError(ValueError):
    """Something the user gave cannot be used; the message is one line that says what, and what to do."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are a UsageError: one line, without the usage."""

    def error(self, message: str):
        raise UsageError(f"{message}; see --help")


class ProcessDied(BaseException):
    """Another process of this run has died, and this one cannot go on, like an interrupt; the message is one line."""


def _say(line: str) -> None:
    """Write a line to stderr, in one piece, as other processes write there too; on a terminal over a progress bar."""
    sys.stderr.write(f"{CLEAR_LINE if sys.stderr.isatty() else ''}{line}\n")


def _fail(message: str) -> int:
    """Say what is wrong, and return the exit code; ranks other than the first say who they are."""
    rank = os.environ.get("RANK", "0")
    _say(f"{'' if rank == '0' else f'[rank {rank}] '}error: {' '.join(message.split())}")
    return 2


def end_at_once(message: str) -> NoReturn:
    """End with exit code 1 because another process has died; what Python does at its end may wait for that one."""
    _fail(message)
    try:
        sys.stdout.flush()
    finally:
        os._exit(1)


def exit_cleanly(main):
    """Decorate a script's ``main`` so that a UsageError prints one line and exits with code 2.

    So does a file that cannot be read or written. Any other exception is a bug and keeps its traceback, unless the
    death of a peer caused it: that is one line and exit code 1. An interrupt exits with 130, as shells expect.
    """

    @functools.wraps(main)
    def wrapped(*args, **kwargs):
        try:
            try:
                return main(*args, **kwargs)
            except BaseException as error:
                if os.environ.get("WORLD_SIZE", "1") != "1":
                    from utils.runtime import watchdog  # which imports this module

                    watchdog.check(error)
                raise
        except ProcessDied as died:
            end_at_once(str(died))
        except UsageError as error:
            sys.exit(_fail(str(error)))
        except BrokenPipeError:  # the reader (`| head`) has exited, so nothing more can be said to it
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except OSError as error:
            if error.filename is None:
                raise
            sys.exit(_fail(f"{error.filename}: {error.strerror}"))
        except KeyboardInterrupt as interrupt:
            _say(str(interrupt) or "interrupted")
            sys.exit(130)

    return wrapped
