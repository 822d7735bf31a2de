"""Bad series are found before training, or left out and counted; series in two splits are told of."""

from __future__ import annotations

import logging
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from datasets import check, checks
from datasets.catalog import Selection, open_eval, open_labelled, open_split, open_unlabelled
from datasets.classmap import CDL20, write_classmap
from datasets.duplicates import blocks, keys, leaks
from datasets.errors import DataError
from datasets.store import CHUNK, SeriesSet, Store, StoreWriter
from tests.support.layout import (
    long_series,
    save_labelled,
    save_series_csv,
    save_table,
    save_unlabelled,
    store_of,
    without_checksums,
    write_long_store,
    write_published_root,
)

ALL = Selection(use_all=True)


def good(count: int, seed: int = 0) -> list[np.ndarray]:
    return long_series([i % 15 for i in range(count)], seed)


def filled(array: np.ndarray, value: float = -9999) -> np.ndarray:
    array = array.copy()
    array[2, 6] = value
    return array


def blank(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array[:, :10] = 0
    return array


# ---- what is absurd


def test_fill_values_and_series_without_a_signal_are_absurd():
    bands = np.tile(np.array([[10, 20, 30, 40, 50, 60, 70, 80, 90, 100]], np.int16), (7, 1))
    lengths = np.array([1, 3, 2, 1])
    assert checks.are_absurd(bands, lengths).tolist() == [False] * 4
    bands[0, 0] = -2000  # is still a measurement
    bands[3, 9] = -2001
    bands[4:6] = 77
    assert checks.are_absurd(bands, lengths).tolist() == [False, True, True, False]
    days = np.arange(1, 8)
    assert checks.say_absurd(bands[1:4], days[:3]) == "observation 2: swir2 is -2001; expected -2000 or more"
    assert checks.say_absurd(bands[4:6], days[:2]) == "all values of all bands are 77; expected measurements"


def test_days_that_are_none_or_out_of_order_are_found_by_series():
    doy, lengths = np.array([5, 0, 9, 7, 8, 9, 300, 350, 366, 367, 40]), np.array([2, 1, 2, 3, 2, 1])
    assert checks.have_good_days(doy, lengths).tolist() == [False, True, True, True, False, True]
    doy[5:8] = 20, 300, 250
    assert checks.have_good_days(doy, lengths).tolist() == [False, True, True, False, False, True]
    bands = np.arange(30).reshape(3, 10)
    expected = "observation 2: day of year 250 follows 300; expected time order"
    assert checks.say_absurd(bands, doy[5:8]).startswith(expected)
    assert checks.say_absurd(bands[:2], doy[8:10]) == (
        "observation 1: day of year is 367; expected a whole number from 1 to 366"
    )


def test_a_store_counts_them_when_it_is_written_and_finds_them_where_it_was_not(tmp_path, monkeypatch):
    series = good(8)
    series[3], series[7] = filled(series[3]), blank(series[7])
    store = store_of(tmp_path / "store", series, None)
    assert store.meta["absurd"] == 2
    monkeypatch.setattr("datasets.store.CHUNK", 3)
    assert store.absurd.tolist() == [3, 7]
    clean = store_of(tmp_path / "clean", good(8), None)
    monkeypatch.setattr(checks, "are_absurd", lambda *_: pytest.fail("they are known to be none"))
    assert clean.meta["absurd"] == 0 and clean.absurd.tolist() == []
    assert CHUNK > 3


def test_they_are_an_error_that_says_what_to_do(tmp_path):
    series = good(8)
    series[3], series[5] = filled(series[3]), filled(series[5])
    path = store_of(tmp_path / "2019" / "unlabelled", series, None).path
    with pytest.raises(DataError) as caught:
        open_unlabelled(tmp_path, 2019)
    assert str(caught.value) == (
        f"{path}: series 3, observation 2: nir is -9999; expected -2000 or more (2 of 8 unlabelled series are like"
        " that); mend them, or leave them out with --skip-bad"
    )


@pytest.mark.parametrize("old", [False, True])
def test_they_are_left_out_and_counted(tmp_path, caplog, old):
    for split, count in (("train", 12), ("valid", 4), ("eval", 6)):
        series = good(count, seed=count)
        if split != "valid":
            series[1] = filled(series[1])
        store_of(tmp_path / "2019" / split, series, [i % 3 for i in range(count)])
        if old:
            without_checksums(tmp_path / "2019" / split)
    with caplog.at_level(logging.WARNING):
        splits = open_labelled(tmp_path, 2019, ALL._replace(skip_bad=True))
        assert [len(part) for part in splits] == [11, 4, 5]
        assert splits.train.rows.tolist() == [0, *range(2, 12)] and splits.train.labels[:2].tolist() == [0, 2]
        assert len(open_eval(tmp_path, 2019, ALL._replace(skip_bad=True))) == 5
    said = [line for line in caplog.messages if "left out" in line]
    assert said[0].startswith("train: 1 of 12 series are left out, the first: ") and len(said) == 3
    assert "series 1, observation 2: nir is -9999" in said[0]
    with pytest.raises(DataError, match="1 of 12 train series"):
        open_labelled(tmp_path, 2019, ALL)
    with pytest.raises(DataError, match="1 of 6 eval series"):
        open_eval(tmp_path, 2019, ALL)
    assert len(open_split(tmp_path, 2019, "eval")) == 6  # which predicts whatever is there


def with_wrong_days(path: Path, series: list[np.ndarray]) -> Path:
    """A store without checksums; a day of series 2 is 367, and the days of series 4 are out of order."""
    store_of(path, series, [i % 3 for i in range(len(series))])
    first = np.cumsum([0, *map(len, series)])
    doy = np.load(path / "doy.npy")
    doy[first[2] + 1] = 367
    doy[first[4] : first[5]] = doy[first[4] : first[5]][::-1].copy()
    np.save(path / "doy.npy", doy)
    return without_checksums(path)


def test_days_are_screened_where_no_checksums_tell_that_they_are_good(tmp_path, caplog):
    path, series = tmp_path / "2019" / "train", good(8)
    for split in ("train", "valid", "eval", "unlabelled"):
        with_wrong_days(path.with_name(split), series)
    message = (
        "series 2, observation 1: day of year is 367; expected a whole number from 1 to 366 (2 of 8 {} series are like"
        " that); mend them, or leave them out with --skip-bad"
    )
    with pytest.raises(DataError, match=re.escape(f"{path}: {message.format('train')}")):
        open_labelled(tmp_path, 2019, ALL)
    with pytest.raises(DataError, match=re.escape(f"{path.with_name('unlabelled')}: {message.format('unlabelled')}")):
        open_unlabelled(tmp_path, 2019)
    found = [
        *open_labelled(tmp_path, 2019, ALL._replace(skip_bad=True)),
        open_unlabelled(tmp_path, 2019, skip_bad=True),
    ]
    for part in [*found, *pickle.loads(pickle.dumps(found))]:
        assert part.rows.tolist() == [0, 1, 3, 5, 6, 7]
        for row in part.rows:
            np.testing.assert_array_equal(part.store.series(row)[1], series[row][:, -1])
    assert sum("2 of 8 series are left out, the first: " in line for line in caplog.messages) == 4
    for split in ("train", "unlabelled"):  # which are not screened
        with pytest.raises(DataError, match="series 2, observation 1: day of year is 367"):
            np.asarray(open_split(tmp_path, 2019, split).store.doy)


def test_nothing_left_is_an_error(tmp_path):
    store_of(tmp_path / "2019" / "unlabelled", [blank(array) for array in good(3)], None)
    with pytest.raises(DataError, match="all values of all bands are 0; .* so are all of the unlabelled series"):
        open_unlabelled(tmp_path, 2019, skip_bad=True)


# ---- the published layout


def bad_series(array: np.ndarray) -> dict[str, object]:
    wrong_days = array.copy()
    wrong_days[0, -1] = 367
    return {
        "nan": filled(array, np.nan), "infinite": filled(array, np.inf), "too large": filled(array, 40_000),
        "days": wrong_days, "order": array[::-1], "no array": np.ones(5), "narrow": array[:, :9], "empty": array[:0],
    }  # fmt: skip


@pytest.mark.parametrize("kind", bad_series(good(1)[0]))
def test_series_that_a_store_cannot_hold_are_left_out_of_an_array_file(tmp_path, caplog, kind):
    series = good(5)
    series[2] = bad_series(series[2])[kind]
    file = tmp_path / "2019" / "npy" / "Unsupervised_All.npy"
    save_unlabelled(file, series)
    with pytest.raises(DataError, match=r"(series 2|at least one)"):
        open_unlabelled(tmp_path, 2019)
    for _ in range(2):  # converted, and from the cache
        caplog.clear()
        found = open_unlabelled(tmp_path, 2019, skip_bad=True)
        assert found.lengths.tolist() == [len(array) for i, array in enumerate(series) if i != 2]
        assert caplog.messages[-1].startswith("unlabelled: 1 of 5 series are left out, the first: ")
        assert "series 2" in caplog.messages[-1]
    with pytest.raises(DataError):
        open_unlabelled(tmp_path, 2019)


def test_labels_and_sites_follow_the_series(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.readers.published.PIECE", 3)
    series, labels = good(7), [3, 1, 4, 1, 5, 9, 2]
    series[1], series[3], series[4], series[5] = (filled(series[i], np.nan) for i in (1, 3, 4, 5))
    folder = tmp_path / "2019"
    save_table(folder / "train.csv", series, labels)
    save_labelled(folder / "npy" / "Train_All.npy", series, labels)
    found = open_split(tmp_path, 2019, "train", skip_bad=True)
    assert found.labels.tolist() == [3, 4, 2] and found.regions.tolist() == ["Adams", "Haskell", "Adams"]
    assert found.store.meta["provenance"]["left out"]["series"] == 4
    assert found.store.meta["provenance"]["left out"]["of"] == 7


def test_series_files_are_left_out_too(tmp_path):
    series = good(3)
    for i, array in enumerate(series):
        save_series_csv(tmp_path / "2019" / "Unsupervised" / f"{i}.csv", array)
    broken = tmp_path / "2019" / "Unsupervised" / "1.csv"
    broken.write_text(broken.read_text().replace(",", ",x", 30))
    with pytest.raises(DataError, match="1.csv"):
        open_unlabelled(tmp_path, 2019)
    assert len(open_unlabelled(tmp_path, 2019, skip_bad=True)) == 2


def test_a_table_of_series_files_is_screened_too(tmp_path):
    series, labels = good(3), [1, 2, 3]
    rows = save_table(tmp_path / "2019" / "train.csv", series, labels)
    for array, path in zip(series, rows["path"][1:], strict=True):
        save_series_csv(tmp_path / "2019" / "/".join(path.split("\\")[-2:]), array)
    broken = tmp_path / "2019" / "Adams" / "1000.csv"
    broken.write_text("blue\n")
    with pytest.raises(DataError, match="1000.csv"):
        open_split(tmp_path, 2019, "train")
    assert open_split(tmp_path, 2019, "train", skip_bad=True).labels.tolist() == [2, 3]


# ---- series in two splits


def test_keys_are_of_the_bytes(tmp_path, monkeypatch):
    series = good(6)
    series[4] = series[1].copy()
    other_day = series[2].copy()
    other_day[-1, -1] = 366
    series[5] = other_day
    store = store_of(tmp_path / "store", series, None)
    whole = SeriesSet.whole(store)
    found = keys(whole)
    assert found[4] == found[1] and len(np.unique(found)) == 5 and found.dtype == np.uint64
    rows = np.array([5, 1, 0, 3])
    np.testing.assert_array_equal(keys(whole.take(rows)), found[rows])
    np.testing.assert_array_equal(keys(whole.take(np.array([3]))), found[3:4])
    monkeypatch.setattr("datasets.duplicates.PIECE", 4)
    np.testing.assert_array_equal(keys(whole), found)


def splits_of(tmp_path: Path, shared: int, **columns) -> dict[str, SeriesSet]:
    """Splits of 5, 4 and 6 series; `shared` of eval's are of train, as many of valid's."""
    found = {}
    train = good(5, seed=1)
    for split, count in (("train", 5), ("valid", 4), ("eval", 6)):
        series = train if split == "train" else [*train[:shared], *good(count - shared, seed=count)]
        index = {name: values[split] for name, values in columns.items()}
        with StoreWriter(tmp_path / split) as writer:
            writer.append(
                np.concatenate([array[:, :10] for array in series]),
                np.concatenate([array[:, -1] for array in series]),
                [len(array) for array in series],
                {"label": np.arange(count), **index},
            )
        found[split] = SeriesSet.whole(Store.open(tmp_path / split))
    return found


def test_shared_series_are_counted(tmp_path):
    assert leaks(splits_of(tmp_path / "apart", 0), 2019, {}) == []
    splits = splits_of(tmp_path / "shared", 2)
    other = SeriesSet.whole(store_of(tmp_path / "other", [good(5, seed=1)[4], *good(3, seed=9)], None))
    told = "so the scores are too good; python -m datasets.check ROOT says more"
    assert leaks(splits, 2019, {2020: other}) == [
        f"2 of 4 series of valid are in train too, {told}",
        f"2 of 6 series of eval (2019) are in train or valid too, {told}",
        f"1 of 4 series of eval (2020) are in train or valid too, {told}",
    ]
    only_valid = splits | {"train": splits["train"].take(np.array([4])), "eval": splits["valid"]}
    assert leaks(only_valid, 2019, {})[0].startswith("4 of 4 series of eval (2019)")


def test_shared_blocks_are_counted_by_site(tmp_path):
    block = {"train": ["0_0", "0_1", "0_0", "1_1", "9_9"], "valid": ["5_5"] * 4, "eval": ["0_0", "0_0", "2_2"] * 2}
    region = {"train": ["A"] * 5, "valid": ["A"] * 4, "eval": ["A", "B", "A"] * 2}
    splits = splits_of(tmp_path / "one", 0, block=block, region=region)
    assert blocks(splits["eval"]).tolist() == ["A 0_0", "B 0_0", "A 2_2"] * 2
    (line,) = leaks(splits, 2019, {})
    assert line.startswith("1 of 3 blocks of eval (2019) hold series of train or valid too, and pixels of a block are")
    splits = splits_of(tmp_path / "two", 0, block=block)
    assert blocks(splits["valid"].take(np.array([1]))).tolist() == [" 5_5"]
    assert leaks(splits, 2019, {})[0].startswith("1 of 2 blocks of eval")
    apart = block | {"eval": ["7_7"] * 6}
    assert leaks(splits_of(tmp_path / "three", 0, block=apart), 2019, {}) == []


# ---- the command


def run(root: Path, capsys) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        check.main([str(root)])
    return ended.value.code, capsys.readouterr().out


def test_the_command_says_what_is_there(data_root, capsys):
    code, told = run(data_root, capsys)
    lines = told.splitlines()
    assert code == 0 and lines[0] == "classmapping20.csv: 20 classes and Other"
    assert lines[1] == "2019:" and lines[-1] == "0 problems found"
    train = Store.open(data_root / "2019" / "train")
    expected = (
        f"  train: 90 series, {len(train.doy):,} observations, {train.lengths.min()} to {train.lengths.max()} a series;"
        f" days {train.doy.min()} to {train.doy.max()}; checksums are right ({train.path})"
    )
    assert expected in lines
    absent = ", ".join(CDL20.names[15:])
    assert lines[lines.index(expected) + 1] == f"    15 classes of 6 to 6 series; none of {absent}"
    assert "  unlabelled: 60 series" in told and "2020:\n  eval: 30 series" in told


def test_the_command_reads_the_published_layout(tmp_path, capsys):
    root = write_published_root(tmp_path / "root")
    code, told = run(root, capsys)
    assert code == 0 and "  train: 45 series" in told and "  unlabelled: 60 series" in told


def test_the_command_finds_what_is_wrong(tmp_path, capsys):
    root = tmp_path / "root"
    for split, count in (("train", 12), ("valid", 5), ("eval", 6)):
        write_long_store(root / "2019" / split, count, seed=count)
    shutil.rmtree(root / "2019" / "eval")
    shutil.copytree(root / "2019" / "train", root / "2019" / "eval")
    series = good(4)
    series[1], series[3] = filled(series[1]), series[0]
    store_of(root / "2019" / "unlabelled", series, None)
    save_unlabelled(root / "2020" / "npy" / "Unsupervised_All.npy", [*good(3), filled(good(1)[0], np.nan)])
    content = bytearray((root / "2019" / "valid" / "bands.npy").read_bytes())
    content[200] ^= 1
    (root / "2019" / "valid" / "bands.npy").write_bytes(content)
    without_checksums(root / "2019" / "train")
    write_classmap(root / "classmapping20.csv", CDL20)
    code, told = run(root, capsys)
    assert code == 1 and told.splitlines()[-1] == "4 problems found"
    for words in (
        "no checksums (",
        "PROBLEM: valid: ",
        "bands.npy: damaged or changed",
        "PROBLEM: 12 of 12 series of eval are in train too",
        "PROBLEM: 1 series were never measured, the first: series 1, observation 2: nir is -9999",
        "unlabelled: 1 of 4 series are there more than once",
        "PROBLEM: 1 of 4 series cannot be used, the first: ",
    ):
        assert words in told, words


def test_the_command_tells_of_shared_blocks_and_missing_labels(tmp_path, capsys):
    block = {"train": ["0_0"] * 5, "valid": ["0_0", "1_0", "1_0", "1_0"], "eval": ["2_2"] * 6}
    splits_of(tmp_path / "2019", 0, block=block)
    write_classmap(tmp_path / "classmapping20.csv", CDL20)
    code, told = run(tmp_path, capsys)
    assert code == 1 and "PROBLEM: 1 of 2 blocks of valid hold series of train too" in told
    assert told.splitlines()[-1] == "1 problem found"
    shutil.rmtree(tmp_path / "2019" / "eval")
    store_of(tmp_path / "2019" / "eval", good(3), None)
    assert "    PROBLEM: no labels" in run(tmp_path, capsys)[1]
    (tmp_path / "classmapping20.csv").unlink()
    assert "no class map: the splits with labels are not read" in run(tmp_path, capsys)[1]


def test_a_root_that_is_none_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        check.main([str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit, match="2"):
        check.main([str(tmp_path)])
    assert "no such data folder" in (told := capsys.readouterr().err) and "no folder of a year in it" in told
