"""The training step of pre-training, eager or compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from datasets.draws import draw_all, handing_out, plan
from datasets.transforms import Series
from utils.errors import UsageError
from utils.precision import Precision
from utils.runtime.distributed import World


class TrainingStep:
    """Views of a batch, forward, backward, update, of any pretext (see the package's docstring).

    Nothing in a step waits for a GPU. Compiled, it may be replayed from CUDA graphs, whose outputs lie in memory that
    the next step writes to: so no output is kept, and what a step returns is a copy.
    """

    def __init__(self, pretext: nn.Module, optimizer: Optimizer, precision: Precision):
        self.pretext, self.optimizer, self.precision = pretext, optimizer, precision
        self.uncompile()

    def __call__(self, series: Series, generator: Generator) -> dict[str, Tensor]:
        """Train on a batch of series; returns the loss and the pretext's figures, each (), on the device."""
        self.begin()
        return self.on_views(*self.views(series, generator))

    def begin(self) -> None:
        """Tell CUDA graphs that the outputs of the step before may be overwritten.

        This comes before the views. Until it has been called once, torch takes each call of a compiled function for
        the beginning of a step, and frees the views before the model has read them.
        """
        if self.is_compiled:
            torch.compiler.cudagraph_mark_step_begin()

    def on_views(self, *views: tuple) -> dict[str, Tensor]:
        """The step after the views are made."""
        self.pretext.before_step()
        output = self.forward(views)
        self.precision.backward_and_step(output.loss, self.optimizer)
        self.pretext.after_step(output)
        figures = {"loss": output.loss.detach(), **output.figures}
        return dict(zip(figures, torch.stack(list(figures.values())).unbind(), strict=True))

    def forward(self, views: tuple) -> object:
        """What the pretext makes of the views."""
        with self.precision.autocast():
            return self.model(*views)

    @contextmanager
    def parallel(self, world: World) -> Iterator[None]:
        """Within this context gradients are averaged over ranks."""
        model = self.model
        self.model = world.parallel(model)
        try:
            yield
        finally:
            self.model = model  # drop DDP before its process group, or it can hang

    def compile(self, compiler: Callable) -> None:
        """Have views and pretext compiled by ``compiler`` (torch.compile with its options) at their first call."""
        self.views, self.model = CompiledViews(self.pretext.views, compiler), compiler(self.pretext)
        self.is_compiled = True

    def uncompile(self) -> None:
        """Undo ``compile``."""
        self.views, self.model, self.is_compiled = self.pretext.views, self.pretext, False

    def warm_up(self, series: Series, rounds: int = 3) -> None:
        """Compute gradients of a batch and discard them; weights, buffers and random numbers stay as they were.

        The first round compiles, the second captures CUDA graphs, the third replays them, so that whatever can fail
        fails here.
        """
        device = series.values.device
        kept = {name: tensor.clone() for name, tensor in self.pretext.state_dict().items()}
        self.pretext.train()
        try:
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                generator = Generator(device)
                for _ in range(rounds):
                    self.begin()
                    views = self.views(series, generator)
                    output = self.forward(views)
                    output.loss.backward()
                    self.optimizer.zero_grad(set_to_none=True)
                    del views, output  # alive until here, as in a step: a graph is captured with what is alive
        finally:
            self.optimizer.zero_grad(set_to_none=True)
            self.pretext.load_state_dict(kept)


class CompiledViews:
    """``views`` of (series, generator), compiled; the same random numbers, and the same views up to rounding.

    torch.compile cannot trace a generator, so the random numbers are drawn before. The gather from a store on the
    device is not compiled: a CUDA graph would copy the whole store with every batch.
    """

    def __init__(self, views: Callable[[Series, Generator], tuple], compiler: Callable):
        self.plain, self.plans = views, {}
        self.compiled = compiler(self.from_numbers)

    def from_numbers(self, series: Series, numbers: list[Tensor]) -> tuple:
        """What is compiled: it draws nothing itself."""
        return self.plain(series, handing_out(numbers))

    def __call__(self, series: Series, generator: Generator) -> tuple:
        shape, device = series.values.shape, series.values.device
        if shape not in self.plans:
            shadow = Series(*(part if part is None else part.to("meta") for part in series))
            self.plans[shape] = plan(lambda source: self.plain(shadow, source))
        return self.compiled(series, draw_all(self.plans[shape], device, generator))


def is_compiling_wanted(requested: bool | None, world: World) -> bool:
    """What --compile or --no-compile says. None: only on a single GPU, as several could not agree that it failed."""
    return requested if requested is not None else world.device.type == "cuda" and world.size == 1


def compiler(world: World) -> Callable:
    """torch.compile for fixed shapes; on a single GPU with CUDA graphs."""
    if world.size > 1:
        torch._dynamo.config.optimize_ddp = False  # it would split the graph, which fails at our autograd functions
    has_graphs = world.device.type == "cuda" and world.size == 1
    return partial(torch.compile, dynamic=False, mode="reduce-overhead" if has_graphs else None)


def compile_step(step: TrainingStep, batch: Series, world: World, *, is_required: bool | None) -> None:
    """Compile a training step and warm it up on a batch, so that whatever fails does so here.

    A failure is told in one line, and the step is eager again.

    Raises:
        UsageError: it fails and ``is_required``, because the user asked for it, or because other ranks depend on it.
    """
    if world.is_main:
        print("compiling the training step", flush=True)
    skips = torch._dynamo.utils.counters["inductor"]
    skipped = skips["cudagraph_skips"]
    try:
        step.compile(compiler(world))
        step.warm_up(batch)
    except Exception as error:  # backends raise arbitrary exceptions
        failed = f"torch.compile failed ({in_one_line(error)})"
        if is_required or world.size > 1:
            raise UsageError(f"--compile: {failed}; leave it out") from None
        step.uncompile()
        torch.compiler.reset()
        print(f"{failed}; continuing without it; --no-compile silences this", flush=True)
    else:
        if skipped := skips["cudagraph_skips"] - skipped:
            slower = f"compiled, but {skipped} parts without CUDA graphs, which is slower"
            print(f"{slower}; TORCH_LOGS=perf_hints tells why")


def in_one_line(error: Exception) -> str:
    """The message of an error without the advice and the stack that torch appends."""
    text = " ".join(str(error).split("\n\n")[0].split())
    name = type(error).__name__
    return f"{name}: {text[:200]}" if text else name
