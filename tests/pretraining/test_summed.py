"""Two pretexts on one encoder: one trunk, two heads, the weighted sum of their losses."""

from __future__ import annotations

from functools import partial

import pytest
import torch

import main_moco
from datasets.classmap import CDL20
from moco.loader import two_views
from models import build_model
from pretraining import PRETEXTS
from pretraining.bert import BERT
from pretraining.labels import Labels
from pretraining.step import CompiledViews, TrainingStep
from pretraining.summed import Summed, with_own_decoder
from tests.support.pretexts import OFF, WORLD, random_series
from utils.precision import Precision

LABELS = torch.tensor([2, 0, 2, 1])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def series(seed: int = 0):
    return random_series([12, 9, 15, 4], seed)._replace(labels=LABELS)


def built(name: str, data_root, *flags: str, **network) -> Summed:
    given = ("--datapath", str(data_root), "-seq", "12", "--moco-k", "20", "--moco-dim", "8", "-b", "4", *flags)
    args = main_moco.get_args(["transformer", "--pretext", name, *given])
    torch.manual_seed(0)
    encoder = build_model(**({"name": "transformer", "use_doy": True, "dropout": 0.0, "init": "torch"} | network))
    return PRETEXTS[name](encoder, partial(two_views, size=12, method="pad"), vars(args))


def test_it_is_named_by_its_parts(data_root):
    summed = built("moco+labels", data_root, "--mlp")
    assert (summed.name, summed.run_name) == ("moco+labels", "MoCoV2+Labels")
    assert built("moco+bert", data_root).run_name == "MoCoV1+BERT"
    expected = {"moco": summed.parts.moco.identity(), "labels": summed.parts.labels.identity()}
    assert summed.identity() == {"weights": [1, 1], **expected}
    assert built("moco+labels", data_root, "--sum-weight", "0.25").identity()["weights"] == [1, 0.25]


def test_the_encoder_is_that_of_the_last_part_with_its_head(data_root):
    labels, bert = built("moco+labels", data_root), built("moco+bert", data_root)
    assert labels.encoder_q is labels.parts.labels.encoder_q and bert.encoder_q is bert.parts.bert.encoder_q
    assert labels.classmap == CDL20 and bert.classmap is None
    assert labels.encoder_q.decoder[-1].out_features == 21 and bert.encoder_q.decoder.out_features == 10
    assert labels.parts.moco.encoder_q.decoder.out_features == 8
    assert labels.encoder_q.arguments["name"] == "transformer"


@pytest.mark.parametrize("name", ["moco+labels", "moco+bert"])
@pytest.mark.parametrize("splits", [1, 2])
def test_the_trunk_is_one_and_the_heads_are_two(data_root, name, splits):
    summed = built(name, data_root, "--bn-splits", str(splits))
    first, second = (dict(part.encoder_q.named_parameters()) for part in summed.parts.values())
    for key, parameter in first.items():
        assert key.startswith("decoder.") or second[key] is parameter
    buffers = [dict(part.encoder_q.named_buffers()) for part in summed.parts.values()]
    assert all(buffers[0][key] is tensor for key, tensor in buffers[1].items() if not key.startswith("decoder."))
    heads = [{id(p) for key, p in own.items() if key.startswith("decoder.")} for own in (first, second)]
    assert heads[0] and heads[1] and not heads[0] & heads[1]
    keys = {id(parameter) for parameter in summed.parts.moco.encoder_k.parameters()}
    assert not keys & {id(parameter) for parameter in (*first.values(), *second.values())}
    optimised = [p for p in summed.parameters() if p.requires_grad]
    assert len(optimised) == len({*map(id, first.values()), *map(id, second.values())})


def test_another_decoder_leaves_the_first_network_as_it_was():
    network = build_model("stnet")
    decoder, other = network.decoder, with_own_decoder(network, torch.nn.Identity())
    assert network.decoder is decoder and isinstance(other.decoder, torch.nn.Identity)
    assert other.mlp1 is network.mlp1 and type(other) is type(network)


def output_and_parts(summed: Summed):
    """The sum of a batch, and what each part makes of the same views by itself."""
    views = summed.views(series(), generator())
    own = [part(*group) for part, group in zip(summed.parts.values(), views, strict=True)]
    return summed(*views), own


@pytest.mark.parametrize(("name", "figure"), [("moco+labels", "accuracy"), ("moco+bert", "restored")])
def test_the_loss_is_the_weighted_sum(data_root, name, figure):
    summed = built(name, data_root, "--sum-weight", "0.25").eval()
    output, (first, second) = output_and_parts(summed)
    assert output.loss.item() == pytest.approx(first.loss.item() + 0.25 * second.loss.item(), rel=1e-5)
    expected = {
        "moco_loss": first.loss,
        "moco_top1": first.figures["top1"],
        f"{name[5:]}_loss": second.loss,
        f"{name[5:]}_{figure}": second.figures[figure],
    }
    assert list(output.figures) == list(expected)
    assert all(output.figures[key].item() == pytest.approx(value.item(), rel=1e-5) for key, value in expected.items())
    assert not any(value.requires_grad for value in output.figures.values())


