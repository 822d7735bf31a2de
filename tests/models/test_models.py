"""The networks: equal to the published ones, blind to padding, open to training, and found by name."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from models import ESTIMATORS, NETWORKS, ModelError, build_estimator, build_model, canonical_name, model_class
from tests.conftest import SHARED, needs_shared

LENGTH = 12
SMALL = {"tempcnn": {"hidden_dims": 8}, "lstm": {"hidden_dims": 8, "num_layers": 2}}
DECODER = {"decoder.0", "decoder.1", "decoder.3", "decoder.4", "decoder.6"}
MLP1 = {f"mlp1.{i}.{part}" for i in range(3) for part in ("lin", "bn")}
ENCODER_PARTS = ("self_attn", "self_attn.out_proj", "linear1", "linear2", "norm1", "norm2")
TRUNK = {*MLP1, "inlayernorm", "transformerencoder.norm"} | {
    f"transformerencoder.layers.0.{part}" for part in ENCODER_PARTS
}
LAYERS = {
    "transformer": TRUNK | DECODER,
    "stnet": TRUNK | DECODER,
    "tempcnn": {f"{name}.block.{i}" for name in ("conv_bn_relu1", "conv_bn_relu2", "conv_bn_relu3", "dense")
                for i in (0, 1)} | {"decoder"},
    "lstm": {"inlayernorm", "lstm", "clayernorm", "decoder"},
    "ltae": MLP1 | DECODER | {"inlayernorm", "inconv.0", "inconv.1", "attention_heads", "attention_heads.fc1_k",
                              "mlp2.0", "mlp2.1", "outlayernorm"},
}  # fmt: skip


def make_inputs(lengths: list[int], length: int = LENGTH, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """A batch of random series of the given lengths, padded to ``length``."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), length)
    mask = torch.arange(length) >= torch.tensor(lengths).unsqueeze(1)
    x = torch.randn(*shape, 10, generator=generator).masked_fill(mask.unsqueeze(-1), 0)
    doy = torch.randint(1, 367, shape, generator=generator).sort(1).values.masked_fill(mask, 0)
    weight = torch.rand(shape, generator=generator).add(0.1).masked_fill(mask, 0)
    return x, mask, doy, weight / weight.sum(1, keepdim=True)


def pad(inputs: tuple[torch.Tensor, ...], more: int) -> tuple[torch.Tensor, ...]:
    x, mask, doy, weight = inputs
    return (
        F.pad(x, (0, 0, 0, more)),
        F.pad(mask, (0, more), value=True),
        F.pad(doy, (0, more)),
        F.pad(weight, (0, more)),
    )


def small(name: str, **options) -> nn.Module:
    torch.manual_seed(1)
    return build_model(name, sequencelength=LENGTH, **SMALL.get(name, {}), **options).eval()


# ---- the published system


@needs_shared
@pytest.mark.parametrize(("name", "use_doy"), [(name, False) for name in NETWORKS] + [("transformer", True)])
def test_published_weights_give_the_published_logits(name, use_doy):
    golden = torch.load(SHARED / "golden" / f"model_{name}.pt", weights_only=True)
    network = build_model(name, use_doy=use_doy, **golden["kwargs"]).eval()
    network.load_state_dict(golden["state_dict"], strict=True)
    logits = network(tuple(golden[key] for key in ("x", "mask", "doy", "weight")))
    expected = golden["logits_doy" if use_doy else "logits"]
    # tempcnn's logits reach 390, and the last bit of those is 3e-5: the order of summation shows in its small logits
    scale = max(1, expected.abs().max().item()) if name == "tempcnn" else 1
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5 * scale)


@needs_shared
@pytest.mark.parametrize("name", NETWORKS)
def test_published_init_has_the_spread_of_the_published_weights(name):
    golden = torch.load(SHARED / "golden" / f"model_{name}.pt", weights_only=True)
    torch.manual_seed(0)
    fresh = build_model(name, **golden["kwargs"]).state_dict()
    compared = 0
    for key, published in golden["state_dict"].items():
        if published.numel() >= 320 and published.std() > 0:
            assert fresh[key].std().item() == pytest.approx(published.std().item(), rel=0.15), key
            compared += 1
    assert compared >= 4


