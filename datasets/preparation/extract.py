"""Reading the series of chosen pixels window by window, by several processes, in parts that survive a kill.

Each window that holds wanted pixels is read once, no more of it than the rectangle around them, and its series are
written as a part, `<number>-<checksum>.part`. The parts of all windows in their order are the result, which depends
neither on the number of processes nor on how often the work was interrupted. A part whose checksum does not fit its
bytes is made again.

Memory: each process holds one window at a time and writes its part itself, so that nothing but names waits for others;
`memory_of` says about how much it is.
"""

from __future__ import annotations

import io
import os
import signal
import threading
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from datasets.errors import DataError
from datasets.optional import need
from datasets.preparation.samples import Samples
from utils.files import naming

WINDOW = 256  # pixels a side, or as many whole blocks of the files as fit in
OBSERVATIONS = 70 * WINDOW**2  # at most in a window
CACHE = 128  # MB of GDAL's cache of blocks; by itself it takes 5 % of the machine's memory in every process
OBSERVATION = 22  # bytes
COPIES = 4  # of a window's observations that a process holds at its peak: as read, as series, as chosen, as a file
COUNTS = ("without any observation", "with too few observations", "missing", "masked", "clipped")


class Job(NamedTuple):
    """A window to read: all of its pixels (rows and cols None), or these, in row-major order."""

    number: int
    window: object  # rasterio.windows.Window
    first: int  # position of the first of its pixels among all samples
    rows: np.ndarray | None
    cols: np.ndarray | None

    @property
    def wanted(self) -> int:
        """Pixels."""
        return self.window.height * self.window.width if self.rows is None else len(self.rows)


class Part(NamedTuple):
    """What came of a window: k series, with what fell away counted."""

    counts: np.ndarray  # (5,) int64, of COUNTS: pixels left out, observations left out, band values clipped
    position: np.ndarray  # (k,) int32, which of the job's pixels; empty where they are all of the window's
    row: np.ndarray  # (k,) int32
    col: np.ndarray  # (k,) int32
    lengths: np.ndarray  # (k,) int64
    bands: np.ndarray  # (m, 10) int16
    doy: np.ndarray  # (m,) int16


def bound_cache(megabytes: int = CACHE) -> None:
    """Keep GDAL's cache small, in this process and those it starts; to be called before the first raster is read."""
    os.environ.setdefault("GDAL_CACHEMAX", str(megabytes))


