"""Files and folders appear whole or not at all, and one process after another does what only one should do."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from tests.scripts.test_distributed import REPOSITORY
from tests.support.disk import make_read_only, room_for, small_disk
from utils import files
from utils.errors import WriteError
from utils.files import atomic_folder, atomic_write, one_at_a_time, write_text

FORK = multiprocessing.get_context("fork")


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def run_killed(code: str, *words: object) -> None:
    """Run a program that ends by SIGKILL."""
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], cwd=REPOSITORY)
    assert done.returncode == -9


def test_a_file_is_replaced_when_the_block_ends(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("old")
    with atomic_write(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old" and partial.parent == tmp_path and partial.suffix == ".csv"
    assert path.read_text() == "new" and names(tmp_path) == ["a.csv"]


def test_a_file_stays_as_it_was_after_an_error(tmp_path):
    write_text(tmp_path / "a.txt", "ü")
    with pytest.raises(KeyboardInterrupt):
        with atomic_write(tmp_path / "a.txt") as partial:
            partial.write_text("half")
            raise KeyboardInterrupt
    assert (tmp_path / "a.txt").read_bytes() == b"\xc3\xbc" and names(tmp_path) == ["a.txt"]


def test_a_new_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "plain").write_text("")
    write_text(tmp_path / "ours", "")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_killed_process_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    run_killed(
        "import os, sys; from utils.files import atomic_write\n"
        "with atomic_write(sys.argv[1]) as partial:\n"
        "    partial.write_text('half'); os.kill(os.getpid(), 9)\n",
        path,
    )
    assert path.read_text() == "old"


@pytest.mark.parametrize("place", ["missing/a.txt", "folder"])
def test_errors_name_the_file_and_not_the_temporary_one(tmp_path, place):
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(OSError) as error:
        write_text(tmp_path / place, "")
    assert error.value.filename == str(tmp_path / place) and error.value.filename2 is None
    assert names(tmp_path) == ["folder"]


def test_a_folder_appears_when_the_block_ends(tmp_path):
    with atomic_folder(tmp_path / "in" / "a") as folder:
        (folder / "b").mkdir()
        (folder / "b" / "file").write_text("x")
        assert not (tmp_path / "in" / "a").exists() and folder.name.startswith("a.partial-")
    assert (tmp_path / "in" / "a" / "b" / "file").read_text() == "x" and names(tmp_path / "in") == ["a"]


def test_a_folder_is_removed_after_an_error(tmp_path):
    with pytest.raises(ValueError, match="mine"):
        with atomic_folder(tmp_path / "a") as folder:
            (folder / "file").write_text("x")
            raise ValueError("mine")
    assert names(tmp_path) == []


@pytest.mark.parametrize("is_filled", [False, True])
def test_a_folder_that_appeared_meanwhile_is_kept(tmp_path, is_filled):
    with pytest.raises(FileExistsError) as error:
        with atomic_folder(tmp_path / "a"):
            (tmp_path / "a").mkdir()
            if is_filled:
                (tmp_path / "a" / "theirs").write_text("")
    assert error.value.filename == str(tmp_path / "a")
    assert names(tmp_path) == ["a"] and names(tmp_path / "a") == ["theirs"] * is_filled


def test_a_folder_is_overwritten_on_request_when_the_new_one_is_whole(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").write_text("")
    with atomic_folder(tmp_path / "a", overwrite=True) as folder:
        (folder / "new").write_text("")
        assert names(tmp_path / "a") == ["old"]
    assert names(tmp_path / "a") == ["new"] and names(tmp_path) == ["a"]


def test_leftovers_of_a_killed_process_are_removed_and_living_ones_are_kept(tmp_path):
    run_killed(
        "import os, sys; from utils.files import atomic_folder\n"
        "with atomic_folder(sys.argv[1]) as folder:\n"
        "    (folder / 'file').write_text('half'); os.kill(os.getpid(), 9)\n",
        tmp_path / "a[1]",
    )
    assert len(names(tmp_path)) == 2  # the folder and its lock
    with atomic_folder(tmp_path / "a[1]", overwrite=True) as first:
        assert names(tmp_path) == sorted([first.name, f"{first.name}.lock"])
        with atomic_folder(tmp_path / "a[1]") as second:
            assert first.is_dir() and second.is_dir() and first != second
    assert names(tmp_path) == ["a[1]"]


def test_a_folder_whose_writer_has_not_locked_it_yet_is_kept(tmp_path):
    (tmp_path / "a.partial-0").mkdir()
    with atomic_folder(tmp_path / "a"):
        ...
    assert names(tmp_path) == ["a", "a.partial-0"]


def test_contents_are_on_the_disk_before_the_rename_and_the_name_after_it(tmp_path, monkeypatch):
    synced = []

    def record(path):
        synced.append((path.name.split(".partial-")[0], "a" in names(tmp_path)))

    monkeypatch.setattr(files, "sync", record)
    with atomic_folder(tmp_path / "a") as folder:
        (folder / "file").write_text("")
    assert synced == [("file", False), ("a", False), (tmp_path.name, True)]
    del synced[:]
    write_text(tmp_path / "a" / "b", "")
    assert [name for name, _ in synced] == [".b", "a"]


def test_sync_reaches_files_and_folders(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    reached = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: reached.append(os.fstat(descriptor).st_ino))
    files.sync(tmp_path / "file")
    files.sync(tmp_path)
    assert reached == [(tmp_path / "file").stat().st_ino, tmp_path.stat().st_ino]


def _spend_time(path, intervals):
    with one_at_a_time(path):
        start = time.monotonic()
        time.sleep(0.05)
        intervals.put((start, time.monotonic()))


def test_processes_take_turns(tmp_path):
    intervals = FORK.Queue()
    workers = [FORK.Process(target=_spend_time, args=(tmp_path / "in" / "a", intervals)) for _ in range(4)]
    for worker in workers:
        worker.start()
    found = sorted(intervals.get(timeout=30) for _ in workers)
    for worker in workers:
        worker.join(timeout=30)
        assert worker.exitcode == 0
    assert all(end <= start for (_, end), (start, _) in zip(found, found[1:], strict=False))
    assert names(tmp_path / "in") == []


def test_a_lock_is_released_after_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(ValueError), one_at_a_time(tmp_path / "a"):
            raise ValueError
    assert names(tmp_path) == []


# ---- what a file holds


def test_each_kind_of_file_is_written_whole(tmp_path):
    files.write_array(tmp_path / "a.npy", np.arange(6).reshape(2, 3))
    files.write_csv(tmp_path / "b.csv", pd.DataFrame({"x": [1, 2], "y": ["ü", None]}))
    files.write_csv(tmp_path / "c.csv", pd.DataFrame({"x": [0.12345]}), float_format="%.2f")
    files.write_bytes(tmp_path / "d", b"\x00\xff")
    assert np.load(tmp_path / "a.npy").tolist() == [[0, 1, 2], [3, 4, 5]]
    assert (tmp_path / "b.csv").read_bytes() == "x,y\n1,ü\n2,\n".encode()
    assert (tmp_path / "c.csv").read_text() == "x\n0.12\n" and (tmp_path / "d").read_bytes() == b"\x00\xff"
    assert files.as_json({"a": Path("b")}) == '{\n  "a": "b"\n}\n'
    with pytest.raises(ValueError, match="Object arrays"):
        files.write_array(tmp_path / "e.npy", np.array([None]))
    assert names(tmp_path) == ["a.npy", "b.csv", "c.csv", "d"]


def test_the_digest_is_of_the_whole_file(tmp_path):
    content = bytes(range(256)) * 5000  # more than one block
    (tmp_path / "a").write_bytes(content)
    assert files.digest_of(tmp_path / "a") == hashlib.sha256(content).hexdigest()[:16]


def test_a_file_of_before_stays_as_another_one_and_is_on_the_disk_first(tmp_path, monkeypatch):
    path, previous, order = tmp_path / "a.pth", tmp_path / "a.prev.pth", []
    monkeypatch.setattr(files, "sync", lambda each: order.append((each.name[:2], names(tmp_path))))
    files.write_bytes(path, b"1", previous=previous)
    assert names(tmp_path) == ["a.pth"]
    for number in (b"2", b"3"):
        files.write_bytes(path, number, previous=previous)
    assert (path.read_bytes(), previous.read_bytes()) == (b"3", b"2") and names(tmp_path) == ["a.prev.pth", "a.pth"]
    flushed = [there for name, there in order if name == ".a"]
    assert "a.prev.pth" not in flushed[1] and len(flushed) == 5  # the new content, before the names change


# ---- disks that are full


def test_a_file_without_room_is_named_with_the_space_it_needs(tmp_path):
    (tmp_path / "a").write_text("old")
    with room_for(1000), pytest.raises(WriteError) as error:
        files.write_bytes(tmp_path / "a", b"x" * 12_345)
    told = re.fullmatch(
        r"cannot be written \(File too large\); it needs 12,345 bytes, ([\d,]+) are free; make room there and run the"
        r" same command again",
        error.value.strerror,
    )
    free = int(told[1].replace(",", ""))
    assert 0.5 < free / shutil.disk_usage(tmp_path).free < 2
    assert (error.value.filename, error.value.errno) == (str(tmp_path / "a"), errno.EFBIG)
    assert str(error.value) == f"{tmp_path / 'a'}: {error.value.strerror}"
    assert (tmp_path / "a").read_text() == "old" and names(tmp_path) == ["a"]


@pytest.mark.parametrize(("old", "written", "told"), [(900, 500, "900"), (10, 500, "500"), (0, 0, "1")])
def test_of_a_size_that_is_not_known_the_least_is_told(tmp_path, old, written, told):
    (tmp_path / "a").write_bytes(b"x" * old)
    with pytest.raises(WriteError, match=f"it needs {told} bytes"), atomic_write(tmp_path / "a") as partial:
        partial.write_bytes(b"x" * written)
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_folder_without_room_is_named_with_what_it_held(tmp_path):
    with pytest.raises(WriteError, match=r"it needs 70 bytes") as error, atomic_folder(tmp_path / "a") as folder:
        (folder / "in").mkdir()
        (folder / "in" / "b").write_bytes(b"x" * 70)
        raise OSError(errno.EDQUOT, "Disk quota exceeded")
    assert error.value.filename == str(tmp_path / "a") and names(tmp_path) == []


def test_a_file_in_a_folder_without_room_is_named_where_it_will_be(tmp_path):
    with room_for(10), pytest.raises(WriteError) as error, atomic_folder(tmp_path / "a") as folder:
        files.write_bytes(folder / "b", b"x" * 20)
    assert error.value.filename == str(tmp_path / "a" / "b") and "it needs 20 bytes" in error.value.strerror


def test_a_library_that_does_not_say_why_it_fails_is_believed_when_the_disk_is_full(tmp_path, monkeypatch):
    def fail():
        with atomic_write(tmp_path / "a") as partial:
            partial.write_bytes(b"xx")
            raise RuntimeError("write failed")

    with pytest.raises(RuntimeError, match="write failed"):
        fail()
    seen = []
    monkeypatch.setattr(
        shutil, "disk_usage", lambda folder: seen.append(folder) or SimpleNamespace(free=files.BLOCK - 1)
    )
    with pytest.raises(WriteError, match=r"No space left on device\); it needs 2 bytes, 1,048,575 are free"):
        fail()
    assert set(seen) == {tmp_path}
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=files.BLOCK))
    with pytest.raises(RuntimeError, match="write failed"):
        fail()


def test_errors_of_other_files_are_left_alone(tmp_path):
    for error in (OSError(errno.ENOSPC, "full", "other"), WriteError(errno.ENOSPC, "full", "other"), OSError("word")):
        with pytest.raises(OSError) as raised, atomic_write(tmp_path / "a"):
            raise error
        assert raised.value is error
    assert names(tmp_path) == []


def test_a_read_only_folder_is_named(tmp_path):
    with small_disk(tmp_path / "disk", "1m") as disk:
        make_read_only(disk)
        told = "cannot be written (Read-only file system); it needs 3 bytes in a folder that can be written to"
        with pytest.raises(WriteError) as error:
            write_text(disk / "a", "abc")
        assert (error.value.filename, error.value.strerror) == (str(disk / "a"), told)
        for make in (files.make_folder, lambda path: atomic_folder(path).__enter__()):
            with pytest.raises(WriteError, match="disk/a: cannot be written .Read-only file system.; it needs 1 bytes"):
                make(disk / "a")
        files.make_folder(disk)  # is there


def test_a_folder_is_made_with_those_above_it(tmp_path):
    files.make_folder(tmp_path / "a" / "b")
    files.make_folder(tmp_path / "a" / "b")
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError) as error:
        files.make_folder(tmp_path / "file")
    assert not isinstance(error.value, WriteError) and error.value.filename == str(tmp_path / "file")
    assert names(tmp_path) == ["a", "file"] and names(tmp_path / "a") == ["b"]
