"""Random numbers drawn beforehand."""

from __future__ import annotations

import torch

from datasets.draws import draw_all, handing_out, normal, plan, uniform
from tests.support.series import seeded

CPU = torch.device("cpu")


def transform(source) -> list[torch.Tensor]:
    return [uniform((3,), CPU, source), normal((2, 4), CPU, source), uniform((0,), CPU, source)]


def test_what_is_drawn_before_is_what_is_drawn_on_the_spot():
    draws = plan(transform)
    assert draws == [(torch.rand, (3,)), (torch.randn, (2, 4)), (torch.rand, (0,))]
    generator, other = seeded(1), seeded(1)
    for _ in range(2):
        before = transform(handing_out(draw_all(draws, CPU, generator)))
        assert all(torch.equal(a, b) for a, b in zip(before, transform(other), strict=True))
    assert torch.equal(generator.get_state(), other.get_state())


def test_planning_leaves_all_generators_alone_on_the_meta_device():
    state = torch.get_rng_state()
    plan(lambda source: uniform((3,), torch.device("meta"), source))
    assert torch.equal(torch.get_rng_state(), state)
