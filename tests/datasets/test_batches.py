"""Batches gathered from a store: the same series whether they are mapped, resident, or read ahead by threads."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datasets.batches import MappedSeries, ResidentSeries, open_series, split_batches, use_device
from datasets.store import SeriesSet
from tests.support.layout import write_store
from tests.support.series import same_tensors

CPU = torch.device("cpu")
READERS = {"mapped": MappedSeries, "resident": ResidentSeries}


@pytest.fixture(scope="module")
def series(tmp_path_factory) -> SeriesSet:
    """Some of a store's series, in an order of their own."""
    store = write_store(tmp_path_factory.mktemp("stores") / "unlabelled", None, count=40)
    return SeriesSet(store, np.random.default_rng(0).permutation(40)[:25])


@pytest.mark.parametrize("reader", READERS)
def test_gather_gives_the_series_of_the_store(series, reader):
    positions = np.array([7, 0, 24, 7, 13])
    values, doy, length, labels = READERS[reader](series, CPU).gather(positions)
    assert labels is None
    assert (values.dtype, doy.dtype, length.dtype) == (torch.float32, torch.int64, torch.int64)
    for i, row in enumerate(series.rows[positions]):
        bands, days = series.store.series(row)
        count = len(days)
        assert length[i] == count
        np.testing.assert_allclose(values[i, :count], bands * 1e-4, rtol=1e-6)
        np.testing.assert_array_equal(doy[i, :count], days)
        assert not values[i, count:].any() and not doy[i, count:].any()


def test_a_mapped_batch_is_as_wide_as_its_longest_series(series):
    positions = np.argsort(series.lengths)[:3]
    assert MappedSeries(series, CPU).gather(positions).doy.shape == (3, series.lengths[positions].max())


def test_of_fixed_width_mapped_is_resident(series):
    """Every batch is as wide as the longest series of the set."""
    mapped, resident = open_series(series, CPU, fixed_width=True), ResidentSeries(series, CPU)
    assert isinstance(mapped, MappedSeries)
    for positions in np.arange(25).reshape(5, 5):
        one, other = (reader.gather(positions) for reader in (mapped, resident))
        assert one.doy.shape == (5, series.lengths.max())
        assert same_tensors(one, other)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("workers", [0, 1, 2, 7])
def test_stream_is_one_gather_after_another(series, reader, workers):
    batches = split_batches(np.random.default_rng(1).permutation(25), 4)
    source = READERS[reader](series, CPU)
    streamed = list(source.stream(batches, workers))
    assert len(streamed) == len(batches) == 7
    for batch, made in zip(batches, streamed, strict=True):
        assert same_tensors(source.gather(batch), made)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("workers", [0, 2])
def test_stream_of_nothing_is_empty(series, reader, workers):
    assert list(READERS[reader](series, CPU).stream([], workers)) == []


def test_threads_read_no_further_ahead_than_their_number(series, monkeypatch):
    source, read = MappedSeries(series, CPU), []
    monkeypatch.setattr(source, "read", lambda batch: (read.append(int(batch[0])), MappedSeries.read(source, batch))[1])
    stream = source.stream([np.array([i]) for i in range(20)], workers=2)
    next(stream)
    stream.close()
    assert len(read) <= 3


def test_a_thread_that_fails_is_heard(series):
    with pytest.raises(IndexError):
        list(MappedSeries(series, CPU).stream([np.array([0]), np.array([25])], workers=1))


def test_a_batch_does_not_write_to_the_store(series):
    before = np.array(series.store.bands)
    gathered = MappedSeries(series, CPU).gather(np.arange(25))
    gathered.values.fill_(7)
    np.testing.assert_array_equal(series.store.bands, before)


def test_a_cpu_maps(series):
    assert isinstance(open_series(series, CPU), MappedSeries)


# ---- cutting an order into batches


@given(count=st.integers(1, 60), size=st.integers(1, 20), smallest=st.integers(1, 8))
def test_batches_are_the_order_cut(count, size, smallest):
    order, smallest = np.random.default_rng(count).permutation(count), min(smallest, size)
    batches = split_batches(order, size, smallest=smallest)
    np.testing.assert_array_equal(np.concatenate(batches), order)
    assert all(len(batch) == size for batch in batches[:-1])
    joined = len(batches[-1]) > size
    assert joined == (count > size and 0 < count % size < smallest)
    assert joined or len(batches[-1]) == (count % size or size)


@given(count=st.integers(1, 60), size=st.integers(1, 20))
def test_dropping_the_last_leaves_whole_batches(count, size):
    order = np.random.default_rng(count).permutation(count)
    batches = split_batches(order, size, drop_last=True)
    used = np.concatenate(batches)
    np.testing.assert_array_equal(used, order[: len(used)])
    assert all(len(batch) == size for batch in batches) or len(used) == count < size
    assert count - len(used) == (count % size if count > size else 0)


def test_batches_by_example():
    order = np.arange(7)
    assert [len(b) for b in split_batches(order, 3)] == [3, 3, 1]
    assert [len(b) for b in split_batches(order, 3, drop_last=True)] == [3, 3]
    assert [len(b) for b in split_batches(order, 3, smallest=2)] == [3, 4]
    assert [len(b) for b in split_batches(order, 10, drop_last=True)] == [7]
    assert [len(b) for b in split_batches(order, 10, smallest=9)] == [7]
    assert split_batches(order[:0], 3) == []


def test_reader_threads_are_on_the_gpu_they_read_for(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    use_device(CPU)
    use_device(torch.device("cuda", 3))
    assert chosen == [torch.device("cuda", 3)]


def test_copies_to_a_gpu_have_a_stream_of_their_own(series, monkeypatch):
    """The step waits for them, and tells the allocator that it uses their memory."""
    calls = []

    class Stream:
        def wait_stream(self, other):
            calls.append((self, "waits for", other))

    copies, present = Stream(), Stream()
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: calls.append(stream) or nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: present)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: calls.append(stream))
    source = MappedSeries(series, CPU)
    expected, source.copies = source.gather(np.arange(5)), copies
    assert same_tensors(source.gather(np.arange(5)), expected)
    assert calls == [copies, (present, "waits for", copies), present, present, present]
