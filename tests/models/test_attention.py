"""Attention with dropout on a CPU: exact under given decisions, and decisions as dropout wants them."""

from __future__ import annotations

import math
from unittest.mock import Mock

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models import attention as module
from models.attention import DroppedAttention, EncoderLayer, attention
from models.dropout import ROW, Dropout, dropout, keep_mask

P = 0.2
SHAPE = (5, 3, 11, 8)  # series, heads, observations, width of a head
MASKS = {"all": None, "padded": torch.arange(11) >= torch.tensor([[11], [7], [3], [1], [10]])}


def projections(dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    torch.manual_seed(0)
    packed = torch.randn(5, 11, 3, 3, 8, dtype=dtype).permute(2, 0, 3, 1, 4)  # strided as in the encoder layer
    return [part.detach().requires_grad_() for part in packed]


def reference(q, k, v, mask, keep):
    bias = torch.zeros(1, dtype=q.dtype) if mask is None else torch.zeros(mask.shape).masked_fill(mask, -math.inf)
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    scores = scores + bias[:, None, None] if mask is not None else scores
    return (scores.softmax(-1) * keep / (1 - P)) @ v


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("stored", [0, module.STORED])
@pytest.mark.parametrize("chunk", [1, 800, 1 << 19])  # one series at a time, two and a rest, all at once
def test_values_and_gradients_under_given_decisions(mask, chunk, stored, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", chunk)
    monkeypatch.setattr(module, "STORED", stored)
    inputs = projections()
    before = [part.detach().clone() for part in inputs]
    keep = keep_mask((5, 3, 11, 11), P)
    ours, theirs = DroppedAttention.apply(*inputs, mask, keep, P), reference(*inputs, mask, keep)
    torch.testing.assert_close(ours, theirs)
    upstream = torch.randn_like(ours)
    for mine, plain in zip(
        torch.autograd.grad(ours, inputs, upstream), torch.autograd.grad(theirs, inputs, upstream), strict=True
    ):
        torch.testing.assert_close(mine, plain)
    for part, copy in zip(inputs, before, strict=True):
        assert torch.equal(part, copy)


@pytest.mark.parametrize(("stored", "times"), [(5 * 3 * 11 * 11, 1), (5 * 3 * 11 * 11 - 1, 2)])
def test_the_weights_of_a_small_batch_are_computed_once(stored, times, monkeypatch):
    """Its values and gradients are those of a large one, to the bit."""
    inputs, keep = projections(torch.float32), keep_mask((5, 3, 11, 11), P)
    out = DroppedAttention.apply(*inputs, MASKS["padded"], keep, P)
    expected = out, *torch.autograd.grad(out.square().sum(), inputs)
    monkeypatch.setattr(module, "STORED", stored)
    monkeypatch.setattr(module, "attention_weights", weights := Mock(wraps=module.attention_weights))
    out = DroppedAttention.apply(*inputs, MASKS["padded"], keep, P)
    found = out, *torch.autograd.grad(out.square().sum(), inputs)
    assert weights.call_count == times
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_gradcheck():
    keep = keep_mask((5, 3, 11, 11), P)
    assert torch.autograd.gradcheck(lambda *qkv: DroppedAttention.apply(*qkv, MASKS["padded"], keep, P), projections())


def test_contiguous_inputs_are_not_changed():
    q, k, v = (torch.randn(SHAPE) for _ in range(3))
    copies = q.clone(), k.clone(), v.clone()
    attention(q, k, v, None, P, training=True)
    assert all(torch.equal(*pair) for pair in zip((q, k, v), copies, strict=True))


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_without_dropout_it_is_scaled_dot_product_attention(mask):
    q, k, v = projections(torch.float32)
    takes_part = None if mask is None else ~mask[:, None, None, :]
    plain = F.scaled_dot_product_attention(q, k, v, attn_mask=takes_part)
    assert torch.equal(attention(q, k, v, mask, P, training=False), plain)
    assert torch.equal(attention(q, k, v, mask, 0.0, training=True), plain)
    keep = torch.ones(5, 3, 11, 11, dtype=torch.bool)
    torch.testing.assert_close(DroppedAttention.apply(q, k, v, mask, keep, 0.0), plain)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize(("chunk", "parts"), [(1, 5), (800, 3), (1 << 19, 1)])
def test_in_evaluation_it_goes_by_chunks(mask, chunk, parts, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", chunk)
    monkeypatch.setattr(module, "attention_weights", weights := Mock(wraps=module.attention_weights))
    q, k, v = projections(torch.float32)
    copies = [part.clone() for part in (q, k, v)]
    with torch.no_grad():
        found = attention(q, k, v, mask, P, training=False)
    torch.testing.assert_close(found, attention(q, k, v, mask, P, training=False))
    assert weights.call_count == parts
    assert all(torch.equal(*pair) for pair in zip((q, k, v), copies, strict=True))


def test_under_autocast_it_computes_in_float32():
    layer = EncoderLayer(32, 4, 64, dropout=P)
    x = torch.randn(6, 12, 32)
    outputs = []
    for amp in (False, True):
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            outputs.append(layer(x).float())
        outputs[-1].square().sum().backward()
    torch.testing.assert_close(*outputs, atol=0.1, rtol=0.1)


# ---- decisions


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5, 0.7])
def test_rate_of_dropout(p):
    torch.manual_seed(0)
    count = 4_000_001
    kept = keep_mask((count,), p).double().mean().item()
    assert abs(kept - (1 - p)) < 4 * math.sqrt(p * (1 - p) / count)


def test_rate_is_exact_though_bytes_are_not():
    """Places of a row round 256 p up or down, which averages to p over calls."""
    torch.manual_seed(0)
    p = 0.25 / 256  # of four places, three never drop
    rates = torch.stack([(~keep_mask((4096,), p)).double().mean() for _ in range(3000)])
    count = 3000 * 4096
    assert abs(rates.mean().item() - p) < 4 * math.sqrt(p / count)


def test_neighbours_are_independent():
    torch.manual_seed(0)
    dropped = (~keep_mask((1000, 16, 70), P)).double() - P
    count = dropped.numel()
    flat = dropped.flatten()
    for lag in (1, 2, 3, 4, 8, 70, ROW - 1):
        correlation = (flat[lag:] * flat[:-lag]).mean().item() / (P * (1 - P))
        assert abs(correlation) < 4 / math.sqrt(count - lag)


def test_decisions_follow_the_seed():
    torch.manual_seed(3)
    first, second = keep_mask((40, 50), P), keep_mask((40, 50), P)
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(keep_mask((40, 50), P), first)


def test_dropout_scales_what_it_keeps():
    torch.manual_seed(0)
    x = torch.ones(300, 70, 8, requires_grad=True)
    y = Dropout(P)(x)
    assert sorted(set(y.flatten().tolist())) == [0.0, 1.25]
    assert y.mean().item() == pytest.approx(1, abs=4 * 0.5 / math.sqrt(x.numel()))
    y.sum().backward()
    assert torch.equal(x.grad, y)
    assert dropout(x, P, training=False) is x or torch.equal(dropout(x, P, training=False), x)
    assert torch.equal(dropout(x, 0.0, training=True), x)
    assert dropout(x, 1.0, training=True).abs().sum() == 0
    assert isinstance(Dropout(P), nn.Dropout)
