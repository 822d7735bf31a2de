"""CSV files that people edit: read by pandas; an error names the line of the file and the text of the cell."""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from datasets.errors import DataError

INT64_MAX = np.iinfo(np.int64).max
BROKEN = (OSError, ValueError, EOFError, zlib.error, csv.Error)  # what reading a damaged table raises, gzipped or not
OPTIONS = {"encoding": "utf-8-sig", "skipinitialspace": True, "keep_default_na": False, "low_memory": False}


def read_csv(file: Path, needed: tuple[str, ...] = (), **options) -> pd.DataFrame:
    """The table, column names stripped of blanks; DataError if it cannot be read or lacks a `needed` column."""
    try:
        table = pd.read_csv(file, **(OPTIONS | options))
    except FileNotFoundError:
        raise DataError(f"{file}: no such file") from None
    except BROKEN as error:  # pandas' parser errors are ValueErrors
        reason = " ".join(str(error).split())
        raise DataError(f"{file}: cannot be read as CSV ({reason})") from None
    if not isinstance(table.index, pd.RangeIndex):  # pandas took the first cells for row names
        raise DataError(f"{file}: line {_line(file, 0)} has more cells than line 1 has column names; expected as many")
    table.columns = [str(name).strip() for name in table.columns]
    for name in needed:
        if name not in table:
            raise DataError(f"{file}: no column {name!r}; expected {', '.join(needed)}")
    return table


def whole_numbers(
    table: pd.DataFrame, file: Path, column: str, low: int = 0, high: int | None = None, *, what: str = "a whole number"
) -> np.ndarray:
    """A column of a table of `read_csv`, (N,) int64 from low to high; DataError names the first bad cell."""
    high = INT64_MAX if high is None else high
    values = table[column].to_numpy()
    if values.dtype.kind == "i" and ((values >= low) & (values <= high)).all():
        return values.astype(np.int64)
    numbers = []
    for row, text in enumerate(_column(file, column)):  # the text of the file, whatever type pandas chose
        number = int(text.split(".")[0]) if re.fullmatch(r"[0-9]{1,19}(\.0*)?", text) else -1
        if not low <= number <= high:
            limits = f", {low} or more" if high == INT64_MAX else f" from {low} to {high}"
            raise cell_error(file, column, row, f"{what}{limits}")
        numbers.append(number)
    return np.array(numbers, dtype=np.int64)


def cell_error(file: Path, column: str, row: int, expected: str) -> DataError:
    """The error for a cell; `row` counts as in pandas, from 0 below the header."""
    text = next(islice(_column(file, column), row, None))
    found = f"'{text}'" if text else "blank"
    return DataError(f"{line_of(file, row)}: {column} is {found}; expected {expected}")


def line_of(file: Path, row: int) -> str:
    """'FILE: line 2' for row 0."""
    return f"{file}: line {_line(file, row)}"


def column_names(file: Path) -> list[str]:
    """The names as they stand in line 1; DataError where the first row has more cells than there are."""
    records = list(islice(_records(file), 2))
    names = records[0][1] if records else []
    if len(records) == 2 and len(records[1][1]) > len(names):
        raise DataError(f"{file}: line {records[1][0]} has more cells than line 1 has column names; expected as many")
    return names


def _line(file: Path, row: int) -> int:
    return next(islice(_records(file), row + 1, None))[0]


def _column(file: Path, column: str) -> Iterator[str]:
    """The cells of a column; a missing cell is ''."""
    records = (record for _, record in _records(file))
    place = [name.strip() for name in next(records)].index(column)
    return (record[place].strip() if place < len(record) else "" for record in records)


def _records(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of the header and of every row; like pandas, without blank lines."""
    opener = gzip.open if file.suffix == ".gz" else open
    with opener(file, "rt", encoding="utf-8-sig", newline="") as lines:
        reader = csv.reader((line if line.strip() else "\n" for line in lines), skipinitialspace=True)
        first = 1
        for record in reader:
            if record:
                yield first, record
            first = reader.line_num + 1
