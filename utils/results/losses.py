"""Losses that are infinite or not a number: found without waiting for a GPU, told with the series they came from."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from utils.checkpoint import LAST
from utils.errors import UsageError
from utils.files import as_json, write_text
from utils.runtime.distributed import rank_and_size

REMEDY = "lower -lr, or give --clip-grad"


class LossWatch:
    """Looks at the loss of every step, in order.

    On the CPU that is at once. On a GPU the value is copied to the host behind the step that computes it, and looked
    at when it has arrived, while later steps are queued already: training is never held up, and stops some steps late.

    Args:
        on_bad: called with (loss, epoch, step) of the first loss that is not finite; raises.
    """

    def __init__(self, on_bad: Callable[[float, int, int], None]):
        self.on_bad = on_bad
        self.coming: deque = deque()  # of (has it arrived, wait for it, value, epoch, step)

    def add(self, loss: Tensor, epoch: int, step: int) -> None:
        """Take the loss () of a step."""
        has_arrived, arrive, value = copy_to_host(loss.detach())
        self.coming.append((has_arrived, arrive, value, epoch, step))
        while self.coming and self.coming[0][0]():
            self._look()

    def finish(self) -> None:
        """Look at all losses taken so far, which waits for a GPU."""
        while self.coming:
            self.coming[0][1]()
            self._look()

    def _look(self) -> None:
        *_, value, epoch, step = self.coming.popleft()
        if not math.isfinite(value):
            self.on_bad(float(value), epoch, step)


def copy_to_host(value: Tensor) -> tuple[Callable[[], bool], Callable[[], None], Tensor]:
    """A copy of a tensor in host memory, with functions that tell whether it has arrived, and wait until it has."""
    if not value.is_cuda:
        return lambda: True, lambda: None, value
    host = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
    host.copy_(value, non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    return event.query, event.synchronize, host


def check_finite(loss: float, what: str, epoch: int) -> None:
    """UsageError where the loss of an epoch is infinite or not a number."""
    if not math.isfinite(loss):
        raise UsageError(f"{what} became {loss} in epoch {epoch}; {REMEDY}")


def bad_batch(
    series_of: Callable[[int, int], list[dict]], steps: int, folder: Path, loss: float, epoch: int, step: int
) -> None:
    """End a run whose ``loss`` is not finite: write the series of the batch to bad_batch.json in its folder.

    Args:
        series_of: tells of epoch and step, counted from 0, which series they were.
        steps: of an epoch.
        step: counted from 1.

    Raises:
        UsageError: always.
    """
    rank, _ = rank_and_size()
    path, last = folder / (f"bad_batch-rank{rank}.json" if rank else "bad_batch.json"), folder / LAST
    content = {"epoch": epoch, "step": step, "loss": str(loss), "series": series_of(epoch, step - 1)}
    if folder.is_dir():  # another machine may not see it
        write_text(path, as_json(content))
    told = f"the loss became {loss} in epoch {epoch}, step {step} of {steps}; its series are in {path}"
    kept = f"; the last good state is {last}" if last.is_file() else ""
    raise UsageError(f"{told}{kept}; {REMEDY}")
