"""`python -m datasets.prepare labelled`: series at the reliable pixels of a label raster such as the CDL."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from datasets import images
from datasets.preparation import assemble, classes, extract, places, samples, vectors
from datasets.preparation.labels import MIN_CONFIDENCE, UNIFORM, read_labels, read_legend
from datasets.preparation.split import deal

HELP = "series at the reliable pixels of a label raster, such as the Cropland Data Layer"
OPTIONS = ("min_confidence", "uniform", "all_pixels", "max_per_class", "min_observations", "block_size", "seed")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--labels", type=Path, required=True, metavar="FILE", help="raster of class codes, on any grid and CRS")
    add("--confidence", type=Path, metavar="FILE", help="raster of confidence in percent, on the grid of the labels")
    add("--min-confidence", type=float, default=MIN_CONFIDENCE, help=f"labels need more than this ({MIN_CONFIDENCE:g})")
    add("--uniform", type=int, default=UNIFORM, metavar="N", help=f"N x N pixels around must agree; 1: off ({UNIFORM})")
    add("--all-pixels", action="store_true", help="every image pixel in a label pixel, not only that at its centre")
    add_class_arguments(parser)
    add_block_arguments(parser)
    assemble.add_arguments(parser)


def add_class_arguments(parser: argparse.ArgumentParser) -> None:
    """The options on classes, those of polygons too."""
    add = parser.add_argument
    add("--classes", metavar="FILE|auto", help="class map, or the most frequent labels (default: that of ROOT, or CDL)")
    add("--top", type=int, default=classes.TOP, help=f"classes of --classes auto ({classes.TOP})")
    add("--strict", action="store_true", help="labels that are not in the class map are an error, not Other")
    add("--max-per-class", type=int, metavar="N", help="at most N pixels of a class, drawn by the seed")


def add_block_arguments(parser: argparse.ArgumentParser) -> None:
    """The options on blocks, those of polygons too."""
    add = parser.add_argument
    add("--block-size", type=float, metavar="METRES", help="side of the blocks that are dealt whole to train, valid and"
        f" eval ({places.BLOCK_SIZE:g}; smaller on small images)")  # fmt: skip
    add("--blocks", type=Path, metavar="FILE", help="polygons of your own blocks, with their split in a column `split`")


def run(args: argparse.Namespace) -> None:
    assemble.check_arguments(args)
    places.check_block_size(args.block_size)
    source = images.open_from(args)
    args.block_size = assemble.block_size_of(args, source.grid)
    chosen, total, filtered = _choose(args, source)
    if not len(chosen):
        assemble.refuse_empty(args.labels, "label pixels", total, filtered)
    assemble.report_filters("label pixels", total, filtered)
    inputs = [path for path in (args.labels, args.confidence) if path is not None]
    finish(args, "labelled", source, chosen, inputs, OPTIONS, legend=read_legend(args.labels))


def _choose(args: argparse.Namespace, source) -> tuple[samples.Samples, int, dict[str, int]]:
    """Pixels under qualifying labels, how many label pixels (or image pixels) there were, and what took the others."""
    if args.confidence is None:
        print("no --confidence: labels are chosen by their neighbourhood alone")
    labels = read_labels(
        args.labels, args.confidence, source.grid, min_confidence=args.min_confidence, uniform=args.uniform
    )
    if not args.all_pixels:
        chosen, filtered = samples.at_centres(labels, source.grid)
        return chosen, labels.codes.size, labels.filtered | filtered
    assemble.report_filters("label pixels", labels.codes.size, labels.filtered)
    chosen = samples.all_inside(labels, source.grid)
    total = source.grid.height * source.grid.width
    return chosen, total, {"not in such a label pixel": total - len(chosen)}


def finish(
    args: argparse.Namespace,
    command: str,
    source,
    chosen: samples.Samples,
    inputs: list[Path],
    options: tuple[str, ...],
    *,
    legend: classes.Legend = classes.NOTHING,
    pairs: np.ndarray | None = None,
) -> None:
    """Label, draw and deal the chosen pixels, say what comes of it, and prepare them.

    Columns of `chosen`: code; of polygons also shape (their number), polygon (their name) and, where the user gave it,
    split. `pairs`: shapes that are neighbours, which no two splits may share.
    """
    codes = chosen.columns["code"]
    classmap, line = classes.choose_classmap(args.classes, args.out, codes, top=args.top, legend=legend)
    print(f"{line}: {classmap.num_classes - 1} and Other")
    chosen = chosen.having(label=classes.label_of(codes, classmap))
    if args.strict:
        classes.check_known(codes, chosen.columns["label"], classmap, inputs[0])
    chosen, filtered = _draw(args, chosen, source.grid, of_polygons=pairs is not None)
    if not len(chosen):
        assemble.refuse_empty(inputs[0], "pixels", len(codes), filtered)
    assemble.report_filters("pixels with a label", len(codes), filtered)
    chosen = extract.in_block_order(chosen, source.grid, extract.window_shape(source))
    split_of = _splitter(args.seed, pairs)
    splits = split_of(chosen)
    assemble.describe(source, args.workers)
    if "split" not in chosen.columns:
        assemble.describe_split(chosen, splits, args.block_size)
    if args.dry_run:
        assemble.expect(chosen, classmap, splits, source.dates)
        return
    target = assemble.Target(args.out, assemble.year_of(args, source), assemble.site_of(args), classmap)
    inputs = inputs if args.blocks is None else [*inputs, args.blocks]
    said = {name: getattr(args, name) for name in options}
    assemble.prepare(
        source, chosen, target, assemble.fingerprint_of(command, source, chosen, target, inputs, said),
        split_of=split_of, block_size=args.block_size, min_observations=args.min_observations, workers=args.workers,
        overwrite=args.overwrite, progress=not args.quiet,
    )  # fmt: skip


def _draw(
    args: argparse.Namespace, chosen: samples.Samples, grid, *, of_polygons: bool
) -> tuple[samples.Samples, dict[str, int]]:
    """The pixels that blocks and limits leave, with their block; and what each took.

    A pixel outside the user's blocks, or in another block than most of its polygon, takes no place of a draw.
    """
    filtered = {}
    if args.blocks is not None:
        names, split = vectors.blocks_of_file(args.blocks, chosen.row, chosen.col, grid)
        chosen = chosen.having(block=names, **({} if split is None else {"split": split})).take(names != "")
        filtered["outside --blocks"] = int((names == "").sum())
    if of_polygons and "split" not in chosen.columns:
        chosen = _with_block(chosen, grid, args.block_size)
        home = places.in_home_block(chosen)
        filtered["in another block than most of their polygon"] = int((~home).sum())
        chosen = chosen.take(home)
    limits = {"shape": ("polygon", getattr(args, "pixels_per_polygon", None)), "label": ("class", args.max_per_class)}
    for column, (name, most) in limits.items():
        if most is not None:
            drawn = samples.draw_per_group(chosen.columns[column], most, args.seed)
            filtered[f"over {most:,} of a {name}"] = len(chosen) - len(drawn)
            chosen = chosen.take(drawn)
    return _with_block(chosen, grid, args.block_size), filtered


def _with_block(chosen: samples.Samples, grid, size: float) -> samples.Samples:
    if "block" in chosen.columns:
        return chosen
    return chosen.having(block=places.blocks_at(chosen.row, chosen.col, grid, size))


def _splitter(seed: int, pairs: np.ndarray | None):
    """The split of samples: their own, else by whole blocks, without what lies beside a polygon of another split."""

    def split_of(some: samples.Samples) -> np.ndarray:
        if "split" in some.columns:
            return some.columns["split"]
        blocks, labels = some.columns["block"], some.columns["label"]
        if pairs is None:
            return deal(blocks, labels, seed)
        return places.deal_apart(blocks, labels, some.columns["shape"], pairs, seed)

    return split_of
