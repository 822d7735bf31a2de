"""Which runs of main_tscls.py are the same, and what a finished one has been tested on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from pathlib import Path

from datasets.store import SeriesSet
from tscls.prior import NONE
from tscls.recipe import Recipe
from utils.checkpoint import load_checkpoint
from utils.errors import UsageError
from utils.files import digest_of
from utils.options import AUTO
from utils.results.logs import read_rows

TESTLOG = "testlog.csv"
ADVICE = "give the model_last.pth of a run folder of main_tscls.py, or auto"
RECIPE = ("init", "batchsize", "epochs", "learning_rate", "weight_decay", "warmup_epochs", "draws")  # flags too


def identity(recipe: Recipe, parts: Sequence[SeriesSet], pretrained: str | None, **options: object) -> dict:
    """What decides what a run computes, by option, as JSON has it.

    Args:
        parts: the labelled series, train and valid.
        pretrained: the checkpoint to start from, which is told by its content.
        options: model, seed and what else the run was given.
    """
    kept = {**options, "recipe": recipe.name, **{name: getattr(recipe, name) for name in RECIPE}}
    kept |= {"schedule": recipe.milestones, "pretrained": pretrained and told_file(Path(pretrained))}
    return json.loads(json.dumps(kept | {"data": told_series(parts)}))


def told_series(parts: Sequence[SeriesSet]) -> str:
    """The number of series, and a digest of their values and labels."""
    digest = hashlib.sha256()
    for series in parts:
        digest.update(series.fingerprint().encode() if len(series) else b"")
        digest.update(series.labels.tobytes())
    return f"of {sum(map(len, parts))} series, {digest.hexdigest()[:16]}"


def told_file(path: Path) -> str:
    """The name of a file and of its folder, and a digest of its content."""
    return f"{path.parent.name}/{path.name} ({digest_of(path)[:8]})"


def state_for(resume: str | None, name: str, seed: int, until_doy: int | None = None) -> str | None:
    """Where a run of a list of runs resumes from: a path is the state of one of them, the others take their own."""
    if resume in (None, AUTO):
        return resume
    of = load_checkpoint(resume, ADVICE).get("identity", {})
    return resume if (of.get("model"), of.get("seed"), of.get("until_doy")) == (name, seed, until_doy) else AUTO


def check_state(
    resume: str, models: Collection[str], seeds: Collection[int], days: Collection[int | None] = (None,)
) -> None:
    """UsageError where a checkpoint is the state of none of the runs of these models, seeds and days."""
    content = load_checkpoint(resume, ADVICE)
    of = content.get("identity", {})
    if "training" not in content or "seed" not in of:
        raise UsageError(f"{resume}: not the state of a run of main_tscls.py; {ADVICE}")
    day = of.get("until_doy")
    if of["model"] not in models or of["seed"] not in seeds or day not in days:
        told = f"{of['model']} --seeds {of['seed']}" + ("" if day is None else f" --until-doy {day}")
        raise UsageError(f"{resume}: is of {told}, which is none of the runs asked for")


def tests_of(folder: Path) -> dict[tuple[int, str], dict]:
    """The rows of a run's testlog.csv by year and class shares; without that column they are as trained.

    Raises:
        UsageError: a row has no year.
    """
    path = folder / TESTLOG
    try:
        return {(int(row["year"]), row.get("prior") or NONE): row for row in read_rows(path)}
    except (KeyError, TypeError, ValueError):
        raise UsageError(
            f"{path}: a row has no number in the column 'year'; move the file away to test again"
        ) from None


def finished_tests(folder: Path, sets: dict[int, SeriesSet], prior: str = NONE) -> dict[int, dict]:
    """The rows of testlog.csv, by year, of those ``sets`` that the run in a folder has been tested on.

    ``prior`` is the ``told_prior`` of the test.

    Raises:
        UsageError: it was tested on other series of one of these years.
    """
    tests = tests_of(folder)
    for (year, _), row in tests.items():
        here = told_series([sets[year]]) if year in sets else row.get("data")
        if row.get("data", here) != here:
            told = f"was tested on other series of {year}: {here} here, {row['data']} there"
            raise UsageError(f"{folder}: {told}; --eval replaces the test, --suffix X keeps it")
    return {year: tests[year, prior] for year in sets if (year, prior) in tests}
