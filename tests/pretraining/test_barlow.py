"""Barlow Twins: its loss against NumPy, and where its gradients flow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models import build_model
from models.layers import BatchNorm
from pretraining.barlow import BarlowTwins, redundancy
from tests.support.pretexts import OFF, WORLD, input_of


def plain_loss(first: np.ndarray, second: np.ndarray, weight: float) -> tuple[float, float]:
    first, second = ((part - part.mean(0)) / np.sqrt(part.var(0) + 1e-5) for part in (first, second))
    count, dim = first.shape
    loss, diagonal = 0.0, []
    for i in range(dim):
        for j in range(dim):
            correlation = sum(first[n, i] * second[n, j] for n in range(count)) / count
            loss += (1 - correlation) ** 2 if i == j else weight * correlation**2
            diagonal += [correlation] if i == j else []
    return loss, float(np.mean(diagonal))


@given(count=st.integers(2, 9), dim=st.integers(1, 5), seed=st.integers(0, 999), weight=st.floats(0.001, 1))
@settings(max_examples=30, deadline=None)
def test_the_loss_is_that_of_a_plain_loop(count, dim, seed, weight):
    first, second = np.random.default_rng(seed).normal(1, 2, (2, count, dim))
    loss, agreement = redundancy(torch.from_numpy(first), torch.from_numpy(second), weight)
    expected = plain_loss(first, second, weight)
    assert (loss.item(), agreement.item()) == (pytest.approx(expected[0]), pytest.approx(expected[1]))


def test_the_loss_is_in_float32_also_under_autocast():
    first, second = np.random.default_rng(0).normal(1, 2, (2, 9, 5)).astype(np.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, agreement = redundancy(torch.from_numpy(first), torch.from_numpy(second), 0.1)
    expected = plain_loss(first, second, 0.1)
    assert (loss.item(), agreement.item()) == (pytest.approx(expected[0], 1e-4), pytest.approx(expected[1], 1e-4))


def test_equal_views_without_redundancy_have_no_loss():
    """A Hadamard matrix: its columns are uncorrelated."""
    views = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    loss, agreement = redundancy(views, views, 1.0)
    assert loss.item() == pytest.approx(0, abs=1e-6) and agreement.item() == pytest.approx(1, abs=1e-4)
    loss, agreement = redundancy(views, -views, 1.0)
    assert loss.item() == pytest.approx(12, rel=1e-3) and agreement.item() == pytest.approx(-1, abs=1e-4)


def pretext(**options) -> BarlowTwins:
    torch.manual_seed(0)
    encoder = build_model("transformer", sequencelength=12, use_doy=True, init="torch", dropout=0.0)
    return BarlowTwins(encoder, None, **options)


def test_the_loss_is_of_the_projections_of_both_views():
    barlow, views = pretext(dim=8, weight=0.1), (input_of(6, 1), input_of(6, 2))
    output = barlow(*views)
    expected = redundancy(*(barlow.encoder_q(view) for view in views), 0.1)
    assert output.loss.item() == pytest.approx(expected[0].item(), rel=1e-4)
    assert output.figures["agreement"].item() == pytest.approx(expected[1].item(), rel=1e-4)


def test_both_views_and_all_parameters_have_gradients():
    first, second = (torch.randn(4, 3, requires_grad=True) for _ in range(2))
    redundancy(first, second, 0.1)[0].backward()
    assert first.grad.abs().sum() > 0 and second.grad.abs().sum() > 0
    barlow = pretext(dim=8)
    barlow(input_of(6, 1), input_of(6, 2)).loss.backward()
    assert all(parameter.grad is not None for parameter in barlow.parameters())


def test_the_projector_has_three_layers_without_bias():
    layers = list(pretext(dim=8).encoder_q.decoder)
    kinds = [torch.nn.Linear, BatchNorm, torch.nn.ReLU] * 2 + [torch.nn.Linear]
    assert [type(layer) for layer in layers] == kinds
    assert [tuple(layer.weight.shape) for layer in layers[::3]] == [(8, 128), (8, 8), (8, 8)]
    assert all(layer.bias is None for layer in layers[::3])


def test_evaluation_is_of_all_held_out_series_and_changes_nothing():
    barlow = pretext(dim=8, weight=0.2).eval()
    state = {name: tensor.clone() for name, tensor in barlow.state_dict().items()}
    pairs = [(input_of(count, seed), input_of(count, seed + 50)) for seed, count in enumerate((5, 3))]
    found = barlow.evaluate(iter(pairs), OFF, WORLD)
    with torch.no_grad():
        first, second = (torch.cat([barlow.encoder_q(pair[i]) for pair in pairs]) for i in (0, 1))
    loss, agreement = redundancy(first, second, 0.2)
    assert found == {"loss": pytest.approx(loss.item()), "agreement": pytest.approx(agreement.item())}
    assert all(torch.equal(tensor, state[name]) for name, tensor in barlow.state_dict().items())


def test_its_settings_are_its_identity():
    assert pretext(dim=16, weight=0.3).identity() == {"dim": 16, "weight": 0.3}
