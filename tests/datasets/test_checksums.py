"""Checksums of a store: what was changed since is found when it is read, and not before."""

from __future__ import annotations

import json
import logging
import zlib
from pathlib import Path

import numpy as np
import pytest

from datasets import checksums, storefiles
from datasets.checksums import ROWS, CheckedArray, RunningChecksums
from datasets.errors import DataError
from datasets.npyfile import map_array, read_header
from datasets.store import SeriesSet, Store, StoreWriter, join, main
from tests.support.layout import without_checksums, write_store

LENGTH = 8  # observations of a series of `large`


@pytest.fixture
def large(tmp_path) -> Path:
    """A store of 2.5 blocks."""
    count = ROWS * 5 // 2 // LENGTH
    bands = np.arange(count * LENGTH * 10, dtype=np.int64).reshape(-1, 10) % 9000
    with StoreWriter(tmp_path / "large") as writer:
        writer.append(bands, np.tile(np.arange(1, LENGTH + 1), count), np.full(count, LENGTH))
    return tmp_path / "large"


def flip(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("sizes", [[3], [ROWS], [ROWS, 1], [ROWS - 1, 2, 0, 3 * ROWS], [2 * ROWS + 5]])
def test_running_checksums_do_not_depend_on_the_pieces(sizes):
    rows = np.random.default_rng(0).integers(-9, 9, (sum(sizes), 10)).astype(np.int16)
    running = RunningChecksums()
    for piece in np.split(rows, np.cumsum(sizes)[:-1]):
        running.add(piece)
    expected = [zlib.crc32(rows[first : first + ROWS].tobytes()) for first in range(0, len(rows), ROWS)]
    assert running.as_text() == "".join(f"{crc:08x}" for crc in expected) == checksums.of_array(rows)


def test_meta_json_has_them(large):
    meta = json.loads((large / "meta.json").read_text())
    sums = meta["checksums"]
    assert (sums["method"], sums["rows"]) == ("crc32", 4096)
    for name in ("bands.npy", "doy.npy", "offsets.npy"):
        assert sums[name] == checksums.of_array(np.load(large / name))
    assert len(sums["bands.npy"]) == len(sums["doy.npy"]) == 3 * 8 and "index.csv" not in sums


def test_a_store_opens_without_reading_what_is_damaged_and_reading_it_is_refused(large):
    flip(large / "bands.npy", 128 + 20 * (ROWS + 7))  # in the second block
    store = Store.open(large)
    per_block = ROWS // LENGTH
    store.series(0), store.series(per_block - 1), store.series(2 * per_block)
    with pytest.raises(DataError, match=r"bands.npy: damaged or changed: rows 4096 to 8191 do not .*; copy or make"):
        store.series(per_block)
    with pytest.raises(DataError, match="rows 4096 to 8191"):
        np.asarray(store.bands)
    with pytest.raises(DataError, match="rows 4096 to 8191"):
        store.validate()


@pytest.mark.parametrize("name", ["bands.npy", "doy.npy", "offsets.npy"])
def test_the_last_block_is_checked_too(large, name):
    flip(large / name, (large / name).stat().st_size - 10)
    with pytest.raises(DataError, match=rf"{name}: damaged or changed: rows \d+ to \d+ do not have their checksum"):
        store = Store.open(large)
        store.series(len(store) - 1)


@pytest.mark.parametrize("name", ["bands.npy", "doy.npy", "offsets.npy", "index.csv", "meta.json"])
def test_any_byte_that_is_flipped_is_found(tmp_path, name):
    path = write_store(tmp_path / "store", [0, 1, 5]).path
    good = (path / name).read_bytes()
    expected = Store.open(path)
    for place in np.random.default_rng(1).permutation(len(good))[:150].tolist():
        (path / name).write_bytes(good[:place] + bytes([good[place] ^ 4]) + good[place + 1 :])
        try:
            store = Store.open(path)
            store.validate()
        except DataError as error:
            assert "\n" not in str(error)
            continue
        assert store.meta == expected.meta
        np.testing.assert_array_equal(store.bands, expected.bands)
        np.testing.assert_array_equal(store.labels, expected.labels)


def test_files_of_two_stores_are_told_apart(tmp_path):
    one, other = (write_store(tmp_path / name, [0, 1], seed=1).path for name in ("one", "other"))
    np.save(other / "bands.npy", np.load(one / "bands.npy") + 1)
    storefiles.write_checksums(other)
    (one / "bands.npy").write_bytes((other / "bands.npy").read_bytes())
    with pytest.raises(DataError, match="one/bands.npy: damaged or changed"):
        Store.open(one).series(0)


def test_an_index_that_was_changed_is_refused_until_its_checksum_is_written(tmp_path, capsys):
    store = write_store(tmp_path / "store", [0, 1, 5])
    file = store.path / "index.csv"
    file.write_text(file.read_text().replace("5,", "4,"))
    with pytest.raises(DataError, match="index.csv: damaged or changed: it has not its checksum") as caught:
        _ = Store.open(store.path).labels
    assert str(caught.value).endswith(f"if you changed it, python -m datasets.store {store.path} --write-checksums")
    main([str(store.path), "--write-checksums"])
    assert capsys.readouterr().out == f"{Store.open(store.path)}\n"
    assert Store.open(store.path).labels.tolist() == [0, 1, 4]
    file.unlink()
    with pytest.raises(DataError, match="index.csv: no such file, and there was one"):
        _ = Store.open(store.path).labels


def test_a_store_without_an_index_has_none(large):
    (large / "index.csv").write_text("label\n" + "1\n" * (ROWS * 5 // 2 // LENGTH))
    with pytest.raises(DataError, match="index.csv: damaged or changed"):
        _ = Store.open(large).labels


def test_a_store_without_checksums_opens_with_a_note(tmp_path, caplog):
    path = without_checksums(write_store(tmp_path / "store", [0, 1, 5]).path)
    with caplog.at_level(logging.WARNING):
        store = Store.open(path)
        Store.open(path)
    assert caplog.messages == [
        f"{path}: has no checksums, so damage to it stays unseen;"
        f" python -m datasets.store {path} --write-checksums adds them"
    ]
    store.validate()
    assert store.labels.tolist() == [0, 1, 5]
    before = json.loads((path / "meta.json").read_text())
    storefiles.write_checksums(path)
    assert (after := json.loads((path / "meta.json").read_text())).pop("checksums") and after == before
    store.validate()


def test_a_store_whose_checksums_have_lost_their_name_is_refused(tmp_path):
    path = write_store(tmp_path / "store", [0, 1, 5]).path
    (path / "meta.json").write_text((path / "meta.json").read_text().replace("checksums", "checksumz"))
    with pytest.raises(DataError, match="meta.json: has absurd, checksumz and no checksums, so it is damaged"):
        Store.open(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"checksums": 3}, "meta.json: damaged or changed"),
        ({"checksums": {}}, "meta.json: damaged or changed"),
        ({"series": 2}, "meta.json: damaged or changed"),
        ({"provenance": {"a": 1}}, "meta.json: damaged or changed"),
        ({"series": -1}, "its series is -1, so it is damaged"),
        ({"series": True}, "its series is true"),
        ({"observations": 2.5}, "its observations is 2.5"),
        ({"classes": "a"}, 'its classes is "a"'),
        ({"provenance": [1]}, r"its provenance is \[1\]"),
    ],
)
def test_a_meta_that_was_changed_is_refused(tmp_path, change, words):
    path = write_store(tmp_path / "store", [0, 1, 5]).path
    meta = json.loads((path / "meta.json").read_text())
    (path / "meta.json").write_text(json.dumps(meta | change))
    with pytest.raises(DataError, match=words):
        Store.open(path)


