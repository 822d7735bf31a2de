"""Series that are in two splits, and blocks of land that are: what makes scores look better than they are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import numpy as np

from datasets.store import SeriesSet, Store

KEY = 8  # bytes of a digest: of a million series, two that differ have the same one with a chance of 3e-8
PIECE = 65536  # series read together
FIX = "so the scores are too good; python -m datasets.check ROOT says more"


def keys(series: SeriesSet) -> np.ndarray:
    """A digest of the values and days of each series, (n,) uint64: equal for series that are equal byte for byte.

    The time grows with the number of series (docs/reliability.md); PIECE series are in memory at a time.
    """
    found = np.empty(len(series), dtype=np.uint64)
    for first in range(0, len(series), PIECE):
        for place, (bands, doy) in enumerate(_each(series.store, series.rows[first : first + PIECE]), start=first):
            digest = hashlib.blake2b(bands, digest_size=KEY)
            digest.update(doy)
            found[place] = int.from_bytes(digest.digest(), "little")
    return found


def _each(store: Store, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Bands and days of each of these series; of series that follow one another, read together."""
    if len(rows) < 2 or not (np.diff(rows) == 1).all():
        yield from map(store.series, rows.tolist())
        return
    offsets = np.asarray(store.offsets[rows[0] : rows[-1] + 2])
    bands, doy = store.bands[offsets[0] : offsets[-1]], store.doy[offsets[0] : offsets[-1]]
    ends = (offsets - offsets[0]).tolist()
    for start, end in zip(ends, ends[1:], strict=False):
        yield bands[start:end], doy[start:end]


def blocks(series: SeriesSet) -> np.ndarray | None:
    """The site and block of each series, (n,) of str; None where index.csv has no column `block`."""
    index = series.store.index
    if index is None or "block" not in index:
        return None
    site = index["region"].astype(str) if "region" in index else ""
    return (site + " " + index["block"].astype(str)).to_numpy(dtype=object)[series.rows].astype(str)


def leaks(splits: Mapping[str, SeriesSet], year: int, others: Mapping[int, SeriesSet]) -> list[str]:
    """What train, valid and eval of `splits` share, and what they share with the eval series of `others` by year.

    A line each, with numbers; none where nothing is shared.
    """
    train, valid = keys(splits["train"]), keys(splits["valid"])
    trained = np.concatenate([train, valid])
    lines = [_shared("valid", valid, train, "train")]
    for tested, series in {year: splits["eval"], **others}.items():
        lines.append(_shared(f"eval ({tested})", keys(series), trained, "train or valid"))
    there = [blocks(splits[name]) for name in ("train", "valid", "eval")]
    if all(known is not None for known in there):
        tested, known = np.unique(there[2]), np.concatenate(there[:2])
        if count := int(np.isin(tested, known).sum()):
            lines.append(
                f"{count:,} of {len(tested):,} blocks of eval ({year}) hold series of train or valid too, and pixels of"
                f" a block are alike, {FIX}"
            )
    return [line for line in lines if line]


def _shared(name: str, own: np.ndarray, other: np.ndarray, other_name: str) -> str:
    count = int(np.isin(own, other).sum())
    return f"{count:,} of {len(own):,} series of {name} are in {other_name} too, {FIX}" if count else ""
