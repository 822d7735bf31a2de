"""Threads, the place of the store, precision and compilation change neither the views nor, in float32, the losses."""

from __future__ import annotations

from functools import partial

import pytest
import torch

import main_moco
from datasets.batches import MappedSeries, ResidentSeries
from datasets.catalog import open_unlabelled
from models import build_model
from pretraining.data import PretrainingData
from pretraining.step import TrainingStep, compile_step
from tests.conftest import DEVICES
from tests.support.runs import SMALL
from utils.runtime.distributed import World
from utils.runtime.seeding import RandomStreams

FLAGS = ("transformer", "--use-doy", "--mlp", "--useall", "--moco-k", "64", *SMALL)
STEPS = 3  # of 60 series 54 are trained on, 16 in a step
METHODS = pytest.mark.parametrize("method", [("--rc",), ()], ids=["rc", "pad"])


@pytest.fixture(scope="module", params=DEVICES)
def epoch(request, data_root):
    """A function that trains an epoch without dropout, whose random numbers torch.compile draws differently."""
    device, precision = request.param, torch.get_float32_matmul_precision()
    patch = pytest.MonkeyPatch()
    patch.setattr(main_moco, "build_model", partial(build_model, dropout=0))

    def trained(*flags: str, resident: bool = False) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Losses (STEPS,), and all parts of all views."""
        args = main_moco.get_args([*FLAGS, "--no-compile", "--amp", "off", *flags])
        series, world = open_unlabelled(data_root, args.year), World(0, 1, device)
        streams = RandomStreams(args.seed, device)
        data = PretrainingData(series, args.batchsize, streams, world, args.workers)
        reader = ResidentSeries if resident else partial(MappedSeries, fixed_width=True)
        data.reader = reader(series, device)
        run = main_moco.build_run(args, series, data.steps_per_epoch, world)
        torch.set_float32_matmul_precision("highest")  # without TF32 of a GPU, which rounds as it likes
        step, losses, views = TrainingStep(run.module, run.optimizer, run.precision), [], []
        on_views = step.on_views

        def record_views(*pair):
            views.extend(part.clone() for view in pair for part in view if part is not None)
            return on_views(*pair)

        step.on_views = record_views
        if args.compile:
            compile_step(step, data.example(), world, is_required=True)
        run.module.train()
        for position, batch in enumerate(data.train(0)):
            streams.seek(0, position)
            losses.append(step(batch, streams.augment)["loss"])
        assert len(losses) == STEPS and step.is_compiled == ("--compile" in flags)
        return torch.stack(losses), views

    yield trained
    patch.undo()
    torch.set_float32_matmul_precision(precision)


@METHODS
@pytest.mark.parametrize("other", [{"flags": ("-j", "2")}, {"resident": True}], ids=["read ahead", "resident"])
def test_the_views_are_the_same_to_the_bit(epoch, method, other):
    losses, views = epoch(*method)
    other_losses, other_views = epoch(*method, *other.get("flags", ()), resident="resident" in other)
    assert all(torch.equal(a, b) for a, b in zip(views, other_views, strict=True))
    if losses.is_cuda:  # where sums have no fixed order
        torch.testing.assert_close(other_losses, losses, atol=1e-4, rtol=1e-4)
    else:
        assert torch.equal(losses, other_losses)


@METHODS
def test_in_bf16(epoch, method):
    """The views are the same to the bit: they are made in float32."""
    losses, views = epoch(*method)
    other_losses, other_views = epoch(*method, "--amp", "bf16")
    assert all(torch.equal(a, b) for a, b in zip(views, other_views, strict=True))
    torch.testing.assert_close(other_losses, losses, atol=0, rtol=0.02)
    assert not torch.equal(losses, other_losses)


def test_compiled(epoch):
    losses, views = epoch("--rc")
    other_losses, other_views = epoch("--rc", "--compile")
    for a, b in zip(views, other_views, strict=True):
        torch.testing.assert_close(b, a, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(other_losses, losses, atol=1e-4, rtol=1e-4)
