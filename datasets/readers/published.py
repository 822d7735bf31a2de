"""Readers of the published layout: pickled .npy arrays and CSV files of series, each converted to a cached store.

The array of a series is (T, >= 11): columns 0-9 are the bands as DN, the last column is the day of year, columns
between are ignored. A split's table (train.csv …) has one row a series; rows of sequencelength 0 have no series.
"""

from __future__ import annotations

import logging
import reprlib
from collections.abc import Callable, Sequence
from pathlib import Path, PureWindowsPath

import numpy as np
import pandas as pd

from datasets import checks
from datasets.bands import BANDS
from datasets.cache import cached_store
from datasets.errors import DataError
from datasets.readers.unpickle import load_object_array
from datasets.store import CLASS_ID, Store
from datasets.tables import cell_error, read_csv, whole_numbers
from datasets.writer import StoreWriter

TABLES = {"Train": "train.csv", "Valid": "valid.csv", "Eval": "eval.csv"}
PIECE = 4096  # series written together
SKIPPED = "-skip-bad"  # in the name of a store that bad series are left out of
LEFT_OUT = "left out"  # of its provenance

logger = logging.getLogger(__name__)


def npy_store(file: Path, *, skip_bad: bool = False) -> Store:
    """The store of YEAR/npy/<file>: (2, N) arrays and labels, or (N,) arrays of unlabelled series.

    If the split's table agrees in number of rows, lengths and class ids, its regions, codes and ids are taken too.
    `skip_bad`, here and below, leaves out series that cannot be used (see `_write`), which are an error otherwise.
    """
    year = file.parent.parent
    table = year / TABLES.get(file.stem.split("_")[0], "")
    files = [file, table] if table.is_file() else [file]

    def write(writer: StoreWriter) -> None:
        arrays, labels = _read_npy(file)
        index = None if labels is None else {"label": labels} | _matching_columns(table, arrays, labels)
        _write(writer, len(arrays), lambda i: _checked_array(arrays[i], file, i), index, skip_bad)

    return cached_store(file, files, year, write, SKIPPED if skip_bad else "")


def table_store(table: Path, nclasses: int | None = None, *, skip_bad: bool = False) -> Store | None:
    """The store of a split's table and the CSV files of its series; `None` if the files are not there.

    With `nclasses`, class ids must be from 0 to `nclasses`.
    """
    rows = _read_table(table)
    files = _find_series_files(table, rows["path"].astype(str))
    if files is None:
        return None
    whole_numbers(rows, table, "classid", 0, nclasses, what=CLASS_ID)

    def write(writer: StoreWriter) -> None:
        index = {"label": rows["classid"].to_numpy()} | _other_columns(rows)
        _write(writer, len(files), lambda i: _read_series_csv(files[i]), index, skip_bad)

    return cached_store(table, [table, *files], table.parent, write, SKIPPED if skip_bad else "")


def folder_store(folder: Path, *, skip_bad: bool = False) -> Store:
    """The store of YEAR/Unsupervised/*.csv, one file a series, in the order of the numbers in their names."""
    files = sorted(folder.glob("*.csv"), key=_by_number)

    def write(writer: StoreWriter) -> None:
        _write(writer, len(files), lambda i: _read_series_csv(files[i]), None, skip_bad)

    return cached_store(folder, files, folder.parent, write, SKIPPED if skip_bad else "")


def _write(
    writer: StoreWriter,
    count: int,
    read: Callable[[int], np.ndarray],
    index: dict[str, np.ndarray] | None,
    skip_bad: bool,
) -> None:
    """Append series 0 … count-1, each read as a (T, >= 11) array.

    With `skip_bad` series that cannot be read or hold what a store cannot are left out; their number and what is wrong
    with the first are kept in the provenance, as LEFT_OUT.
    """
    reasons: list[str] = []
    for first in range(0, count, PIECE):
        numbers, arrays = np.arange(first, min(first + PIECE, count)), []
        if skip_bad:
            found = {i: _read_if_good(read, i, writer.source, reasons) for i in numbers.tolist()}
            numbers = np.array([i for i in found if found[i] is not None], dtype=np.int64)
            arrays = [found[i] for i in numbers.tolist()]
            if not arrays:
                continue
        else:
            arrays = [read(i) for i in numbers.tolist()]
        writer.append(
            bands=np.concatenate([array[:, : len(BANDS)] for array in arrays]),
            doy=np.concatenate([array[:, -1] for array in arrays]),
            lengths=np.array([len(array) for array in arrays]),
            index=index and {name: values[numbers] for name, values in index.items()},
        )
    if reasons:
        writer.provenance[LEFT_OUT] = {"series": len(reasons), "of": count, "first": reasons[0]}


def _read_if_good(read: Callable[[int], np.ndarray], number: int, where: str, reasons: list[str]) -> np.ndarray | None:
    """A series, or None with the reason added to `reasons`."""
    try:
        array = read(number)
        lengths = np.array([len(array)])
        checks.check_lengths(lengths, len(array), where, number)
        checks.check_bands(array[:, : len(BANDS)], lengths, where, number)
        checks.check_days(array[:, -1], lengths, where, number)
    except DataError as error:
        reasons.append(str(error))
        return None
    return array


