"""The published layout: read as it is, never trusted, cached until it changes."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from datasets.bands import BANDS
from datasets.errors import DataError
from datasets.readers import published
from datasets.readers.published import folder_store, npy_store, table_store
from datasets.readers.unpickle import load_object_array
from datasets.store import Store
from tests.conftest import SHARED, needs_shared
from tests.support.layout import (
    make_series,
    object_array,
    same_series,
    save_labelled,
    save_series_csv,
    save_table,
    save_unlabelled,
)


@pytest.fixture(autouse=True)
def user_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "sits-moco"


@pytest.fixture
def year(tmp_path):
    folder = tmp_path / "root" / "2019"
    folder.mkdir(parents=True)
    return folder


def some_series(count, seed=0, **kwargs):
    generator = np.random.default_rng(seed)
    return [make_series(generator, **kwargs) for _ in range(count)]


def write_pickle(path: Path, payload: bytes, shape: tuple[int, ...] = (1,)) -> Path:
    """A .npy file whose header announces an object array and whose content is any pickle."""
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": shape})
        file.write(payload)
    return path


# ---- arrays

@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("core", [b"numpy._core", b"numpy.core"])
def test_arrays_of_every_pickle_protocol_and_numpy_are_read(tmp_path, protocol, core):
    series = some_series(5)
    series[1] = np.asfortranarray(series[1])
    series[2] = series[2].astype(np.int16)
    series[3] = series[3].astype(">f4")
    payload = pickle.dumps(np.stack([object_array(series), object_array([0, 1, 2, np.int64(3), 4])]), protocol)
    if protocol >= 4:  # names are stored with their length
        payload = payload.replace(b"\x8c\x16numpy._core.multiarray", b"\x8c%c%s.multiarray" % (len(core) + 11, core))
        payload = payload.replace(b"\x8c\x13numpy._core.numeric", b"\x8c%c%s.numeric" % (len(core) + 8, core))
        payload = payload[:2] + payload[11:]  # the frame's length no longer fits; frames are optional
    else:
        payload = payload.replace(b"cnumpy._core.", b"c%s." % core)
    content = load_object_array(write_pickle(tmp_path / "a.npy", payload, (2, 5)))
    assert content.shape == (2, 5) and content[1].tolist() == [0, 1, 2, 3, 4]
    for found, expected in zip(content[0], series, strict=True):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


def test_labelled_and_unlabelled_arrays_are_read(year):
    series = some_series(7)
    save_labelled(year / "npy" / "Train_All.npy", series, [0, 1, 2, 3, 4, 20, 20])
    save_unlabelled(year / "npy" / "Unsupervised_All.npy", series)
    labelled, plain = (npy_store(year / "npy" / name) for name in ("Train_All.npy", "Unsupervised_All.npy"))
    assert same_series(labelled, series) and same_series(plain, series)
    assert labelled.labels.tolist() == [0, 1, 2, 3, 4, 20, 20] and plain.labels is None
    assert labelled.path == year / ".sits-store" / "Train_All"


def test_series_of_equal_length_and_of_width_11_are_read(year):
    series = some_series(4, length=5, width=11)
    save_labelled(year / "npy" / "Train_All.npy", series, [0, 1, 2, 3])
    assert same_series(npy_store(year / "npy" / "Train_All.npy"), series)


@needs_shared
@pytest.mark.parametrize("name", ["Train_R180_Seed111_Class20", "Unsupervised_mini_All"])
def test_real_arrays_are_read(name, user_cache):
    file = SHARED / "us-toy" / "2019" / "npy" / f"{name}.npy"
    content = np.load(file, allow_pickle=True)
    store = npy_store(file)
    store.validate(num_classes=21)
    assert same_series(store, list(content if content.ndim == 1 else content[0]))
    assert user_cache in store.path.parents  # the sample data is read-only
    if content.ndim == 2:
        assert store.labels.tolist() == content[1].tolist()
        assert set(store.index["region"]) == {"Adams", "Coahoma", "Garfield", "Harvey", "Haskell", "Randolph"}


@needs_shared
def test_real_csv_files_are_taken_in_numeric_order():
    folder = SHARED / "us-toy" / "2019" / "Unsupervised"
    store = folder_store(folder)
    assert len(store) == 5
    first = pd.read_csv(folder / "1000.csv")
    np.testing.assert_array_equal(store.series(0)[0], first[list(BANDS)])


# ---- what a hostile or damaged file can do: nothing

class Hostile:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_a_hostile_file_runs_nothing(tmp_path):
    marker = tmp_path / "was-here"
    file = tmp_path / "a.npy"
    np.save(file, object_array([make_series(np.random.default_rng(0)), Hostile(marker)]), allow_pickle=True)
    with pytest.raises(DataError, match=r"a.npy: refused, it asks for (posix|nt).mkdir"):
        load_object_array(file)
    assert not marker.exists()


@pytest.mark.parametrize(
    "payload",
    [
        b"cos\nsystem\n(S'exit 3'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cbuiltins\ngetattr\n(cnumpy\nndarray\nS'__reduce__'\ntR.",
        b"\x80\x04\x8c\x05numpy\x8c\x12ndarray.__reduce__\x93.",  # a nested attribute
        b"\x80\x04\x8c\x08datasets\x8c\x0funpickle.pickle\x93.",
        b"(S'x'\nios\nsystem\n.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"cnumpy.core.multiarray\nfrombuffer\n.",
    ],
)
def test_other_names_are_refused(tmp_path, payload):
    with pytest.raises(DataError, match="refused, it asks for") as caught:
        load_object_array(write_pickle(tmp_path / "a.npy", payload))
    assert "\n" not in str(caught.value)


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"


@pytest.mark.parametrize(
    "payload",
    [
        ARRAY + b"(I1\n(L1000000000000000L\ntcnumpy\ndtype\n(S'f8'\ntRI00\nS'abc'\ntb.",  # an absurd shape
        ARRAY + b"(I1\n(L1000000000000000L\ntcnumpy\ndtype\n(S'f8'\ntRI00\nL1000000000000000L\ntb.",
        ARRAY + b"(I1\n(I-1\nI-8\ntcnumpy\ndtype\n(S'f8'\ntRI00\nS'" + b"a" * 64 + b"'\ntb.",
        ARRAY + b"(I1\n(I1\ntcnumpy\ndtype\n(S'V8'\ntRI00\nS'abcdefgh'\ntb.",  # no numbers
        ARRAY + b"(I1\n(I1\ntcnumpy\ndtype\n(S'O8'\ntRI00\nS'abcdefgh'\ntb.",  # pointers
        ARRAY + b".",  # no state
        b"I1\n.",
        b"cnumpy\nndarray\n(I1\ntb.",
        b"",
        b"\x80\x04garbage",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f",  # bytes without end
    ],
)
def test_damaged_content_is_one_clear_line(tmp_path, payload):
    with pytest.raises(DataError, match=r"a.npy: (damaged|does not hold)") as caught:
        load_object_array(write_pickle(tmp_path / "a.npy", payload))
    assert "\n" not in str(caught.value)


def test_files_cut_off_anywhere_are_refused(tmp_path):
    file = tmp_path / "a.npy"
    save_unlabelled(file, some_series(2))
    content = file.read_bytes()
    for length in range(0, len(content) - 1, 97):
        file.write_bytes(content[:length])
        with pytest.raises(DataError, match="damaged or cut off"):
            load_object_array(file)


def test_arrays_of_another_kind_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 2)))
    with pytest.raises(DataError, match=r"an array of float64, shape \(3, 2\); expected an object array"):
        load_object_array(tmp_path / "a.npy")
    with pytest.raises(DataError, match="no such file"):
        load_object_array(tmp_path / "b.npy")


# ---- values

def changed(array, row, column, value):
    array = array.copy()
    array[row, column] = value
    return array


BASE = make_series(np.random.default_rng(5), length=4)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (BASE[:, :9], "series 1 has width 9; expected at least 11 columns"),
        (BASE[:, 0], r"series 1 is an array of shape \(4,\)"),
        ("text", "series 1 is a str"),
        (BASE[:0], "series 1 has 0 observations"),
        (changed(BASE.astype(object), 2, 0, "wet"), "series 1 holds something that is no number"),
        (changed(BASE.astype(object), 2, 0, None), "series 1, observation 2: blue is nan"),
        (changed(BASE, 2, 0, np.nan), "series 1, observation 2: blue is nan"),
        (changed(BASE, 3, -1, 400), "series 1, observation 3: day of year is 400"),
        (changed(BASE, 3, -1, np.nan), "series 1, observation 3: day of year is nan"),
        (changed(BASE, 1, -1, 366), "series 1, observation 2: day of year .* follows 366"),
    ],
)
def test_bad_series_name_the_file_and_the_series(year, bad, words):
    file = year / "npy" / "Train_All.npy"
    save_labelled(file, [BASE, bad], [0, 1])
    with pytest.raises(DataError, match=words) as caught:
        npy_store(file)
    assert str(caught.value).startswith(str(file)) and "\n" not in str(caught.value)
    assert not list((year / ".sits-store").iterdir())


def test_numbers_kept_as_objects_are_rounded_too(year):
    mixed = BASE.astype(object)
    mixed[:, 0] += 0.6
    save_labelled(year / "npy" / "Train_All.npy", [BASE, mixed], [0, 1])
    blue = npy_store(year / "npy" / "Train_All.npy").series(1)[0][:, 0]
    np.testing.assert_array_equal(blue, np.rint(BASE[:, 0] + 0.6))


@pytest.mark.parametrize("label", [-1, 1.5, "x", None])
def test_bad_labels_are_named(year, label):
    file = year / "npy" / "Train_All.npy"
    save_labelled(file, [BASE, BASE], [0, label])
    with pytest.raises(DataError, match=f"series 1 has label {label!r}"):
        npy_store(file)


def test_another_shape_is_refused(year):
    file = year / "npy" / "Train_All.npy"
    file.parent.mkdir()
    np.save(file, np.stack([object_array([BASE])] * 3), allow_pickle=True)
    with pytest.raises(DataError, match=r"shape \(3, 1\); expected \(2, N\)"):
        npy_store(file)


# ---- tables and CSV files

def test_a_table_that_agrees_supplies_regions(year):
    series, labels = some_series(6), [0, 1, 2, 3, 4, 5]
    save_labelled(year / "npy" / "Valid_R6_Seed1_Class20.npy", series, labels)
    save_table(year / "valid.csv", series, labels)
    store = npy_store(year / "npy" / "Valid_R6_Seed1_Class20.npy")
    assert store.index["region"].tolist()[:4] == ["Adams", "Harvey", "Haskell", "Adams"]
    assert store.index["id"].tolist() == list(range(1000, 1006)) and "code" in store.index
    save_table(year / "valid.csv", series, [0, 1, 2, 3, 5, 4])
    assert list(npy_store(year / "npy" / "Valid_R6_Seed1_Class20.npy").index) == ["label"]


PLACES = ("2019/{region}/{name}", "data/US/2019/{region}/{name}", "../data/US/2019/{region}/{name}")


@pytest.mark.parametrize("place", PLACES)
def test_a_table_with_series_files_is_read(year, place):
    series, labels = some_series(5), [3, 1, 4, 1, 5]
    table = save_table(year / "train.csv", series, labels)
    for array, (_, row) in zip(series, table[1:].iterrows(), strict=True):
        save_series_csv(year.parent / place.format(region=row["region"], name=f"{row['id']}.csv"), array, weight=True)
    store = table_store(year / "train.csv")
    assert same_series(store, series) and store.labels.tolist() == labels
    assert store.index["region"].tolist() == table["region"].tolist()[1:]


def test_a_table_without_series_files_is_no_source(year):
    save_table(year / "train.csv", some_series(2), [0, 1])
    assert table_store(year / "train.csv") is None


def test_bad_tables_are_named(year):
    file = year / "train.csv"
    table = save_table(file, some_series(2), [0, 1])
    save_series_csv(year / "Adams" / "1000.csv", BASE)
    with pytest.raises(DataError, match=r"train.csv: line 4: path is 'data\\US.*; expected .* there is no .*1001.csv"):
        table_store(file)
    table.assign(path=["", "", table["path"][1]]).to_csv(file, index=False)
    with pytest.raises(DataError, match="train.csv: line 3: path is blank; expected the path of a series file"):
        table_store(file)
    table.drop(columns="classid").to_csv(file, index=False)
    with pytest.raises(DataError, match="train.csv: no column 'classid'; expected path, sequencelength, classid"):
        table_store(file)
    for name, cell, words in (
        ("sequencelength", "many", "'many'; expected a whole number"),
        ("sequencelength", "", "blank; expected a whole number"),
        ("classid", "", r"blank; expected a class id \(a whole number\), 0 or more"),
        ("classid", "corn", "'corn'; expected a class id"),
    ):
        table.assign(**{name: [1, cell, 1]}).to_csv(file, index=False)
        with pytest.raises(DataError, match=f"train.csv: line 3: {name} is {words}"):
            table_store(file)
    table.assign(sequencelength=0).to_csv(file, index=False)
    with pytest.raises(DataError, match="no row with a sequencelength above 0"):
        table_store(file)


def test_class_ids_beyond_the_class_map_are_named(year):
    save_table(year / "train.csv", [BASE, BASE], [3, 21])
    assert table_store(year / "train.csv", 20) is None
    for region, number in (("Adams", 1000), ("Harvey", 1001)):
        save_series_csv(year / region / f"{number}.csv", BASE)
    with pytest.raises(DataError, match=r"train.csv: line 4: classid is '21'; expected a class id .* from 0 to 20"):
        table_store(year / "train.csv", 20)


def test_a_damaged_table_beside_arrays_is_a_warning(year, caplog):
    save_labelled(year / "npy" / "Valid_R2_Seed1_Class20.npy", [BASE, BASE], [0, 1])
    save_table(year / "valid.csv", [BASE, BASE], [0, "corn"])
    assert list(npy_store(year / "npy" / "Valid_R2_Seed1_Class20.npy").index) == ["label"]
    assert "valid.csv: line 4: classid is 'corn'; expected a class id" in caplog.text


def test_series_files_are_read_in_numeric_order(year):
    series = some_series(12)
    for number, array in enumerate(series):
        save_series_csv(year / "Unsupervised" / f"{number}.csv", array, weight=number % 2 == 0)
    assert same_series(folder_store(year / "Unsupervised"), series)


NAMES, ROW = ",".join([*BANDS, "doy"]) + "\n", ",".join("1" * 10)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (",".join(BANDS) + "\n" + ",".join("1" * 10), "0.csv: no column 'doy'"),
        (f"{NAMES}{ROW},400", "0.csv: line 2: doy is '400'; expected a whole number from 1 to 366"),
        (f"{NAMES}{ROW},4\n{ROW},6\n{ROW},5", "0.csv: line 4: doy is '5'; expected .*, in time order"),
        (f"{NAMES}{ROW},4\n\n \n{ROW[:-1]}cloud,4", "0.csv: line 5: swir2 is 'cloud'; expected a digital number from"),
        (f"{NAMES}{ROW},4\n{ROW[:-1]},4", "0.csv: line 3: swir2 is blank"),
        (f"{NAMES}{ROW},4\n{ROW[:-2]}", "0.csv: line 3: swir2 is blank"),
        (f"{NAMES}{ROW},4\n70000{ROW[1:]},4", "0.csv: line 3: blue is '70000'"),
        (f'{NAMES[:-1]},note\n{ROW},4,"two\nlines"\n{ROW},x,', "0.csv: line 4: doy is 'x'"),
        (f"{NAMES}{ROW.replace('1', '0.1')},4", "0.csv: the largest band value is 0.1, which looks like reflectance"),
        (f"{NAMES}1,{ROW},4", "0.csv: line 2 has more cells than line 1 has column names; expected as many"),
        (f"{NAMES}{ROW},4\n1,{ROW},4", "0.csv: cannot be read as CSV .*Expected 11 fields in line 3, saw 12"),
        (NAMES, "0.csv: no row below the names of the columns"),
        ("", "0.csv: cannot be read as CSV"),
    ],
)
def test_bad_series_files_are_named(year, text, words):
    (year / "Unsupervised").mkdir()
    (year / "Unsupervised" / "0.csv").write_text(text)
    with pytest.raises(DataError, match=words) as caught:
        folder_store(year / "Unsupervised")
    assert "\n" not in str(caught.value)


# ---- the cache

def test_the_cache_is_used_until_the_source_changes(year, caplog):
    file = year / "npy" / "Unsupervised_All.npy"
    save_unlabelled(file, some_series(3, seed=1))
    with caplog.at_level(logging.INFO, logger="datasets.cache"):
        npy_store(file), npy_store(file)
        assert len(caplog.records) == 1
        save_unlabelled(file, some_series(4, seed=2))
        assert same_series(npy_store(file), some_series(4, seed=2))
        os.utime(file, (1, 1))
        npy_store(file)
        assert len(caplog.records) == 3


def test_a_damaged_cache_is_made_again(year):
    file = year / "npy" / "Unsupervised_All.npy"
    save_unlabelled(file, some_series(3))
    os.truncate(npy_store(file).path / "doy.npy", 130)
    assert same_series(npy_store(file), some_series(3))


def test_a_read_only_folder_is_left_alone(year, user_cache):
    file = year / "npy" / "Unsupervised_All.npy"
    save_unlabelled(file, some_series(3))
    year.chmod(0o555)
    try:
        assert npy_store(file).path.parent == user_cache
        user_cache.chmod(0o555)
        save_unlabelled(file, some_series(2))
        with pytest.raises(DataError, match="its store cannot be kept .* is read-only"):
            npy_store(file)
    finally:
        year.chmod(0o755)
        user_cache.chmod(0o755)


def _read_after(barrier, file, results):
    barrier.wait()
    results.put((len(npy_store(file)), npy_store(file).bands[-1, 0]))


@pytest.mark.parametrize("is_outdated", [False, True])
def test_of_processes_that_read_a_file_together_one_converts_it_and_the_others_wait(year, monkeypatch, is_outdated):
    file = year / "npy" / "Unsupervised_All.npy"
    if is_outdated:
        save_unlabelled(file, some_series(3))
        npy_store(file)
    series = some_series(500)
    save_unlabelled(file, series)

    def convert(path):
        with open(year / "conversions", "a") as log:
            log.write("one\n")
        return load_object_array(path)

    monkeypatch.setattr(published, "load_object_array", convert)
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(4), context.Queue()
    workers = [context.Process(target=_read_after, args=(barrier, file, results)) for _ in range(4)]
    for worker in workers:
        worker.start()
    found = {results.get(timeout=30) for _ in workers}
    for worker in workers:
        worker.join(timeout=30)
        assert worker.exitcode == 0
    assert found == {(500, int(series[-1][-1, 0]))}
    assert (year / "conversions").read_text() == "one\n"
    assert os.listdir(year / ".sits-store") == ["Unsupervised_All"]
    assert isinstance(Store.open(year / ".sits-store" / "Unsupervised_All"), Store)
