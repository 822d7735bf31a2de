"""From a path to the images in it, whatever their form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from datasets.bands import BANDS
from datasets.errors import DataError
from datasets.imagery.cube import cube_files, inside_cube, is_cube
from datasets.imagery.dates import date_in_path
from datasets.imagery.image import Draft
from datasets.imagery.names import SENTINEL, read_name
from datasets.imagery.raster import SUFFIXES, BadFile, Header, raster_files, read_header
from datasets.readers import band_files, cubes, dated_files
from datasets.readers.earth_engine_parts import name_of


class Found(NamedTuple):
    """drafts: undated and unchecked; headers: by file; notes: what a user is told; bad: reasons by file left out.

    A file that cannot be opened still has a draft, one without layers, so that its date is known.
    """

    drafts: list[Draft]
    headers: dict[str, Header]
    notes: list[str]
    bad: dict[str, str]


def parse_bands(bands: str | Sequence[str] | None) -> list[str] | None:
    """--bands: names, in the order of a file; what is none of ours is skipped."""
    if bands is None:
        return None
    texts = bands.split(",") if isinstance(bands, str) else bands
    names = [read_name(text.strip()).band for text in texts]
    if not any(name in BANDS for name in names):
        expected = ",".join(SENTINEL.values())
        raise DataError(f"--bands {','.join(texts)}: none of them is a band; expected names such as {expected}")
    twice = next((name for name in BANDS if names.count(name) > 1), None)
    if twice:
        raise DataError(f"--bands {','.join(texts)}: {twice} is named twice; expected the bands of one date")
    return names


def root_of(path: Path) -> Path:
    """The folder of the images: nothing outside is read."""
    return (path if path.is_dir() and not is_cube(path) else path.parent).resolve()


def find_images(path: Path, bands: list[str] | None, skip_bad: bool) -> Found:
    """All images at a path: a file, or a folder with all below it."""
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; expected images")
    root, path, found = root_of(path), path.resolve(), Found([], {}, [], {})
    for file in cube_files(path):
        _guarded(found, file, skip_bad, lambda file=file: _add_cube(found, file, bands))
    rasters = [] if is_cube(path) else [file for file in raster_files(path) if not inside_cube(file, root)]
    for file in rasters:
        _guarded(found, file, skip_bad, lambda file=file: _add_header(found, file, root))
    _add_drafts(found, root, bands)
    if all(draft.file in found.bad for draft in found.drafts):
        left = f"; {found.notes[-1]}" if found.notes else ""
        raise DataError(
            f"{path}: no images found{left}; expected {', '.join(SUFFIXES)}, NetCDF or Zarr with Sentinel-2 bands"
        )
    return found


def _guarded(found: Found, file: Path, skip_bad: bool, add: Callable[[], None]) -> None:
    """Add a file; one that cannot be opened is set aside if the user wants that, and else ends the run."""
    try:
        add()
    except BadFile as error:
        if not skip_bad:
            raise
        found.bad[str(file)] = str(error)


def _add_header(found: Found, file: Path, root: Path) -> None:
    found.headers[str(file)] = read_header(file, root)


def _add_cube(found: Found, file: Path, bands: list[str] | None) -> None:
    header, drafts = cubes.read(file, bands)
    found.headers[str(file)] = header
    found.drafts.extend(drafts)


def _add_drafts(found: Found, root: Path, bands: list[str] | None) -> None:
    """The images of the raster files. Files of a single band are a band each, all others hold whole images."""
    rasters = [header for header in found.headers.values() if header.cube is None]
    single = [header for header in rasters if band_files.band_of(header)]
    by_band = any(band_files.band_of(header) in BANDS for header in single)
    if by_band and bands is not None:
        raise DataError(f"--bands: the images have a file a band, such as {single[0].path}; expected no --bands")
    other = []
    for header in rasters:
        if len(header.dtypes) == 1:
            if header not in single or not by_band:
                other.append(header)
        elif by_band and not any(name.band for name in dated_files.band_names(header, None)):
            other.append(header)
        else:
            found.drafts.extend(dated_files.read(header, root, bands))
    if by_band:
        found.drafts.extend(band_files.read(single, root))
    for file in found.bad:
        name = band_files.image_of(Path(file)) if by_band else str(Path(file).with_name(name_of(Path(file).stem)))
        found.drafts.append(Draft(name, file, name, date_in_path(Path(name), root), {}))
    if other:
        names = ", ".join(header.name for header in other[:5]) + (", …" if len(other) > 5 else "")
        found.notes.append(f"left out, as they hold none of the bands: {len(other)} files ({names})")