def _read_npy(file: Path) -> tuple[Sequence[np.ndarray], np.ndarray | None]:
    """Series arrays and class ids (`None` for the unlabelled form) of a .npy file."""
    content = load_object_array(file)
    if content.ndim == 1:
        return content, None
    if content.ndim != 2 or len(content) != 2:
        raise DataError(f"{file}: shape {content.shape}; expected (2, N) series and labels, or (N,) series")
    for i, label in enumerate(content[1]):
        if not isinstance(label, int | np.integer) or label < 0:
            found = reprlib.repr(label)  # which ends, also where lists hold each other
            raise DataError(f"{file}: series {i} has label {found}; expected a class id, 0 or more")
    return content[0], content[1].astype(np.int64)


def _checked_array(array: object, file: Path, number: int) -> np.ndarray:
    if not isinstance(array, np.ndarray) or array.ndim != 2:
        found = f"an array of shape {array.shape}" if isinstance(array, np.ndarray) else f"a {type(array).__name__}"
        raise DataError(f"{file}: series {number} is {found}; expected observations x columns")
    if array.shape[1] <= len(BANDS):
        raise DataError(
            f"{file}: series {number} has width {array.shape[1]};"
            f" expected at least {len(BANDS) + 1} columns ({len(BANDS)} bands … day of year)"
        )
    if array.dtype.kind != "O":
        return array
    try:
        return array.astype(np.float64)  # numbers kept as Python objects
    except (TypeError, ValueError) as error:
        raise DataError(f"{file}: series {number} holds something that is no number ({error})") from None


def _read_series_csv(file: Path) -> np.ndarray:
    """A series as (T, 11): bands, day of year."""
    columns = read_csv(file, (*BANDS, "doy"))[[*BANDS, "doy"]]
    array = columns.apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)  # text -> NaN, refused below
    if not len(array):
        raise DataError(f"{file}: no row below the names of the columns; expected one an observation")
    days = array[:, -1]
    good = np.column_stack([checks.are_digital_numbers(array[:, :-1]), checks.are_days(days)])
    good[:, -1] &= checks.are_in_time_order(days, np.array([len(days)]))
    if not good.all():
        row, column = np.argwhere(~good)[0]
        expected = checks.DIGITAL_NUMBER if column < len(BANDS) else f"{checks.DAY}, in {checks.TIME_ORDER}"
        raise cell_error(file, columns.columns[column], row, expected)
    checks.check_bands(array[:, :-1], np.array([len(array)]), str(file))
    return array


def _read_table(table: Path) -> pd.DataFrame:
    """The rows of a split's table that have a series, numbered as in the file."""
    rows = read_csv(table, ("path", "sequencelength", "classid"))
    for name, what in (("sequencelength", "a whole number"), ("classid", CLASS_ID)):
        rows[name] = whole_numbers(rows, table, name, what=what)
    rows = rows[rows["sequencelength"] > 0]
    if rows.empty:
        raise DataError(f"{table}: no row with a sequencelength above 0; expected a row a series")
    return rows


def _other_columns(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    return {name: rows[name].to_numpy() for name in ("code", "region", "id") if name in rows}


def _matching_columns(table: Path, arrays: Sequence[np.ndarray], labels: np.ndarray) -> dict[str, np.ndarray]:
    """Regions, codes and ids of the table's rows, if these are the same series: nothing where they are not."""
    try:
        rows = _read_table(table)
    except DataError as error:
        if table.is_file():
            logger.warning("%s; the sites of its series stay unknown", error)
        return {}
    lengths = [len(array) if isinstance(array, np.ndarray) and array.ndim else 0 for array in arrays]
    same = np.array_equal(rows["sequencelength"], lengths) and np.array_equal(rows["classid"], labels)
    return _other_columns(rows) if same else {}


def _find_series_files(table: Path, paths: pd.Series) -> list[Path] | None:
    """The files of the series. `path` was written on another machine, so only its end is used: YEAR/<region>/<file>,
    or all of it below the data root or one of its parents."""
    year, sample = table.parent.resolve(), next(filter(str.strip, paths), "")
    for folder, tail in ((year, 2), *((parent, 0) for parent in year.parents)):
        if not _below(folder, sample, tail).is_file():
            continue
        files = [_below(folder, path, tail) for path in paths]
        for row, file in zip(paths.index, files, strict=True):
            if not file.is_file():
                raise cell_error(table, "path", row, f"the path of a series file, and there is no {file}")
        return files
    return None


def _below(folder: Path, path: str, tail: int) -> Path:
    """The last `tail` parts (0: all) of a path with either kind of slash, without drive or root, below a folder."""
    pure = PureWindowsPath(path)
    return folder.joinpath(*pure.relative_to(pure.anchor).parts[-tail:])


def _by_number(file: Path) -> tuple[bool, int, str]:
    is_number = file.stem.isdecimal()
    return not is_number, int(file.stem) if is_number else 0, file.stem
