"""Scalars for TensorBoard, which training can do without."""

from __future__ import annotations

import functools
import itertools
import os
import socket
import sys
import time
from pathlib import Path

_numbers = itertools.count()  # of the files of this process


@functools.cache
def _say_that_it_is_missing() -> None:
    """Say so, once."""
    print("no logs for TensorBoard: it is not installed (pip install tensorboard)", file=sys.stderr)


class Scalars:
    """Appends scalars to an event file in ``folder``; one line says so where that cannot be done.

    By the record writer of TensorBoard, not by torch's SummaryWriter: that has a thread, which dies with a traceback
    when the disk is full. The file grows as events come, so it is the one log that is not replaced as a whole: a kill
    can cut off its last record, which TensorBoard skips.
    """

    def __init__(self, folder: Path):
        self.folder, self._records = folder, None
        try:
            from tensorboard.compat.proto.event_pb2 import Event
            from tensorboard.compat.proto.summary_pb2 import Summary
            from tensorboard.summary.writer.record_writer import RecordWriter
        except ImportError:
            _say_that_it_is_missing()
            return
        self._event, self._summary = Event, Summary
        name = f"events.out.tfevents.{time.time():010.0f}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
        try:
            self._records = RecordWriter(open(folder / name, "wb"))
        except OSError as error:
            self._give_up(error)
        self._write(file_version="brain.Event:2")

    def add(self, name: str, value: float, step: int) -> None:
        if self._records:
            self._write(step=step, summary=self._summary(value=[{"tag": name, "simple_value": value}]))

    def flush(self) -> None:
        self._try("flush")

    def close(self) -> None:
        self._try("close")
        self._records = None

    def _write(self, **content) -> None:
        if self._records:
            self._try("write", self._event(wall_time=time.time(), **content).SerializeToString())

    def _try(self, what: str, *given) -> None:
        if not self._records:
            return
        try:
            getattr(self._records, what)(*given)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._records = None
        print(f"{self.folder}: no more logs for TensorBoard ({error.strerror or error})", file=sys.stderr)
