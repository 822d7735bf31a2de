"""What a half-finished command was started with, so that only the same command continues its work."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from datasets.errors import DataError
from utils.files import write_text
from utils.locks import Held, hold

MANIFEST = "manifest.json"


@contextmanager
def work_folder(folder: Path, fingerprint: dict, *, overwrite: bool = False) -> Iterator[Path]:
    """A folder for finished parts, kept when the work is interrupted and removed by `remove`.

    `fingerprint` is plain data that decides the result. DataError if the folder is of another one (naming what
    differs) and `overwrite` does not say to throw its parts away, or if another process is working in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(hold(folder / ".lock", wait=False))
        except Held as held:
            raise DataError(f"{folder}: {held} is working there; wait until it has finished") from None
        manifest = folder / MANIFEST
        fingerprint = json.loads(json.dumps(fingerprint, default=str))
        if manifest.exists() and (old := _read(manifest)) != fingerprint:
            if not overwrite:
                raise DataError(
                    f"{folder}: holds parts of an interrupted run with other input: {differences(old, fingerprint)};"
                    " give the same again to continue it, or --overwrite to throw its parts away"
                )
            manifest.unlink()
        if not manifest.exists():
            for part in folder.glob("*.part"):
                part.unlink()
            write_text(manifest, json.dumps(fingerprint, indent=2))
        yield folder


def remove(folder: Path) -> None:
    """Remove a work folder, and the folder of work folders if it was the last."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.parent.rmdir()
    except OSError:  # others are at work
        return


def digest(fingerprint: dict) -> str:
    """A short name for a fingerprint."""
    text = json.dumps(fingerprint, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def file_record(path: Path) -> dict:
    """Name, size and hash of a file, for provenance; DataError if it is not there."""
    content = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            content.update(block)
    return {"name": path.name, "bytes": path.stat().st_size, "blake2b": content.hexdigest()}


def differences(old: object, new: object, limit: int = 3) -> str:
    """'seed was 1, is 2; …': the first few places in which nested plain data differ."""
    found = list(_differences(old, new, ""))
    more = f" and {len(found) - limit} more" if len(found) > limit else ""
    return "; ".join(found[:limit]) + more


def _differences(old: object, new: object, name: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from _differences(old.get(key), new.get(key), f"{name}.{key}" if name else str(key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, pair in enumerate(zip(old, new, strict=True)):
            yield from _differences(*pair, f"{name}[{number}]")
    elif old != new:
        yield f"{name} was {_short(old)}, is {_short(new)}"


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _read(manifest: Path) -> dict | None:
    try:
        return json.loads(manifest.read_text(encoding="utf-8"))
    except ValueError:
        return None
