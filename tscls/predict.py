"""The classes of series by a trained classifier, as a table: id, class, code, name, confidence.

    python -m tscls.predict --model results/F_TR_STNet_R3000_RC_2019_Seed111 --datapath data/mine --out predictions.csv

Labels are not needed. ``id`` is that of the store's index, or else the number of the series; ``confidence`` is the
probability of the class. A series without an observation up to --until-doy has no row. The table is written piece by
piece, under its name once it is complete.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from datasets.catalog import SPLITS, open_split
from datasets.classmap import read_classmap
from datasets.inseason import until
from datasets.store import SeriesSet
from tscls import inseason, prior
from tscls.classifier import Classifier, load_classifier
from tscls.evaluation import use_prior
from tscls.inseason import choose_day, left_out
from tscls.prior import check_prior
from utils import options
from utils.errors import Parser, UsageError, exit_cleanly
from utils.files import atomic_write
from utils.runtime import distributed

FORMATS = (".csv", ".parquet")


def get_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(prog="python -m tscls.predict", description=__doc__, formatter_class=options.HelpFormatter)
    add = parser.add_argument
    add("--model", required=True, metavar="RUN", help="run folder of main_tscls.py, or a checkpoint file")
    add("--datapath", required=True, help="data root, in the published layout or of stores")
    add("--split", choices=SPLITS, default="unlabelled", help="which series of the year")
    add("--year", type=int, default=2019, help="year of the series")
    add("--out", required=True, type=Path, help="table to write, .csv or .parquet")
    add("--draws", type=options.at_least(0), metavar="K", help="mean of K random draws, 0: all observations at once")
    prior.add_option(parser)
    inseason.add_option(parser)
    add("--classes", metavar="FILE", help="class map of a checkpoint that has none, as classmapping20.csv")
    add("-d", "--device", default=None, help="cpu, cuda, cuda:1 … (default: a GPU if there is one)")
    args = parser.parse_args(argv)
    if args.out.suffix not in FORMATS:
        raise UsageError(f"--out {args.out}: expected a name that ends in {' or '.join(FORMATS)}")
    return args


def tables(classifier: Classifier, series: SeriesSet) -> Iterator[pd.DataFrame]:
    """The rows of the table, a piece at a time."""
    ids, first = ids_of(series), 0
    for log_probability in classifier.predict(series):
        yield _table(classifier, ids(first, len(log_probability)), log_probability)
        first += len(log_probability)


def _table(classifier: Classifier, ids: np.ndarray | pd.Series, log_probability: Tensor) -> pd.DataFrame:
    """Rows from log-probabilities (B, classes); codes are missing where the classifier has no class map."""
    best, classes = log_probability.max(1)
    classes = classes.numpy()
    codes = classifier.classmap.codes if classifier.classmap else [pd.NA] * classifier.num_classes
    return pd.DataFrame(
        {
            "id": np.asarray(ids),
            "class": classes,
            "code": pd.array([codes[i] for i in classes], dtype="Int64"),
            "name": [classifier.names[i] for i in classes],
            "confidence": best.exp().numpy(),
        }
    )


def ids_of(series: SeriesSet) -> Callable[[int, int], np.ndarray | pd.Series]:
    """A function that gives the ids of the next series (first, count) of a set, as the index of its store writes them.

    The set is in the order of the store.
    """
    index = series.store.path / "index.csv"
    if not index.is_file() or "id" not in pd.read_csv(index, nrows=0).columns:
        return lambda first, count: series.rows[first : first + count]
    ids = pd.read_csv(index, usecols=["id"], dtype=str, keep_default_na=False, iterator=True)
    steps = np.diff(series.rows, prepend=-1)

    def following(first: int, count: int) -> pd.Series:
        step = steps[first : first + count]
        return ids.get_chunk(step.sum())["id"].iloc[step.cumsum() - 1]

    return following


@contextmanager
def table_writer(path: Path) -> Iterator[Callable[[pd.DataFrame], None]]:
    """A function that appends pieces to a table, which appears under its name when it is complete.

    Raises:
        UsageError: a Parquet file without pyarrow, or a folder that is not there.
    """
    if not path.parent.is_dir():
        raise UsageError(f"--out {path}: there is no folder {path.parent}")
    with atomic_write(path) as partial, (_csv if path.suffix == ".csv" else _parquet)(partial) as write:
        yield write


@contextmanager
def _csv(path: Path) -> Iterator[Callable[[pd.DataFrame], None]]:
    with path.open("w", encoding="utf-8", newline="") as file:
        yield lambda table: table.to_csv(
            file, index=False, header=file.tell() == 0, float_format="%.6f", lineterminator="\n"
        )


@contextmanager
def _parquet(path: Path) -> Iterator[Callable[[pd.DataFrame], None]]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise UsageError("a Parquet table needs pyarrow: pip install pyarrow, or give --out a name in .csv") from None
    writer = None

    def write(table: pd.DataFrame) -> None:
        nonlocal writer
        piece = pa.Table.from_pandas(table, preserve_index=False)
        writer = writer or parquet.ParquetWriter(path, piece.schema)
        writer.write_table(piece)

    try:
        yield write
    finally:
        if writer:
            writer.close()


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    args = get_args(argv)
    world = distributed.start(args.device)
    if world.size > 1:
        raise UsageError("python -m tscls.predict is a single process; start it without torchrun")
    classmap = read_classmap(args.classes) if args.classes else None
    classifier = load_classifier(args.model, world.device, classmap=classmap)
    if args.draws is not None:
        classifier.draws = args.draws
    check_prior(args.prior, classifier.shares, classifier.classmap, args.model)
    classifier.until, told = choose_day(classifier.until, args.until_doy, args.model)
    whole = open_split(args.datapath, args.year, args.split, classifier.num_classes - 1)
    series = until(whole, classifier.until)
    for line in (*told, *left_out({args.split: whole}, {args.split: series}, classifier.until)):
        print(line)
    use_prior(classifier, args.prior, series)
    start = time.monotonic()
    with table_writer(args.out) as write:
        for table in tables(classifier, series):
            write(table)
    seconds = time.monotonic() - start
    print(f"{args.out}: classes of {len(series):,} series, {len(series) / seconds:,.0f} series/s")


if __name__ == "__main__":
    main()
