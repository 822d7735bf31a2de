"""The files of a store as they are opened: meta.json, and arrays whose rows are checked when they are first read."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np

from datasets import checks, checksums
from datasets.bands import BANDS
from datasets.checksums import CheckedArray
from datasets.errors import DataError
from datasets.npyfile import map_array
from datasets.writer import FORMAT, VERSION
from utils.files import write_text

ARRAYS = {"bands.npy": (np.int16, (len(BANDS),)), "doy.npy": (np.int16, ()), "offsets.npy": (np.int64, ())}
AGAIN = "make the store again"

logger = logging.getLogger(__name__)


def read_meta(path: Path) -> dict:
    """meta.json of the store at `path`; DataError where there is none, or one that is damaged or of another format."""
    file = path / "meta.json"
    if ".partial-" in path.name:
        raise DataError(f"{path}: an unfinished store, left by a writer that was killed; {AGAIN}")
    try:
        meta = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: not a store (no meta.json); expected a folder written by StoreWriter") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file}: cannot be read ({error}); {AGAIN}") from None
    if not isinstance(meta, dict) or (meta.get("format"), meta.get("version")) != (FORMAT, VERSION):
        raise DataError(f"{file}: expected format {FORMAT!r}, version {VERSION}; {AGAIN}")
    expected = {"series": _is_count, "observations": _is_count, "classes": _is_count_or_none, "provenance": _is_dict}
    if missing := [key for key in expected if key not in meta]:
        raise DataError(f"{file}: no {', '.join(missing)} in it; {AGAIN}")
    for key, is_good in expected.items():
        if not is_good(meta[key]):
            raise DataError(f"{file}: its {key} is {json.dumps(meta[key])[:60]}, so it is damaged; {AGAIN}")
    if "checksums" in meta:
        _check_sums(file, meta)
    elif unknown := sorted(set(meta) - {"format", "version", *expected}):
        raise DataError(f"{file}: has {', '.join(unknown)[:60]} and no checksums, so it is damaged; {AGAIN}")
    else:
        _note_no_checksums(path)
    return meta


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_count_or_none(value: object) -> bool:
    return value is None or _is_count(value)


def _is_dict(value: object) -> bool:
    return isinstance(value, dict)


def _check_sums(file: Path, meta: dict) -> None:
    sums = meta["checksums"]
    if not _is_dict(sums) or sums.get("meta.json") != checksums.of_meta(meta):
        raise DataError(f"{file}: damaged or changed: it has not the checksum that is in it; {remedy(file.parent)}")
    if not sums.items() >= checksums.METHOD.items() or not sums.keys() >= ARRAYS.keys():
        raise DataError(f"{file}: expected checksums {checksums.METHOD} of {', '.join(ARRAYS)}; {remedy(file.parent)}")


@cache
def _note_no_checksums(path: Path) -> None:
    logger.warning(
        "%s: has no checksums, so damage to it stays unseen; python -m datasets.store %s --write-checksums adds them",
        path,
        path,
    )


def map_arrays(
    path: Path, source: str, meta: dict, *, check_days: bool = True
) -> tuple[CheckedArray, CheckedArray, CheckedArray]:
    """Bands, days of year and offsets of the store at `path`, none of whose rows has been read.

    DataError, at once, for a file that is no such array or of another size; when rows of it are read, for rows that
    are not those that were written, with `check_days` days of year outside 1-366, and offsets that do not increase.
    """
    arrays = []
    for name, (dtype, row_shape) in ARRAYS.items():
        try:
            arrays.append(map_array(path / name, dtype, row_shape))
        except (OSError, ValueError) as error:
            raise DataError(f"{path / name}: cannot be read ({' '.join(str(error).split())}); {AGAIN}") from None
    counts = (meta["observations"], meta["observations"], meta["series"] + 1)
    for name, array, count in zip(ARRAYS, arrays, counts, strict=True):
        if len(array) != count:
            raise DataError(f"{path}: {name} counts {len(array)}, meta.json says {count}; {AGAIN}")
    days = partial(_check_days, path, arrays[2]) if check_days else None
    are_plausible = (None, days, partial(_check_offsets, path, meta))
    return tuple(
        CheckedArray(array, partial(_check_block, path / name, remedy(path, source), meta, check))
        for name, array, check in zip(ARRAYS, arrays, are_plausible, strict=True)
    )


def _check_block(
    file: Path, advice: str, meta: dict, check: Callable[[int, np.ndarray], None] | None, first: int, rows: np.ndarray
) -> None:
    """A block of an array from row `first` on, followed by the next row."""
    sums, own = meta.get("checksums", {}).get(file.name), rows[: checksums.ROWS]
    place = 8 * (first // checksums.ROWS)
    if sums is not None and sums[place : place + 8] != checksums.of_array(own):
        raise DataError(
            f"{file}: damaged or changed: rows {first} to {first + len(own) - 1} do not have their checksum; {advice}"
        )
    if check is not None:
        check(first, rows)


def _check_days(path: Path, offsets: np.ndarray, first: int, doy: np.ndarray) -> None:
    bad = ~checks.are_days(doy)
    if bad.any():
        row = int(bad.argmax())
        series = int(np.searchsorted(offsets, first + row, side="right")) - 1
        place = f"series {series}, observation {first + row - offsets[series]}"
        raise DataError(f"{path}: {place}: day of year is {doy[row]}; expected {checks.DAY}")


def _check_offsets(path: Path, meta: dict, first: int, offsets: np.ndarray) -> None:
    file = path / "offsets.npy"
    if first == 0 and offsets[0] != 0:
        raise DataError(f"{file}: the first entry is {offsets[0]}; expected 0")
    last, observations = meta["series"], meta["observations"]
    if first + len(offsets) > last and offsets[last - first] != observations:
        raise DataError(f"{file}: the last entry is {offsets[last - first]}; expected {observations}, as in meta.json")
    for row in np.flatnonzero((offsets < 0) | (offsets > observations))[:1]:
        raise DataError(f"{file}: entry {first + row} is {offsets[row]}; expected 0 to {observations}")
    lengths = np.diff(offsets)
    checks.check_lengths(lengths, int(offsets[-1] - offsets[0]), str(path), first)


def check_index(path: Path, source: str, meta: dict) -> bool:
    """Whether the store has an index.csv; DataError where it is not the one that was written."""
    file, expected = path / "index.csv", meta.get("checksums", {}).get("index.csv")
    found = checksums.of_file(file) if file.exists() else None
    if "checksums" in meta and found != expected:
        what = "no such file, and there was one" if found is None else "damaged or changed: it has not its checksum"
        raise DataError(f"{file}: {what}; {remedy(path, source)}")
    return found is not None


def remedy(path: Path, source: str | None = None) -> str:
    """What to do about a store that is damaged."""
    if source is not None and source != str(path):
        return f"remove {path}, which is then made again from {source}"
    return f"copy or make the store again; if you changed it, python -m datasets.store {path} --write-checksums"


def write_checksums(path: Path) -> None:
    """Put checksums of what is in the files of a store now into its meta.json."""
    file = path / "meta.json"
    meta = json.loads(file.read_text(encoding="utf-8"))
    meta.pop("checksums", None)
    meta.pop("absurd", None)  # of what was in it before
    arrays = map_arrays(path, str(path), meta)
    sums = {name: checksums.of_array(np.asarray(array)) for name, array in zip(ARRAYS, arrays, strict=True)}
    if (path / "index.csv").exists():
        sums["index.csv"] = checksums.of_file(path / "index.csv")
    write_text(file, json.dumps(checksums.add_to_meta(meta, sums), indent=2))
