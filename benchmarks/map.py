"""How near a map comes to its slower half: reading alone, the model alone on ready series, and the whole.

    python -m benchmarks.map --model results/T_STNet_R3000_RC_2019_Seed111 --images data/scene/images

Prints pixels/s of each, best of some rounds in turns, and the whole by the slower of the two. The whole is what
mapping.predict does in one process: reading in a thread, classifying, and writing the parts. Then, with --rows, the
whole for growing numbers of rows of windows, which must take time in proportion, and the peak of the memory.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from pathlib import Path

from benchmarks.clock import best, seconds
from datasets.images import add_arguments, open_from
from mapping.area import Box
from mapping.parts import Parts
from mapping.predict import classes_of
from mapping.running import Job, run_here
from mapping.windows import Options, Plan
from tscls.classifier import Classifier, load_classifier
from utils import options
from utils.errors import Parser, exit_cleanly
from utils.runtime import distributed

GOAL = 0.85  # the whole by the slower of reading and model


def get_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(prog="python -m benchmarks.map", description=__doc__, formatter_class=options.HelpFormatter)
    add = parser.add_argument
    add("--model", required=True, metavar="RUN", help="run folder of main_tscls.py, or a checkpoint file")
    add("--window", type=options.at_least(16), default=256, help="side of the windows, in pixels")
    add("--rounds", type=options.at_least(1), default=2, help="the best of how many counts")
    add("--rows", type=int, nargs="*", default=[], help="heights of maps, in pixels, that are timed one by one")
    add("-d", "--device", default=None, help="cpu, cuda, cuda:1 … (default: a GPU if there is one)")
    add_arguments(parser)
    return parser.parse_args(argv)


def make(plan: Plan, classifier: Classifier) -> None:
    """Make all windows of the plan, and forget them."""
    with tempfile.TemporaryDirectory() as folder:
        parts = Parts(Path(folder) / "map.tif")
        parts.start({})
        job = Job(plan, "", None, None)
        run_here(job, classifier, parts, list(range(len(plan.windows))), lambda count: None)


def measure(plan: Plan, classifier: Classifier, rounds: int) -> dict[str, float]:
    """Seconds for all windows of the plan of `reading`, `model` and `whole`."""
    numbers = range(len(plan.windows))
    ready = [plan.read(number) for number in numbers]
    works = {
        "reading": lambda: [plan.read(number) for number in numbers],
        "model": lambda: [plan.classify(number, classifier, *ready[number]) for number in numbers],
        "whole": lambda: make(plan, classifier),
    }
    return best(works, rounds, classifier.device)


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    args = get_args(argv)
    classifier = load_classifier(args.model, distributed.start(args.device).device)
    images = open_from(args)
    classes = classes_of(classifier.classmap)

    def plan_of(rows: int) -> Plan:
        grid = images.grid._replace(height=min(rows, images.grid.height))
        return Plan(images, Box(0, 0, grid), None, classes, Options(), args.window)

    for rows in args.rows:
        plan = plan_of(rows)
        took = seconds(lambda plan=plan: make(plan, classifier), classifier.device)
        pixels = plan.box.grid.height * plan.box.grid.width
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"{plan.box.grid.height} rows: {took:.1f} s, {pixels / took:,.0f} pixels/s, peak memory {peak:.2f} GB")
    if args.rows:
        return
    plan = plan_of(images.grid.height)
    times, pixels = measure(plan, classifier, args.rounds), plan.box.grid.height * plan.box.grid.width
    print(f"{classifier.name} on {classifier.device}, {len(images.dates)} dates, {pixels:,} pixels")
    for name, took in times.items():
        print(f"{name:8} {pixels / took:12,.0f} pixels/s")
    fraction = max(times["reading"], times["model"]) / times["whole"]
    print(f"the whole has {fraction:.0%} of the speed of the slower one (goal: {GOAL:.0%})")


if __name__ == "__main__":
    main()
