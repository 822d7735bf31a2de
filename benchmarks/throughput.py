"""How fast pre-training is, where the time goes, and how near it is to the arithmetic.

    python -m benchmarks.throughput [--baseline naive]

Everything is of the Transformer with the v2 head, on simulated series, as the first command of the README trains it.
Figures are the best of several rounds, and what is compared is timed in turns, so that other work on the machine weighs
on all alike; the naive step has a process of its own. Arithmetic is counted in multiplications and additions of the
matrix products, for one series of S observations, width d = 128, feed-forward width d, and K keys of width d in the
queue:

    encoder  E = S (2 (10 32 + 32 64 + 64 d) + 12 d^2 + 4 S d) + 4 d^2    (embedding, projections and feed-forward,
                                                                           q k^T and weights v, head)
    step     4 E + 4 d K      (queries forward, and backward at twice the cost; keys forward; logits and their gradient)

"Peak" is the rate of one large matrix product in the type that the step computes in, on the same device.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks import naive
from benchmarks.clock import OwnProcess, best, seconds
from datasets.batches import open_series, split_batches
from datasets.catalog import open_unlabelled
from datasets.simulate import simulate
from datasets.store import SeriesSet
from moco.builder import MoCo
from moco.loader import two_views
from models import build_model
from pretraining.step import TrainingStep, compile_step, is_compiling_wanted
from utils import options
from utils.errors import Parser, UsageError, exit_cleanly
from utils.precision import AMP, Precision
from utils.runtime import distributed
from utils.runtime.seeding import make_generator, seed_everything

DIM, YEAR = 128, 2019


def get_args(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=options.HelpFormatter)
    add, whole = parser.add_argument, options.at_least(1)
    add("-d", "--device", default=None, help="cpu, cuda, cuda:1 … (default: a GPU if there is one)")
    add("-b", "--batchsize", type=whole, default=512)
    add("--moco-k", type=whole, default=65536, help="keys in the queue")
    add("-seq", "--sequencelength", type=whole, default=70)
    add("--series", type=whole, default=20_000, help="series to simulate")
    add("--steps", type=whole, default=None, help="steps in a round (default: 3, on a GPU 100)")
    add("--rounds", type=whole, default=5, help="of which the best counts")
    add("--amp", choices=AMP, default=None)
    add("--compile", action=argparse.BooleanOptionalAction, default=None)
    add("--baseline", choices=("naive",), default=None, help="time a straightforward implementation as well")
    add("--seed", type=int, default=111)
    args = parser.parse_args(argv)
    if args.series < args.batchsize:
        raise UsageError(f"--series {args.series} is below one batch of {args.batchsize}; raise --series or lower -b")
    if args.moco_k < args.batchsize:
        raise UsageError(f"--moco-k {args.moco_k} is below the batch of {args.batchsize}; raise --moco-k or lower -b")
    return args


# -- arithmetic --------------------------------------------------------------------------------------------------------


def encoder_flop(size: int) -> int:
    """Forward of one series, see the top of this file."""
    embedding = 2 * (10 * 32 + 32 * 64 + 64 * DIM)
    return size * (embedding + 12 * DIM**2 + 4 * size * DIM) + 4 * DIM**2


def step_flop(size: int, queue_length: int) -> int:
    """A training step, for each series of the batch."""
    return 4 * encoder_flop(size) + 4 * DIM * queue_length


def peak_flop(precision: Precision, width: int) -> float:
    """Operations a second of one large square matrix product."""
    a, b = torch.randn(2, width, width, device=precision.device)
    with precision.autocast():
        times = best({"product": lambda: a @ b}, 10, precision.device)
    return 2 * width**3 / times["product"]


# -- the step ----------------------------------------------------------------------------------------------------------


class Bench:
    """What main_moco.py trains with, on simulated series."""

    def __init__(self, args: argparse.Namespace, series: SeriesSet, device: torch.device):
        self.args, self.device = args, device
        self.precision = Precision(args.amp, device)
        encoder = build_model("transformer", use_doy=True, init="torch")
        self.views = partial(two_views, size=args.sequencelength, method="rc")
        self.moco = MoCo(encoder, self.views, dim=DIM, K=args.moco_k, mlp=True).to(device).train()
        parameters = [p for p in self.moco.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(parameters, 1e-3, weight_decay=1e-4, fused=True)
        self.reader = open_series(series, device, fixed_width=True)
        self.generator = make_generator(args.seed, device=device)
        self.batches = self.endless(len(series))
        self.step = TrainingStep(self.moco, self.optimizer, self.precision)
        first = self.reader.gather(next(self.batches))
        self.fixed = self.views(first, self.generator)
        alone = distributed.World(0, 1, device)
        if is_compiling_wanted(args.compile, alone):
            compile_step(self.step, first, alone, is_required=args.compile)

    def endless(self, count: int) -> Iterator[np.ndarray]:
        """Batch after batch, shuffled anew in each epoch."""
        order = np.random.default_rng(self.args.seed)
        while True:
            yield from split_batches(order.permutation(count), self.args.batchsize, drop_last=True)

    def fixed_steps(self) -> None:
        """Training on the same batch again and again."""
        for _ in range(self.args.steps):
            self.step.begin()
            self.step.on_views(*self.fixed)

    def steps(self) -> None:
        """Training as it is, from the store to the queue."""
        upcoming = [next(self.batches) for _ in range(self.args.steps)]
        for series in self.reader.stream(upcoming):
            self.step(series, self.generator)

    def stages(self) -> dict[str, float]:
        """Seconds of each stage of one uncompiled step; the device is waited for after each."""
        done: dict = {}
        moco, precision, rows = self.moco, self.precision, next(self.batches)
        view_q, view_k = self.fixed

        def keep(name: str, work: Callable[[], object]):
            def stage():
                with precision.autocast():
                    done[name] = work()

            return seconds(stage, self.device)

        def update():
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            moco.update_key_encoder()
            moco.enqueue(done["encode k"])

        return {
            "gather": keep("gather", lambda: self.reader.gather(rows)),
            "augment": keep("augment", lambda: self.views(done["gather"], self.generator)),
            "encode q": keep("encode q", lambda: moco.encode_queries(view_q)),
            "encode k": keep("encode k", lambda: moco.encode_keys(view_k)),
            "logits + loss": keep("loss", lambda: moco.contrast(done["encode q"], done["encode k"]).loss),
            "backward": seconds(lambda: done["loss"].backward(), self.device),
            "optimizer + momentum + enqueue": seconds(update, self.device),
        }


# -- the report --------------------------------------------------------------------------------------------------------


def report(args: argparse.Namespace, root: Path, device: torch.device) -> dict[str, float]:
    """Time everything and print it; returns series/s by name."""
    bench = Bench(args, open_unlabelled(root, YEAR), device)
    print(f"{'compiled' if bench.step.is_compiled else 'not compiled'}, amp {bench.precision.amp}")
    works = {"end to end": bench.steps, "fixed batch": bench.fixed_steps}
    if args.baseline:
        works["naive"] = OwnProcess(naive.pretraining, args, root, YEAR, device, DIM)
    warm_up = {name: seconds(work, device) for name, work in works.items()}
    times = best(works, args.rounds, device)
    rates = {name: args.steps * args.batchsize / spent for name, spent in times.items()}
    for name, rate in rates.items():
        per_step = times[name] / args.steps
        print(f"{name:32} {rate:12,.0f} series/s   {per_step:8.4f} s a step   first round {warm_up[name]:.1f} s")
    print(
        f"{'data and augmentation':32} {times['end to end'] / times['fixed batch'] - 1:12.1%} on top of the fixed batch"
    )
    if args.baseline:
        print(f"{'end to end / naive':32} {rates['end to end'] / rates['naive']:12.2f} times as fast")
    flop = step_flop(args.sequencelength, args.moco_k)
    achieved = flop * rates["fixed batch"] / 1e12
    peak = peak_flop(bench.precision, 8192 if device.type == "cuda" else 1024) / 1e12
    print(f"{'arithmetic':32} {flop / 1e6:12.1f} MFLOP a series")
    print(f"{'achieved, fixed batch':32} {achieved:12.3f} TFLOP/s, {achieved / peak:.0%} of the peak of {peak:.3f}")
    print_stages([bench.stages() for _ in range(args.rounds)])
    return rates


def print_stages(rounds: list[dict[str, float]]) -> None:
    stages = {name: min(row[name] for row in rounds) for name in rounds[0]}
    total = sum(stages.values())
    print("where an uncompiled step spends its time:")
    for name, spent in stages.items():
        print(f"  {name:30} {1e3 * spent:12.2f} ms  {spent / total:6.1%}")


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    args = get_args(argv)
    device = distributed.start(args.device).device
    args.steps = args.steps or (100 if device.type == "cuda" else 3)
    seed_everything(args.seed)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    print(f"{name}, torch {torch.__version__}; batch {args.batchsize}, K {args.moco_k}, S {args.sequencelength}")
    with tempfile.TemporaryDirectory() as folder:
        root = simulate(Path(folder) / "sim", unlabelled=args.series, train=0, valid=0, evaluation=0, years=(YEAR,))
        report(args, root, device)


if __name__ == "__main__":
    main()
