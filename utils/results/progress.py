"""How a run goes, while it goes: a bar on a terminal, and elsewhere a line now and then."""

from __future__ import annotations

import time
from collections.abc import Iterator

from tqdm import tqdm

LINE_SECONDS = 60  # between two lines, at least


class Progress:
    """The epochs of a run, to iterate over; only the main process says anything."""

    def __init__(self, name: str, epochs: int, is_main: bool):
        self.name, self.epochs = name, epochs
        self.bar = tqdm(range(epochs), desc=name, unit="epoch", disable=None if is_main else True)
        self.has_lines = is_main and self.bar.disable
        self.said = time.monotonic()

    def __iter__(self) -> Iterator[int]:
        return iter(self.bar)

    def step(self, epoch: int, step: int, steps: int, loss: float, rate: float) -> None:
        """What the last of so many ``steps`` of an epoch came to; ``rate`` in series a second."""
        text = f"loss {loss:.3f}, {rate:,.0f} series/s"
        self.bar.set_postfix_str(text)
        self._say(f"{epoch} of {self.epochs} epochs and {step} of {steps} steps: {text}")

    def epoch(self, row: dict, is_last: bool) -> None:
        """The row of an epoch that has ended, for the log; a line is certain where it is the last."""
        valid = {name.removeprefix("valid_"): value for name, value in row.items() if name.startswith("valid_")}
        parts = [f"loss {row['train_loss']:.4f}", f"{row['series_per_s']:,.0f} series/s"]
        if valid:
            parts.append("held out: " + ", ".join(f"{name} {value:.4f}" for name, value in valid.items()))
        self._say(f"{row['epoch'] + 1} of {self.epochs} epochs: {', '.join(parts)}", is_certain=is_last)

    def _say(self, text: str, is_certain: bool = False) -> None:
        now = time.monotonic()
        if self.has_lines and (is_certain or now - self.said >= LINE_SECONDS):
            print(f"{self.name}: {text}", flush=True)
            self.said = now
