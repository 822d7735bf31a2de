"""How far pre-training has come: on a terminal, and in the log of the run."""

from __future__ import annotations

import time

import torch
from tqdm import tqdm

from utils.results.logs import RunLog
from utils.results.losses import check_finite
from utils.results.state import RunState
from utils.schedule import applied_rate


class EpochBar:
    """The progress bar of an epoch, and its speed. Nothing is shown where stderr is no terminal."""

    def __init__(self, epoch: int, step: int, steps: int, *, is_shown: bool):
        disable = None if is_shown else True
        self.bar = tqdm(total=steps, initial=step, desc=f"epoch {epoch}", disable=disable, leave=False)
        self.start, self.seen = time.monotonic(), 0

    def update(self, series: int) -> None:
        """Count a step on so many series."""
        self.seen += series
        self.bar.update()

    def show(self, text: str) -> None:
        """Put a text behind the bar."""
        self.bar.set_postfix_str(text)

    @property
    def rate(self) -> float:
        """Series per second."""
        return self.seen / (time.monotonic() - self.start)

    def close(self) -> dict[str, float]:
        """The time that the epoch took, and its speed."""
        self.bar.close()
        return {"seconds": time.monotonic() - self.start, "series_per_s": self.rate}


def log_step(run: RunState, figures: dict[str, torch.Tensor], bar: EpochBar, log: RunLog | None) -> None:
    """Show the step's loss on the progress bar and in TensorBoard."""
    values = {name: value.item() for name, value in figures.items()}
    bar.show(f"loss {values['loss']:.3f}, {bar.rate:,.0f} series/s")
    if log:
        log.scalars("step", values | {"series_per_s": bar.rate}, run.steps_done)


def end_epoch(run: RunState, means: dict, more: dict, held_out: dict, log: RunLog | None) -> bool:
    """Log an epoch; returns whether it is the best so far.

    ``means`` and ``held_out`` have loss and figures by name; ``more`` are further columns, the speed among them.
    """
    check_finite(held_out["loss"], "the held-out loss", run.epoch)
    row = {"epoch": run.epoch, "lr": applied_rate(run.optimizer)}
    row |= {f"train_{name}": value for name, value in means.items()} | more
    row |= {f"valid_{name}": value for name, value in held_out.items()}
    is_best = run.end_epoch(held_out["loss"])
    if log:
        log.epoch(row)
        told = ", ".join(f"{name} {means[name]:.4f} (held out {value:.4f})" for name, value in held_out.items())
        print(f"epoch {run.epoch}: {told}, {more['series_per_s']:,.0f} series/s", flush=True)
    return is_best
