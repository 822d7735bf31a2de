"""Run folders read back from disk: what main_tscls.py writes to LOGDIR/NAME, as one table over runs and test sets."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from utils.errors import UsageError
from utils.files import PARTIAL
from utils.metrics import SCORES

COSTS = ("parameters", "train_seconds", "series_per_s")
LOGS = ("args.json", "trainlog.csv", "testlog.csv")
TESTED = ["year", "regions", "prior"]  # what tells the tests of a run apart
NO_PRIOR = "none"  # predictions as they are, not corrected for class shares
LATER = ("macro_f1_present",)  # scores that earlier versions did not write
# Two runs that differ in these alone are repetitions of one experiment.
NOT_THE_EXPERIMENT = frozenset("seed seeds models years logdir device workers print_freq eval identity prior".split())


class FinishedRun(NamedTuple):
    """A run that was trained and tested: its folder, its arguments, and one row of scores for each test set."""

    folder: Path
    arguments: dict[str, Any]
    tests: pd.DataFrame


def run_folders(where: str | Path | Sequence[str | Path]) -> list[Path]:
    """The run folders among and directly below the given folders, sorted within each.

    Sorted by name, and NAME, NAME.2, NAME.1 where earlier runs of NAME were renamed: the newest first.

    Raises:
        UsageError: a folder does not exist, or none of them is or holds a run folder.
    """
    places = [Path(place) for place in ([where] if isinstance(where, str | Path) else where)]
    folders: dict[Path, None] = {}  # an ordered set
    for place in places:
        if not place.is_dir():
            raise UsageError(f"{place}: no such folder; give the --logdir of a training or a run folder in it")
        below = sorted(filter(_is_run, place.iterdir()), key=_newest_first)
        folders.update(dict.fromkeys([place] if _is_run(place) else below))
    if not folders:
        raise UsageError(f"no run in {', '.join(map(str, places))}: expected run folders with {' or '.join(LOGS)}")
    return list(folders)


def _is_run(folder: Path) -> bool:
    return PARTIAL not in folder.name and any((folder / name).is_file() for name in LOGS)


def _newest_first(folder: Path) -> tuple[str, float]:
    """Sorts by name; of runs that earlier versions renamed, those with the highest number come first, after NAME."""
    match = re.fullmatch(r"(.+)\.(\d+)", folder.name)
    return (match[1], -int(match[2])) if match else (folder.name, -math.inf)


def is_pretraining(folder: Path) -> bool:
    return folder.name.startswith("P_")


def read_arguments(file: Path) -> dict[str, Any] | None:
    """The content of an args.json; None if it is missing or damaged."""
    try:
        arguments = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return arguments if isinstance(arguments, dict) else None


def read_run(folder: Path) -> FinishedRun:
    """Read args.json and testlog.csv.

    Raises:
        UsageError: a file is missing or damaged.
    """
    try:
        arguments = json.loads((folder / "args.json").read_text(encoding="utf-8"))
        tests = pd.read_csv(folder / "testlog.csv", dtype={"year": str, "regions": str, "prior": str})
    except FileNotFoundError as error:
        raise UsageError(f"{folder}: no {Path(error.filename).name} (a run that did not finish?)") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{folder}: damaged args.json or testlog.csv ({' '.join(str(error).split())})") from error
    if not isinstance(arguments, dict) or not isinstance(arguments.get("model"), str):
        raise UsageError(f"{folder}: args.json does not name a model")
    required = [score for score in SCORES if score not in LATER]
    missing = [column for column in ("year", *required) if column not in tests]
    if missing or tests.empty:
        raise UsageError(f"{folder}: testlog.csv lacks {', '.join(missing) or 'a row'}")
    measures = [*SCORES, *COSTS]
    tests = tests.reindex(columns=[*TESTED, *measures]).fillna({"regions": "", "prior": NO_PRIOR})
    tests[measures] = tests[measures].apply(pd.to_numeric, errors="coerce")
    if tests[required].isna().any(axis=None):
        raise UsageError(f"{folder}: testlog.csv has a score that is not a number")
    return FinishedRun(folder, arguments, tests.drop_duplicates(TESTED, keep="last", ignore_index=True))


def read_runs(where: str | Path | Sequence[str | Path]) -> list[FinishedRun]:
    """The finished training runs among and directly below the given folders; a damaged one is skipped, with a line.

    Raises:
        UsageError: no finished training run.
    """
    runs = []
    for folder in run_folders(where):
        if is_pretraining(folder):
            continue
        try:
            runs.append(read_run(folder))
        except UsageError as error:
            print(f"skipped: {' '.join(str(error).split())}", file=sys.stderr)
    if not runs:
        raise UsageError("no finished training run to compare")
    return runs


def results(runs: Sequence[FinishedRun]) -> pd.DataFrame:
    """One row a run and test: label, model, pretrained, budget, train_year, seed, year, regions, prior, scores, costs.

    Rows of one `experiment` differ in seed and test set alone and share a `label`. `until_doy` is the day that their
    series end with (NaN: they are whole), `curve` the label without that day, `folder` that of the run. `headline`
    marks one row a run: the test on the training year without a prior, or else the first test. If runs differ in none
    of these, as when one was repeated on another device, the first counts (`run_folders` puts the newest first) and the
    others are named on stderr.
    """
    experiments = {_experiment(run.arguments): run.arguments for run in runs}
    labels = dict(zip(experiments, _labels(list(experiments.values())), strict=True))
    undated = [{**arguments, "until_doy": None} for arguments in experiments.values()]
    curves = dict(zip(experiments, _labels(undated), strict=True))
    frames = []
    for run in runs:
        key, train_year = _experiment(run.arguments), str(run.arguments.get("year", ""))
        frame = run.tests.assign(
            folder=str(run.folder),
            experiment=key,
            label=labels[key],
            curve=curves[key],
            until_doy=_day(run.arguments),
            model=run.arguments["model"],
            pretrained=run.arguments.get("pretrained") or "",
            budget=_budget(run.arguments),
            train_year=train_year,
            seed=str(run.arguments.get("seed", "")),
        )
        is_first_choice = (frame["year"] == train_year) & (frame["prior"] == NO_PRIOR)
        frames.append(frame.assign(headline=frame.index == is_first_choice.idxmax()))
    rows = pd.concat(frames, ignore_index=True)
    is_repeated = rows.duplicated(["experiment", "seed", *TESTED])
    for folder in rows[is_repeated]["folder"].unique():
        print(f"not counted: {folder} repeats another run, with the same arguments and seed", file=sys.stderr)
    return rows[~is_repeated].reset_index(drop=True)


def _experiment(arguments: dict[str, Any]) -> str:
    """What makes runs repetitions of one another; an option that is not given is as good as none."""
    kept = {name: value for name, value in arguments.items() if name not in NOT_THE_EXPERIMENT and value is not None}
    return json.dumps(kept, sort_keys=True)


def _budget(arguments: dict[str, Any]) -> str:
    return "all labels" if arguments.get("useall") else f"{arguments.get('num', '?')} labels"


def _day(arguments: dict[str, Any]) -> float:
    day = arguments.get("until_doy")
    return float(day) if isinstance(day, int) else math.nan


def _labels(experiments: list[dict[str, Any]]) -> list[str]:
    """A short name for each experiment: the model, the pre-training, and what else differs between them."""
    values = {
        "budget": [_budget(arguments) for arguments in experiments],
        "year": [arguments.get("year") for arguments in experiments],
        "datapath": [arguments.get("datapath") for arguments in experiments],
        "until_doy": [arguments.get("until_doy") for arguments in experiments],
    }
    shown = [name for name, of_each in values.items() if len(set(of_each)) > 1]
    groups: dict[str, list[dict[str, Any]]] = {}  # experiments that these do not tell apart
    for arguments in experiments:
        groups.setdefault(_label(arguments, shown), []).append(arguments)
    return [_label(arguments, shown, _differing(groups[_label(arguments, shown)])) for arguments in experiments]


def _label(arguments: dict[str, Any], shown: list[str], others: Sequence[str] = ()) -> str:
    notes = []
    if arguments.get("pretrained"):
        notes.append(f"pretrained: {Path(arguments['pretrained']).parent.name}")
    if arguments.get("freeze"):
        notes.append("frozen")
    if "budget" in shown:
        notes.append(_budget(arguments))
    if "year" in shown:
        notes.append(f"trained on {arguments.get('year')}")
    if "datapath" in shown:
        notes.append(f"data: {arguments.get('datapath')}")
    if "until_doy" in shown:
        notes.append("whole series" if math.isnan(_day(arguments)) else f"up to day {arguments['until_doy']}")
    notes += [f"{name}={_text(arguments[name])}" for name in others if arguments.get(name) is not None]
    return f"{arguments['model']} ({', '.join(notes)})" if notes else arguments["model"]


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name}:{part}" for name, part in value.items())
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)


def _differing(experiments: list[dict[str, Any]]) -> list[str]:
    """Names of the arguments in which these experiments differ; the recipe, which follows from others, only alone."""
    names = sorted(set().union(*experiments) - NOT_THE_EXPERIMENT)
    differing = [name for name in names if len({json.dumps(e.get(name), sort_keys=True) for e in experiments}) > 1]
    return [name for name in differing if name != "recipe_used"] or differing
