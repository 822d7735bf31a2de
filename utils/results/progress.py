"""How a run goes, while it goes: a bar on a terminal, and elsewhere a line now and then."""

from __future__ import annotations

import time
from collections.abc import Iterator

from tqdm import tqdm

from utils.metrics import readable

LINE_SECONDS = 60  # between two lines, at least


class Progress:
    """The epochs of a run, to iterate over; only the main process says anything."""

    def __init__(self, name: str, epochs: int, is_main: bool, first: int = 0):
        self.name, self.epochs, self.first = name, epochs, first
        self.bar = tqdm(total=epochs, initial=first, desc=name, unit="epoch", disable=None if is_main else True)
        self.has_lines = is_main and self.bar.disable
        self.said = time.monotonic()
        self.held_out = ""  # scores of the last epoch, which the bar shows through the next one

    def __iter__(self) -> Iterator[int]:
        with self.bar:
            yield from range(self.first, self.epochs)

    def step(self, epoch: int, step: int, steps: int, loss: float, rate: float) -> None:
        """What the last of so many ``steps`` of an epoch came to; ``rate`` in series a second."""
        text = f"loss {loss:.3f}, {rate:,.0f} series/s"
        self.bar.set_postfix_str(text + self.held_out)
        self._say(f"{epoch} of {self.epochs} epochs and {step} of {steps} steps: {text}")

    def epoch(self, row: dict, is_last: bool) -> None:
        """The row of an epoch that has ended, for the log; a line is certain where it is the last."""
        valid = {name.removeprefix("valid_"): value for name, value in row.items() if name.startswith("valid_")}
        self.held_out = f", held out: loss {valid['loss']:.4f}, {readable(valid)}" if valid else ""
        text = f"loss {row['train_loss']:.4f}, {row['series_per_s']:,.0f} series/s{self.held_out}"
        if is_last:
            self.bar.total = row["epoch"] + 1  # training may stop before the last epoch
        self.bar.set_postfix_str(text, refresh=False)
        self.bar.update()
        self.bar.refresh()
        self._say(f"{row['epoch'] + 1} of {self.epochs} epochs: {text}", is_certain=is_last)

    def _say(self, text: str, is_certain: bool = False) -> None:
        now = time.monotonic()
        if self.has_lines and (is_certain or now - self.said >= LINE_SECONDS):
            print(f"{self.name}: {text}", flush=True)
            self.said = now