@pytest.mark.parametrize("name", NETWORKS)
def test_layer_names_are_the_file_format(name):
    assert {key.rpartition(".")[0] for key in small(name).state_dict()} == LAYERS[name]


def test_stnet_and_transformer_share_every_weight():
    stnet, transformer = small("stnet").state_dict(), small("transformer").state_dict()
    assert {key: value.shape for key, value in stnet.items()} == {k: v.shape for k, v in transformer.items()}


# ---- what holds for every network


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("training", [False, True])
def test_inputs_are_left_as_they_were(name, training):
    inputs = make_inputs([12, 7, 3])
    before = [tensor.clone() for tensor in inputs]
    small(name).train(training)(inputs)
    assert all(torch.equal(old, new) for old, new in zip(before, inputs, strict=True))


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_follow_the_order_of_the_batch(name):
    network, inputs, order = small(name), make_inputs([12, 7, 3, 9]), torch.tensor([2, 0, 3, 1])
    logits = network(inputs)
    assert logits.shape == (4, 21)
    torch.testing.assert_close(network(tuple(tensor[order] for tensor in inputs)), logits[order])


@pytest.mark.parametrize("name", NETWORKS)
def test_no_mask_means_nothing_is_padded(name):
    network, (x, mask, doy, weight) = small(name), make_inputs([12, 12, 12])
    torch.testing.assert_close(network((x, None, doy, weight)), network((x, mask, doy, weight)))


@pytest.mark.parametrize("name", NETWORKS)
def test_decoder_consumes_the_features(name):
    network, inputs = small(name, num_classes=5), make_inputs([12, 7])
    features = network.features(inputs)
    assert features.shape == (2, network.num_features)
    torch.testing.assert_close(network.decoder(features), network(inputs))


@pytest.mark.parametrize("name", NETWORKS)
def test_gradient_reaches_every_parameter(name):
    network = small(name)
    network(make_inputs([12, 7, 3, 9])).square().sum().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        if key != "attention_heads.fc1_k.bias":  # shifts all scores of a head alike: the softmax is blind to it
            assert parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", NETWORKS)
def test_a_few_steps_lower_the_loss(name):
    network, inputs, labels = small(name, init="torch", dropout=0.0), make_inputs([12, 7, 3, 9]), torch.arange(4)
    optimizer = torch.optim.Adam(network.train().parameters(), lr=1e-2)
    losses = []
    for _ in range(15):
        loss = F.cross_entropy(network(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_batch_of_one_can_be_trained_on(name):
    logits = small(name).train()(make_inputs([7]))
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("name", sorted(set(NETWORKS) - {"lstm"}))
def test_forward_is_one_graph(name):
    network, inputs = small(name), make_inputs([12, 7, 3])
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(inputs), network(inputs))


# ---- padding


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, LENGTH), min_size=1, max_size=4),
    more=st.integers(1, 20),
    kind=st.sampled_from([("stnet", False), ("transformer", False), ("transformer", True)]),
)
def test_more_padding_changes_no_logits(lengths, more, kind):
    name, use_doy = kind
    network, inputs = small(name, use_doy=use_doy), make_inputs(lengths)
    torch.testing.assert_close(network(pad(inputs, more)), network(inputs), rtol=1e-4, atol=1e-5)


def test_values_at_padding_are_not_seen():
    x, mask, doy, weight = make_inputs([12, 7, 1])
    noisy = torch.where(mask.unsqueeze(-1), 100.0, x)
    for name in ("stnet", "transformer"):
        network = small(name)
        torch.testing.assert_close(network((noisy, mask, doy, weight)), network((x, mask, doy, weight)))


@pytest.mark.parametrize("name", ["tempcnn", "ltae"])
def test_another_length_than_built_for_is_refused(name):
    with pytest.raises(ModelError, match="length 12 and was given series of length 15: use --sequencelength 12"):
        small(name)(make_inputs([12], length=15))


