"""Resuming a run: from which state, whether it is of the same run, and how a user is told to."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from utils.checkpoint import CheckpointError, load_checkpoint
from utils.errors import UsageError
from utils.files import PARTIAL, atomic_write
from utils.results.logs import set_aside

LAST, PREVIOUS = "model_last.pth", "model_last.prev.pth"
AUTO = "auto"  # in place of a path: the last state in the run's own folder
BESIDE = ("trainlog.csv", "model_best.pth")  # of the run so far

FLAGS = {"model": "model", "data": "data", "batchsize": "-b", "learning_rate": "-lr", "epochs": "-e"} | {
    "length_method": "length method (--rc, --pad, --interp)"
}


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
        raise CheckpointError(f"{'; '.join(damaged)}; to start afresh, leave out --resume")
    return None, ""


def arguments(options: dict) -> dict:
    """The command line of a run as args.json has it: the same for all processes that have resumed it."""
    return {name: value for name, value in options.items() if name not in ("resume", "save_minutes")}


def enter_folder(folder: Path, saved: Saved | None) -> None:
    """Make ``folder`` that of the run so far, which may have been in another one; None: of a run from its beginning.

    Log and best checkpoint are then copied, and what another run left in ``folder`` is set aside. Files that a killed
    writer left unfinished are removed.
    """
    source = saved.path.parent if saved else folder
    if source.resolve() != folder.resolve():
        set_aside(folder, None)
        folder.mkdir(parents=True, exist_ok=True)
        for name in BESIDE:
            if (source / name).is_file():
                with atomic_write(folder / name) as partial:
                    shutil.copyfile(source / name, partial)
    for file in folder.glob(f".*{PARTIAL}*"):
        file.unlink(missing_ok=True)


def differences(here: dict, saved: dict, where: str = "the checkpoint") -> str:
    """What tells the options of this run from those of a saved one, one by one; '' if nothing does.

    Options that only one of them has are not compared.
    """
    told = []
    for name in here:
        if name not in saved or here[name] == saved[name]:
            continue
        flag = FLAGS.get(name, f"--{name.replace('_', '-')}")
        if isinstance(here[name], bool):
            own, other = (f"{'with' if is_set else 'without'} {flag}" for is_set in (here[name], saved[name]))
            told.append(f"{own} here, {other} in {where}")
        else:
            told.append(f"{flag} {here[name]} here, {saved[name]} in {where}")
    return "; ".join(told)


def check_same(here: dict, saved: dict, path: Path, where: str = "the checkpoint") -> None:
    """UsageError where what was saved at ``path`` is of a run with other options or data."""
    if told := differences(here, saved, where):
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