@pytest.mark.parametrize("change", [{"method": "md5"}, {"rows": 4097}, {"doy.npy": None}])
def test_checksums_of_another_kind_are_refused(tmp_path, change):
    path = write_store(tmp_path / "store", [0, 1, 5]).path
    meta = json.loads((path / "meta.json").read_text())
    sums = {name: text for name, text in (meta["checksums"] | change).items() if text is not None}
    meta["checksums"] = sums
    sums["meta.json"] = checksums.of_meta(meta)
    (path / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(DataError, match="meta.json: expected checksums .*crc32.* of bands.npy, doy.npy, offsets.npy"):
        Store.open(path)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([0, 3, 3], "series 1 has 0 observations; expected at least 1"),
        ([0, 7, 3], "entry 1 is 7; expected 0 to 3"),
        ([0, -7, 3], "entry 1 is -7; expected 0 to"),
        ([0, 10**15, 3], "entry 1 is 1000000000000000; expected 0 to"),
        ([0, 0, 3], "series 0 has 0 observations"),
        ([0, 1, 2], "the last entry is 2; expected 3"),
    ],
)
def test_offsets_that_lie_are_refused_before_anything_is_allocated(tmp_path, entries, words):
    with StoreWriter(tmp_path / "store") as writer:
        writer.append(np.ones((3, 10)), [1, 2, 3], [1, 2])
    np.save(without_checksums(tmp_path / "store") / "offsets.npy", entries)
    with pytest.raises(DataError, match=words):
        Store.open(tmp_path / "store")


def test_a_series_too_long_for_a_batch_is_refused(tmp_path):
    with pytest.raises(DataError, match="series 0 has 10001 observations; expected at most 10,000"):
        with StoreWriter(tmp_path / "store") as writer:
            writer.append(np.ones((10_001, 10)), np.ones(10_001), [10_001])


def test_damage_to_a_converted_store_is_mended_by_removing_it(tmp_path):
    path = write_store(tmp_path / "store", [0, 1]).path
    flip(path / "bands.npy", 140)
    with pytest.raises(DataError, match=f"checksum; remove {path}, which is then made again from here.npy"):
        Store.open(path, "here.npy").series(0)


# ---- the array


