"""`python -m datasets.prepare polygons`: series of the pixels in labelled polygons, or at labelled points."""

from __future__ import annotations

import argparse
from pathlib import Path

from datasets import images
from datasets.errors import DataError
from datasets.preparation import assemble, labelled, places, vectors

HELP = "series of the pixels in labelled polygons, or at labelled points"
BUFFER = -10.0  # metres: mixed pixels at the edges of fields are left out
OPTIONS = (
    "label", "id", "layer", "buffer", "pixels_per_polygon", "split_column", "max_per_class", "min_observations",
    "block_size", "seed",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--polygons", type=Path, required=True, metavar="FILE", help="polygons or points in any vector format")
    add("--layer", help="layer of the file (default: the first)")
    add("--label", required=True, metavar="COLUMN", help="column of the labels, codes or text")
    add("--id", metavar="COLUMN", help="column that names the polygons (default: their numbers in the file)")
    add("--buffer", type=float, default=BUFFER, metavar="METRES", help=f"grow polygons; negative: shrink ({BUFFER:g})")
    add("--pixels-per-polygon", type=int, metavar="N", help="at most N pixels of a polygon, drawn by the seed")
    add("--split-column", metavar="COLUMN", help="column that says train, valid or eval (default: dealt by block)")
    labelled.add_class_arguments(parser)
    labelled.add_block_arguments(parser)
    assemble.add_arguments(parser)


def run(args: argparse.Namespace) -> None:
    assemble.check_arguments(args)
    places.check_block_size(args.block_size)
    if args.split_column is not None and args.blocks is not None:
        raise DataError("--split-column and --blocks both say what is train, valid and eval; give one of them")
    source = images.open_from(args)
    args.block_size = assemble.block_size_of(args, source.grid)
    features, filtered = vectors.read_features(
        args.polygons, args.label, layer=args.layer, id_column=args.id, split_column=args.split_column
    )
    total = len(features.labels) + sum(filtered.values())
    features, narrow = vectors.buffered(features, args.buffer, source.grid)
    features, overlapping = vectors.without_overlaps(features, source.grid)
    chosen, pixels = vectors.pixels_in(features, source.grid, args.polygons)
    filtered |= narrow | overlapping | {"without a pixel on the images": pixels.pop("shapes")}
    if not len(chosen):
        assemble.refuse_empty(args.polygons, "polygons and points", total, filtered)
    assemble.report_filters("polygons and points", total, filtered)
    assemble.report_filters("pixels in them", len(chosen) + sum(pixels.values()), pixels)
    shape = chosen.columns["shape"]
    chosen = chosen.having(polygon=features.ids[shape])
    if features.split is not None:
        chosen = chosen.having(split=features.split[shape])
    pairs = vectors.neighbours(features, source.grid, abs(min(args.buffer, 0.0)))
    labelled.finish(args, "polygons", source, chosen, [args.polygons], OPTIONS, pairs=pairs)