def window_shape(images) -> tuple[int, int]:
    """Rows and columns of the windows: whole blocks of most files, so that few blocks are decoded twice.

    Strips as wide as the file are read as such, and blocks too large for OBSERVATIONS in parts.
    """
    (rows, cols), _ = Counter(header.block for header in images.headers.values()).most_common(1)[0]
    pixels = max(OBSERVATIONS // len(images.dates), 1)
    if rows * cols > pixels:
        return min(rows, WINDOW), min(cols, WINDOW)
    cols *= max(WINDOW // cols, 1)
    return rows * max(min(WINDOW, pixels // cols) // rows, 1), cols


def in_block_order(samples: Samples, grid, shape: tuple[int, int]) -> Samples:
    """The samples sorted by window (of these rows and columns), row and column."""
    return samples.take(np.lexsort((samples.col, samples.row, _window_numbers(samples, grid, shape))))


def plan(grid, samples: Samples | None, shape: tuple[int, int]) -> list[Job]:
    """The windows that hold samples (sorted by `in_block_order`), or all windows of the grid."""
    if samples is None:
        return [Job(number, window, 0, None, None) for number, window in enumerate(grid.windows(shape))]
    windows = need("rasterio.windows", "reading images").Window
    numbers = _window_numbers(samples, grid, shape)
    starts = np.flatnonzero(np.append(True, numbers[1:] != numbers[:-1])[: len(numbers)])
    jobs = []
    for start, end in zip(starts, np.append(starts, len(numbers))[1:], strict=True):
        rows, cols = samples.row[start:end], samples.col[start:end]
        top, left = int(rows.min()), int(cols.min())
        window = windows(left, top, int(cols.max()) - left + 1, int(rows.max()) - top + 1)
        jobs.append(Job(int(numbers[start]), window, int(start), rows, cols))
    return jobs


def memory_of(images, workers: int) -> int:
    """About the bytes that all processes together hold of windows at their peak, GDAL's cache included."""
    rows, cols = window_shape(images)
    pixels = min(rows, images.grid.height) * min(cols, images.grid.width)
    return workers * (COPIES * OBSERVATION * pixels * len(images.dates) + CACHE * 10**6)


def extract(
    images, jobs: Sequence[Job], folder: Path, *, min_observations: int, workers: int = 1, progress: bool = True
) -> list[Path]:
    """Make the parts of the jobs that `folder` does not have yet; returns the file of each job, in their order."""
    for file in folder.glob(".*"):
        if file.suffix == ".part":  # half-written by a process that was killed
            file.unlink()
    there = {int(file.name.partition("-")[0]): file for file in folder.glob("[0-9]*.part") if _is_whole(file)}
    todo = [job for job in jobs if job.number not in there]
    total, left = (sum(job.wanted for job in some) for some in (jobs, todo))
    state = (images, folder, min_observations)
    with tqdm(total=total, initial=total - left, unit=" pixels", desc="extracting", disable=not progress) as bar:
        for job, file in zip(todo, _map(state, todo, workers), strict=True):
            there[job.number] = file
            bar.update(job.wanted)
    return [there[job.number] for job in jobs]


def select(pixels, job: Job, width: int, min_observations: int) -> Part:
    """The wanted pixels of what was read (`datasets.images.Pixels`) that have enough observations."""
    enough = pixels.lengths >= min_observations
    if job.rows is None:
        position = np.zeros(0, dtype=np.int32)
    else:
        there, wanted = (row.astype(np.int64) * width + col for row, col in ((pixels.row, pixels.col), job[-2:]))
        position = np.searchsorted(wanted, there[enough]).astype(np.int32)
    left_out = [job.wanted - len(enough), len(enough) - int(enough.sum())]
    bands, doy = pixels.bands, pixels.doy
    if not enough.all():
        rows = np.flatnonzero(np.repeat(enough, pixels.lengths))
        bands, doy = bands.take(rows, axis=0), doy.take(rows)
    return Part(
        np.array([*left_out, *(pixels.counts[name] for name in COUNTS[2:])]), position,
        pixels.row[enough].astype(np.int32), pixels.col[enough].astype(np.int32),
        pixels.lengths[enough].astype(np.int64), bands, doy,
    )  # fmt: skip


def wanted_of(job: Job) -> tuple[object, np.ndarray | None]:
    """The window of a job, and which of its pixels are wanted (None: all)."""
    if job.rows is None:
        return job.window, None
    wanted = np.zeros((job.window.height, job.window.width), dtype=bool)
    wanted[job.rows - job.window.row_off, job.cols - job.window.col_off] = True
    return job.window, None if wanted.all() else wanted


def write_part(folder: Path, number: int, part: Part) -> Path:
    """Write a part under a name with the checksum (CRC-32) of its bytes.

    Its name comes last. It is not flushed to the disk, which takes longer than reading small windows: the checksum
    tells what a power cut has spoilt.
    """
    partial, checksum = folder / f".{number:07d}-{os.getpid()}.part", 0
    with naming(folder / f"{number:07d}.part", partial), open(partial, "wb") as file:
        for array in part:
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
            for content in (header.getbuffer(), array.reshape(-1).view(np.uint8)):
                checksum = zlib.crc32(content, checksum)
                file.write(content)
    return partial.replace(folder / f"{number:07d}-{checksum:08x}.part")


def read_part(path: Path) -> Part:
    """The part of a file; DataError if its bytes have changed since it was written."""
    content = path.read_bytes()
    if not _is_as_written(content, path):
        raise DataError(f"{path}: damaged; run the same command again, which makes this part anew")
    buffer = io.BytesIO(content)
    return Part(*(np.load(buffer, allow_pickle=False) for _ in Part._fields))


def read_outcome(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Counts and positions of a part alone, which are at its beginning; its checksum is not checked."""
    with open(path, "rb") as file:
        return np.load(file, allow_pickle=False), np.load(file, allow_pickle=False)


def _is_as_written(content: bytes, path: Path) -> bool:
    return f"{zlib.crc32(content):08x}" == path.stem.partition("-")[2]


def _is_whole(path: Path) -> bool:
    """Whether a part is undamaged; it is removed if not."""
    whole = _is_as_written(path.read_bytes(), path)
    if not whole:
        path.unlink()
    return whole


def _window_numbers(samples: Samples, grid, shape: tuple[int, int]) -> np.ndarray:
    across = -(-grid.width // shape[1])
    return samples.row // shape[0] * across + samples.col // shape[1]


# -- processes ---------------------------------------------------------------------------------------------------------

_state: tuple | None = None  # of a worker: images, folder of the parts, fewest observations


def _map(state: tuple, jobs: Sequence[Job], workers: int) -> Iterator[Path]:
    """The file of each job, in order, at most two jobs a process ahead."""
    if workers == 1 or len(jobs) < 2:
        yield from _map_here(state, jobs)
        return
    context = get_context("spawn")  # GDAL does not survive a fork
    workers = min(workers, len(jobs))
    executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=state)
    try:
        waiting = []
        for job in jobs:
            waiting.append(executor.submit(_make, job))
            if len(waiting) >= 2 * workers:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()
    finally:
        executor.shutdown(cancel_futures=True)


def _map_here(state: tuple, jobs: Sequence[Job]) -> Iterator[Path]:
    """The file of each job, in order, made by this process: a thread reads images ahead, another writes a part."""
    images, folder, min_observations = state
    waiting: Future | None = None
    with ThreadPoolExecutor(1) as writer:
        for job, pixels in zip(jobs, images.read_each(map(wanted_of, jobs)), strict=True):
            part = select(pixels, job, images.grid.width, min_observations)
            if waiting is not None:
                yield waiting.result()
            waiting = writer.submit(write_part, folder, job.number, part)
        if waiting is not None:
            yield waiting.result()


def _start_worker(*state) -> None:
    """Make a process ready: it leaves Ctrl-C to the first process, and ends when that one has died."""
    global _state
    _state = state
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    connection.wait([parent_process().sentinel])
    os._exit(1)


def _make(job: Job) -> Path:
    images, folder, min_observations = _state
    return write_part(
        folder, job.number, select(images.read(*wanted_of(job)), job, images.grid.width, min_observations)
    )
