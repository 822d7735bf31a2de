"""The training step: what it leaves, what it must not keep, and what happens where it cannot be compiled."""

from __future__ import annotations

import copy
import weakref
from functools import partial

import pytest
import torch

import main_moco
from datasets.transforms import Series
from moco.builder import MoCo
from moco.loader import two_views
from models import build_model
from pretraining.step import CompiledViews, TrainingStep, compile_step, compiler, in_one_line, is_compiling_wanted
from tests.support.runs import pretrain, refused, rows, same, weights
from tests.support.series import make_batch, seeded
from utils.errors import UsageError
from utils.precision import Precision
from utils.runtime.distributed import World

CPU = torch.device("cpu")
SECOND_OF_TWO = World(1, 2, CPU)
VIEWS = partial(two_views, size=12, method="rc")


def make_step(device: str = "cpu", bn_splits: int = 1, dropout: float = 0.2) -> TrainingStep:
    torch.manual_seed(0)
    encoder = build_model("transformer", init="torch", dropout=dropout)
    moco = MoCo(encoder, VIEWS, dim=8, K=20, bn_splits=bn_splits).to(device)
    optimizer = torch.optim.Adam(moco.encoder_q.parameters(), 0.1)
    return TrainingStep(moco.train(), optimizer, Precision("off", CPU))


def test_a_step_returns_loss_and_top1_and_moves_all():
    step, series = make_step(), make_batch([20, 9, 14, 3])
    before = {name: tensor.clone() for name, tensor in step.pretext.state_dict().items()}
    figures = step(series, seeded())
    assert set(figures) == {"loss", "top1"} and 0 < figures["loss"] < 20 and 0 <= figures["top1"] <= 1
    moved = {name for name, tensor in step.pretext.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {"queue", "queue_ptr", "encoder_q.mlp1.0.lin.weight", "encoder_k.mlp1.0.bn.running_mean"} <= moved
    assert "encoder_k.mlp1.0.lin.weight" not in moved  # it follows in the next step
    assert all(p.grad is None for p in step.pretext.parameters())


def watched(step: TrainingStep) -> tuple[dict, list[set]]:
    """References by name to what views and model return, and the names alive at the start of each backward."""
    made, alive = {}, []
    views, model = step.views, step.model

    def watching_views(series, generator):
        pair = views(series, generator)
        for view, name in zip(pair, "qk", strict=True):
            made.update({f"{name}.{k}": weakref.ref(v) for k, v in view._asdict().items() if v is not None})
        return pair

    def watching_model(*pair):
        contrast = model(*pair)
        made.update({k: weakref.ref(v) for k, v in contrast._asdict().items() if k != "queue"})
        contrast.loss.register_hook(lambda _: alive.append({name for name, one in made.items() if one() is not None}))
        return contrast

    step.views, step.model = watching_views, watching_model
    return made, alive


def test_nothing_that_views_and_model_returned_outlives_the_step():
    """A CUDA graph writes the next step's outputs to the same memory."""
    step = make_step()
    made, _ = watched(step)
    scores = step(make_batch([20, 9, 14, 3]), seeded())
    assert len(made) == 11 and not [name for name, one in made.items() if one() is not None]
    assert all(figure.shape == () for figure in scores.values())


def test_what_is_alive_in_a_step_is_alive_in_its_warm_up():
    """A CUDA graph of the backward is captured for that, and else captured again in the first step."""
    step, series = make_step(), make_batch([20, 9, 14, 3])
    _, alive = watched(step)
    step.warm_up(series, rounds=1)
    step(series, seeded())
    assert alive[0] == alive[1] and {"q.x", "k.doy", "hardest", "keys"} <= alive[0]


def test_a_step_begins_before_its_views(monkeypatch):
    """Or else CUDA graphs free the views before the model has read them."""
    called, step, series = [], make_step(), make_batch([20, 9, 14, 3])
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: called.append("begin"))

    def compiler(function):
        name = getattr(function, "__name__", "model")
        return lambda *given: called.append(name) or function(*given)

    step.compile(compiler)
    step.warm_up(series, rounds=1)
    step(series, seeded())
    assert called == ["begin", "from_numbers", "model"] * 2


