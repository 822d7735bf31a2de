"""The inference form: the outputs of the network in evaluation mode, for any input, weights and number of threads."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

from models import build_model, inference
from tests.conftest import SHARED, needs_shared
from tests.models.test_models import make_inputs

LENGTHS = [12, 5, 1, 9, 12, 3, 7, 12]
KINDS = {
    "stnet": ("stnet", False),
    "transformer of days": ("transformer", True),
    "of positions": ("transformer", False),
}


def trained(kind: str) -> nn.Module:
    """A network whose every parameter and running statistic is far from where it starts."""
    name, use_doy = KINDS[kind]
    generator = torch.Generator().manual_seed(5)
    torch.manual_seed(1)
    network = build_model(name, num_classes=7, use_doy=use_doy)
    with torch.no_grad():
        for key, value in network.state_dict().items():
            if value.dtype == torch.float32:
                shift = torch.randn(value.shape, generator=generator) * 0.2
                value.add_(shift.abs() if key.endswith("running_var") else shift)
    return network.eval()


def assert_same(network: nn.Module, inputs: tuple) -> None:
    with torch.no_grad():
        expected, features = network(inputs), network.features(inputs)
        form = network.for_inference()
        network.features = None  # which the form leaves alone
        torch.testing.assert_close(form(inputs), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(form.features(inputs), features, atol=1e-5, rtol=1e-5)
    del network.features


@pytest.fixture
def small_pieces(monkeypatch):
    """Slices of 2 series and attention of 1 at a time, as of a large batch."""
    monkeypatch.setattr(inference, "OBSERVATIONS", 2 * 12)
    monkeypatch.setattr(inference, "WEIGHTS", 16 * 12 * 12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "lengths", [LENGTHS, LENGTHS[:1], [1], [12] * 3], ids=["padded", "one series", "one observation", "equal"]
)
def test_outputs_are_those_of_the_network(kind, lengths):
    assert_same(trained(kind), make_inputs(lengths, length=max(lengths)))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_masked_without_a_mask(kind):
    x, _, doy, weight = make_inputs(LENGTHS)  # padding counts as observations
    assert_same(trained(kind), (x, None, doy, weight))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_batch_in_pieces_is_the_same(kind, threads, small_pieces):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert_same(trained(kind), make_inputs(LENGTHS[:7]))
        assert torch.get_num_threads() == threads
        seen = []
        later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        later.start()
        later.join()
        assert seen == [threads]
    finally:
        torch.set_num_threads(before)


def test_every_part_computes_alone_in_its_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    meeting = threading.Barrier(3, timeout=30)  # broken unless three parts are computed at the same time

    def work(part: tuple) -> tuple[int, int]:
        meeting.wait()
        return part[0], torch.get_num_threads()

    try:
        assert inference.in_threads(work, [(i,) for i in range(6)]) == [(i, 1) for i in range(6)]
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("kind", "factor"), [("stnet", 3), ("of positions", 3)])
def test_scores_too_large_for_the_exponential_change_nothing(kind, factor, small_pieces, monkeypatch):
    network = trained(kind)
    with torch.no_grad():
        network.transformerencoder.layers[0].self_attn.in_proj_weight[:128] *= factor
    inputs = make_inputs(LENGTHS)
    counts = []
    plain = network.features
    monkeypatch.setattr(network, "features", lambda inputs: counts.append(len(inputs[0])) or plain(inputs))
    with torch.no_grad():
        form = network.for_inference()(inputs)
        left = sum(counts)
        assert 0 < left < len(LENGTHS)  # only the series that need it
        torch.testing.assert_close(form, network(inputs), atol=1e-5, rtol=1e-5)


def test_every_layer_is_computed():
    network = trained("stnet")
    first, second = network.transformerencoder.layers[0], trained("of positions").transformerencoder.layers[0]
    with torch.no_grad():
        second.linear1.weight.mul_(-0.5)
    network.transformerencoder.layers = nn.ModuleList([first, second])
    assert_same(network, make_inputs(LENGTHS))


def test_the_form_is_that_of_the_weights_when_it_was_made():
    network, inputs = trained("stnet"), make_inputs(LENGTHS)
    form, before = network.for_inference(), network(inputs).detach()
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    network(inputs).square().mean().backward()
    optimizer.step()
    network.eval()
    assert (network(inputs) - before).abs().max() > 1e-2
    assert_same(network, inputs)
    assert not form.features(inputs).requires_grad


def test_neither_inputs_nor_weights_are_changed():
    network, inputs = trained("stnet"), make_inputs(LENGTHS)
    state = {key: value.clone() for key, value in network.state_dict().items()}
    copies = [part.clone() for part in inputs]
    network.for_inference()(inputs)
    assert all(torch.equal(part, copy) for part, copy in zip(inputs, copies, strict=True))
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_differs_by_its_rounding(kind):
    network, inputs = trained(kind), make_inputs(LENGTHS)
    with torch.no_grad():
        exact, rounded = network.features(inputs), network.for_inference(torch.bfloat16).features(inputs)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            same = network.for_inference(torch.bfloat16).features(inputs)
            single = network.for_inference().features(inputs)
    difference = (exact - rounded).abs().max()
    assert 1e-4 < difference < 0.1
    assert rounded.dtype == torch.float32
    assert torch.equal(same, rounded)  # whatever autocast says
    torch.testing.assert_close(single, exact, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["tempcnn", "lstm", "ltae"])
def test_other_networks_have_no_other_form(name):
    network = build_model(name, sequencelength=12)
    assert network.for_inference() is network


@needs_shared
@pytest.mark.parametrize(("name", "use_doy"), [("stnet", False), ("transformer", True)])
def test_golden_logits(name, use_doy):
    golden = torch.load(SHARED / "golden" / f"model_{name}.pt", weights_only=True)
    network = build_model(name, use_doy=use_doy, **golden["kwargs"]).eval()
    network.load_state_dict(golden["state_dict"])
    logits = network.for_inference()(tuple(golden[key] for key in ("x", "mask", "doy", "weight")))
    torch.testing.assert_close(logits, golden["logits_doy" if use_doy else "logits"], atol=1e-5, rtol=1e-5)
