"""Reading ahead: a thread fetches the next items while the caller works on this one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item, Result = TypeVar("Item"), TypeVar("Result")


def read_ahead(items: Iterable[Item], read: Callable[[Item], Result], count: int = 1) -> Iterator[tuple[Item, Result]]:
    """Each item with what ``read`` gives for it, in their order.

    ``read`` is called in one other thread, for one item after another, at most ``count`` items ahead. What it raises is
    raised here, in its turn.
    """
    reader = ThreadPoolExecutor(1, "reader")
    try:
        waiting: deque = deque()
        for item in items:
            waiting.append((item, reader.submit(read, item)))
            if len(waiting) > count:
                first, result = waiting.popleft()
                yield first, result.result()
        for first, result in waiting:
            yield first, result.result()
    finally:
        reader.shutdown(cancel_futures=True)
