"""Which runs of main_tscls.py are the same, and which of them are finished."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from pathlib import Path

from datasets.store import SeriesSet
from tscls.recipe import Recipe
from utils.checkpoint import load_checkpoint
from utils.errors import UsageError
from utils.results.logs import read_rows
from utils.results.resume import AUTO, check_same

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
    kept |= {"schedule": recipe.milestones, "pretrained": pretrained and _told_file(Path(pretrained))}
    return json.loads(json.dumps(kept | {"data": told_series(parts)}))


def told_series(parts: Sequence[SeriesSet]) -> str:
    """The number of series, and a digest of their values and labels."""
    digest = hashlib.sha256()
    for series in parts:
        digest.update(series.fingerprint().encode() if len(series) else b"")
        digest.update(series.labels.tobytes())
    return f"of {sum(map(len, parts))} series, {digest.hexdigest()[:16]}"


def _told_file(path: Path) -> str:
    return f"{path.parent.name}/{path.name} ({hashlib.sha256(path.read_bytes()).hexdigest()[:8]})"


def state_for(resume: str | None, name: str, seed: int) -> str | None:
    """Where a run of a list of runs resumes from: a path is the state of one of them, the others take their own."""
    if resume in (None, AUTO):
        return resume
    of = load_checkpoint(resume, ADVICE).get("identity", {})
    return resume if (of.get("model"), of.get("seed")) == (name, seed) else AUTO


def check_state(resume: str, models: Collection[str], seeds: Collection[int]) -> None:
    """UsageError where a checkpoint is the state of none of the runs of these models and seeds."""
    content = load_checkpoint(resume, ADVICE)
    of = content.get("identity", {})
    if "training" not in content or "seed" not in of:
        raise UsageError(f"{resume}: not the state of a run of main_tscls.py; {ADVICE}")
    if of["model"] not in models or of["seed"] not in seeds:
        raise UsageError(f"{resume}: is of {of['model']} --seeds {of['seed']}, which is none of the runs asked for")


def finished_tests(folder: Path, same: dict, sets: dict[int, SeriesSet]) -> dict[int, dict] | None:
    """The rows of testlog.csv, by year, of a run that was trained as ``same`` says and tested on these series.

    None where it was not trained and tested at all; years whose series are not those of ``sets`` are left out.

    Raises:
        UsageError: it was trained and tested, but with other options or data.
    """
    rows = {row.get("year"): row for row in read_rows(folder / "testlog.csv")}
    trained = _identity_in(folder / "args.json")
    if not rows or trained is None:
        return None
    check_same(same, trained, folder / "args.json", "it")
    tests = {year: rows.get(str(year), {}) for year in sets}
    return {year: row for year, row in tests.items() if row.get("data") == told_series([sets[year]])}


def _identity_in(file: Path) -> dict | None:
    """What an args.json says of its run; None where it is missing, damaged or of an earlier version."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))["identity"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
