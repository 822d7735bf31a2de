"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EEXIST
from glob import escape
from pathlib import Path

from utils.locks import Held, hold

PARTIAL = ".partial-"  # in the name of everything that is unfinished


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield the path of an empty temporary file beside `path`, with the same suffix, to write to.

    A clean exit flushes it to the disk and renames it to `path`; an exception removes it and leaves what was there. So
    a kill or a power cut leaves the old file or the new one, never half of one. An OSError names `path`.
    """
    path = Path(path)
    partial = path.with_name(f".{path.stem}{PARTIAL}{secrets.token_hex(4)}{path.suffix}")
    try:
        partial.open("xb").close()
        yield partial
        sync(partial)
        os.replace(partial, path)
        sync(path.parent)
    except OSError as error:
        if str(error.filename) != str(partial):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 file, whole or not at all."""
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def atomic_folder(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty folder `<name>.partial-…` beside `path`, to fill with files.

    A clean exit flushes its files to the disk and renames it to `path`; an exception removes it. With `overwrite` it
    takes the place of what is at `path`. What writers that were killed left of `path` is removed first: a writer holds
    a lock as long as it lives, so nothing that is being written is taken for such.

    Raises:
        FileExistsError: without `overwrite`, another folder has taken the name meanwhile.
        OSError: the folder cannot be made or renamed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    folder = _partial_of(path)
    folder.mkdir()
    with hold(_lock_of(folder)):
        try:
            yield folder
            for file in folder.rglob("*"):
                sync(file)
            sync(folder)
            _put_in_place(folder, path, overwrite)
            sync(path.parent)
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # already renamed after a clean exit


@contextmanager
def one_at_a_time(path: str | Path) -> Iterator[None]:
    """Let one process after another do something about `path`, such as making it; the lock is `.<name>.lock` beside it.

    Check inside whether another process has done it already.
    """
    with hold(lock_beside(path)):
        yield


def lock_beside(path: str | Path) -> Path:
    """The lock file of something that is or will be at `path`."""
    path = Path(path)
    return path.with_name(f".{path.name}.lock")


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder (POSIX only), to the disk."""
    if path.is_dir() and os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _partial_of(path: Path) -> Path:
    return path.with_name(f"{path.name}{PARTIAL}{secrets.token_hex(4)}")


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _put_in_place(folder: Path, path: Path, overwrite: bool) -> None:
    """Rename a finished folder; what it replaces is moved aside first and then removed."""
    replaced = _partial_of(path) if overwrite and path.exists() else None
    if replaced is not None:
        path.rename(replaced)
    elif path.exists():  # an empty folder would be replaced without an error
        raise FileExistsError(EEXIST, os.strerror(EEXIST), str(path))
    try:
        folder.rename(path)
    except OSError:
        if path.exists():
            raise FileExistsError(EEXIST, os.strerror(EEXIST), str(path)) from None
        raise
    if replaced is not None:
        shutil.rmtree(replaced, ignore_errors=True)


def _remove_leftovers(path: Path) -> None:
    for folder in path.parent.glob(f"{escape(path.name)}{PARTIAL}*"):
        lock = _lock_of(folder)
        if not lock.is_file():  # just made, and not locked yet
            continue
        with suppress(Held), hold(lock, wait=False):
            shutil.rmtree(folder, ignore_errors=True)
