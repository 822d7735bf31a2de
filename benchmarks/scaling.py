"""How the cost of pre-training grows with the number of series, with the length S and with the batch.

    python -m benchmarks.scaling --sim-root data --out docs/scaling-cpu -d cpu
    python -m benchmarks.scaling --sim-root data --out docs/scaling-gpu -d cuda --workers 8

Each sweep varies one of the three; the other two stay at a point that the sweeps share: the largest number of series,
and the S and the batch of the README's first command. Every point trains as main_moco.py does, from reading the store
to updating the queue, on about the same number of series (--work, at least 2 steps). All points are timed in turns and
the best of --rounds counts. Costs are relative to the first point of the sweep, next to the cost of the arithmetic
alone (counted by benchmarks/throughput.py). Writes OUT.csv, OUT.md and, with matplotlib, OUT.png.

On two CPU cores this takes about 10 minutes and 16 GB of memory; the first run also
simulates the series, which takes a minute. On a GPU it takes a few minutes, most of them to compile the step for each S
and batch.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from tqdm import tqdm

from benchmarks.clock import best
from benchmarks.throughput import Bench, step_flop
from datasets.catalog import open_unlabelled
from datasets.errors import DataError
from datasets.simulate import simulate
from datasets.store import SeriesSet
from pretraining.step import is_compiling_wanted
from utils import options
from utils.errors import Parser, UsageError, exit_cleanly
from utils.files import make_folder, write_csv, write_text
from utils.results.figures import new_figure, save
from utils.runtime import distributed
from utils.runtime.seeding import seed_everything

YEAR = 2019
BATCHES = [128, 256, 512, 1024, 2048, 4096, 8192]
WORK = {"cpu": 1024, "cuda": 102_400}


class Point(NamedTuple):
    """A combination at which the cost is measured."""

    series: int
    S: int
    batch: int


SWEEPS = {"series": "number of series", "S": "length S (observations)", "batch": "batch (series)"}


def get_args(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=options.HelpFormatter)
    add, whole = parser.add_argument, options.at_least(1)
    add("--series", type=whole, nargs="+", default=[10_000, 100_000, 1_000_000], help="numbers of series")
    add("--lengths", type=whole, nargs="+", default=[35, 70, 140], help="lengths S")
    add("--batches", type=options.at_least(2), nargs="+", default=BATCHES, help="batches")
    add("-seq", "--sequencelength", type=whole, default=70, help="S of the other sweeps")
    add("-b", "--batchsize", type=options.at_least(2), default=512, help="batch of the other sweeps")
    add("--moco-k", type=whole, default=65536, help="keys in the queue")
    add("--work", type=whole, default=None, help="series of a point in a round (default: 1024, on a GPU 102,400)")
    add("--rounds", type=options.at_least(2), default=4, help="of which the best counts; the first one warms up")
    add("-d", "--device", default=None, help="cpu, cuda, cuda:1 … (default: a GPU if there is one)")
    add("--amp", choices=options.AMP, default=None)
    add("--compile", action=argparse.BooleanOptionalAction, default=None)
    add("--seed", type=int, default=111)
    add("--sim-root", type=Path, default=None, help="keep the simulated series in this folder (default: remove them)")
    add("--workers", type=whole, default=1, help="processes that simulate")
    add("--out", default="results/scaling", metavar="PREFIX", help="path of tables and figure, without extension")
    return parser.parse_args(argv)


# -- what is measured, and on what -------------------------------------------------------------------------------------


def simulated(folder: Path, count: int, workers: int = 1) -> SeriesSet:
    """`count` unlabelled series in folder/US-sim-<count>, simulated if they are not there."""
    root = folder / f"US-sim-{count}"
    if not root.exists():
        simulate(root, unlabelled=count, train=0, valid=0, evaluation=0, years=(YEAR,), workers=workers)
    series = open_unlabelled(root, YEAR)
    if len(series) != count:
        raise DataError(f"{series.store.path}: {len(series):,} series, its name says {count:,}; remove {root}")
    return series


def simulation_folder(kept: Path | None):
    """A context manager of the folder to keep, or of a temporary one."""
    return tempfile.TemporaryDirectory() if kept is None else nullcontext(kept)


def machine(device: torch.device) -> str:
    """The machine and the date of the measurement."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        threads = torch.get_num_threads()
        name = f"{_processor()}, {threads} thread{'s' if threads > 1 else ''}"
    return f"{name}, torch {torch.__version__}, {datetime.date.today()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def plan(args: argparse.Namespace) -> dict[str, list[Point]]:
    """The points of each sweep, in rising order; the one that they share is in all."""
    shared = Point(max(args.series), args.sequencelength, args.batchsize)
    values = {"series": args.series, "S": args.lengths, "batch": args.batches}
    sweeps = {
        name: [shared._replace(**{name: value}) for value in sorted({*values[name], getattr(shared, name)})]
        for name in SWEEPS
    }
    for point in sum(sweeps.values(), []):
        if point.batch > min(point.series, args.moco_k):
            raise UsageError(
                f"a batch of {point.batch} does not fit {point.series} series and {args.moco_k} keys;"
                " change --batches, -b, --series or --moco-k"
            )
    return sweeps


