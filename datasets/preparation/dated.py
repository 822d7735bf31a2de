"""From series with dates, of any source, to the stores of a data root: years, missing values, labels, splits.

Series pass twice, in constant memory: first into a temporary store a year (`sort_by_year`), then, dealt to train, valid
and eval, into the root (`add`). What is kept of every series in memory is its label and its block.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from datasets.checks import DN_LIMITS
from datasets.classmap import ClassMap
from datasets.errors import DataError
from datasets.preparation import classes, summary
from datasets.preparation.root import LABELLED, UNLABELLED, add_years, check_addition
from datasets.preparation.split import deal
from datasets.readers.dated import Dated
from datasets.store import Store, StoreWriter
from datasets.tables import OPTIONS

TWELVE_MONTHS = 365  # days; the day of year of the last is below that of the first
PIECE = 4096  # series copied at once


class Sorted(NamedTuple):
    """What `sort_by_year` made: the store of each year, and what it left out and changed, in words -> count."""

    stores: dict[int, Path]
    counts: Counter
    days: dict[int, set[date]]  # dates of the observations of each year


def year_of_most(days: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The calendar year in which most observations of each series lie, of equals the last: (N,) int64.

    days (M,) datetime64[D] of N series of these lengths.
    """
    series = np.repeat(np.arange(len(lengths)), lengths)
    years = days.astype("datetime64[Y]").astype(np.int64) + 1970
    pairs, counts = np.unique(series * 10_000 + years, return_counts=True)
    series, years = np.divmod(pairs, 10_000)
    order = np.lexsort((years, counts, series))
    last = np.append(np.diff(series) > 0, True)
    return years[order][last]


def within_twelve_months(days: np.ndarray, lengths: np.ndarray, years: np.ndarray) -> np.ndarray:
    """Which observations (M,) to keep so that each series has at most twelve months, those that lie most in its year.

    Series within one calendar year or 365 days stay whole. Of longer ones the year itself is kept where they cover it,
    else the 365 days at the end of the series that lies in the year. None of a series without an observation in it.
    """
    starts = np.cumsum(lengths) - lengths
    first, last = np.minimum.reduceat(days, starts), np.maximum.reduceat(days, starts)
    begin, end = (((years - 1970 + k).astype("datetime64[Y]")).astype("datetime64[D]") for k in (0, 1))
    end = end - 1
    covered, ends_early = (first <= begin) & (last >= end), last < end
    low = np.where(covered, begin, np.where(ends_early, last - (TWELVE_MONTHS - 1), first))
    high = np.where(covered, end, np.where(ends_early, last, first + (TWELVE_MONTHS - 1)))
    is_short = ((last - first).astype(np.int64) < TWELVE_MONTHS) | ((first >= begin) & (last <= end))
    low, high = np.where(is_short, first, low), np.where(is_short, last, high)
    inside = (days >= np.repeat(low, lengths)) & (days <= np.repeat(high, lengths))
    in_year = np.logical_or.reduceat((days >= np.repeat(begin, lengths)) & (days <= np.repeat(end, lengths)), starts)
    return inside & np.repeat(in_year, lengths)


def in_time_order(piece: Dated) -> Dated:
    """The piece with the observations of each series sorted by date; those of one day keep their order."""
    series = np.repeat(np.arange(len(piece.lengths)), piece.lengths)
    order = np.lexsort((piece.days, series))
    return piece._replace(bands=piece.bands[order], days=piece.days[order])


def day_of_year(days: np.ndarray) -> np.ndarray:
    """datetime64[D] -> 1 to 366, int16."""
    return ((days - days.astype("datetime64[Y]").astype("datetime64[D]")).astype(np.int64) + 1).astype(np.int16)


def digital_numbers(bands: np.ndarray, scale: float) -> tuple[np.ndarray, int]:
    """Values (M, 10) without NaN -> int16 DN, and how many were above 32,767 and are that now."""
    numbers = np.rint(bands * scale)
    return numbers.clip(DN_LIMITS.min, DN_LIMITS.max).astype(np.int16), int((numbers > DN_LIMITS.max).sum())


