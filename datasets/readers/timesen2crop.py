"""TimeSen2Crop as published (Weikmann et al. 2021, IEEE JSTARS 14, 4699-4708): pixels of Austrian fields as CSV files.

    <tile>/dates.csv                  acquisition_date: a row a date, such as 20170905
    <tile>/<class>/<pixel>.csv        B1 … B9, Flag: a row a date of the tile

B1 … B9 are Sentinel-2's B2 B3 B4 B5 B6 B7 B8A B11 B12 as digital numbers; B8 is not there, and B8A stands in for it.
Flag: 0 clear, 1 cloud, 2 shadow, 3 snow.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.bands import BANDS
from datasets.errors import DataError
from datasets.readers.dated import Dated
from datasets.readers.table_files import days
from datasets.tables import cell_error, read_csv

FILE_BANDS = {f"B{number}": band for number, band in enumerate((*BANDS[:6], *BANDS[7:]), start=1)}  # all but nir
COLUMNS = [f"B{list(FILE_BANDS.values()).index('red4' if band == 'nir' else band) + 1}" for band in BANDS]
FLAGS = {"cloud": 1, "shadow": 2, "snow": 3}
DATE = "acquisition_date"
PIECE = 1024  # files read into one piece


class Tile(NamedTuple):
    """A tile's folder: its name without the year that some have before it, dates and files (class, path) in order."""

    name: str
    days: np.ndarray  # (T,) datetime64[D]
    files: list[tuple[str, Path]]


def open_tiles(root: Path) -> list[Tile]:
    """The tiles in a folder, or the one tile that it is. DataError where there is none, or one without series."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; expected one with a folder a tile")
    tables = [root / "dates.csv"] if (root / "dates.csv").is_file() else sorted(root.glob("*/dates.csv"))
    if not tables:
        raise DataError(f"{root}: no folder with a dates.csv; expected <tile>/dates.csv and <tile>/<class>/*.csv")
    return [_open_tile(table) for table in tables]


def _open_tile(table: Path) -> Tile:
    folder = table.parent
    dates = read_csv(table, (DATE,))
    classes = _in_order(path for path in folder.iterdir() if path.is_dir())
    files = [(kind.name, path) for kind in classes for path in _in_order(kind.glob("*.csv"))]
    if not files:
        raise DataError(f"{folder}: no series; expected a folder a class with a CSV file a pixel")
    return Tile(re.sub(r"^\d{4}_", "", folder.resolve().name), days(table, dates[DATE]), files)


def _in_order(paths: Iterable[Path]) -> list[Path]:
    """By name, those that are numbers first and in their order."""
    return sorted(paths, key=lambda p: (not p.stem.isdecimal(), int(p.stem) if p.stem.isdecimal() else 0, p.stem))


def series(tiles: Iterable[Tile], drop: Iterable[str] = ()) -> Iterator[Dated]:
    """The series of the tiles, observations with a flag of `drop` (names of FLAGS) as missing."""
    dropped = [FLAGS[name] for name in drop]
    for tile in tiles:
        for first in range(0, len(tile.files), PIECE):
            files = tile.files[first : first + PIECE]
            arrays = [_read(path, len(tile.days)) for _, path in files]
            bands, flags = (np.concatenate(parts) for parts in zip(*arrays, strict=True))
            bands[np.isin(flags, dropped) | (bands == 0).all(axis=1)] = np.nan
            index = {
                "id": np.array([f"{tile.name}/{kind}/{path.stem}" for kind, path in files], dtype=object),
                "code": np.array([kind for kind, _ in files], dtype=object),
                "region": np.full(len(files), tile.name, dtype=object),
            }
            yield Dated(bands, np.tile(tile.days, len(files)), np.full(len(files), len(tile.days)), index)


def _read(path: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Bands (T, 10), NaN where blank, and flags (T,) of a file, which has `count` rows."""
    names, *lines = path.read_text(encoding="utf-8-sig").splitlines() or [""]
    names = [name.strip() for name in names.split(",")]
    for name in (*FILE_BANDS, "Flag"):
        if name not in names:
            raise DataError(f"{path}: no column {name!r}; expected {', '.join((*FILE_BANDS, 'Flag'))}")
    cells = [line.split(",") for line in lines if line.strip()]
    if len(cells) != count:
        dates = path.parents[1] / "dates.csv"
        raise DataError(f"{path}: {len(cells)} rows; expected {count}, one for each date of {dates}")
    values = np.full((count, len(COLUMNS) + 1), np.nan)
    for column, name in enumerate((*COLUMNS, "Flag")):
        place = names.index(name)
        for row, line in enumerate(cells):
            text = line[place].strip() if place < len(line) else ""
            try:
                values[row, column] = float(text) if text else np.nan
            except ValueError:
                raise cell_error(path, name, row, "a number") from None
    flags = values[:, -1]
    bad = ~np.isin(flags, (0, *FLAGS.values())) & ~np.isnan(flags)
    if bad.any():
        raise cell_error(path, "Flag", int(np.argmax(bad)), "0 (clear), 1 (cloud), 2 (shadow) or 3 (snow)")
    return values[:, :-1], flags
