"""The training step: what it leaves, what it must not keep, and what happens where it cannot be compiled."""

from __future__ import annotations

import weakref
from functools import partial

import pytest
import torch

import main_moco
from datasets.transforms import Series
from moco.builder import MoCo
from moco.loader import two_views
from moco.step import TrainingStep
from models import build_model
from tests.runs import pretrain, refused, rows, same, weights
from tests.series import make_batch, seeded
from utils.precision import Precision

CPU = torch.device("cpu")
VIEWS = partial(two_views, size=12, method="rc")


def make_step(device: str = "cpu", bn_splits: int = 1, dropout: float = 0.2) -> TrainingStep:
    torch.manual_seed(0)
    encoder = partial(build_model, "transformer", init="torch", dropout=dropout)
    moco = MoCo(encoder, dim=8, K=20, bn_splits=bn_splits).to(device)
    optimizer = torch.optim.SGD(moco.encoder_q.parameters(), 0.1)
    return TrainingStep(moco.train(), VIEWS, optimizer, Precision("off", CPU))


def test_a_step_returns_loss_and_top1_and_moves_all():
    step, series = make_step(), make_batch([20, 9, 14, 3])
    before = {name: tensor.clone() for name, tensor in step.moco.state_dict().items()}
    loss, top1 = step(series, seeded())
    assert 0 < loss < 20 and 0 <= top1 <= 1
    moved = {name for name, tensor in step.moco.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {"queue", "queue_ptr", "encoder_q.mlp1.0.lin.weight", "encoder_k.mlp1.0.bn.running_mean"} <= moved
    assert "encoder_k.mlp1.0.lin.weight" not in moved  # it follows in the next step
    assert all(p.grad is None for p in step.moco.parameters())


def test_nothing_that_the_model_returned_outlives_the_step():
    """A CUDA graph writes the next step's outputs to the same memory."""
    step, returned = make_step(), []

    def model(*pair):
        contrast = step.moco(*pair)
        returned.extend(map(weakref.ref, contrast[:-1]))  # less the queue
        return contrast

    step.model = model
    scores = step(make_batch([20, 9, 14, 3]), seeded())
    assert returned and not [one for one in returned if one() is not None] and scores.shape == (2,)


def test_a_step_never_looks_at_a_number():
    """Tensors of the meta device have none: what would wait for a GPU fails there."""
    step, series = make_step("meta"), Series(*(part.to("meta") for part in make_batch([20, 9, 14, 3])))
    assert step(series, lambda kind, shape, device: kind(shape, device=device)).shape == (2,)


@pytest.mark.parametrize("bn_splits", [1, 2])
def test_views_and_model_compile_in_one_piece_each(bn_splits):
    """But for the dropout of CPUs, which is left to them."""
    plain, whole = (make_step(bn_splits=bn_splits, dropout=0) for _ in range(2))
    whole.compile(partial(torch.compile, fullgraph=True, dynamic=False, backend="aot_eager"))
    assert whole.is_compiled
    for seed in range(3):
        scores = []
        for step in (plain, whole):
            torch.manual_seed(seed)  # which shuffles the keys
            scores.append(step(make_batch([20, 9, 14, 3], seed=seed), seeded(seed)))
        torch.testing.assert_close(*scores, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(whole.moco.state_dict(), plain.moco.state_dict(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("fails", [False, True])
def test_a_rehearsal_leaves_nothing_behind(fails):
    step, series = make_step(bn_splits=2), make_batch([20, 9, 14, 3])
    before = {name: tensor.clone() for name, tensor in step.moco.state_dict().items()}
    random_numbers = torch.get_rng_state()
    if fails:
        step.model = lambda *pair: (step.moco(*pair), torch.rand(1), 1 / 0)
        with pytest.raises(ZeroDivisionError):
            step.rehearse(series)
    else:
        step.rehearse(series)
    assert same(step.moco.state_dict(), before) and torch.equal(torch.get_rng_state(), random_numbers)
    assert all(p.grad is None for p in step.moco.parameters())


# ---- a compiler that fails


@pytest.fixture
def broken_compiler(monkeypatch):
    """torch.compile gives functions that fail when they are called for the second time."""

    def compile(function, **options):
        calls = []

        def compiled(*args):
            calls.append(1)
            if len(calls) == 2:
                raise RuntimeError("backend='inductor' raised:\nno C++ compiler\n\nSet TORCHDYNAMO_VERBOSE=1 for more")
            return function(*args)

        return compiled

    monkeypatch.setattr(torch, "compile", compile)


def test_by_default_a_run_goes_on_without(data_root, tmp_path, monkeypatch, capsys, broken_compiler):
    flags = ("--rc", "--use-doy", "-e", 2)
    plain = pretrain(data_root, tmp_path / "plain", *flags, "--no-compile")
    assert "torch.compile" not in capsys.readouterr().out
    monkeypatch.setattr(main_moco, "is_compiling_wanted", lambda wanted, device: True)  # as on a GPU
    other = pretrain(data_root, tmp_path / "other", *flags)
    said = "torch.compile failed (RuntimeError: backend='inductor' raised: no C++ compiler); going on without it;"
    assert capsys.readouterr().out.count(f"\n{said} --no-compile silences this\n") == 1
    assert rows(other) == rows(plain) and same(weights(other), weights(plain))


def test_what_was_asked_for_must_work(data_root, tmp_path, capsys, broken_compiler):
    argv = ["lstm", "--compile", "--useall", "-b", 16, "--moco-k", 64, "-d", "cpu", "--datapath", data_root]
    message = refused(main_moco, [*argv, "-l", tmp_path], capsys)
    assert message == (
        "--compile: torch.compile failed (RuntimeError: backend='inductor' raised: no C++ compiler); leave it out"
    )
