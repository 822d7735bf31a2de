"""How far an epoch of pre-training has come, on a terminal, and how fast it is."""

from __future__ import annotations

import time

from tqdm import tqdm


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
