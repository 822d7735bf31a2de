"""How fast STNet predicts in its inference form (models/inference.py), beside the network itself in evaluation mode.

    python -m benchmarks.inference

Both compute the features of the same random batch in one process, in turns. Ratios are medians over the rounds, of the
processor time of the whole process, so that other work on the machine weighs little.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import torch

from models import build_model
from utils import options
from utils.errors import Parser, exit_cleanly


def get_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=options.HelpFormatter)
    add, whole = parser.add_argument, options.at_least(1)
    add("-b", "--batchsize", type=whole, default=512)
    add("-seq", "--sequencelength", type=whole, default=70)
    add("--rounds", type=whole, default=15)
    return parser.parse_args(argv)


@exit_cleanly
@torch.no_grad()
def main(argv: list[str] | None = None) -> None:
    args = get_args(argv)
    count, length = args.batchsize, args.sequencelength
    network = build_model("stnet", sequencelength=length).eval()
    weight = torch.full((count, length), 1 / length)
    mask = torch.zeros(count, length, dtype=torch.bool)
    batch = (torch.randn(count, length, 10), mask, torch.randint(1, 367, (count, length)), weight)
    forms = {"network": network, "float32": network.for_inference(), "bf16": network.for_inference(torch.bfloat16)}
    spent = {name: [] for name in forms}
    for _ in range(args.rounds + 1):
        for name, form in forms.items():
            start = time.process_time()
            form.features(batch)
            spent[name].append(time.process_time() - start)
    print(f"{torch.get_num_threads()} CPU threads, torch {torch.__version__}; STNet, batch {count}, S {length}")
    for name, times in spent.items():
        ratio = median(plain / own for plain, own in zip(spent["network"][1:], times[1:], strict=True))
        print(f"{name:10} {min(times) / count * 1e6:8.0f} us of processor time a series   {ratio:6.2f} times as fast")


if __name__ == "__main__":
    main()
