"""The store: what is written is what is read, and nothing unfinished or wrong gets in."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from datasets.bands import BANDS
from datasets.errors import DataError
from datasets.npyfile import NpyAppender
from datasets.store import SeriesSet, Store, StoreWriter, join, main
from tests.support.layout import without_checksums, write_store
from utils.files import atomic_folder


@st.composite
def ragged(draw):
    """Pieces of series: a list of (bands, doy, lengths, labels)."""
    pieces = []
    for _ in range(draw(st.integers(1, 3))):
        lengths = np.array(draw(st.lists(st.integers(1, 6), min_size=1, max_size=5)))
        bands = draw(arrays(np.int16, (int(lengths.sum()), len(BANDS))))
        days = [np.sort(draw(arrays(np.int16, int(n), elements=st.integers(1, 366)))) for n in lengths]
        labels = draw(arrays(np.int64, len(lengths), elements=st.integers(0, 20)))
        pieces.append((bands, np.concatenate(days), lengths, labels))
    return pieces


@settings(max_examples=40, deadline=None)
@given(pieces=ragged())
def test_what_is_written_is_read(pieces, tmp_path_factory):
    path = tmp_path_factory.mktemp("stores") / "store"
    with StoreWriter(path, provenance={"made": "here"}) as writer:
        for bands, doy, lengths, labels in pieces:
            writer.append(bands, doy, lengths, {"label": labels})
    store = Store.open(path)
    store.validate(num_classes=21)
    bands, doy, lengths, labels = (np.concatenate(part) for part in zip(*pieces, strict=True))
    np.testing.assert_array_equal(store.bands, bands)
    np.testing.assert_array_equal(store.doy, doy)
    np.testing.assert_array_equal(store.lengths, lengths)
    np.testing.assert_array_equal(store.labels, labels)
    start = lengths[:-1].sum()
    np.testing.assert_array_equal(store.series(len(store) - 1)[0], bands[start:])
    assert store.bands.dtype == store.doy.dtype == np.int16
    assert store.meta["provenance"] == {"made": "here"} and store.meta["classes"] == len(set(labels.tolist()))
    assert os.listdir(path.parent) == ["store"]


def test_float_digital_numbers_are_rounded(tmp_path):
    with StoreWriter(tmp_path / "store") as writer:
        writer.append(np.full((2, 10), 1234.6), np.array([3.0, 3.0]), [2])
    assert (Store.open(tmp_path / "store").bands == 1235).all()


GOOD = {"bands": np.full((3, 10), 500.0), "doy": [5, 9, 9], "lengths": [1, 2], "index": {"label": [0, 3]}}


def _bands_with(row, band, value):
    bands = GOOD["bands"].copy()
    bands[row, band] = value
    return bands


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bands": _bands_with(2, 6, np.nan)}, "series 3, observation 1: nir is nan; expected a digital number"),
        ({"bands": _bands_with(1, 0, np.inf)}, "series 3, observation 0: blue is inf"),
        ({"bands": _bands_with(0, 9, 32768)}, "series 2, observation 0: swir2 is 32768.0"),
        ({"bands": np.full((3, 10), 0.3)}, "looks like reflectance"),
        ({"bands": np.ones((3, 9))}, r"bands of shape \(3, 9\)"),
        ({"doy": [5, 9, 400]}, "series 3, observation 1: day of year is 400; expected a whole number from 1 to 366"),
        ({"doy": [0, 9, 9]}, "series 2, observation 0: day of year is 0"),
        ({"doy": [5, 9, np.nan]}, "series 3, observation 1: day of year is nan"),
        ({"doy": [5, 9, 9.5]}, "day of year is 9.5"),
        ({"doy": [7, 9, 8], "lengths": [3], "index": {"label": [0]}}, "series 2, observation 2: day of .* 8 follows 9"),
        ({"doy": [5, 9]}, r"days of year of shape \(2,\)"),
        ({"lengths": [1, 1]}, "add up to 2 observations, but there are 3"),
        ({"lengths": [3, 0]}, "series 3 has 0 observations"),
        ({"index": {"label": [0, -1]}}, "series 3 has label -1"),
        ({"index": {"label": [0.0, 1.0]}}, "expected class ids"),
        ({"index": {"label": [0]}}, r"index column 'label' has shape \(1,\); expected \(2,\)"),
        ({"index": None}, "expected \\['label'\\] as in the series before"),
    ],
)
def test_append_names_the_offence_and_nothing_stays(tmp_path, change, words):
    with pytest.raises(DataError, match=words) as caught:
        with StoreWriter(tmp_path / "store") as writer:
            writer.append(**GOOD)
            writer.append(**{**GOOD, **change})
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_a_later_series_may_start_earlier_in_the_year(tmp_path):
    with StoreWriter(tmp_path / "store") as writer:
        writer.append(GOOD["bands"], [300, 9, 9], [1, 2])
    store = Store.open(tmp_path / "store")
    store.validate()
    assert [store.series(i)[1].tolist() for i in range(2)] == [[300], [9, 9]]


def test_no_series_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no series"), StoreWriter(tmp_path / "store"):
        ...


def test_existing_stores_are_replaced_on_request_only(tmp_path):
    write_store(tmp_path / "store", [0, 1])
    with pytest.raises(DataError, match="already exists"), StoreWriter(tmp_path / "store"):
        ...
    with StoreWriter(tmp_path / "store", overwrite=True) as writer:
        writer.append(**GOOD)
        assert len(Store.open(tmp_path / "store")) == 2  # the old one, until the new one is whole
    np.testing.assert_array_equal(Store.open(tmp_path / "store").labels, [0, 3])
    assert os.listdir(tmp_path) == ["store"]


def test_a_killed_writer_leaves_no_store_and_the_next_cleans_up(tmp_path):
    script = (
        "import os, signal, sys, numpy as np\n"
        "from datasets.store import StoreWriter\n"
        "with StoreWriter(sys.argv[1]) as writer:\n"
        "    writer.append(np.ones((1, 10), dtype=int), [1], [1])\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "store")])
    partial, lock = sorted(tmp_path.iterdir())
    assert partial.name.startswith("store.partial-") and lock.name == f"{partial.name}.lock"
    with pytest.raises(DataError, match="unfinished"):
        Store.open(partial)
    with pytest.raises(DataError, match="not a store"):
        Store.open(tmp_path / "store")
    with atomic_folder(tmp_path / "store", overwrite=True) as alive:
        write_store(tmp_path / "store", [0, 1])
        assert sorted(os.listdir(tmp_path)) == ["store", alive.name, f"{alive.name}.lock"]


def test_of_two_writers_of_one_store_the_first_to_finish_wins(tmp_path):
    with pytest.raises(DataError, match="store: another process has written it meanwhile"):
        with StoreWriter(tmp_path / "store") as slow:
            slow.append(**GOOD)
            write_store(tmp_path / "store", [7])
    assert Store.open(tmp_path / "store").labels.tolist() == [7] and os.listdir(tmp_path) == ["store"]


def test_the_arrays_are_plain_npy_files_of_version_1(tmp_path):
    store = write_store(tmp_path / "store", list(range(5)))
    for name, dtype, shape in (("bands", "<i2", store.bands.shape), ("doy", "<i2", store.doy.shape),
                               ("offsets", "<i8", (6,))):  # fmt: skip
        with open(store.path / f"{name}.npy", "rb") as file:
            assert np.lib.format.read_magic(file) == (1, 0)
            assert np.lib.format.read_array_header_1_0(file) == (shape, False, np.dtype(dtype))
            assert file.tell() == 128  # a multiple of 64, so that a memory map is aligned


def test_the_header_of_a_store_has_room_for_any_number_of_rows(tmp_path):
    file = NpyAppender(tmp_path / "a.npy", np.int16, (10,))
    file.append(np.ones((3, 10)))
    file.rows = 10**18  # as if so many had been appended
    file.close()
    with open(tmp_path / "a.npy", "rb") as written:
        np.lib.format.read_magic(written)
        assert np.lib.format.read_array_header_1_0(written)[0] == (10**18, 10)
        assert np.fromfile(written, np.int16).tolist() == [1] * 30


def test_a_store_with_headers_of_the_first_version_is_read(tmp_path):
    """They were written by hand: other blanks, the same 128 bytes."""
    store = write_store(tmp_path / "store", [0, 1])
    for name in ("bands", "doy", "offsets"):
        file, array = store.path / f"{name}.npy", np.load(store.path / f"{name}.npy")
        text = repr({"descr": array.dtype.str, "fortran_order": False, "shape": array.shape}).ljust(117) + "\n"
        file.write_bytes(b"\x93NUMPY\x01\x00\x76\x00" + text.encode() + array.tobytes())
    again = Store.open(store.path)
    again.validate(2)
    np.testing.assert_array_equal(again.bands, store.bands)


def test_disagreeing_files_are_refused(tmp_path):
    store = write_store(tmp_path / "store", [0, 1, 2])
    np.save(store.path / "doy.npy", np.ones(2, dtype=np.int16))
    with pytest.raises(DataError, match="doy.npy counts 2, meta.json says"):
        Store.open(store.path)
    np.save(store.path / "doy.npy", np.ones(len(store.bands)))
    with pytest.raises(DataError, match="doy.npy: cannot be read .float64 of shape .* expected int16"):
        Store.open(store.path)
    os.truncate(store.path / "bands.npy", 200)
    with pytest.raises(DataError, match="bands.npy: cannot be read"):
        Store.open(store.path)
    (store.path / "meta.json").write_text('{"format": "other"}')
    with pytest.raises(DataError, match="expected format 'sits-store'"):
        Store.open(store.path)


def test_validate_finds_what_other_programs_changed(tmp_path):
    store = write_store(tmp_path / "store", [0, 1, 5])
    without_checksums(store.path)
    store.validate(num_classes=6)
    with pytest.raises(DataError, match=r"index.csv: line 4: label is '5'; expected a class id .* from 0 to 4"):
        store.validate(num_classes=5)
    doy = np.load(store.path / "doy.npy")
    doy[store.offsets[1]] = 367
    np.save(store.path / "doy.npy", doy)
    with pytest.raises(DataError, match="series 1, observation 0: day of year is 367"):
        Store.open(store.path).validate()
    offsets = np.load(store.path / "offsets.npy")
    offsets[1] = offsets[2]
    np.save(store.path / "offsets.npy", offsets)
    with pytest.raises(DataError, match="series 1 has 0 observations"):
        Store.open(store.path).validate()


def test_an_index_of_another_length_is_refused(tmp_path):
    store = write_store(tmp_path / "store", [0, 1, 5])
    (without_checksums(store.path) / "index.csv").write_text("label\n0\n")
    with pytest.raises(DataError, match="1 rows for 3 series"):
        _ = Store.open(store.path).labels


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("corn", "label is 'corn'"),
        ("", "label is blank"),
        ("2.5", "label is '2.5'"),
        ("-1", "label is '-1'"),
        ("True", "label is 'True'"),
        ("9" * 20, "label is '9999"),
    ],
)
def test_a_label_that_is_no_class_id_is_named_by_its_line(tmp_path, cell, words):
    store = write_store(tmp_path / "store", [0, 1, 5])
    file = without_checksums(store.path) / "index.csv"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:2], "", f"{cell},Harvey", lines[3]]))
    with pytest.raises(DataError, match=rf"index.csv: line 4: {words}.*; expected a class id \(a whole number\), 0 or"):
        _ = Store.open(store.path).labels


def test_labels_with_a_decimal_point_are_whole_numbers(tmp_path):
    store = write_store(tmp_path / "store", [0, 1, 5])
    file = without_checksums(store.path) / "index.csv"
    file.write_text(file.read_text().replace("5,", "5.0,"))
    store = Store.open(store.path)
    assert store.labels.tolist() == [0, 1, 5] and store.labels.dtype == np.int64
    assert join([SeriesSet.whole(store)] * 2).labels.tolist() == [0, 1, 5] * 2


def test_an_index_that_cannot_be_read_is_refused(tmp_path):
    store = write_store(tmp_path / "store", [0, 1, 5])
    (without_checksums(store.path) / "index.csv").write_bytes(b"label\n0\n1\n\xff\n")
    with pytest.raises(DataError, match="index.csv: cannot be read as CSV"):
        _ = Store.open(store.path).labels
    (store.path / "index.csv").write_text("label\n0\n\n1\n")
    with pytest.raises(DataError, match="index.csv: 2 rows for 3 series, blank lines not counted"):
        _ = Store.open(store.path).labels


def test_repr_has_counts_and_size(tmp_path):
    labelled = repr(write_store(tmp_path / "labelled", [0, 1, 1]))
    assert all(part in labelled for part in ("3 series", "2 classes", "observations")) and labelled.endswith(" B)")
    assert "unlabelled" in repr(write_store(tmp_path / "plain", None, count=2))


def test_pickling_carries_the_path_alone(tmp_path):
    store = write_store(tmp_path / "store", [0] * 500)
    blob = pickle.dumps(store)
    assert len(blob) < 1000
    np.testing.assert_array_equal(pickle.loads(blob).bands, store.bands)


def test_a_series_set_takes_rows_in_order(tmp_path):
    store = write_store(tmp_path / "store", [4, 3, 2, 1])
    chosen = SeriesSet.whole(store).take(np.array([3, 0, 1])).take(np.array([True, False, True]))
    np.testing.assert_array_equal(chosen.rows, [3, 1])
    np.testing.assert_array_equal(chosen.labels, [1, 3])
    np.testing.assert_array_equal(chosen.lengths, store.lengths[[3, 1]])
    assert chosen.regions.tolist() == ["Adams", "Harvey"]
    plain = SeriesSet.whole(write_store(tmp_path / "plain", None, count=2))
    assert plain.labels is None and plain.regions is None and len(plain) == 2


def test_a_million_series_open_at_once_and_take_23_bytes_an_observation(tmp_path):
    count, length = 1_000_000, 4
    doy = np.tile(np.arange(1, length + 1, dtype=np.int16), 100_000)
    bands = np.zeros((len(doy), 10), dtype=np.int16)
    with StoreWriter(tmp_path / "store") as writer:
        for _ in range(count // 100_000):
            writer.append(bands, doy, np.full(100_000, length))
    start = time.perf_counter()
    store = Store.open(tmp_path / "store")
    assert time.perf_counter() - start < 0.2
    assert len(store) == count
    size = sum(file.stat().st_size for file in store.path.iterdir())
    checksums = 8 * (2 * count * length + count) // 4096
    assert size <= 22 * count * length + 8 * (count + 1) + checksums + 1100  # 22.2 an observation at 40 a series


def test_meta_is_json(tmp_path):
    meta = json.loads((write_store(tmp_path / "store", [0, 1]).path / "meta.json").read_text())
    assert meta["series"] == 2 and meta["format"] == "sits-store" and meta["version"] == 1


@pytest.mark.parametrize("key", ["series", "observations", "classes", "provenance"])
def test_a_meta_without_a_key_is_refused(tmp_path, key):
    path = without_checksums(write_store(tmp_path / "store", [0, 1]).path)
    meta = json.loads((path / "meta.json").read_text())
    del meta[key]
    (path / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(DataError, match=f"meta.json: no {key} in it"):
        Store.open(path)


def test_offsets_that_do_not_start_at_0_are_refused(tmp_path):
    store = write_store(tmp_path / "store", [0, 1])
    offsets = np.array(store.offsets)
    offsets[0] = 1
    np.save(without_checksums(store.path) / "offsets.npy", offsets)
    with pytest.raises(DataError, match="offsets.npy: the first entry is 1; expected 0"):
        Store.open(store.path)


def test_the_command_checks_everything(tmp_path, capsys):
    store = write_store(tmp_path / "store", [0, 1, 1])
    main([str(store.path)])
    assert capsys.readouterr().out == f"{store}\n"
    doy = np.array(store.doy)
    doy[0] = 400
    np.save(without_checksums(store.path) / "doy.npy", doy)
    with pytest.raises(SystemExit, match="2"):
        main([str(store.path)])
    assert "error: " in (message := capsys.readouterr().err) and "day of year is 400" in message
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert capsys.readouterr().err == "error: the following arguments are required: path; see --help\n"


def test_joined_sets_are_one_store_in_memory(tmp_path):
    parts = [SeriesSet.whole(write_store(tmp_path / name, labels)) for name, labels in {"a": [0, 1], "b": [2]}.items()]
    joined = join(parts).store
    assert joined.source == f"{parts[0].store.source} + {parts[1].store.source}"
    assert joined.meta["series"] == 3 and joined.meta["classes"] == 3
    assert "3 series" in repr(joined) and "3 classes" in repr(joined)
    copy = pickle.loads(pickle.dumps(joined))
    np.testing.assert_array_equal(copy.bands, joined.bands)
    assert copy.labels.tolist() == [0, 1, 2]
