"""A run's folder keeps its result, is of one run, and is written by one process."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest

from tests.support.disk import make_read_only, small_disk
from tests.utils.test_locks import another_process
from utils.errors import UsageError, WriteError
from utils.files import lock_beside, partial_of
from utils.results import folders
from utils.results.folders import State, claim, locked, other_arguments, recorded, refuse_other_run
from utils.results.runs import run_folders
from utils.runtime.distributed import World

ARGS = {"model": "stnet", "seed": 1, "learning_rate": 0.001, "rc": True, "schedule": [], "suffix": None, "data": "a"}


def name_of(logdir: Path, suffix: str | None) -> Path:
    return logdir / ("T_run" if suffix is None else f"T_run_{suffix}")


def claimed(logdir: Path, args: dict | None = None, **options):
    return claim(partial(name_of, logdir), args or ARGS, World(), **{"suffix": None} | options)


def write(folder: Path, *files: str, args: dict | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "args.json").write_text(json.dumps(ARGS | (args or {})))
    for name in files:
        (folder / name).write_text("content")
    return folder


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_a_new_run_has_an_empty_place_that_is_locked(tmp_path):
    with claimed(tmp_path / "results") as place:
        assert place == (tmp_path / "results" / "T_run", State.EMPTY)
        assert names(tmp_path / "results") == [".T_run.lock"]
        with pytest.raises(UsageError, match=rf"T_run: process {os.getpid()} on \S+ is writing it; wait until it has"):
            with claimed(tmp_path / "results"):
                raise AssertionError
    assert names(tmp_path / "results") == []


@pytest.mark.parametrize("files", [("finished",), ("testlog.csv", "model_best.pth"), ("model_last.pth", "finished")])
def test_the_same_run_is_there_once_it_is_finished(tmp_path, files):
    write(tmp_path / "T_run", *files)
    with claimed(tmp_path) as place:
        assert place.state is State.FINISHED
    assert names(tmp_path / "T_run") == sorted(["args.json", *files])


def test_a_run_is_finished_when_it_says_so(tmp_path):
    with claimed(tmp_path) as place:
        write(place.folder, "model_last.pth", "testlog.csv")
        assert not folders.is_finished(place.folder)
        place.finish()
    assert (place.folder / "finished").read_text().startswith("20")
    with claimed(tmp_path) as place:
        assert place.state is State.FINISHED


@pytest.mark.parametrize("files", [(), ("trainlog.csv",), ("model_best.pth",)])
def test_what_nothing_can_resume_makes_way_for_the_same_run(tmp_path, files):
    write(tmp_path / "T_run", *files)
    with claimed(tmp_path) as place:
        assert place.state is State.EMPTY and not place.folder.exists()
    assert names(tmp_path) == []


def test_a_run_that_came_to_nothing_makes_way_for_any(tmp_path):
    write(tmp_path / "T_run", "trainlog.csv", args={"learning_rate": 7})
    with claimed(tmp_path) as place:
        assert place.state is State.EMPTY
    assert names(tmp_path) == []


def test_a_folder_that_is_no_run_is_left_as_it_is(tmp_path):
    (tmp_path / "T_run").mkdir()
    (tmp_path / "T_run" / "notes.txt").write_text("mine")
    with claimed(tmp_path) as place:
        assert place.state is State.EMPTY and names(place.folder) == ["notes.txt"]


def test_an_unfinished_run_is_continued_or_overwritten(tmp_path):
    folder = write(tmp_path / "T_run", "model_last.pth", "testlog.csv")
    with pytest.raises(UsageError, match="T_run: holds this run, unfinished; continue it with --resume auto, or"):
        with claimed(tmp_path):
            raise AssertionError
    with claimed(tmp_path, resumed_from=folder / "model_last.pth") as place:
        assert place.state is State.UNFINISHED
    with claimed(tmp_path, overwrite=True) as place:
        assert place.state is State.EMPTY
    assert names(tmp_path) == []


def test_a_finished_run_that_is_resumed_is_not_finished(tmp_path):
    folder = write(tmp_path / "T_run", "model_last.pth", "finished", args={"epochs": 2})
    resumed = partial(claimed, tmp_path, ARGS | {"epochs": 3}, resumed_from=os.path.relpath(folder / "model_last.pth"))
    with resumed() as place:
        assert place.state is State.UNFINISHED and names(folder) == ["args.json", "model_last.pth"]


def test_a_checkpoint_of_another_folder_is_not_resumed_over_a_run(tmp_path):
    write(tmp_path / "T_run", "model_last.pth", args={"learning_rate": 1.0})
    other = write(tmp_path / "T_other", "model_last.pth")
    with pytest.raises(UsageError, match="T_run: holds another run: -lr 0.001 here, 1.0 there"):
        with claimed(tmp_path, resumed_from=other / "model_last.pth"):
            raise AssertionError


def test_another_run_is_refused_and_kept(tmp_path):
    write(tmp_path / "T_run", "finished", args={"learning_rate": 0.01, "rc": False})
    expected = (
        f"{tmp_path / 'T_run'}: holds another run: -lr 0.001 here, 0.01 there; with --rc here, without --rc there;"
        " give --suffix X or --suffix auto, or --overwrite to replace it"
    )
    with pytest.raises(UsageError) as error, claimed(tmp_path):
        raise AssertionError
    assert str(error.value) == expected and names(tmp_path / "T_run") == ["args.json", "finished"]
    with pytest.raises(UsageError) as error:
        refuse_other_run(tmp_path / "T_run", ARGS)
    assert str(error.value) == expected
    refuse_other_run(tmp_path / "T_run", {"model": "stnet"})
    refuse_other_run(tmp_path / "T_none", ARGS)
    (tmp_path / "T_run" / "finished").unlink()
    refuse_other_run(tmp_path / "T_run", ARGS)
    assert names(tmp_path) == ["T_run"]


@pytest.mark.parametrize("text", ["", "[]", '{"a":', None])
def test_a_result_without_arguments_is_kept(tmp_path, text):
    folder = write(tmp_path / "T_run", "model_best.pth")
    (folder / "args.json").unlink() if text is None else (folder / "args.json").write_text(text)
    before = names(folder)
    with pytest.raises(UsageError, match="holds another run: its args.json is missing or damaged; give --suffix X"):
        with claimed(tmp_path):
            raise AssertionError
    assert names(folder) == before
    with claimed(tmp_path, overwrite=True):
        assert names(tmp_path) == [".T_run.lock"]


def test_an_automatic_suffix_is_the_first_that_is_free(tmp_path):
    write(tmp_path / "T_run", "finished", args={"seed": 2})
    write(tmp_path / "T_run_2", "model_last.pth")
    with claimed(tmp_path, suffix="auto") as third, claimed(tmp_path, suffix="auto") as fourth:
        assert (third.folder.name, fourth.folder.name) == ("T_run_3", "T_run_4")
    write(tmp_path / "T_run_5", "finished")
    write(tmp_path / "T_run_3", "finished", args={"seed": 3})
    write(tmp_path / "T_run_4", "finished", args={"seed": 4})
    with claimed(tmp_path, suffix="auto") as place:
        assert place == (tmp_path / "T_run_5", State.FINISHED)
    assert not list(tmp_path.glob(".*"))


def test_an_automatic_suffix_is_none_of_the_arguments():
    assert recorded({"suffix": "auto", "a": 1}) == {"suffix": None, "a": 1}
    assert recorded({"suffix": "x"}) == {"suffix": "x"}


def test_a_suffix_belongs_to_the_name(tmp_path):
    write(tmp_path / "T_run_x", "finished", args={"suffix": None})
    with claimed(tmp_path, ARGS | {"suffix": "x"}, suffix="x") as place:
        assert place == (tmp_path / "T_run_x", State.FINISHED)


@pytest.mark.parametrize(
    ("here", "there", "told"),
    [
        ({"workers": 2, "device": "cpu", "logdir": "a", "overwrite": True, "seeds": [1], "years": [2019]}, {}, ""),
        ({"seed": 2}, {}, "--seed 2 here, 1 there"),
        ({"new": None, "flag": False, "list": []}, {}, ""),
        ({"flag": True}, {}, "with --flag here, without --flag there"),
        ({"clip_grad": 1.0}, {}, "--clip-grad 1.0 here, not given there"),
        ({}, {"gone": True, "unset": None}, "without --gone here, with --gone there"),
        ({}, {"gone": 3}, "--gone not given here, 3 there"),
        ({"schedule": (4, 5)}, {"schedule": [4, 5]}, ""),
        ({"path": Path("a")}, {"path": "a"}, ""),
        ({"data": "b"}, {}, "data b here, a there"),
        ({"datapath": "x"}, {"datapath": "y"}, ""),  # the same series
        ({"datapath": "x", "data": "b"}, {"datapath": "y"}, "data b here, a there"),
        ({"pretrained_digest": "12"}, {}, ""),
        ({}, {"pretrained_digest": "12"}, ""),
        ({"pretrained_digest": "12"}, {"pretrained_digest": "13"}, "--pretrained-digest 12 here, 13 there"),
        ({"recipe_used": {"a": 1}, "length_method": "rc"}, {}, ""),
    ],
)
def test_what_makes_another_run(tmp_path, here, there, told):
    assert other_arguments(write(tmp_path / "T_run", args=there), ARGS | here) == told


def test_data_of_before_they_were_recorded_are_told_apart_by_their_path(tmp_path):
    folder = write(tmp_path / "T_run")
    (folder / "args.json").write_text(json.dumps({"model": "stnet", "datapath": "y"}))
    assert other_arguments(folder, {"model": "stnet", "datapath": "x", "data": "b"}) == "--datapath x here, y there"


def test_a_place_that_another_process_writes_is_refused_with_its_name(tmp_path):
    with another_process(lock_beside(tmp_path / "T_run")) as (process, _):
        with pytest.raises(UsageError, match=f"T_run: process {process.pid} on .* is writing it"), claimed(tmp_path):
            raise AssertionError
        with claimed(tmp_path, suffix="auto") as place:
            assert place.folder.name == "T_run_2"
    with claimed(tmp_path) as place:  # the process was killed
        assert place.folder.name == "T_run"


def test_a_logdir_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for logdir in (tmp_path / "file", tmp_path / "file" / "in"):
        with (
            pytest.raises(UsageError, match="T_run: cannot be written .*; give another --logdir"),
            locked(logdir / "T_run"),
        ):
            raise AssertionError


def test_a_logdir_that_is_read_only_is_named(tmp_path):
    with small_disk(tmp_path / "disk", "1m") as disk:
        make_read_only(disk)
        with pytest.raises(WriteError, match=r"disk/in: cannot be written \(Read-only file system\)"):
            with claimed(disk / "in"):
                raise AssertionError


def test_a_removal_that_was_killed_is_finished_by_the_next(tmp_path):
    aside = partial_of(tmp_path / "T_run")
    write(aside, "testlog.csv")
    write(tmp_path / "T_other", "testlog.csv")
    assert run_folders(tmp_path) == [tmp_path / "T_other"]
    with claimed(tmp_path):
        assert not aside.exists()


def test_rank_0_decides_for_all(tmp_path, monkeypatch):
    """Rank 1 looks at nothing; what rank 0 has found comes through a sum."""
    write(tmp_path / "T_run", "finished")
    answers = iter([2, State.FINISHED.value])
    monkeypatch.setattr(World, "from_main", lambda self, number: next(answers) if number == 0 else None)
    monkeypatch.setattr(folders, "hold", lambda *given, **options: nullcontext(pytest.fail("locked")))
    with claim(partial(name_of, tmp_path), ARGS, World(rank=1, size=2), suffix="auto") as place:
        assert place == (tmp_path / "T_run_3", State.FINISHED)
