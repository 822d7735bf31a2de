"""The options of `python -m mapping.predict`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

from datasets.images import add_arguments
from tscls import inseason, prior
from utils import options
from utils.errors import Parser, UsageError

SUFFIXES = (".tif", ".tiff")


class Shard(NamedTuple):
    """Part `i` of `n` of the windows, counted from 1."""

    i: int
    n: int

    @classmethod
    def of(cls, text: str) -> Shard:
        """From "2/8", as an argument type."""
        i, _, n = text.partition("/")
        if not (i.isdecimal() and n.isdecimal() and 1 <= int(i) <= int(n)):
            raise argparse.ArgumentTypeError(f"{text}: expected i/n with i from 1 to n, as 2/8")
        return cls(int(i), int(n))


def odd(text: str) -> int:
    """An argument type: odd whole numbers of at least 1."""
    value = int(text)
    if value < 1 or value % 2 == 0:
        raise argparse.ArgumentTypeError(f"{text}: expected an odd number of pixels, as 3 or 5")
    return value


def get_args(description: str, argv: list[str] | None = None) -> argparse.Namespace:
    """The options, checked as far as they can be without reading anything."""
    parser = Parser(prog="python -m mapping.predict", description=description, formatter_class=options.HelpFormatter)
    add = parser.add_argument
    add("--model", required=True, metavar="RUN", help="run folder of main_tscls.py, or a checkpoint file")
    add("--classes", metavar="FILE", help="class map of a checkpoint that has none, as classmapping20.csv")
    add("--out", required=True, type=Path, metavar="FILE", help="map to write, .tif")
    add("--probabilities", type=Path, metavar="FILE", help="write the probabilities of all classes too, .tif")
    add("--overwrite", action="store_true", help="replace a map, and begin anew where parts are of another one")
    add_arguments(parser)
    add = parser.add_argument_group("pixels").add_argument
    add("--min-observations", type=options.at_least(1), default=1, metavar="N", help="fewer make a pixel no-data")
    add("--within", metavar="FILE", help="raster (0 and no-data are outside) or polygons to map (or --mask FILE)")
    add("--bbox", nargs=4, type=float, metavar=("W", "S", "E", "N"), help="box to map, in degrees or --bbox-crs")
    add("--bbox-crs", metavar="CRS", help="of --bbox, as EPSG:32614 (default: degrees, EPSG:4326)")
    prior.add_option(parser)
    inseason.add_option(parser)
    add("--smooth", type=odd, default=1, metavar="K", help="average probabilities over K x K pixels, K odd")
    add = parser.add_argument_group("work").add_argument
    add("--window", type=options.at_least(16), default=256, metavar="PIXELS", help="side of the windows")
    add("-d", "--device", default=None, help="cpu, cuda, cuda:1 … (default: a GPU if there is one)")
    add("--workers", type=options.at_least(1), default=1, metavar="N", help="processes, on a GPU each in turn")
    add("--scheduler", metavar="ADDRESS", help="run on the Dask cluster of this scheduler, as tcp://host:8786")
    add("--part", type=Shard.of, metavar="i/n", help="make every n-th window only, from the i-th on; then --merge")
    add("--merge", action="store_true", help="only write the map, from the windows of all --part runs")
    args = parser.parse_args(argv)
    _take_mask_of_pixels(args)
    _check(args)
    return args


def _take_mask_of_pixels(args: argparse.Namespace) -> None:
    """Let --mask FILE be --within FILE; as in datasets.prepare, --mask scl:… drops observations."""
    if args.mask is None or args.mask.lower().startswith("scl"):
        return
    if args.within:
        raise UsageError(f"--mask {args.mask} and --within {args.within} are both of pixels; give one of them")
    args.within, args.mask = args.mask, None


def _check(args: argparse.Namespace) -> None:
    read = {"--images": args.images, "--grid": args.grid, "--within": args.within}
    for name, path in (("--out", args.out), ("--probabilities", args.probabilities)):
        if path is None:
            continue
        if path.suffix.lower() not in SUFFIXES:
            raise UsageError(f"{name} {path}: expected a name that ends in {' or '.join(SUFFIXES)}")
        if not path.parent.is_dir():
            raise UsageError(f"{name} {path}: there is no folder {path.parent}")
        if path.is_dir():
            raise UsageError(f"{name} {path}: is a folder; expected the name of a file")
        for other, given in read.items():
            if given is not None and path.resolve() == Path(given).resolve():
                raise UsageError(f"{name} {path}: is {other} too, which would be lost; give another name")
        if args.images.is_dir() and path.resolve().is_relative_to(args.images.resolve()):
            raise UsageError(f"{name} {path}: lies among the images, and would be taken for one; give another folder")
    if args.probabilities and args.probabilities.resolve() == args.out.resolve():
        raise UsageError(f"--probabilities {args.probabilities}: is --out too; give another name")
    ways = {"--scheduler": args.scheduler, "--merge": args.merge, "--part": args.part, "--workers": args.workers > 1}
    given = [name for name, value in ways.items() if value]
    if ("--merge" in given or "--scheduler" in given) and len(given) > 1:
        raise UsageError(f"{' and '.join(given)} exclude each other")
    if args.bbox_crs and not args.bbox:
        raise UsageError("--bbox-crs is of --bbox, which is not given")