# -- measuring ---------------------------------------------------------------------------------------------------------


def build(args: argparse.Namespace, point: Point, series: SeriesSet, device: torch.device) -> Bench:
    steps = max(2, round(args.work / point.batch))
    own = {"batchsize": point.batch, "sequencelength": point.S, "steps": steps}
    return Bench(argparse.Namespace(**vars(args) | own), series, device)


def measure(args: argparse.Namespace, points: list[Point], device: torch.device) -> tuple[dict[Point, float], str]:
    """Series/s of each point, and how they were computed."""
    with simulation_folder(args.sim_root) as folder:
        sets = {count: simulated(Path(folder), count, args.workers) for count in sorted({p.series for p in points})}
        benches, readers = {}, {}
        if is_compiling_wanted(args.compile, distributed.World(0, 1, device)):
            expect_shapes(len(points))
        for point in points:
            bench = benches[point] = build(args, point, sets[point.series], device)
            bench.reader = readers.setdefault(point.series, bench.reader)  # one copy on the device serves all points
        with tqdm(total=args.rounds * len(points), desc="measuring", unit=" points", disable=None) as bar:

            def timed(bench: Bench):
                return lambda: (bench.steps(), bar.update())

            times = best({point: timed(bench) for point, bench in benches.items()}, args.rounds, device)
    precision = "float32" if bench.precision.amp == "off" else bench.precision.amp
    if len({bench.step.is_compiled for bench in benches.values()}) > 1:
        raise UsageError("some points could be compiled and others not; give --no-compile")
    how = f"Transformer, {args.moco_k:,} keys, {precision}, {'compiled' if bench.step.is_compiled else 'not compiled'}"
    return {point: benches[point].args.steps * point.batch / spent for point, spent in times.items()}, how


def expect_shapes(count: int) -> None:
    """Let torch compile the step for so many shapes; after eight it would go on uncompiled, with no more than a log."""
    from torch._dynamo import config

    config.cache_size_limit = max(config.cache_size_limit, 8 * count)


# -- the report --------------------------------------------------------------------------------------------------------


def tabulate(sweeps: dict[str, list[Point]], rates: dict[Point, float], keys: int) -> pd.DataFrame:
    """A row a point and sweep: rate, cost of a series (also relative to the sweep's first), seconds of an epoch."""
    rows = []
    for name, points in sweeps.items():
        first = points[0]
        for point in points:
            rows.append(
                {
                    "sweep": name,
                    **point._asdict(),
                    "series_per_s": rates[point],
                    "us_per_series": 1e6 / rates[point],
                    "relative_cost": rates[first] / rates[point],
                    "relative_arithmetic": step_flop(point.S, keys) / step_flop(first.S, keys),
                    "epoch_s": point.series / rates[point],
                }
            )
    return pd.DataFrame(rows)


def markdown(table: pd.DataFrame) -> str:
    """A table for each sweep, with a sentence on its result."""
    return "\n\n".join(f"{_markdown_of(rows, name)}\n\n{_verdict(rows, name)}" for name, rows in _by_sweep(table))


def _by_sweep(table: pd.DataFrame):
    return table.groupby("sweep", sort=False)


