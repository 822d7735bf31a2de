"""Run folders: each is of one run, no result makes way for another, and one process at a time writes to one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from enum import Enum
from glob import escape
from pathlib import Path
from typing import NamedTuple

from utils.checkpoint import LAST
from utils.errors import UsageError
from utils.files import PARTIAL, as_json, lock_beside, make_folder, partial_of, write_text
from utils.locks import Held, hold
from utils.options import differences
from utils.results.runs import NOT_THE_EXPERIMENT, read_arguments
from utils.runtime.distributed import World

AUTO = "auto"  # as --suffix
FINISHED = "finished"  # the file that a run leaves at its end
RESULTS = (LAST, "model_best.pth", "model_best.skops", "testlog.csv", FINISHED)  # what cost time
# Arguments that two runs of one folder may differ in: what --resume may change, and what follows from the others.
NOT_COMPARED = (NOT_THE_EXPERIMENT - {"seed", "data"}) | frozenset(
    "suffix overwrite resume evaluate save_minutes recipe_used length_method".split()
)
RECORDED = ("data", "pretrained_digest")  # not flags: what the files were that the flags name


def recorded(args: dict) -> dict:
    """The arguments as args.json has them: a suffix that was chosen by itself is none of the experiment."""
    return args | {"suffix": None if args["suffix"] == AUTO else args["suffix"]}


class State(Enum):
    """What a run's folder holds, for a command with its arguments."""

    EMPTY = 0  # nothing that could be lost
    UNFINISHED = 1  # this run, which --resume continues
    FINISHED = 2  # this run


class Place(NamedTuple):
    """A run's folder, which is locked, and what is in it."""

    folder: Path
    state: State

    def finish(self) -> None:
        """Mark the run as finished, when all its files are written."""
        write_text(self.folder / FINISHED, f"{datetime.now().astimezone().isoformat(timespec='seconds')}\n")


@contextmanager
def claim(
    name_of: Callable[[str | None], Path],
    args: dict,
    world: World,
    *,
    suffix: str | None,
    overwrite: bool = False,
    resumed_from: str | Path | None = None,
) -> Iterator[Place]:
    """Lock the folder of a run with these arguments, ``name_of(suffix)``, as long as it is written.

    With the suffix 'auto' it is the first of NAME, NAME_2, NAME_3 … that holds no other run and is not being written.
    ``overwrite`` removes what is there. A run that is ``resumed_from`` a checkpoint in the folder goes on there. Rank 0
    holds the lock and decides for all ranks.

    Raises:
        UsageError: the folder holds another run, or an unfinished one, or another process holds the lock; also if the
            folder of runs is a file.
    """
    suffixes = [None, *map(str, range(2, 1000))] if suffix == AUTO else [suffix]
    with ExitStack() as stack:
        number, state = 0, State.EMPTY
        if world.is_main:
            folders = [name_of(each) for each in suffixes]
            number, state = _choose(folders, args, stack, overwrite=overwrite, resumed_from=resumed_from)
        number, state = world.from_main(number), State(world.from_main(state.value))
        yield Place(name_of(suffixes[number]), state)


def _choose(folders: list[Path], args: dict, stack: ExitStack, **options) -> tuple[int, State]:
    """The first folder that can be taken and its state, with the lock on the stack."""
    for number, folder in enumerate(folders):
        with ExitStack() as attempt:
            try:
                attempt.enter_context(locked(folder))
                state = _take(folder, args, **options)
            except UsageError:
                if number + 1 == len(folders):
                    raise
                continue
            stack.push(attempt.pop_all())
            return number, state
    raise AssertionError("no folders")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
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
                f"{folder}: {held} is writing it; wait until it has finished, or give --suffix auto"
            ) from None
        yield


def _take(folder: Path, args: dict, *, overwrite: bool, resumed_from: str | Path | None) -> State:
    """What the folder holds; UsageError where that would be lost or mixed with a run of these arguments."""
    if resumed_from and Path(resumed_from).resolve().parent == folder.resolve():
        (folder / FINISHED).unlink(missing_ok=True)
        return State.UNFINISHED
    if overwrite or not has_results(folder):
        remove(folder)
        return State.EMPTY
    if told := other_arguments(folder, args):
        raise UsageError(_refusal(folder, told))
    if is_finished(folder):
        return State.FINISHED
    if (folder / LAST).exists():
        raise UsageError(f"{folder}: holds this run, unfinished; continue it with --resume auto, or --overwrite it")
    remove(folder)
    return State.EMPTY


def has_results(folder: Path) -> bool:
    """Whether a folder holds anything that a run has come to."""
    return any((folder / name).exists() for name in RESULTS)


def _refusal(folder: Path, told: str) -> str:
    return f"{folder}: holds another run: {told}; give --suffix X or --suffix auto, or --overwrite to replace it"


def refuse_other_run(folder: Path, args: dict) -> None:
    """UsageError if the folder holds a run that differs in one of these arguments."""
    if has_results(folder) and (told := other_arguments(folder, args, names=args.keys())):
        raise UsageError(_refusal(folder, told))


def other_arguments(folder: Path, args: dict, *, names: Collection[str] | None = None) -> str:
    """How the arguments of the run in a folder differ from these, flag by flag; '' if they do not.

    Only those of some ``names`` are compared, or all. An option that is missing is as good as one that is not given.
    """
    kept = read_arguments(folder / "args.json")
    if kept is None:
        return "its args.json is missing or damaged"
    here = json.loads(as_json(args))
    left_out = NOT_COMPARED | {name for name in RECORDED if name not in kept or name not in here}
    if "data" in kept:  # they may have moved
        left_out |= {"datapath"}
    names = [
        name for name in dict.fromkeys([*here, *kept]) if name not in left_out and (names is None or name in names)
    ]
    return differences(
        {name: _value(name, here, kept) for name in names}, {name: _value(name, kept, here) for name in names}, "there"
    )


def _value(name: str, of: dict, other: dict):
    """An argument, or where it is missing what it is if not given."""
    if name in of:
        return of[name]
    return other[name] if not other[name] else False if isinstance(other[name], bool) else None


def is_finished(folder: Path) -> bool:
    """Whether the run in a folder has come to its end. Earlier versions left no mark, but only then a testlog.csv."""
    return (folder / FINISHED).exists() or (folder / "testlog.csv").exists() and not (folder / LAST).exists()


def remove(folder: Path) -> None:
    """Remove a run's folder, if it is one. The lock is held, so what an earlier removal has left is removed too."""
    if (folder / "args.json").exists() or has_results(folder):
        folder.rename(partial_of(folder))
    for leftover in folder.parent.glob(f"{escape(folder.name)}{PARTIAL}*"):
        shutil.rmtree(leftover, ignore_errors=True)
