"""US-sim, the default data: simulated Sentinel-2 series of the six study sites, written as stores.

    ROOT/classmapping20.csv
    ROOT/2019/unlabelled/                          a store without labels
    ROOT/{2019,2020,2021}/{train,valid,eval}/      stores with label, code, region, year, tile and field

The simulator is in datasets/simulation/: tables of `sites` and `crops`, then `weather`, `fields`, `canopy` and
`atmosphere`, and `blocks` which puts them together. Unlabelled, train, valid and eval pools have no field in common.
The same seed gives the same bytes whatever the number of processes.

With --scene, a folder of images instead, with the labels that a mapping team would have, and the truth:

    ROOT/images/S2_YYYY-MM-DD.tif     a pass each: ten bands, 10 m, UTM, uint16 digital numbers, no-data 0, and the
                                      scene classification as band SCL
    ROOT/cdl.tif, confidence.tif      label raster with errors at 30 m, and its confidence in per cent
    ROOT/truth.tif                    code of what grows, on the grid of the images
    ROOT/fields.gpkg                  the polygons of fields, roads, water and wild land

How it is drawn is told in datasets/simulation/: `landscape`, `sky`, `render`, `labels` and `scene`.
"""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from tqdm import tqdm

from datasets.classmap import CDL20, write_classmap
from datasets.errors import DataError
from datasets.location import DEFAULT, default_path, locate
from datasets.optional import need
from datasets.simulation.blocks import BLOCK, BlockPlan, SeriesBlock, simulate_block
from datasets.simulation.landscape import ScenePlan
from datasets.simulation.scene import run_task, tasks_of
from datasets.simulation.sites import SITES
from datasets.store import StoreWriter
from utils.errors import Parser, WriteError, exit_cleanly
from utils.files import atomic_folder, one_at_a_time

UNLABELLED, TRAIN, VALID, EVALUATION = 20_000, 6_000, 1_000, 3_000
YEARS = (2019, 2020, 2021)
SEED = 2019
POOLS = ("unlabelled", "train", "valid", "eval")  # a pool's position in this tuple is part of its random streams
APPEND = 32  # blocks written together

EPILOG = """examples:
  python -m datasets.simulate                                  the default data, data/US-sim, in 2 to 20 seconds
  python -m datasets.simulate --out data/US-sim-1M --unlabelled 1000000 --workers 2
                                                               a million unlabelled series, minutes, 1.3 GB
  python -m datasets.simulate --out /tmp/tiny --unlabelled 500 --train 200 --valid 50 --eval 100 --years 2019
  python -m datasets.simulate --scene data/scene --site Harvey --year 2019
                                                               images and labels of a place, with known truth
"""
SCENE_SIZE, SMALLEST_SCENE, LARGEST_SCENE = 400, 30, 20_000  # pixels along a side


def simulate(
    root: str | Path,
    *,
    unlabelled: int = UNLABELLED,
    train: int = TRAIN,
    valid: int = VALID,
    evaluation: int = EVALUATION,
    years: tuple[int, ...] = YEARS,
    seed: int = SEED,
    progress: bool = True,
    workers: int = 1,
) -> Path:
    """Write a data root of simulated series and return its path.

    The unlabelled pool is of the first year; each year has labelled pools of its own. A pool of 0 series is left out.
    Everything is written to a sibling folder that takes the name `root` when it is complete.

    Raises:
        DataError: `root` exists already or cannot be made, a size is negative, no year, or nothing to simulate.
    """
    root, sizes = Path(root), dict(zip(POOLS, (unlabelled, train, valid, evaluation), strict=True))
    _check(root, sizes, years, seed, workers)
    pools = [("unlabelled", years[0])] + [(pool, year) for year in years for pool in POOLS[1:]]
    count = unlabelled + len(years) * (train + valid + evaluation)
    with _new_folder(root) as folder, _mapper_of(workers) as mapper:
        with tqdm(total=count, unit=" series", desc=f"simulating {root}", disable=not progress) as bar:
            write_classmap(folder / "classmapping20.csv", CDL20)
            for pool, year in pools:
                if sizes[pool]:
                    _write_pool(folder / str(year) / pool, pool, year, sizes[pool], seed, mapper, bar)
    return root


