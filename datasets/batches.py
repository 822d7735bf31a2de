"""Batches of series: gathered from a store by index, moved to the device once.

A store that fits into the memory of the accelerator is kept and gathered there. Any other is gathered from the memory
map into pinned memory by threads that read ahead.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from datasets.store import SeriesSet
from datasets.transforms import Series, reflectance

RESIDENT_FRACTION = 0.5  # of the accelerator's free memory that a store may take


class MappedSeries:
    """Series read from the memory map; memory does not grow with their number.

    A batch is padded to its longest series, or with ``fixed_width`` to the longest of the set: then shapes never
    change, as compiled code requires, and the random numbers drawn for a batch are those of a ResidentSeries.
    """

    def __init__(self, series: SeriesSet, device: torch.device, *, fixed_width: bool = False):
        self.series, self.device = series, device
        self.width = int(series.lengths.max()) if fixed_width else None
        self.copies = torch.cuda.Stream(device) if device.type == "cuda" else None

    def gather(self, positions: np.ndarray) -> Series:
        """The series at these positions (B,) of the set, on the device."""
        return self.move(self.read(positions))

    def read(self, positions: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Bands (B, L, 10) int16 DN, doy (B, L) int16, lengths (B,) int64; in pinned memory for a GPU."""
        store, part = self.series.store, self.series.take(positions)
        first, length = store.offsets[part.rows], part.lengths
        time = np.arange(self.width or length.max())
        padding = time >= length[:, None]  # (B, L)
        observations = np.where(padding, first[:, None], first[:, None] + time)
        bands, doy = store.bands[observations], store.doy[observations]
        bands[padding], doy[padding] = 0, 0
        batch = (torch.from_numpy(bands), torch.from_numpy(doy), torch.from_numpy(length))
        return tuple(part.pin_memory() for part in batch) if self.device.type == "cuda" else batch

    def move(self, batch: tuple[Tensor, Tensor, Tensor]) -> Series:
        bands, doy, length = self.copy(batch) if self.copies is not None else batch
        return Series(reflectance(bands), doy.long(), length)

    def copy(self, batch: tuple[Tensor, Tensor, Tensor]) -> list[Tensor]:
        """Pinned parts on the GPU, copied on a stream of their own so that they overlap with the step before."""
        with torch.cuda.stream(self.copies):
            parts = [part.to(self.device, non_blocking=True) for part in batch]
        present = torch.cuda.current_stream(self.device)
        present.wait_stream(self.copies)
        for part in parts:
            part.record_stream(present)  # or else the other stream may reuse their memory too early
        return parts

    def stream(self, batches: list[np.ndarray], workers: int = 0) -> Iterator[Series]:
        """One batch after another; ``workers`` threads read ahead."""
        if self.device.type == "cuda":
            workers = max(workers, 1)
        if workers == 0:
            yield from map(self.gather, batches)
            return
        with ThreadPoolExecutor(workers, initializer=use_device, initargs=(self.device,)) as readers:
            ahead: deque = deque()
            for batch in batches:
                ahead.append(readers.submit(self.read, batch))
                if len(ahead) > workers:
                    yield self.move(ahead.popleft().result())
            while ahead:
                yield self.move(ahead.popleft().result())


class ResidentSeries:
    """Series whose store is kept on the device; a batch is one gather there, without a copy from the host."""

    def __init__(self, series: SeriesSet, device: torch.device):
        store = series.store
        self.bands, self.doy = (torch.from_numpy(np.array(part)).to(device) for part in (store.bands, store.doy))
        first = store.offsets[series.rows]
        self.first = torch.from_numpy(np.asarray(first)).to(device)
        self.length = torch.from_numpy(series.lengths).to(device)
        self.width = int(series.lengths.max())  # of all batches, so that shapes never change
        self.device = device

    def gather(self, positions: np.ndarray) -> Series:
        """The series at these positions (B,) of the set, padded to the longest of the whole set."""
        return self.gather_on_device(torch.from_numpy(positions).to(self.device, non_blocking=True))

    def gather_on_device(self, positions: Tensor) -> Series:
        first, length = self.first[positions], self.length[positions]
        time = torch.arange(self.width, device=self.device)
        real = time < length[:, None]
        observations = torch.where(real, first[:, None] + time, first[:, None])
        values = reflectance(self.bands[observations]) * real[..., None]
        return Series(values, self.doy[observations].long() * real, length)

    def stream(self, batches: list[np.ndarray], workers: int = 0) -> Iterator[Series]:
        """One batch after another; the order is sent to the device once, and no worker is needed."""
        if not batches:
            return
        order = torch.from_numpy(np.concatenate(batches)).to(self.device)
        for positions in order.split([len(batch) for batch in batches]):
            yield self.gather_on_device(positions)


def use_device(device: torch.device) -> None:
    """Set the current GPU of this thread: a new thread is on GPU 0 and would pin memory for that one."""
    if device.type == "cuda":
        torch.cuda.set_device(device)


def open_series(
    series: SeriesSet, device: torch.device, *, fixed_width: bool = False
) -> MappedSeries | ResidentSeries:
    """A reader of batches of the series set; on an accelerator the store is kept there if it fits."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if series.store.bands.nbytes + series.store.doy.nbytes < RESIDENT_FRACTION * free:
            return ResidentSeries(series, device)
    return MappedSeries(series, device, fixed_width=fixed_width)


def split_batches(
    order: np.ndarray, batch_size: int, *, drop_last: bool = False, smallest: int = 1
) -> list[np.ndarray]:
    """Cut an order of positions into batches.

    ``drop_last`` leaves out an incomplete last batch unless it is the only one; otherwise a last batch of fewer than
    ``smallest`` joins the one before it, so that no series is left out.
    """
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    if len(batches) > 1 and len(batches[-1]) < (batch_size if drop_last else smallest):
        last = batches.pop()
        if not drop_last:
            batches[-1] = np.concatenate([batches[-1], last])
    return batches


def even_batches(order: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Cut an order of positions into batches of ``batch_size`` or a few more, whose sizes differ by at most one.

    A last batch of two or three series has poor statistics for batch normalisation, and with few labels it is one
    batch in four.
    """
    return np.array_split(order, max(1, len(order) // batch_size))
