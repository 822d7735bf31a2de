"""How fast `datasets.prepare` cuts series out of images, against plain reads of the same windows.

    python -m benchmarks.prepare [--sides 512 1024] [--dates 24] [--workers 1]

Images are one compressed, tiled GeoTIFF a date, with fields, noise and clouds, a tenth of the pixels without data. The
plain way opens each file once with rasterio and reads the ten bands of every window, window by window as extraction
does, and keeps nothing. Ours makes finished parts on the disk of the same windows: values, no-data, series, checksum.
One thread of each process reads files and another writes parts, so a second core helps; the ratio of processor time
tells what is left on one core. Figures are the best of several rounds, done in turns; the last lines tell how time and
memory grow with the area.

On two CPU cores this takes about a minute.
"""

from __future__ import annotations

import argparse
import multiprocessing
import pickle
import re
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.bands import BANDS
from datasets.images import Images, open_images
from datasets.optional import need
from datasets.preparation import extract
from utils import options
from utils.errors import Parser, exit_cleanly

TARGET = 0.70  # of the plain reads
TILE = 256  # of the GeoTIFFs


def get_args(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=options.HelpFormatter)
    add, whole = parser.add_argument, options.at_least(1)
    add("--sides", type=whole, nargs="+", default=[512, 1024], help="sides of the images in pixels")
    add("--dates", type=whole, default=24)
    add("--workers", type=whole, default=1, help="processes that extract; the plain reads have one")
    add("--rounds", type=whole, default=3, help="of which the best counts")
    return parser.parse_args(argv)


def write_images(folder: Path, side: int, dates: int) -> None:
    """Images of `side` x `side` pixels that compress as real ones do: fields of 20 pixels, noise, no-data."""
    rasterio, affine = need("rasterio"), need("affine")
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    fields = rng.integers(400, 4000, (len(BANDS), side // 20 + 1, side // 20 + 1))
    profile = {
        "driver": "GTiff", "count": len(BANDS), "height": side, "width": side, "dtype": "uint16", "nodata": 0,
        "crs": "EPSG:32614", "transform": affine.Affine(10, 0, 600_000, 0, -10, 4_200_000), "compress": "deflate",
        "tiled": True, "blockxsize": TILE, "blockysize": TILE,
    }  # fmt: skip
    for number in range(dates):
        day = date(2019, 1, 3) + timedelta(days=number * 360 // dates)
        values = np.kron(fields, np.ones((1, 20, 20), int))[:, :side, :side] + rng.integers(0, 120, (1, side, side))
        values[:, rng.random((side, side)) < 0.02] = 9000
        values[:, :, : side // 10] = 0
        with rasterio.open(folder / f"{day}.tif", "w", **profile) as raster:
            raster.write(values.astype(np.uint16))


def read_plainly(files: list[Path], jobs: list[extract.Job]) -> None:
    """Read the ten bands of every window of every file."""
    rasters = [need("rasterio").open(file) for file in files]
    for job in jobs:
        for raster in rasters:
            raster.read(window=job.window)
    for raster in rasters:
        raster.close()


def extract_all(images: Images, jobs: list[extract.Job], folder: Path, workers: int) -> None:
    """Make the parts of all windows in an empty folder, from images whose files are not open yet."""
    images = pickle.loads(pickle.dumps(images))
    extract.extract(images, jobs, folder, min_observations=1, workers=workers, progress=False)


def observations(parts: Path) -> int:
    """Observations in the parts of a folder."""
    return sum(len(extract.read_part(file).doy) for file in parts.glob("*.part"))


class Cost(NamedTuple):
    """Seconds on the clock, and of the processor in all threads of this process."""

    clock: float
    processor: float


def cost(work: Callable[[], object]) -> Cost:
    """What some work costs."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return Cost(time.perf_counter() - clock, time.process_time() - processor)


def compare(images: Images, jobs: list[extract.Job], parts: Path, workers: int, rounds: int) -> tuple[Cost, Cost]:
    """The least costs of the plain reads and of extraction in some rounds, in turns. The last parts stay."""
    plain, ours = [], []
    for _ in range(rounds):
        shutil.rmtree(parts, ignore_errors=True)  # so that the system has their pages again
        parts.mkdir()
        plain.append(cost(lambda: read_plainly(sorted(images.headers), jobs)))
        ours.append(cost(lambda: extract_all(images, jobs, parts, workers)))
    return Cost(*np.min(plain, axis=0)), Cost(*np.min(ours, axis=0))


def peak_memory(images: Images, jobs: list[extract.Job], folder: Path) -> float:
    """MB of a fresh process that extracts everything by itself, the libraries included."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        executor.submit(extract_all, images, jobs, folder, 1).result()
        return executor.submit(resident).result()


def resident() -> float:
    """Peak resident memory of this process in MB. On Linux not from getrusage, which counts the parent's too."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    args = get_args(argv)
    extract.bound_cache()
    costs = {}
    with tempfile.TemporaryDirectory() as folder:
        for side in sorted(args.sides):
            place, parts = Path(folder) / str(side), Path(folder) / "parts"
            write_images(place, side, args.dates)
            images = open_images(place)
            jobs = extract.plan(images.grid, None, extract.window_shape(images))
            plain, ours = compare(images, jobs, parts, args.workers, args.rounds)
            read = side * side * args.dates
            print(
                f"{side} x {side} pixels, {args.dates} dates: extraction {read / ours.clock / 1e6:.2f} M observations/s"
                f" ({args.workers} process(es), {observations(parts):,} kept),"
                f" plain reads {read / plain.clock / 1e6:.2f} M/s, ratio {plain.clock / ours.clock:.2f}"
                f" (target: at least {TARGET})",
                flush=True,
            )
            if args.workers == 1:
                print(f"    of processor time: ratio {plain.processor / ours.processor:.2f}")
            shutil.rmtree(parts)
            parts.mkdir()
            costs[side] = ours.clock, peak_memory(images, jobs, parts)
            shutil.rmtree(place)
    (small, (first, before)), (large, (last, after)) = min(costs.items()), max(costs.items())
    if large > small:
        area = (large / small) ** 2
        print(f"area x {area:.3g}: time x {last / first:.3g} (target: as the area)")
        print(f"area x {area:.3g}: peak memory {before:,.0f} -> {after:,.0f} MB (target: as before)")


if __name__ == "__main__":
    main()
