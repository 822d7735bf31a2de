"""What is said of a run while it goes."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest

from utils.results import progress
from utils.results.progress import Progress

ROW = {"epoch": 0, "lr": 1e-3, "train_loss": 2.0, "train_oa": 0.5, "seconds": 1.0, "series_per_s": 1234.5}


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test moves."""
    hands = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: hands.now))
    return hands


def said(capsys) -> list[str]:
    out, err = capsys.readouterr()
    assert err == ""
    return out.splitlines()


def test_without_a_terminal_there_is_a_line_a_minute_and_the_last(clock, capsys):
    shown = Progress("T_run", 200, is_main=True)
    for epoch in shown:
        clock.now += 25
        shown.step(epoch, 10, 12, 0.5, 99)
        clock.now += 25
        shown.epoch({**ROW, "epoch": epoch}, is_last=epoch == 4)
        if epoch == 4:
            break
    assert said(capsys) == [
        "T_run: 1 of 200 epochs and 10 of 12 steps: loss 0.500, 99 series/s",  # 75 s
        "T_run: 3 of 200 epochs: loss 2.0000, 1,234 series/s",  # 150 s
        "T_run: 4 of 200 epochs and 10 of 12 steps: loss 0.500, 99 series/s",  # 225 s
        "T_run: 5 of 200 epochs: loss 2.0000, 1,234 series/s",  # the last
    ]


def test_a_short_run_has_one_line_with_its_held_out_scores(clock, capsys):
    shown = Progress("T_run", 2, is_main=True)
    for epoch in shown:
        shown.epoch({**ROW, "epoch": epoch, "valid_loss": 1.5, "valid_oa": 0.25}, is_last=epoch == 1)
    (line,) = said(capsys)
    assert line == "T_run: 2 of 2 epochs: loss 2.0000, 1,234 series/s, held out: loss 1.5000, OA 0.2500"


def test_other_ranks_are_silent(clock, capsys):
    shown = Progress("T_run", 1, is_main=False)
    assert list(shown) == [0]
    shown.epoch(ROW, is_last=True)
    assert said(capsys) == []


def test_on_a_terminal_there_is_a_bar_alone(clock, capsys, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    shown = Progress("T_run", 1, is_main=True)
    for epoch in shown:
        clock.now += 100
        shown.step(epoch, 1, 1, 0.5, 99)
        shown.epoch(ROW, is_last=True)
    assert "T_run: 100%" in terminal.getvalue() and "loss 0.500, 99 series/s" in terminal.getvalue()
    assert capsys.readouterr().out == ""


def test_on_a_terminal_the_bar_shows_held_out_scores_and_ends_at_what_was_done(clock, capsys, monkeypatch):
    """Also where training stops early."""
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    shown = Progress("T_run", 30, is_main=True)
    for epoch in shown:
        clock.now += 100
        shown.step(epoch, 1, 1, 0.5, 99)
        shown.epoch({**ROW, "epoch": epoch, "valid_loss": 1.5, "valid_oa": 0.25 + epoch}, is_last=epoch == 2)
        if epoch == 2:
            break
    lines = [line for line in terminal.getvalue().replace("\n", "\r").split("\r") if line.strip()]
    assert "T_run: 100%" in lines[-1] and "3/3" in lines[-1] and "loss 2.0000" in lines[-1]
    assert lines[-1].rstrip("] ").endswith("held out: loss 1.5000, OA 2.2500")
    stepping = [line for line in lines if "loss 0.500," in line]
    assert "held out" not in stepping[0] and "held out: loss 1.5000, OA 1.2500" in stepping[-1]
    assert shown.bar.disable or shown.bar.n == 3
