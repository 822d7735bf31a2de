"""Finished windows of a map on the disk, so that a map is continued where a run was interrupted.

    map.tif.parts/manifest.json     what the map is made of
    map.tif.parts/000017.part       a window: a SHA-256 (32 bytes), then arrays as .npz

The SHA-256 is that of the manifest, the number of the window and the arrays. A part appears whole or not at all, and
one that has changed since, or is of another map or window, counts as missing.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np

from datasets.errors import DataError
from mapping.identity import difference, sha256_of
from mapping.windows import Part
from utils.files import PARTIAL, sync, write_bytes, write_text

DIGEST = hashlib.sha256().digest_size
FORMAT = 1
FINISHED = "finished"  # in the folder: the SHA-256 of the whole map, which is about to be moved to its name


class Parts:
    """The parts of the map at `out`. Picklable: other processes write theirs."""

    def __init__(self, out: Path):
        self.out, self.folder = out, out.with_name(f"{out.name}.parts")

    @property
    def manifest(self) -> Path:
        return self.folder / "manifest.json"

    def start(self, identity: dict, overwrite: bool = False) -> None:
        """Make the folder, or accept what is in it; with `overwrite` parts of another map are removed.

        DataError: the parts are of another map; says what differs.
        """
        identity = json.loads(json.dumps({"format": {"version": FORMAT}, **identity}))
        if self.manifest.is_file():
            other = difference(self._read_manifest(), identity)
            if other is None:
                return
            if not overwrite:
                raise DataError(
                    f"{self.folder}: holds parts of another map, which differs in {other}; give the options and files"
                    " of that map to continue it, or --overwrite to begin anew"
                )
            self.remove()
        self.folder.mkdir(exist_ok=True)
        write_text(self.manifest, json.dumps(identity, indent=1))

    def identity(self) -> dict | None:
        """What the map is made of whose parts are there; `None` where there are none."""
        return self._read_manifest() if self.manifest.is_file() else None

    def _read_manifest(self) -> dict:
        try:
            return json.loads(self.manifest.read_text(encoding="utf-8"))
        except ValueError:
            raise DataError(f"{self.manifest}: damaged; remove {self.folder} and begin anew") from None

    def finish(self, whole: Path) -> None:
        """Move the whole map to its name, and remove the folder."""
        write_text(self.folder / FINISHED, sha256_of(whole))
        place(whole, self.out)
        self.remove()

    def is_finished(self) -> bool:
        """Whether the map has its name already, and a run was killed before it could remove the folder."""
        file = self.folder / FINISHED
        return self.out.is_file() and file.is_file() and file.read_text(encoding="utf-8") == sha256_of(self.out)

    def remove(self) -> None:
        """Remove the folder; its name is free at once."""
        aside = self.folder.with_name(f".{self.folder.name}{PARTIAL}old")
        shutil.rmtree(aside, ignore_errors=True)
        if self.folder.exists():
            self.folder.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)

    def path(self, number: int) -> Path:
        """File of a part."""
        return self.folder / f"{number:06d}.part"

    def write(self, number: int, part: Part) -> None:
        """Write a part; an OSError names its file."""
        arrays = {"values": part.values, "counts": np.array(json.dumps(part.counts))}
        if part.probabilities is not None:
            arrays["probabilities"] = part.probabilities
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        data = buffer.getvalue()
        write_bytes(self.path(number), self._digest(number, data) + data)

    def _digest(self, number: int, data: bytes) -> bytes:
        return hashlib.sha256(self.manifest.read_bytes() + b"\n%d\n" % number + data).digest()

    def read(self, number: int) -> Part | None:
        """A part; `None` where there is none, or one that does not have its checksum."""
        try:
            data = self.path(number).read_bytes()
        except FileNotFoundError:
            return None
        if data[:DIGEST] != self._digest(number, data[DIGEST:]):
            return None
        try:
            with np.load(io.BytesIO(data[DIGEST:]), allow_pickle=False) as arrays:
                return Part(arrays["values"], arrays.get("probabilities"), json.loads(str(arrays["counts"])))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            return None

    def missing(self, count: int) -> list[int]:
        """Numbers below `count` of windows that are not there."""
        return [number for number in range(count) if self.read(number) is None]


def place(unfinished: Path, path: Path) -> None:
    """Give a finished file its name."""
    sync(unfinished)
    os.replace(unfinished, path)
    sync(path.parent)
