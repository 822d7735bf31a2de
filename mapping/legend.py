"""The legend of a map: which code is which class, with its colour. Read here, whoever wrote it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from datasets.classmap import OTHER_CODE, OTHER_NAME, read_classmap
from datasets.errors import DataError
from datasets.optional import need
from datasets.xmlfile import parse_xml

CLASSES_TAG = "CLASSES"  # tag of the file: a JSON list of {"code", "name", "colour", "id"}
MISSING_COLOUR = (190, 190, 190)


class Entry(NamedTuple):
    """A class of a map. colour: (red, green, blue), 0-255, or None; id: class id of the model, or None."""

    code: int
    name: str
    colour: tuple[int, int, int] | None = None
    id: int | None = None


def classes_tag(entries: Iterable[Entry]) -> str:
    """The value of the tag CLASSES for these classes."""
    return json.dumps([entry._asdict() for entry in entries], ensure_ascii=False)


def read_legend(path: str | Path, classes: str | Path | None = None) -> list[Entry]:
    """The classes that a map declares, by its codes; empty if it declares none.

    `classes`, a class map file, counts before what the map says of itself; then come its tag CLASSES and the category
    names in PATH.aux.xml. Colours that neither states are those of the map's palette.

    Raises:
        DataError: the tag, the .aux.xml or the class map cannot be read, or a code appears twice.
    """
    path = Path(path)
    with need("rasterio", "reading maps").open(path) as file:
        tag = file.tags().get(CLASSES_TAG)
        try:
            palette = file.colormap(1)
        except ValueError:  # it has none
            palette = {}
    if classes is not None:
        entries = _of_classmap(Path(classes))
    elif tag is not None:
        entries = _of_tag(tag, path)
    else:
        entries = _of_categories(path.with_name(f"{path.name}.aux.xml"))
    codes = [entry.code for entry in entries]
    if len(set(codes)) < len(codes):
        twice = next(code for code in codes if codes.count(code) > 1)
        raise DataError(f"{path}: its legend has the code {twice} twice; expected every code once")
    return [entry if entry.colour else entry._replace(colour=_in_palette(palette, entry.code)) for entry in entries]


def completed(entries: Sequence[Entry], codes: Iterable[int]) -> list[Entry]:
    """The legend with an entry, named by its code, for each of `codes` that has none; these come last, in order."""
    known = {entry.code for entry in entries}
    return [*entries, *(Entry(code, str(code)) for code in sorted(set(codes) - known))]


def other_of(entries: Iterable[Entry]) -> Entry | None:
    """The entry "Other", to which every code belongs that the legend does not name; None if the map has none."""
    return next((entry for entry in entries if (entry.code, entry.name) == (OTHER_CODE, OTHER_NAME)), None)


def _in_palette(palette: dict[int, tuple], code: int) -> tuple[int, int, int] | None:
    return tuple(palette[code][:3]) if code in palette else None


def _of_classmap(path: Path) -> list[Entry]:
    classmap = read_classmap(path)
    columns = zip(classmap.codes, classmap.names, classmap.colours, strict=True)
    return [Entry(code, name, colour, number) for number, (code, name, colour) in enumerate(columns)]


def _of_tag(text: str, path: Path) -> list[Entry]:
    try:
        return [_of_item(item) for item in json.loads(text)]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"{path}: its tag {CLASSES_TAG} cannot be read ({error!r}); expected a JSON list of"
            ' {"code", "name", "colour", "id"}, or give the class map with --classes FILE'
        ) from None


def _of_item(item: dict) -> Entry:
    colour, number = item.get("colour"), item.get("id")
    if colour is not None:
        red, green, blue = (int(part) for part in colour[:3])
        colour = (red, green, blue)
    return Entry(int(item["code"]), str(item["name"]), colour, None if number is None else int(number))


def _of_categories(sidecar: Path) -> list[Entry]:
    """GDAL's category names of the first band: the n-th is that of code n, an empty one that of no class."""
    if not sidecar.is_file():
        return []
    try:
        root = parse_xml(sidecar)
    except ValueError as error:
        raise DataError(f"{sidecar}: cannot be read as XML: it {error}; remove it, or write it again") from None
    band = next((band for band in root.iter("PAMRasterBand") if band.get("band", "1") == "1"), None)
    names = [] if band is None else [(entry.text or "").strip() for entry in band.findall("CategoryNames/Category")]
    return [Entry(code, name) for code, name in enumerate(names) if name]
