"""main_moco.py computes what a plain restatement of it computes: weights, statistics, queue, rates, losses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.support import reference
from tests.support.layout import write_long_store
from tests.support.runs import checkpoint, column, pretrain, rows, same

COUNT = 70  # series: 63 to train on, in 3 batches of 16, and 7 held out
RATE = 1e-3


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("reference")
    write_long_store(root / "2019" / "unlabelled", COUNT, seed=5, labelled=False)
    return root


def started(folder, **options):
    """A checkpoint to start from, and its path."""
    start = reference.start_of_pretraining(**options)
    torch.save(start, folder / "start.pth")
    return start, folder / "start.pth"


def cosine(progress: float) -> float:
    return RATE * 0.5 * (1 + math.cos(math.pi * progress))


# An epoch has 3 steps, a run 6. Flags, and what they mean to the reference.
VARIANTS = {
    "random choice": ((), {}),
    "padding": ((), {"method": "pad"}),
    "positions": ((), {"use_doy": False, "mlp": False}),
    "stnet": ((), {"name": "stnet", "method": "pad", "use_doy": False}),
    "lstm": (("--optimizer", "sgd"), {"name": "lstm", "use_doy": False, "sgd_momentum": 0.9}),
    "warm-up": (("--warmup-epochs", 1.5), {"rate": lambda step: RATE * min((step + 1) / 5.5, 1)}),
    "cosine": (("--cos",), {"rate": lambda step: cosine(step / 6)}),
    "warm-up and cosine": (
        ("--cos", "--warmup-epochs", 1),
        {"rate": lambda step: RATE * (step + 1) / 4 if step < 3 else cosine((step - 3) / 3)},
    ),
    "schedule": (("--schedule", 1), {"rate": lambda step: RATE if step < 3 else 0.1 * RATE}),
    "rate and decay": (("-lr", 0.02), {"rate": lambda step: 0.02, "decay": 0.5}),
    "sgd": (("--optimizer", "sgd", "--momentum", 0.7, "-lr", 0.03), {"sgd_momentum": 0.7, "rate": lambda step: 0.03}),
    "strong views": (("--aug-plus",), {"strength": (0.3, 1.0, 0.4)}),
    "momentum and temperature": (("--moco-m", 0.9, "--moco-t", 0.2), {"m": 0.9, "T": 0.2}),
    "split statistics": (("--bn-splits", 2), {"splits": 2}),
    "split statistics of padded series": (("--bn-splits", 4), {"splits": 4, "method": "pad"}),
    "held-out series in two batches": (("-b", 6), {"batch_size": 6, "epochs": 1}),
}


def flags_of(options: dict) -> list:
    """The flags of what the network is and how series reach their length."""
    flags = ["--moco-dim", 16, "--moco-k", 50, "-e", options.get("epochs", 2)]
    flags += ["--weight-decay", options.get("decay", reference.DECAY)]
    flags += ["--rc"] * (options.get("method", "rc") == "rc") + ["--use-doy"] * options.get("use_doy", True)
    return flags + ["--mlp"] * options.get("mlp", True)


def network_of(options: dict) -> dict:
    return {name: options[name] for name in ("name", "use_doy", "mlp") if name in options}


def run(root, folder, path, options: dict, *flags):
    """Run main_moco.py from a checkpoint."""
    name = options.get("name", "transformer")
    return pretrain(root, folder / "results", *flags_of(options), *flags, "--resume", path, model=name)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_is_the_reference(root, tmp_path, variant):
    flags, options = VARIANTS[variant]
    start, path = started(tmp_path, **{"use_doy": True} | network_of(options))
    expected = reference.moco(reference.Data(root / "2019" / "unlabelled"), start, **options)
    folder = run(root, tmp_path, path, options, *flags)
    reference.assert_same_log(rows(folder), expected.rows)
    reference.assert_same_state(checkpoint(folder, "model_last.pth")["model_state"], expected.states[-1])
    best = int(np.argmin([row["valid_loss"] for row in expected.rows]))
    saved = checkpoint(folder)
    assert saved["epoch"] == best and saved["val_loss_min"] == pytest.approx(expected.rows[best]["valid_loss"], 1e-5)
    reference.assert_same_state(saved["model_state"], expected.states[best])


def test_best_is_the_epoch_of_the_lowest_held_out_loss_and_patience_counts_those_after_it(root, tmp_path):
    """This run gets better once, then worse twice. Its best epoch is the last one of a run that ends there."""
    start, path = started(tmp_path, name="tempcnn")
    options, flags = {"name": "tempcnn", "use_doy": False}, ("--optimizer", "sgd", "-lr", 0.03, "--patience", 2)
    folder = run(root, tmp_path, path, options, *flags, "-e", 9)
    losses = column(folder, "valid_loss")
    assert len(losses) == 4 and losses[0] > losses[1] < losses[2] < losses[3]
    for name, epoch in (("model_best.pth", 1), ("model_last.pth", 3)):
        saved = checkpoint(folder, name)
        assert (saved["epoch"], saved["not_improved_count"]) == (epoch, epoch - 1)
        assert saved["val_loss_min"] == pytest.approx(losses[1], rel=1e-5)
    (tmp_path / "short").mkdir()
    short = run(root, tmp_path / "short", path, options, *flags, "-e", 2)
    assert same(checkpoint(folder)["model_state"], checkpoint(short, "model_last.pth")["model_state"])


def test_an_equal_held_out_loss_is_no_better(root, tmp_path):
    """The LSTM has no running statistics: at no learning rate to speak of, every epoch has the same held-out loss."""
    folder = pretrain(root, tmp_path, "-lr", 1e-30, "-e", 9, "--patience", 2, model="lstm")
    assert len(set(column(folder, "valid_loss"))) == 1 and len(rows(folder)) == 3
    assert checkpoint(folder)["epoch"] == 0 and checkpoint(folder, "model_last.pth")["not_improved_count"] == 2


def test_a_resumed_run_must_beat_the_loss_it_resumes_from(root, tmp_path):
    start, path = started(tmp_path, use_doy=True)
    torch.save(start | {"epoch": 4, "val_loss_min": 0.1, "not_improved_count": 2}, path)
    folder = run(root, tmp_path, path, {"epochs": 20}, "--patience", 4)
    assert [row["epoch"] for row in rows(folder)] == ["5", "6"]
    assert not (folder / "model_best.pth").exists()
    last = checkpoint(folder, "model_last.pth")
    assert (last["epoch"], last["val_loss_min"], last["not_improved_count"]) == (6, 0.1, 4)


def test_a_fresh_run_starts_from_the_seed_with_equal_encoders_and_a_queue_of_unit_keys(root, tmp_path):
    """Seen at the end of a run that moves nothing; what stands behind the batches' keys is the queue's first."""
    folder = pretrain(root, tmp_path, "-lr", 1e-30, "--use-doy", "--moco-m", 1, "--seed", 7)
    state = checkpoint(folder, "model_last.pth")["model_state"]
    torch.manual_seed(7)
    trunk = reference.make_encoder("transformer", 128, False, 1, use_doy=True).named_parameters()
    for name, parameter in trunk:
        torch.testing.assert_close(state[f"encoder_q.{name}"], state[f"encoder_k.{name}"], atol=1e-20, rtol=0)
        if not name.startswith("decoder"):
            torch.testing.assert_close(state[f"encoder_q.{name}"], parameter.detach(), atol=1e-20, rtol=0)
    queue = state["queue"]
    torch.testing.assert_close(queue.norm(dim=0), torch.ones(64))
    assert queue.shape == (128, 64) and state["queue_ptr"].tolist() == [48]
    assert (queue[:, 48:].T @ queue[:, 48:]).triu(1).abs().max() < 0.4  # random directions
    assert (queue[:, :48].T @ queue[:, :48]).mean() > 0.1  # keys of an encoder that was not trained


def test_bf16_is_the_reference_in_bf16(root, tmp_path):
    """bfloat16 has 8 bits: two orders of the same sums differ by some 1e-2, far less than training moves the weights.

    SGD, whose steps grow with the gradient: Adam would make whole steps of the rounding errors.
    """
    options = {"sgd_momentum": 0.9, "rate": lambda step: 0.03}
    start, path = started(tmp_path, use_doy=True)
    data = reference.Data(root / "2019" / "unlabelled")
    folder = run(root, tmp_path, path, options, "--optimizer", "sgd", "-lr", 0.03, "--amp", "bf16")
    found, begun = checkpoint(folder, "model_last.pth")["model_state"], start["model_state"]
    apart = {}
    for is_bf16 in (True, False):
        expected = reference.moco(data, start, **options, is_bf16=is_bf16)
        reference.assert_same_log(rows(folder), expected.rows, 0.05)
        apart[is_bf16] = reference.fraction_apart(found, expected.states[-1], begun, of="encoder_q")
    assert apart[True] < 0.02 < 0.04 < apart[False], apart
