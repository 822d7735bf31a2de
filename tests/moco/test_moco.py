"""SITS-MoCo: the golden forward, the queue, the heads, split batch normalisation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from moco import builder
from moco.batchnorm import SplitBatchNorm
from moco.builder import MoCo, held_out_contrast
from models import NETWORKS, build_model
from tests.conftest import SHARED, needs_shared

SIZE = 20
SMALL = {"tempcnn": {"hidden_dims": 8}, "lstm": {"hidden_dims": 8, "num_layers": 2}}


def view(count: int, seed: int = 0) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, SIZE, 10, generator=generator)
    doy = torch.randint(1, 367, (count, SIZE), generator=generator).sort(1).values
    return x, None, doy, torch.full((count, SIZE), 1 / SIZE)


def small_moco(name: str = "transformer", *, dropout: float = 0.2, **options) -> MoCo:
    """A MoCo of one of the networks, as small as it gets."""
    torch.manual_seed(0)
    kwargs = {"dropout": dropout} | SMALL.get(name, {})
    options = {"dim": 8, "K": 24} | options
    return MoCo(build_model(name, sequencelength=SIZE, use_doy=True, init="torch", **kwargs), **options)


def state_of(module: nn.Module) -> dict:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def changed(module: nn.Module, before: dict) -> set[str]:
    """Names of the tensors that are no longer what they were."""
    return {name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])}


def running_statistics(names: set[str]) -> set[str]:
    return {name for name in names if name.endswith(("running_mean", "running_var", "num_batches_tracked"))}


# ---- the published system


@needs_shared
def test_golden_forward():
    golden = torch.load(SHARED / "golden" / "moco.pt", weights_only=True)
    options = {name: golden[name] for name in ("dim", "K", "m", "T")}
    moco = MoCo(build_model("transformer", use_doy=True), mlp=True, **options)
    moco.load_state_dict(golden["state_dict"])
    moco.eval()
    moco.update_key_encoder()
    contrast = moco((*golden["q"], None), (*golden["k"], None))
    torch.testing.assert_close(contrast.logits, golden["logits"], atol=1e-5, rtol=1e-5)
    expected = nn.functional.cross_entropy(golden["logits"], golden["labels"])
    torch.testing.assert_close(contrast.loss, expected, atol=1e-5, rtol=1e-5)
    moco.enqueue(contrast.keys)
    state = moco.state_dict()
    for name, tensor in golden["key_state_after"].items():
        torch.testing.assert_close(state[name], tensor, atol=1e-5, rtol=1e-5)


# ---- encoders and heads


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("mlp", [False, True])
def test_heads_take_the_place_of_the_decoder(name, mlp):
    moco = small_moco(name, mlp=mlp)
    width = moco.encoder_q.num_features
    shapes = {n: tuple(p.shape) for n, p in moco.named_parameters() if n.startswith("encoder_q.decoder")}
    if mlp:
        assert shapes == {
            "encoder_q.decoder.0.weight": (width, width),
            "encoder_q.decoder.0.bias": (width,),
            "encoder_q.decoder.2.weight": (8, width),
            "encoder_q.decoder.2.bias": (8,),
        }
        assert isinstance(moco.encoder_q.decoder[1], nn.ReLU)
    else:
        assert shapes == {"encoder_q.decoder.weight": (8, width), "encoder_q.decoder.bias": (8,)}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_key_encoder_starts_as_the_query_encoder_and_is_not_trained(name):
    moco = small_moco(name)
    queries, keys = moco.encoder_q.state_dict(), moco.encoder_k.state_dict()
    assert queries.keys() == keys.keys()
    assert all(torch.equal(queries[n], keys[n]) for n in queries)
    assert not any(p.requires_grad for p in moco.encoder_k.parameters())
    assert all(p.requires_grad for p in moco.encoder_q.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_learns(name):
    """A training step reaches every weight of the query encoder, and steps on the same batch lower its loss."""
    moco = small_moco(name, dropout=0, mlp=True, K=64).train()
    optimizer = torch.optim.Adam(moco.encoder_q.parameters(), 1e-3)
    losses = []
    for _ in range(6):
        contrast = moco(view(8, 1), view(8, 2))
        optimizer.zero_grad()
        contrast.loss.backward()
        assert not [n for n, p in moco.encoder_q.named_parameters() if p.grad is None]
        optimizer.step()
        losses.append(contrast.loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_batch_of_one(name):
    moco = small_moco(name, mlp=True).train()
    contrast = moco(view(1, 1), view(1, 2))
    contrast.loss.backward()
    moco.enqueue(contrast.keys)
    assert contrast.loss.isfinite() and contrast.logits.shape == (1, 25)
    torch.testing.assert_close(moco.queue[:, 0], contrast.keys[0])


# ---- the contrast


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_loss_is_cross_entropy_of_finding_the_own_key(temperature):
    moco = small_moco(T=temperature).eval()
    view_q, view_k = view(6, 1), view(6, 2)
    contrast, queries, keys = moco(view_q, view_k), moco.encode_queries(view_q), moco.encode_keys(view_k)
    assert contrast.logits.shape == (6, 25)
    torch.testing.assert_close(contrast.logits[:, 0], (queries * keys).sum(1) / temperature)
    torch.testing.assert_close(contrast.logits[:, 1:], queries @ moco.queue / temperature)
    target = torch.zeros(6, dtype=torch.long)
    torch.testing.assert_close(contrast.loss, F.cross_entropy(contrast.logits, target))
    top1 = (contrast.logits.argmax(1) == 0).float().mean()
    torch.testing.assert_close(contrast.figures["top1"], top1)


def test_top1_by_hand():
    positive, hardest = torch.tensor([[3.0], [1.0], [2.0], [0.0]]), torch.tensor([[2.0]] * 4)
    keys = torch.zeros(4, 2)
    contrast = builder.Contrast(torch.zeros(()), positive, hardest, keys, keys, torch.zeros(2, 5))
    assert contrast.figures["top1"].item() == 0.25  # a tie is no hit


def test_queries_keys_and_the_queue_are_of_length_one():
    moco = small_moco()
    for vectors in (moco.encode_queries(view(5)), moco.encode_keys(view(5)), moco.queue.T):
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(vectors)))


def test_no_gradient_flows_into_keys_or_the_queue():
    moco = small_moco().train()
    contrast = moco(view(4, 1), view(4, 2))
    contrast.loss.backward()
    assert not contrast.keys.requires_grad and not moco.queue.requires_grad
    assert all(p.grad is None for p in moco.encoder_k.parameters())
    assert contrast.positive.requires_grad and contrast.negative.requires_grad


# ---- side effects


def test_evaluation_changes_nothing():
    moco = small_moco(bn_splits=2).eval()
    before = state_of(moco)
    first, again = moco(view(6, 1), view(6, 2)), moco(view(6, 1), view(6, 2))
    moco.encode_queries(view(6)), moco.encode_keys(view(6))
    assert not changed(moco, before)
    assert torch.equal(first.logits, again.logits)


def test_forward_in_training_changes_running_statistics_alone():
    moco = small_moco(bn_splits=2).train()
    before = state_of(moco)
    moco(view(6, 1), view(6, 2))
    touched = changed(moco, before)
    assert touched == running_statistics(touched) == running_statistics(set(before))


@pytest.mark.parametrize("momentum", [0.0, 0.9, 1.0])
def test_momentum_moves_the_key_parameters_and_nothing_else(momentum):
    moco = small_moco(m=momentum)
    moco.load_state_dict({n: torch.rand_like(t) if t.is_floating_point() else t for n, t in state_of(moco).items()})
    before = state_of(moco)
    moco.update_key_encoder()
    keys = dict(moco.encoder_k.named_parameters())
    for name, query in moco.encoder_q.named_parameters():
        expected = momentum * before[f"encoder_k.{name}"] + (1 - momentum) * query
        torch.testing.assert_close(keys[name], expected.detach())
    expected_to_change = {f"encoder_k.{name}" for name in keys} if momentum < 1 else set()
    assert changed(moco, before) == expected_to_change


# ---- the queue


class Flat(nn.Module):
    """An encoder that is its decoder: so small that many queues can be tried."""

    num_features = 4

    def __init__(self):
        super().__init__()
        self.decoder = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(x)


@given(size=st.integers(1, 12), counts=st.lists(st.integers(1, 12), max_size=8))
@settings(deadline=None)
def test_keys_replace_the_oldest(size, counts):
    """Whatever the batches, also where the size of the queue is no multiple of theirs."""
    moco = MoCo(Flat(), dim=2, K=size)
    expected, place, generator = moco.queue.T.tolist(), 0, torch.Generator().manual_seed(0)
    for count in counts:
        keys = F.normalize(torch.randn(min(count, size), 2, generator=generator))
        moco.enqueue(keys)
        for key in keys.tolist():
            expected[place] = key
            place = (place + 1) % size
        assert moco.queue_ptr.tolist() == [place]
        np.testing.assert_allclose(moco.queue.T, expected)


def test_the_queue_is_part_of_the_checkpoint():
    moco, other = small_moco(), small_moco()
    moco.enqueue(F.normalize(torch.randn(5, 8)))
    other.load_state_dict(moco.state_dict())
    assert torch.equal(other.queue, moco.queue) and other.queue_ptr.tolist() == [5]
    assert moco.queue.shape == (8, 24)


# ---- shuffled batch normalisation


def test_bn_splits_reach_both_encoders():
    moco = small_moco(bn_splits=4)
    for encoder in (moco.encoder_q, moco.encoder_k):
        norms = [m for m in encoder.modules() if isinstance(m, nn.BatchNorm1d)]
        assert norms and all(isinstance(norm, SplitBatchNorm) and norm.splits == 4 for norm in norms)


@pytest.mark.parametrize("name", NETWORKS)
def test_keys_come_back_in_the_order_of_their_series(name):
    """Without dropout and with fixed statistics a series' key does not depend on its place in the batch."""
    moco = small_moco(name, dropout=0, bn_splits=2).train()
    for module in moco.modules():
        module.train(not isinstance(module, nn.BatchNorm1d | nn.Dropout))
    keys = moco.encode_keys(view(6))
    torch.testing.assert_close(keys, F.normalize(moco.encoder_k(view(6)), dim=1), atol=1e-5, rtol=1e-4)


