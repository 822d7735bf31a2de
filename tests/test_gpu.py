"""What only a GPU can show: no step waits for it, CUDA graphs are used, and both scripts run there as by default."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import main_moco
from datasets.catalog import open_unlabelled
from main_moco import Trainer
from models import NETWORKS
from tests.conftest import needs_gpu
from tests.runs import column, pretrain, train, weights
from utils.distributed import Ranks
from utils.precision import AMP

pytestmark = needs_gpu
ON_GPU = ("-d", "cuda")


@pytest.mark.parametrize("compiling", ["--compile", "--no-compile"])
def test_no_step_waits_for_the_gpu(data_root, compiling):
    args = main_moco.get_args(["transformer", "--rc", "--mlp", "--useall", "--moco-k", "64", "-b", "16", compiling])
    trainer = Trainer(args, open_unlabelled(data_root, args.year), Ranks(0, 1, torch.device("cuda", 0)))
    trainer.prepare_step()
    trainer.train_epoch(None)  # what is set up at the first use may wait
    batches = [trainer.reader.gather(batch) for batch in trainer.batches()]
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step, series in enumerate(batches):
            trainer.streams.seek(1, step)
            trainer.train_step(series, trainer.streams.augment)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_by_default_the_step_is_compiled_into_graphs(data_root, tmp_path, capsys):
    pretrain(data_root, tmp_path, *ON_GPU, "--rc", "--mlp")
    printed = capsys.readouterr().out
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
def test_every_network_compiles(data_root, tmp_path, model):
    assert np.isfinite(column(pretrain(data_root, tmp_path, *ON_GPU, "--compile", model=model), "valid_loss")).all()


def test_a_run_goes_on_as_if_never_stopped(data_root, tmp_path):
    flags = (*ON_GPU, "--rc", "--amp", "off", "--no-compile")
    whole = pretrain(data_root, tmp_path / "whole", *flags, "-e", 2)
    half = pretrain(data_root, tmp_path / "half", *flags)
    rest = pretrain(data_root, tmp_path / "rest", *flags, "-e", 2, "--resume", half / "model_last.pth")
    expected, found = weights(whole), weights(rest)
    assert torch.equal(found["queue_ptr"], expected["queue_ptr"])
    torch.testing.assert_close(found["queue"], expected["queue"], atol=1e-3, rtol=1e-3)
