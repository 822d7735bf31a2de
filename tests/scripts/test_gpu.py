"""What only a GPU can show: no step waits for it, CUDA graphs are used, every network trains there."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

import main_moco
from datasets.catalog import open_unlabelled
from models import NETWORKS
from pretraining.data import PretrainingData
from pretraining.step import TrainingStep, compile_step
from tests.conftest import needs_gpu
from tests.scripts.test_distributed import REPOSITORY
from tests.support.runs import checkpoint, column, newest, pretrain, train
from utils.precision import AMP
from utils.results.losses import LossWatch
from utils.runtime.distributed import World
from utils.runtime.seeding import RandomStreams

pytestmark = needs_gpu
ON_GPU = ("-d", "cuda")


@pytest.fixture(scope="module", autouse=True)
def precision():
    """The scripts allow TF32; other tests are not to see that."""
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("compiling", ["--compile", "--no-compile"])
def test_no_step_waits_for_the_gpu(data_root, compiling):
    args = main_moco.get_args(["transformer", "--rc", "--mlp", "--useall", "--moco-k", "64", "-b", "16", compiling])
    series, world = open_unlabelled(data_root, args.year), World(0, 1, torch.device("cuda", 0))
    streams = RandomStreams(args.seed, world.device)
    data = PretrainingData(series, args.batchsize, streams, world)
    run = main_moco.build_run(args, series, data.steps_per_epoch, world)
    step = TrainingStep(run.module, run.optimizer, run.precision)
    if args.compile:
        compile_step(step, data.example(), world, is_required=True)
    run.module.train()
    for batch in data.train(0):  # what is set up at the first use may wait
        step(batch, streams.augment)
    batches, losses, watch = list(data.train(1)), [], LossWatch(None)
    torch.cuda.set_sync_debug_mode("error")  # what waits raises
    try:
        for position, batch in enumerate(batches):
            streams.seek(1, position)
            losses.append(step(batch, streams.augment)["loss"])
            watch.add(losses[-1], 1, position)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    watch.finish()
    assert not watch.coming
    assert len(losses) == data.steps_per_epoch and torch.stack(losses).isfinite().all()


def test_by_default_the_step_is_compiled_into_graphs(data_root, tmp_path, capsys):
    pretrained = pretrain(data_root, tmp_path / "pretrained", *ON_GPU, "--rc", "--mlp")
    printed = capsys.readouterr().out
    train(data_root, tmp_path / "tuned", *ON_GPU, "--rc", "--pretrained", pretrained / "model_best.pth")
    assert "compiling the training step" in printed
    assert "torch.compile failed" not in printed and "without CUDA graphs" not in printed


@pytest.mark.parametrize("amp", AMP)
@pytest.mark.parametrize("model", NETWORKS)
def test_every_network_trains_in_every_precision(data_root, tmp_path, model, amp):
    flags = (*ON_GPU, "--rc", "--amp", amp)
    pretrained = pretrain(data_root, tmp_path / "pretrained", *flags, "--no-compile", model=model)
    tuned = train(data_root, tmp_path / "tuned", *flags, "--pretrained", pretrained / "model_best.pth", model=model)
    assert np.isfinite(column(pretrained, "train_loss") + column(tuned, "train_loss")).all()
    assert 0 <= column(tuned, "oa", "testlog.csv")[0] <= 1


@pytest.mark.parametrize("model", NETWORKS)
def test_every_network_compiles(data_root, tmp_path, capsys, model):
    assert np.isfinite(column(pretrain(data_root, tmp_path, *ON_GPU, "--compile", model=model), "valid_loss")).all()
    if model != "lstm":  # torch does not compile nn.LSTM, and runs it between the parts that it compiles
        assert "without CUDA graphs" not in capsys.readouterr().out


def test_a_run_goes_on_as_if_never_stopped(data_root, tmp_path):
    flags = (*ON_GPU, "--rc", "--amp", "off", "--no-compile")
    whole = pretrain(data_root, tmp_path / "whole", *flags, "-e", 2)
    half = pretrain(data_root, tmp_path / "half", *flags)
    rest = pretrain(data_root, tmp_path / "rest", *flags, "-e", 2, "--resume", half / "model_last.pth")
    expected, found = (checkpoint(folder, "model_last.pth") for folder in (whole, rest))
    torch.testing.assert_close(found["model_state"]["queue"], expected["model_state"]["queue"], atol=1e-3, rtol=1e-3)
    states = (saved["training"]["optimizer"]["state"] for saved in (found, expected))
    for own, other in zip(*(state.values() for state in states), strict=True):  # sums on a GPU have no fixed order
        assert own["step"] == other["step"]
        torch.testing.assert_close(own["exp_avg"], other["exp_avg"], atol=1e-4, rtol=1e-2)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are no two GPUs on this machine")
@pytest.mark.parametrize(
    ("script", "flags"), [("main_moco.py", ["--moco-k", 64, "--useall"]), ("main_tscls.py", ["-n", 50])]
)
def test_two_gpus_train_together(data_root, tmp_path, script, flags):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2, script, "stnet"]
    argv = [*launch, "--rc", "-b", 16, "-e", 1, *flags, "--datapath", data_root, "-l", tmp_path]
    done = subprocess.run(list(map(str, argv)), cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert np.isfinite(column(newest(tmp_path), "train_loss")).all()
