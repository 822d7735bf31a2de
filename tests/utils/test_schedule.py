"""The learning rate over training."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from utils.schedule import Schedule, applied_rate

STEPS = 5  # an epoch


def factors(epochs: int = 10, **options) -> list[float]:
    """Of every step of a run."""
    return [factor(step, epochs, **options) for step in range(STEPS * epochs)]


def factor(step: int, epochs: int = 10, **options) -> float:
    return Schedule(1.0, STEPS, epochs, **options).factor(step)


def test_constant_unless_told_otherwise():
    assert factors() == [1.0] * 50


def test_a_tenth_at_each_epoch_of_the_schedule():
    expected = [1.0] * 20 + [0.1] * 15 + [0.01] * 15
    assert factors(milestones=[4, 7]) == pytest.approx(expected)
    assert factors(milestones=[7, 4]) == pytest.approx(expected)
    assert factors(milestones=[0]) == pytest.approx([0.1] * 50)
    assert factors(milestones=[10]) == [1.0] * 50


def test_half_a_cosine():
    for step, found in enumerate(factors(cosine=True)):
        assert found == pytest.approx(0.5 * (1 + math.cos(math.pi * step / 50)))
    assert factor(50, cosine=True) == pytest.approx(0)
    assert factor(80, cosine=True) == pytest.approx(0)  # does not rise again past the end


def test_warmup_is_linear_and_reaches_the_whole_rate_after_it():
    warm = factors(warmup_epochs=2)
    assert warm[:11] == pytest.approx([(step + 1) / 11 for step in range(11)])
    assert warm[10:] == [1.0] * 40


def test_warmup_of_part_of_an_epoch():
    warm = factors(warmup_epochs=0.5)
    assert warm[:4] == pytest.approx([1 / 3.5, 2 / 3.5, 3 / 3.5, 1.0]) and set(warm[3:]) == {1.0}


def test_cosine_after_warmup_ends_at_zero_too():
    run = factors(warmup_epochs=2, cosine=True)
    assert run[10] == 1 and max(run) == 1
    assert run[30] == pytest.approx(0.5)  # half-way between the end of the warm-up and the end
    assert factor(50, warmup_epochs=2, cosine=True) == pytest.approx(0)


@given(
    steps=st.integers(1, 30),
    epochs=st.integers(1, 20),
    warmup=st.floats(0, 5),
    schedule=st.lists(st.integers(0, 20), max_size=3),
    cosine=st.booleans(),
)
def test_the_rate_rises_through_the_warmup_and_never_after_it(steps, epochs, warmup, schedule, cosine):
    rates = Schedule(1.0, steps, epochs, warmup, schedule, cosine)
    run = [rates.rate(step) for step in range(steps * epochs)]
    rising = sum(step / steps < warmup for step in range(steps * epochs))
    assert all(0 <= factor <= 1 for factor in run)
    assert all(run[i] < run[i + 1] for i in range(rising - 1))
    assert all(run[i] >= run[i + 1] for i in range(rising, len(run) - 1))


def test_the_schedule_sets_the_rate_of_every_group():
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": [weights[0]], "lr": 0.5}, {"params": [weights[1]]}], lr=0.1)
    schedule = Schedule(0.2, STEPS, 10, warmup_epochs=1, milestones=[3])
    for step in (0, 4, 20):
        schedule.apply(optimizer, step)
        assert [group["lr"] for group in optimizer.param_groups] == [schedule.rate(step)] * 2
        assert applied_rate(optimizer) == pytest.approx(0.2 * schedule.factor(step))
    assert applied_rate(optimizer) == pytest.approx(0.02)