def checked(count: int) -> tuple[CheckedArray, list[int], np.ndarray]:
    """An array of `count` rows, what is checked of it, and the plain array."""
    array, seen = np.arange(3 * count).reshape(-1, 3), []

    def check(first: int, rows: np.ndarray) -> None:
        np.testing.assert_array_equal(rows, array[first : first + ROWS + 1])
        seen.append(first // ROWS)

    return CheckedArray(array, check), seen, array


@pytest.mark.parametrize(
    ("rows", "blocks"),
    [
        (0, [0]),
        (ROWS, [1]),
        (-1, [3]),
        (slice(0, ROWS), [0]),
        (slice(ROWS - 1, ROWS + 1), [0, 1]),
        (slice(ROWS + 1, 0, -1), [0, 1]),
        (slice(5, 5), []),
        (slice(-1, None), [3]),
        (np.array([[2 * ROWS, 1]]), [0, 2]),
        (np.array([-1, 3]), [0, 3]),
        (np.arange(4 * ROWS) == ROWS, [1]),
        ((slice(0, 2), 1), [0]),
        (np.array([], dtype=int), []),
    ],
)
def test_only_the_blocks_that_are_read_are_checked_and_each_once(rows, blocks):
    ours, seen, array = checked(4 * ROWS)
    for _ in range(2):
        np.testing.assert_array_equal(ours[rows], array[rows])
    assert seen == blocks
    np.testing.assert_array_equal(ours, array)
    assert sorted(seen) == [0, 1, 2, 3]
    assert (len(ours), ours.shape, ours.dtype, ours.nbytes) == (4 * ROWS, array.shape, array.dtype, array.nbytes)


@pytest.mark.parametrize("row", [4 * ROWS, -4 * ROWS - 1])
def test_a_row_that_is_not_there_is_an_index_error(row):
    ours, _, _ = checked(4 * ROWS)
    with pytest.raises(IndexError):
        ours[row]
    with pytest.raises(IndexError):
        ours[np.array([row, 1])]


def test_arithmetic_is_that_of_the_array_once_it_is_checked():
    ours, seen, array = checked(ROWS + 1)
    np.testing.assert_array_equal(ours + 1, array + 1)
    np.testing.assert_array_equal(ours == ours, array == array)
    assert seen == [0, 1] and np.array(ours, dtype=np.int16).dtype == np.int16
    ours, seen, array = checked(ROWS + 1)
    ours[0], ours[ROWS], ours[1]
    np.testing.assert_array_equal(np.diff(ours, axis=0), np.diff(array, axis=0))
    assert seen == [0, 1]


# ---- .npy headers


def npy(path: Path, descr: str = "'<i2'", order: str = "False", shape: str = "(3,)", data: bytes = b"\0" * 6) -> Path:
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}".ljust(117) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00\x76\x00" + text.encode() + data)
    return path


def test_a_plain_header_is_read_and_mapped(tmp_path):
    path = npy(tmp_path / "a.npy", data=np.array([1, 2, 3], "<i2").tobytes())
    with open(path, "rb") as file:
        assert read_header(file) == ((3,), False, np.dtype(np.int16)) and file.tell() == 128
    assert map_array(path, np.int16).tolist() == [1, 2, 3]
    assert map_array(npy(path, order="True"), np.int16).tolist() == [0, 0, 0]  # of one dimension, the order is the same


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shape": "(4,)"}, r"6 bytes of data for the shape \(4,\)"),
        ({"shape": "(2,)"}, r"6 bytes of data for the shape \(2,\)"),
        ({"shape": "(10**18,)"}, "no NumPy header"),
        ({"shape": f"({10**18},)"}, "6 bytes of data for the shape"),
        ({"shape": "(-3,)"}, r"says shape \(-3,\)"),
        ({"shape": "(True,)"}, r"says shape \(True,\)"),
        ({"shape": "(3, 1)"}, r"int16 of shape \(3, 1\); expected int16, rows"),
        ({"descr": "'>i2'"}, r">i2 of shape \(3,\); expected int16"),
        ({"descr": "'|O'"}, "object of shape"),
        ({"descr": "'<f2'"}, "float16 of shape"),
        ({"descr": "__import__('os')"}, "no NumPy header"),
        ({"descr": "'" + "(" * 60}, "no NumPy header"),
    ],
)
def test_headers_that_lie_are_refused(tmp_path, change, words):
    with pytest.raises(ValueError, match=words):
        map_array(npy(tmp_path / "a.npy", **change), np.int16)


def test_fortran_order_is_refused_where_it_matters(tmp_path):
    path = npy(tmp_path / "a.npy", order="True", shape="(2, 10)", data=b"\0" * 40)
    with pytest.raises(ValueError, match=r"Fortran order\); expected int16, rows x 10 in C order"):
        map_array(path, np.int16, (10,))


def test_join_of_checked_stores_is_plain(large):
    joined = join([SeriesSet.whole(Store.open(large)).take(np.array([1, 0]))]).store
    assert isinstance(joined.bands, np.ndarray)
    joined.validate()
