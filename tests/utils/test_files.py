"""Files and folders appear whole or not at all, and one process after another does what only one should do."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.scripts.test_distributed import REPOSITORY
from utils import files
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
