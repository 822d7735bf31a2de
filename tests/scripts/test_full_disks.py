"""A disk that is full or read-only ends a run in one line that names the file and the space; what was saved stays."""

from __future__ import annotations

import errno
import os
import re

import pytest

import main_moco
import main_tscls
from datasets import simulate
from tests.support.disk import make_read_only, room_for, small_disk
from tests.support.runs import BOTH, pretrain, rows, same, train, weights
from utils import report
from utils.errors import WriteError
from utils.results import figures, keeper, tensorboard

RUN = {main_moco: pretrain, main_tscls: train}
FULL = r"error: {} cannot be written \({}\); it needs ([\d,]+) bytes, [\d,]+ are free; make room there and run the same"


def ended(capsys, run, *given) -> str:
    """The line with which a run ends, with exit code 1."""
    with pytest.raises(SystemExit) as end:
        run(*given)
    line = capsys.readouterr().err
    assert end.value.code == 1 and line.count("error: ") == 1 and line.endswith("\n"), line
    return line[line.index("error: ") :]


def test_a_checkpoint_that_has_no_room_leaves_the_one_before(data_root, tmp_path, capsys, no_pictures):
    flags = ("-e", 3, "--cos")
    whole = pretrain(data_root, tmp_path / "whole", *flags)
    monkey = pytest.MonkeyPatch()
    calls = []
    save = keeper.save_checkpoint

    def save_on_a_full_disk(path, content):
        calls.append(path)
        with room_for(10_000 if len(calls) > 3 else 10**9):
            save(path, content)

    with monkey.context() as patch:
        patch.setattr(keeper, "save_checkpoint", save_on_a_full_disk)
        line = ended(capsys, pretrain, data_root, tmp_path, *flags)
    (folder,) = (path for path in tmp_path.iterdir() if path.name != "whole")
    name = calls[-1].name
    found = re.match(FULL.format(f"{re.escape(str(folder / name))}:", "File too large"), line)
    assert found and int(found[1].replace(",", "")) > 100_000, line
    assert not [file for file in folder.iterdir() if ".partial-" in file.name]
    resumed = pretrain(data_root, tmp_path, *flags, "--resume", folder / "model_last.pth")
    assert resumed == folder and rows(resumed) == rows(whole) and same(weights(resumed), weights(whole))


@BOTH
def test_a_full_disk_is_one_line(script, data_root, tmp_path, capsys, no_pictures):
    with small_disk(tmp_path / "disk", "100k") as disk:
        line = ended(capsys, RUN[script], data_root, disk)
        (folder,) = (path for path in disk.iterdir() if path.is_dir())
        where = re.escape(str(folder / "model_best.pth")) + ":"
        assert re.match(FULL.format(where, "No space left on device"), line), line
        assert {file.name.split(".")[0] for file in folder.iterdir()} == {"args", "trainlog", "events"}


@BOTH
def test_a_read_only_disk_is_one_line(script, data_root, tmp_path, capsys):
    with small_disk(tmp_path / "disk", "1m") as disk:
        make_read_only(disk)
        line = ended(capsys, RUN[script], data_root, disk / "results")
        assert line == (
            f"error: {disk / 'results'}: cannot be written (Read-only file system);"
            " it needs 1 bytes in a folder that can be written to\n"
        )
        line = ended(capsys, RUN[script], data_root, disk)
        assert line.startswith(f"error: {disk}") and "Read-only file system" in line


def test_default_data_that_have_no_room_leave_nothing(tmp_path, capsys):
    with small_disk(tmp_path / "disk", "1m") as disk:
        argv = ["--out", str(disk / "data"), "--unlabelled", "3000", "--train", "20", "--valid", "5", "--eval", "5"]
        line = ended(capsys, simulate.main, argv)
        assert re.match(
            FULL.format(re.escape(str(disk / "data" / "2019" / "unlabelled")) + ":", "No space left on device"), line
        ), line
        assert not list(disk.iterdir())


@BOTH
def test_training_does_without_tensorboard_logs(script, data_root, tmp_path, capsys, monkeypatch, no_pictures):
    def full(*given):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tensorboard, "open", full, raising=False)
    folder = RUN[script](data_root, tmp_path, "-e", 2, "-p", 1)
    told = f"{folder}: no more logs for TensorBoard (No space left on device)"
    assert capsys.readouterr().err.count(told) == 1 and len(rows(folder)) == 2
    assert not list(folder.glob("events*")) and (folder / "finished").exists()


def test_training_does_without_pictures(data_root, tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(report, "_pictures", figures.available)
    monkeypatch.setattr(report, "_failures", set())

    def full(figure, path):
        raise WriteError(errno.ENOSPC, "cannot be written", str(path))

    monkeypatch.setattr(figures, "save", full)
    folder = train(data_root, tmp_path)
    errors = capsys.readouterr().err.splitlines()
    told = [line for line in errors if "no picture" in line]
    assert told == [f"no picture {folder / 'confusion_matrix.png'}: cannot be written"]  # once, for all
    assert (folder / "finished").exists() and (tmp_path / "comparison.csv").exists()
    assert not list(tmp_path.rglob("*.png"))
