"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EACCES, EDQUOT, EEXIST, EFBIG, EIO, ENOSPC, EPERM, EROFS
from glob import escape
from pathlib import Path

import numpy as np
import pandas as pd

from utils.errors import WriteError
from utils.locks import Held, hold

PARTIAL = ".partial-"  # in the name of everything that is unfinished
FULL = frozenset((ENOSPC, EDQUOT, EFBIG))  # the disk, a quota, or what the shell's ulimit lets a file have
BLOCK = 1 << 20  # bytes; with less the disk is full for who writes blocks
UNWRITABLE = FULL | {EROFS, EACCES, EPERM, EIO}


@contextmanager
def atomic_write(path: str | Path, *, size: int = 0) -> Iterator[Path]:
    """Yield the path of an empty temporary file beside `path`, with the same suffix, to write to.

    A clean exit flushes it to the disk and renames it to `path`; an exception removes it and leaves what was there. So
    a kill or a power cut leaves the old file or the new one, never half of one. `size` is the space in bytes that the
    file will need, if that is known.

    Raises:
        WriteError: the disk is full, or the folder read-only.
        OSError: anything else is wrong with `path`, which it names.
    """
    path = Path(path)
    partial = path.with_name(f".{path.stem}{PARTIAL}{secrets.token_hex(4)}{path.suffix}")
    try:
        with naming(path, partial, size):
            partial.open("xb").close()
            yield partial
            sync(partial)
            os.replace(partial, path)
            sync(path.parent)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def write_bytes(path: str | Path, content: bytes | memoryview, *, previous: str | Path | None = None) -> None:
    """Write a file, whole or not at all. What was there stays as ``previous``, which may be there too."""
    with atomic_write(path, size=len(content)) as partial:
        partial.write_bytes(content)
        if previous and Path(path).exists():
            sync(partial)
            _keep(Path(path), Path(previous))


def _keep(path: Path, previous: Path) -> None:
    """Give a file a second name too, if there is room for a copy where the file system has no second names."""
    second = partial_of(previous)
    with suppress(OSError):
        try:
            try:
                os.link(path, second)
            except OSError:
                shutil.copyfile(path, second)
            os.replace(second, previous)
        finally:
            second.unlink(missing_ok=True)


def write_array(path: str | Path, array: np.ndarray) -> None:
    """Write a .npy file, whole or not at all."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_bytes(path, buffer.getbuffer())


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 file, whole or not at all."""
    write_bytes(path, text.encode())


def as_json(content) -> str:
    """JSON for people to read; what has no such form becomes text."""
    return json.dumps(content, indent=2, default=str) + "\n"


def write_csv(path: str | Path, table: pd.DataFrame, **options) -> None:
    """Write a table without its index, whole or not at all; ``options`` are those of pandas' to_csv."""
    write_text(path, table.to_csv(None, **{"index": False, "lineterminator": "\n"} | options))


def make_folder(path: str | Path) -> None:
    """Make a folder and those above it, unless it is there.

    Raises:
        WriteError: the disk is full, or the folder above is read-only.
        OSError: a file is in the way.
    """
    with naming(Path(path), Path(path)):
        Path(path).mkdir(parents=True, exist_ok=True)


@contextmanager
def atomic_folder(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty folder `<name>.partial-…` beside `path`, to fill with files.

    A clean exit flushes its files to the disk and renames it to `path`; an exception removes it. With `overwrite` it
    takes the place of what is at `path`. What writers that were killed left of `path` is removed first: a writer holds
    a lock as long as it lives, so nothing that is being written is taken for such.

    Raises:
        FileExistsError: without `overwrite`, another folder has taken the name meanwhile.
        WriteError: the disk is full, or the folder above is read-only.
        OSError: the folder cannot be made or renamed.
    """
    path = Path(path)
    make_folder(path.parent)
    _remove_leftovers(path)
    folder = partial_of(path)
    with naming(path, folder):
        folder.mkdir()
    with hold(_lock_of(folder)):
        try:
            with naming(path, folder):
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


@contextmanager
def naming(path: Path, partial: Path, size: int = 0) -> Iterator[None]:
    """Have errors of the disk name `path`, which is being written as `partial`, and say how much space that needs.

    Raises:
        WriteError: the disk is full, or the folder read-only.
        OSError: anything else is wrong with the file.
    """
    try:
        yield
    except WriteError as error:
        if not Path(error.filename).is_relative_to(partial):
            raise
        inside = path / Path(error.filename).relative_to(partial)
        raise WriteError(error.errno, error.strerror, str(inside)) from None
    except (OSError, RuntimeError) as error:
        file = getattr(error, "filename", None)
        if file is not None and not Path(file).is_relative_to(partial):
            raise
        code = getattr(error, "errno", None) or (ENOSPC if _is_full(partial.parent) else None)  # GDAL's have no number
        if code in UNWRITABLE:
            size = max(size, _size(partial), _size(path))
            raise cannot_write(path, size, code) from None
        if file is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None


def _is_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < BLOCK
    except OSError:
        return False


def cannot_write(path: Path, size: int, code: int = ENOSPC, why: str = "") -> WriteError:
    """The error for a file of ``size`` bytes; ``why``: what a library says that gives no number of the system's."""
    told = f"cannot be written ({why or os.strerror(code)}); it needs {max(size, 1):,} bytes"
    if code in FULL:
        with suppress(OSError):
            told += f", {shutil.disk_usage(path.parent).free:,} are free"
        told += "; make room there and run the same command again"
    else:
        told += " in a folder that can be written to"
    return WriteError(code, told, str(path))


def _size(path: Path) -> int:
    """Bytes in a file, or in all files of a folder; 0 where there is none."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def digest_of(path: str | Path) -> str:
    """The first 16 digits of the SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:16]


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


def partial_of(path: Path) -> Path:
    """A name beside `path` for what is unfinished, or about to be removed."""
    return path.with_name(f"{path.name}{PARTIAL}{secrets.token_hex(4)}")


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _put_in_place(folder: Path, path: Path, overwrite: bool) -> None:
    """Rename a finished folder; what it replaces is moved aside first and then removed."""
    replaced = partial_of(path) if overwrite and path.exists() else None
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
