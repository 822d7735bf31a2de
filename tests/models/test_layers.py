"""The parts of the networks: day encoding, attention, pooling, and how their weights start."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from models import NETWORKS, ModelError, build_model
from models.attention import EncoderLayer, attention, masked_mean
from models.layers import DayEncoding, sinusoid_table
from models.ltae import days_since_first
from models.stnet import drop_weights
from tests.models.test_models import make_inputs

# ---- days


def test_day_encoding_by_its_formula():
    table = DayEncoding(128).pe
    assert table.shape == (427, 128)
    assert table[0].abs().sum() == 0
    for day, i in ((1, 0), (100, 3), (366, 20), (426, 63)):
        angle = (day - 1) * 1000 ** (-2 * i / 128)
        assert table[day, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-4)
        assert table[day, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-4)
    assert sinusoid_table(367, 256)[0].tolist() == [0.0, 1.0] * 128


def test_days_since_first_are_zero_at_padding():
    assert days_since_first(torch.tensor([[30, 41, 0], [5, 5, 9]])).tolist() == [[0, 11, 0], [0, 0, 4]]


def test_days_since_first_count_on_across_new_year():
    assert days_since_first(torch.tensor([[300, 366, 1, 299, 0], [2, 2, 1, 0, 0]])).tolist() == [
        [0, 66, 67, 365, 0],
        [0, 0, 365, 0, 0],
    ]


# ---- attention


@pytest.mark.parametrize("padded", [False, True])
def test_encoder_layer_computes_what_pytorchs_does(padded):
    torch.manual_seed(0)
    ours = EncoderLayer(32, 4, 64, dropout=0.2).eval()
    theirs = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.2, batch_first=True).eval()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(3, 12, 32)
    mask = torch.arange(12) >= torch.tensor([[12], [7], [3]]) if padded else None
    real = ~mask if padded else torch.ones(3, 12, dtype=torch.bool)
    torch.testing.assert_close(ours(x, mask)[real], theirs(x, src_key_padding_mask=mask)[real])


def test_attention_dropout_keeps_the_mean_and_spares_evaluation():
    torch.manual_seed(0)
    q, k = torch.randn(2, 64, 4, 10, 8).unbind()
    v = torch.ones(64, 4, 10, 8)
    dropped = attention(q, k, v, None, dropout_p=0.2, training=True)
    assert dropped.mean().item() == pytest.approx(1, abs=0.02)
    assert dropped.std().item() > 0.05
    torch.testing.assert_close(attention(q, k, v, None, dropout_p=0.2, training=False), v)


# ---- pooling


def test_masked_mean_is_over_real_observations_and_safe_without_any():
    x = torch.tensor([[[1.0], [3.0], [50.0]], [[7.0], [8.0], [9.0]]])
    mask = torch.tensor([[False, False, True], [True, True, True]])
    assert masked_mean(x, mask).tolist() == [[2.0], [0.0]]
    assert masked_mean(x, None).tolist() == [[18.0], [8.0]]


def test_dropped_weights_sum_to_one_and_lose_a_fifth():
    torch.manual_seed(0)
    weight = torch.full((200, 50), 1 / 50)
    dropped = drop_weights(weight, 0.2, training=True)
    torch.testing.assert_close(dropped.sum(1), torch.ones(200))
    assert (dropped == 0).float().mean().item() == pytest.approx(0.2, abs=0.02)
    torch.testing.assert_close(drop_weights(weight, 0.2, training=False), weight)


def test_a_row_that_loses_all_its_weight_keeps_it():
    weight = torch.tensor([[0.25, 0.75, 0.0], [0.0, 1.0, 0.0]])
    torch.testing.assert_close(drop_weights(weight, 1.0, training=True), weight)


# ---- initialisation


def layers_of(network: nn.Module, kind: type) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, kind)]


@pytest.mark.parametrize("name", NETWORKS)
def test_published_init_by_class(name):
    torch.manual_seed(0)
    network = build_model(name)
    for linear in layers_of(network, nn.Linear):
        spread = math.sqrt(2 / linear.in_features)
        assert linear.weight.std().item() == pytest.approx(spread, rel=0.15)
        assert linear.bias.std().item() == pytest.approx(1, rel=0.6)
    for conv in layers_of(network, nn.Conv1d):
        assert conv.weight.std().item() == pytest.approx(1, rel=0.05)
        assert conv.bias.std().item() == pytest.approx(1, rel=0.3)
    norms = layers_of(network, nn.BatchNorm1d)
    if norms:
        assert torch.cat([norm.weight for norm in norms]).std().item() == pytest.approx(1, rel=0.2)
    assert all(norm.bias.abs().sum() == 0 for norm in norms)
    for lstm in layers_of(network, nn.LSTM):
        for weight in lstm.parameters():
            torch.testing.assert_close(weight.T @ weight, torch.eye(weight.shape[1]), rtol=0, atol=1e-4)
    for norm in layers_of(network, nn.LayerNorm):
        assert (norm.weight == 1).all() and (norm.bias == 0).all()
    for layer in layers_of(network, nn.MultiheadAttention):
        assert layer.in_proj_weight.abs().max() <= math.sqrt(6 / (128 + 384))
        assert layer.in_proj_bias.abs().sum() == 0


def test_torch_init_is_left_alone():
    torch.manual_seed(0)
    for name in NETWORKS:
        network = build_model(name, init="torch")
        assert all((norm.weight == 1).all() for norm in layers_of(network, nn.BatchNorm1d))
    attend = build_model("ltae", init="torch").attention_heads
    assert attend.fc1_k.weight.std().item() == pytest.approx(0.5, rel=0.05)
    assert attend.Q.std().item() == pytest.approx(0.5, rel=0.25)


def test_unknown_init_is_named():
    with pytest.raises(ModelError, match="'zeros': choose one of published, torch"):
        build_model("stnet", init="zeros")


def test_stnet_draws_the_observations_that_it_drops_before_its_encoder_draws():
    """The order decides what a seed stands for: with another one, a run is not that of earlier versions."""
    torch.manual_seed(0)
    network = build_model("stnet").train()
    inputs = make_inputs([9, 12, 4], length=12)
    torch.manual_seed(3)
    found = network.features(inputs)
    torch.manual_seed(3)
    weight = drop_weights(inputs[3], 0.2, training=True)
    assert torch.equal(found, (network.encode(inputs) * weight.unsqueeze(-1)).sum(1))
