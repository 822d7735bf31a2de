"""What a map is made of, as plain values: a map is continued from parts of the same alone."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from datasets.imagery.raster import Header
from mapping.legend import Entry
from mapping.windows import Plan
from tscls.classifier import FILES

PIECE = 1 << 20
PRIOR = "class shares"  # the section


def model_file(path: str | Path) -> Path:
    """The checkpoint that `load_classifier` reads: the file, or the one in a run folder."""
    path = Path(path)
    return next((path / name for name in FILES if (path / name).is_file()), path)


def sha256_of(path: str | Path) -> str:
    """Digest of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def identity(plan: Plan, model: Path, root: Path) -> dict[str, dict]:
    """Sections of plain values that decide what every pixel of the map becomes; `root`: where the images were given.

    The section PRIOR is that of a map without (`mapping.shares`).
    """
    images, within = plan.images, plan.within
    root = root if root.is_dir() else root.parent
    return {
        "model": {"file": model.name, "sha256": sha256_of(model)},
        "classes": {str(one.id): _class(one) for one in plan.classes},
        "images": {os.path.relpath(file, root): _file(file, header) for file, header in sorted(images.headers.items())},
        "dates": {_short_name(image.name, root): image.day.isoformat() for image in images.images},
        "values": {key: value for key, value in images.decided.items() if key not in ("offsets", "scales")},
        "offsets": {_short_name(image.name, root): [image.scale, image.offset] for image in images.images},
        "left out": {str(i): line for i, line in enumerate(images.skipped)},
        "grid": {
            "crs": plan.box.grid.crs.to_wkt(),
            "transform": list(plan.box.grid.transform)[:6],
            "height": plan.box.grid.height,
            "width": plan.box.grid.width,
        },
        "options": {
            **{key: value for key, value in plan.options._asdict().items() if value is not None},
            "window": plan.size,
            "within": None if within is None else {"file": str(within.path), **_stat(within.path)},
        },
        PRIOR: {},
    }


def _short_name(name: str, root: Path) -> str:
    """The name of an image without the folder, where it is a path."""
    return name.removeprefix(f"{root}{os.sep}")


def _class(one: Entry) -> list:
    return [one.code, one.name, list(one.colour)]


def _file(file: str, header: Header) -> dict:
    """Size, time and a digest of the header; of a folder (Zarr) those of all that is in it."""
    grid = header.grid
    told = (grid.crs.to_wkt(), *list(grid.transform)[:6], *header[2:8], header.masked, header.block)
    return {**_stat(Path(file)), "header": hashlib.sha256(repr((grid.height, grid.width, told)).encode()).hexdigest()}


def _stat(path: Path) -> dict:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    stats = [file.stat() for file in files]
    return {"bytes": sum(one.st_size for one in stats), "time_ns": max(one.st_mtime_ns for one in stats)}


def difference(old: dict[str, dict], new: dict[str, dict]) -> str | None:
    """What differs first, for people; `None` where all is equal."""
    for section in new:
        before, now = old.get(section, {}), new[section]
        if before == now:
            continue
        keys = [key for key in {**now, **before} if before.get(key) != now.get(key)]
        more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
        return f"{section}: {keys[0]}{more} ({_short(before.get(keys[0]))}, now {_short(now.get(keys[0]))})"
    return None


def _short(value: object) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def digest(made_of: dict) -> str:
    """Short, equal for equal maps."""
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:16]
