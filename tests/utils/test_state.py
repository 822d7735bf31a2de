"""The state of a run: what is saved of it, by one rank and by several, and what is loaded again."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from utils.errors import UsageError
from utils.precision import Precision
from utils.results.resume import Saved
from utils.results.state import RunState
from utils.runtime.distributed import World

HERE = {"seed": 1}


class Rank(World):
    """One of two ranks; the other one has what this one has, plus 2."""

    def gather_objects(self, part):
        other = {kind: {name: value + 2 for name, value in tensors.items()} for kind, tensors in part.items()}
        return [part, other] if self.rank == 0 else [other, part]


def make_run(world=World(), steps: int = 5, identity=HERE) -> RunState:  # noqa: B008
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    optimizer = torch.optim.Adam(module.parameters(), 0.1)
    precision = Precision("off", torch.device("cpu"))
    more = {"identity": identity, "describe": lambda: {"told": "more"}, "steps_per_epoch": steps}
    return RunState(module, optimizer, precision, world, **more)


def trained(world=World()) -> RunState:  # noqa: B008
    """In epoch 2 after step 3."""
    torch.manual_seed(0)
    run = make_run(world)
    run.epoch, run.best, run.epochs_since_best = 2, 0.5, 1
    for step in range(3):
        loss = run.module(torch.randn(4, 2)).square().sum()
        run.precision.backward_and_step(loss, run.optimizer)
        run.add_step({"loss": torch.tensor(float(step))})
    return run


def test_a_state_holds_what_tells_the_run_and_what_rebuilds_it():
    content = trained().checkpoint(is_whole=False)
    assert content["identity"] == HERE and content["told"] == "more"
    assert [content[key] for key in ("epoch", "val_loss_min", "not_improved_count")] == [2, 0.5, 1]
    training = content["training"]
    assert (training["step"], training["steps"], training["is_whole"]) == (3, 5, False)
    assert training["sums"]["loss"] == 3 and training["ranks"] == []


@pytest.mark.parametrize(("is_whole", "expected"), [(False, (2, 3)), (True, (3, 0))])
def test_what_is_loaded_is_what_was_saved(is_whole, expected):
    saved, run = trained(), make_run()
    run.load(Saved("x", saved.checkpoint(is_whole=is_whole)))
    assert (run.epoch, run.step) == expected and (run.best, run.epochs_since_best) == (0.5, 1)
    assert run.sums == ({} if is_whole else {"loss": torch.tensor(3.0, dtype=torch.float64)})
    assert all(map(torch.equal, run.module.state_dict().values(), saved.module.state_dict().values()))
    moments = [[part["exp_avg"] for part in one.optimizer.state_dict()["state"].values()] for one in (run, saved)]
    assert moments[0] and all(map(torch.equal, *moments))


def test_an_epoch_whose_steps_are_done_is_evaluated_after_resuming_unless_it_was():
    saved, run, whole = make_run(steps=1), make_run(steps=1), make_run(steps=1)
    saved.add_step({"loss": torch.tensor(1.0)})
    run.load(Saved("x", saved.checkpoint(is_whole=False)))
    assert (run.epoch, run.step, run.sums["loss"]) == (0, 1, 1)
    content = saved.checkpoint(is_whole=True)
    del content["training"]["is_whole"]  # as earlier versions saved it, which saved evaluated epochs alone
    whole.load(Saved("x", content))
    assert (whole.epoch, whole.step, whole.sums) == (1, 0, {})


def test_the_seconds_of_all_processes_are_counted():
    saved, run = trained(), make_run()
    content = saved.checkpoint(is_whole=True)
    assert 0 < content["training"]["seconds"] < 60 and make_run().seconds_before == 0
    content["training"]["seconds"] = 100.0
    run.load(Saved("x", content))
    assert 100 < run.seconds < 160
    del content["training"]["seconds"]
    run.load(Saved("x", content))
    assert 0 < run.seconds < 60


@pytest.mark.parametrize("rank", [0, 1])
def test_ranks_keep_statistics_and_sums_of_their_own(rank):
    """They are each rank's again; weights are those of rank 0, which are those of all."""
    world = Rank(rank, 2)
    saved, run = trained(world), make_run(world)
    before = {name: value.clone() for name, value in saved.module.state_dict().items()}
    content = saved.checkpoint(is_whole=False)
    assert all(map(torch.equal, saved.module.state_dict().values(), before.values()))  # saving changes nothing
    run.load(Saved("x", content))
    assert all(map(torch.equal, run.module.state_dict().values(), before.values()))
    assert run.sums["loss"] == 3
    other = make_run(Rank(1 - rank, 2))
    other.load(Saved("x", content))
    assert other.sums["loss"] == 5
    torch.testing.assert_close(other.module[1].running_mean, before["1.running_mean"] + 2)


def test_another_number_of_ranks_takes_the_means():
    saved, alone = trained(Rank(0, 2)), make_run()
    content = saved.checkpoint(is_whole=False)
    alone.load(Saved("x", content))
    assert alone.sums["loss"] == 4 and content["training"]["sums"]["loss"] == 4
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(alone.module[1], name), getattr(saved.module[1], name) + 1)
    assert torch.equal(alone.module[0].weight, saved.module[0].weight)


def test_a_run_of_other_options_or_steps_is_refused():
    content = trained().checkpoint(is_whole=True)
    with pytest.raises(UsageError, match="^x: --seed 2 here, 1 in the checkpoint; give the flags"):
        make_run(identity={"seed": 2}).load(Saved("x", content))
    with pytest.raises(UsageError, match="^x: was trained with 5 steps an epoch, this run has 6; resume with the data"):
        make_run(steps=6).load(Saved("x", content))


@pytest.mark.parametrize(
    "changed",
    [
        {"training": {}},
        {"training": 3},
        {"epoch": "three"},
        {"val_loss_min": None},
        {"training": {"steps": 5, "step": 1}},
    ],
)
def test_a_damaged_state_is_a_users_error(changed):
    content = trained().checkpoint(is_whole=True) | changed
    with pytest.raises(UsageError, match=r"^x: what it says of the training is damaged \(\w+Error: [^\n]*\)$"):
        make_run().load(Saved("x", content))


def test_weights_that_are_no_numbers_are_not_saved():
    run = trained()
    with torch.no_grad():
        run.module[0].weight[1, 1] = torch.inf
    with pytest.raises(UsageError, match=r"^weights became .* \(0.weight\) in epoch 2, by step 3 of 5; lower -lr, or"):
        run.checkpoint(is_whole=True)


def test_a_checkpoint_without_optimizer_starts_with_a_fresh_one():
    content, run = trained().checkpoint(is_whole=True), make_run()
    del content["training"]
    run.load(Saved("x", content))
    assert (run.epoch, run.step) == (3, 0) and not run.optimizer.state