def simulate_scene(
    root: str | Path, *, site: str, year: int, size: int = SCENE_SIZE, seed: int = SEED, workers: int = 1,
    progress: bool = True,
) -> Path:  # fmt: skip
    """Write images and labels of a simulated scene of `size` x `size` pixels of 10 m, and return its path.

    All is made in a sibling folder that takes the name `root` when complete. DataError: `root` exists already, an
    unknown site, a year, size, seed or number of workers that cannot be, or a library of requirements-geo.txt that is
    not installed.
    """
    root, names = Path(root), [place.name.lower() for place in SITES]
    if site.lower() not in names:
        raise DataError(f"unknown site {site!r}; expected one of {', '.join(place.name for place in SITES)}")
    if not SMALLEST_SCENE <= size <= LARGEST_SCENE:
        raise DataError(f"size {size}; expected {SMALLEST_SCENE} to {LARGEST_SCENE} pixels")
    _check(root, {"scene": size}, (year,), seed, workers, out="--scene")
    for library in ("rasterio", "geopandas", "pyogrio"):
        need(library, "a scene")
    plan = ScenePlan(seed, names.index(site.lower()), year, size)
    with _new_folder(root, "--scene") as folder, _mapper_of(workers) as mapper:
        tasks = tasks_of(plan, folder)
        total = sum(task.files() for task in tasks)
        with tqdm(total=total, unit=" files", desc=f"simulating {root}", disable=not progress) as bar:
            for files in mapper(run_task, tasks):
                bar.update(files)
    return root


def ensure_default(datapath: str | Path) -> Path:
    """The folder that `datapath` means; the default data are made where they are not there yet.

    Of several processes that begin together one makes them and the others wait for it.
    """
    path = locate(datapath)
    if path.resolve() != default_path().resolve() or _is_filled(path):
        return path
    with one_at_a_time(path):
        if not _is_filled(path):
            print(f"{path} is not there yet: simulating the default data once, 50,000 series (2 to 20 s)", flush=True)
            if path.is_dir():
                path.rmdir()
            simulate(path)
    return path


def _is_filled(path: Path) -> bool:
    return path.exists() and not (path.is_dir() and not any(path.iterdir()))


def _check(
    root: Path, sizes: dict[str, int], years: tuple[int, ...], seed: int, workers: int, out: str = "--out"
) -> None:
    if root.exists():
        raise DataError(f"{root}: already exists; remove it or choose another {out}")
    for pool, size in sizes.items():
        if size < 0:
            raise DataError(f"{size} {pool} series asked for; expected 0 or more")
    if not sum(sizes.values()):
        raise DataError("all pools are of size 0; expected at least one series")
    if not years or len(set(years)) < len(years) or min(years) < 2019 or max(years) > 2100:
        raise DataError(f"years {' '.join(map(str, years)) or 'none'}; expected one or more, each once, 2019 to 2100")
    if seed < 0:
        raise DataError(f"seed {seed}; expected 0 or more")
    if workers < 1:
        raise DataError(f"{workers} workers; expected 1 or more")


@contextmanager
def _new_folder(root: Path, option: str = "--out") -> Iterator[Path]:
    """A folder beside `root` that takes its name at the end, or is removed when anything goes wrong."""
    try:
        with atomic_folder(root) as folder:
            yield folder
    except FileExistsError as error:
        if error.filename != str(root):
            raise
        raise DataError(f"{root}: another process has made it meanwhile") from None
    except WriteError:
        raise
    except OSError as error:
        raise DataError(f"{root}: cannot be made ({error.strerror}); choose another {option}") from None


@contextmanager
def _mapper_of(workers: int) -> Iterator[Callable]:
    """A `map` that keeps the order of the plans, in this process or in several."""
    if workers == 1:
        yield map
        return
    with ProcessPoolExecutor(workers) as executor:
        yield lambda function, plans: _windowed(executor, function, plans, 8 * workers)


def _windowed(executor: ProcessPoolExecutor, function: Callable, plans: Iterable, ahead: int) -> Iterator:
    """Like executor.map, but with at most `ahead` results pending, so that memory stays constant."""
    pending: deque[Future] = deque()
    for plan in plans:
        pending.append(executor.submit(function, plan))
        if len(pending) >= ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def plan_blocks(pool: str, year: int, size: int, seed: int) -> Iterator[BlockPlan]:
    """Blocks that make `size` series, interleaving the sites in proportion to their weights."""
    quota = _site_quotas(size)
    made, blocks = np.zeros(len(SITES), dtype=np.int64), np.zeros(len(SITES), dtype=np.int64)
    while (made < quota).any():
        site = int(np.argmin(np.where(made < quota, made / np.maximum(quota, 1), np.inf)))
        count = int(min(BLOCK, quota[site] - made[site]))
        yield BlockPlan(seed, POOLS.index(pool), site, year, int(blocks[site]), count)
        made[site] += count
        blocks[site] += 1


