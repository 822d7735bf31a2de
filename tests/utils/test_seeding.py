"""Randomness as a function of where a run is."""

from __future__ import annotations

import random

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from utils.runtime.seeding import RandomStreams, derive_seed, make_generator, seed_everything

parts = st.lists(st.integers(0, 10**6), min_size=1, max_size=4)


def draws(streams: RandomStreams) -> tuple[list, list]:
    """What views and dropout would draw next."""
    return torch.rand(4, generator=streams.augment).tolist(), torch.rand(4).tolist()


@given(parts, parts)
def test_seeds_depend_on_every_part(one, other):
    assert (derive_seed(*one) == derive_seed(*other)) == (one == other)
    assert 0 <= derive_seed(*one) < 2**56


def test_seeds_are_the_same_on_every_machine():
    """Runs are continued elsewhere: no number may depend on Python's own, salted, hash."""
    assert derive_seed(111, "order", 0) == 66983408424379687


def test_a_generator_is_its_parts():
    first = torch.rand(3, generator=make_generator(111, "held-out"))
    assert torch.equal(first, torch.rand(3, generator=make_generator(111, "held-out")))
    assert not torch.equal(first, torch.rand(3, generator=make_generator(112, "held-out")))


def test_everything_is_seeded():
    def sample():
        seed_everything(2**32 + 7)
        return torch.rand(1).item(), np.random.rand(), random.random()

    assert sample() == sample()
    seed_everything(8)
    assert torch.rand(1).item() != sample()[0]


@given(st.integers(0, 500), st.integers(0, 20), st.integers(0, 10**6))
def test_an_order_is_a_permutation_of_its_epoch_and_the_same_on_every_rank(count, epoch, seed):
    order = RandomStreams(seed).order(epoch, count)
    assert sorted(order) == list(range(count))
    np.testing.assert_array_equal(order, RandomStreams(seed, rank=3).order(epoch, count))


def test_orders_differ_between_epochs_and_seeds():
    orders = [RandomStreams(seed).order(epoch, 100).tolist() for seed in (1, 2) for epoch in (0, 1)]
    assert all(orders[i] != orders[j] for i in range(4) for j in range(i))


def test_seeking_a_step_gives_its_numbers_whatever_was_drawn_before():
    streams = RandomStreams(111)
    expected = []
    for step in range(4):
        streams.seek(2, step)
        expected.append(draws(streams))
    torch.rand(17), torch.rand(5, generator=streams.augment)
    fresh = RandomStreams(111)
    for step in (3, 0, 2, 1):
        fresh.seek(2, step)
        assert draws(fresh) == expected[step]
    flat = [number for pair in expected for part in pair for number in part]
    assert len(set(flat)) == len(flat)


def test_steps_epochs_ranks_and_seeds_draw_differently():
    drawn = []
    for seed, rank, epoch, step in ((1, 0, 0, 0), (2, 0, 0, 0), (1, 1, 0, 0), (1, 0, 1, 0), (1, 0, 0, 1)):
        streams = RandomStreams(seed, rank=rank)
        streams.seek(epoch, step)
        drawn.append(draws(streams))
    for part in range(2):
        assert len({tuple(pair[part]) for pair in drawn}) == 5
