"""The throughput programs: they run, and what they count and compare with is right."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import finetuning, naive, throughput
from benchmarks.clock import OwnProcess
from datasets.catalog import open_eval
from datasets.transforms import vegetation_weight
from moco.builder import projection_head
from models import build_model


def here(build, *args):
    """In place of OwnProcess, which imports torch for seconds."""
    return build(*args)


def test_pretraining_prints_every_figure(capsys, monkeypatch):
    monkeypatch.setattr(throughput, "OwnProcess", here)
    throughput.main(
        "-d cpu -b 16 --moco-k 64 -seq 12 --series 64 --steps 1 --rounds 1 --baseline naive --no-compile".split()
    )
    printed = capsys.readouterr().out
    for figure in ("end to end", "fixed batch", "naive", "TFLOP/s", "gather", "augment", "encode q", "backward"):
        assert figure in printed


def test_finetuning_prints_every_figure(capsys, monkeypatch):
    monkeypatch.setattr(finetuning, "OwnProcess", here)
    finetuning.main("-d cpu -b 8 -seq 12 --series 24 --rounds 1 --baseline naive".split())
    lines = capsys.readouterr().out.splitlines()
    measured = ["fine-tuning", "testing", "fine-tuning, naive", "testing, naive"]
    assert [line.split("  ")[0] for line in lines[1:]] == [*measured, "fine-tuning / naive", "testing / naive"]


def write_pid(path: Path):
    return partial(path.write_text, str(os.getpid()))


def test_work_is_done_by_another_process_whenever_it_is_asked(tmp_path):
    path = tmp_path / "pid"
    work = OwnProcess(write_pid, path)
    for _ in range(2):
        assert not path.exists()
        work()
        assert int(path.read_text()) == work.process.pid != os.getpid()
        path.unlink()


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


def test_naive_samples_are_what_the_method_makes_of_a_series(data_root):
    series = open_eval(data_root, 2019)
    for row in range(3):
        bands, days = series.store.series(series.rows[row])
        (x, mask, doy, weight), label = naive.Labelled(series, len(days), 0, is_trained_on=False)[row]
        assert label == series.labels[row] and np.array_equal(doy, days) and not mask.any()
        expected = vegetation_weight(torch.from_numpy(bands * np.float32(1e-4))[None])[0]
        torch.testing.assert_close(weight, expected)
        assert x.shape == (len(days), 10) and x.dtype == torch.float32


def test_naive_stnet_has_the_weights_of_ours():
    plain, ours = naive.STNet(21), build_model("stnet")
    assert sum(p.numel() for p in plain.parameters()) == sum(p.numel() for p in ours.parameters())
    plain.load_state_dict(dict(zip(plain.state_dict(), ours.state_dict().values(), strict=True)))


def test_both_steps_start_at_the_loss_of_chance():
    torch.manual_seed(0)
    views = [[torch.randn(8, 20, 10), torch.zeros(8, 20, dtype=torch.bool), torch.ones(8, 20).long()] for _ in "qk"]
    step = naive.NaiveStep(64, torch.device("cpu"))
    before = step.queue.clone()
    loss = step(*views)
    assert loss.isfinite()
    assert torch.equal(step.queue[:, 8:], before[:, 8:]) and not torch.equal(step.queue[:, :8], before[:, :8])