def test_ltae_mask_hides_padding_from_the_attention():
    x, mask, _, _ = make_inputs([12, 7])
    attend = small("ltae").attention_heads
    wide = torch.randn(2, LENGTH, 256)
    noisy = torch.where(mask.unsqueeze(-1), 100.0, wide)
    torch.testing.assert_close(attend(noisy, mask), attend(wide, mask))
    assert not torch.allclose(attend(noisy), attend(wide))
    inputs = make_inputs([12, 7])
    masked, published = small("ltae", ltae_mask=True)(inputs), small("ltae")(inputs)
    torch.testing.assert_close(masked[0], published[0])
    assert not torch.allclose(masked[1], published[1])


# ---- what is seen


def test_only_the_doy_encodings_see_the_days():
    x, mask, doy, weight = make_inputs([12, 7])
    other = (doy + torch.arange(LENGTH)).clamp(max=366).masked_fill(mask, 0)  # further and further apart
    for name, use_doy, sees in [
        ("transformer", False, False),
        ("transformer", True, True),
        ("stnet", False, True),
        ("ltae", False, True),
        ("tempcnn", True, False),
        ("lstm", True, False),
    ]:
        network = small(name, use_doy=use_doy)
        same = torch.equal(network((x, mask, doy, weight)), network((x, mask, other, weight)))
        assert same is not sees, name


def test_positions_end_with_the_day_encoding():
    with pytest.raises(ModelError, match="up to 426 and the series have length 500: use --use-doy"):
        small("transformer")(make_inputs([500], length=500))


def test_stnet_looks_where_the_weight_is():
    x, mask, doy, _ = make_inputs([12])
    at = torch.eye(LENGTH)
    network = small("stnet")
    pooled = torch.cat([network.features((x, mask, doy, row.unsqueeze(0))) for row in at])
    torch.testing.assert_close(pooled, network.encode((x, mask, doy, at))[0])


# ---- the registry


@pytest.mark.parametrize("name", NETWORKS)
def test_arguments_build_the_same_network_again(name):
    first = small(name, num_classes=5, use_doy=True, dropout=0.1)
    second = build_model(**first.arguments)
    second.load_state_dict(first.state_dict())
    inputs = make_inputs([12, 7])
    torch.testing.assert_close(second.eval()(inputs), first(inputs))
    assert second.arguments == first.arguments


def test_names_in_any_case_and_the_known_ones_listed():
    assert canonical_name("STNet") == "stnet"
    assert canonical_name("RF") == "rf"
    with pytest.raises(ModelError) as error:
        canonical_name("resnet")
    assert str(error.value) == f"unknown model 'resnet': choose one of {', '.join(NETWORKS + ESTIMATORS)}"


def test_classes_by_name():
    assert all(type(small(name)) is model_class(name) for name in NETWORKS)
    assert all(type(build_estimator(name)) is model_class(name.upper()) for name in ESTIMATORS)
    with pytest.raises(ModelError, match="unknown model 'resnet'"):
        model_class("resnet")


def test_estimators_are_no_networks():
    with pytest.raises(ModelError, match="'rf' is no network: choose one of stnet"):
        build_model("RF")


def test_run_names_and_needs():
    networks = {name: small(name) for name in NETWORKS}
    assert [network.run_name for network in networks.values()] == [
        "STNet", "TransformerModel", "TempCNN", "LSTM", "LTAE",
    ]  # fmt: skip
    assert [name for name, network in networks.items() if network.uses_doy_flag] == ["transformer"]
    assert [name for name, network in networks.items() if network.interpolates] == ["tempcnn", "lstm"]


@pytest.mark.parametrize("name", NETWORKS)
def test_arguments_hold_the_day_flag_only_where_the_network_reads_it(name):
    assert ("use_doy" in small(name, use_doy=True).arguments) == (name == "transformer")
    earlier = small(name).arguments | {"use_doy": False}  # as checkpoints were written
    assert build_model(**earlier).arguments == small(name).arguments


def test_networks_that_skip_padding_and_read_days_take_any_length():
    found = {name: small(name).takes_any_length for name in NETWORKS}
    assert found == {"stnet": True, "transformer": False, "tempcnn": False, "lstm": False, "ltae": False}
    assert small("transformer", use_doy=True).takes_any_length