def test_key_statistics_are_of_shuffled_sub_batches(monkeypatch):
    order = torch.tensor([5, 0, 3, 2, 4, 1])
    monkeypatch.setattr(builder, "shared_permutation", lambda count, device: order)
    moco = small_moco(dropout=0, bn_splits=2).train()
    parts = view(6)
    shuffled = moco.encoder_k(tuple(None if part is None else part[order] for part in parts))
    expected = torch.empty_like(shuffled)
    expected[order] = F.normalize(shuffled, dim=1)
    keys = moco.encode_keys(parts)
    torch.testing.assert_close(keys, expected.detach(), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(keys, F.normalize(moco.encoder_k(parts), dim=1), atol=1e-4)


def test_the_key_batch_is_shuffled_anew_every_time():
    moco = small_moco(dropout=0, bn_splits=2).train()
    assert not torch.allclose(moco.encode_keys(view(16)), moco.encode_keys(view(16)), atol=1e-6)
    whole = small_moco(dropout=0).train()
    torch.testing.assert_close(whole.encode_keys(view(16)), whole.encode_keys(view(16)))


# ---- held-out series


@pytest.mark.parametrize("chunk", [1, 4, 512])
def test_held_out_contrast_is_cross_entropy_among_all(chunk):
    generator = torch.Generator().manual_seed(0)
    queries, keys = (F.normalize(torch.randn(11, 8, generator=generator), dim=1) for _ in range(2))
    loss, top1 = held_out_contrast(queries, keys, 0.2, chunk=chunk)
    logits = queries @ keys.T / 0.2
    assert loss == pytest.approx(F.cross_entropy(logits, torch.arange(11)).item(), rel=1e-5)
    assert top1 == pytest.approx((logits.argmax(1) == torch.arange(11)).double().mean().item())


def test_held_out_contrast_at_its_ends():
    apart = torch.eye(8)
    loss, top1 = held_out_contrast(apart, apart, 0.07)
    assert top1 == 1 and loss == pytest.approx(math.log(1 + 7 * math.exp(-1 / 0.07)), abs=1e-6)
    alike = torch.ones(8, 4) / 2
    assert held_out_contrast(alike, alike, 0.07)[0] == pytest.approx(math.log(8), rel=1e-5)
    assert held_out_contrast(apart, apart.flip(0), 0.07)[1] == 0


def test_held_out_contrast_is_within_groups_in_order():
    generator = torch.Generator().manual_seed(1)
    queries, keys = (F.normalize(torch.randn(11, 8, generator=generator), dim=1) for _ in range(2))
    parts = [held_out_contrast(queries[part], keys[part], 0.2) for part in (slice(0, 8), slice(8, 11))]
    expected = [(8 * whole + 3 * rest) / 11 for whole, rest in zip(*parts, strict=True)]
    assert held_out_contrast(queries, keys, 0.2, group=8, chunk=3) == pytest.approx(expected, rel=1e-5)


def test_queries_and_keys_are_float32_under_autocast():
    moco = small_moco().train()
    with torch.autocast("cpu", torch.bfloat16):
        contrast = moco(view(16), view(16))
    assert {part.dtype for part in (contrast.keys, contrast.queries, contrast.positive)} == {torch.float32}
    torch.testing.assert_close(contrast.keys.norm(dim=1), torch.ones(16))
