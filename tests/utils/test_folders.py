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
from utils.results.folders import Place, State, claim, examine, locked, recorded
from utils.results.resume import Saved
from utils.results.runs import run_folders
from utils.runtime.distributed import World

SAME = {"model": "stnet", "seed": 1, "learning_rate": 0.001, "rc": True, "schedule": [], "data": "a"}


def name_of(logdir: Path, suffix: str | None) -> Path:
    return logdir / ("T_run" if suffix is None else f"T_run_{suffix}")


def claimed(logdir: Path, identity: dict | None = None, **options):
    return claim(partial(name_of, logdir), identity or SAME, World(), **{"suffix": None} | options)


def write(folder: Path, *files: str, identity: dict | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "args.json").write_text(json.dumps({"model": "stnet", "identity": SAME | (identity or {})}))
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


@pytest.mark.parametrize("files", [("finished",), ("testlog.csv", "finished"), ("model_last.pth", "finished")])
@pytest.mark.parametrize("resume", [None, "auto", "elsewhere/model_last.pth"])
def test_the_same_run_is_there_once_it_is_finished(tmp_path, files, resume):
    write(tmp_path / "T_run", *files)
    with claimed(tmp_path, resume=resume) as place:
        assert place.state is State.FINISHED
    assert names(tmp_path / "T_run") == sorted(["args.json", *files])


def test_a_run_is_finished_when_it_says_so(tmp_path):
    with claimed(tmp_path) as place:
        write(place.folder, "model_last.pth", "testlog.csv")
        assert examine(place.folder, SAME, resume="auto") is State.UNFINISHED
        place.finish()
    assert (place.folder / "finished").read_text().startswith("20")
    with claimed(tmp_path) as place:
        assert place.state is State.FINISHED


@pytest.mark.parametrize("files", [(), ("trainlog.csv",), ("model_best.pth",), ("model_best.skops", "testlog.csv")])
@pytest.mark.parametrize("resume", [None, "auto"])
def test_what_nothing_can_resume_makes_way_for_the_same_run(tmp_path, files, resume):
    write(tmp_path / "T_run", *files)
    with claimed(tmp_path, resume=resume) as place:
        assert place.state is State.EMPTY and names(place.folder) == sorted(["args.json", *files])
        place.enter(None)
        assert names(place.folder) == []
    assert names(tmp_path) == ["T_run"]


def test_a_run_that_came_to_nothing_makes_way_for_any(tmp_path):
    write(tmp_path / "T_run", "trainlog.csv", identity={"learning_rate": 7})
    with claimed(tmp_path) as place:
        assert place.state is State.EMPTY
        place.enter(None)
        assert names(place.folder) == []


def test_a_folder_that_is_no_run_is_left_as_it_is(tmp_path):
    (tmp_path / "T_run").mkdir()
    (tmp_path / "T_run" / "notes.txt").write_text("mine")
    with claimed(tmp_path) as place:
        place.enter(None)
        assert place.state is State.EMPTY and names(place.folder) == ["notes.txt"]


@pytest.mark.parametrize("last", ["model_last.pth", "model_last.prev.pth"])  # a kill may leave the latter alone
def test_an_unfinished_run_is_continued_or_overwritten(tmp_path, last):
    folder = write(tmp_path / "T_run", last, "testlog.csv")
    for resume in (None, str(tmp_path / "T_other" / last)):
        with pytest.raises(UsageError, match="T_run: holds this run, unfinished; continue it with --resume auto, or"):
            with claimed(tmp_path, resume=resume):
                raise AssertionError
    for resume in ("auto", str(folder / last), os.path.relpath(folder / last)):
        with claimed(tmp_path, resume=resume) as place:
            place.enter(Saved(folder / last, {}))
            assert place.state is State.UNFINISHED and names(folder) == sorted(["args.json", last, "testlog.csv"])
    with claimed(tmp_path, overwrite=True) as place:
        assert place.state is State.EMPTY and names(folder) == sorted(["args.json", last, "testlog.csv"])
        place.enter(None)
        assert names(folder) == []


