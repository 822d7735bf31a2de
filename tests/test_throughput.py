"""The throughput program: it runs, and what it counts and compares with is right."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import naive, throughput
from moco.builder import projection_head
from models import build_model


def test_it_prints_every_figure(capsys):
    throughput.main(
        "-d cpu -b 16 --moco-k 64 -seq 12 --series 64 --steps 1 --rounds 1 --baseline naive --no-compile".split()
    )
    printed = capsys.readouterr().out
    for figure in ("end to end", "fixed batch", "naive", "TFLOP/s", "gather", "augment", "encode q", "backward"):
        assert figure in printed


def test_counted_arithmetic_is_torchs():
    size, count = 20, 3  # in training, where no fused kernel hides its products from the counter
    network = build_model("transformer", use_doy=True).train()
    network.decoder = projection_head(128, 128, mlp=True)
    view = torch.randn(count, size, 10), None, torch.ones(count, size, dtype=torch.long), None
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(view)
    assert counter.get_total_flops() == count * throughput.encoder_flop(size)
    assert abs(throughput.step_flop(70, 65536) / 106e6 - 1) < 0.02


def test_naive_views_follow_the_method():
    draw = np.random.default_rng(0)
    x = np.arange(40, dtype=np.float32)[:, None].repeat(10, 1)
    doy = np.arange(1, 41)
    values, mask, days = naive.view(x, doy, 30, draw)
    assert values.shape == (30, 10) and values.dtype == torch.float32 and not mask.any()
    assert (days.diff() > 0).all()
    noisy = [(naive.spectral_noise(x, draw) != x).any(1).mean() for _ in range(400)]
    assert abs(np.mean(noisy) - 0.15) < 0.012


def test_both_steps_start_at_the_loss_of_chance():
    torch.manual_seed(0)
    views = [[torch.randn(8, 20, 10), torch.zeros(8, 20, dtype=torch.bool), torch.ones(8, 20).long()] for _ in "qk"]
    step = naive.NaiveStep(64, torch.device("cpu"))
    before = step.queue.clone()
    loss = step(*views)
    assert loss.isfinite()
    assert torch.equal(step.queue[:, 8:], before[:, 8:]) and not torch.equal(step.queue[:, :8], before[:, :8])
