"""SimCLR: its loss against a plain loop, and where its gradients flow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from models import build_model
from pretraining.simclr import SimCLR, nt_xent
from tests.support.pretexts import OFF, WORLD, input_of


def plain_loss(first: np.ndarray, second: np.ndarray, temperature: float) -> tuple[float, float]:
    both, count = np.concatenate((first, second)).astype(np.float64), len(first)
    losses, hits = [], 0
    for i in range(2 * count):
        partner = (i + count) % (2 * count)
        others = [j for j in range(2 * count) if j != i]
        logits = {j: both[i] @ both[j] / temperature for j in others}
        losses.append(np.log(sum(np.exp(logits[j]) for j in others)) - logits[partner])
        hits += max(logits, key=logits.get) == partner
    return float(np.mean(losses)), hits / (2 * count)


@given(count=st.integers(2, 9), dim=st.integers(2, 6), seed=st.integers(0, 999), temperature=st.floats(0.05, 2))
@settings(max_examples=30, deadline=None)
def test_the_loss_is_that_of_a_plain_loop(count, dim, seed, temperature):
    generator = torch.Generator().manual_seed(seed)
    first, second = (F.normalize(torch.randn(count, dim, generator=generator), dim=1) for _ in range(2))
    loss, top1 = nt_xent(first, second, temperature)
    expected, hits = plain_loss(first.numpy(), second.numpy(), temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-4, abs=1e-4) and top1.item() == pytest.approx(hits)


def test_equal_views_of_different_series_are_found():
    projections = F.normalize(torch.eye(4), dim=1)
    loss, top1 = nt_xent(projections, projections, 0.1)
    assert top1.item() == 1 and loss.item() == pytest.approx(np.log(1 + 6 * np.exp(-10)), rel=1e-2)


def pretext(**options) -> SimCLR:
    torch.manual_seed(0)
    encoder = build_model("transformer", sequencelength=12, use_doy=True, init="torch", dropout=0.0)
    return SimCLR(encoder, None, **options)


def test_the_loss_compares_projections_of_length_one():
    simclr, views = pretext(dim=8, T=0.5), (input_of(6, 1), input_of(6, 2))
    output = simclr(*views)
    expected = nt_xent(*(F.normalize(simclr.encoder_q(view), dim=1) for view in views), 0.5)
    assert output.loss.item() == pytest.approx(expected[0].item(), rel=1e-5)
    assert output.figures["top1"] == expected[1]
    assert simclr.project(views[0]).norm(dim=1).tolist() == pytest.approx([1] * 6)
    assert simclr.encoder_q.decoder[-1].out_features == 8


def test_both_views_have_gradients():
    first, second = (torch.randn(4, 3, requires_grad=True) for _ in range(2))
    nt_xent(F.normalize(first, dim=1), F.normalize(second, dim=1), 0.1)[0].backward()
    assert first.grad.abs().sum() > 0 and second.grad.abs().sum() > 0
    simclr = pretext()
    simclr(input_of(6, 1), input_of(6, 2)).loss.backward()
    assert all(parameter.grad is not None for parameter in simclr.parameters())


def test_evaluation_finds_each_second_view_among_the_others_and_changes_nothing():
    simclr = pretext(T=0.2).eval()
    state = {name: tensor.clone() for name, tensor in simclr.state_dict().items()}
    pairs = [(input_of(count, seed), input_of(count, seed + 50)) for seed, count in enumerate((5, 3))]
    found = simclr.evaluate(iter(pairs), OFF, WORLD)
    with torch.no_grad():
        first, second = (torch.cat([simclr.project(pair[i]) for pair in pairs]) for i in (0, 1))
    logits = first @ second.T / 0.2
    assert found["loss"] == pytest.approx(F.cross_entropy(logits, torch.arange(8)).item(), rel=1e-5)
    assert found["top1"] == pytest.approx((logits.argmax(1) == torch.arange(8)).float().mean().item())
    assert all(torch.equal(tensor, state[name]) for name, tensor in simclr.state_dict().items())


def test_its_settings_are_its_identity():
    assert pretext(dim=16, T=0.3).identity() == {"dim": 16, "T": 0.3} and SimCLR.run_name == "SimCLR"
