"""Which settings are best with few labels, by cross-validation on blocks of the train and valid splits alone.

    python -m benchmarks.cross_validation --datapath data/US-toy --budgets 50 100 --seeds 111 222 \\
        --pretrained checkpoints/pretrained/SimLabels_STNet/model_best.pth \\
        --variant "default=" "new decoder=--new-decoder" "rate 1e-3=-lr 1e-3"

The labelled series are dealt into folds by their blocks. Each fold is predicted by classifiers that main_tscls.py
trains on labels drawn from the others. The eval split is not used, so what is chosen here may be tested there. Runs are
kept in --logdir and not repeated.
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

import numpy as np

from benchmarks.evidence import report
from benchmarks.evidence.arms import Arm
from benchmarks.evidence.command import blocks_of, run_all
from benchmarks.evidence.runs import Predictions, Target
from datasets.catalog import Selection, open_classmap, open_labelled
from datasets.classmap import write_classmap
from datasets.store import SeriesSet, join
from datasets.writer import StoreWriter
from utils import options
from utils.errors import Parser, UsageError, exit_cleanly
from utils.files import make_folder, write_csv

VALID = 10  # of so many series outside of a fold, one is in valid; as many as a budget takes from there


def get_args(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m benchmarks.cross_validation", description=__doc__)
    parser.formatter_class = options.HelpFormatter
    add = parser.add_argument
    add("--model", default="stnet", help="of main_tscls.py")
    add("--pretrained", metavar="PATH", help="start from this checkpoint")
    add("--variant", nargs="+", default=["default="], metavar="NAME=OPTIONS", help="of main_tscls.py, compared")
    add("--datapath", default="data/US-sim", help="data root with labels")
    add("--year", type=int, default=2019)
    add("-c", "--nclasses", type=options.at_least(1), default=20, help="classes, without Other")
    add("--budgets", type=options.at_least(2), nargs="+", default=[50, 100], help="labels, train and valid")
    add("--seeds", type=int, nargs="+", default=[111, 222], help="they draw labels and weights")
    add("--folds", type=options.at_least(2), default=4)
    add("--jobs", type=options.at_least(1), default=1, help="runs at a time, each on one core")
    add("--logdir", default="results/cross-validation", help="folder for the runs; one that exists is continued")
    return parser.parse_args(argv)


def variants(given: list[str], model: str, checkpoint: str | None) -> dict[str, Arm]:
    """An arm for each NAME=OPTIONS."""
    arms = {}
    for text in given:
        name, sign, flags = text.partition("=")
        if not sign or not name or name in arms:
            raise UsageError(f"--variant {text}: expected NAME=OPTIONS, each name once")
        arms[name] = Arm(model, checkpoint=checkpoint, options=tuple(shlex.split(flags)))
    return arms


def deal(blocks: np.ndarray, folds: int) -> np.ndarray:
    """The fold (N,) of each series, 0 … folds - 1; a block lies in one fold."""
    names, number = np.unique(blocks, return_inverse=True)
    if len(names) < folds:
        raise UsageError(f"--folds {folds}: there are only {len(names)} blocks")
    return (np.random.default_rng(0).permutation(len(names)) % folds)[number]


def write_root(series: SeriesSet, is_held_out: np.ndarray, root: Path, args: argparse.Namespace) -> Target:
    """A data root whose eval split is a fold, and whose train and valid splits are the other series."""
    folder = root / str(args.year)
    rest = np.random.default_rng(0).permutation(np.flatnonzero(~is_held_out))
    parts = {"train": rest[len(rest) // VALID :], "valid": rest[: len(rest) // VALID], "eval": is_held_out.nonzero()[0]}
    for split, positions in parts.items():
        if not (folder / split).is_dir():
            part = series.take(positions)
            bands, days = zip(*(part.series(position) for position in range(len(part))), strict=True)
            with StoreWriter(folder / split) as writer:
                writer.append(np.concatenate(bands), np.concatenate(days), part.lengths, {"label": part.labels})
    write_classmap(root / f"classmapping{args.nclasses}.csv", open_classmap(args.datapath, args.nclasses))
    return Target(str(root), args.year, (args.year,), nclasses=args.nclasses)


@exit_cleanly
def main(argv: list[str] | None = None) -> report.Results:
    """Print and write the table and the paired gains over the first variant; returns the predictions."""
    args = get_args(argv)
    arms = variants(args.variant, args.model, args.pretrained)
    splits = open_labelled(args.datapath, args.year, Selection(nclasses=args.nclasses, use_all=True))
    blocks = blocks_of([splits.train, splits.valid])
    series = join((splits.train, splits.valid))
    if blocks is None:
        raise UsageError(f"{args.datapath}: no block of its series is known, neither by field nor by id")
    fold, logdir = deal(blocks, args.folds), Path(args.logdir)
    by_fold = []
    for number in range(args.folds):
        place = logdir / f"fold{number}"
        target = write_root(series, fold == number, place / "data", args)
        by_fold.append(run_all(args, arms, {}, target, place))
    results = {
        name: {
            labels: {seed: joined([found[name][labels][seed] for found in by_fold]) for seed in args.seeds}
            for labels in args.budgets
        }
        for name in arms
    }
    order = np.concatenate([np.flatnonzero(fold == number) for number in range(args.folds)])
    rows, first = report.scores(results), next(iter(arms))
    gains = report.gains(results, [first], blocks[order])
    make_folder(logdir)
    write_csv(logdir / "scores.csv", rows, float_format="%.4f")
    print(f"\n{len(series):,} series in {args.folds} folds, overall accuracy\n\n{report.table(rows)}")
    if len(gains):
        print(f"\ngain over {first}, points of OA, 95 % interval\n\n{report.gain_table(gains)}")
    return results


def joined(parts: list[Predictions]) -> Predictions:
    """The predictions of all folds, one after another."""
    return Predictions(*(np.concatenate(both) for both in zip(*parts, strict=True)))


if __name__ == "__main__":
    main()
