"""Accuracy and areas of a map with 95 % intervals (Olofsson et al. 2014), from a reference raster or labelled features.

    python -m mapping.assess --map map.tif --reference truth.tif --out assessment
    python -m mapping.assess --map map.tif --points visited.gpkg --label crop --out assessment

Files in --out: classes.csv, matrix.csv, overall.json, report.html, and pictures if matplotlib is installed. Columns
…_ci95 are half widths of intervals; a blank cell is a figure that the samples do not give.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from datasets.errors import DataError
from mapping import pictures, tables
from mapping.areas import assess
from mapping.codes import Counts, Map, open_map, open_raster
from mapping.evalblocks import EvalBlocks
from mapping.ground import DISTORTION, area_distortion
from mapping.legend import Entry, completed
from mapping.reference import (
    MIN_CONFIDENCE,
    Classes,
    Tally,
    compare_points,
    compare_polygons,
    compare_raster,
    matrix_of,
)
from mapping.report import write_report
from mapping.tables import Result
from utils.errors import Parser, exit_cleanly
from utils.files import make_folder, write_csv, write_text
from utils.report import aligned
from utils.results import figures


def result_of(source: Map, counts: Counts, classes: Classes, tally: Tally) -> Result:
    """The figures of what was compared, for the classes that occur in the map or the reference."""
    known = {entry.code: entry for entry in completed(classes.entries, counts.codes.tolist())}
    found = {true for _, true in tally.pairs}
    for code in sorted(found - set(known), reverse=True):  # text, then codes
        known[code] = Entry(code, classes.names.get(code, str(code)))
    present = found | set(counts.codes.tolist())
    entries = [entry for code, entry in known.items() if code in present]
    codes = [entry.code for entry in entries]
    place = {code: number for number, code in enumerate(codes)}
    pixels, hectares = np.zeros(len(codes), dtype=np.int64), np.zeros(len(codes))
    for code, some, area in zip(*counts[:3], strict=True):
        pixels[place[code]], hectares[place[code]] = some, area
    matrix = matrix_of(tally, codes)
    accuracy = assess(matrix, pixels, hectares)
    left_out = {reason: count for reason, count in tally.left_out.items() if count}
    result = Result(entries, matrix, pixels, hectares, accuracy, [], left_out)
    return result._replace(notes=_notes(source, result, tally))


def _notes(source: Map, result: Result, tally: Tally) -> list[str]:
    """What has to be known to read the figures."""
    notes = [tally.design]
    samples, few = result.samples, result.accuracy.too_few
    none, one = ([name for name, yes in zip(result.names, which, strict=True) if yes]
                 for which in (few & (samples == 0), few & (samples == 1)))  # fmt: skip
    if none:
        notes.append(
            f"No samples in {', '.join(none)}: OA, kappa, producer's accuracies and areas are of the other"
            f" {100 * result.accuracy.coverage:.1f} % of the map."
        )
    if one:
        notes.append(
            f"A single sample in {', '.join(one)}, which has no variance: in intervals of the whole map the largest"
            " possible one stands for it."
        )
    if tally.as_other:
        shown = ", ".join(f"{label} ({count:,})" for label, count in tally.as_other.most_common(8))
        notes.append(f"Labels that are no class of the map, counted as Other: {shown}.")
    distortion = area_distortion(source.grid)
    if abs(distortion - 1) > DISTORTION:
        notes.append(
            f"Areas are those of the plane of {source.grid.crs.to_string()[:60]}, {distortion:.3g} times those on the"
            " ground in the middle of the map; reproject the map to an equal-area CRS to measure areas."
        )
    return notes


def write_results(out: Path, result: Result) -> None:
    """Write classes.csv, matrix.csv and overall.json into a folder, each whole or not at all."""
    make_folder(out)
    for name, table in (("classes.csv", tables.class_table(result)), ("matrix.csv", tables.matrix_table(result))):
        write_csv(out / name, table)
    write_text(out / "overall.json", json.dumps(tables.overall(result), indent=2, ensure_ascii=False) + "\n")


def _compare(args: argparse.Namespace, source: Map, classes: Classes) -> Tally:
    blocks = None if args.blocks is None else EvalBlocks(args.blocks, source.grid)
    for note in () if blocks is None else blocks.notes:
        print(f"--blocks: {note}")
    if args.reference is not None:
        return compare_raster(
            source, args.reference, classes,
            confidence=args.confidence, min_confidence=args.min_confidence, blocks=blocks,
        )  # fmt: skip
    compare, path = (compare_points, args.points) if args.points is not None else (compare_polygons, args.polygons)
    return compare(source, path, args.label, classes, layer=args.layer, blocks=blocks)


def _draw(args: argparse.Namespace, source: Map, result: Result, tally: Tally) -> dict[str, Path]:
    if not figures.available():
        print("no pictures: they need matplotlib (pip install matplotlib)")
        return {}
    if args.reference is None:
        return pictures.draw_all(args.out, source, result, tally)
    with open_raster(args.reference) as reference:
        reference.nodata = 0 if reference.nodata is None else reference.nodata
        return pictures.draw_all(args.out, source, result, tally, reference)


def _facts(args: argparse.Namespace) -> dict[str, str]:
    """What was compared with what, for the report."""
    facts = {"map": args.map.name}
    for name in ("reference", "points", "polygons", "label", "confidence", "blocks"):
        value = getattr(args, name)
        if value is not None:
            facts[name] = value.name if isinstance(value, Path) else value
    if args.confidence is not None:
        facts["confidence above"] = f"{args.min_confidence:g} %"
    return facts


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    summary, _, details = (__doc__ or "").partition("\n")
    parser = Parser(prog="python -m mapping.assess", description=summary, epilog=details,
                    formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    add = parser.add_argument
    add("--map", type=Path, required=True, metavar="FILE", help="map of class codes in band 1")
    truth = parser.add_mutually_exclusive_group(required=True)
    truth.add_argument("--reference", type=Path, metavar="FILE", help="raster of class codes, on any grid and CRS")
    truth.add_argument("--points", type=Path, metavar="FILE", help="labelled points in any vector format")
    truth.add_argument("--polygons", type=Path, metavar="FILE", help="labelled polygons in any vector format")
    add("--label", metavar="COLUMN", help="column of the labels of points or polygons: names of classes, or codes")
    add("--layer", help="layer of the file of points or polygons (default: the first)")
    add("--confidence", type=Path, metavar="FILE", help="raster of the confidence of --reference, in per cent")
    add("--min-confidence", type=float, metavar="PERCENT",
        help=f"with --confidence: reference pixels need more than this ({MIN_CONFIDENCE:g})")  # fmt: skip
    add("--blocks", type=Path, metavar="ROOT", help="keep to the eval blocks of this data root, which the model has"
        " not been trained on")  # fmt: skip
    add("--classes", type=Path, metavar="FILE", help="class map; it counts before the names in the map")
    add("--out", type=Path, required=True, metavar="FOLDER", help="folder for the results")
    args = parser.parse_args(argv)
    _check(args)
    args.min_confidence = MIN_CONFIDENCE if args.min_confidence is None else args.min_confidence
    return args


def _check(args: argparse.Namespace) -> None:
    """DataError for options that do not go together."""
    if args.reference is not None and (args.label, args.layer) != (None, None):
        raise DataError("--label and --layer are of --points and --polygons; leave them out with --reference")
    if args.reference is None and args.label is None:
        raise DataError("--points and --polygons need --label COLUMN, the column of their labels")
    if args.confidence is not None and args.reference is None:
        raise DataError("--confidence is that of --reference; leave it out with --points and --polygons")
    if args.min_confidence is not None and args.confidence is None:
        raise DataError("--min-confidence needs --confidence FILE")
    if args.out.exists() and not args.out.is_dir():
        raise DataError(f"{args.out}: a file; expected a folder, or a path that is not there yet")


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    args = _arguments(argv)
    with open_map(args.map, args.classes) as source:
        counts = source.count()
        classes = Classes(source.legend, counts.codes.tolist())
        tally = _compare(args, source, classes)
        result = result_of(source, counts, classes, tally)
        write_results(args.out, result)
        drawn = _draw(args, source, result, tally)
        write_report(args.out / "report.html", result, drawn, _facts(args))
    print(aligned(tables.readable(result)))
    print(f"\n{tables.headline(result)}")
    left = ", ".join(f"{count:,} {reason}" for reason, count in result.left_out.items())
    print(f"left out: {left or 'nothing'}")
    for note in result.notes:
        print(note)
    print(f"written: {args.out}/report.html, classes.csv, matrix.csv, overall.json")


if __name__ == "__main__":
    main()
