"""Draw a stratified random sample of a map's pixels, to be labelled and given to mapping.assess.

    python -m mapping.sample --map map.tif --size 400 --out to-visit.gpkg
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from datasets.errors import DataError
from datasets.optional import need
from mapping.allocation import FLOOR, METHODS, allocate
from mapping.codes import Map, open_map
from mapping.ground import positions
from mapping.legend import completed
from mapping.vectors import check_output, write_vector
from utils.errors import Parser, exit_cleanly
from utils.options import at_least, not_negative
from utils.report import aligned

SEED = 2019
RESERVE = 50  # candidates for a point at first, where points must be apart


def draw(source: Map, codes: np.ndarray, counts: np.ndarray, seed: int, reserve: int = 1) -> list[np.ndarray]:
    """Pixels of each class in random order, (n, 2) row and column: `reserve` times its count, as far as it has them.

    Every pixel has a random key, which the seed and its place decide; those with the lowest of their class are drawn.
    So each set of pixels of a class is equally likely, the windows do not matter, and memory grows with the counts.
    """
    wanted = counts * reserve
    best = [np.zeros((2, 0), dtype=np.uint64) for _ in codes]  # keys, places
    for window in source.windows():
        found = source.codes(window)
        rows = np.arange(window.row_off, window.row_off + window.height, dtype=np.uint64)[:, None]
        cols = np.arange(window.col_off, window.col_off + window.width, dtype=np.uint64)[None, :]
        places = rows * np.uint64(source.grid.width) + cols
        keys = _keys(places, seed)
        for number in np.flatnonzero(np.isin(codes, found) & (wanted > 0)):
            chosen, known = found == codes[number], best[number]
            if known.shape[1] == wanted[number]:
                chosen &= keys < known[0, -1]
            merged = np.concatenate([known, np.stack([keys[chosen], places[chosen]])], axis=1)
            best[number] = merged[:, np.argsort(merged[0], kind="stable")[: wanted[number]]]
    return [np.stack(np.divmod(places.astype(np.int64), source.grid.width), axis=1) for _, places in best]


def _keys(places: np.ndarray, seed: int) -> np.ndarray:
    """A 64-bit hash of each place and the seed (the finalizer of SplitMix64, Steele et al. 2014)."""
    start = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]
    with np.errstate(over="ignore"):
        mixed = start + (places + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


class Spaced:
    """Points no two of which are closer than `distance` metres."""

    def __init__(self, distance: float):
        self.distance = distance
        self._cells: dict[tuple, list[np.ndarray]] = {}

    def add(self, point: np.ndarray) -> bool:
        """Add a point (2 or 3 coordinates in metres) unless one is too close; whether it was added."""
        cell = tuple(np.floor(point / self.distance).astype(int).tolist())
        around = np.stack(np.meshgrid(*[[-1, 0, 1]] * len(point)), axis=-1).reshape(-1, len(point)) + cell
        near = [other for key in map(tuple, around.tolist()) for other in self._cells.get(key, ())]
        if near and (np.square(np.stack(near) - point).sum(axis=1) < self.distance**2).any():
            return False
        self._cells.setdefault(cell, []).append(point)
        return True


def spaced_sample(
    source: Map, codes: np.ndarray, pixels: np.ndarray, allocation: Callable, distance: float, seed: int
) -> tuple[list[np.ndarray], np.ndarray]:
    """As `draw`, no two pixels closer than `distance` metres; also how many of each class.

    allocation(most): points of each class, none above `most` (C,). Candidates are tried in their random order, the
    rarest class first; what a class cannot take so far apart goes to the others. DataError: nor can they.
    """
    most, reserve = pixels.copy(), RESERVE
    while True:
        try:
            counts = allocation(most)
        except DataError as error:
            raise DataError(f"at least {distance:g} m apart, {error}; lower --min-distance") from None
        drawn = _apart(source, draw(source, codes, counts, seed, reserve), counts, pixels, distance)
        taken = np.array([len(some) for some in drawn])
        lacking = taken < counts
        if not lacking.any():
            return drawn, counts
        exhausted = lacking & (counts * reserve >= pixels)
        if exhausted.any():
            most[exhausted] = taken[exhausted]
        else:
            reserve *= 8


def _apart(source: Map, candidates: list, counts: np.ndarray, pixels: np.ndarray, distance: float) -> list:
    """The first candidates of each class that are apart, counts of each at most."""
    spaced, taken = Spaced(distance), [np.zeros((0, 2), dtype=np.int64) for _ in counts]
    for number in np.argsort(pixels, kind="stable"):
        points, chosen = positions(source.grid, *candidates[number].T), []
        for place, point in zip(candidates[number], points, strict=True):
            if len(chosen) == counts[number]:
                break
            if spaced.add(point):
                chosen.append(place)
        taken[number] = np.array(chosen, dtype=np.int64).reshape(-1, 2)
    return taken


def points_of(source: Map, codes: np.ndarray, drawn: list[np.ndarray], seed: int, *, with_class: bool):
    """A GeoDataFrame of the centres of the pixels, in an order that does not tell their class."""
    geopandas = need("geopandas", "writing points")
    place = np.concatenate(drawn)
    code = np.repeat(codes, [len(some) for some in drawn])
    order = np.argsort(_keys((place[:, 0] * source.grid.width + place[:, 1]).astype(np.uint64), seed), kind="stable")
    place, code = place[order], code[order]
    columns = {"id": np.arange(1, len(place) + 1)}
    if with_class:
        names = {entry.code: entry.name for entry in completed(source.legend, codes.tolist())}
        columns |= {"map_code": code, "map_class": [names[number] for number in code.tolist()]}
    points = geopandas.points_from_xy(*source.grid.centres(*place.T))
    return geopandas.GeoDataFrame(columns, geometry=points, crs=source.grid.crs.to_wkt())


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m mapping.sample", description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--map", type=Path, required=True, metavar="FILE", help="map of class codes in band 1")
    add("--size", type=at_least(1), required=True, metavar="N", help="points in all")
    add("--out", type=Path, required=True, metavar="FILE", help="points in any vector format, such as .gpkg")
    add("--allocation", choices=METHODS, default=METHODS[0], help="points by pixels of a class, or as many of each"
        f" ({METHODS[0]})")  # fmt: skip
    add("--floor", type=at_least(0), default=FLOOR, metavar="N", help=f"proportional: fewest of a class ({FLOOR})")
    add("--min-distance", type=not_negative, default=0.0, metavar="METRES",
        help="least distance of any two points (0: any); the sample is then no longer quite random")  # fmt: skip
    add("--seed", type=at_least(0), default=SEED, help=f"the same seed draws the same points ({SEED})")
    add("--with-class", action="store_true", help="write the map's class too; who labels should not see it")
    add("--classes", type=Path, metavar="FILE", help="class map, for a map that does not name its classes")
    add("--overwrite", action="store_true", help="replace --out if it exists")
    return parser.parse_args(argv)


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    args = _arguments(argv)
    check_output(args.out, args.overwrite)
    need("geopandas", "writing points")
    with open_map(args.map, args.classes) as source:
        counted = source.count()
        pixels = counted.pixels

        def allocation(most: np.ndarray) -> np.ndarray:
            return allocate(pixels, args.size, args.allocation, args.floor, most)

        if args.min_distance:
            drawn, numbers = spaced_sample(source, counted.codes, pixels, allocation, args.min_distance, args.seed)
        else:
            numbers = allocation(pixels)
            drawn = draw(source, counted.codes, numbers, args.seed)
        frame = points_of(source, counted.codes, drawn, args.seed, with_class=args.with_class)
        legend = {entry.code: entry.name for entry in completed(source.legend, counted.codes.tolist())}
    write_vector(frame, args.out)
    columns = {"class": [legend[code] for code in counted.codes.tolist()], "pixels": counted.pixels, "points": numbers}
    print(aligned(pd.DataFrame({name: [f"{v:,}" if name != "class" else v for v in values]
                                for name, values in columns.items()})))  # fmt: skip
    low = np.minimum(args.floor, pixels)
    if args.allocation == METHODS[0] and (numbers < low).any():
        print(f"fewer than {args.floor} of some classes: --size is too small for that, or they lie too close")
    print(f"{len(frame):,} points: {args.out}")
    print("label them in a new column, codes or names of classes; then: python -m mapping.assess --map"
          f" {args.map} --points {args.out} --label COLUMN --out FOLDER")  # fmt: skip


if __name__ == "__main__":
    main()
