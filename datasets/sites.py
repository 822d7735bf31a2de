"""Keeping the series of some study sites, by the region column of the stores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from datasets.errors import DataError
from datasets.store import SeriesSet


def restrict(
    splits: Sequence[SeriesSet], regions: Iterable[str] | None = None, leave_out: str | None = None
) -> list[SeriesSet]:
    """The splits (train, valid, eval, or eval alone) with the series of these sites, in any case of letters.

    `regions` keeps these sites in every split. `leave_out` takes a site from all splits but the last, and leaves the
    last nothing else. DataError for data without regions, an unknown site, and a split that is left empty.
    """
    sites = [_lowered_regions(series) for series in splits]
    known = sorted({name for series in splits for name in series.regions})
    wanted = None if regions is None else {_known(name, known) for name in regions}
    left_out = None if leave_out is None else _known(leave_out, known)
    kept = []
    for number, (series, names) in enumerate(zip(splits, sites, strict=True), start=1):
        keep = np.ones(len(series), dtype=bool)
        if wanted is not None:
            keep &= np.isin(names, list(wanted))
        if left_out is not None:
            keep &= (names == left_out) if number == len(splits) else (names != left_out)
        if not keep.any():
            raise DataError(f"{series.store.source}: none of its {len(series)} series is left after choosing sites")
        kept.append(series.take(np.flatnonzero(keep)))
    return kept


def _lowered_regions(series: SeriesSet) -> np.ndarray:
    if series.regions is None:
        raise DataError(f"{series.store.source}: the sites of its series are not known, so none can be chosen")
    return np.array([str(name).lower() for name in series.regions])


def _known(name: str, known: Sequence[str]) -> str:
    if name.lower() not in {site.lower() for site in known}:
        raise DataError(f"unknown site {name!r}; the data has {', '.join(known)}")
    return name.lower()
