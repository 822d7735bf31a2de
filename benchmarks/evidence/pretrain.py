"""Checkpoints of every pretext at one budget: as many epochs of as many series, the same search for the rate."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from pathlib import Path
from typing import NamedTuple

import pandas as pd

import main_moco
from benchmarks.evidence.arms import Pretraining
from utils.files import as_json, make_folder, write_text

PROBE_LABELS = 300


class Budget(NamedTuple):
    """What every pre-training may use.

    Attributes:
        source: data root whose unlabelled series are learned from, or the labelled ones where labels are.
        epochs: passes over them.
        rates: learning rates; with several, each is tried for ``search_epochs`` first.
        probe: data root by whose labels the trials are compared, by logistic regression of frozen features.
        batch: series in a batch. keys: in MoCo's queue.
    """

    source: str
    epochs: int
    rates: tuple[float, ...]
    search_epochs: int
    probe: str
    batch: int
    keys: int


class Found(NamedTuple):
    """A checkpoint; its learning rate, the probe's accuracy for each rate tried and at the end, and the seconds."""

    checkpoint: str
    rate: float
    trials: dict[str, float]
    probed: float
    seconds: float


def pretrain(name: str, pretraining: Pretraining, budget: Budget, logdir: Path) -> Found:
    """The checkpoint of a pre-training; made once, as long as its options and the budget stay the same."""
    folder = logdir / "pretraining" / file_name(name)
    record, asked = folder / "found.json", json.loads(json.dumps([pretraining, budget]))
    if record.is_file() and (kept := json.loads(record.read_text(encoding="utf-8")))["asked"] == asked:
        return Found(**kept["found"])
    shutil.rmtree(folder, ignore_errors=True)
    start, trials = time.monotonic(), {}
    if len(budget.rates) > 1:
        for rate in budget.rates:
            run = train(pretraining, budget, budget.search_epochs, rate, folder / f"lr{rate:g}")
            trials[f"{rate:g}"] = probed(run)
    rate = float(max(trials, key=trials.get)) if trials else budget.rates[0]
    run = train(pretraining, budget, budget.epochs, rate, folder)
    found = Found(str(run / "model_best.pth"), rate, trials, probed(run), time.monotonic() - start)
    write_text(record, as_json({"asked": asked, "found": found._asdict()}))
    return found


def probed(run: Path) -> float:
    """What the probe of the last epoch found."""
    return float(pd.read_csv(run / "trainlog.csv")["probe_linear"].iloc[-1])


def train(pretraining: Pretraining, budget: Budget, epochs: int, rate: float, folder: Path) -> Path:
    """Pre-train for some epochs, with a probe after the last one; returns the run folder."""
    options = [
        *(pretraining.model, "--rc", "--use-doy", "--mlp", "--useall", "--datapath", budget.source),
        *("-b", budget.batch, "--moco-k", budget.keys, "-lr", rate, "-e", epochs, "--cos", "--patience", epochs),
        *("--probe", budget.probe, "--probe-every", epochs, "--probe-num", PROBE_LABELS, "--logdir", folder),
        *pretraining.options,
    ]
    make_folder(folder)
    with open(folder / "log.txt", "w", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        with contextlib.redirect_stderr(file):
            main_moco.main(list(map(str, options)))
    (run,) = folder.glob("P_*")
    return run


def file_name(name: str) -> str:
    """A folder's name for an arm."""
    return name.replace(", ", "-").replace(" ", "-")
