"""Mixed precision and compilation: what is asked for, or what suits the device."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch.optim import Optimizer

from utils.distributed import Ranks
from utils.errors import UsageError

if TYPE_CHECKING:
    from datasets.transforms import Series
    from moco.step import TrainingStep

AMP = ("off", "bf16", "fp16")
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def has_bf16(device: torch.device) -> bool:
    """Whether this is a GPU with bfloat16 arithmetic; torch emulates it, slowly, on those below capability 8.0."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


class Precision:
    """How a training step computes: ``with precision.autocast()`` for the forward, ``precision.step`` for the rest.

    Raises:
        UsageError: fp16 on a CPU.
    """

    def __init__(self, amp: str | None, device: torch.device):
        if amp is None:
            amp = "bf16" if has_bf16(device) else "off"
        if amp == "fp16" and device.type == "cpu":
            raise UsageError("--amp fp16 is for a GPU; give bf16 or off")
        self.amp, self.device = amp, device
        self.scaler = torch.amp.GradScaler(device.type, enabled=amp == "fp16")
        if device.type == "cuda":
            torch.set_float32_matmul_precision("high")  # TF32 where the hardware has it

    def autocast(self):
        if self.amp == "off":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=_DTYPES[self.amp])

    def step(self, loss: torch.Tensor, optimizer: Optimizer) -> None:
        """Backward and optimizer step; the gradients, which may lie in memory of a CUDA graph, are freed again."""
        self.scaler.scale(loss).backward()
        self.scaler.step(optimizer)
        self.scaler.update()
        optimizer.zero_grad(set_to_none=True)


def is_compiling_wanted(wanted: bool | None, ranks: Ranks) -> bool:
    """What --compile or --no-compile says; None: on a GPU, but not on several, which could not agree that it failed."""
    return wanted if wanted is not None else ranks.device.type == "cuda" and ranks.count == 1


def compiler(ranks: Ranks) -> Callable:
    """torch.compile for shapes that do not change; on a GPU with CUDA graphs, unless several ranks talk in the step."""
    if ranks.count > 1:
        torch._dynamo.config.optimize_ddp = False  # it would cut the graph, and not all that is in ours can be cut
    has_graphs = ranks.device.type == "cuda" and ranks.count == 1
    return partial(torch.compile, dynamic=False, mode="reduce-overhead" if has_graphs else None)


def compile_step(step: TrainingStep, batch: Series, ranks: Ranks, *, is_required: bool | None) -> None:
    """Compile a training step and rehearse it on a batch, so that what fails does so here.

    One line then says so, and everything is as if nothing had been tried.

    Raises:
        UsageError: it fails and ``is_required``, because the user asked for it, or other ranks go on with it.
    """
    if ranks.is_main:
        print("compiling the training step", flush=True)
    skips = torch._dynamo.utils.counters["inductor"]
    skipped = skips["cudagraph_skips"]
    try:
        step.compile(compiler(ranks))
        step.rehearse(batch)
    except Exception as error:  # of compiler, driver or GPU: there is no end to what they raise
        failed = f"torch.compile failed ({in_one_line(error)})"
        if is_required or ranks.count > 1:
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
