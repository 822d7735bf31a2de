"""Run folders read back from disk: what main_tscls.py leaves in LOGDIR/NAME, as one table over runs and test sets."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from utils.errors import UsageError
from utils.metrics import SCORES

COSTS = ("parameters", "train_seconds", "series_per_s")
LOGS = ("args.json", "trainlog.csv", "testlog.csv")
# Two runs that differ in these alone are repetitions of one experiment.
NOT_THE_EXPERIMENT = frozenset("seed seeds models years logdir device workers print_freq eval".split())


class Run(NamedTuple):
    """A finished training run: its folder, its arguments, and one row of scores for each test set."""

    folder: Path
    arguments: dict[str, Any]
    tests: pd.DataFrame


def run_folders(where: str | Path | Sequence[str | Path]) -> list[Path]:
    """The run folders among and directly below the given folders, sorted by name within each.

    NAME.1, NAME.2 … that an earlier run of NAME was moved to do not count, unless they are given themselves.

    Raises:
        UsageError: a folder that is not there, or no run folder at all.
    """
    places = [Path(place) for place in ([where] if isinstance(where, str | Path) else where)]
    folders: dict[Path, None] = {}  # ordered, each once
    for place in places:
        if not place.is_dir():
            raise UsageError(f"{place}: no such folder; give the --logdir of a training or a run folder in it")
        below = (folder for folder in sorted(place.iterdir()) if _is_run(folder) and not _is_moved(folder))
        folders.update(dict.fromkeys([place] if _is_run(place) else below))
    if not folders:
        raise UsageError(f"no run in {', '.join(map(str, places))}: expected run folders with {' or '.join(LOGS)}")
    return list(folders)


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in LOGS)


def _is_moved(folder: Path) -> bool:
    """Whether logs.make_way moved this run here; a --suffix may end in the same way, but is in args.json."""
    match = re.fullmatch(r"(.+)\.\d+", folder.name)
    if match is None or not _is_run(folder.with_name(match[1])):
        return False
    try:
        suffix = json.loads((folder / "args.json").read_text(encoding="utf-8")).get("suffix")
    except (OSError, ValueError, AttributeError):
        return True
    return not (suffix and folder.name.endswith(f"_{suffix}"))


def is_pretraining(folder: Path) -> bool:
    return folder.name.startswith("P_")


def read_run(folder: Path) -> Run:
    """Read args.json and testlog.csv.

    Raises:
        UsageError: a file is missing or damaged.
    """
    try:
        arguments = json.loads((folder / "args.json").read_text(encoding="utf-8"))
        tests = pd.read_csv(folder / "testlog.csv", dtype={"year": str, "regions": str})
    except FileNotFoundError as error:
        raise UsageError(f"{folder}: no {Path(error.filename).name} (a run that did not end?)") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder}: damaged args.json or testlog.csv ({error})") from error
    if not isinstance(arguments, dict) or not isinstance(arguments.get("model"), str):
        raise UsageError(f"{folder}: args.json does not name a model")
    missing = [column for column in ("year", *SCORES) if column not in tests]
    if missing or tests.empty:
        raise UsageError(f"{folder}: testlog.csv lacks {', '.join(missing) or 'a row'}")
    measures = [*SCORES, *COSTS]
    tests = tests.reindex(columns=["year", "regions", *measures]).fillna({"regions": ""})
    tests[measures] = tests[measures].apply(pd.to_numeric, errors="coerce")
    if tests[list(SCORES)].isna().any(axis=None):
        raise UsageError(f"{folder}: testlog.csv has a score that is not a number")
    return Run(folder, arguments, tests.drop_duplicates(["year", "regions"], keep="last", ignore_index=True))


def read_runs(where: str | Path | Sequence[str | Path]) -> list[Run]:
    """The finished training runs among and below the given folders; a damaged one is named on stderr and skipped.

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


def results(runs: Sequence[Run]) -> pd.DataFrame:
    """One row a run and test set: label, model, pretrained, budget, train_year, seed, year, regions, scores, costs.

    Rows of one `experiment` differ in seed and test set alone and share a `label`. `headline` marks one row a run: the
    test on the training year, or else the first test.
    """
    experiments = {_experiment(run.arguments): run.arguments for run in runs}
    labels = dict(zip(experiments, _labels(list(experiments.values())), strict=True))
    frames = []
    for run in runs:
        key, train_year = _experiment(run.arguments), str(run.arguments.get("year", ""))
        frame = run.tests.assign(
            experiment=key,
            label=labels[key],
            model=run.arguments["model"],
            pretrained=run.arguments.get("pretrained") or "",
            budget=_budget(run.arguments),
            train_year=train_year,
            seed=str(run.arguments.get("seed", "")),
        )
        frames.append(frame.assign(headline=frame.index == (frame["year"] == train_year).idxmax()))
    return pd.concat(frames, ignore_index=True)


def _experiment(arguments: dict[str, Any]) -> str:
    kept = {name: value for name, value in arguments.items() if name not in NOT_THE_EXPERIMENT}
    return json.dumps(kept, sort_keys=True)


def _budget(arguments: dict[str, Any]) -> str:
    return "all labels" if arguments.get("useall") else f"{arguments.get('num', '?')} labels"


def _labels(experiments: list[dict[str, Any]]) -> list[str]:
    """A short name for each experiment: what differs between them, and no more, beside the model and pre-training."""
    shown = [
        name for name, value_of in (("budget", _budget), ("year", _get("year")), ("datapath", _get("datapath")))
        if len({value_of(arguments) for arguments in experiments}) > 1
    ]  # fmt: skip
    alike: dict[str, list[dict[str, Any]]] = {}
    for arguments in experiments:
        alike.setdefault(_label(arguments, shown), []).append(arguments)
    return [_label(arguments, shown, _differing(alike[_label(arguments, shown)])) for arguments in experiments]


def _get(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda arguments: arguments.get(name)


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
    notes += [f"{name}={_text(arguments[name])}" for name in others if arguments.get(name) is not None]
    return f"{arguments['model']} ({', '.join(notes)})" if notes else arguments["model"]


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name}:{part}" for name, part in value.items())
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)


def _differing(experiments: list[dict[str, Any]]) -> list[str]:
    """Names of the arguments that tell these experiments apart; the recipe, which follows from others, if it must."""
    names = sorted(set().union(*experiments) - NOT_THE_EXPERIMENT)
    differing = [name for name in names if len({json.dumps(e.get(name), sort_keys=True) for e in experiments}) > 1]
    return [name for name in differing if name != "recipe_used"] or differing
