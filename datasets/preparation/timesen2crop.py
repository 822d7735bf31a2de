"""python -m datasets.prepare timesen2crop: labelled series from the published folders of TimeSen2Crop."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from tqdm import tqdm

from datasets.preparation import dated
from datasets.preparation.table import add_output_arguments, beside, finish
from datasets.readers.dated import Dated
from datasets.readers.timesen2crop import FLAGS, open_tiles, series

HELP = "series from the folders of TimeSen2Crop"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", type=Path, metavar="DIR", help="folder of the tiles, or one tile")
    add("--drop-flags", nargs="+", choices=FLAGS, default=[], help="leave such observations out (default: keep all)")
    add("--deal-by", choices=("tile", "pixel"), default="tile", help="what train, valid and eval share none of (tile)")
    add_output_arguments(parser)


def run(args: argparse.Namespace) -> None:
    tiles = open_tiles(args.folder)
    count = sum(len(tile.files) for tile in tiles)
    print(f"{args.folder}: {count:,} series of {len(tiles)} tiles: {', '.join(tile.name for tile in tiles)}")
    print("B8 (nir) is missing: B8A (red4) stands in for it")
    with tempfile.TemporaryDirectory(dir=beside(args.out), prefix=f"{args.out.name}.partial-") as work:
        with tqdm(total=count, unit=" series", desc="reading", disable=args.quiet) as bar:
            made = dated.sort_by_year(_counted(series(tiles, args.drop_flags), bar), Path(work))
        record = {
            "command": "timesen2crop",
            "folder": args.folder.resolve().name,
            "tiles": {tile.name: len(tile.files) for tile in tiles},
            "stands in": {"nir": "red4"},
            "dropped flags": args.drop_flags,
            "dealt by": args.deal_by,
            "seed": args.seed,
            "counts": dict(made.counts),
        }
        by = "region" if args.deal_by == "tile" else "id"
        for year, store in made.stores.items():
            if by == "region" and dated.has_few_regions(store):
                print(f"{year}: fewer than three tiles, so its series are dealt at random")
        finish(args, made, site=args.site or "TimeSen2Crop", by=by, labelled=True, record=record, where=args.folder)


def _counted(pieces: Iterable[Dated], bar: tqdm) -> Iterator[Dated]:
    for piece in pieces:
        yield piece
        bar.update(len(piece.lengths))
