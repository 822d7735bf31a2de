"""Resuming a run: from which state, whether it is of the same run, and how a user is told to."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from utils.checkpoint import LAST, PREVIOUS, CheckpointError, load_checkpoint
from utils.errors import UsageError
from utils.options import AUTO, differences


class Saved(NamedTuple):
    """A state that was saved: where, and what ``torch.load`` gives for it."""

    path: Path
    content: dict


def find_saved(resume: str | None, folder: Path, advice: str) -> tuple[Saved | None, str]:
    """The state that ``--resume`` asks for, and what the user should know about it ('' if nothing).

    A path is that file. ``auto`` is the last state in ``folder``, or the one before if the last is damaged; None if
    the run has saved none. ``advice`` is what to do where there is no such file.

    Raises:
        CheckpointError: there are files, none of which can be read.
    """
    if resume is None:
        return None, ""
    if resume != AUTO:
        return Saved(Path(resume), load_checkpoint(resume, advice)), f"resuming from {resume}"
    damaged = []
    for path in (folder / LAST, folder / PREVIOUS):
        if path.is_file():
            try:
                return Saved(path, load_checkpoint(path)), "; ".join([*damaged, f"resuming from {path}"])
            except CheckpointError as error:
                damaged.append(str(error))
    if damaged:
        raise CheckpointError(f"{'; '.join(damaged)}; to start afresh, give --overwrite in place of --resume")
    return None, ""


def check_same(here: dict, saved: dict, path: Path) -> None:
    """UsageError where the checkpoint at ``path`` is of a run with other options or data."""
    if told := differences(here, saved):
        raise UsageError(f"{path}: {told}; give the flags and the data it had")


def how_to_continue(script: str, argv: Sequence[str] | None) -> str:
    """The command that resumes a run of ``script``; None: the arguments of this process."""
    if argv is None:
        script, *argv = sys.argv
    words, kept = iter(argv), []
    for word in words:
        if word == "--resume":
            next(words, None)
        elif not word.startswith("--resume="):
            kept.append(word)
    return f"; continue with: {_launcher()} {shlex.join([script, *kept, '--resume', AUTO])}"


def _launcher() -> str:
    """python, or torchrun as it has started this process."""
    if "LOCAL_WORLD_SIZE" not in os.environ:
        return "python"
    is_one_machine = os.environ.get("GROUP_WORLD_SIZE", "1") == "1"
    return f"torchrun --nproc-per-node {os.environ['LOCAL_WORLD_SIZE']}" if is_one_machine else "torchrun …"


def hint(folder: Path, resumed: str | None) -> str:
    """How a user continues a run that has ended before its time, if it has saved anything."""
    last = folder / LAST
    path = last if last.exists() else resumed
    return f"; resume with --resume {path}" if path else ""
