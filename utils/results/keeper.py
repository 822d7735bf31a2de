"""When the state of a run is saved, and how a request to stop ends the run."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from utils.checkpoint import LAST, save_checkpoint
from utils.results.state import RunState
from utils.runtime.distributed import World
from utils.runtime.signals import Requests


class Keeper:
    """Saves a run's state as model_last.pth; the one before stays as model_last.prev.pth.

    Its methods are collectives: all ranks call them at the same step.

    Args:
        folder: of the run; None on the ranks that write nothing.
        minutes: a state is at most this old; 0: it is saved at every epoch only.
        before: called before a state is saved, to find out that it should not be.
    """

    def __init__(
        self,
        run: RunState,
        folder: Path | None,
        requests: Requests,
        world: World,
        minutes: float,
        before: Callable[[], None] = lambda: None,
    ):
        self.run, self.folder, self.requests, self.world = run, folder, requests, world
        self.seconds, self.before, self.saved = 60 * minutes, before, time.monotonic()

    def after_step(self) -> None:
        """Save if it is time to or was asked for, and stop if that was.

        Raises:
            Stopped: a signal asked for it.
        """
        is_due = self.seconds > 0 and time.monotonic() - self.saved >= self.seconds
        stop, save, is_due = self.world.largest(self.requests.stop, self.requests.save, is_due)
        where = f"epoch {self.run.epoch} after step {self.run.step}"
        if save:
            self.requests.save = False  # before the state is saved: a signal from now on asks for a later one
        if stop or save or is_due:
            self.save(is_whole=False)
        if save and self.folder:
            print(f"saved {self.folder / LAST} in {where}", flush=True)
        if stop:
            self._stop(f"stopped in {where}", stop)

    def after_epoch(self, *names: str, is_last: bool = False) -> None:
        """Save the state of a whole epoch, under further names too, and stop if that was asked for.

        ``is_last``: nothing is left to do, so a request to stop is granted.

        Raises:
            Stopped: a signal asked for it.
        """
        self.save(*names, is_whole=True)
        (stop,) = self.world.largest(self.requests.stop)
        if is_last:
            self.requests.stop = 0
        elif stop:  # a signal that has come since the ranks compared theirs waits for the next step
            self._stop(f"stopped after epoch {self.run.epoch}", stop)

    def save(self, *names: str, is_whole: bool) -> None:
        """Save the state as it is."""
        self.before()
        content = self.run.checkpoint(is_whole=is_whole)
        if self.folder:
            for name in names:
                save_checkpoint(self.folder / name, content)
            save_checkpoint(self.folder / LAST, content)
        self.saved = time.monotonic()

    def _stop(self, when: str, number: int) -> None:
        """End the run, which is saved, on all ranks together."""
        self.world.final_barrier()
        raise self.requests.stopped(when, number)
