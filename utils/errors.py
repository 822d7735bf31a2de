"""How a script ends when its user, not its author, made the mistake: one line on stderr, exit code 2."""

from __future__ import annotations

import functools
import os
import sys


class UsageError(ValueError):
    """Something the user gave cannot be used; the message is one line that says what, and what to do."""


def _fail(message: str) -> int:
    """Say what is wrong, and return the exit code; ranks other than the first say who they are."""
    rank = os.environ.get("RANK", "0")
    print(f"{'' if rank == '0' else f'[rank {rank}] '}error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def exit_cleanly(*error_classes: type[Exception]):
    """Decorate a script's ``main`` so that errors of these classes print one line and exit with code 2.

    So do files that cannot be read or written. Any other exception is a bug and keeps its traceback. An interrupt exits
    with 130, as shells expect.
    """

    def decorate(main):
        @functools.wraps(main)
        def wrapped(*args, **kwargs):
            try:
                return main(*args, **kwargs)
            except (UsageError, *error_classes) as error:
                sys.exit(_fail(str(error)))
            except BrokenPipeError:  # the reader (`| head`) went away; nothing more can be said to it
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                sys.exit(1)
            except OSError as error:
                if error.filename is None:
                    raise
                sys.exit(_fail(f"{error.filename}: {error.strerror}"))
            except KeyboardInterrupt as interrupt:
                print(str(interrupt) or "interrupted", file=sys.stderr)
                sys.exit(130)

        return wrapped

    return decorate