def test_a_finished_run_that_is_resumed_is_not_finished(tmp_path):
    folder = write(tmp_path / "T_run", "model_last.pth", "finished")
    with claimed(tmp_path, resume="auto") as place:
        assert place.state is State.FINISHED
        place.enter(Saved(folder / "model_last.pth", {}))
    assert names(folder) == ["args.json", "model_last.pth"]


def test_a_state_in_the_folder_is_of_the_run_whatever_the_folder_says(tmp_path):
    """Its identity is compared when it is loaded."""
    folder = write(tmp_path / "T_run", "model_last.pth", "finished", identity={"learning_rate": 1.0})
    with claimed(tmp_path, resume=os.path.relpath(folder / "model_last.pth")) as place:
        assert place.state is State.UNFINISHED
    (folder / "args.json").write_text("{}")  # of an earlier version, or damaged
    with claimed(tmp_path, resume="auto") as place:
        assert place.state is State.UNFINISHED
    with pytest.raises(UsageError, match="its args.json is damaged or of an earlier version"):
        examine(folder, SAME)


def test_a_checkpoint_of_another_folder_is_not_resumed_over_a_run(tmp_path):
    write(tmp_path / "T_run", "model_last.pth", identity={"learning_rate": 1.0})
    other = write(tmp_path / "T_other", "model_last.pth")
    with pytest.raises(UsageError, match="T_run: holds another run: -lr 0.001 here, 1.0 there"):
        with claimed(tmp_path, resume=str(other / "model_last.pth")):
            raise AssertionError


def test_another_run_is_refused_and_kept(tmp_path):
    write(tmp_path / "T_run", "finished", identity={"learning_rate": 0.01, "rc": False})
    expected = (
        f"{tmp_path / 'T_run'}: holds another run: -lr 0.001 here, 0.01 there; with --rc here, without --rc there;"
        " give --suffix X or auto, or --overwrite to replace it"
    )
    for resume in (None, "auto"):
        with pytest.raises(UsageError) as error, claimed(tmp_path, resume=resume):
            raise AssertionError
        assert str(error.value) == expected and names(tmp_path / "T_run") == ["args.json", "finished"]
    with pytest.raises(UsageError, match="give another --out, or --overwrite to replace it"):
        with claimed(tmp_path, elsewhere="another --out"):
            raise AssertionError
    assert examine(tmp_path / "T_none", SAME) is State.EMPTY
    assert names(tmp_path) == ["T_run"]


@pytest.mark.parametrize("text", ["", "[]", '{"a":', None, "{}", '{"identity": 3}', "[" * 100_000])
@pytest.mark.parametrize("resume", [None, "auto"])
def test_a_result_that_does_not_tell_what_it_is_of_is_kept(tmp_path, text, resume):
    folder = write(tmp_path / "T_run", "model_best.pth", "testlog.csv")
    (folder / "args.json").unlink() if text is None else (folder / "args.json").write_text(text)
    before = names(folder)
    told = "holds another run: its args.json is damaged or of an earlier version; give --suffix X or auto"
    with pytest.raises(UsageError, match=told), claimed(tmp_path, resume=resume):
        raise AssertionError
    assert names(folder) == before
    with claimed(tmp_path, overwrite=True) as place:
        place.enter(None)
        assert names(folder) == []


