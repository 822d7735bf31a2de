"""Mixed precision: what is asked for, or what suits the device."""

from __future__ import annotations

import contextlib

import torch
from torch import nn
from torch.optim import Optimizer

from utils.errors import UsageError

AMP = ("off", "bf16", "fp16")
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def has_bf16(device: torch.device) -> bool:
    """Whether this is a GPU with bfloat16 arithmetic; torch emulates it, slowly, on those below capability 8.0."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


class Precision:
    """How a training step computes: ``with precision.autocast()`` for the forward, ``backward_and_step`` for the rest.

    ``clip_grad`` is the largest norm of the gradients of all weights together (Pascanu et al. 2013); None: any.

    Raises:
        UsageError: fp16 on a CPU.
    """

    def __init__(self, amp: str | None, device: torch.device, clip_grad: float | None = None):
        if amp is None:
            amp = "bf16" if has_bf16(device) else "off"
        if amp == "fp16" and device.type == "cpu":
            raise UsageError("--amp fp16 is for a GPU; give bf16 or off")
        self.amp, self.device, self.clip_grad = amp, device, clip_grad
        self.scaler = torch.amp.GradScaler(device.type, enabled=amp == "fp16")
        if device.type == "cuda":
            torch.set_float32_matmul_precision("high")  # TF32 where the hardware has it

    @property
    def dtype(self) -> torch.dtype:
        """Of matrix products."""
        return _DTYPES.get(self.amp, torch.float32)

    def autocast(self):
        if self.amp == "off":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=_DTYPES[self.amp])

    def backward_and_step(self, loss: torch.Tensor, optimizer: Optimizer) -> None:
        """Backward and optimizer step; gradients, which may lie in memory of a CUDA graph, are freed after it."""
        self.scaler.scale(loss).backward()  # DDP has then averaged the gradients over ranks
        if self.clip_grad is not None:
            self.scaler.unscale_(optimizer)
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            nn.utils.clip_grad_norm_(weights, self.clip_grad)
        self.scaler.step(optimizer)
        self.scaler.update()
        optimizer.zero_grad(set_to_none=True)
