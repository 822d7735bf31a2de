"""Pairs of map and reference: counting them by class from a reference raster, labelled points or polygons."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from datasets.errors import DataError
from datasets.imagery.grid import Sampler
from datasets.optional import need
from mapping.codes import NO_CODE, WINDOW, Map, counted, open_raster
from mapping.evalblocks import EvalBlocks
from mapping.ground import check_overlap
from mapping.legend import Entry, other_of
from mapping.vectors import check_column, check_geometries, inside, on_map, pixels_at, read_vector

MIN_CONFIDENCE = 95.0
SHOWN = 8  # labels in a message


@dataclass
class Classes:
    """The classes by which map and reference are compared: those of the map, and what the reference adds."""

    entries: list[Entry]
    mapped: Sequence[int]  # codes that occur in the map
    names: dict[int, str] = field(default_factory=dict)  # of labels that are text and no class of the map, below 0

    def __post_init__(self):
        self.known = np.array(sorted({entry.code for entry in self.entries} | set(self.mapped)))
        self.other = other_of(self.entries)

    def of_reference(self, codes: np.ndarray, as_other: Counter) -> np.ndarray:
        """Codes of the reference as the map gives them: those it does not know are Other, if it has that class."""
        unknown = ~np.isin(codes, self.known) & (codes != NO_CODE)
        if self.other is None or not unknown.any():
            return codes
        for code, count in zip(*np.unique(codes[unknown], return_counts=True), strict=True):
            as_other[self.names.get(int(code), str(code))] += int(count)
        return np.where(unknown, self.other.code, codes)

    def of_labels(self, column: pd.Series, path: Path) -> np.ndarray:
        """Codes (n,) of labels, which are names of the map's classes in any case, or codes; NO_CODE where blank."""
        by_name = {entry.name.strip().casefold(): entry.code for entry in reversed(self.entries)}
        new: dict[str, int] = {}
        codes = np.full(len(column), NO_CODE)
        for row, value in enumerate(column):
            text = "" if pd.isna(value) else str(value).strip()
            if not text:
                continue
            code = by_name.get(text.casefold(), _whole(text))
            codes[row] = new.setdefault(text.casefold(), -1 - len(new)) if code is None else code
            if code is None:
                self.names.setdefault(int(codes[row]), text)
        given = codes[codes != NO_CODE]
        if not len(given):
            raise DataError(f"{path}: {column.name} is blank in all {len(column)} features; label them first")
        if not np.isin(given, self.known).any():
            found = list(dict.fromkeys(str(value) for value in column.dropna()))
            raise DataError(
                f"{path}: no label in {column.name} is a class of the map ({', '.join(found[:SHOWN])}); expected codes"
                f" or names such as {', '.join(entry.name for entry in self.entries[:SHOWN])}; see --classes"
            )
        return codes


def _whole(text: str) -> int | None:
    with contextlib.suppress(ValueError):
        number = float(text)
        if number % 1 == 0 and 0 <= number < 2**32:
            return int(number)
    return None


