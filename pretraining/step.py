"""The training step of pre-training: what main_moco.py does with every batch, and what is timed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Generator, Tensor
from torch.optim import Optimizer

from datasets.transforms import Series
from moco.builder import Contrast, MoCo
from moco.loader import CompiledViews
from utils.errors import UsageError
from utils.precision import Precision
from utils.runtime.distributed import World


class TrainingStep:
    """Two views of a batch, contrast, backward, update, enqueue: Algorithm 1 of MoCo.

    ``views`` makes the two views of (series, generator); ``precision`` says how to compute. Nothing in a step waits for
    a GPU. Compiled, it may be replayed from CUDA graphs, whose outputs live in memory that the next step writes to: so
    nothing of them is kept, and what a step returns is a copy.
    """

    def __init__(self, moco: MoCo, views: Callable[..., tuple], optimizer: Optimizer, precision: Precision):
        self.moco, self.optimizer, self.precision = moco, optimizer, precision
        self.plain_views, self.is_compiled = views, False
        self.views, self.model = views, moco  # as they are called: maybe compiled, the model maybe one of several ranks

    def __call__(self, series: Series, generator: Generator) -> Tensor:
        """Train on a batch of series; returns loss and top-1, (2,), on the device."""
        self.begin()
        return self.on_views(*self.views(series, generator=generator))

    def begin(self) -> None:
        """Tell CUDA graphs that the outputs of the step before may be written over.

        It comes before the views. Until it was called once, torch takes each call of a compiled function for the
        beginning of a step, and frees the views before the model has read them.
        """
        if self.is_compiled:
            torch.compiler.cudagraph_mark_step_begin()

    def on_views(self, view_q: tuple, view_k: tuple) -> Tensor:
        """The step from the views on."""
        self.moco.update_key_encoder()
        contrast = self.contrast(view_q, view_k)
        self.precision.step(contrast.loss, self.optimizer)
        self.moco.enqueue(contrast.keys)
        return torch.stack((contrast.loss.detach(), contrast.top1))

    def contrast(self, view_q: tuple, view_k: tuple) -> Contrast:
        """Forward."""
        with self.precision.autocast():
            return self.model(view_q, view_k)

    def compile(self, compiler: Callable) -> None:
        """Have views and model compiled by ``compiler`` (torch.compile with its options) when first called."""
        self.views, self.model = CompiledViews(self.plain_views, compiler), compiler(self.moco)
        self.is_compiled = True

    def uncompile(self) -> None:
        """Be as before ``compile``."""
        self.views, self.model, self.is_compiled = self.plain_views, self.moco, False

    def rehearse(self, series: Series, rounds: int = 3) -> None:
        """Compute gradients of a batch and throw them away; weights, buffers and random numbers stay as they were.

        The first round compiles, the second captures CUDA graphs, the third replays them: what can fail, fails here.
        """
        device = series.values.device
        kept = {name: tensor.clone() for name, tensor in self.moco.state_dict().items()}
        self.moco.train()
        try:
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                generator = Generator(device)
                for _ in range(rounds):
                    self.begin()
                    view_q, view_k = self.views(series, generator=generator)
                    contrast = self.contrast(view_q, view_k)
                    contrast.loss.backward()
                    self.optimizer.zero_grad(set_to_none=True)
                    del view_q, view_k, contrast  # alive until here, as in a step: a graph is of what is alive
        finally:
            self.optimizer.zero_grad(set_to_none=True)
            self.moco.load_state_dict(kept)


def is_compiling_wanted(wanted: bool | None, world: World) -> bool:
    """What --compile or --no-compile says; None: on a GPU, but not on several, which could not agree that it failed."""
    return wanted if wanted is not None else world.device.type == "cuda" and world.size == 1


def compiler(world: World) -> Callable:
    """torch.compile for shapes that do not change; on a GPU with CUDA graphs, unless several ranks talk in the step."""
    if world.size > 1:
        torch._dynamo.config.optimize_ddp = False  # it would cut the graph, and not all that is in ours can be cut
    has_graphs = world.device.type == "cuda" and world.size == 1
    return partial(torch.compile, dynamic=False, mode="reduce-overhead" if has_graphs else None)


def compile_step(step: TrainingStep, batch: Series, world: World, *, is_required: bool | None) -> None:
    """Compile a training step and rehearse it on a batch, so that what fails does so here.

    One line then says so, and everything is as if nothing had been tried.

    Raises:
        UsageError: it fails and ``is_required``, because the user asked for it, or other ranks go on with it.
    """
    if world.is_main:
        print("compiling the training step", flush=True)
    skips = torch._dynamo.utils.counters["inductor"]
    skipped = skips["cudagraph_skips"]
    try:
        step.compile(compiler(world))
        step.rehearse(batch)
    except Exception as error:  # of compiler, driver or GPU: there is no end to what they raise
        failed = f"torch.compile failed ({in_one_line(error)})"
        if is_required or world.size > 1:
            raise UsageError(f"--compile: {failed}; leave it out") from None
        step.uncompile()
        torch.compiler.reset()
        print(f"{failed}; going on without it; --no-compile silences this", flush=True)
    else:
        if skipped := skips["cudagraph_skips"] - skipped:
            slower = f"compiled, but {skipped} parts without CUDA graphs, which is slower"
            print(f"{slower}; TORCH_LOGS=perf_hints tells why")


def in_one_line(error: Exception) -> str:
    """What went wrong, without the advice and the stack that torch adds."""
    text = " ".join(str(error).split("\n\n")[0].split())
    name = type(error).__name__
    return f"{name}: {text[:200]}" if text else name