def _site_quotas(size: int) -> np.ndarray:
    """Number of series of each site, by the largest-remainder method."""
    exact = size * np.array([site.weight for site in SITES]) / sum(site.weight for site in SITES)
    quota = np.floor(exact).astype(np.int64)
    quota[np.argsort(quota - exact, kind="stable")[: size - quota.sum()]] += 1
    return quota


def _write_pool(folder: Path, pool: str, year: int, size: int, seed: int, mapper: Callable, bar: tqdm) -> None:
    provenance = {"source": "US-sim, simulated", "pool": pool, "year": year, "size": size, "seed": seed}
    plans = list(plan_blocks(pool, year, size, seed))
    with StoreWriter(folder, provenance=provenance) as writer:
        buffer = []
        for plan, block in zip(plans, mapper(simulate_block, plans), strict=True):
            buffer.append((plan, block))
            if len(buffer) == APPEND or plan is plans[-1]:
                _append(writer, buffer, labelled=pool != "unlabelled")
                bar.update(sum(len(b.lengths) for _, b in buffer))
                buffer = []


def _append(writer: StoreWriter, blocks: list[tuple[BlockPlan, SeriesBlock]], labelled: bool) -> None:
    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(block, name) for _, block in blocks])

    index = None
    if labelled:
        codes = joined("codes")
        sites = [SITES[plan.site].name for plan, _ in blocks]
        counts = [len(block.lengths) for _, block in blocks]
        index = {
            "label": CDL20.label_of(codes),
            "code": codes,
            "region": np.repeat(sites, counts),
            "year": np.repeat([plan.year for plan, _ in blocks], counts),
            "tile": np.repeat([block.tile for _, block in blocks], counts),
            "field": np.concatenate([plan.number * BLOCK + block.field for plan, block in blocks]),
        }
    writer.append(joined("bands"), joined("doy"), joined("lengths"), index)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="python -m datasets.simulate",
        description="Simulate Sentinel-2 series, or images, of the six US study sites.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    pools = parser.add_argument_group("series")
    pools.add_argument(
        "--out", type=Path, metavar="FOLDER", help=f"folder to make (default: {DEFAULT.as_posix()} beside the scripts)"
    )
    pools.add_argument("--unlabelled", type=int, help=f"series, of the first year ({UNLABELLED})")
    pools.add_argument("--train", type=int, help=f"labelled series a year ({TRAIN})")
    pools.add_argument("--valid", type=int, help=f"labelled series a year ({VALID})")
    pools.add_argument("--eval", type=int, dest="evaluation", help=f"labelled series a year ({EVALUATION})")
    pools.add_argument("--years", type=int, nargs="+", help="years of the labelled pools")
    scene = parser.add_argument_group("a scene")
    scene.add_argument("--scene", type=Path, help="folder to make, of images and labels")
    scene.add_argument("--site", help=f"one of {', '.join(site.name for site in SITES)}")
    scene.add_argument("--year", type=int, help="year of the images")
    scene.add_argument("--size", type=int, help=f"pixels of 10 m along a side ({SCENE_SIZE})")
    parser.add_argument("--seed", type=int, default=SEED, help=f"the same seed gives the same data ({SEED})")
    parser.add_argument("--workers", type=int, default=1, help="processes; the data does not depend on it (1)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser.parse_args(argv)


def _given(args: argparse.Namespace, names: tuple[str, ...]) -> dict:
    """The options of these names that the user gave."""
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def _refuse(given: dict, reason: str) -> None:
    if given:
        options = ", ".join("--eval" if name == "evaluation" else f"--{name}" for name in given)
        raise DataError(f"{options}: {reason}")


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    args = _arguments(argv)
    common = dict(seed=args.seed, progress=not args.quiet, workers=args.workers)
    pools = _given(args, ("out", "unlabelled", "train", "valid", "evaluation", "years"))
    scene = _given(args, ("site", "year", "size"))
    if args.scene is None:
        _refuse(scene, "for a scene only; add --scene FOLDER or leave out")
        if "years" in pools:
            pools["years"] = tuple(pools["years"])
        simulate(pools.pop("out", default_path()), **pools, **common)
        return
    _refuse(pools, "not for a scene; leave out, or leave out --scene")
    for name in ("site", "year"):
        if name not in scene:
            raise DataError(f"--scene needs --{name}, such as --site Harvey --year 2019")
    simulate_scene(args.scene, **scene, **common)


if __name__ == "__main__":
    main()
