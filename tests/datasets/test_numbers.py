"""Which series of which store are at some positions of several sets."""

from __future__ import annotations

import numpy as np

from datasets.numbers import series_at
from datasets.store import SeriesSet
from tests.support.layout import write_store


def test_positions_run_through_the_sets(tmp_path):
    first, second = (write_store(tmp_path / name, [0] * count, seed=1) for name, count in (("a", 4), ("b", 3)))
    second.index["id"] = [70, 71, 72]
    parts = (SeriesSet(first, np.array([3, 1])), SeriesSet(second, np.array([2, 0, 1])))
    told = series_at(parts, np.array([1, 2, 4, 0, 3]))
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    assert told == [
        {"source": a, "row": 1}, {"source": b, "row": 2, "id": "72"}, {"source": b, "row": 1, "id": "71"},
        {"source": a, "row": 3}, {"source": b, "row": 0, "id": "70"},
    ]  # fmt: skip


def test_unlabelled_series_have_no_id(tmp_path):
    store = write_store(tmp_path / "store", None, count=5)
    (told,) = series_at([SeriesSet.whole(store)], np.array([4]))
    assert told == {"source": str(tmp_path / "store"), "row": 4} and type(told["row"]) is int


def test_an_empty_set_has_no_position(tmp_path):
    store = write_store(tmp_path / "store", None, count=5)
    parts = [SeriesSet(store, np.array([], dtype=int)), SeriesSet(store, np.array([2]))]
    assert series_at(parts, np.array([0])) == [{"source": str(tmp_path / "store"), "row": 2}]