def _markdown_of(rows: pd.DataFrame, name: str) -> str:
    lines = [
        f"| {SWEEPS[name]} | series/s | cost of a series | relative cost | relative arithmetic | epoch |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows.itertuples():
        lines.append(
            f"| {getattr(row, name):,} | {three_digits(row.series_per_s)} | {three_digits(row.us_per_series)} µs"
            f" | {row.relative_cost:.2f} | {row.relative_arithmetic:.2f} | {three_digits(row.epoch_s)} s |"
        )
    return "\n".join(lines)


def _verdict(rows: pd.DataFrame, name: str) -> str:
    first, last = rows.iloc[0], rows.iloc[-1]
    if name == "series":
        spread = rows["us_per_series"].max() / rows["us_per_series"].min() - 1
        return (
            f"An epoch's time per series is constant within {spread:.1%} from {first.series:,} to {last.series:,}"
            f" series (S = {last.S}, batch {last.batch})."
        )
    if name == "S":
        return (
            f"From S = {first.S} to {last.S} a series costs {last.relative_cost:.2f} times as much, its arithmetic"
            f" {last.relative_arithmetic:.2f} times (batch {last.batch}, {last.series:,} series)."
        )
    cheapest, dearest = rows.loc[rows["us_per_series"].idxmin()], rows.loc[rows["us_per_series"].idxmax()]
    return (
        f"A series costs least in a batch of {cheapest.batch:,}, and {cheapest.series_per_s / dearest.series_per_s:.2f}"
        f" times as much in one of {dearest.batch:,} (S = {last.S}, {last.series:,} series)."
    )


def figure(table: pd.DataFrame, shared: Point, title: str, path: Path) -> None:
    """Series/s against the number of series, S and the batch, with what the arithmetic alone would make of them."""
    picture = new_figure(12, 4.3)
    panels = picture.subplots(1, len(SWEEPS), sharey=True)
    paper = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5}
    for axes, (name, rows) in zip(panels, _by_sweep(table), strict=True):
        rates, values = rows["series_per_s"], rows[name]
        base = rows[values == getattr(shared, name)].iloc[0]
        expected = base.series_per_s * base.relative_arithmetic / rows["relative_arithmetic"]
        axes.plot(values, expected, "--", color="#999999", label="expected from the arithmetic, from the shared point")
        axes.plot(values, rates, "o-", color="#2a6f97", label="measured, from store to queue")
        axes.plot(base[name], base.series_per_s, "o", color="#e09f3e", markersize=9, label="shared point")
        for value, rate in zip(values, rates, strict=True):
            text = three_digits(rate) if rate < 1000 else f"{three_digits(rate / 1000)}k"
            axes.annotate(text, (value, rate), (0, 8), textcoords="offset points", ha="center", fontsize=8, bbox=paper)
        fixed = {"series": f"{shared.series:,} series", "S": f"S = {shared.S}", "batch": f"batch {shared.batch}"}
        axes.set_title(", ".join(text for other, text in fixed.items() if other != name), fontsize=10)
        axes.set_xlabel(SWEEPS[name])
        axes.set_xscale("log")
        axes.set_xticks(values, [f"{value:,}" for value in values])
        axes.set_xticks([], minor=True)
        axes.margins(x=0.12)
        axes.grid(axis="y", color="#eeeeee")
        axes.spines[["top", "right"]].set_visible(False)
    highest = max(axes.dataLim.ymax for axes in panels)
    panels[0].set(ylabel="series/s", ylim=(0, 1.12 * highest))
    panels[0].yaxis.set_major_formatter(lambda rate, _: f"{rate:,.0f}")
    handles, labels = panels[0].get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    picture.suptitle(title, fontsize=11)
    save(picture, path)


def three_digits(value: float) -> str:
    """0.012345 -> 0.0123, 12345 -> 12,300."""
    return f"{float(f'{value:.3g}'):,.10g}"


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    args = get_args(argv)
    device = distributed.start(args.device).device
    args.work = args.work or WORK[device.type]
    sweeps = plan(args)
    seed_everything(args.seed)
    print(machine(device), flush=True)
    rates, how = measure(args, list(dict.fromkeys(sum(sweeps.values(), []))), device)
    table = tabulate(sweeps, rates, args.moco_k)
    title, text = f"Pre-training on {machine(device)}\n{how}", markdown(table)
    print(f"{how}\n\n{text}")
    out = Path(args.out)
    make_folder(out.parent)
    write_csv(f"{out}.csv", table, float_format="%.6g")
    write_text(f"{out}.md", f"{title}\n\n{text}\n")
    try:
        figure(table, Point(max(args.series), args.sequencelength, args.batchsize), title, Path(f"{out}.png"))
    except ImportError:
        print("no figure: it needs matplotlib (pip install matplotlib)")


if __name__ == "__main__":
    main()
