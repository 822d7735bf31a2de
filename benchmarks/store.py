"""The cost of a store: time to open it, memory, checksums, bytes on disk, conversion of published files.

    python -m benchmarks.store --sim-root data

Prints each figure, the one it is compared with, and their ratio.

Memory is the growth of a separate process that streams one shuffled epoch of batches from the memory map, as
main_moco.py does on a CPU. *Anonymous* memory (RssAnon of /proc/self/status) is private to the process and must
not depend on the number of series. Its median over the epoch is compared, as the peak varies by some MB with the
allocator; the order of the epoch, 16 bytes a series, is reported separately. *File* pages (RssFile) are pages of the
store in the page cache, which count as resident while they are mapped: they grow up to the size of the store, and the
kernel reclaims them when memory is short.

On two CPU cores this takes half a minute; the first run also simulates the series, which takes a minute.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.clock import best
from benchmarks.scaling import YEAR, machine, simulated, simulation_folder, three_digits
from datasets.bands import BANDS
from datasets.batches import MappedSeries, split_batches
from datasets.catalog import open_unlabelled
from datasets.readers.published import npy_store
from datasets.store import SeriesSet, Store
from utils import options
from utils.errors import Parser, exit_cleanly

CPU = torch.device("cpu")
MB = 1e6
COLUMNS = 12  # of a published series: bands, vegetation weight, day of year, all float64
OPENING_TARGET, BYTES_TARGET = 0.2, 23  # seconds, bytes an observation


def get_args(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=options.HelpFormatter)
    add, whole = parser.add_argument, options.at_least(1)
    add("--series", type=whole, nargs="+", default=[100_000, 1_000_000], help="numbers of series")
    add("--converted", type=whole, default=20_000, help="series to convert from the published form")
    add("-b", "--batchsize", type=whole, default=512)
    add("--rounds", type=whole, default=3, help="of which the best counts")
    add("--sim-root", type=Path, default=None, help="keep the simulated series in this folder (default: remove them)")
    add("--workers", type=whole, default=1, help="processes that simulate")
    return parser.parse_args(argv)


def say(name: str, measured: float, unit: str, against: float, what: str) -> None:
    """Print a figure, the one it is compared with, and their ratio."""
    reference = f"{what} {three_digits(against)} {unit}"
    print(f"{name:64} {three_digits(measured):>9} {unit:14} {reference:42} ratio {measured / against:8.3g}", flush=True)


# -- opening -----------------------------------------------------------------------------------------------------------


def drop_from_cache(folder: Path) -> None:
    """Drop the files of a folder from the page cache, so that they are read from the disk again (Linux)."""
    for file in folder.iterdir():
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def report_opening(series: SeriesSet, rounds: int) -> None:
    path, count = series.store.path, f"{len(series):,} series"
    if hasattr(os, "posix_fadvise"):
        drop_from_cache(path)
    start = time.perf_counter()
    Store.open(path)
    first = time.perf_counter() - start
    works = {
        "opening, again": lambda: Store.open(path),
        "opening as a split": lambda: open_unlabelled(path.parents[1], YEAR),
    }
    for name, spent in {"opening, first time": first, **best(works, rounds, CPU)}.items():
        say(f"{name}, {count}", 1e3 * spent, "ms", 1e3 * OPENING_TARGET, "target: below")


# -- memory ------------------------------------------------------------------------------------------------------------


class Memory(NamedTuple):
    """Resident memory of this process in bytes: anonymous, and pages of mapped files."""

    anonymous: int
    file: int


def memory() -> Memory:
    """The memory of this process (Linux only)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    values = {name: value for name, value in (line.split(":", 1) for line in lines)}
    return Memory(*(1024 * int(values[name].split()[0]) for name in ("RssAnon", "RssFile")))


class Streamed(NamedTuple):
    """Memory of a process before it opens a store, after it has drawn the order of an epoch, and while it streams."""

    start: Memory
    ready: Memory
    median: Memory
    peak: Memory


def stream_epoch(path: Path, batchsize: int) -> Streamed:
    """Read every series of a store once, in a shuffled order."""
    start = memory()
    series = SeriesSet.whole(Store.open(path))
    reader = MappedSeries(series, CPU)
    batches = split_batches(np.random.default_rng(0).permutation(len(series)), batchsize)
    ready = memory()
    while_streaming = [memory() for _ in reader.stream(batches)]
    return Streamed(start, ready, *(Memory(*figure(while_streaming, axis=0)) for figure in (np.median, np.max)))


