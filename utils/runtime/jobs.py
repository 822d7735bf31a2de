"""Several tasks at a time on a CPU, in processes that share the cores."""

from __future__ import annotations

import io
import os
import pickle
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import connection, get_context, parent_process, resource_tracker
from multiprocessing.pool import ExceptionWithTraceback

from utils.errors import ProcessDied, Stopped
from utils.runtime.signals import STOP, Requests

SAVE_SECONDS = 1.0  # after which a request to save reaches the workers, at most
THREADS = "OMP_NUM_THREADS"


def threads_of(jobs: int) -> int:
    """The threads that each of so many processes has: its share of those that this process has."""
    import torch  # which a process of a task may not need

    return max(1, torch.get_num_threads() // jobs)


def in_parallel(
    work: Callable,
    tasks: Sequence[tuple],
    jobs: int,
    *,
    names: Sequence[str] | None = None,
    requests: Requests | None = None,
) -> list:
    """The results of ``work(*task)``, in order, of ``jobs`` tasks at a time, each in a process of its own.

    With one job, or one task, they are computed in this process. Otherwise what a task prints is printed whole, in
    the order of the tasks. An exception that a task raises, or that a signal raises here, stops the others: they get
    SIGTERM and are waited for, unless a second exception comes. So they are where this process is killed. ``work`` and
    what it is given must be picklable.

    Args:
        names: of the tasks, for the message of ``ProcessDied``.
        requests: of this process; one to save is handed on.

    Raises:
        ProcessDied: a process of a task was killed, or crashed.
    """
    if jobs == 1 or len(tasks) < 2:
        return [work(*task) for task in tasks]
    waiting, results, printed, shown = deque(enumerate(tasks)), {}, {}, 0
    with _started(min(jobs, len(tasks)), threads_of(jobs)) as workers:
        try:
            while len(results) < len(tasks):
                for worker in workers:
                    if worker.number is None and waiting:
                        worker.give(*waiting.popleft(), work)
                for worker in _answered(workers, requests):
                    number = worker.number
                    try:
                        is_done, result, printed[number] = worker.take()
                    except (EOFError, ConnectionError):
                        name = names[number] if names else f"task {number + 1} of {len(tasks)}"
                        raise ProcessDied(worker.death(name) + (requests.advice if requests else "")) from None
                    if not is_done:
                        raise result
                    results[number] = result
                while shown in results:
                    _show(*printed.pop(shown))
                    shown += 1
        finally:  # after an exception, what is there
            for number in sorted(printed):
                _show(*printed[number])
    return [results[number] for number in range(len(tasks))]


class _Worker:
    """A process that computes one task after another.

    Attributes:
        number: of the task that it has; None: it waits for one.
    """

    def __init__(self):
        context = get_context("spawn")
        self.number: int | None = None
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,))
        self.process.start()
        theirs.close()  # so that the connection ends with the process

    def give(self, number: int, task: tuple, work: Callable) -> None:
        self.number = number
        with suppress(ConnectionError):  # it has died, which ``take`` tells
            self.connection.send((work, task))

    def take(self) -> tuple[bool, object, tuple[str, str]]:
        """Whether the task is done, its result or exception, and what it has printed."""
        answer = self.connection.recv()
        self.number = None
        return answer

    def death(self, name: str) -> str:
        """How the process has ended, in the middle of the task of this name."""
        self.process.join()
        code = self.process.exitcode
        how = f"ended with exit code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"
        return f"{name}: its process {how}; if memory was short, give fewer --jobs"


@contextmanager
def _started(count: int, threads: int) -> Iterator[list[_Worker]]:
    """Processes that have ended when the context ends: at once if they are idle, by SIGTERM after an exception."""
    workers: list[_Worker] = []
    try:
        try:
            with _inherited(threads):
                for _ in range(count):
                    workers.append(_Worker())
            yield workers
        except BaseException:
            for worker in workers:
                worker.process.terminate()
            raise
        finally:
            for worker in workers:
                worker.connection.close()
                worker.process.join()
    finally:  # a second exception has ended the waiting
        for worker in workers:
            worker.process.kill()


@contextmanager
def _inherited(threads: int) -> Iterator[None]:
    """What processes have that are started here: their threads, and signals to stop wait until they can be handled."""
    before, has_masks = os.environ.get(THREADS), hasattr(signal, "pthread_sigmask")  # Windows has none
    if has_masks:
        resource_tracker.ensure_running()  # it ends a mask when it starts
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP)
    os.environ[THREADS] = str(threads)
    try:
        yield
    finally:
        del os.environ[THREADS]
        if before is not None:
            os.environ[THREADS] = before
        if has_masks:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _answered(workers: list[_Worker], requests: Requests | None) -> list[_Worker]:
    """Wait for workers that have done their task or died."""
    busy = {worker.connection: worker for worker in workers if worker.number is not None}
    while not (ready := connection.wait(busy, SAVE_SECONDS)):
        if requests and requests.save:
            requests.save = False
            for worker in busy.values():
                os.kill(worker.process.pid, signal.SIGUSR1)
    return [busy[one] for one in ready]


def _show(out: str, err: str) -> None:
    sys.stdout.write(out)
    sys.stdout.flush()
    sys.stderr.write(err)


# ---- in a worker


def _serve(tasks: connection.Connection) -> None:
    """Compute tasks until there are no more, a signal asks to stop, or the parent has died."""
    sys.stdout, sys.stderr = printed = io.StringIO(), io.StringIO()
    with suppress(Stopped, EOFError, ConnectionError), Requests().heard():
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP)
        threading.Thread(target=_end_with_parent, daemon=True).start()
        while True:
            answer = _answer(tasks.recv_bytes())
            tasks.send((*answer, tuple(map(_taken, printed))))


def _answer(message: bytes) -> tuple[bool, object]:
    """Whether a task is done, and its result or exception."""
    try:
        work, task = pickle.loads(message)
        return True, work(*task)
    except Stopped:
        raise
    except BaseException as error:
        return False, ExceptionWithTraceback(error, error.__traceback__)


def _taken(printed: io.StringIO) -> str:
    text = printed.getvalue()
    printed.seek(0)
    printed.truncate()
    return text


def _end_with_parent() -> None:
    parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)
