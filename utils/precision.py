"""Mixed precision and compilation: what is asked for, or what suits the device."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial

import torch
from torch import distributed as dist
from torch.optim import Optimizer

from utils.distributed import Ranks, any_rank
from utils.errors import UsageError

AMP = ("off", "bf16", "fp16")
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def has_bf16(device: torch.device) -> bool:
    """Whether this is a GPU with bfloat16 arithmetic; torch emulates it, slowly, on those below capability 8.0."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


class Precision:
    """How a training step computes: ``with precision.autocast()`` for the forward, ``precision.step`` for the rest."""

    def __init__(self, amp: str | None, device: torch.device):
        if amp is None:
            amp = "bf16" if has_bf16(device) else "off"
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


def is_compiling_wanted(wanted: bool | None, device: torch.device) -> bool:
    """What --compile or --no-compile says; None: on a GPU."""
    return wanted if wanted is not None else device.type == "cuda"


def compiler(device: torch.device) -> Callable:
    """torch.compile for shapes that do not change; on a GPU with CUDA graphs, unless several ranks talk in the step."""
    has_graphs = device.type == "cuda" and not (dist.is_available() and dist.is_initialized())
    return partial(torch.compile, dynamic=False, mode="reduce-overhead" if has_graphs else None)


def compile_step(step, batch, ranks: Ranks, *, is_must: bool | None) -> None:
    """Compile a training step (of moco/step.py) and rehearse it on a batch, so that what fails does so here.

    All ranks then go on without, one line says so, and everything is as if nothing had been tried.

    Raises:
        UsageError: it fails and ``is_must``, because the user asked for it.
    """
    reason = None
    try:
        step.compile(compiler(ranks.device))
        step.rehearse(batch)
    except Exception as error:  # of compiler, driver or GPU: there is no end to what they raise
        reason = f"{type(error).__name__}: {first_paragraph(error)}"
    if not any_rank(reason is not None, ranks.device):
        return
    step.uncompile()
    torch.compiler.reset()
    failed = f"torch.compile failed ({reason or 'on another rank'})"
    if is_must:
        raise UsageError(f"--compile: {failed}; leave it out")
    if ranks.is_main:
        print(f"{failed}; going on without it; --no-compile silences this", flush=True)


def first_paragraph(error: Exception) -> str:
    """What went wrong in one line, without the advice that torch adds."""
    return " ".join(str(error).split("\n\n")[0].split())
