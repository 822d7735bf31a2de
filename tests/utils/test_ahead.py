"""Reading ahead in a thread."""

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.runtime.ahead import read_ahead


@given(items=st.lists(st.integers(), max_size=20), count=st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_results_come_in_the_order_of_the_items(items, count):
    assert list(read_ahead(items, lambda item: item * 2, count)) == [(item, item * 2) for item in items]


@pytest.mark.parametrize("count", [1, 3])
def test_at_most_count_items_are_read_ahead_by_one_other_thread(count):
    read, threads = [], set()

    def fetch(item):
        threads.add(threading.get_ident())
        read.append(item)
        return item

    for position, (item, _) in enumerate(read_ahead(range(10), fetch, count)):
        deadline = time.monotonic() + 10
        while len(read) < min(position + 1 + count, 10) and time.monotonic() < deadline:
            time.sleep(0.001)
        assert item == position and read == list(range(min(position + 1 + count, 10)))
    assert len(threads) == 1 and threading.get_ident() not in threads


def test_by_default_one_item_is_read_ahead():
    asked = []

    def items():
        for item in range(5):
            asked.append(item)
            yield item

    assert next(read_ahead(items(), str)) == (0, "0")
    assert asked == [0, 1]


def test_an_error_is_raised_after_the_results_before_it():
    found = read_ahead([3, 2, 0, 1], lambda item: 6 // item)
    assert [next(found), next(found)] == [(3, 2), (2, 3)]
    with pytest.raises(ZeroDivisionError):
        next(found)


def test_what_is_no_longer_wanted_is_not_read():
    read, is_reading, go_on = [], threading.Event(), threading.Event()

    def fetch(item):
        read.append(item)
        if item == 1:
            is_reading.set()
            go_on.wait(10)
        return item

    found = read_ahead(range(10), fetch, 5)
    assert next(found) == (0, 0)
    assert is_reading.wait(10)
    threading.Timer(0.2, go_on.set).start()  # while close() waits for the item that is being read
    found.close()
    assert read == [0, 1]
    assert not any(thread.name.startswith("reader") for thread in threading.enumerate())
