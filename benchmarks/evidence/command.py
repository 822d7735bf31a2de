"""The command line that the comparisons share, from options to files."""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from benchmarks.evidence import report
from benchmarks.evidence.arms import Arm, Pretraining, chosen, from_files
from benchmarks.evidence.pretrain import Budget, Found, pretrain
from benchmarks.evidence.runs import Cell, Target, averaged, eval_sets, run_cell
from datasets.simulate import ensure_default, simulate
from datasets.store import SeriesSet
from utils import options
from utils.errors import Parser, UsageError
from utils.files import make_folder, write_csv, write_text
from utils.runtime.jobs import in_parallel

SOURCE, SOURCE_SEED, SOURCE_SERIES = "data/US-sim-4242", 4242, 40_000
PROBE = "data/US-sim"
NO_LABELS = 0  # the budget of arms that are not trained
IDS_OF_A_BLOCK = 100_000  # published ids count along the blocks of a site


def get_args(description: str, argv: list[str] | None, **defaults) -> argparse.Namespace:
    parser = Parser(description=description, formatter_class=options.HelpFormatter)
    add = parser.add_argument
    add("--datapath", default="data/US-sim", help="data root with labels")
    add("--year", type=int, default=2019, help="trained on")
    add("--years", type=int, nargs="+", help="tested on (default: --year)")
    add("-c", "--nclasses", type=options.at_least(1), default=20, help="classes, without Other")
    add("--leave-out", metavar="SITE", help="train without this site and test on it alone")
    add("--budgets", type=options.at_least(1), nargs="+", default=[50, 100, 300], help="labels, train and valid")
    add("--seeds", type=int, nargs="+", default=[111, 222, 333, 444, 555], help="they draw labels and weights")
    add("--arms", nargs="+", metavar="ARM", help="which to compare (default: all; an unknown name lists them)")
    add("--checkpoint", nargs="+", default=[], metavar="NAME=PATH", help="further arms that start from these files")
    add("--against", nargs="+", metavar="ARM", help="arms that gains are told over")
    add("--source", default=SOURCE, help=f"pre-trained on; the default is simulated first, {SOURCE_SERIES:,} series")
    add("--epochs", type=options.at_least(1), default=4, help="of each pre-training")
    add("--rates", type=options.positive, nargs="+", default=[1e-3], help="learning rates that each may try")
    add("--search-epochs", type=options.at_least(1), default=1, help="of each trial of a rate")
    add("--probe", default=PROBE, help="by whose labels trials are compared, on its valid split")
    add("-b", "--batchsize", type=options.at_least(2), default=128, help="of each pre-training")
    add("--moco-k", type=options.at_least(1), default=16384, help="keys in MoCo's queue")
    add("--jobs", type=options.at_least(1), default=1, help="runs at a time, each on one core")
    add("--logdir", help="folder for the runs; one that exists is continued")
    add("--out", help="path of tables and picture, without extension (default: LOGDIR/summary)")
    parser.set_defaults(**defaults)
    return parser.parse_args(argv)


def compare(args: argparse.Namespace, arms: dict[str, Arm], pretrainings: dict[str, Pretraining]) -> report.Results:
    """Pre-train what the arms need, run them all, and write and print what came out; returns the predictions."""
    known = arms | from_files(args.checkpoint)
    names = args.arms or known
    missing = [name for name in args.against if name not in names]
    if missing:
        raise UsageError(f"--against {missing[0]}: not among the arms compared; add it to --arms")
    plan, logdir = chosen(names, known), Path(args.logdir)
    target = Target(args.datapath, args.year, tuple(args.years or [args.year]), args.leave_out, args.nclasses)
    for root in (args.datapath, args.probe):
        ensure_default(root)
    series = eval_sets(target)
    checkpoints = pretrain_all(args, plan, pretrainings, logdir)
    results = run_all(args, plan, {name: found.checkpoint for name, found in checkpoints.items()}, target, logdir)
    results = {name: results[name] for name in names}
    out = Path(args.out or logdir / "summary")
    make_folder(out.parent)
    print(f"\n{sum(map(len, series)):,} test series of {target.datapath}, {len(args.seeds)} seeds, overall accuracy\n")
    print(write(results, checkpoints, args.against, blocks_of(series), out))
    return results


