"""Where a run is, when it is finished, and what tells it from another."""

from __future__ import annotations

import math

import pytest
import torch

from pretraining.resume import saved_identity
from utils.results.state import RunState
from utils.runtime.distributed import World


def fresh(start_epoch: int = 0) -> RunState:
    return RunState(
        None, None, None, World(), identity={}, describe=dict, steps_per_epoch=3, start_epoch=start_epoch
    )  # fmt: skip


def test_a_fresh_run_is_at_its_first_step_and_not_finished():
    run = fresh()
    assert (run.epoch, run.step, run.steps_done, run.best, run.epochs_since_best) == (0, 0, 0, math.inf, 0)
    assert not run.is_finished(epochs=1, patience=1) and fresh(2).steps_done == 6


def test_steps_are_counted_over_the_run_and_their_figures_summed_over_the_epoch():
    run = fresh(1)
    for loss in (1.0, 2.0):
        run.add_step({"loss": torch.tensor(loss), "top1": torch.tensor(0.5)})
    assert run.steps_done == 5 and run.step == 2
    assert {name: total.item() for name, total in run.sums.items()} == {"loss": 3.0, "top1": 1.0}
    assert run.sums["loss"].dtype == torch.float64
    run.begin_epoch()
    assert (run.epoch, run.step, run.steps_done, run.sums) == (2, 0, 6, {})


def test_only_a_lower_held_out_loss_is_better():
    run, better = fresh(), []
    for loss in (3.0, 2.0, 2.0, 4.0, 1.0):
        better.append((run.end_epoch(loss), run.best, run.epochs_since_best))
    assert better == [(True, 3, 0), (True, 2, 0), (False, 2, 1), (False, 2, 2), (True, 1, 0)]


@pytest.mark.parametrize(
    ("epoch", "since_best", "finished"), [(4, 0, False), (5, 0, True), (1, 2, False), (1, 3, True)]
)
def test_a_run_is_finished_after_its_epochs_or_its_patience(epoch, since_best, finished):
    run = fresh(epoch)
    run.epochs_since_best = since_best
    assert run.is_finished(epochs=5, patience=3) is finished
    assert run.is_finished(epochs=5, patience=None) is (epoch == 5)
    assert run.is_last(epochs=5, patience=3) is (finished or epoch == 4)
    assert run.is_last(epochs=5, patience=None) is (epoch >= 4)


def test_a_published_checkpoint_says_nothing_of_its_run():
    assert saved_identity({"model_state": {}}) == {}
