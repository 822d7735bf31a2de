"""Run folders: each is of one run, no result makes way for another, and one process at a time writes to one.

Two runs are the same if their identities are: what decides what a run computes, by option, as its args.json and its
checkpoints have it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from enum import Enum
from glob import escape
from pathlib import Path
from typing import NamedTuple

from utils.checkpoint import LAST, PREVIOUS
from utils.errors import UsageError
from utils.files import PARTIAL, as_json, lock_beside, make_folder, partial_of, write_bytes, write_text
from utils.locks import Held, hold
from utils.options import AUTO, differences
from utils.results.resume import Saved
from utils.results.runs import read_arguments
from utils.runtime.distributed import World

FINISHED = "finished"  # the file that a run leaves at its end
STATES = (LAST, PREVIOUS)  # what a run resumes from
RESULTS = (*STATES, "model_best.pth", "model_best.skops", "testlog.csv", FINISHED)  # what cost time
BESIDE = ("trainlog.csv", "model_best.pth")  # a checkpoint, of the run so far
NOT_RECORDED = frozenset(("resume", "save_minutes", "overwrite", "jobs"))  # of the process, not of the run
ELSEWHERE = "--suffix X or auto"


def recorded(options: dict) -> dict:
    """The command line of a run as args.json has it: the same for all processes that have resumed it."""
    kept = {name: value for name, value in options.items() if name not in NOT_RECORDED}
    return kept | ({"suffix": None} if options.get("suffix") == AUTO else {})


class State(Enum):
    """What a folder holds, for a command that asks for a run."""

    EMPTY = 0  # nothing that is kept
    UNFINISHED = 1  # this run, which --resume continues
    FINISHED = 2  # this run


class Place(NamedTuple):
    """A run's folder, which is locked, and what is in it."""

    folder: Path
    state: State

    def enter(self, saved: Saved | None) -> None:
        """Make the folder that of the run so far, which may have been in another one; None: of one at its beginning.

        From another folder log and best checkpoint are copied. What is not kept is removed, and so are the files that a
        killed writer left unfinished.
        """
        folder, source = self.folder, saved.path.parent if saved else None
        if self.state is State.EMPTY:
            remove(folder)
        make_folder(folder)
        if source and source.resolve() != folder.resolve():
            for file in (source / name for name in BESIDE):
                if file.is_file():
                    write_bytes(folder / file.name, file.read_bytes())
        for file in (*folder.glob(f"*{PARTIAL}*"), folder / FINISHED):
            file.unlink(missing_ok=True)

    def finish(self) -> None:
        """Mark the run as finished, when all its files are written."""
        write_text(self.folder / FINISHED, f"{datetime.now().astimezone().isoformat(timespec='seconds')}\n")


@contextmanager
def claim(
    name_of: Callable[[str | None], Path],
    identity: dict,
    world: World,
    *,
    suffix: str | None,
    overwrite: bool = False,
    resume: str | None = None,
    elsewhere: str = ELSEWHERE,
) -> Iterator[Place]:
    """Lock the folder of a run of this identity, ``name_of(suffix)``, as long as it is written.

    With the suffix 'auto' it is the first of NAME, NAME_2, NAME_3 … that holds no other run and is not being written.
    Rank 0 holds the lock and decides for all ranks. The other options are those of ``examine``.

    Raises:
        UsageError: as of ``examine`` and ``locked``.
    """
    suffixes = [None, *map(str, range(2, 1000))] if suffix == AUTO else [suffix]
    with ExitStack() as stack:
        number, state = 0, State.EMPTY
        if world.is_main:
            folders = [name_of(each) for each in suffixes]
            options = {"overwrite": overwrite, "resume": resume, "elsewhere": elsewhere}
            number, state = _choose(folders, stack, identity, **options)
        number, state = world.from_main(number), State(world.from_main(state.value))
        yield Place(name_of(suffixes[number]), state)


def _choose(folders: list[Path], stack: ExitStack, identity: dict, **options) -> tuple[int, State]:
    """The first folder that can be taken and its state, with the lock on the stack."""
    for number, folder in enumerate(folders):
        with ExitStack() as attempt:
            try:
                attempt.enter_context(locked(folder, options["elsewhere"]))
                state = examine(folder, identity, **options)
            except UsageError:
                if number + 1 == len(folders):
                    raise
                continue
            stack.push(attempt.pop_all())
            return number, state
    raise AssertionError("no folders")


@contextmanager
def locked(folder: Path, elsewhere: str = ELSEWHERE) -> Iterator[None]:
    """Be the one process that writes to a run's folder; UsageError names the one that does."""
    try:
        make_folder(folder.parent)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"{folder}: cannot be written ({error.strerror}); give another --logdir") from None
    with ExitStack() as stack:
        try:
            stack.enter_context(hold(lock_beside(folder), wait=False))
        except Held as held:
            raise UsageError(
                f"{folder}: {held} is writing it; wait until it has finished, or give {elsewhere}"
            ) from None
        yield


def examine(
    folder: Path,
    identity: dict,
    *,
    overwrite: bool = False,
    resume: str | None = None,
    elsewhere: str = ELSEWHERE,
) -> State:
    """What a folder holds for a run of this identity.

    Args:
        overwrite: whatever is there is not kept.
        resume: 'auto', or the checkpoint that the run resumes from; one that is in this folder is of the run.
        elsewhere: how a user names another folder.

    Raises:
        UsageError: it holds another run, or this one, unfinished, and is not to be resumed there.
    """
    if resume not in (None, AUTO) and Path(resume).resolve().parent == folder.resolve():
        return State.UNFINISHED
    if overwrite or not any((folder / name).exists() for name in RESULTS):
        return State.EMPTY
    has_state = any((folder / name).exists() for name in STATES)
    there = (read_arguments(folder / "args.json") or {}).get("identity")
    told = "its args.json is damaged or of an earlier version"
    if isinstance(there, dict):
        told = differences(json.loads(as_json(identity)), there, "there")
    elif has_state and resume == AUTO:  # its checkpoints may tell
        return State.UNFINISHED
    if told:
        raise UsageError(f"{folder}: holds another run: {told}; give {elsewhere}, or --overwrite to replace it")
    if (folder / FINISHED).exists():
        return State.FINISHED
    if has_state and resume != AUTO:
        raise UsageError(f"{folder}: holds this run, unfinished; continue it with --resume auto, or --overwrite it")
    return State.UNFINISHED if has_state else State.EMPTY


def remove(folder: Path) -> None:
    """Remove a run's folder, if it is one. The lock is held, so what an earlier removal has left is removed too."""
    if any((folder / name).exists() for name in ("args.json", *RESULTS)):
        folder.rename(partial_of(folder))
    for leftover in folder.parent.glob(f"{escape(folder.name)}{PARTIAL}*"):
        shutil.rmtree(leftover, ignore_errors=True)
