"""`python -m datasets.prepare unlabelled`: series of any pixels, for pre-training."""

from __future__ import annotations

import argparse

from datasets import images
from datasets.preparation import assemble, extract, places, samples

HELP = "series of any pixels of the images, for pre-training"
RESERVE = 2  # times --count are drawn, as some pixels may have too few observations
OPTIONS = ("count", "min_observations", "block_size", "seed")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--count", type=int, metavar="N", help="pixels, drawn by the seed (default: all)")
    add("--block-size", type=float, metavar="METRES",
        help=f"side of the blocks that index.csv names ({places.BLOCK_SIZE:g}; smaller on small images)")  # fmt: skip
    assemble.add_arguments(parser)


def run(args: argparse.Namespace) -> None:
    assemble.check_arguments(args)
    places.check_block_size(args.block_size)
    source = images.open_from(args)
    args.block_size = assemble.block_size_of(args, source.grid)
    total = source.grid.height * source.grid.width
    drawn = None
    if args.count is not None and args.count < total:
        drawn = samples.draw_pixels(source.grid, min(RESERVE * args.count, total), args.seed)
        drawn = extract.in_block_order(drawn, source.grid, extract.window_shape(source))
    assemble.describe(source, args.workers)
    if args.dry_run:
        print(f"dates: {', '.join(day.isoformat() for day in source.dates)}")
        print(f"expected: {min(args.count or total, total):,} series of {total:,} pixels, unlabelled")
        return
    target = assemble.Target(args.out, assemble.year_of(args, source), assemble.site_of(args), None)
    said = {name: getattr(args, name) for name in OPTIONS}
    assemble.prepare(
        source, drawn, target, assemble.fingerprint_of("unlabelled", source, drawn, target, [], said),
        split_of=None, most=args.count, block_size=args.block_size, min_observations=args.min_observations,
        workers=args.workers, overwrite=args.overwrite, progress=not args.quiet,
    )  # fmt: skip
