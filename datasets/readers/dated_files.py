"""Form (a): a file with all bands of one day, such as S2_2019-05-03.tif; files of several days are `stacks`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets.bands import BANDS
from datasets.errors import DataError
from datasets.imagery.dates import date_in_path
from datasets.imagery.image import Draft, Layer
from datasets.imagery.names import BandName, read_name
from datasets.imagery.raster import Header
from datasets.readers import stacks
from datasets.readers.earth_engine_parts import name_of


def read(header: Header, root: Path, bands: Sequence[str] | None) -> list[Draft]:
    """The images in a file of several bands; `bands` overrules the names in the file.

    The bands are known by their descriptions, else a file of exactly ten bands has ours in our order.
    """
    names = band_names(header, bands)
    if stacks.is_stack(names):
        return stacks.read(header, names)
    layers = {name.band: Layer(header.path, i) for i, name in enumerate(names) if name.band}
    dates = {name.date for name in names if name.date}
    return [image(header.path, root, layers, dates.pop() if dates else None)]


def band_names(header: Header, bands: Sequence[str] | None) -> list[BandName]:
    """The name of every band of a file."""
    count = len(header.dtypes)
    if bands is not None:
        if count % len(bands):
            raise DataError(f"{header.path}: has {count} bands; expected a multiple of the {len(bands)} of --bands")
        steps = count // len(bands)
        return [BandName(name, step if steps > 1 else None) for step in range(steps) for name in bands]
    names = [read_name(text) if text else BandName(None) for text in header.descriptions]
    if count == len(BANDS) and not any(name.band for name in names):
        return [BandName(band) for band in BANDS]
    return names


def image(file: str, root: Path, layers: dict[str, Layer], when=None) -> Draft:
    """A draft of the image in one file, dated by its name or that of a folder above it."""
    stem = name_of(Path(file).stem)
    name = str(Path(file).with_name(stem))
    return Draft(name, file, name, when or date_in_path(Path(file).parent / stem, root), layers)
