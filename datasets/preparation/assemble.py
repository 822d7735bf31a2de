"""From chosen pixels to a grown data root: extraction, the deal to the splits, stores, table and pictures."""

from __future__ import annotations

import argparse
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets import images
from datasets.classmap import ClassMap
from datasets.errors import DataError
from datasets.preparation import extract, manifest, pictures, summary
from datasets.preparation.places import BLOCK_SIZE, FEWEST_BLOCKS, NOT_SPLIT, blocks_at, default_block_size
from datasets.preparation.root import LABELLED, UNLABELLED, add_to_root, check_addition, recorded, settle
from datasets.preparation.samples import Samples
from datasets.store import Store

PARTS = ".parts"  # folder in the root for unfinished work
MIN_OBSERVATIONS, SEED = 10, 2019
FEW_BLOCKS = 12  # below which the splits are seldom near 2/3, 1/6 and 1/6


class Target(NamedTuple):
    """Where the series go and what they are called."""

    root: Path
    year: int
    site: str
    classmap: ClassMap | None  # None: unlabelled

    @property
    def parts(self) -> Path:
        """The folder for unfinished work."""
        kind = UNLABELLED if self.classmap is None else "labelled"
        return self.root / PARTS / f"{self.year}-{self.site}-{kind}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that all subcommands on images have."""
    images.add_arguments(parser)
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="ROOT", help="data root to make, or to add to")
    add("--site", help="name of the site, the region of its series (default: the last folder of ROOT)")
    add("--min-observations", type=int, default=MIN_OBSERVATIONS, help=f"fewest of a series ({MIN_OBSERVATIONS})")
    add("--seed", type=int, default=SEED, help=f"of everything that is drawn ({SEED})")
    add("--workers", type=int, default=1, help="processes that read images; the result does not depend on it (1)")
    add("--overwrite", action="store_true", help="replace the series of this site and year, and the parts of an"
        " interrupted run with other options")  # fmt: skip
    add("--dry-run", action="store_true", help="say what would be read, and end")
    add("--quiet", action="store_true", help="no progress bar")


def check_arguments(args: argparse.Namespace) -> None:
    """DataError for a number out of its range."""
    for name in ("seed", "workers", "min_observations", "max_per_class", "pixels_per_polygon", "top", "count"):
        value, low = getattr(args, name, None), 0 if name == "seed" else 1
        if value is not None and value < low:
            raise DataError(f"--{name.replace('_', '-')} {value}; expected {low} or more")


def site_of(args: argparse.Namespace) -> str:
    """--site, or the name of the data root."""
    site = args.site or args.out.resolve().name
    if "/" in site or "\\" in site or site.startswith("."):
        raise DataError(f"--site {site!r}; expected a name without / and \\ that does not begin with a dot")
    return site


def year_of(args: argparse.Namespace, source) -> int:
    """--year, or the year of most of the images."""
    if args.year is not None:
        return args.year
    return Counter(day.year for day in source.dates).most_common(1)[0][0]


def block_size_of(args: argparse.Namespace, grid) -> float:
    """--block-size, or the default for the images, which is said where they are small."""
    if args.block_size is not None:
        return args.block_size
    size = default_block_size(grid)
    if size < BLOCK_SIZE:
        print(f"blocks of {size:g} m: fewer than {FEWEST_BLOCKS} of {BLOCK_SIZE:g} m fit on the images")
    return size


def describe(source, workers: int) -> None:
    """Print what is known of the images before they are read: their notes (grid, offset), dates and memory."""
    for note in source.notes:
        print(note)
    print(f"{len(source.dates)} dates from {source.dates[0]} to {source.dates[-1]}")
    rows, cols = extract.window_shape(source)
    need = extract.memory_of(source, workers) / 1e6
    print(f"memory: about {need:,.0f} MB for windows of {rows} x {cols} pixels in {workers} process(es)")


def report_filters(of: str, total: int, filtered: dict[str, int]) -> None:
    """Print how many are left after the filters, and what each took."""
    left = total - sum(filtered.values())
    print(f"{of}: {left:,} of {total:,} used{_took(filtered)}")


