"""python -m datasets.prepare table: labelled series from a CSV or Parquet table, long or wide."""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path

import numpy as np

from datasets.errors import DataError
from datasets.imagery.names import STAND_IN
from datasets.optional import need
from datasets.preparation import classes, dated, manifest, pictures, summary
from datasets.preparation.split import block_of
from datasets.readers.dated import Dated
from datasets.readers.table import Columns, Dates, Table, open_table
from datasets.readers.table_scan import Scan, read_series, scan
from datasets.readers.table_scan import settle as settle_table

HELP = "series from a table, a row an observation or a row a series"
SEED, BLOCK_SIZE = 2019, 3000.0
RADIUS = 6_371_000.0  # metres, of the earth


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("table", type=Path, metavar="FILE", help="the table: .csv, .csv.gz or .parquet")
    add("--id", required=True, metavar="COLUMN", help="what tells series apart; kept as id in index.csv")
    add("--label", metavar="COLUMN", help="codes or names of the classes; without it the series are unlabelled")
    add("--region", metavar="COLUMN", help="the site of each series (default: --site for all)")
    add("--date", metavar="COLUMN", help="dates or days of year of a long table (default: by its usual names)")
    add("--start", metavar="COLUMN|DATE", help="of a wide table with numbered steps: when step 0 begins")
    add("--step", help="how long a step is: month, or days such as 10D; dates are the middle of each")
    add("--year", type=int, help="take the series for this year (default: each for the year of most of it)")
    add("--nodata", type=float, nargs="+", default=[], metavar="VALUE", help="missing values besides 65535 and blanks")
    add("--x", metavar="COLUMN", help="easting or longitude, for blocks")
    add("--y", metavar="COLUMN", help="northing or latitude, for blocks")
    add("--crs", help="of x and y, such as EPSG:32631 (default: degrees if all fit, else metres)")
    add("--block-size", type=float, default=BLOCK_SIZE, metavar="METRES", help=f"side of a block ({BLOCK_SIZE:g})")
    add("--split-column", metavar="COLUMN", help="says train, valid or eval of each series")
    add_output_arguments(parser)


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that all subcommands on series with dates have."""
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="ROOT", help="data root to make, or to add to")
    add("--site", help="name of the site (default: that of the file or folder)")
    add("--classes", metavar="FILE", help="class map (default: that of ROOT, else the labels that are there)")
    add("--strict", action="store_true", help="refuse labels that are not in the class map")
    add("--seed", type=int, default=SEED, help=f"of the deal to train, valid and eval ({SEED})")
    add("--overwrite", action="store_true", help="replace the series that ROOT has of this site in these years")
    add("--dry-run", action="store_true", help="read everything, say what would be written, and end")
    add("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> None:
    if (args.x is None) != (args.y is None):
        raise DataError(f"--{'x' if args.y else 'y'} is missing; --x and --y go together")
    columns = Columns(args.id, args.label, args.region, args.x, args.y, args.split_column, args.date)
    table = open_table(args.table, columns, Dates(args.start, args.step, args.year), args.nodata)
    site = args.site or args.table.name.split(".")[0]
    print(describe(table))
    found = scan(table)
    table, notes = settle_table(table, found)
    for note in notes:
        print(note)
    print(f"{found.rows:,} rows, dates from {found.first} to {found.last}")
    metres = _metres(args.crs, found, args.block_size) if args.x else None
    by = "split" if args.split_column else "block" if args.x else "id"
    if args.label and by == "id":
        print("no --x and --y and no --split-column: series are dealt at random, so neighbours may be in two splits")
    with tempfile.TemporaryDirectory(dir=beside(args.out), prefix=f"{args.out.name}.partial-") as work:
        pieces = (_with_blocks(piece, metres, args.block_size) for piece in read_series(table, found, Path(work)))
        made = dated.sort_by_year(pieces, Path(work), year=args.year, scale=table.scale, labelled=bool(args.label))
        record = {
            "command": "table",
            "files": [manifest.file_record(args.table)],
            "bands": {band: list(dict.fromkeys((names[0], names[-1]))) for band, names in table.bands.items()},
            "stands in": {table.replaced: STAND_IN[table.replaced]} if table.replaced else {},
            "scale": table.scale,
            "dates": {"column": table.date_column, "start": args.start, "step": args.step, "year": args.year},
            "crs": args.crs,
            "dealt by": by,
            "block size": args.block_size if by == "block" else None,
            "seed": args.seed,
            "counts": dict(made.counts),
        }
        finish(args, made, site=site, by=by, labelled=bool(args.label), record=record, where=args.table)


def finish(args, made: dated.Sorted, *, site: str, by: str, labelled: bool, record: dict, where: Path) -> None:
    """From stores a year to the data root, and what the user sees of it."""
    for line in dated.left_out(made.counts):
        print(line)
    dated.refuse_empty(made, where)
    classmap = None
    if labelled:
        labels = dated.labels_in(made.stores.values())
        classmap, line = dated.choose_classmap(args.classes, args.out, labels)
        print(line)
        ids = classes.label_of(labels.astype(str), classmap)
        others = int((ids == classmap.num_classes - 1).sum())
        if others and args.strict:
            classes.check_known(labels, ids, classmap, where)
        if others:
            print(f"{others:,} series have labels that are not in the class map: they are Other")
    if args.dry_run:
        print(*dated.expected(made, classmap, by, args.seed, site), sep="\n")
        return
    ndvi = dated.add(
        made, args.out, site=site, classmap=classmap, split=by, seed=args.seed, meta=record, replace=args.overwrite
    )
    for year in made.stores:
        print(f"{args.out / str(year)}:\n{summary.table(args.out / str(year), classmap)}")
        for line in pictures.draw(args.out, year, site, classmap, ndvi[year], dated.regions_of(made.stores[year])):
            print(line)
    if classmap is not None:
        years = " ".join(map(str, made.stores))
        print(f"python main_tscls.py stnet --rc -c {classmap.num_classes - 1} --datapath {args.out} --years {years}")


def describe(table: Table) -> str:
    """One line: how the table is laid out."""
    if table.steps is None:
        kind = f"long: a row an observation, dated by {table.date_column}"
    else:
        kind = f"wide: a row a series, {len(table.steps)} steps from {table.steps[0]} to {table.steps[-1]}"
    return f"{table.file}: {kind}; bands {', '.join(names[0] for names in table.bands.values())}"


def beside(root: Path) -> Path:
    """The folder of a data root, made if it is not there: for work that is to be moved into the root."""
    root.parent.mkdir(parents=True, exist_ok=True)
    return root.parent


def _metres(crs: str | None, found: Scan, size: float):
    """A function (x, y) -> metres for blocks."""
    if crs is None:
        in_degrees = found.extent <= 180
        print(f"x and y are taken for {'degrees' if in_degrees else 'metres'}; say otherwise with --crs")
        factor = 1.0
    else:
        pyproj = need("pyproj", "--crs")
        try:
            system = pyproj.CRS.from_user_input(crs)
        except pyproj.exceptions.CRSError:
            raise DataError(f"--crs {crs}: unknown; expected a coordinate system such as EPSG:32631") from None
        in_degrees, factor = system.is_geographic, system.axis_info[0].unit_conversion_factor
    if in_degrees:
        return lambda x, y: on_sphere(x, y, size)
    return lambda x, y: (x * factor, y * factor)


def on_sphere(longitude: np.ndarray, latitude: np.ndarray, size: float) -> tuple[np.ndarray, np.ndarray]:
    """Metres east and north whose blocks of `size` are nearly square: a degree of longitude is as long as it is in the
    middle of the row of blocks."""
    north = np.radians(latitude) * RADIUS
    middle = (np.floor(north / size) + 0.5) * size / RADIUS
    return np.radians(longitude) * RADIUS * np.cos(np.minimum(np.abs(middle), math.pi / 2)), north


def _with_blocks(piece: Dated, metres, size: float) -> Dated:
    if metres is None:
        return piece
    return piece._replace(index=piece.index | {"block": block_of(*metres(piece.index["x"], piece.index["y"]), size)})
