"""Losses that are no numbers: found in their order, at once or as they arrive, and told with their series."""

from __future__ import annotations

import json
import math

import pytest
import torch

from utils.errors import UsageError
from utils.results import losses
from utils.results.losses import LossWatch, bad_batch, check_finite


class Found(Exception):
    """(loss, epoch, step)."""


def raise_found(*told):
    raise Found(*told)


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_on_the_cpu_a_loss_is_looked_at_when_it_is_made(bad):
    watch = LossWatch(raise_found)
    watch.add(torch.tensor(1e30), 0, 1)
    assert not watch.coming
    with pytest.raises(Found) as found:
        watch.add(torch.tensor(bad, requires_grad=True) * 1, 2, 3)
    loss, *where = found.value.args
    assert str(loss) == str(bad) and where == [2, 3]


@pytest.fixture
def arriving(monkeypatch):
    """Losses that arrive from a device when told: how many have, and how many were waited for."""
    state = {"arrived": 0, "made": 0, "waited": []}

    def copy(value):
        state["made"] += 1
        number = state["made"]

        def wait():
            state["waited"].append(number)
            state["arrived"] = max(state["arrived"], number)

        return lambda: number <= state["arrived"], wait, value

    monkeypatch.setattr(losses, "copy_to_host", copy)
    return state


def test_a_loss_on_its_way_from_a_gpu_is_not_waited_for(arriving):
    watch, seen = LossWatch(raise_found), torch.tensor([1.0, 2.0, math.nan, 4.0])
    for step in (1, 2, 3):
        watch.add(seen[step - 1], 0, step)
    assert len(watch.coming) == 3 and not arriving["waited"]
    arriving["arrived"] = 2
    watch.add(seen[3], 0, 4)
    assert len(watch.coming) == 2
    arriving["arrived"] = 3
    with pytest.raises(Found) as found:
        watch.add(seen[0], 0, 5)
    assert found.value.args[1:] == (0, 3) and not arriving["waited"]


def test_before_a_state_is_saved_all_are_waited_for(arriving):
    watch = LossWatch(raise_found)
    for step in (1, 2):
        watch.add(torch.tensor(1.0), 0, step)
    watch.finish()
    assert arriving["waited"] == [1, 2] and not watch.coming
    watch.add(torch.tensor(math.inf), 1, 3)
    with pytest.raises(Found):
        watch.finish()


def test_the_loss_of_an_epoch_is_checked():
    check_finite(1e30, "the validation loss", 3)
    for loss in (math.inf, math.nan):
        with pytest.raises(
            UsageError, match=f"^the validation loss became {loss} in epoch 3; lower -lr, or give --clip"
        ):
            check_finite(loss, "the validation loss", 3)


@pytest.mark.parametrize(("rank", "name"), [(0, "bad_batch.json"), (1, "bad_batch-rank1.json")])
def test_the_series_of_the_batch_are_written(tmp_path, monkeypatch, rank, name):
    monkeypatch.setattr(losses, "rank_and_size", lambda: (rank, 2))
    series = [{"source": "store", "row": 7}]
    with pytest.raises(UsageError) as error:
        bad_batch(lambda epoch, step: series * step, 9, tmp_path, math.nan, 2, 4)
    content = json.loads((tmp_path / name).read_text())
    assert content == {"epoch": 2, "step": 4, "loss": "nan", "series": series * 3}
    start = f"the loss became nan in epoch 2, step 4 of 9; its series are in {tmp_path / name}; lower -lr"
    assert str(error.value).startswith(start)
    (tmp_path / "model_last.pth").touch()
    with pytest.raises(UsageError, match=f"; the last good state is {tmp_path / 'model_last.pth'}; lower -lr, or give"):
        bad_batch(lambda epoch, step: [], 9, tmp_path, math.inf, 2, 4)


def test_a_folder_that_this_machine_does_not_see_is_not_made(tmp_path):
    with pytest.raises(UsageError, match="the loss became inf in epoch 0, step 1 of 9"):
        bad_batch(lambda epoch, step: [], 9, tmp_path / "elsewhere", math.inf, 0, 1)
    assert not (tmp_path / "elsewhere").exists()
