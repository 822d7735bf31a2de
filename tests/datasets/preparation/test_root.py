import json
import os
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from datasets.classmap import CDL20, ClassMap, read_classmap
from datasets.errors import DataError
from datasets.preparation.root import ADDING, add_to_root, add_years, settle, writing
from datasets.store import Store, StoreWriter
from tests.support.layout import write_root

TWO = ClassMap.of([("Corn", 1, (255, 212, 0)), ("Rice", 3, (0, 169, 230))])


def piece(split, values, lengths=None, **index):
    """Series whose bands all hold their number; class 0 unless the index says otherwise."""
    lengths = lengths or [1] * len(values)
    bands = np.repeat(np.array(values, dtype=np.int16), lengths)[:, None].repeat(10, axis=1)
    doy = np.array([day for length in lengths for day in range(1, length + 1)], dtype=np.int16)
    labels = {} if split == "unlabelled" else {"label": np.zeros(len(values), dtype=np.int64)}
    return split, bands, doy, np.array(lengths), labels | {name: np.array(column) for name, column in index.items()}


def add(root, *pieces, site="A", year=2019, classmap=TWO, meta=None):
    return add_to_root(root, year, pieces, site=site, classmap=classmap, meta=meta or {"crs": site})


def values(root, split, year=2019):
    store = Store.open(root / str(year) / split)
    return [int(store.series(i)[0][0, 0]) for i in range(len(store))]


