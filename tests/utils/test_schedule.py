"""The learning rate over training."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from utils.schedule import make_scheduler, rate_factor

STEPS = 5  # an epoch


def factors(epochs: int = 10, **options) -> list[float]:
    """Of every step of a run."""
    return [rate_factor(step, STEPS, epochs, **options) for step in range(STEPS * epochs)]


def test_constant_unless_told_otherwise():
    assert factors() == [1.0] * 50


def test_a_tenth_at_each_epoch_of_the_schedule():
    expected = [1.0] * 20 + [0.1] * 15 + [0.01] * 15
    assert factors(schedule=[4, 7]) == pytest.approx(expected)
    assert factors(schedule=[7, 4]) == pytest.approx(expected)
    assert factors(schedule=[0]) == pytest.approx([0.1] * 50)
    assert factors(schedule=[10]) == [1.0] * 50


def test_half_a_cosine():
    for step, factor in enumerate(factors(cosine=True)):
        assert factor == pytest.approx(0.5 * (1 + math.cos(math.pi * step / 50)))
    assert rate_factor(50, STEPS, 10, cosine=True) == pytest.approx(0)
    assert rate_factor(80, STEPS, 10, cosine=True) == pytest.approx(0)  # does not rise again past the end


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
    assert rate_factor(50, STEPS, 10, warmup_epochs=2, cosine=True) == pytest.approx(0)


@given(
    steps=st.integers(1, 30),
    epochs=st.integers(1, 20),
    warmup=st.floats(0, 5),
    schedule=st.lists(st.integers(0, 20), max_size=3),
    cosine=st.booleans(),
)
def test_the_rate_rises_through_the_warmup_and_never_after_it(steps, epochs, warmup, schedule, cosine):
    run = [
        rate_factor(step, steps, epochs, warmup_epochs=warmup, schedule=schedule, cosine=cosine)
        for step in range(steps * epochs)
    ]
    rising = sum(step / steps < warmup for step in range(steps * epochs))
    assert all(0 <= factor <= 1 for factor in run)
    assert all(run[i] < run[i + 1] for i in range(rising - 1))
    assert all(run[i] >= run[i + 1] for i in range(rising, len(run) - 1))


def test_the_scheduler_scales_every_groups_own_rate():
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": [weights[0]], "lr": 0.5}, {"params": [weights[1]]}], lr=0.1)
    scheduler = make_scheduler(optimizer, STEPS, 10, warmup_epochs=1, schedule=[3])
    rates = []
    for _ in range(50):
        rates.append(scheduler.get_last_lr())
        optimizer.step()
        scheduler.step()
    expected = factors(warmup_epochs=1, schedule=[3])
    assert [rate[0] for rate in rates] == pytest.approx([0.5 * factor for factor in expected])
    assert [rate[1] for rate in rates] == pytest.approx([0.1 * factor for factor in expected])


def test_the_scheduler_goes_on_from_its_state():
    def scheduler_of():
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        return optimizer, make_scheduler(optimizer, STEPS, 10, cosine=True)

    optimizer, first = scheduler_of()
    for _ in range(17):
        optimizer.step()
        first.step()
    other, second = scheduler_of()
    other.load_state_dict(optimizer.state_dict())
    second.load_state_dict(first.state_dict())
    other.step()
    second.step()
    assert other.param_groups[0]["lr"] == pytest.approx(rate_factor(18, STEPS, 10, cosine=True))