def pretrain_all(
    args: argparse.Namespace, plan: dict[str, Arm], pretrainings: dict[str, Pretraining], logdir: Path
) -> dict[str, Found]:
    """The checkpoints that the arms start from, by name of the pre-training."""
    needed = list(dict.fromkeys(arm.pretraining for arm in plan.values() if arm.pretraining))
    if needed and args.source == SOURCE and not Path(SOURCE).exists():
        sizes = {"unlabelled": SOURCE_SERIES, "train": SOURCE_SERIES, "valid": 1000, "evaluation": 1000}
        simulate(SOURCE, seed=SOURCE_SEED, years=(2019,), **sizes)
    budget = Budget(
        args.source, args.epochs, tuple(args.rates), args.search_epochs, args.probe, args.batchsize, args.moco_k
    )
    found = in_parallel(pretrain, [(name, pretrainings[name], budget, logdir) for name in needed], args.jobs)
    return dict(zip(needed, found, strict=True))


def run_all(
    args: argparse.Namespace, plan: dict[str, Arm], checkpoints: dict[str, str], target: Target, logdir: Path
) -> report.Results:
    """The predictions of every arm, by budget and seed."""
    cells = [
        Cell(name, arm, arm.checkpoint or checkpoints.get(arm.pretraining), labels, seed)
        for seed, labels in itertools.product(args.seeds, args.budgets)  # whole seeds first, if it is interrupted
        for name, arm in plan.items()
        if not arm.members and arm.is_trained
    ]
    cells += [
        Cell(name, arm, arm.checkpoint or checkpoints.get(arm.pretraining), NO_LABELS, args.seeds[0])
        for name, arm in plan.items()
        if not arm.is_trained
    ]
    results: report.Results = {name: {} for name in plan}
    found = in_parallel(run_cell, [(cell, target, logdir) for cell in cells], args.jobs)
    for cell, predictions in zip(cells, found, strict=True):
        results[cell.name].setdefault(cell.labels, {})[cell.seed] = predictions
    for name, arm in plan.items():
        if arm.members:
            results[name] = {
                labels: {seed: averaged(results[one][labels][seed] for one in arm.members) for seed in args.seeds}
                for labels in args.budgets
            }
    return results


def blocks_of(series: list[SeriesSet]) -> np.ndarray | None:
    """Which place each test series is of: its field, or the block of its published id; None where neither is known.

    Published ids are numbers; those of other tables tell no place.
    """
    names = []
    for number, part in enumerate(series):
        index = part.store.index
        if index is None or "field" not in index and not is_numeric_dtype(index.get("id", pd.Series([""]))):
            return None
        place = index["field"] if "field" in index else index["id"] // IDS_OF_A_BLOCK
        names.append(f"{number} " + place.astype(str).iloc[part.rows])
    return np.concatenate(names)


def write(
    results: report.Results, checkpoints: dict[str, Found], baselines: list[str], blocks: np.ndarray | None, out: Path
) -> str:
    """Write OUT.csv (runs), OUT-gains.csv, OUT.md and OUT.png; returns the text."""
    rows, differences = report.scores(results), report.gains(results, baselines, blocks)
    for path, frame in ((Path(f"{out}.csv"), rows), (Path(f"{out}-gains.csv"), differences)):
        write_csv(path, frame, float_format="%.4f")
    parts = [report.table(rows)]
    for baseline in baselines:
        part = differences[differences["baseline"] == baseline]
        if len(part):
            parts.append(f"Gain over {baseline}, points of OA, 95 % interval:\n\n{report.gain_table(part)}")
    if checkpoints:
        parts.append(f"Pre-training:\n\n{report.pretraining_table(checkpoints)}")
    text = "\n\n".join(parts)
    write_text(Path(f"{out}.md"), text + "\n")
    if not report.figures.available():
        print("no picture: it needs matplotlib (pip install matplotlib)")
    elif len(differences):
        report.picture(rows, differences, Path(f"{out}.png"))
    return text
