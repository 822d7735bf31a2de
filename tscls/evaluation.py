"""Testing a classifier: its scores on a set of series, and what they leave in the run's folder."""

from __future__ import annotations

import json
import re
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
from tscls.prior import CHOICES, ESTIMATE, NONE, SAMPLE, readable_shares, share_table, shares_there, spread
from tscls.resume import TESTLOG, tests_of, told_file, told_series
from tscls.trust import at_per_cents, calibration_error, coverage, reliability
from utils.errors import UsageError
from utils.files import write_array, write_csv, write_text
from utils.metrics import SCORES, readable, score
from utils.precision import Precision
from utils.report import write_run_report
from utils.results.logs import RunLog, write_rows
from utils.runtime.distributed import World

LOGGED = (*SCORES, "loss", "ece", "series", "series_per_s")  # in testlog.csv


def predict_all(
    classifier: Classifier,
    series: SeriesSet,
    world: World,
    *,
    draws: int | None = None,
    temperature: float | None = None,
    precision: Precision | None = None,
) -> Tensor:
    """Log-probabilities (N, classes) of the whole set, on every rank; each predicts its shard."""
    batches = split_batches(np.arange(len(series)), BATCH)
    shards = [np.concatenate([world.shard(batch, rank) for batch in batches]) for rank in range(world.size)]
    options = {"draws": draws, "temperature": temperature, "precision": precision, "rank": world.rank}
    parts = list(classifier.predict(series.take(shards[world.rank]), batch_size=max(1, BATCH // world.size), **options))
    gathered = world.all_gather(torch.cat(parts) if parts else torch.empty(0, classifier.num_classes))
    return gathered[np.argsort(np.concatenate(shards))]


def scores_on(
    classifier: Classifier,
    series: SeriesSet,
    world: World,
    *,
    draws: int | None = None,
    temperature: float | None = None,
    precision: Precision | None = None,
) -> dict[str, float | np.ndarray]:
    """Loss and every metric of the predictions of labelled series, their number, and ``series_per_s``."""
    start = time.monotonic()
    options = {"draws": draws, "temperature": temperature, "precision": precision}
    log_probability = predict_all(classifier, series, world, **options)
    scores = score(log_probability, series.labels)
    return {**scores, "series": len(series), "series_per_s": len(series) / (time.monotonic() - start)}


def check_classes(classifier: Classifier, classmap: ClassMap, path: str | Path, datapath: str, remedy: str) -> None:
    """UsageError, with a remedy, where the classifier in ``path`` knows its classes and they are not the data's."""
    if classifier.classmap and classifier.classmap.names != classmap.names:
        raise UsageError(f"{path}: its classes are not those of {datapath}; {remedy}")


def told_prior(prior: str) -> str:
    """A ``--prior`` as testlog.csv has it: of a file its name and a digest of its content."""
    return prior if prior in CHOICES else told_file(Path(prior))


def prior_tag(told: str) -> str:
    """What the names of a test's files have of ``told_prior``."""
    return "" if told == NONE else f"_prior-{re.sub(r'[^0-9A-Za-z.-]+', '-', told).strip('-')}"


def _shares_there(classifier: Classifier, prior: str, log_probability: Tensor) -> np.ndarray | None:
    sample = log_probability[spread(len(log_probability))]
    return shares_there(prior, classifier.shares, classifier.classmap, sample.numpy)


def use_prior(classifier: Classifier, prior: str, series: SeriesSet) -> None:
    """Let a classifier correct its predictions for a ``--prior``; an estimate is made from these series, and printed.

    The estimate takes a pass over a sample of the series, in constant memory.
    """

    def log_probability() -> np.ndarray:
        return predict_all(classifier, series.take(spread(len(series))), World()).numpy()

    classifier.there = shares_there(prior, classifier.shares, classifier.classmap, log_probability)
    if prior == ESTIMATE:
        shares = share_table(classifier.names, classifier.shares, classifier.there)
        print(f"class shares, estimated from {min(len(series), SAMPLE):,} series\n{readable_shares(shares)}")


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
    prior: str = NONE,
) -> None:
    """Test on each year's series, print the scores and leave them in the run's folder, with tables and pictures.

    ``train_seconds`` is what training took; None keeps what testlog.csv says, and its rows of other tests. ``log`` gets
    the scores for TensorBoard, and is closed. With a ``prior`` (``tscls.prior.add_option``) each year has a second row,
    of the predictions corrected for class shares.
    """
    known = tests_of(folder) if train_seconds is None else {}
    if train_seconds is None:
        train_seconds = next((row["train_seconds"] for row in known.values()), "")
    rows = dict(known)
    for year, series in sets.items():
        start = time.monotonic()
        log_probability = predict_all(classifier, series, world, precision=precision)
        speed = {"series": len(series), "series_per_s": len(series) / (time.monotonic() - start)}
        if not world.is_main:
            continue
        year_tag = "" if year == train_year or len(sets) == 1 and not known else f"_{year}"
        tests = {NONE: log_probability}
        if prior != NONE:
            there = _shares_there(classifier, prior, log_probability)
            tests[told_prior(prior)] = classifier.corrected(log_probability, there)
            if prior == ESTIMATE:
                shares = share_table(classifier.names, classifier.shares, there)
                write_csv(folder / f"class_shares{year_tag}.csv", shares)
                print(f"class shares of {year}, estimated\n{readable_shares(shares)}")
        for told, log_probability in tests.items():
            numbers = log_probability.numpy()
            ece = calibration_error(numbers, series.labels)
            scores = {**score(log_probability, series.labels), "ece": ece, **speed}
            rows[year, told] = {
                "year": year,
                "regions": "+".join(regions),
                "prior": told,
                **({} if classifier.until is None else {"until_doy": classifier.until}),
                **{name: scores[name] for name in LOGGED},
                "train_seconds": train_seconds,
                "parameters": classifier.num_parameters,
                "data": told_series([series]),
            }
            tag = year_tag + prior_tag(told)
            write_array(folder / f"test_conf_mat{tag}.npy", scores["confusion_matrix"])
            write_array(folder / f"test_class_f1{tag}.npy", scores["class_f1"])
            write_csv(folder / f"test_reliability{tag}.csv", reliability(numbers, series.labels))
            write_csv(folder / f"test_coverage{tag}.csv", at_per_cents(coverage(numbers, series.labels)))
            if log:
                log.scalars(f"test_{year}{prior_tag(told)}", {name: scores[name] for name in SCORES}, len(log.rows))
            tested = f"{year}" if told == NONE else f"{year}, prior {told}"
            print(f"{folder.name}, {tested}: {readable(scores)}", flush=True)
    if world.is_main:
        write_text(folder / "classes.json", json.dumps(classifier.names) + "\n")
        write_rows(folder / TESTLOG, list(rows.values()))
        if log:
            log.close()
        write_run_report(folder)