def in_own_process(work: Callable, *args):
    """The result of work(*args) in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        return executor.submit(work, *args).result()


def report_memory(sets: list[SeriesSet], batchsize: int) -> None:
    """Memory of streaming for each number of series, against the size of the store and the smallest number."""
    if not Path("/proc/self/status").exists():
        print("memory is not measured: this system has no /proc/self/status")
        return
    medians: dict[str, float] = {}  # anonymous memory while streaming, by number of series
    for series in sets:
        streamed, count = in_own_process(stream_epoch, series.store.path, batchsize), f"{len(series):,} series"
        start, ready, median, peak = (np.array(part) / MB for part in streamed)
        medians[count] = median[0] - ready[0]
        figures = {
            "order of an epoch, anonymous memory": ready[0] - start[0],
            "streaming, anonymous memory, median": medians[count],
            "streaming, anonymous memory, peak": peak[0] - ready[0],
            "streaming, file pages, peak": peak[1] - start[1],
        }
        for name, value in figures.items():
            say(f"{name}, {count}", value, "MB", store_size(series.store) / MB, "the store:")
    fewest = next(iter(medians))
    if len(medians) > 1 and medians[fewest] > 0:
        what = f"streaming, anonymous memory, median, {count}"
        say(what, medians[count], "MB", medians[fewest], f"target: as {fewest},")


# -- checksums ---------------------------------------------------------------------------------------------------------


def report_checksums(series: SeriesSet, batchsize: int, rounds: int) -> None:
    """An epoch of batches in which every checksum is compared, and one in which none is left, against none at all."""
    store, names = series.store, ("bands", "doy", "offsets")
    mapped = (np.load(store.path / f"{name}.npy", mmap_mode="r") for name in names)
    batches = split_batches(np.random.default_rng(0).permutation(len(store)), batchsize)

    def epoch(opened: Store) -> None:
        for _ in MappedSeries(SeriesSet.whole(opened), CPU).stream(batches):
            ...

    read, unchecked = Store.open(store.path), Store(store.path, store.source, store.meta, *mapped)
    epoch(read)
    works = {
        "none": lambda: epoch(unchecked),
        "the first epoch, comparing checksums": lambda: epoch(Store.open(store.path)),
        "a later epoch": lambda: epoch(read),
    }
    times = best(works, rounds, CPU)
    for name in list(works)[1:]:
        say(f"{name}, {len(store):,} series", times[name], "s", times["none"], "without checksums:")


# -- bytes and conversion ----------------------------------------------------------------------------------------------


def store_size(store: Store) -> int:
    """Bytes on disk."""
    return sum(file.stat().st_size for file in store.path.iterdir())


def write_published(file: Path, series: SeriesSet) -> None:
    """Write the series as published: a pickled object array of float64 arrays (T, 12). The weight, unused, is 0."""
    arrays = np.empty(len(series), dtype=object)
    for i, row in enumerate(series.rows):
        bands, doy = series.store.series(row)
        arrays[i] = np.zeros((len(doy), COLUMNS))
        arrays[i][:, : len(BANDS)], arrays[i][:, -1] = bands, doy
    file.parent.mkdir(parents=True)
    np.save(file, arrays, allow_pickle=True)


def report_conversion(series: SeriesSet, rounds: int) -> None:
    """Size and speed of a store against those of the published file with the same series."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / str(YEAR) / "npy" / "Unsupervised_mini_All.npy"
        write_published(file, series)
        store = npy_store(file)

        def convert():
            shutil.rmtree(store.path)
            npy_store(file)

        works = {
            "np.load": lambda: np.load(file, allow_pickle=True),
            "conversion": convert,
            "cached": lambda: npy_store(file),
        }
        times = best(works, rounds, CPU)
        ours, theirs = (size / len(store.doy) for size in (store_size(store), file.stat().st_size))
    count = f"{len(series):,} series"
    say("bytes an observation, store", ours, "B", BYTES_TARGET, "target: at most")
    say("bytes an observation, store", ours, "B", theirs, "published .npy:")
    loading, rate = times["np.load"], len(series) / times["conversion"]
    say(f"converting the .npy, once, {count}", rate, "series/s", len(series) / loading, "np.load:")
    say(f"opening it again, {count}", 1e3 * times["cached"], "ms", 1e3 * loading, "np.load:")


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    args = get_args(argv)
    print(machine(CPU), flush=True)
    with simulation_folder(args.sim_root) as folder:
        sets = [simulated(Path(folder), count, args.workers) for count in sorted(set(args.series))]
        report_opening(sets[-1], args.rounds)
        report_memory(sets, args.batchsize)
        report_checksums(sets[0], args.batchsize, args.rounds)
        report_conversion(sets[0].take(np.arange(min(args.converted, len(sets[0])))), args.rounds)


if __name__ == "__main__":
    main()
