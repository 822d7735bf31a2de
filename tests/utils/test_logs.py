"""What a run writes to its folder."""

from __future__ import annotations

import errno
import json
import os
import sys

import pandas as pd
import pytest

from utils.errors import UsageError
from utils.results import logs, tensorboard
from utils.results.logs import RunLog, read_rows, write_rows


def row(epoch: int, loss: float = 0.5) -> dict:
    return {"epoch": epoch, "lr": 1e-3, "train_loss": loss, "valid_loss": loss * 2}


def scalars(folder) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows: (step, value) of every scalar."""
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = event_accumulator.EventAccumulator(str(folder)).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_a_run_folder_has_arguments_rows_and_scalars(tmp_path):
    pytest.importorskip("tensorboard")
    log = RunLog(tmp_path / "results" / "P_run", {"model": "stnet", "schedule": [3, 4], "path": tmp_path})
    log.epoch(row(0, 1 / 3))
    log.epoch(row(1, 0.25))
    log.close()
    args = json.loads((log.folder / "args.json").read_text())
    assert args == {"model": "stnet", "schedule": [3, 4], "path": str(tmp_path)}
    text = (log.folder / "trainlog.csv").read_text().splitlines()
    assert text == ["epoch,lr,train_loss,valid_loss", "0,0.001,0.333333,0.666667", "1,0.001,0.25,0.5"]
    assert len(list(log.folder.glob("events.out.tfevents.*"))) == 1
    assert {file.name.split(".")[0] for file in log.folder.iterdir()} == {"args", "trainlog", "events"}


def test_tensorboard_has_the_scalars_of_steps_and_epochs(tmp_path):
    log = RunLog(tmp_path, {})
    log.scalars("step", {"loss": 7.0}, 40)
    log.epoch(row(0, 0.25))
    log.epoch(row(1, 0.125))
    log.close()
    shown = scalars(tmp_path)
    assert shown["train/loss"] == [(0, 0.25), (1, 0.125)] and shown["valid/loss"] == [(0, 0.5), (1, 0.25)]
    assert shown["step/loss"] == [(40, 7.0)] and "epoch" not in shown
    assert [value for _, value in shown["lr"]] == pytest.approx([1e-3, 1e-3])


def test_a_resumed_log_continues_after_the_finished_epochs(tmp_path):
    log = RunLog(tmp_path, {})
    for epoch in range(4):
        log.scalars("step", {"loss": 1.0}, 100 * epoch)
        log.epoch(row(epoch, 1.0))
    log.close()
    again = RunLog(tmp_path, {}, resume_epoch=2)
    again.scalars("step", {"loss": 2.0}, 400)
    again.epoch(row(2, 2.0))
    again.close()
    rows = read_rows(tmp_path / "trainlog.csv")
    assert [(r["epoch"], r["train_loss"]) for r in rows] == [("0", "1"), ("1", "1"), ("2", "2")]
    shown = scalars(tmp_path)
    assert shown["step/loss"] == [(0, 1.0), (100, 1.0), (200, 1.0), (300, 1.0), (400, 2.0)]
    assert shown["train/loss"][-1] == (2, 2.0)


class Full:
    """A file on a full disk; ``when`` says which call fails."""

    def __init__(self, when: str):
        self.when, self.calls = when, []

    def __getattr__(self, name: str):
        def call(*given):
            self.calls.append(name)
            if name == self.when and len(self.calls) > 4:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        return call


@pytest.mark.parametrize("when", ["write", "flush", "close"])
def test_a_log_that_cannot_be_written_to_is_given_up_in_one_line(tmp_path, monkeypatch, capsys, when):
    pytest.importorskip("tensorboard")
    file = Full(when)
    monkeypatch.setattr(tensorboard, "open", lambda *given: file, raising=False)
    log = RunLog(tmp_path, {})
    for epoch in range(3):
        log.scalars("step", {"loss": 1.0}, epoch)
        log.epoch(row(epoch))
    log.close()
    assert capsys.readouterr().err == f"{tmp_path}: no more logs for TensorBoard (No space left on device)\n"
    assert file.calls.count(when) == max(1, [call for call in file.calls[:4]].count(when) + 1)
    assert file.calls[-1] == when and len(read_rows(tmp_path / "trainlog.csv")) == 3


def test_without_tensorboard_a_run_has_its_rows(tmp_path, monkeypatch, capsys):
    for name in ("tensorboard.compat.proto.event_pb2", "tensorboard.summary.writer.record_writer"):
        monkeypatch.setitem(sys.modules, name, None)
    tensorboard._say_that_it_is_missing.cache_clear()
    for name in "ab":
        log = RunLog(tmp_path / name, {})
        log.scalars("step", {"loss": 1.0}, 1)
        log.epoch(row(0))
        log.close()
        assert sorted(file.name for file in log.folder.iterdir()) == ["args.json", "trainlog.csv"]
    assert capsys.readouterr().err == "no logs for TensorBoard: it is not installed (pip install tensorboard)\n"


def test_a_new_run_starts_an_empty_log(tmp_path):
    for loss in (1.0, 2.0):
        log = RunLog(tmp_path, {})
        log.epoch(row(0, loss))
        log.close()
    assert [r["train_loss"] for r in read_rows(tmp_path / "trainlog.csv")] == ["2"]


def test_rows_survive_a_failing_write(tmp_path, monkeypatch):
    path = tmp_path / "trainlog.csv"
    write_rows(path, [row(0)])
    before = path.read_bytes()
    with pytest.raises(UnicodeEncodeError):
        write_rows(path, [row(0), {"epoch": "\ud800"}])
    assert path.read_bytes() == before
    write_rows(path, [row(0), row(1)])
    assert [r["epoch"] for r in read_rows(path)] == ["0", "1"]
    assert [file.name for file in tmp_path.iterdir()] == ["trainlog.csv"]


def test_a_resumed_log_of_other_columns_keeps_its_values(tmp_path):
    """As after an update: every row keeps its values in their columns."""
    (tmp_path / "trainlog.csv").write_text("epoch,train_loss,speed\n0,2.5,70\n1,2\n2,1.5,70,8\n")
    log = RunLog(tmp_path, {}, resume_epoch=3)
    log.epoch(row(3))
    log.close()
    lines = (tmp_path / "trainlog.csv").read_text().splitlines()
    assert lines[0] == "epoch,train_loss,speed,lr,valid_loss"
    assert lines[1:] == ["0,2.5,70,,", "1,2,,,", "2,1.5,70,,", "3,0.5,,0.001,1"]
    table = pd.read_csv(tmp_path / "trainlog.csv")
    assert table["train_loss"].tolist() == [2.5, 2, 1.5, 0.5] and table["valid_loss"].count() == 1


@pytest.mark.parametrize("text", ["step,loss\n0,1\n", "epoch,loss\nlast,1\n", "loss,epoch\n1\n"])
def test_a_log_without_epochs_is_not_resumed(tmp_path, text):
    (tmp_path / "trainlog.csv").write_text(text)
    with pytest.raises(UsageError, match="trainlog.csv: a row has no number in the column 'epoch'"):
        RunLog(tmp_path, {}, resume_epoch=1)
    assert (tmp_path / "trainlog.csv").read_text() == text and not (tmp_path / "args.json").exists()


def test_a_missing_log_has_no_rows(tmp_path):
    assert logs.read_rows(tmp_path / "trainlog.csv") == []


def test_rows_are_read_as_they_were_written(tmp_path):
    rows = [{"epoch": 0, "name": "a,b", "loss": 0.1 + 0.2, "n": 3}, {"epoch": 1, "later": 1e-9}]
    write_rows(tmp_path / "log.csv", rows)
    assert (tmp_path / "log.csv").read_bytes().startswith(b"epoch,name,loss,n,later\n0,")
    assert read_rows(tmp_path / "log.csv") == [
        {"epoch": "0", "name": "a,b", "loss": "0.30000000000000004", "n": "3", "later": ""},
        {"epoch": "1", "name": "", "loss": "", "n": "", "later": "1e-09"},
    ]
