"""Finding data below a root: which source is used, how much of it, and the error if there is none."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from datasets.catalog import Selection, open_classmap, open_eval, open_labelled, open_unlabelled
from datasets.classmap import CDL20, ClassMap, write_classmap
from datasets.errors import DataError
from datasets.store import Store
from tests.conftest import SHARED, needs_shared
from tests.support.layout import (
    SITES,
    make_series,
    same_series,
    save_labelled,
    save_series_csv,
    save_table,
    save_unlabelled,
    write_store,
)

COUNTS = {"train": 90, "valid": 20, "eval": 30}
TOY = SHARED / "us-toy"


@pytest.fixture(autouse=True)
def user_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def stores(tmp_path):
    """A root in our own form."""
    for split, count in COUNTS.items():
        write_store(tmp_path / "2019" / split, [i % 15 for i in range(count)])
    write_store(tmp_path / "2019" / "unlabelled", None, count=40)
    return tmp_path


def series_of(count, seed=0):
    generator = np.random.default_rng(seed)
    return [make_series(generator) for _ in range(count)]


def save_split(root, name, count, seed=0, classes=7):
    series = series_of(count, seed)
    save_labelled(root / "2019" / "npy" / f"{name}.npy", series, [i % classes for i in range(count)])
    return series


@pytest.fixture
def published(tmp_path):
    """A root in the published form, made for budgets of 100 and 50 and seed 111."""
    for train, valid in ((90, 10), (45, 5)):
        save_split(tmp_path, f"Train_R{train}_Seed111_Class20", train, seed=train)
        save_split(tmp_path, f"Valid_R{valid}_Seed111_Class20", valid, seed=valid)
        save_split(tmp_path, f"Eval_R{valid}_Seed111_Class20", 30, seed=3)
    return tmp_path


def labelled(root, year=2019, **options):
    return open_labelled(root, year, Selection(**options))


def source_of(series):
    return series.store.source.rsplit("/", 1)[-1]


# ---- our own stores

def test_a_budget_is_drawn_from_stores(stores):
    splits = labelled(stores, num=50)
    assert [len(series) for series in splits] == [45, 5, 30]
    assert np.bincount(splits.train.labels).max() <= 4
    again, other = labelled(stores, num=50), labelled(stores, num=50, seed=112)
    np.testing.assert_array_equal(splits.train.rows, again.train.rows)
    np.testing.assert_array_equal(splits.valid.rows, again.valid.rows)
    assert not np.array_equal(splits.train.rows, other.train.rows)


def test_use_all_takes_everything(stores):
    assert [len(series) for series in open_labelled(stores, "2019", Selection(num=10**6, use_all=True))] == [90, 20, 30]


def test_unlabelled_series_are_drawn_by_the_seed(stores):
    assert len(open_unlabelled(stores, 2019)) == 40
    drawn = open_unlabelled(stores, 2019, num=15, seed=4)
    assert len(drawn) == len(set(drawn.rows)) == 15
    np.testing.assert_array_equal(drawn.rows, open_unlabelled(stores, 2019, num=15, seed=4).rows)
    with pytest.raises(DataError, match="unlabelled: the budget needs 41 series, there are 40"):
        open_unlabelled(stores, 2019, num=41)


def test_regions_are_kept_in_every_split(stores):
    splits = labelled(stores, num=20, regions=["adams", "HARVEY"])
    assert [len(series) for series in splits] == [18, 2, 20]
    assert all(set(series.regions) <= {"Adams", "Harvey"} for series in splits)
    assert set(open_eval(stores, 2019, Selection(regions=["haskell"])).regions) == {"Haskell"}


def test_a_site_left_out_is_in_eval_alone(stores):
    splits = labelled(stores, num=20, leave_out="adams")
    assert {*splits.train.regions, *splits.valid.regions} == {"Harvey", "Haskell"}
    assert set(splits.eval.regions) == {"Adams"} and len(splits.eval) == 10
    assert set(open_eval(stores, 2019, Selection(leave_out="adams")).regions) == {"Adams"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num": 200}, "2019: train: the budget needs 180 series, there are 90; give a smaller -n or --useall"),
        ({"num": 1}, "leaves train or valid empty"),
        ({"num": 100, "regions": ["Adams"]}, "train: the budget needs 90 series, there are 30"),
        ({"nclasses": 5, "use_all": True}, r"train/index.csv: line 8: label is '6'; expected a class id .* 0 to 5"),
        ({"regions": ["Adam"]}, "unknown site 'Adam'; the data has Adams, Harvey, Haskell"),
        ({"leave_out": "x"}, "unknown site 'x'; the data has Adams, Harvey, Haskell"),
        ({"regions": ["Adams"], "leave_out": "Harvey"}, "eval: none of its 30 series is of the selected sites"),
        ({"year": 2031}, "2031: no such year; found 2019 in"),
        ({"root": "/no/where"}, "/no/where: no such data folder; give one with --datapath"),
    ],
)
def test_impossible_selections_are_refused(stores, options, words):
    with pytest.raises(DataError, match=words) as caught:
        labelled(**({"root": stores, "num": 20} | options))
    assert "\n" not in str(caught.value)


def test_a_file_and_an_empty_folder_are_no_data_root(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file: a file; give the data folder"):
        open_unlabelled(tmp_path / "file", 2019)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: an empty folder, no data; fill it"):
        labelled(tmp_path / "empty")


def test_a_year_without_a_split_names_what_was_expected(tmp_path):
    (tmp_path / "2019").mkdir()
    with pytest.raises(DataError, match="2019: no train series; expected a store train/, npy/Train_All.npy"):
        labelled(tmp_path)
    with pytest.raises(DataError, match="2019: no unlabelled series; expected a store unlabelled/"):
        open_unlabelled(tmp_path, 2019)


def test_an_unlabelled_train_store_is_refused(stores, tmp_path):
    write_store(tmp_path / "other" / "2019" / "train", None, count=3)
    with pytest.raises(DataError, match="no labels; expected a class id for every train series"):
        labelled(tmp_path / "other")


# ---- the published layout

def test_the_file_of_the_budget_is_used_as_it_is(published, caplog):
    with caplog.at_level(logging.INFO, logger="datasets.catalog"):
        splits = labelled(published, num=50)
    assert [source_of(series) for series in splits] == [
        f"{name}_Seed111_Class20.npy" for name in ("Train_R45", "Valid_R5", "Eval_R5")
    ]
    assert [len(series) for series in splits] == [45, 5, 30]
    assert same_series(splits.train.store, series_of(45, seed=45))
    assert "train: 45 of 45 series of" in caplog.text and "Train_R45" in caplog.text


def test_another_budget_or_seed_draws_from_the_largest_file(published):
    for options in ({"num": 40}, {"num": 50, "seed": 7}):
        splits = labelled(published, **options)
        assert [source_of(series)[:9] for series in splits] == ["Train_R90", "Valid_R10", "Eval_R10_"]
        assert len(splits.train) == int(0.9 * options["num"]) and len(splits.eval) == 30
    assert len(labelled(published, use_all=True).train) == 90


def test_of_the_largest_files_the_smallest_seed_is_used(published):
    save_split(published, "Train_R90_Seed9_Class20", 90)
    save_split(published, "Train_R99_Seed5_Class10", 99)
    assert source_of(labelled(published, num=40).train) == "Train_R90_Seed9_Class20.npy"


def test_the_file_of_all_comes_before_the_drawn_ones(published):
    for split, count in (("Train", 120), ("Valid", 25), ("Eval", 35)):
        save_split(published, f"{split}_All", count)
    assert [len(s) for s in labelled(published, num=50)] == [45, 5, 30]  # but not before the exact one
    assert [len(s) for s in labelled(published, num=60)] == [54, 6, 35]
    assert [len(s) for s in labelled(published, use_all=True)] == [120, 25, 35]


def test_tables_with_series_files_come_before_drawn_files(published):
    year = published / "2019"
    series = series_of(100)
    table = save_table(year / "train.csv", series, [i % 7 for i in range(100)], empty_first=False)
    assert source_of(labelled(published, num=40).train).startswith("Train_R90")
    for array, region, number in zip(series, table["region"], table["id"], strict=True):
        save_series_csv(year / region / f"{number}.csv", array)
    splits = labelled(published, num=40)
    assert source_of(splits.train) == "train.csv" and len(splits.train.store) == 100
    assert set(splits.train.regions) == set(SITES)


def test_labels_beyond_the_classes_name_the_file(published):
    save_split(published, "Train_R45_Seed111_Class20", 45, classes=23)
    with pytest.raises(DataError, match="Train_R45_Seed111_Class20.npy: series 21 has label 21; .* from 0 to 20"):
        labelled(published, num=50)


def test_sites_need_regions(published):
    with pytest.raises(DataError, match="Train_R90.*no region column, which --regions and --leave-out need"):
        labelled(published, num=20, regions=["Adams"])


def test_unlabelled_sources_have_an_order(published):
    year = published / "2019"
    for number, array in enumerate(series_of(3)):
        save_series_csv(year / "Unsupervised" / f"{number}.csv", array)
    for count, name in ((3, None), (4, "Unsupervised_2020"), (5, "Unsupervised_mini_All"), (6, "Unsupervised_All")):
        if name is not None:
            save_unlabelled(year / "npy" / f"{name}.npy", series_of(count))
        assert len(open_unlabelled(published, 2019)) == count
    write_store(year / "unlabelled", None, count=7)
    assert len(open_unlabelled(published, 2019)) == 7


def test_eval_needs_no_other_split(tmp_path):
    save_split(tmp_path, "Eval_R20_Seed111_Class20", 30)
    for selection in (Selection(num=200), Selection(num=77, seed=1)):
        assert len(open_eval(tmp_path, 2019, selection)) == 30


@needs_shared
@pytest.mark.parametrize(("num", "seed"), [(200, 111), (50, 222), (100, 333)])
def test_budgets_of_real_data(num, seed):
    splits = labelled(TOY, num=num, seed=seed)
    assert [len(series) for series in splits] == [num * 9 // 10, num // 10, 100]
    for series in splits:
        series.store.validate(num_classes=open_classmap(TOY).num_classes)


@needs_shared
def test_sites_and_unlabelled_series_of_real_data():
    splits = labelled(TOY, num=50, leave_out="Randolph")
    assert set(splits.eval.regions) == {"Randolph"} and "Randolph" not in splits.train.regions
    with pytest.raises(DataError, match="there are 180; give a smaller -n or --useall"):
        labelled(TOY)
    assert isinstance(open_unlabelled(TOY, 2019).store, Store) and len(open_unlabelled(TOY, 2019)) == 300


# ---- class maps

def test_a_classmap_has_the_classes_of_its_name(tmp_path):
    write_classmap(tmp_path / "classmapping20.csv", CDL20)
    assert open_classmap(tmp_path) == CDL20
    write_classmap(tmp_path / "classmapping5.csv", ClassMap.of([("Corn", 1, (1, 2, 3))]))
    with pytest.raises(DataError, match="classmapping5.csv: 1 classes; expected 5"):
        open_classmap(tmp_path, 5)


def test_a_missing_classmap_names_those_that_exist(tmp_path):
    (tmp_path / "2019").mkdir()
    hint = "or write it with datasets.classmap.write_classmap"
    for there, words in (((), "there is no other"), ((20,), "give -c 20, "), ((20, 5), "give -c 5 or 20, for which")):
        for count in there:
            write_classmap(tmp_path / f"classmapping{count}.csv", CDL20)
        with pytest.raises(DataError, match=f"classmapping7.csv: no such class map; {words}.*, {hint}"):
            open_classmap(tmp_path, 7)