def everything(root):
    return {path.relative_to(root): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_pieces_of_the_splits_may_come_in_any_order(tmp_path):
    counts = add(tmp_path, piece("eval", [1, 2]), piece("train", [3], [4]), piece("eval", [4]))
    assert counts == {"train": 1, "eval": 3}
    assert values(tmp_path, "eval") == [1, 2, 4] and values(tmp_path, "train") == [3]
    assert Store.open(tmp_path / "2019" / "train").lengths.tolist() == [4]
    assert read_classmap(tmp_path / "classmapping2.csv") == TWO


def test_a_second_site_follows_the_first_and_what_is_known_of_both_stays(tmp_path):
    add(tmp_path, piece("train", [1, 2], [2, 3], x=[0.1, 1 / 3]), site="A")
    add(tmp_path, piece("train", [3], [4], x=[7.25]), site="B")
    store = Store.open(tmp_path / "2019" / "train")
    assert values(tmp_path, "train") == [1, 2, 3] and store.lengths.tolist() == [2, 3, 4]
    assert store.index["region"].tolist() == ["A", "A", "B"] and store.index["x"].tolist() == [0.1, 1 / 3, 7.25]
    assert store.meta["provenance"] == {"sites": {"A": {"crs": "A"}, "B": {"crs": "B"}}}
    assert store.doy.tolist() == [1, 2, 1, 2, 3, 1, 2, 3, 4]


def test_old_series_are_copied_in_parts_with_their_rows(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.preparation.root.COPIED", 3)
    numbers = list(range(1, 9))
    add(tmp_path, piece("train", numbers, numbers, id=numbers), site="A")
    add(tmp_path, piece("train", [9], [2], id=[9]), site="B")
    store = Store.open(tmp_path / "2019" / "train")
    assert values(tmp_path, "train") == store.index["id"].tolist() == [*numbers, 9]
    assert store.lengths.tolist() == [*numbers, 2]


def test_splits_without_new_series_are_left_alone(tmp_path):
    add(tmp_path, piece("train", [1]), piece("eval", [2]), site="A")
    before = os.stat(tmp_path / "2019" / "eval" / "bands.npy")
    add(tmp_path, piece("train", [3]), site="B")
    assert os.path.samestat(before, os.stat(tmp_path / "2019" / "eval" / "bands.npy"))


def test_a_column_that_only_one_site_has_is_blank_for_the_other(tmp_path):
    add(tmp_path, piece("train", [1], x=[5.5]), site="A")
    add(tmp_path, piece("train", [2], field=["f"]), site="B")
    text = (tmp_path / "2019" / "train" / "index.csv").read_text().splitlines()
    assert text == ["label,region,x,field", "0,A,5.5,", "0,B,,f"]


def test_a_second_year_is_a_folder_of_its_own(tmp_path):
    add(tmp_path, piece("train", [1]), year=2019)
    add(tmp_path, piece("train", [2]), year=2020)
    assert values(tmp_path, "train", 2019) == [1] and values(tmp_path, "train", 2020) == [2]


def test_a_site_may_have_unlabelled_series_as_well(tmp_path):
    add(tmp_path, piece("train", [1]), site="A")
    add(tmp_path, piece("unlabelled", [2]), site="A", classmap=None)
    index = pd.read_csv(tmp_path / "2019" / "unlabelled" / "index.csv")
    assert list(index) == ["region"] and Store.open(tmp_path / "2019" / "unlabelled").labels is None
    with pytest.raises(DataError, match="unlabelled: has series of the site 'A' already"):
        add(tmp_path, piece("unlabelled", [2]), site="A", classmap=None)


@pytest.mark.parametrize("again", ["Harvey", "harvey"])
def test_a_site_named_twice_is_refused_and_nothing_changes(tmp_path, again):
    add(tmp_path, piece("train", [1]), site="Harvey")
    before = everything(tmp_path)
    with pytest.raises(DataError, match=f"train: has series of the site '{again}' already; give another --site"):
        add(tmp_path, piece("eval", [1]), site=again)
    assert everything(tmp_path) == before


def test_a_region_of_a_piece_that_is_there_already_is_refused(tmp_path):
    add(tmp_path, piece("train", [1, 2], region=["T1", "T2"]), site="tiles")
    with pytest.raises(DataError, match="site 't2' already"):
        add(tmp_path, piece("train", [3], region=["T2"]), site="more")
    assert values(tmp_path, "train") == [1, 2]


def replace(root, *pieces, site="B", classmap=TWO):
    return add_to_root(root, 2019, pieces, site=site, classmap=classmap, meta={"crs": "new"}, replace=True)


def test_a_site_can_be_replaced_in_all_its_splits(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.preparation.root.COPIED", 2)
    add(tmp_path, piece("train", [1, 2, 3], [1, 2, 3]), piece("eval", [4]), piece("valid", [5]), site="A")
    add(tmp_path, piece("train", [6, 7], [2, 1]), piece("eval", [8]), site="B")
    add(tmp_path, piece("unlabelled", [9]), site="B", classmap=None)
    add(tmp_path, piece("train", [10, 11], [4, 1]), piece("valid", [12]), site="C")
    assert replace(tmp_path, piece("train", [20], [5]), piece("valid", [21]), site="b") == {"train": 1, "valid": 1}
    train = Store.open(tmp_path / "2019" / "train")
    assert values(tmp_path, "train") == [1, 2, 3, 10, 11, 20] and train.lengths.tolist() == [1, 2, 3, 4, 1, 5]
    assert train.index["region"].tolist() == ["A", "A", "A", "C", "C", "b"]
    assert train.meta["provenance"]["sites"] == {"A": {"crs": "A"}, "C": {"crs": "C"}, "b": {"crs": "new"}}
    assert train.doy.tolist() == [1, 1, 2, 1, 2, 3, 1, 2, 3, 4, 1, 1, 2, 3, 4, 5]
    assert values(tmp_path, "valid") == [5, 12, 21] and values(tmp_path, "eval") == [4]
    assert Store.open(tmp_path / "2019" / "eval").meta["provenance"]["sites"] == {"A": {"crs": "A"}}
    assert values(tmp_path, "unlabelled") == [9]


def test_replacing_the_only_site_gives_the_bytes_of_a_new_root(tmp_path):
    add(tmp_path / "old", piece("train", [1], x=[2.5]), piece("eval", [2], x=[3.5]), site="B")
    replace(tmp_path / "old", piece("train", [3, 4]))
    replace(tmp_path / "new", piece("train", [3, 4]))
    assert everything(tmp_path / "old") == everything(tmp_path / "new")
    assert not (tmp_path / "old" / "2019" / "eval").exists()


def test_unlabelled_series_are_replaced_without_the_labelled_ones(tmp_path):
    add(tmp_path, piece("train", [1]), site="B")
    add(tmp_path, piece("unlabelled", [2, 3]), site="B", classmap=None)
    replace(tmp_path, piece("unlabelled", [4]), classmap=None)
    assert values(tmp_path, "unlabelled") == [4] and values(tmp_path, "train") == [1]


def test_splits_that_lack_the_replaced_site_are_left_alone(tmp_path):
    add(tmp_path, piece("train", [1]), piece("eval", [2]), site="A")
    before = os.stat(tmp_path / "2019" / "eval" / "bands.npy")
    replace(tmp_path, piece("train", [3]))
    assert os.path.samestat(before, os.stat(tmp_path / "2019" / "eval" / "bands.npy"))


def test_a_site_is_replaced_with_all_regions_that_it_had(tmp_path):
    add(tmp_path, piece("train", [1, 2], region=["T1", "T2"]), piece("eval", [3], region=["t3"]), site="B")
    add(tmp_path, piece("train", [4], region=["T4"]), piece("eval", [5], region=["C"]), site="C")
    sites = Store.open(tmp_path / "2019" / "train").meta["provenance"]["sites"]
    assert sites["B"] == {"crs": "B", "regions": ["T1", "T2", "t3"]} and sites["C"]["regions"] == ["C", "T4"]
    replace(tmp_path, piece("train", [6], region=["t2"]), piece("train", [7], region=["T5"]), site="b")
    train = Store.open(tmp_path / "2019" / "train")
    assert values(tmp_path, "train") == [4, 6, 7] and train.index["region"].tolist() == ["T4", "t2", "T5"]
    assert values(tmp_path, "eval") == [5]
    assert train.meta["provenance"]["sites"]["b"] == {"crs": "new", "regions": ["T5", "t2"]}
    with pytest.raises(DataError, match="site 't4' already"):  # which is of the other site
        replace(tmp_path, piece("train", [8], region=["T4"]))
    replace(tmp_path, piece("unlabelled", [9]), classmap=None)
    assert values(tmp_path, "train") == [4, 6, 7]


def test_a_split_with_series_of_the_replaced_regions_alone_goes(tmp_path):
    add(tmp_path, piece("train", [1]), piece("eval", [2], region=["T1"]), site="B")
    replace(tmp_path, piece("train", [3]))
    assert values(tmp_path, "train") == [3] and not (tmp_path / "2019" / "eval").exists()


def test_a_replacement_that_fails_leaves_the_old_series(tmp_path):
    add(tmp_path, piece("train", [1]), site="B")
    before = everything(tmp_path)
    with pytest.raises(DataError, match="2019/train"):
        replace(tmp_path, piece("train", [2]), piece("train", [3], label=[-1]))
    with pytest.raises(DataError, match="no series"):
        replace(tmp_path)
    assert everything(tmp_path) == before


def test_simulated_and_other_stores_grow_too(tmp_path):
    root = write_root(tmp_path / "root")
    old = Store.open(root / "2019" / "train")
    first = old.series(0)[0].copy()
    add(root, piece("train", [77]), site="New", classmap=CDL20)
    store = Store.open(root / "2019" / "train")
    assert len(store) == 91 and np.array_equal(store.series(0)[0], first) and values(root, "train")[-1] == 77
    with pytest.raises(DataError, match="site 'adams' already"):
        add(root, piece("train", [1]), site="adams", classmap=CDL20)
    with StoreWriter(root / "2021" / "unlabelled") as writer:  # no index at all
        writer.append(*piece("unlabelled", [5, 6])[1:4])
    add(root, piece("unlabelled", [7], row=[3]), site="New", year=2021, classmap=None)
    assert (root / "2021" / "unlabelled" / "index.csv").read_text() == "region,row\n,\n,\nNew,3\n"


@pytest.mark.parametrize("other", [CDL20, ClassMap.of([("Corn", 1, (255, 212, 0)), ("Peas", 53, (0, 169, 230))])])
def test_another_class_map_is_refused(tmp_path, other):
    add(tmp_path, piece("train", [1]))
    with pytest.raises(DataError, match=r"classmapping2.csv: differs from the \d+ classes of the new series"):
        add(tmp_path, piece("train", [1]), site="B", classmap=other)
    assert sorted(path.name for path in tmp_path.glob("*.csv")) == ["classmapping2.csv"]


def test_an_error_in_a_piece_leaves_the_root_as_it_was(tmp_path):
    add(tmp_path, piece("train", [1]))
    before = everything(tmp_path)
    with pytest.raises(DataError, match="2019/eval: .*day of year is 0"):
        bad = piece("eval", [1])
        add(tmp_path, piece("train", [2]), (bad[0], bad[1], bad[2] * 0, *bad[3:]), site="B")
    assert everything(tmp_path) == before


def test_no_series_are_an_error(tmp_path):
    with pytest.raises(DataError, match="no series of the site 'A' and year 2019 to add"):
        add(tmp_path, piece("train", []))
    assert not (tmp_path / "2019").exists()


def test_meta_may_be_what_is_known_at_the_end(tmp_path):
    seen = []

    def pieces():
        for value in (1, 2):
            seen.append(value)
            yield piece("train", [value])

    add_to_root(tmp_path, 2019, pieces(), site="A", classmap=TWO, meta=lambda: {"seen": seen})
    assert json.loads((tmp_path / "2019/train/meta.json").read_text())["provenance"]["sites"]["A"] == {"seen": [1, 2]}


def in_child(function) -> int:
    """What ended a process of its own that calls the function: 0, or the signal."""
    child = os.fork()
    if child == 0:
        try:
            function()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1]


def die_at_renaming(step, function):
    """Call the function in a process that kills itself at the n-th renaming within the root's unfinished work."""

    def die_at_step():
        calls = []

        def counted(function):
            def call(path, *args, **kwargs):
                if ADDING in f"{path} {args}":
                    calls.append(1)
                    if len(calls) == step:
                        os.kill(os.getpid(), signal.SIGKILL)
                return function(path, *args, **kwargs)

            return call

        for name in ("rename", "replace", "touch"):
            setattr(Path, name, counted(getattr(Path, name)))
        function()

    return in_child(die_at_step)


def test_a_process_killed_at_any_step_leaves_all_splits_grown_or_none(tmp_path):
    """Killed at each renaming in turn; the next process finds the root with site B in all its splits or in none."""
    outcomes = []
    for step in range(1, 20):
        root = tmp_path / str(step)
        add(root, piece("train", [1]), piece("eval", [2]), site="A")
        added = piece("train", [3]), piece("eval", [4]), piece("valid", [5])
        ended = die_at_renaming(step, lambda root=root, added=added: add(root, *added, site="B"))
        settle(root)
        assert not (root / ADDING).exists()
        grown = values(root, "train") == [1, 3]
        assert values(root, "eval") == ([2, 4] if grown else [2])
        assert (root / "2019" / "valid").exists() == grown
        outcomes.append((ended, grown))
        if ended == 0:
            break
    assert outcomes[0] == (signal.SIGKILL, False) and outcomes[-1] == (0, True)
    assert outcomes.count((signal.SIGKILL, True)) >= 4


def test_a_process_killed_at_any_step_leaves_the_old_series_of_a_site_or_the_new_ones(tmp_path):
    outcomes = []
    for step in range(1, 20):
        root = tmp_path / str(step)
        add(root, piece("eval", [1]), site="A")
        add(root, piece("train", [2]), piece("eval", [3]), piece("valid", [4]), site="B")
        ended = die_at_renaming(step, lambda root=root: replace(root, piece("train", [5])))
        settle(root)
        is_new = values(root, "train") == [5]
        assert values(root, "train") == ([5] if is_new else [2])
        assert values(root, "eval") == ([1] if is_new else [1, 3])
        assert (root / "2019" / "valid").exists() == (not is_new)
        outcomes.append((ended, is_new))
        if ended == 0:
            break
    assert outcomes[0] == (signal.SIGKILL, False) and outcomes[-1] == (0, True)
    assert outcomes.count((signal.SIGKILL, True)) >= 4


def test_a_process_killed_at_any_step_leaves_all_years_grown_or_none(tmp_path):
    outcomes = []
    for step in range(1, 20):
        root = tmp_path / str(step)
        add(root, piece("train", [1]), site="A")
        years = {2018: [piece("train", [2])], 2019: [piece("train", [3]), piece("eval", [4])]}
        ended = die_at_renaming(
            step, lambda root=root, years=years: add_years(root, years, site="B", classmap=TWO, meta={})
        )
        settle(root)
        grown = values(root, "train") == [1, 3]
        assert (root / "2018" / "train").exists() == (root / "2019" / "eval").exists() == grown
        outcomes.append((ended, grown))
        if ended == 0:
            break
    assert outcomes[0] == (signal.SIGKILL, False) and outcomes[-1] == (0, True)
    assert outcomes.count((signal.SIGKILL, True)) >= 3
    assert values(tmp_path / str(len(outcomes)), "train", 2018) == [2]


def test_years_are_added_together_or_not_at_all(tmp_path):
    add(tmp_path, piece("train", [1]), site="A")
    before = everything(tmp_path)
    for bad in ([], [piece("train", [3], label=[-1])]):
        with pytest.raises(DataError):
            add_years(tmp_path, {2018: [piece("train", [2])], 2019: bad}, site="B", classmap=TWO, meta={})
        assert everything(tmp_path) == before
    years = {2018: [piece("train", [2, 3])], 2019: [piece("eval", [4])]}
    found = add_years(tmp_path, years, site="B", classmap=TWO, meta={})
    assert found == {2018: {"train": 2}, 2019: {"eval": 1}}
    with pytest.raises(DataError, match="2018/train: has series of the site 'B' already"):
        add_years(tmp_path, {2017: [piece("train", [5])], 2018: [piece("train", [5])]}, site="B", classmap=TWO, meta={})
    assert not (tmp_path / "2017").exists()


def test_two_processes_do_not_write_at_once(tmp_path):
    add(tmp_path, piece("train", [1]), site="first")
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        with writing(tmp_path):
            os.write(ready[1], b".")
            os.read(go[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    with pytest.raises(DataError, match=f"process {child} on .* is writing into it; wait until it has finished"):
        add(tmp_path, piece("train", [2]))
    os.write(go[1], b".")
    os.waitpid(child, 0)
    add(tmp_path, piece("train", [2]))
    assert values(tmp_path, "train") == [1, 2]
