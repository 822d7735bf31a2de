"""main_tscls.py computes what a plain restatement of it computes: weights, statistics, rates, losses, scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from datasets.classmap import CDL20, write_classmap
from models import build_model
from tests.support import reference
from tests.support.layout import write_long_store
from tests.support.runs import checkpoint, column, rows, same, train

COUNTS = {"train": 45, "valid": 11, "eval": 31}  # with -b 16: 3 batches, of which the last has 13 series
RATE = 1e-3
PUBLISHED, FEW_LABEL = ("--recipe", "published"), ("--recipe", "few-label")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("reference")
    for split, count in COUNTS.items():
        write_long_store(root / "2019" / split, count, seed=count)
    write_classmap(root / "classmapping20.csv", CDL20)
    return root


def data(root, *splits: str) -> reference.Data:
    return reference.Data(*(root / "2019" / split for split in splits))


def cosine(progress: float) -> float:
    return RATE * 0.5 * (1 + math.cos(math.pi * progress))


def few_label_rate(step: int) -> float:
    """3 steps an epoch, 2 epochs: 0.1 epochs of warm-up are the first step, the rest is a cosine."""
    return RATE / 1.3 if step == 0 else cosine((step / 3 - 0.1) / 1.9)


FEW = {"init": "torch", "is_even": True, "rate": few_label_rate}
SCRATCH = {"is_fresh": True}
# Flags, and what they mean to the reference. Unless from scratch, each starts from a checkpoint of its own network:
# fresh biases of 0 whose gradient is 0 but for rounding would be moved by whole steps of Adam.
VARIANTS = {
    "published": (PUBLISHED, {}),
    "few labels": (FEW_LABEL, FEW),
    "few labels by default": ((), FEW),
    "random choice": ((*PUBLISHED, "--rc"), {"method": "rc"}),
    "few labels, random choice": ((*FEW_LABEL, "--rc"), FEW | {"method": "rc"}),
    "transformer by days": ((*PUBLISHED, "--use-doy"), {"name": "transformer", "use_doy": True}),
    "transformer by positions": (PUBLISHED, {"name": "transformer"}),
    "ltae": (PUBLISHED, {"name": "ltae"}),
    "lstm from scratch": ((*PUBLISHED, "--init", "torch"), SCRATCH | {"name": "lstm", "init": "torch"}),
    "tempcnn from scratch": (PUBLISHED, SCRATCH | {"name": "tempcnn"}),
    "tempcnn from scratch, interpolated": (
        (*FEW_LABEL, "--interp"),
        FEW | SCRATCH | {"name": "tempcnn", "method": "interp"},
    ),
    "warm-up": ((*PUBLISHED, "--warmup-epochs", 1.5), {"rate": lambda step: RATE * min((step + 1) / 5.5, 1)}),
    "warm-up of few labels": (
        (*FEW_LABEL, "--warmup-epochs", 1),
        FEW | {"rate": lambda step: RATE * (step + 1) / 4 if step < 3 else cosine((step - 3) / 3)},
    ),
    "schedule": ((*PUBLISHED, "--schedule", 1), {"rate": lambda step: RATE if step < 3 else 0.1 * RATE}),
    "schedule in place of the cosine": (
        (*FEW_LABEL, "--schedule", 1, "--warmup-epochs", 0),
        FEW | {"rate": lambda step: RATE if step < 3 else 0.1 * RATE},
    ),
    "rate and decay": ((*PUBLISHED, "-lr", 0.02, "--weight-decay", 0.5), {"rate": lambda step: 0.02, "decay": 0.5}),
    "small last batch": ((*PUBLISHED, "-b", 44), {"batch_size": 44, "rate": lambda step: RATE}),
    "frozen": ((*PUBLISHED, "--freeze", "-lr", 0.01), {"is_frozen": True, "rate": lambda step: 0.01}),
    "few labels, frozen": ((*FEW_LABEL, "--freeze"), FEW | {"is_frozen": True}),
}


def run(root, folder, options: dict, *flags):
    """Run main_tscls.py with flags and what goes with the options; returns its folder."""
    name = options.get("name", "stnet")
    given = ["--useall", "-e", options.get("epochs", 2), "--weight-decay", options.get("decay", reference.DECAY)]
    if "is_fresh" not in options:
        torch.save(reference.start_of_pretraining(name), folder / "trunk.pth")
        given += ["--pretrained", folder / "trunk.pth"]
    return train(root, folder / "results", *given, *flags, model=name)


def reference_of(root, options: dict, *flags, **more) -> reference.Outcome:
    """The reference of a run with these flags."""
    options = options | more
    if not options.pop("is_fresh", False):
        start = reference.start_of_pretraining(options.get("name", "stnet"))["model_state"]
        queries = {name.removeprefix("encoder_q."): t for name, t in start.items() if name.startswith("encoder_q.")}
        options["trunk"] = {name: t for name, t in queries.items() if not name.startswith("decoder.")}
    if "published" in flags:
        return reference.tscls(data(root, "train"), data(root, "valid"), **options)
    return reference.tscls(data(root, "train", "valid"), None, **options)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_is_the_reference(root, tmp_path, no_pictures, variant):
    flags, options = VARIANTS[variant]
    expected = reference_of(root, options, *flags)
    folder = run(root, tmp_path, options, *flags)
    reference.assert_same_log(rows(folder), expected.rows)
    assert ("valid_loss" in rows(folder)[0]) == ("published" in flags)
    best = int(np.argmin([row.get("valid_loss", -epoch) for epoch, row in enumerate(expected.rows)]))
    saved = checkpoint(folder)
    assert saved["epoch"] == best
    reference.assert_same_state(saved["model_state"], expected.states[best])
    if "published" in flags or options.get("method") == "interp":
        check_test(root, folder, expected.states[best], options)


def check_test(root, folder, state: dict, options: dict, ranks: int = 1) -> None:
    """The eval split is tested with the best weights; the published recipe draws the observations once."""
    network = build_model(options.get("name", "stnet"), sequencelength=20, use_doy=options.get("use_doy", False))
    network.load_state_dict(state)
    loss, scores = reference.scores_of(network, data(root, "eval"), options.get("method", "pad"), ranks)
    (row,) = rows(folder, "testlog.csv")
    found = {name: float(row[name]) for name in ("loss", *scores)}
    assert found == pytest.approx({"loss": loss, **scores}, rel=1e-4)
    assert int(row["series"]) == COUNTS["eval"]
    assert int(row["parameters"]) == sum(parameter.numel() for parameter in network.parameters())


def test_best_is_the_epoch_of_the_lowest_validation_loss_and_the_one_that_is_tested(root, tmp_path, no_pictures):
    """At such a rate the second epoch is better than the first, and the third is worse."""
    options, flags = {"name": "ltae"}, (*PUBLISHED, "-lr", 0.03)
    folder = run(root, tmp_path, options, *flags, "-e", 3)
    first, second, third = column(folder, "valid_loss")
    assert first > second < third and checkpoint(folder)["epoch"] == 1
    best = checkpoint(folder)["model_state"]
    check_test(root, folder, best, options)
    (tmp_path / "short").mkdir()
    assert same(best, checkpoint(run(root, tmp_path / "short", options, *flags, "-e", 2))["model_state"])


def test_an_equal_validation_loss_is_no_better_and_ten_such_epochs_end_training(root, tmp_path, no_pictures):
    """The LSTM has no running statistics: at no learning rate to speak of, every epoch has the same validation loss."""
    folder = train(root, tmp_path, "--useall", *PUBLISHED, "-lr", 1e-30, "-e", 30, "-b", 45, model="lstm")
    assert len(set(column(folder, "valid_loss"))) == 1 and len(rows(folder)) == 11
    assert checkpoint(folder)["epoch"] == 0


@pytest.mark.parametrize(("recipe", "init"), [("published", "published"), ("few-label", "torch")])
def test_a_fresh_network_starts_from_the_seed(root, tmp_path, no_pictures, recipe, init):
    flags = ("--useall", "--recipe", recipe, "--seeds", 7, "-lr", 1e-30, "--init", init)
    state = checkpoint(train(root, tmp_path, *flags))["model_state"]
    torch.manual_seed(7)
    for name, parameter in build_model("stnet", init=init).named_parameters():
        torch.testing.assert_close(state[name], parameter.detach(), atol=1e-20, rtol=0)


def test_bf16_is_the_reference_in_bf16(root, tmp_path, no_pictures):
    """bfloat16 has 8 bits: other orders of the same sums may differ by 1e-2; training moves the weights far more."""
    folder = run(root, tmp_path, {}, *PUBLISHED, "--amp", "bf16")
    found, begun = checkpoint(folder)["model_state"], reference.start_of_pretraining("stnet")["model_state"]
    begun = {name.removeprefix("encoder_q."): tensor for name, tensor in begun.items()}
    apart = {}
    for is_bf16 in (True, False):
        expected = reference_of(root, {"is_bf16": is_bf16}, *PUBLISHED)
        reference.assert_same_log(rows(folder), expected.rows, 0.05)
        apart[is_bf16] = reference.fraction_apart(found, expected.states[-1], begun, of=("mlp1", "transformerencoder"))
    assert apart[True] < 0.02 < 0.04 < apart[False], apart
