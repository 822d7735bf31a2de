"""Class maps: which CDL code is which class id, name and colour.

A map file lists the C classes of interest; every other code is the last class, "Other", so a model has C+1 outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from datasets.errors import DataError
from datasets.tables import cell_error, line_of, read_csv, whole_numbers
from utils.files import atomic_write

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
        """The map of these (name, code, colour) in the order of their ids; "Other" is appended."""
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
        """The inverse of `as_dict`."""
        return cls(tuple(plain["names"]), tuple(plain["codes"]), tuple(tuple(c) for c in plain["colours"]))


def read_classmap(path: str | Path) -> ClassMap:
    """Read a map file: columns id, classname, code, Red, Green, Blue in any order and case, others are ignored.

    A byte-order mark and blanks around names are allowed.

    Raises:
        DataError: a missing column, ids other than 0 … C-1 once each, a repeated code, a blank name, or a value that
            is not a whole number in its range.
    """
    path = Path(path)
    table, columns = _read_table(path)
    limits = {"id": (0, len(table) - 1), "code": (1, None), **dict.fromkeys(COLUMNS[3:], (0, 255))}
    ids, codes, *colours = (whole_numbers(table, path, columns[name], *limits[name]).tolist() for name in limits)
    names = table[columns["classname"]].str.strip()
    if (names == "").any():
        raise cell_error(path, columns["classname"], int((names == "").argmax()), "the name of a class")
    for column, values in (("id", ids), ("code", codes)):
        for row, value in enumerate(values):
            if value in values[:row]:
                raise DataError(f"{line_of(path, row)}: {column} {value} appears again; expected every {column} once")
    by_id = sorted(zip(ids, names, codes, zip(*colours, strict=True), strict=True))
    return ClassMap.of([(name, code, colour) for _, name, code, colour in by_id])


def write_classmap(path: str | Path, classmap: ClassMap) -> None:
    """Write the map in the form of the published file: UTF-8 with BOM, without "Other"."""
    count = classmap.num_classes - 1
    columns = [range(count), classmap.names[:-1], classmap.codes[:-1], *zip(*classmap.colours[:-1], strict=True)]
    table = pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)), index=range(1, count + 1))
    with atomic_write(path) as partial:
        table.to_csv(partial, encoding="utf-8-sig", lineterminator="\n")


def _read_table(path: Path) -> tuple[pd.DataFrame, dict[str, str]]:
    """The table, and its own names of COLUMNS."""
    table = read_csv(path, dtype=str)
    found = {name.lower(): name for name in table.columns}
    for name in COLUMNS:
        if name.lower() not in found:
            expected, given = ", ".join(COLUMNS), ", ".join(table.columns)
            raise DataError(f"{path}: no column {name!r}; expected {expected}, found {given}")
    if table.empty:
        raise DataError(f"{path}: no classes; expected a row a class")
    return table, {name: found[name.lower()] for name in COLUMNS}


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