def sort_by_year(
    pieces: Iterable[Dated], folder: Path, *, year: int | None = None, scale: float = 1.0, labelled: bool = True
) -> Sorted:
    """Write the series into a store FOLDER/<year> for each year: that of most of their observations, or `year` for all.

    Left out and counted: what lies outside the twelve months, observations with a missing band, series without any
    observation left, and with `labelled` series without a label (column `code`).
    """
    counts: Counter = Counter()
    days: dict[int, set] = {}
    with ExitStack() as stack:
        writers: dict[int, StoreWriter] = {}
        for piece in pieces:
            for of_year, bands, when, lengths, index in _by_year(piece, year, scale, labelled, counts):
                if of_year not in writers:
                    writers[of_year] = stack.enter_context(StoreWriter(folder / str(of_year)))
                writers[of_year].append(bands, day_of_year(when), lengths, index)
                days.setdefault(of_year, set()).update(np.unique(when).tolist())
    return Sorted({key: folder / str(key) for key in sorted(writers)}, counts, days)


def _by_year(piece: Dated, year: int | None, scale: float, labelled: bool, counts: Counter) -> Iterator[tuple]:
    """Year, bands, days, lengths and index of the series of a piece that are kept."""
    piece = in_time_order(piece)
    counts["series"] += len(piece.lengths)
    lengths, series = piece.lengths, np.repeat(np.arange(len(piece.lengths)), piece.lengths)
    years = year_of_most(piece.days, lengths) if year is None else np.full(len(lengths), year)
    keep = within_twelve_months(piece.days, lengths, years)
    inside = np.bincount(series[keep], minlength=len(lengths))
    counts["series outside the year"] += int((inside == 0).sum())
    counts["series cut to twelve months"] += int(((inside > 0) & (inside < lengths)).sum())
    counts["observations outside the twelve months"] += int((lengths - inside)[inside > 0].sum())
    complete = ~np.isnan(piece.bands).any(axis=1)
    counts["observations with a missing band"] += int((keep & ~complete).sum())
    keep &= complete
    left = np.bincount(series[keep], minlength=len(lengths))
    counts["series without an observation left"] += int(((inside > 0) & (left == 0)).sum())
    if labelled:
        unknown = (left > 0) & (piece.index["code"] == "")
        counts["series without a label"] += int(unknown.sum())
        left = np.where(unknown, 0, left)
    keep &= np.repeat(left > 0, lengths)
    for of_year in np.unique(years[left > 0]).tolist():
        chosen = (years == of_year) & (left > 0)
        rows = keep & np.repeat(chosen, lengths)
        bands, clipped = digital_numbers(piece.bands[rows], scale)
        counts["band values clipped to 32,767"] += clipped
        counts["observations"] += int(rows.sum())
        index = {name: values[chosen] for name, values in piece.index.items()}
        yield of_year, bands, piece.days[rows], left[chosen], index


def labels_in(stores: Iterable[Path]) -> np.ndarray:
    """The labels (column `code`) of all series, whole numbers where all are above 0, else text."""
    codes = pd.concat([_columns(path, ["code"])["code"] for path in stores])
    if codes.str.fullmatch(r"[1-9]\d{0,17}").all():
        return codes.astype(np.int64).to_numpy()
    return codes.to_numpy(dtype=str)


def choose_classmap(choice: str | None, root: Path, labels: np.ndarray) -> tuple[ClassMap, str]:
    """The map of the file `choice`, else that of the root, else one of all labels there are; and a line on it."""
    if choice is None and not any(root.glob("classmapping*.csv")):
        count = len(np.unique(labels))
        return classes.frequent(np.sort(labels), count), f"classes: the {count} labels that are there"
    return classes.choose_classmap(choice, root, labels)


def add(
    found: Sorted,
    root: Path,
    *,
    site: str,
    classmap: ClassMap | None,
    split: str,
    seed: int,
    meta: dict,
    replace: bool = False,
) -> dict[int, summary.NdviByDay]:
    """Deal the series and add all years to the root in one step (see `add_years`); returns the NDVI of each year.

    `split`: the column of the index by which they are dealt: `split` (as it says), `block` or `region` (whole blocks
    or regions; of fewer than three regions each series by itself) or `id` (each series by itself). Without a class map
    the series are unlabelled and not dealt.
    """
    for year in found.stores:
        check_addition(root, year, site, classmap, replace=replace)
    ndvi = {year: summary.NdviByDay(classmap, sorted(found.days[year])) for year in found.stores}
    pieces = {year: _pieces(path, classmap, split, seed, ndvi[year]) for year, path in found.stores.items()}
    add_years(root, pieces, site=site, classmap=classmap, meta=meta, replace=replace)
    return ndvi


