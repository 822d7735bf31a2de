"""Supervised contrast: its loss against a plain loop, and where its gradients flow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from models import build_model
from pretraining import supcon as module
from pretraining.supcon import SupCon, supervised_contrast
from tests.support.pretexts import OFF, WORLD, input_of, random_series

LABELS = torch.tensor([2, 0, 2, 1, 0, 2])


def plain_loss(views: np.ndarray, labels: np.ndarray, temperature: float) -> tuple[float, float]:
    """Equation 2 of Khosla et al., term by term."""
    losses, hits = [], 0
    for i in range(len(views)):
        others = [a for a in range(len(views)) if a != i]
        similarity = {a: views[i] @ views[a] / temperature for a in others}
        total = sum(np.exp(similarity[a]) for a in others)
        positives = [p for p in others if labels[p] == labels[i]]
        losses.append(-sum(np.log(np.exp(similarity[p]) / total) for p in positives) / len(positives))
        hits += labels[max(others, key=similarity.get)] == labels[i]
    return float(np.mean(losses)), hits / len(views)


@given(
    labels=st.lists(st.integers(0, 2), min_size=2, max_size=8), seed=st.integers(0, 999), temperature=st.floats(0.05, 2)
)
@settings(max_examples=30, deadline=None)
def test_the_loss_is_that_of_a_plain_loop(labels, seed, temperature):
    labels = np.tile(labels, 2)
    views = np.random.default_rng(seed).normal(0, 1, (len(labels), 4))
    views /= np.linalg.norm(views, axis=1, keepdims=True)
    loss, top1 = supervised_contrast(torch.from_numpy(views), torch.from_numpy(labels), temperature)
    expected, hits = plain_loss(views, labels, temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-6) and top1.item() == pytest.approx(hits)


def test_the_loss_is_in_float32_also_under_autocast():
    views = F.normalize(torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    labels = torch.tensor([0, 1, 1, 2, 0, 1, 1, 2])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = supervised_contrast(views, labels, 0.1)[0]
    assert loss.item() == pytest.approx(plain_loss(views.double().numpy(), labels.numpy(), 0.1)[0], rel=1e-5)


def test_classes_that_are_apart_are_found():
    views = torch.eye(3)[[0, 1, 2, 0, 1, 2]]
    loss, top1 = supervised_contrast(views, torch.tensor([0, 1, 2, 0, 1, 2]), 0.1)
    assert top1.item() == 1 and loss.item() == pytest.approx(np.log(1 + 4 * np.exp(-10)), rel=1e-2)
    loss, top1 = supervised_contrast(views, torch.tensor([0, 1, 2, 1, 2, 0]), 0.1)
    assert top1.item() == 0 and loss.item() == pytest.approx(10, rel=1e-3)


def pretext(**options) -> SupCon:
    torch.manual_seed(0)
    encoder = build_model("transformer", sequencelength=12, use_doy=True, init="torch", dropout=0.0)
    return SupCon(encoder, lambda series, generator: (series.values, series.doy), **options)


def test_the_loss_compares_projections_of_length_one():
    supcon, views = pretext(dim=8, T=0.5), (input_of(6, 1), input_of(6, 2))
    output = supcon(*views, LABELS)
    projected = torch.cat([F.normalize(supcon.encoder_q(view), dim=1) for view in views])
    expected = supervised_contrast(projected, torch.cat((LABELS, LABELS)), 0.5)
    assert output.loss.item() == pytest.approx(expected[0].item(), rel=1e-5)
    assert output.figures == {"top1": expected[1]}
    assert supcon.project(views[0]).norm(dim=1).tolist() == pytest.approx([1] * 6)
    assert supcon.encoder_q.decoder[-1].out_features == 8
    assert supcon(*views, torch.arange(6)).loss.item() != pytest.approx(expected[0].item(), rel=0.01)


def test_its_views_are_two_and_the_labels():
    series = random_series([12, 9])._replace(labels=LABELS[:2])
    assert pretext().views(series, torch.Generator()) == (series.values, series.doy, series.labels)


def test_both_views_and_all_parameters_have_gradients():
    views = torch.randn(4, 3, requires_grad=True)
    supervised_contrast(F.normalize(views, dim=1), torch.tensor([0, 1, 0, 1]), 0.1)[0].backward()
    assert (views.grad.abs().sum(1) > 0).all()
    supcon = pretext()
    supcon(input_of(6, 1), input_of(6, 2), LABELS).loss.backward()
    assert all(parameter.grad is not None for parameter in supcon.parameters())


def test_evaluation_is_the_mean_over_groups_and_changes_nothing(monkeypatch):
    """Of 5 and 3 series: groups of 6 and 2."""
    monkeypatch.setattr(module, "GROUP", 6)
    supcon = pretext(T=0.2).eval()
    state = {name: tensor.clone() for name, tensor in supcon.state_dict().items()}
    labels = torch.tensor([0, 1, 0, 1, 2, 2, 1, 1])
    sizes = ((5, labels[:5]), (3, labels[5:]))
    batches = [(input_of(count, i), input_of(count, i + 50), own) for i, (count, own) in enumerate(sizes)]
    found = supcon.evaluate(iter(batches), OFF, WORLD)
    with torch.no_grad():
        first, second = (torch.cat([supcon.project(batch[i]) for batch in batches]) for i in (0, 1))
    parts = [
        plain_loss(torch.cat((first[part], second[part])).double().numpy(), labels[part].repeat(2).numpy(), 0.2)
        for part in (slice(0, 6), slice(6, 8))
    ]
    expected = [(6 * one + 2 * other) / 8 for one, other in zip(*parts, strict=True)]
    assert found == {"loss": pytest.approx(expected[0], rel=1e-5), "top1": pytest.approx(expected[1])}
    assert all(torch.equal(tensor, state[name]) for name, tensor in supcon.state_dict().items())


def test_its_settings_are_its_identity():
    assert pretext(dim=16, T=0.3).identity() == {"dim": 16, "T": 0.3}
