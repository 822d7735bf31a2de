"""Signals as requests to a run: SIGINT (Ctrl-C) and a scheduler's SIGTERM to stop, SIGUSR1 to save its state.

A training loop looks at them between two steps. Outside of it there is nothing to save, so a request to stop ends the
process at once.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from utils.errors import Stopped

STOP = (signal.SIGINT, signal.SIGTERM)
SAVE = getattr(signal, "SIGUSR1", None)  # Windows has none


class Requests:
    """What signals have asked of this process.

    Attributes:
        stop: the signal that asks it to stop, 0 if none has come.
        save: whether it is to save its state.
        advice: what the user can do after it has stopped; behind the message.
        is_worker: a main process hands its signals on, and the terminal or the scheduler may send them to both, so a
            second request to stop is no more than the first.
    """

    def __init__(self, advice: str = "", *, is_worker: bool = False):
        self.stop, self.save, self.advice, self.is_worker = 0, False, advice, is_worker
        self._is_deferred = False
        self._previous: dict = {}

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within this context the first request to stop is recorded; a second one has its usual effect, except
        in a worker.

        Raises:
            Stopped: at the end, if the first one has come and ``stop`` still says so.
        """
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False
        if self.stop:
            raise self.stopped("stopped", self.stop)

    @contextmanager
    def heard(self) -> Iterator[Requests]:
        """Within this context signals are handled as requests."""
        numbers = [number for number in (*STOP, SAVE) if number is not None]
        self._previous = {number: signal.getsignal(number) for number in numbers}
        for number in numbers:
            signal.signal(number, self._hear)
        try:
            yield self
        finally:
            for number, handler in self._previous.items():
                signal.signal(number, handler)

    def stopped(self, when: str, number: int) -> Stopped:
        """The exception that ends the process."""
        return Stopped(f"{when}{self.advice}", number)

    def _hear(self, number: int, frame) -> None:
        if number == SAVE:
            self.save = True
        elif self._is_deferred and (self.is_worker or not self.stop):
            self.stop = number
        elif number == signal.SIGINT or self._previous[number] is signal.SIG_DFL:
            raise self.stopped("stopped", number)
        else:  # the handler of utils.runtime.watchdog, which knows whether a peer has died
            self._previous[number](number, frame)
