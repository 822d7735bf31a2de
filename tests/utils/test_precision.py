"""Mixed precision by default where the hardware computes in it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from utils.precision import Precision, has_bf16


@pytest.mark.parametrize(("capability", "expected"), [((7, 0), False), ((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_emulated_bfloat16_does_not_count(capability, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert has_bf16(torch.device("cuda", 0)) is expected
    assert not has_bf16(torch.device("cpu"))


def clipped(limit: float | None, scale: float = 1.0) -> torch.Tensor:
    """The weights after a step of SGD with rate 1 from 0, whose gradient is (3, 4) times ``scale``, of two groups."""
    weights = [nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    optimizer = torch.optim.SGD([{"params": weights[:1]}, {"params": weights[1:]}], lr=1.0)
    precision = Precision("off", torch.device("cpu"), limit)
    precision.backward_and_step(scale * (3 * weights[0] + 4 * weights[1]).sum(), optimizer)
    assert all(weight.grad is None for weight in weights)
    return torch.cat(weights).detach()


@pytest.mark.parametrize(
    ("limit", "scale", "expected"),
    [(None, 1, (3, 4)), (1, 1, (0.6, 0.8)), (10, 1, (3, 4)), (1, 0.1, (0.3, 0.4)), (2.5, 100, (1.5, 2))],
)
def test_gradients_are_scaled_to_the_norm_of_all_weights_together(limit, scale, expected):
    torch.testing.assert_close(-clipped(limit, scale=scale), torch.tensor(expected).float(), atol=1e-5, rtol=1e-5)


def test_gradients_are_unscaled_before_they_are_clipped():
    """As with fp16 on a GPU, where the loss is multiplied by 65,536."""
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    precision = Precision("off", torch.device("cpu"), 1.0)
    precision.scaler = torch.amp.GradScaler("cpu", init_scale=65536.0)
    precision.backward_and_step((0.5 * weight).sum(), optimizer)
    assert weight.item() == pytest.approx(-0.5)
    precision.backward_and_step((5 * weight).sum(), optimizer)
    assert weight.item() == pytest.approx(-1.5)
