"""Give each polygon the classes of a map that lie in it: which most of its pixels have, and how many have each.

    python -m mapping.fields --map map.tif --polygons fields.gpkg --out fields-with-crops.gpkg

Every feature keeps its place and its columns. New columns, with the default --prefix:
    map_code, map_class   the class of most of its pixels (of several, that with the lowest code)
    map_frac              the fraction of its pixels that have this class
    map_conf              mean confidence of its pixels in per cent, if the map has one
    map_pixels            pixels with a class whose centre lies in it
    map_f<code>           the fraction of its pixels that have this class, for each class of the map
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from datasets.errors import DataError
from mapping.codes import NO_CODE, Map, open_map
from mapping.legend import completed
from mapping.vectors import check_geometries, check_output, on_map, pieces_of, read_vector, write_vector
from utils.errors import Parser, exit_cleanly

PREFIX = "map_"


def summary_of(source: Map, polygon) -> tuple[dict[int, int], float]:
    """Pixels of each class with their centre in a polygon, and the sum of their confidences (0 without any)."""
    counts: Counter[int] = Counter()
    confidence = 0.0
    for window, inside in () if polygon is None else pieces_of(polygon, source.grid):
        codes = source.codes(window)
        keep = inside & (codes != NO_CODE)
        for code, count in zip(*np.unique(codes[keep], return_counts=True), strict=True):
            counts[int(code)] += int(count)
        if source.confidence is not None:
            confidence += float(source.confidence_at(window, keep).sum(dtype=np.float64))
    return dict(counts), confidence


def columns_of(source: Map, polygons: np.ndarray, codes: list[int], prefix: str = PREFIX) -> pd.DataFrame:
    """The new columns for polygons (N,) in the CRS of the map, missing where no pixel of `codes` lies in one."""
    found = [summary_of(source, polygon) for polygon in polygons]
    counts = np.array([[some.get(code, 0) for code in codes] for some, _ in found]).reshape(len(found), len(codes))
    pixels = counts.sum(axis=1)
    empty, most = pixels == 0, counts.argmax(axis=1)
    names = {entry.code: entry.name for entry in source.legend}
    fractions = counts / np.where(empty, np.nan, pixels)[:, None]
    table = {
        "code": pd.array(np.array(codes)[most], dtype="Int64"),
        "class": pd.array([names.get(codes[number], str(codes[number])) for number in most], dtype="string"),
        "frac": fractions.max(axis=1),
    }
    for values in (table["code"], table["class"]):
        values[empty] = pd.NA
    if source.confidence is not None:
        table["conf"] = np.array([total for _, total in found]) / np.where(empty, np.nan, pixels)
    table |= {"pixels": pixels} | {f"f{code}": fractions[:, number] for number, code in enumerate(codes)}
    return pd.DataFrame({f"{prefix}{name}": values for name, values in table.items()})


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    summary, _, details = (__doc__ or "").partition("\n")
    parser = Parser(prog="python -m mapping.fields", description=summary, epilog=details,
                    formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    add = parser.add_argument
    add("--map", type=Path, required=True, metavar="FILE", help="map of class codes in band 1")
    add("--polygons", type=Path, required=True, metavar="FILE", help="polygons in any vector format")
    add("--layer", help="layer of the file (default: the first)")
    add("--out", type=Path, required=True, metavar="FILE", help="the polygons with the new columns, in any format")
    add("--prefix", default=PREFIX, help=f"of the names of the new columns ({PREFIX})")
    add("--classes", type=Path, metavar="FILE", help="class map, for a map that does not name its classes")
    add("--overwrite", action="store_true", help="replace --out if it exists")
    return parser.parse_args(argv)


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    args = _arguments(argv)
    check_output(args.out, args.overwrite)
    frame = read_vector(args.polygons, args.layer)
    check_geometries(frame, args.polygons, ("Polygon", "MultiPolygon"), "")
    with open_map(args.map, args.classes) as source:
        codes = source.count().codes.tolist()
        source.legend = completed(source.legend, codes)
        new = columns_of(source, on_map(frame, source.grid), codes, args.prefix)
    taken = [name for name in new if name in frame]
    if taken:
        raise DataError(f"{args.polygons}: has a column {taken[0]!r} already; give another --prefix, such as m2_")
    without = int((new[f"{args.prefix}pixels"] == 0).sum())
    if without == len(frame):
        raise DataError(f"{args.polygons}: no polygon has a pixel of {args.map} in it; do they overlap?")
    frame[list(new)] = new
    write_vector(frame, args.out)
    print(f"{len(frame) - without:,} of {len(frame):,} polygons have pixels of the map")
    if without:
        rows = np.flatnonzero(new[f"{args.prefix}pixels"] == 0)[:8].tolist()
        print(f"{without:,} have none, too small or off the map, and no class; first rows: {', '.join(map(str, rows))}")
    print(f"written: {args.out}")


if __name__ == "__main__":
    main()