@dataclass
class Tally:
    """What was compared, and how: `design` is a sentence on what the intervals mean.

    pairs: samples by (code of the map, code of the reference); confidence (101, 2): samples by per cent of the map's
    confidence, and how many of them agree; left_out: pixels or points by reason; as_other: samples by the label that
    is no class of the map; at: points alone, (n, 3) row, column, whether they agree.
    """

    design: str
    pairs: Counter = field(default_factory=Counter)
    confidence: np.ndarray = field(default_factory=lambda: np.zeros((101, 2), dtype=np.int64))
    left_out: Counter = field(default_factory=Counter)
    as_other: Counter = field(default_factory=Counter)
    at: np.ndarray | None = None

    def add(self, mapped: np.ndarray, true: np.ndarray, confidence: np.ndarray | None) -> None:
        """Count samples, (n,) codes of map and reference, and the map's confidence."""
        low, span = (int(true.min()), int(true.max()) - int(true.min()) + 1) if len(true) else (0, 1)
        keys, counts = counted(mapped * span + (true - low))
        for key, count in zip(keys.tolist(), counts.tolist(), strict=True):
            self.pairs[key // span, key % span + low] += count
        if confidence is not None:
            per_cent = np.clip(confidence, 0, 100).astype(np.int64)
            self.confidence[:, 0] += np.bincount(per_cent, minlength=101)
            self.confidence[:, 1] += np.bincount(per_cent[mapped == true], minlength=101)

    def total(self) -> int:
        return sum(self.pairs.values())


CENSUS = (
    "Every pixel of the map that the reference covers was compared: a census of the overlap, not a random sample. The"
    " intervals treat these pixels as a random sample within each class of the map. Neighbouring pixels are alike and"
    " the overlap need not be like the rest of the map, so they are too narrow; for intervals to rely on, label a"
    " random sample (python -m mapping.sample)."
)
POINTS = (
    "The intervals hold if the points are a random sample within each class of the map, as python -m mapping.sample"
    " draws them without --min-distance."
)
POLYGONS = (
    "Every pixel with its centre in a polygon is a sample. The intervals treat these pixels as a random sample within"
    " each class of the map. Pixels of a polygon are alike, so they are too narrow; for intervals to rely on, label a"
    " random sample (python -m mapping.sample)."
)


def compare_raster(
    source: Map,
    path: Path,
    classes: Classes,
    *,
    confidence: Path | None = None,
    min_confidence: float = MIN_CONFIDENCE,
    blocks: EvalBlocks | None = None,
) -> Tally:
    """Compare a map with a reference raster: each pixel of the map with the one of the reference at its centre.

    Pixels of the reference without a code do not count (its no-data value, 0 if it declares none), nor those whose
    confidence is not above `min_confidence`, nor those outside `blocks`. DataError: no overlap, or nothing is left.
    """
    tally = Tally(CENSUS)
    with contextlib.ExitStack() as stack:
        reference = stack.enter_context(_reference(path, source))
        sure = None if confidence is None else stack.enter_context(_reference(confidence, source))
        for window in source.windows():
            sampler = Sampler(source.grid, window)
            mapped, true = source.codes(window), reference.at(sampler, reference.codes, NO_CODE)
            keep = true != NO_CODE
            if sure is not None:
                is_sure = sure.at(sampler, sure.numbers, np.nan) > min_confidence
                keep = _less(keep, is_sure, tally, f"of confidence {min_confidence:g} or less")
            keep = _kept(keep, mapped, sampler.rows[:, None], sampler.cols[None, :], blocks, tally)
            true = classes.of_reference(true[keep], tally.as_other)
            tally.add(mapped[keep], true, source.confidence_at(window, keep))
    _check(tally, path, classes)
    return tally


@contextlib.contextmanager
def _reference(path: Path, source: Map):
    with open_raster(path) as reference:
        check_overlap(str(source.path), source.grid, str(path), reference.grid)
        if reference.nodata is None:
            reference.nodata = 0
        yield reference


def _less(keep: np.ndarray, good: np.ndarray, tally: Tally, reason: str) -> np.ndarray:
    """Those to keep that are good; the others are counted."""
    tally.left_out[reason] += int((keep & ~good).sum())
    return keep & good


def _kept(keep, mapped, rows, cols, blocks: EvalBlocks | None, tally: Tally) -> np.ndarray:
    """Those to keep that lie in the blocks and have a class in the map."""
    if blocks is not None:
        keep = _less(keep, blocks.contain(rows, cols), tally, "outside the eval blocks")
    return _less(keep, mapped != NO_CODE, tally, "without a class in the map")


def compare_points(
    source: Map,
    path: Path,
    column: str,
    classes: Classes,
    *,
    layer: str | None = None,
    blocks: EvalBlocks | None = None,
) -> Tally:
    """Compare a map with labelled points. Points outside the map, without a label or geometry are counted.

    DataError: no such column, other geometries than points, no label is a class of the map, nothing is left.
    """
    tally = Tally(POINTS)
    frame = read_vector(path, layer)
    check_column(frame, column, path)
    check_geometries(frame, path, ("Point",), "; give polygons with --polygons")
    codes = classes.of_labels(frame[column], path)
    points = frame.geometry.to_crs(source.grid.crs.to_wkt())
    x, y = points.x.to_numpy(), points.y.to_numpy()
    rows, cols, on_it = pixels_at(x, y, source.grid)
    keep = _less(np.ones(len(frame), dtype=bool), ~np.isnan(x), tally, "without a place")
    keep = _less(keep, on_it, tally, "outside the map")
    keep = _less(keep, codes != NO_CODE, tally, "without a label")
    mapped, confidence = np.full(len(frame), NO_CODE), np.zeros(len(frame), dtype=np.int64)
    where = np.stack([rows, cols])[:, keep]
    for window, some in _by_window(source.grid, *where):
        some = np.flatnonzero(keep)[some]
        place = rows[some] - window.row_off, cols[some] - window.col_off
        mapped[some] = source.codes(window)[place]
        if source.confidence is not None:
            confidence[some] = source.confidence_at(window, place)
    keep = _kept(keep, mapped, rows, cols, blocks, tally)
    true = classes.of_reference(codes[keep], tally.as_other)
    tally.add(mapped[keep], true, None if source.confidence is None else confidence[keep])
    tally.at = np.stack([rows[keep], cols[keep], mapped[keep] == true], axis=1)
    again = len(tally.at) - len(np.unique(tally.at[:, :2], axis=0))
    if again:
        tally.design += f" {again:,} points lie in the same pixel of the map as another; all were counted."
    _check(tally, path, classes)
    return tally


def _by_window(grid, rows: np.ndarray, cols: np.ndarray):
    """The windows that hold points, and the positions of those in each."""
    window = need("rasterio.windows").Window
    tiles, which = np.unique(np.stack([rows, cols]) // WINDOW, axis=1, return_inverse=True)
    for number, (row, col) in enumerate(tiles.T.tolist()):
        top, left = row * WINDOW, col * WINDOW
        part = window(left, top, min(WINDOW, grid.width - left), min(WINDOW, grid.height - top))
        yield part, np.flatnonzero(which.reshape(-1) == number)


def compare_polygons(
    source: Map,
    path: Path,
    column: str,
    classes: Classes,
    *,
    layer: str | None = None,
    blocks: EvalBlocks | None = None,
) -> Tally:
    """Compare a map with labelled polygons, pixel by pixel. A pixel in polygons of several labels does not count.

    DataError: as `compare_points`.
    """
    tally = Tally(POLYGONS)
    frame = read_vector(path, layer)
    check_column(frame, column, path)
    check_geometries(frame, path, ("Polygon", "MultiPolygon"), "; give points with --points")
    codes = classes.of_labels(frame[column], path)
    shapes = on_map(frame, source.grid)
    shapes[codes == NO_CODE] = None
    tally.left_out["polygons without a label"] += int((codes == NO_CODE).sum())
    tree = need("shapely").STRtree(shapes)
    for window in source.windows():
        near = tree.query(_outline(source.grid, window))
        if not len(near):
            continue
        sampler = Sampler(source.grid, window)
        claims, true = np.zeros((2, window.height, window.width), dtype=np.int64)
        for code in np.unique(codes[near]).tolist():
            claimed = inside(shapes[near[codes[near] == code]].tolist(), source.grid, window)
            claims, true = claims + claimed, np.where(claimed, code, true)
        mapped = source.codes(window)
        keep = _less(claims > 0, claims < 2, tally, "in polygons of several labels")
        keep = _kept(keep, mapped, sampler.rows[:, None], sampler.cols[None, :], blocks, tally)
        true = classes.of_reference(true[keep], tally.as_other)
        tally.add(mapped[keep], true, source.confidence_at(window, keep))
    _check(tally, path, classes)
    return tally


def _outline(grid, window):
    """The rectangle of a window as a polygon in the CRS of the map."""
    corners = [(0, 0), (window.width, 0), (window.width, window.height), (0, window.height)]
    return need("shapely").Polygon([grid.transform @ (window.col_off + c, window.row_off + r) for c, r in corners])


def _check(tally: Tally, path: Path, classes: Classes) -> None:
    if not tally.total():
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in tally.left_out.items() if count)
        raise DataError(f"{path}: nothing to compare with the map{f' ({reasons})' if reasons else ''}")
    true = {true for _, true in tally.pairs}
    named = true - {classes.other.code} if tally.as_other else true
    if not named & set(classes.known.tolist()):
        found = ", ".join(list(tally.as_other or map(str, sorted(true)))[:SHOWN])
        raise DataError(f"{path}: none of its codes ({found}) is a class of the map; expected codes of the class map")


def matrix_of(tally: Tally, codes: Sequence[int]) -> np.ndarray:
    """The error matrix, (C, C) int64, rows map and columns reference, in the order of `codes`."""
    place = {code: number for number, code in enumerate(codes)}
    matrix = np.zeros((len(codes), len(codes)), dtype=np.int64)
    for (mapped, true), count in tally.pairs.items():
        matrix[place[mapped], place[true]] += count
    return matrix

