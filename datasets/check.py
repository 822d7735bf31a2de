"""What is in a data root, and what is wrong with it.

    python -m datasets.check data/US-sim

Reads everything: counts, classes, dates, checksums, series that cannot be used, series that are in two splits, blocks
of land that are. Ends with exit code 1 where something is wrong.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from datasets import checks
from datasets.catalog import SPLITS, has_split, open_classmap, open_split
from datasets.classmap import ClassMap
from datasets.duplicates import blocks, keys
from datasets.errors import DataError
from datasets.location import locate
from datasets.readers.published import LEFT_OUT
from datasets.store import SeriesSet
from utils.errors import Parser, exit_cleanly

PROBLEM = "PROBLEM: "  # before a line of the report that says what is wrong


def report(root: Path) -> Iterator[str]:
    """Lines that say what is in a root; those about what is wrong begin with PROBLEM."""
    classmaps = list(_classmaps(root))
    for classmap in classmaps:
        yield f"classmapping{classmap.num_classes - 1}.csv: {classmap.num_classes - 1} classes and {classmap.names[-1]}"
    if not classmaps:
        yield "no class map: the splits with labels are not read"
    years = sorted(path.name for path in root.iterdir() if path.is_dir() and path.name.isdecimal())
    if not years:
        raise DataError(f"{root}: no folder of a year in it; expected a data root")
    for year in years:
        yield f"{year}:"
        yield from _year(root, year, classmaps)


def _classmaps(root: Path) -> Iterator[ClassMap]:
    for file in sorted(root.glob("classmapping*.csv")):
        if match := re.fullmatch(r"classmapping(\d+)", file.stem):
            yield open_classmap(root, int(match[1]))


def _year(root: Path, year: str, classmaps: list[ClassMap]) -> Iterator[str]:
    found: dict[str, SeriesSet] = {}
    for split in SPLITS:
        for classmap in classmaps if split != "unlabelled" else [None]:
            nclasses = classmap.num_classes - 1 if classmap else 20
            if not has_split(root, year, split, nclasses):
                continue
            try:
                series = open_split(root, year, split, nclasses, skip_bad=True)
                series.store.validate(nclasses + 1 if classmap else None)
                lines = list(_split(split, series, classmap))
            except DataError as error:
                yield f"  {PROBLEM}{split}: {error}"
                continue
            yield from (f"  {line}" for line in lines)
            found[split] = series
    yield from (f"  {line}" for line in _shared(found))


def _split(split: str, series: SeriesSet, classmap: ClassMap | None) -> Iterator[str]:
    store, lengths = series.store, series.lengths
    summed = "checksums are right" if "checksums" in store.meta else "no checksums"
    yield (
        f"{split}: {len(series):,} series, {lengths.sum():,} observations, {lengths.min()} to {lengths.max()} a series;"
        f" days {np.asarray(store.doy).min()} to {np.asarray(store.doy).max()}; {summed} ({store.source})"
    )
    if classmap is not None and series.labels is not None:
        counts = np.bincount(series.labels, minlength=classmap.num_classes)
        absent = [classmap.names[i] for i in np.flatnonzero(counts == 0)]
        classes = f"{(counts > 0).sum()} classes of {counts[counts > 0].min():,} to {counts.max():,} series"
        yield f"  {classes}; none of {', '.join(absent)}" if absent else f"  {classes}"
    elif classmap is not None:
        yield f"  {PROBLEM}no labels"
    if bad := store.meta["provenance"].get(LEFT_OUT):
        yield f"  {PROBLEM}{bad['series']:,} of {bad['of']:,} series cannot be used, the first: {bad['first']}"
    if len(store.absurd):
        first = int(store.absurd[0])
        reason = f"series {first}, {checks.say_absurd(*store.series(first))}"
        yield f"  {PROBLEM}{len(store.absurd):,} series were never measured, the first: {reason}"


def _shared(found: dict[str, SeriesSet]) -> Iterator[str]:
    """What splits have in common, and series that are in one twice."""
    known = {split: keys(series) for split, series in found.items()}
    for split, own in known.items():
        if count := len(own) - len(np.unique(own)):
            yield f"{split}: {count:,} of {len(own):,} series are there more than once"
    for one, other in itertools.combinations([split for split in SPLITS if split in found], 2):
        if count := int(np.isin(known[other], known[one]).sum()):
            text = f"{count:,} of {len(known[other]):,} series of {other} are in {one} too"
            yield text if one == "unlabelled" else PROBLEM + text
    there = {split: blocks(series) for split, series in found.items() if split != "unlabelled"}
    for one, other in itertools.combinations([split for split, names in there.items() if names is not None], 2):
        names = np.unique(there[other])
        if count := int(np.isin(names, there[one]).sum()):
            yield f"{PROBLEM}{count:,} of {len(names):,} blocks of {other} hold series of {one} too"


@exit_cleanly
def main(arguments: list[str] | None = None) -> None:
    parser = Parser(
        prog="python -m datasets.check", description="Say what is in a data root, and what is wrong with it."
    )
    parser.add_argument("root", type=Path, help="data root, of stores or in the published layout")
    root = locate(parser.parse_args(arguments).root)
    if not root.is_dir():
        raise DataError(f"{root}: no such data folder")
    problems = 0
    for line in report(root):
        problems += line.lstrip().startswith(PROBLEM)
        print(line, flush=True)
    print(f"{problems} problem{'' if problems == 1 else 's'} found")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
