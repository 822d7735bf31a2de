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


def test_sums_over_the_queue_are_float32_for_bf16_queries():
    """In bfloat16 a sum stops growing at 256 times its terms; here 5000 equal keys are summed, in several chunks."""
    queries, queue = torch.zeros(2, 4, dtype=torch.bfloat16), torch.ones(4, 5000, dtype=torch.bfloat16)
    total, largest = QueueLogSumExp.apply(queries.requires_grad_(), queue)
    assert total.dtype == largest.dtype == torch.float32
    torch.testing.assert_close(total, torch.full((2, 1), 5000.0).log())
    (gradient,) = torch.autograd.grad(total.sum(), queries)
    torch.testing.assert_close(gradient, torch.ones(2, 4, dtype=torch.bfloat16), atol=0.01, rtol=0)
