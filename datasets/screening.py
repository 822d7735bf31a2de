"""Series that no model should be trained or tested on, found before the first step."""

from __future__ import annotations

import logging

import numpy as np

from datasets import checks
from datasets.errors import DataError
from datasets.readers.published import LEFT_OUT
from datasets.store import SeriesSet

REMEDY = "mend them, or leave them out with --skip-bad"

logger = logging.getLogger(__name__)


def screened(series: SeriesSet, split: str, skip_bad: bool) -> SeriesSet:
    """The series without those of `Store.absurd`, which are an error unless `skip_bad`.

    What is left out is counted in a warning, with those that could not be brought into the store.

    Raises:
        DataError: names the first by series and observation; or nothing is left.
    """
    store = series.store
    bad = np.isin(series.rows, store.absurd)
    if left_out := store.meta["provenance"].get(LEFT_OUT):
        logger.warning(
            "%s: %d of %d series are left out, the first: %s",
            split,
            left_out["series"],
            left_out["of"],
            left_out["first"],
        )
    if not bad.any():
        return series
    number = int(series.rows[bad.argmax()])
    first = f"{store.source}: series {number}, {checks.say_absurd(*store.series(number))}"
    if not skip_bad:
        raise DataError(f"{first} ({int(bad.sum()):,} of {len(series):,} {split} series are like that); {REMEDY}")
    logger.warning("%s: %d of %d series are left out, the first: %s", split, bad.sum(), len(series), first)
    if bad.all():
        raise DataError(f"{first}; so are all of the {split} series")
    return series.take(~bad)
