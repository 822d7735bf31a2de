"""Which state a run resumes from, what it takes along, and what a user is told."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import main_moco
from utils.checkpoint import LAST, PREVIOUS, CheckpointError, save_checkpoint
from utils.errors import UsageError
from utils.options import differences
from utils.results.resume import check_same, find_saved, hint, how_to_continue


def save(path: Path, epoch: int) -> Path:
    path.parent.mkdir(exist_ok=True)
    save_checkpoint(path, {"model_state": {"weight": torch.zeros(2)}, "epoch": epoch})
    return path


# ---- which state


def test_without_resume_there_is_none(tmp_path):
    save(tmp_path / LAST, 1)
    assert find_saved(None, tmp_path, "advice") == (None, "")


def test_a_path_is_that_file_and_no_other(tmp_path):
    save(tmp_path / LAST, 1)
    saved, note = find_saved(str(save(tmp_path / "other.pth", 5)), tmp_path, "advice")
    assert (saved.path, saved.content["epoch"]) == (tmp_path / "other.pth", 5)
    assert note == f"resuming from {tmp_path / 'other.pth'}"
    with pytest.raises(CheckpointError, match="no such checkpoint .*; look elsewhere$"):
        find_saved(str(tmp_path / "missing.pth"), tmp_path, "look elsewhere")


def test_auto_is_the_last_state_of_the_folder_or_none(tmp_path):
    assert find_saved("auto", tmp_path / "run", "advice") == (None, "")
    save(tmp_path / "run" / PREVIOUS, 3)
    saved, note = find_saved("auto", tmp_path / "run", "advice")  # as after a kill between two renames
    assert saved.content["epoch"] == 3 and note == f"resuming from {tmp_path / 'run' / PREVIOUS}"
    save(tmp_path / "run" / LAST, 4)
    saved, note = find_saved("auto", tmp_path / "run", "advice")
    assert (
        saved.content["epoch"] == 4 and note == f"resuming from {saved.path}" == f"resuming from {tmp_path}/run/{LAST}"
    )


def test_auto_takes_the_one_before_where_the_last_is_damaged_and_says_so(tmp_path):
    save(tmp_path / PREVIOUS, 3)
    (tmp_path / LAST).write_bytes(save(tmp_path / "whole.pth", 4).read_bytes()[:500])
    saved, note = find_saved("auto", tmp_path, "advice")
    assert saved.content["epoch"] == 3
    assert note.startswith(f"{tmp_path / LAST}: not a checkpoint of tensors and numbers: ")
    assert note.endswith(f"; resuming from {tmp_path / PREVIOUS}")


def test_auto_does_not_start_afresh_where_all_are_damaged(tmp_path):
    for name in (LAST, PREVIOUS):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(CheckpointError) as error:
        find_saved("auto", tmp_path, "advice")
    assert str(error.value).endswith("; to start afresh, give --overwrite in place of --resume")
    assert str(tmp_path / LAST) in str(error.value) and str(tmp_path / PREVIOUS) in str(error.value)


# ---- what a user is told


def test_only_what_both_say_is_compared():
    here = {"batchsize": 16, "mlp": True, "moco_k": 64, "seed": 3}
    assert differences(here, {"batchsize": 16, "other": 1}) == ""
    assert differences(here, {"batchsize": 8, "mlp": False, "moco_k": 64}) == (
        "-b 16 here, 8 in the checkpoint; with --mlp here, without --mlp in the checkpoint"
    )
    with pytest.raises(
        UsageError, match="^file: --seed 3 here, 4 in the checkpoint; give the flags and the data it had$"
    ):
        check_same(here, {"seed": 4}, Path("file"))
    check_same(here, here, Path("file"))


def test_the_hint_names_the_last_checkpoint_or_the_one_resumed_from(tmp_path):
    assert hint(tmp_path, None) == "" and hint(tmp_path, "x.pth") == "; resume with --resume x.pth"
    (tmp_path / "model_last.pth").touch()
    assert hint(tmp_path, "x.pth") == f"; resume with --resume {tmp_path / 'model_last.pth'}"


@pytest.mark.parametrize("resume", [[], ["--resume", "a b.pth"], ["--resume=x.pth"]])
def test_the_command_that_continues_is_the_same_with_resume_auto(resume, monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    argv = ["stnet", *resume, "--logdir", "my runs", "-e", "3"]
    told = how_to_continue("main_moco.py", argv)
    assert told == "; continue with: python main_moco.py stnet --logdir 'my runs' -e 3 --resume auto"
    monkeypatch.setattr("sys.argv", ["../main_moco.py", *argv])
    assert how_to_continue("main_moco.py", None) == told.replace("main", "../main")
    args = main_moco.get_args(["stnet", "--logdir", "my runs", "-e", "3", "--resume", "auto"])
    assert (args.resume, args.logdir, args.epochs) == ("auto", "my runs", 3)


def test_torchrun_is_part_of_it(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    expected = "; continue with: torchrun --nproc-per-node 4 main_moco.py stnet --resume auto"
    assert how_to_continue("main_moco.py", ["stnet"]) == expected
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    assert how_to_continue("main_moco.py", []) == "; continue with: torchrun … main_moco.py --resume auto"
