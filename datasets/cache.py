"""Stores converted from other formats, kept beside their source and written again when the source changes."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from platformdirs import user_cache_path

from datasets.errors import DataError
from datasets.location import may_write
from datasets.store import Store
from datasets.writer import StoreWriter
from utils.errors import WriteError
from utils.files import one_at_a_time

READERS_VERSION = 2  # raise it when the readers write something else from the same source

logger = logging.getLogger(__name__)


def cached_store(
    source: Path, files: Sequence[Path], beside: Path, write: Callable[[StoreWriter], None], variant: str = ""
) -> Store:
    """The store of `source`, from the cache or made by `write(writer)`; `variant` tells stores of one source apart.

    It is out of date when the size or time of one of `files` changes. It lies in `beside`/.sits-store or, where
    that cannot be written, in the user's cache folder. Of several processes one makes it and the others wait for it.
    """
    stamp = _stamp(files)
    name = f"{source.stem}-{_digest(str(source.resolve()))}{variant}"
    folders = [beside / ".sits-store" / f"{source.stem}{variant}", user_cache_path("sits-moco") / name]
    for folder in folders:
        if (store := _fresh(folder, source, stamp)) is not None:
            return store
    reasons, unwritable = [], None
    for folder in folders:
        if not may_write(folder):
            reasons.append(f"{folder} is read-only")
            continue
        try:
            with one_at_a_time(folder):
                store = _fresh(folder, source, stamp)  # another process may have made it meanwhile
                return store if store is not None else _make(folder, source, files, stamp, write)
        except OSError as error:
            reasons.append(f"{folder}: {error.strerror}")
            unwritable = error if isinstance(error, WriteError) else unwritable
    if unwritable:
        raise unwritable
    raise DataError(
        f"{source}: its store cannot be kept ({'; '.join(reasons)}); set XDG_CACHE_HOME to a folder to write to"
    )


def _make(folder: Path, source: Path, files: Sequence[Path], stamp: str, write: Callable[[StoreWriter], None]) -> Store:
    logger.info("%s: reading %d file(s) into a store, once", source, len(files))
    provenance = {"source": str(source), "stamp": stamp}
    with StoreWriter(folder, provenance=provenance, source=str(source), overwrite=True) as writer:
        write(writer)
    return Store.open(folder, str(source))


def _fresh(folder: Path, source: Path, stamp: str) -> Store | None:
    try:
        store = Store.open(folder, str(source))
    except DataError:
        return None
    return store if store.meta["provenance"].get("stamp") == stamp else None


def _stamp(files: Sequence[Path]) -> str:
    """Changes with the name, size or modification time of any of the files, and with the readers."""
    states = [(file.name, (state := file.stat()).st_size, state.st_mtime_ns) for file in files]
    return _digest(repr((READERS_VERSION, states)))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
