"""Testing a classifier: its scores on a set of series, and what they leave in the run's folder."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets.batches import split_batches
from datasets.classmap import ClassMap
from datasets.store import SeriesSet
from tscls.classifier import BATCH, Classifier
from tscls.resume import TESTLOG, tested_years, told_series
from utils.errors import UsageError
from utils.files import write_array, write_text
from utils.metrics import SCORES, readable, score
from utils.precision import Precision
from utils.report import write_run_report
from utils.results.logs import RunLog, write_rows
from utils.runtime.distributed import World

LOGGED = (*SCORES, "loss", "series", "series_per_s")  # in testlog.csv


def predict_all(
    classifier: Classifier,
    series: SeriesSet,
    world: World,
    *,
    draws: int | None = None,
    precision: Precision | None = None,
) -> Tensor:
    """Log-probabilities (N, classes) of the whole set, on every rank; each predicts its shard."""
    batches = split_batches(np.arange(len(series)), BATCH)
    shards = [np.concatenate([world.shard(batch, rank) for batch in batches]) for rank in range(world.size)]
    options = {"draws": draws, "precision": precision, "rank": world.rank}
    parts = list(classifier.predict(series.take(shards[world.rank]), batch_size=max(1, BATCH // world.size), **options))
    gathered = world.all_gather(torch.cat(parts) if parts else torch.empty(0, classifier.num_classes))
    return gathered[np.argsort(np.concatenate(shards))]


def scores_on(
    classifier: Classifier,
    series: SeriesSet,
    world: World,
    *,
    draws: int | None = None,
    precision: Precision | None = None,
) -> dict[str, float | np.ndarray]:
    """Loss and every metric of the predictions of labelled series, their number, and ``series_per_s``."""
    start = time.monotonic()
    log_probability = predict_all(classifier, series, world, draws=draws, precision=precision)
    scores = score(log_probability, series.labels)
    return {**scores, "series": len(series), "series_per_s": len(series) / (time.monotonic() - start)}


def check_classes(classifier: Classifier, classmap: ClassMap, path: str | Path, datapath: str, remedy: str) -> None:
    """UsageError, with a remedy, where the classifier in ``path`` knows its classes and they are not the data's."""
    if classifier.classmap and classifier.classmap.names != classmap.names:
        raise UsageError(f"{path}: its classes are not those of {datapath}; {remedy}")


def evaluate(
    classifier: Classifier,
    sets: dict[int, SeriesSet],
    folder: Path,
    world: World,
    precision: Precision | None = None,
    *,
    train_year: int,
    regions: Sequence[str] = (),
    train_seconds: float | None = None,
    log: RunLog | None = None,
) -> None:
    """Test on each year's series, print the scores and leave them in the run's folder, with tables and pictures.

    ``train_seconds`` is what training took; None keeps what testlog.csv says, and its rows of other years. ``log`` gets
    the scores for TensorBoard, and is closed.
    """
    known = tested_years(folder) if train_seconds is None else {}
    if train_seconds is None:
        train_seconds = next((row["train_seconds"] for row in known.values()), "")
    rows = dict(known)
    for year, series in sets.items():
        scores = scores_on(classifier, series, world, precision=precision)
        if not world.is_main:
            continue
        rows[year] = {
            "year": year,
            "regions": "+".join(regions),
            **{name: scores[name] for name in LOGGED},
            "train_seconds": train_seconds,
            "parameters": classifier.num_parameters,
            "data": told_series([series]),
        }
        tag = "" if year == train_year or len(sets) == 1 and not known else f"_{year}"
        write_array(folder / f"test_conf_mat{tag}.npy", scores["confusion_matrix"])
        write_array(folder / f"test_class_f1{tag}.npy", scores["class_f1"])
        if log:
            log.scalars(f"test_{year}", {name: scores[name] for name in SCORES}, len(log.rows))
        print(f"{folder.name}, {year}: {readable(scores)}", flush=True)
    if world.is_main:
        write_text(folder / "classes.json", json.dumps(classifier.names) + "\n")
        write_rows(folder / TESTLOG, list(rows.values()))
        if log:
            log.close()
        write_run_report(folder)
