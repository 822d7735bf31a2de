"""The runs of a comparison: every arm with every budget and seed, several at a time, each one once."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

import main_tscls
from benchmarks.evidence.arms import Arm
from benchmarks.evidence.pretrain import file_name
from datasets.catalog import Selection, open_classmap, open_eval, open_labelled
from datasets.store import SeriesSet, join
from tscls.classifier import LEAST, Classifier, load_classifier
from tscls.pretrained import open_encoder
from tscls.probe import logistic_regression
from utils.files import atomic_write, make_folder


class Target(NamedTuple):
    """What the arms are trained and tested on.

    Attributes:
        datapath: data root with labels. year: trained on. years: tested on.
        leave_out: a site that is left out of training and tested on alone.
        nclasses: classes, without "Other".
    """

    datapath: str
    year: int
    years: tuple[int, ...]
    leave_out: str | None = None
    nclasses: int = 20

    def selection(self, num: int | None = None, *, seed: int = 111) -> Selection:
        """What is drawn of the labelled series, or all of them."""
        return Selection(num or 0, self.nclasses, seed, use_all=num is None, leave_out=self.leave_out)


class Cell(NamedTuple):
    """One run: an arm, the checkpoint that it starts from, labelled series, seed."""

    name: str
    arm: Arm
    checkpoint: str | None
    labels: int
    seed: int


class Predictions(NamedTuple):
    """Log-probabilities (N, classes) of the test series of all years, and their true classes (N,)."""

    log_probability: np.ndarray
    truth: np.ndarray


def run_cell(cell: Cell, target: Target, logdir: Path) -> Predictions:
    """Train and test; what was predicted is kept beside the run, and read back the next time."""
    folder = logdir / "runs" / file_name(cell.name)
    kept = folder / f"n{cell.labels}_seed{cell.seed}.npz"
    asked = json.dumps([cell.arm, cell.checkpoint, target])
    if kept.is_file():
        with np.load(kept) as file:
            if str(file["asked"]) == asked:
                return Predictions(file["log_probability"], file["truth"])
    make_folder(folder)
    if cell.arm.is_frozen:
        found = probe(cell, target)
    else:
        found = predict(train(cell, target, folder) if cell.arm.is_trained else cell.checkpoint, target)
    with atomic_write(kept) as partial:
        np.savez_compressed(partial, asked=asked, **found._asdict())
    return found


def train(cell: Cell, target: Target, folder: Path) -> Path:
    """Train by main_tscls.py; returns the run folder."""
    options = [
        *(cell.arm.model, "--rc", "-n", cell.labels, "--seeds", cell.seed, "--logdir", folder, *cell.arm.options),
        "--overwrite",  # what is there is of an interrupted or of another comparison
        *("--datapath", target.datapath, "-c", target.nclasses, "--year", target.year, "--years", *target.years),
        *(("--leave-out", target.leave_out) if target.leave_out else ()),
        *(("--pretrained", cell.checkpoint) if cell.checkpoint else ()),
        *(("--use-doy",) if cell.arm.model == "transformer" else ()),
    ]
    with open(folder / f"n{cell.labels}_seed{cell.seed}.txt", "w", encoding="utf-8") as file:
        with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
            (run,) = main_tscls.main(list(map(str, options)))
    return run


def probe(cell: Cell, target: Target) -> Predictions:
    """What a logistic regression predicts that is fitted to features of the frozen encoder."""
    encoder = open_encoder(cell.checkpoint, torch.device("cpu"), name=cell.arm.model)
    splits = open_labelled(target.datapath, target.year, target.selection(cell.labels, seed=cell.seed))
    labelled, tests = join((splits.train, splits.valid)), eval_sets(target)
    model = logistic_regression().fit(features(encoder, labelled), labelled.labels)
    probability = np.full((sum(map(len, tests)), target.nclasses + 1), LEAST)
    probability[:, model.classes_] += np.concatenate([model.predict_proba(features(encoder, one)) for one in tests])
    return Predictions(np.log(probability), np.concatenate([one.labels for one in tests]))


def features(encoder: Classifier, series: SeriesSet) -> np.ndarray:
    """(N, F)."""
    return torch.cat(list(encoder.embed(series))).numpy()


def eval_sets(target: Target) -> list[SeriesSet]:
    """The test series of every year."""
    return [open_eval(target.datapath, year, target.selection()) for year in target.years]


def predict(trained: str | Path, target: Target) -> Predictions:
    """What a trained classifier predicts for the test series of every year."""
    classifier = load_classifier(trained, "cpu", classmap=open_classmap(target.datapath, target.nclasses))
    sets = eval_sets(target)
    parts = [part.numpy() for series in sets for part in classifier.predict(series)]
    return Predictions(np.concatenate(parts), np.concatenate([series.labels for series in sets]))


def averaged(members: Iterable[Predictions]) -> Predictions:
    """The ensemble: the mean of the members' probabilities."""
    members = list(members)
    mean = np.logaddexp.reduce([one.log_probability for one in members]) - np.log(len(members))
    return Predictions(mean, members[0].truth)
