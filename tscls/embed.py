"""Embeddings: the features that a network has of each series or pixel, for any other classifier or GIS.

    python -m tscls.embed --model results/F_TR_STNet_R3000_RC_2019_Seed111 --datapath data/mine --out embeddings.parquet
    python -m tscls.embed --model checkpoints/pretrained/MoCoV2_TRSF_doy/model_best.pth --images data/scene/images \\
        --out embeddings.tif

The model is a classifier or a pre-training. Of series, a table with the columns id, label (where known) and f0, f1 …
(.parquet or .csv), or arrays of these names (.npz). Of images, a GeoTIFF with a band a feature: int8, no-data -128,
value = scale * number + offset, both in its tags. --picture draws the series in a plane, in the colours of the classes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from datasets import images
from datasets.catalog import SPLITS, open_classmap, open_split
from datasets.errors import DataError
from datasets.inseason import until
from datasets.store import SeriesSet
from models import NETWORKS, ModelError
from tscls import inseason, projection
from tscls.classifier import Classifier
from tscls.embedding_files import npz_writer, write_raster
from tscls.inseason import choose_day, left_out
from tscls.predict import ids_of, table_writer
from tscls.pretrained import open_encoder
from utils import options
from utils.errors import Parser, UsageError, exit_cleanly
from utils.runtime import distributed

TABLES, RASTERS = (".parquet", ".csv", ".npz"), (".tif", ".tiff")
YEAR = 2019


def get_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(prog="python -m tscls.embed", description=__doc__, formatter_class=options.HelpFormatter)
    add = parser.add_argument
    add("--model", required=True, metavar="RUN", help="run folder, or a checkpoint of main_tscls.py or main_moco.py")
    add("--network", choices=NETWORKS, help="that takes the weights (default: as the checkpoint says, or stnet)")
    add("--datapath", help=f"data root of the series; --year is {YEAR} unless given")
    add("--split", choices=SPLITS, default="unlabelled", help="which series of the year")
    add("--out", required=True, type=Path, help=f"file to write: {', '.join(TABLES)} of series, .tif of images")
    inseason.add_option(parser)
    add("--picture", type=Path, metavar="FILE", help="draw a sample of the series in a plane (.png)")
    add("--projection", choices=projection.METHODS, default="pca", help="to the plane; umap needs umap-learn")
    add("-d", "--device", default=None, help="cpu, cuda, cuda:1 … (default: a GPU if there is one)")
    images.add_arguments(parser, required=False)
    args = parser.parse_args(argv)
    if (args.datapath is None) == (args.images is None):
        raise UsageError("give either --datapath, for series, or --images")
    fitting = RASTERS if args.images else TABLES
    if args.out.suffix not in fitting:
        kind = "images" if args.images else "series"
        raise UsageError(f"--out {args.out}: of {kind}, expected a name that ends in {' or '.join(fitting)}")
    if not args.out.parent.is_dir():
        raise UsageError(f"--out {args.out}: there is no folder {args.out.parent}")
    if args.picture and args.images:
        raise UsageError("--picture is for series, with --datapath; a GIS shows the bands of a GeoTIFF")
    if args.picture:
        projection.check(args.projection, args.picture)
    return args


def pieces(encoder: Classifier, series: SeriesSet) -> Iterator[tuple[np.ndarray, np.ndarray | None, np.ndarray]]:
    """Ids (B,), labels (B,) or None, and features (B, F) float32 of series in the order of their store, by pieces."""
    ids, labels, first = ids_of(series), series.labels, 0
    for features in encoder.embed(series):
        part = slice(first, first + len(features))
        yield np.asarray(ids(first, len(features))), None if labels is None else labels[part], features.numpy()
        first += len(features)


def as_table(ids: np.ndarray, labels: np.ndarray | None, features: np.ndarray) -> pd.DataFrame:
    """The columns id, label and f0, f1 …"""
    known = {} if labels is None else {"label": labels}
    names = [f"f{i}" for i in range(features.shape[1])]
    return pd.concat([pd.DataFrame({"id": ids, **known}), pd.DataFrame(features, columns=names)], axis=1)


def embed_series(encoder: Classifier, args: argparse.Namespace) -> str:
    """Write the features of a split; returns what was done."""
    whole = open_split(args.datapath, args.year or YEAR, args.split)
    series = until(whole, encoder.until)
    for line in left_out({args.split: whole}, {args.split: series}, encoder.until):
        print(line)
    sample = projection.Sample(len(series))
    if args.out.suffix == ".npz":
        with npz_writer(args.out, len(series), encoder.model.num_features) as write:
            for ids, labels, features in pieces(encoder, series):
                write(ids, labels, features)
                sample.add(labels, features)
    else:
        with table_writer(args.out) as write:
            for ids, labels, features in pieces(encoder, series):
                write(as_table(ids, labels, features))
                sample.add(labels, features)
    if args.picture:
        try:
            classmap = encoder.classmap or open_classmap(args.datapath)
        except DataError:
            classmap = None  # then classes have numbers for names
        projection.draw(sample, args.projection, args.picture, classmap, f"{args.model}, {args.split}")
    return f"{len(series):,} series"


def embed_images(encoder: Classifier, args: argparse.Namespace) -> str:
    """Write the features of every pixel; returns what was done."""
    opened = images.open_from(args).until(encoder.until)
    for line in (*opened.notes, *opened.skipped):
        print(line)
    tags = {"MODEL": str(args.model)} | ({} if encoder.until is None else {"UNTIL_DOY": str(encoder.until)})
    count, clipped = write_raster(encoder, opened, args.out, tags)
    return f"{count:,} pixels on {opened.grid}, {clipped:.2%} of the values beyond the range of int8"


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    args = get_args(argv)
    world = distributed.start(args.device)
    if world.size > 1:
        raise UsageError("python -m tscls.embed is a single process; start it without torchrun")
    try:
        encoder = open_encoder(args.model, world.device, name=args.network)
    except ModelError as error:
        raise UsageError(f"{args.model}: {error}") from None
    encoder.until, told = choose_day(encoder.until, args.until_doy, args.model)
    for line in told:
        print(line)
    start = time.monotonic()
    done = embed_images(encoder, args) if args.images else embed_series(encoder, args)
    seconds = time.monotonic() - start
    print(f"{args.out}: {encoder.model.num_features} features of {done}, {seconds:.1f} s")


if __name__ == "__main__":
    main()
