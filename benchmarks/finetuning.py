"""How fast STNet is fine-tuned and tested.

    python -m benchmarks.finetuning [--baseline naive]

On simulated series, with the batch of the published recipe, as the second command of the README does it: an epoch on
the train split, its loss and accuracy kept; the predictions of the eval split and their scores. Figures are the best of
several rounds, and what is compared is timed in turns; the naive way has a process of its own.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks import naive
from benchmarks.clock import OwnProcess, best, seconds
from datasets.catalog import Selection, open_classmap, open_labelled
from datasets.simulate import simulate
from tscls.classifier import fresh_classifier
from tscls.evaluation import scores_on
from tscls.recipe import PUBLISHED
from tscls.training import Training
from utils import options
from utils.errors import Parser, exit_cleanly
from utils.precision import Precision
from utils.results.progress import Progress
from utils.runtime import distributed
from utils.runtime.distributed import World

YEAR, NAME = 2019, "stnet"


def get_args(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=options.HelpFormatter)
    add, whole = parser.add_argument, options.at_least(1)
    add("-d", "--device", default=None, help="cpu, cuda, cuda:1 … (default: a GPU if there is one)")
    add("-b", "--batchsize", type=options.at_least(2), default=512)
    add("-seq", "--sequencelength", type=whole, default=70)
    add("--series", type=options.at_least(10), default=3000, help="series of each split; valid has a tenth")
    add("--rounds", type=whole, default=5, help="of which the best counts")
    add("--amp", choices=options.AMP, default=None)
    add("--compile", action=argparse.BooleanOptionalAction, default=None)
    add("--baseline", choices=("naive",), default=None, help="time a straightforward implementation as well")
    return parser.parse_args(argv)


def report(args: argparse.Namespace, root: Path, world: World) -> None:
    """Time everything and print it."""
    splits, classmap = open_labelled(root, YEAR, Selection(use_all=True)), open_classmap(root)
    recipe, precision = replace(PUBLISHED, batchsize=args.batchsize), Precision(args.amp, world.device)
    classifier = fresh_classifier(NAME, classmap, "rc", sequencelength=args.sequencelength, draws=recipe.draws)
    training = Training(classifier, splits, recipe, precision, world, is_compiled=bool(args.compile))
    silent = Progress(NAME, 0, is_main=False)

    def epoch() -> None:
        training.run_epoch(silent)
        training.run.begin_epoch()

    works = {
        "fine-tuning": epoch,
        "testing": lambda: scores_on(classifier, splits.eval, world, precision=precision),
    }
    if args.baseline:
        shared = (splits, classmap.num_classes, args.sequencelength, args.batchsize, world.device)
        works["fine-tuning, naive"] = OwnProcess(naive.training, *shared)
        works["testing, naive"] = OwnProcess(naive.testing, *shared)
    warm_up = {name: seconds(work, world.device) for name, work in works.items()}
    times = best(works, args.rounds, world.device)
    for name, spent in times.items():
        count = len(splits.train if name.startswith("fine-tuning") else splits.eval)
        print(f"{name:24} {count / spent:12,.0f} series/s   {spent:8.3f} s   first round {warm_up[name]:.1f} s")
    for name in ("fine-tuning", "testing") if args.baseline else ():
        print(f"{f'{name} / naive':24} {times[f'{name}, naive'] / times[name]:12.2f} times as fast")


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    args = get_args(argv)
    world = distributed.start(args.device)
    device = world.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    print(f"{name}, torch {torch.__version__}; {NAME}, batch {args.batchsize}, S {args.sequencelength}")
    with tempfile.TemporaryDirectory() as folder:
        size = args.series
        root = simulate(
            Path(folder) / "sim", unlabelled=0, train=size, valid=size // 10, evaluation=size, years=(YEAR,)
        )
        report(args, root, world)


if __name__ == "__main__":
    main()