def test_a_run_that_was_in_another_folder_brings_log_and_best(tmp_path):
    source = write(tmp_path / "there", "trainlog.csv", "model_best.pth", "model_last.pth", "finished")
    folder = write(tmp_path / "here", "trainlog.csv")
    (folder / "trainlog.csv").write_text("another's")
    Place(folder, State.EMPTY).enter(Saved(source / "model_last.pth", {}))
    assert {file.name: file.read_text() for file in folder.iterdir()} == {
        "trainlog.csv": "content", "model_best.pth": "content",
    }  # fmt: skip
    (source / "trainlog.csv").unlink()
    Place(tmp_path / "deep" / "new", State.EMPTY).enter(Saved(source / "model_last.pth", {}))
    assert names(tmp_path / "deep" / "new") == ["model_best.pth"]
    assert len(names(source)) == 4


def test_what_a_killed_writer_left_is_removed(tmp_path):
    folder = write(tmp_path / "T_run", "model_last.pth", ".args.partial-12.json", "model_last.prev.pth.partial-34")
    Place(folder, State.UNFINISHED).enter(Saved(folder / "model_last.pth", {}))
    assert names(folder) == ["args.json", "model_last.pth"]


def test_an_automatic_suffix_is_the_first_that_is_free(tmp_path):
    write(tmp_path / "T_run", "finished", identity={"seed": 2})
    write(tmp_path / "T_run_2", "model_last.pth")
    with claimed(tmp_path, suffix="auto") as third, claimed(tmp_path, suffix="auto") as fourth:
        assert (third.folder.name, fourth.folder.name) == ("T_run_3", "T_run_4")
    write(tmp_path / "T_run_5", "finished")
    write(tmp_path / "T_run_3", "finished", identity={"seed": 3})
    write(tmp_path / "T_run_4", "finished", identity={"seed": 4})
    with claimed(tmp_path, suffix="auto") as place:
        assert place == (tmp_path / "T_run_5", State.FINISHED)
    assert not list(tmp_path.glob(".*"))


def test_what_is_recorded_is_the_same_for_all_processes_of_a_run():
    of_the_process = {"resume": "auto", "save_minutes": 3, "overwrite": True}
    assert recorded({"suffix": "auto", "a": 1} | of_the_process) == {"suffix": None, "a": 1}
    assert recorded({"suffix": "x"}) == {"suffix": "x"} and recorded({"a": 1}) == {"a": 1}


@pytest.mark.parametrize(
    ("here", "there", "told"),
    [
        ({"seed": 2}, {}, "--seed 2 here, 1 there"),
        ({"new": None, "flag": False, "list": []}, {"gone": True}, ""),  # of other versions
        ({"rc": False}, {}, "without --rc here, with --rc there"),
        ({"clip_grad": 1.0}, {"clip_grad": None}, "--clip-grad 1.0 here, not given there"),
        ({"schedule": (4, 5)}, {"schedule": [4, 5]}, ""),
        ({"data": "b"}, {}, "data b here, a there"),
        ({"length_method": "rc"}, {"length_method": "pad"}, "length method (--rc, --pad, --interp) rc here, pad there"),
    ],
)
def test_what_makes_another_run(tmp_path, here, there, told):
    folder = write(tmp_path / "T_run", "finished", identity=there)
    if not told:
        assert examine(folder, SAME | here) is State.FINISHED
        return
    with pytest.raises(UsageError) as error:
        examine(folder, SAME | here)
    assert f"T_run: holds another run: {told}; give --suffix" in str(error.value)


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
    with claimed(tmp_path) as place:
        place.enter(None)
        assert not aside.exists()


def test_rank_0_decides_for_all(tmp_path, monkeypatch):
    """Rank 1 looks at nothing; what rank 0 has found comes through a sum."""
    write(tmp_path / "T_run", "finished")
    answers = iter([2, State.FINISHED.value])
    monkeypatch.setattr(World, "from_main", lambda self, number: next(answers) if number == 0 else None)
    monkeypatch.setattr(folders, "hold", lambda *given, **options: nullcontext(pytest.fail("locked")))
    with claim(partial(name_of, tmp_path), SAME, World(rank=1, size=2), suffix="auto") as place:
        assert place == (tmp_path / "T_run_3", State.FINISHED)
