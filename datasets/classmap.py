"""Class maps: which CDL code is which class id, name and colour.

A map file lists the C classes of interest; every other code is the last class, "Other", so a model has C+1 outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from datasets.errors import DataError

COLUMNS = ("id", "classname", "code", "Red", "Green", "Blue")
OTHER_NAME, OTHER_CODE, OTHER_COLOUR = "Other", 0, (128, 128, 128)


@dataclass(frozen=True)
class ClassMap:
    """Entry i is class id i; the last entry is "Other", code 0. Colours are (red, green, blue), 0-255."""

    names: tuple[str, ...]
    codes: tuple[int, ...]
    colours: tuple[tuple[int, int, int], ...]

    @classmethod
    def of(cls, classes: list[tuple[str, int, tuple[int, int, int]]]) -> ClassMap:
        """The map of these (name, code, colour), in the order of their ids, with "Other" after them."""
        names, codes, colours = zip(*classes, (OTHER_NAME, OTHER_CODE, OTHER_COLOUR), strict=True)
        return cls(names, codes, colours)

    @property
    def num_classes(self) -> int:
        """Outputs of a model: the classes of the file and "Other"."""
        return len(self.names)

    def label_of(self, codes: np.ndarray) -> np.ndarray:
        """Class ids, int64, for CDL codes of any shape; codes outside the map are "Other"."""
        codes = np.asarray(codes)
        known, ids = np.array(self.codes[:-1]), np.argsort(self.codes[:-1])
        places = np.minimum(np.searchsorted(known[ids], codes), len(ids) - 1)
        return np.where(known[ids][places] == codes, ids[places], len(ids)).astype(np.int64)

    def as_dict(self) -> dict[str, list]:
        """Plain lists, for checkpoints and JSON."""
        return {"names": list(self.names), "codes": list(self.codes), "colours": [list(c) for c in self.colours]}

    @classmethod
    def from_dict(cls, plain: dict[str, list]) -> ClassMap:
        """The map that `as_dict` was made from."""
        return cls(tuple(plain["names"]), tuple(plain["codes"]), tuple(tuple(c) for c in plain["colours"]))


def read_classmap(path: str | Path) -> ClassMap:
    """Read a map file: columns id, classname, code, Red, Green, Blue in any order and case, others are ignored.

    A byte-order mark and blanks around names are fine. DataError names a missing column, ids that are not
    0 … C-1 once each, a code that appears twice, and a value that is no whole number in its range.
    """
    path = Path(path)
    table = _read_table(path)
    ids = _whole_numbers(table, "id", path, 0, len(table) - 1)
    codes = _whole_numbers(table, "code", path, 1, None)
    colours = zip(*(_whole_numbers(table, name, path, 0, 255) for name in COLUMNS[3:]), strict=True)
    names = table["classname"].str.strip()
    for column, values in (("id", ids), ("code", codes)):
        twice = [value for value in values if values.count(value) > 1]
        if twice:
            raise DataError(f"{path}: {column} {twice[0]} appears more than once; expected every {column} once")
    by_id = sorted(zip(ids, names, codes, colours, strict=True))
    return ClassMap.of([(name, code, colour) for _, name, code, colour in by_id])


def write_classmap(path: str | Path, classmap: ClassMap) -> None:
    """Write the map as the published file is written: UTF-8 with BOM, "Other" left out."""
    count = classmap.num_classes - 1
    columns = [range(count), classmap.names[:-1], classmap.codes[:-1], *zip(*classmap.colours[:-1], strict=True)]
    table = pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)), index=range(1, count + 1))
    table.to_csv(path, encoding="utf-8-sig", lineterminator="\n")


def _read_table(path: Path) -> pd.DataFrame:
    """The needed columns as text, under the names of COLUMNS."""
    try:
        table = pd.read_csv(path, encoding="utf-8-sig", dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise DataError(f"{path}: no such class map") from None
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read as a class map ({reason})") from None
    found = {name.strip().lower(): name for name in table.columns}
    for name in COLUMNS:
        if name.lower() not in found:
            given = ", ".join(column.strip() for column in table.columns)
            raise DataError(f"{path}: no column {name!r}; expected {', '.join(COLUMNS)}, found {given}")
    if table.empty:
        raise DataError(f"{path}: no classes; expected a row a class")
    return table[[found[name.lower()] for name in COLUMNS]].set_axis(COLUMNS, axis=1)


def _whole_numbers(table: pd.DataFrame, column: str, path: Path, low: int, high: int | None) -> list[int]:
    for row, text in enumerate(table[column], start=2):  # line 1 holds the column names
        value = text.strip()
        if not value.isdecimal() or int(value) < low or (high is not None and int(value) > high):
            expected = f"a whole number, {low} or more" if high is None else f"a whole number from {low} to {high}"
            raise DataError(f"{path}: line {row}: {column} is {value!r}; expected {expected}")
    return [int(text) for text in table[column]]


CDL20 = ClassMap.of(
    [
        ("Grass/Pasture", 176, (233, 255, 190)),
        ("Soybeans", 5, (38, 115, 0)),
        ("Corn", 1, (255, 212, 0)),
        ("Winter Wheat", 24, (168, 112, 0)),
        ("Spring Wheat", 23, (217, 181, 108)),
        ("Cotton", 2, (255, 38, 38)),
        ("Woody Wetlands", 190, (128, 179, 179)),
        ("Evergreen Forest", 142, (149, 206, 147)),
        ("Shrubland", 152, (199, 215, 158)),
        ("Fallow/Idle Cropland", 61, (191, 191, 122)),
        ("Canola", 31, (209, 255, 0)),
        ("Sunflower", 6, (255, 255, 0)),
        ("Deciduous Forest", 141, (149, 206, 147)),
        ("Dbl Crop WinWht/Soybeans", 26, (115, 115, 0)),
        ("Alfalfa", 36, (255, 168, 227)),
        ("Rice", 3, (0, 169, 230)),
        ("Other Hay/Non Alfalfa", 37, (165, 245, 141)),
        ("Sorghum", 4, (255, 158, 15)),
        ("Peas", 53, (85, 255, 0)),
        ("Durum Wheat", 22, (138, 100, 83)),
    ]
)