def test_a_step_never_waits_for_a_value():
    """Tensors of the meta device have none: what would wait for a GPU fails there."""
    step, series = make_step("meta"), Series(*(part.to("meta") for part in make_batch([20, 9, 14, 3])[:3]))
    figures = step(series, lambda kind, shape, device: kind(shape, device=device))
    assert all(figure.device.type == "meta" for figure in figures.values())


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
    torch.testing.assert_close(whole.pretext.state_dict(), plain.pretext.state_dict(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("fails", [False, True])
def test_a_warm_up_changes_nothing(fails):
    step, series = make_step(bn_splits=2), make_batch([20, 9, 14, 3])
    step(series, seeded())
    before, moments = (copy.deepcopy(part.state_dict()) for part in (step.pretext, step.optimizer))
    random_numbers = torch.get_rng_state()
    if fails:
        step.model = lambda *pair: (step.pretext(*pair), torch.rand(1), 1 / 0)
        with pytest.raises(ZeroDivisionError):
            step.warm_up(series)
    else:
        step.warm_up(series)
    assert same(step.pretext.state_dict(), before) and torch.equal(torch.get_rng_state(), random_numbers)
    assert all(p.grad is None for p in step.pretext.parameters())
    torch.testing.assert_close(step.optimizer.state_dict(), moments, atol=0, rtol=0)


def test_each_round_of_a_warm_up_is_a_training_step_with_fresh_gradients(monkeypatch):
    step, seen = make_step(), []
    forward = step.forward

    def watched_forward(views):
        seen.append((step.pretext.training, all(p.grad is None for p in step.pretext.parameters())))
        return forward(views)

    monkeypatch.setattr(step, "forward", watched_forward)
    step.pretext.eval()
    step.warm_up(make_batch([20, 9, 14, 3]))
    assert seen == [(True, True)] * 3


def test_the_gradients_of_a_warm_up_that_fails_are_discarded():
    """The backward fails at the last layer that it reaches."""
    step = make_step()

    def fail(gradient):
        assert any(p.grad is not None for p in step.pretext.parameters())
        raise RuntimeError("out of memory")

    step.pretext.encoder_q.mlp1[0].lin.weight.register_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        step.warm_up(make_batch([20, 9, 14, 3]))
    assert all(p.grad is None for p in step.pretext.parameters())


@pytest.mark.parametrize(("method", "size"), [("rc", 12), ("rc", 30), ("pad", 12), ("pad", 30)])
def test_views_compile_in_one_piece_from_numbers_drawn_before(method, size):
    """The same numbers by the same calls, and none of them changed: so the same views to the bit, uncompiled."""
    views = partial(two_views, size=size, method=method)
    compiled = CompiledViews(views, partial(torch.compile, fullgraph=True, dynamic=False, backend="eager"))
    for seed, count in ((1, 16), (2, 16), (3, 4)):
        series, generator, other = make_batch([25, 9, 14, 1][:count] * 4), seeded(seed), seeded(seed)
        for made, expected in zip(compiled(series, generator), views(series, other), strict=True):
            for part, other_part in zip(made, expected, strict=True):
                assert part is other_part is None or torch.equal(part, other_part)
        assert torch.equal(generator.get_state(), other.get_state())


GPU = torch.device("cuda")


@pytest.mark.parametrize(
    ("world", "expected"),
    [(World(), False), (World(0, 1, GPU), True), (World(0, 2, GPU), False), (SECOND_OF_TWO, False)],
)
def test_by_default_one_gpu_compiles(world, expected):
    assert is_compiling_wanted(None, world) is expected
    assert is_compiling_wanted(True, world) is True and is_compiling_wanted(False, world) is False


@pytest.mark.parametrize(
    ("world", "mode", "splits"),
    [
        (World(), None, True),
        (World(0, 1, GPU), "reduce-overhead", True),
        (World(0, 2, GPU), None, False),
        (SECOND_OF_TWO, None, False),
    ],
)
def test_shapes_are_fixed_and_one_gpu_has_cuda_graphs(world, mode, splits):
    """DDP would split the graph, which fails at our autograd functions."""
    with torch._dynamo.config.patch(optimize_ddp=True):
        made = compiler(world)
        assert torch._dynamo.config.optimize_ddp is splits
    assert made.func is torch.compile and made.keywords == {"dynamic": False, "mode": mode}


@pytest.fixture
def skipping(monkeypatch):
    """A step whose warm-up skips two CUDA graphs, after three that were skipped before; a list of calls."""
    called = []

    def warm_up(step, batch):
        called.append(batch)
        torch._dynamo.utils.counters["inductor"]["cudagraph_skips"] += 2

    monkeypatch.setattr(TrainingStep, "warm_up", warm_up)
    monkeypatch.setitem(torch._dynamo.utils.counters["inductor"], "cudagraph_skips", 3)
    return called


@pytest.mark.parametrize("world", [World(), SECOND_OF_TWO])
def test_parts_without_cuda_graphs_are_counted(skipping, capsys, world):
    step, batch = make_step(), make_batch([20, 9, 14, 3])
    with torch._dynamo.config.patch(optimize_ddp=True):
        compile_step(step, batch, world, is_required=None)
    told = capsys.readouterr().out
    assert step.is_compiled and len(skipping) == 1 and skipping[0] is batch
    assert "compiled, but 2 parts without CUDA graphs, which is slower; TORCH_LOGS=perf_hints tells why" in told
    assert told.startswith("compiling the training step\n") == world.is_main


def test_nothing_is_said_of_cuda_graphs_where_none_is_skipped(monkeypatch, capsys):
    monkeypatch.setattr(TrainingStep, "warm_up", lambda step, batch: None)
    compile_step(make_step(), make_batch([20, 9]), World(), is_required=None)
    assert capsys.readouterr().out == "compiling the training step\n"


def test_a_failed_compilation_is_forgotten(monkeypatch, capsys):
    def fail(step, batch):
        raise RuntimeError("no such kernel")

    reset = []
    monkeypatch.setattr(TrainingStep, "warm_up", fail)
    monkeypatch.setattr(torch.compiler, "reset", lambda: reset.append(1))
    step = make_step()
    compile_step(step, make_batch([20, 9]), World(), is_required=None)
    assert reset == [1] and not step.is_compiled and step.model is step.pretext
    assert "torch.compile failed (RuntimeError: no such kernel); continuing without it" in capsys.readouterr().out


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


def test_by_default_a_run_continues_uncompiled(data_root, tmp_path, monkeypatch, capsys, broken_compiler):
    flags = ("--rc", "--use-doy", "-e", 2)
    plain = pretrain(data_root, tmp_path / "plain", *flags, "--no-compile")
    assert "torch.compile" not in capsys.readouterr().out
    monkeypatch.setattr(main_moco, "is_compiling_wanted", lambda wanted, ranks: True)  # as on a GPU
    other = pretrain(data_root, tmp_path / "other", *flags)
    said = "torch.compile failed (RuntimeError: backend='inductor' raised: no C++ compiler); continuing without it;"
    assert capsys.readouterr().out.count(f"\n{said} --no-compile silences this\n") == 1
    assert rows(other) == rows(plain) and same(weights(other), weights(plain))


def test_compiling_on_request_must_succeed(data_root, tmp_path, capsys, broken_compiler):
    argv = ["lstm", "--compile", "--useall", "-b", 16, "--moco-k", 64, "-d", "cpu", "--datapath", data_root]
    message = refused(main_moco, [*argv, "-l", tmp_path], capsys)
    assert message == (
        "--compile: torch.compile failed (RuntimeError: backend='inductor' raised: no C++ compiler); leave it out"
    )


def test_among_several_ranks_a_failure_to_compile_ends_the_run(broken_compiler):
    """The others depend on it, so it cannot continue uncompiled."""
    assert not is_compiling_wanted(None, World(0, 2, torch.device("cuda"))) and is_compiling_wanted(True, SECOND_OF_TWO)
    with pytest.raises(UsageError, match="--compile: torch.compile failed .*; leave it out"):
        compile_step(make_step(), make_batch([20, 9, 14, 3]), SECOND_OF_TWO, is_required=None)


@pytest.mark.parametrize(
    ("error", "line"),
    [(AssertionError(), "AssertionError"), (RuntimeError("one\ntwo\n\nthree"), "RuntimeError: one two")],
)
def test_an_error_in_one_line(error, line):
    assert in_one_line(error) == line and len(in_one_line(RuntimeError("long " * 1000))) < 250