def splits_of(path: Path, classmap: ClassMap | None, by: str, seed: int) -> np.ndarray:
    """The split of each series of a store, (N,) of str."""
    if classmap is None:
        return np.full(len(Store.open(path)), UNLABELLED)
    if by == "split":
        return _columns(path, [by])[by].to_numpy(dtype=str)
    by = "id" if by == "region" and has_few_regions(path) else by
    columns = _columns(path, [by, "code"])
    return deal(columns[by].to_numpy(dtype=str), columns["code"].to_numpy(dtype=str), seed)


def has_few_regions(path: Path) -> bool:
    """Whether the series of a store of `sort_by_year` have fewer regions than there are splits."""
    return _columns(path, ["region"])["region"].nunique() < len(LABELLED)


def regions_of(path: Path) -> set[str]:
    """The regions that a store of `sort_by_year` names."""
    if "region" not in pd.read_csv(path / "index.csv", nrows=0):
        return set()
    return set(_columns(path, ["region"])["region"]) - {""}


def _pieces(path: Path, classmap: ClassMap | None, by: str, seed: int, ndvi: summary.NdviByDay) -> Iterator[tuple]:
    """What `add_to_root` takes, from a store of `sort_by_year`; its NDVI goes to `ndvi`."""
    store, splits, first = Store.open(path), splits_of(path, classmap, by, seed), 0
    with pd.read_csv(path / "index.csv", dtype=str, chunksize=PIECE, **(OPTIONS | {"low_memory": True})) as parts:
        for part in parts:
            offsets = store.offsets[first : first + len(part) + 1]
            bands, doy = store.bands[offsets[0] : offsets[-1]], store.doy[offsets[0] : offsets[-1]]
            of_part, lengths = splits[first : first + len(part)], np.diff(offsets)
            first += len(part)
            index = {name: part[name].to_numpy() for name in part if name != "split"}
            if "region" in index and (index["region"] == "").all():
                del index["region"]
            if classmap is not None:
                index["label"] = classes.label_of(_as_labels(part["code"]), classmap)
            ndvi.add(index.get("label", np.zeros(len(part), dtype=np.int64)), lengths, bands, doy)
            for split in (UNLABELLED,) if classmap is None else LABELLED:
                chosen = of_part == split
                rows = np.repeat(chosen, lengths)
                yield split, bands[rows], doy[rows], lengths[chosen], {k: v[chosen] for k, v in index.items()}


def _as_labels(codes: pd.Series) -> np.ndarray:
    """Labels as text, by which `classes.label_of` finds names and codes alike."""
    return codes.to_numpy(dtype=str)


def _columns(path: Path, names: list[str]) -> pd.DataFrame:
    return pd.read_csv(path / "index.csv", usecols=names, dtype=str, **OPTIONS)


def left_out(counts: Counter) -> list[str]:
    """Lines on what `sort_by_year` left out or changed."""
    said = [f"{count:,} {what}" for what, count in counts.items() if count and what not in ("series", "observations")]
    kept = f"{counts['series']:,} series read, {counts['observations']:,} observations kept"
    return [f"{kept}; {', '.join(said)}" if said else f"{kept}; nothing left out"]


def expected(found: Sorted, classmap: ClassMap | None, split: str, seed: int, site: str) -> Iterator[str]:
    """The table class x split of every year, without writing anything into a root."""
    for year, path in found.stores.items():
        splits = splits_of(path, classmap, split, seed)
        if classmap is None:
            yield f"{year}: {len(splits):,} unlabelled series"
            continue
        labels = classes.label_of(_as_labels(_columns(path, ["code"])["code"]), classmap)
        counts = Counter(zip(labels.tolist(), splits.tolist(), [site] * len(labels), strict=True))
        yield f"{year}:\n{summary.counts_table(counts, classmap)}"


def refuse_empty(found: Sorted, where: Path) -> None:
    """DataError that says what took all series, where none is left."""
    if not found.stores:
        took = ", ".join(f"{count:,} {what}" for what, count in found.counts.items() if count and what != "series")
        raise DataError(f"{where}: none of its {found.counts['series']:,} series is left ({took})")
