"""Which series a batch was made of, as people look them up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from datasets.store import SeriesSet


def series_at(parts: Sequence[SeriesSet], positions: np.ndarray) -> list[dict]:
    """Where the series at these positions of several sets, one after another, come from.

    For each: its ``source`` (store or file), its ``row`` there, and its ``id`` where the index has that column.
    """
    first, told = np.cumsum([0, *map(len, parts)]), []
    for position in positions:
        which = int(np.searchsorted(first, position, side="right")) - 1
        series = parts[which]
        row = int(series.rows[position - first[which]])
        index = series.store.index
        known = {"id": str(index["id"].iloc[row])} if index is not None and "id" in index else {}
        told.append({"source": series.store.source, "row": row, **known})
    return told
