"""The log-sum-exp over the queue, in one pass, against the plain formula."""

from __future__ import annotations

import pytest
import torch

from moco import loss as module
from moco.loss import QueueLogSumExp


@pytest.mark.parametrize("chunk", [1, 7, 64, 1024])  # 50 keys: one by one, with a rest, all at once
@pytest.mark.parametrize("temperature", [1.0, 0.07, 0.005])  # exp(1 / 0.005) is no float32
def test_value_and_gradient(chunk, temperature, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", chunk)
    torch.manual_seed(0)
    queries = torch.nn.functional.normalize(torch.randn(9, 16), dim=1).div(temperature).requires_grad_()
    queue = torch.nn.functional.normalize(torch.randn(16, 50), dim=0)
    logits = queries @ queue
    ours, hardest = QueueLogSumExp.apply(queries, queue)
    theirs = logits.logsumexp(1, keepdim=True)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(hardest, logits.detach().amax(1, keepdim=True))
    assert not hardest.requires_grad
    upstream = torch.randn_like(ours)
    (mine,), (plain,) = (torch.autograd.grad(value, queries, upstream) for value in (ours, theirs))
    torch.testing.assert_close(mine, plain)
