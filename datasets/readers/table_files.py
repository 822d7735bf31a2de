"""Tables on the disk, CSV (also gzipped) and Parquet, read some rows at a time; a cell that cannot be used is named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from datasets.errors import DataError
from datasets.imagery.dates import YEARS
from datasets.optional import need
from datasets.tables import BROKEN, OPTIONS, cell_error
from datasets.tables import column_names as csv_column_names

CELLS = 2_000_000  # read at once
BLANK = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None")  # cells of numbers and dates that hold nothing
DATE = "a date such as 2019-05-03"


def is_parquet(file: Path) -> bool:
    return file.suffix.lower() in (".parquet", ".pq", ".geoparquet")


def column_names(file: Path) -> list[str]:
    """The names of the columns; DataError for a file that is no table."""
    if not file.is_file():
        raise DataError(f"{file}: no such file; expected a CSV (.csv, .csv.gz) or Parquet (.parquet) table")
    if is_parquet(file):
        with _parquet_errors(file):
            return list(_parquet(file).schema_arrow.names)
    try:
        return csv_column_names(file)
    except BROKEN as error:
        if isinstance(error, DataError):
            raise
        raise _not_csv(file, error) from None


def batches(file: Path, columns: Sequence[str], texts: Sequence[str]) -> Iterator[pd.DataFrame]:
    """These columns, some rows at a time, rows numbered from 0 by the index; those in `texts` as text ("" for nothing).

    Memory depends on the length of a row alone (in Parquet also on the row groups of the file).
    """
    size = max(CELLS // len(columns), 1)
    first = 0
    parquet = is_parquet(file)
    for batch in _parquet_batches(file, columns, size) if parquet else _csv_batches(file, columns, texts, size):
        batch.index = pd.RangeIndex(first, first + len(batch))
        first += len(batch)
        for name in texts:
            try:
                batch[name] = _as_text(batch[name])
            except UnicodeDecodeError as error:  # of Parquet, whose text is decoded when it is looked at
                raise DataError(f"{file}: column {name} holds text that is not UTF-8 ({error})") from None
        yield batch


def _parquet(file: Path):
    parquet = need("pyarrow.parquet", "reading Parquet")
    with _parquet_errors(file):
        return parquet.ParquetFile(file, page_checksum_verification=True)


@contextmanager
def _parquet_errors(file: Path) -> Iterator[None]:
    """What pyarrow raises for a damaged file becomes a DataError."""
    pyarrow = need("pyarrow", "reading Parquet")
    try:
        yield
    except DataError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read as Parquet ({' '.join(str(error).split())})") from None


def _parquet_batches(file: Path, columns: Sequence[str], size: int) -> Iterator[pd.DataFrame]:
    with _parquet(file) as table:
        pieces = table.iter_batches(batch_size=size, columns=list(columns))
        while True:
            with _parquet_errors(file):
                piece = next(pieces, None)
                if piece is None:
                    return
                if missing := set(columns) - set(piece.schema.names):
                    raise ValueError(f"column {min(missing)} is not in its rows")
                batch = piece.to_pandas(ignore_metadata=True)  # which is of whoever wrote the file
            yield batch


def _csv(file: Path, **options):
    try:
        return pd.read_csv(file, **(OPTIONS | options))
    except BROKEN as error:
        raise _not_csv(file, error) from None


def _not_csv(file: Path, error: Exception) -> DataError:
    return DataError(f"{file}: cannot be read as CSV ({' '.join(str(error).split())})")


def _csv_batches(file: Path, columns: Sequence[str], texts: Sequence[str], size: int) -> Iterator[pd.DataFrame]:
    options = {  # all columns are read: of some alone pandas does not see that a row has too many cells
        "dtype": dict.fromkeys(texts, str),
        "na_values": {name: BLANK for name in columns if name not in texts},
    }
    with _csv(file, chunksize=size, **options) as table:
        while True:
            try:
                batch = next(table)
            except StopIteration:
                return
            except BROKEN as error:
                raise _not_csv(file, error) from None
            yield batch[list(columns)].copy()


def _as_text(column: pd.Series) -> pd.Series:
    """Labels and ids as text: whole numbers without a decimal point, nothing as ""."""
    codes, values = pd.factorize(column)  # -1 for nothing; a value stands in many rows
    is_float = column.dtype.kind == "f"
    texts = [str(int(value)) if is_float and value % 1 == 0 else str(value).strip() for value in values]
    return pd.Series(np.array([*texts, ""], dtype=object)[codes], index=column.index, name=column.name)


def numbers(file: Path, column: pd.Series, what: str = "a number") -> np.ndarray:
    """A column as float64, NaN for nothing; DataError names the first cell that is no number."""
    if column.dtype.kind in "iuf":
        return column.to_numpy(np.float64)
    values = pd.to_numeric(column, errors="coerce")
    bad = values.isna() & column.notna() & ~column.astype(str).str.strip().isin(BLANK)
    if bad.any():
        raise bad_cell(file, column, int(np.argmax(bad)), what)
    return values.to_numpy(np.float64)


def days(file: Path, column: pd.Series) -> np.ndarray:
    """A column of dates as datetime64[D]; DataError names the first cell that is none."""
    if column.dtype.kind == "M":
        found = column
    else:
        cells = column.astype(str).str.strip().str.removesuffix(".0")
        unique = pd.Series(cells.unique())
        dates = pd.to_datetime(unique, format="ISO8601", errors="coerce", utc=True).dt.tz_localize(None)
        dates[~unique.str.match(r"\d{4}-\d{2}-\d{2}|\d{8}(?!\d)")] = pd.NaT
        found = cells.map(dict(zip(unique, dates, strict=True)))
    found = pd.to_datetime(found).dt.tz_localize(None) if getattr(found.dtype, "tz", None) is not None else found
    good = found.notna() & found.dt.year.isin(YEARS)
    if not good.all():
        raise bad_cell(file, column, int(np.argmin(good)), DATE)
    return found.to_numpy().astype("datetime64[D]")


def bad_cell(file: Path, column: pd.Series, position: int, expected: str) -> DataError:
    """The error for the cell at a position of a column of `batches`."""
    row = int(column.index[position])
    if not is_parquet(file):
        return cell_error(file, str(column.name), row, expected)
    value = column.iloc[position]
    found = "blank" if pd.isna(value) or value == "" else repr(value) if isinstance(value, str) else str(value)
    return DataError(f"{file}: row {row + 1}: {column.name} is {found}; expected {expected}")
