"""Damage files of every kind at random, read them, and say what came of it.

    python -m tests.fuzzing --count 2000                        # a table of all kinds
    python -m tests.fuzzing --kind "published .npy" --only 17   # what mutation 17 does, and what is said

A damaged file is refused in one line or gives the right values; anything else is a fault, except that other values of
files without checksums cannot be noticed (`silent`).
"""

from __future__ import annotations

import argparse
import importlib.util
import time

import torch

from tests.fuzzing.kinds import KINDS
from tests.fuzzing.runner import DIED, FOREIGN, HANG, MEMORY_HIT, REFUSED, RIGHT, SILENT, run
from utils import options


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--count", type=options.at_least(1), default=300, help="mutations of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="show what one mutation does")
    parser.add_argument("--show", type=int, default=5, help="faults to show of each kind")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    print("| files | mutations | refused | right values | silent | foreign | over 2 GB | over 5 s | seconds |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in args.kind:
        if missing := [library for library in KINDS[name].needs if importlib.util.find_spec(library) is None]:
            print(f"| {name} | not read: {', '.join(missing)} is not installed |")
            continue
        start = time.monotonic()
        report = run(KINDS[name], args.count if args.only is None else args.only + 1, args.seed)
        counts = report.counts()
        figures = [counts[word] for word in (REFUSED, RIGHT, SILENT)]
        figures += [counts[FOREIGN] + counts[DIED], counts[MEMORY_HIT], counts[HANG]]
        cells = " | ".join(f"{figure:,}" for figure in (sum(counts.values()), *figures))
        print(f"| {name} | {cells} | {time.monotonic() - start:.0f} |", flush=True)
        faults = (FOREIGN, DIED, MEMORY_HIT, HANG, *((SILENT,) if KINDS[name].is_verified else ()))
        shown = report.verdicts[args.only :] if args.only is not None else report.of(*faults)[: args.show]
        for verdict in shown:
            print(f"    {verdict.number}: {verdict.what}: {verdict.word} {verdict.said}")


if __name__ == "__main__":
    main()