def test_views_are_those_of_the_parts_in_turn(data_root):
    summed, source = built("moco+labels", data_root), generator()
    pair, (view, labels) = summed.views(series(), generator())
    expected = summed.parts.moco.views(series(), source), summed.parts.labels.views(series(), source)
    assert torch.equal(pair[0].x, expected[0][0].x) and torch.equal(pair[1].x, expected[0][1].x)
    assert torch.equal(view.x, expected[1][0].x) and torch.equal(labels, LABELS)


@pytest.mark.parametrize("name", ["moco+labels", "moco+bert"])
def test_gradients_are_the_weighted_sum_of_those_of_the_parts(data_root, name):
    summed = built(name, data_root, "--sum-weight", "0.25")
    views = summed.views(series(), generator())
    gradients = []
    for part, group in zip(summed.parts.values(), views, strict=True):
        part(*group).loss.backward()
        gradients.append({key: p.grad.clone() for key, p in part.encoder_q.named_parameters()})
        summed.zero_grad()
    summed(*views).loss.backward()
    for part, weight, own in zip(summed.parts.values(), (1, 0.25), gradients, strict=True):
        for key, parameter in part.encoder_q.named_parameters():
            is_head = key.startswith("decoder.")
            expected = weight * own[key] if is_head else gradients[0][key] + 0.25 * gradients[1][key]
            torch.testing.assert_close(parameter.grad, expected, rtol=1e-3, atol=1e-6)
    assert all(p.grad is None for p in summed.parts.moco.encoder_k.parameters())


def test_a_step_moves_the_key_encoder_and_fills_the_queue(data_root):
    summed = built("moco+labels", data_root, "--moco-m", "0.5").train()
    optimizer = torch.optim.Adam([p for p in summed.parameters() if p.requires_grad], 0.1)
    step = TrainingStep(summed, optimizer, Precision("off", WORLD.device))
    before = {key: tensor.clone() for key, tensor in summed.state_dict().items()}
    for _ in range(2):
        figures = step(series(), generator())
    assert list(figures) == ["loss", "moco_loss", "moco_top1", "labels_loss", "labels_accuracy"]
    state = summed.state_dict()
    assert state["parts.moco.queue_ptr"].item() == 8
    moved = {key for key, tensor in state.items() if not torch.equal(tensor, before[key])}
    trained = {key for key, p in summed.named_parameters(remove_duplicate=False)}
    assert trained <= moved and "parts.moco.encoder_k.mlp1.0.lin.weight" in moved


def test_views_compile_with_labels(data_root):
    summed = built("moco+labels", data_root)
    compiled = CompiledViews(summed.views, partial(torch.compile, fullgraph=True, dynamic=False, backend="eager"))
    made, expected = compiled(series(), generator()), summed.views(series(), generator())
    assert torch.equal(made[1][0].x, expected[1][0].x) and torch.equal(made[0][1].x, expected[0][1].x)
    assert torch.equal(made[1][1], LABELS)


def test_evaluation_is_that_of_the_parts_and_changes_nothing(data_root):
    summed = built("moco+labels", data_root, "--sum-weight", "0.25").eval()
    state = {key: tensor.clone() for key, tensor in summed.state_dict().items()}
    views = [summed.views(series(seed), generator(seed)) for seed in range(2)]
    found = summed.evaluate(views, OFF, WORLD)
    moco, labels = (
        part.evaluate([group[i] for group in views], OFF, WORLD) for i, part in enumerate(summed.parts.values())
    )
    assert found == {
        "loss": pytest.approx(moco["loss"] + 0.25 * labels["loss"]),
        **{f"moco_{key}": pytest.approx(value) for key, value in moco.items()},
        **{f"labels_{key}": pytest.approx(value) for key, value in labels.items()},
    }
    assert all(torch.equal(tensor, state[key]) for key, tensor in summed.state_dict().items())


def test_a_sum_of_other_parts_is_made_in_the_same_way():
    network = build_model("transformer", sequencelength=12, use_doy=True, init="torch", num_classes=21)
    parts = [
        Labels(network, lambda series, generator: two_views(series, generator, size=12, method="rc")[0], CDL20),
        BERT(with_own_decoder(network, None), size=12, method="rc"),
    ]
    summed = Summed(parts)
    assert summed.name == "labels+bert" and summed.classmap is None and summed.weights == [1, 1]
    output = summed(*summed.views(series(), generator()))
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in summed.parameters())