def refuse_empty(where: object, of: str, total: int, filtered: dict[str, int]) -> None:
    """DataError that says which filter took how many."""
    raise DataError(f"{where}: no series is left of {total:,} {of}{_took(filtered)}; loosen the filter that took them")


def _took(filtered: dict[str, int]) -> str:
    taken = [f"{count:,} {reason}" for reason, count in filtered.items() if count]
    return f"; left out: {', '.join(taken)}" if taken else ""


def fingerprint_of(
    command: str, source, samples: Samples | None, target: Target, inputs: Sequence[Path], options: dict
) -> dict:
    """Plain data that decides the bytes of the result: images, other files, options, the pixels chosen."""
    content = hashlib.blake2b(digest_size=16)
    for array in () if samples is None else (samples.row, samples.col, *samples.columns.values()):
        content.update((array.astype(str) if array.dtype == object else np.ascontiguousarray(array)).tobytes())
    return {
        "command": command,
        "images": source.provenance,
        "inputs": [manifest.file_record(path) for path in inputs],
        "options": options,
        "classes": None if target.classmap is None else target.classmap.as_dict(),
        "pixels": {"count": None if samples is None else len(samples), "blake2b": content.hexdigest()},
    }


def prepare(
    source,
    samples: Samples | None,
    target: Target,
    fingerprint: dict,
    *,
    split_of: Callable[[Samples], np.ndarray] | None,
    most: int | None = None,
    block_size: float,
    min_observations: int,
    workers: int,
    overwrite: bool,
    progress: bool,
) -> None:
    """Extract the samples (None: all pixels), deal those with enough observations, and add them to the root.

    `samples` come in the order of `extract.in_block_order`, labelled ones with columns label, code and block.
    `split_of` gives the split of each (NOT_SPLIT: left out); None: unlabelled series, of which the `most` of lowest
    rank are kept. `overwrite`: replace the series of the site, and throw the parts of other calls away. An interrupted
    call is continued by the same one, with the same bytes as result.

    Raises:
        DataError: as `check_addition` and `manifest.work_folder`; no series is left.
    """
    settle(target.root)
    folder, name = target.parts, manifest.digest(fingerprint)
    is_added = folder.is_dir() and recorded(target.root, target.year, target.site, target.classmap) == name
    if not is_added:
        check_addition(target.root, target.year, target.site, target.classmap, replace=overwrite)
    with manifest.work_folder(folder, fingerprint, overwrite=overwrite):
        jobs = extract.plan(source.grid, samples, extract.window_shape(source))
        try:
            files = extract.extract(
                source, jobs, folder, min_observations=min_observations, workers=workers, progress=progress
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt("interrupted; the same command continues where it was") from None
        kept, counts = _kept(jobs, files)
        total = sum(job.wanted for job in jobs)
        filtered = dict(zip((f"pixels {reason}" for reason in extract.COUNTS[:2]), counts[:2].tolist(), strict=True))
        if not total - counts[:2].sum():
            refuse_empty(target.root, "pixels", total, filtered)
        splits = _splits(samples, kept, split_of, most, total, filtered)
        report_filters("pixels", total, filtered)
        told = {reason: int(count) for reason, count in zip(extract.COUNTS[2:], counts[2:], strict=True)}
        print(f"observations missing {told['missing']:,}, masked {told['masked']:,}; band values clipped to 32,767:"
              f" {told['clipped']:,}")  # fmt: skip
        ndvi = summary.NdviByDay(target.classmap, source.dates)
        pieces = _pieces(source.grid, samples, target, jobs, files, splits, block_size, ndvi)
        if is_added:  # the process was killed after the stores were in place
            for _ in pieces:
                continue
        else:
            meta = {"fingerprint": name, **fingerprint, "pixels left out": filtered, "observations": told}
            add_to_root(
                target.root, target.year, pieces, site=target.site, classmap=target.classmap, meta=meta,
                replace=overwrite,
            )  # fmt: skip
        _show(target, source, ndvi)
    manifest.remove(folder)


def _kept(jobs: Sequence[extract.Job], files: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the samples that have enough observations, and the counts of all parts."""
    positions, counts = [np.zeros(0, dtype=np.int64)], np.zeros(len(extract.COUNTS), dtype=np.int64)
    for job, file in zip(jobs, files, strict=True):
        counts_of_part, position = extract.read_outcome(file)
        positions.append(job.first + position.astype(np.int64))
        counts += counts_of_part
    return np.concatenate(positions), counts


def _splits(
    samples: Samples | None,
    kept: np.ndarray,
    split_of: Callable[[Samples], np.ndarray] | None,
    most: int | None,
    total: int,
    filtered: dict[str, int],
) -> np.ndarray | None:
    """The split of every sample, (P,) of str, NOT_SPLIT where left out; None: all pixels are unlabelled series."""
    if samples is None:
        return None
    splits = np.full(total, NOT_SPLIT, dtype="U10")
    if split_of is not None:
        splits[kept] = split_of(samples.take(kept))
        filtered["beside a polygon of another split"] = int((splits[kept] == NOT_SPLIT).sum())
        return splits
    by_rank = kept[np.argsort(samples.columns["rank"][kept])]
    splits[by_rank[:most]] = UNLABELLED
    filtered["drawn in reserve"] = len(by_rank[most:])
    return splits


def _pieces(
    grid, samples: Samples | None, target: Target, jobs: Sequence[extract.Job], files: Sequence[Path],
    splits: np.ndarray | None, block_size: float, ndvi: summary.NdviByDay,
) -> Iterator:  # fmt: skip
    """Pieces for `add_to_root`, a part after another."""
    for job, file in zip(jobs, files, strict=True):
        part = extract.read_part(file)
        positions = job.first + part.position.astype(np.int64)
        x, y = grid.centres(part.row, part.col)
        place = {"row": part.row, "col": part.col, "x": x, "y": y}
        if samples is None or target.classmap is None:
            place["block"] = blocks_at(part.row, part.col, grid, block_size)
        else:
            known = ("label", "code", "block", "polygon")
            place |= {key: samples.columns[key][positions] for key in known if key in samples.columns}
        for split in (UNLABELLED,) if target.classmap is None else LABELLED:
            chosen = np.ones(len(part.row), dtype=bool) if splits is None else splits[positions] == split
            rows = np.repeat(chosen, part.lengths)
            lengths, bands, doy = part.lengths[chosen], part.bands[rows], part.doy[rows]
            index = {key: values[chosen] for key, values in place.items()}
            ndvi.add(index.get("label", np.zeros(len(lengths), dtype=np.int64)), lengths, bands, doy)
            yield split, bands, doy, lengths, index


def _show(target: Target, source, ndvi: summary.NdviByDay) -> None:
    """Print the table of the year, and draw the pictures of the site."""
    folder = target.root / str(target.year)
    print(summary.table(folder, target.classmap))
    splits = (UNLABELLED,) if target.classmap is None else LABELLED
    missing = [split for split in splits if not (folder / split).exists()]
    if missing:
        print(f"{folder}: no {' and no '.join(missing)} series yet")
    for line in pictures.draw(target.root, target.year, target.site, target.classmap, ndvi):
        print(line)
    for line in source.skipped:
        print(f"left out: {line}")
    for split in splits:
        if split not in missing:
            print(Store.open(folder / split))


def describe_split(chosen: Samples, splits: np.ndarray, size: float) -> None:
    """Print how many blocks there are and what the splits get, and what to do if the blocks are too few to share."""
    blocks = len(np.unique(chosen.columns["block"]))
    got = ", ".join(f"{split} {100 * np.mean(splits == split):.0f} %" for split in LABELLED)
    beside = np.mean(splits == NOT_SPLIT)
    left_out = f"; {100 * beside:.0f} % are left out, beside a polygon of another split" if beside else ""
    print(f"{blocks} blocks: {got} of the pixels{left_out}")
    if blocks < FEW_BLOCKS:
        print(f"so few blocks cannot be dealt evenly; smaller ones can, such as --block-size {size / 4:g}")


def expect(chosen: Samples, classmap: ClassMap, splits: np.ndarray, dates: Sequence[date]) -> None:
    """Print what a dry run expects: all dates, and the pixels of each class and split."""
    print(f"dates: {', '.join(day.isoformat() for day in dates)}")
    counts = Counter(zip(chosen.columns["label"].tolist(), splits.tolist(), strict=True))
    print(summary.counts_table({(label, split, ""): count for (label, split), count in counts.items()}, classmap))
