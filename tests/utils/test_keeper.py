"""When a state is saved, and what ends a run."""

from __future__ import annotations

import signal
from types import SimpleNamespace

import pytest
import torch

from utils.checkpoint import load_checkpoint
from utils.errors import Stopped
from utils.results import keeper
from utils.results.keeper import Keeper
from utils.runtime.distributed import World
from utils.runtime.signals import Requests


class Run:
    """A run whose state is a number of its own."""

    epoch, step = 3, 7

    def __init__(self):
        self.asked = []

    def checkpoint(self, *, is_whole):
        self.asked.append(is_whole)
        return {"model_state": {"weight": torch.zeros(1)}, "number": len(self.asked)}


def kept(tmp_path, minutes=0, requests=None, world=World(), **options):  # noqa: B008
    return Keeper(Run(), tmp_path, requests or Requests("; go on"), world, minutes, **options)


def number(path) -> int:
    return load_checkpoint(path)["number"]


def test_the_state_before_is_kept(tmp_path):
    own, called = kept(tmp_path), []
    own.before = lambda: called.append(len(own.run.asked))
    for count in (1, 2, 3):
        own.save("model_best.pth", is_whole=True)
        assert number(tmp_path / "model_last.pth") == number(tmp_path / "model_best.pth") == count
    assert number(tmp_path / "model_last.prev.pth") == 2
    assert called == [0, 1, 2] and own.run.asked == [True] * 3  # asked whether it should before it is made


def test_what_should_not_be_saved_is_not(tmp_path):
    own = kept(tmp_path, before=lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        own.save(is_whole=False)
    assert not own.run.asked and not list(tmp_path.iterdir())


def test_another_rank_takes_part_and_writes_nothing(tmp_path):
    own = kept(None)
    own.save("model_best.pth", is_whole=True)
    assert own.run.asked == [True]


@pytest.mark.parametrize(
    ("minutes", "saved"), [(2, [120, 240]), (0, []), (0.5, list(range(30, 250, 30))), (0.01, list(range(10, 250, 10)))]
)
def test_a_state_is_saved_as_often_as_asked(tmp_path, monkeypatch, minutes, saved):
    now = [0]
    monkeypatch.setattr(keeper, "time", SimpleNamespace(monotonic=lambda: now[0]))
    own, found = kept(tmp_path, minutes), []
    for now[0] in range(0, 250, 10):
        before = len(own.run.asked)
        own.after_step()
        found += [now[0]] * (len(own.run.asked) - before)
    assert found == saved and not any(own.run.asked)


def test_a_whole_epoch_is_saved_and_starts_the_clock(tmp_path, monkeypatch):
    now = [0]
    monkeypatch.setattr(keeper, "time", SimpleNamespace(monotonic=lambda: now[0]))
    own = kept(tmp_path, 1)
    now[0] = 50
    own.after_epoch("model_best.pth", is_last=False)
    now[0] = 109
    own.after_step()
    assert own.run.asked == [True] and (tmp_path / "model_best.pth").exists()
    now[0] = 110
    own.after_step()
    assert own.run.asked == [True, False]


def test_a_request_to_save_is_granted_once(tmp_path, capsys):
    requests = Requests()
    own, requests.save = kept(tmp_path, requests=requests), True
    own.after_step()
    own.after_step()
    assert own.run.asked == [False] and not requests.save
    assert capsys.readouterr().out == f"saved {tmp_path / 'model_last.pth'} in epoch 3 after step 7\n"
    requests.save, own.folder = True, None
    own.after_step()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_request_to_stop_is_granted_when_the_state_is_saved(tmp_path, stop):
    requests, waited = Requests("; go on"), []
    own, requests.stop = kept(tmp_path, requests=requests, world=Waiting(waited)), stop
    with pytest.raises(Stopped, match="^stopped in epoch 3 after step 7; go on$") as ended:
        own.after_step()
    assert ended.value.number == stop and own.run.asked == [False] and waited == [1]
    with pytest.raises(Stopped, match="^stopped after epoch 3; go on$") as ended:
        own.after_epoch(is_last=False)
    assert ended.value.number == stop and own.run.asked == [False, True] and waited == [1, 1]
    requests.stop = stop
    own.after_epoch(is_last=True)
    assert own.run.asked == [False, True, True] and waited == [1, 1] and not requests.stop


class Waiting(World):
    """A World that notes when it waits for all ranks for the last time."""

    def __new__(cls, waited: list):
        world = super().__new__(cls)
        world.waited = waited
        return world

    def final_barrier(self):
        self.waited.append(1)


def test_what_one_rank_is_asked_for_all_do(tmp_path):
    class Told(World):
        def largest(self, *values):
            return (signal.SIGTERM, *values[1:])

    own = kept(tmp_path, world=Told())
    with pytest.raises(Stopped) as ended:
        own.after_step()
    assert ended.value.number == signal.SIGTERM and own.run.asked == [False]


class Signalled(World):
    """A World in which a signal comes while the ranks compare what was asked of them."""

    def __new__(cls, requests: Requests, **asked):
        world = super().__new__(cls)
        world.requests, world.asked = requests, asked
        return world

    def largest(self, *values):
        for name, value in self.asked.items():
            setattr(self.requests, name, value)
        self.asked.clear()
        return values


def test_a_request_that_comes_while_the_ranks_compare_theirs_waits_for_the_next_step(tmp_path):
    requests = Requests()
    own = kept(tmp_path, requests=requests, world=Signalled(requests, stop=signal.SIGINT))
    own.after_epoch()
    assert requests.stop == signal.SIGINT
    with pytest.raises(Stopped, match="^stopped in epoch 3 after step 7$"):
        own.after_step()
    own = kept(tmp_path, requests=requests, world=Signalled(requests, stop=signal.SIGINT))
    own.after_epoch(is_last=True)
    assert not requests.stop


def test_a_request_to_save_that_comes_while_a_state_is_saved_is_granted_too(tmp_path):
    requests = Requests()
    own, requests.save = kept(tmp_path, requests=requests), True
    own.before = lambda: setattr(requests, "save", len(own.run.asked) < 1)
    own.after_step()
    assert requests.save
    own.after_step()
    own.after_step()
    assert own.run.asked == [False, False]
