"""Selecting series by study site, from the region column of the index."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from datasets.errors import DataError
from datasets.store import SeriesSet


def restrict(
    splits: Sequence[SeriesSet], regions: Iterable[str] | None = None, leave_out: str | None = None
) -> list[SeriesSet]:
    """Restrict the splits (train, valid and eval, or eval alone) to some sites; names are case-insensitive.

    `regions` keeps only these sites in every split. `leave_out` removes a site from all splits but the last, and keeps
    only this site in the last.

    Raises:
        DataError: data without regions, an unknown site, or a split that ends up empty.
    """
    names_of_splits = [_lower_case_regions(series) for series in splits]
    known = sorted({name for series in splits for name in series.regions})
    wanted = None if regions is None else [_site_key(name, known) for name in regions]
    left_out = None if leave_out is None else _site_key(leave_out, known)
    selected = []
    for number, (series, names) in enumerate(zip(splits, names_of_splits, strict=True), start=1):
        keep = np.ones(len(series), dtype=bool)
        if wanted is not None:
            keep &= np.isin(names, wanted)
        if left_out is not None:
            keep &= (names == left_out) if number == len(splits) else (names != left_out)
        if not keep.any():
            raise DataError(f"{series.store.source}: none of its {len(series)} series is of the selected sites")
        selected.append(series.take(np.flatnonzero(keep)))
    return selected


def _lower_case_regions(series: SeriesSet) -> np.ndarray:
    if series.regions is None:
        raise DataError(
            f"{series.store.source}: no region column, which --regions and --leave-out need; add it to the index"
        )
    return np.array([str(name).lower() for name in series.regions])


def _site_key(name: str, known: Sequence[str]) -> str:
    """The lower-case name of a site that the data have."""
    if name.lower() not in {site.lower() for site in known}:
        raise DataError(f"unknown site {name!r}; the data has {', '.join(known)}")
    return name.lower()
