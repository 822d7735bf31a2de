"""How near a map comes to its slower half: reading alone, the model alone on ready series, and the whole.

    python -m benchmarks.map --model results/T_STNet_R3000_RC_2019_Seed111 --images data/scene/images

Prints pixels/s of each, best of some rounds in turns, and the whole by the slower of the two. The whole is what
mapping.predict does in one process: reading in a thread, classifying, and writing the parts. With --rows, only the
whole, for maps of growing height: the pixels/s must stay the same, and so must the peak of the memory.

Pixels per core-second, of the time that processor cores worked, depend less on what else runs on the machine.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.clock import seconds
from datasets.images import add_arguments, open_from
from datasets.preparation.extract import bound_cache
from mapping.area import Box
from mapping.parts import Parts
from mapping.predict import classes_of
from mapping.running import CACHE, Job, run_here
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


class Took(NamedTuple):
    """Seconds on the clock, and those that cores of this process worked, all together."""

    clock: float
    cores: float

    def rates(self, pixels: int) -> str:
        return f"{pixels / self.clock:12,.0f} pixels/s {pixels / self.cores:12,.0f} pixels per core-second"


def took(work: Callable[[], object], device: torch.device) -> Took:
    """What work takes."""
    start = time.process_time()
    clock = seconds(work, device)
    return Took(clock, time.process_time() - start)


def make(plan: Plan, classifier: Classifier) -> None:
    """Make all windows of the plan, and forget them."""
    with tempfile.TemporaryDirectory() as folder:
        parts = Parts(Path(folder) / "map.tif")
        parts.start({})
        job = Job(plan, "", None, None)
        run_here(job, classifier, parts, list(range(len(plan.windows))), lambda count: None)


def measure(plan: Plan, classifier: Classifier, rounds: int) -> dict[str, Took]:
    """What `reading`, `model` and `whole` take for all windows of the plan, the best of some rounds in turns."""
    numbers = range(len(plan.windows))
    ready = [plan.read(number) for number in numbers]
    works = {
        "reading": lambda: [plan.read(number) for number in numbers],
        "model": lambda: [plan.classify(number, classifier, *ready[number]) for number in numbers],
        "whole": lambda: make(plan, classifier),
    }
    turns = [{name: took(work, classifier.device) for name, work in works.items()} for _ in range(rounds)]
    return {name: Took(*(min(times) for times in zip(*(turn[name] for turn in turns), strict=True))) for name in works}


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    args = get_args(argv)
    bound_cache(CACHE)
    classifier = load_classifier(args.model, distributed.start(args.device).device)
    images = open_from(args)
    classes = classes_of(classifier.classmap)

    def plan_of(rows: int) -> Plan:
        grid = images.grid._replace(height=min(rows, images.grid.height))
        return Plan(images, Box(0, 0, grid), None, classes, Options(), args.window)

    for rows in args.rows:
        plan = plan_of(rows)
        pixels = plan.box.grid.height * plan.box.grid.width
        rates = took(lambda plan=plan: make(plan, classifier), classifier.device).rates(pixels)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"{plan.box.grid.height:6} rows {rates}, peak memory {peak:.2f} GB", flush=True)
    if args.rows:
        return
    plan = plan_of(images.grid.height)
    times, pixels = measure(plan, classifier, args.rounds), plan.box.grid.height * plan.box.grid.width
    print(f"{classifier.name} on {classifier.device}, {len(images.dates)} dates, {pixels:,} pixels")
    for name, one in times.items():
        print(f"{name:8} {one.rates(pixels)}")
    fraction = max(times["reading"].clock, times["model"].clock) / times["whole"].clock
    print(f"the whole has {fraction:.0%} of the speed of the slower one (goal: {GOAL:.0%})")


if __name__ == "__main__":
    main()
