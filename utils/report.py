"""Tables and pictures of training runs, made from what lies on disk.

    python -m utils.report results                       # every run below results/
    python -m utils.report results/T_* other --out docs  # chosen runs, tables elsewhere

In each run folder: test_class_f1.csv (F1, user's and producer's accuracy), confusion_matrix.png, trust.png,
learning_curve.png.
In --out: comparison.csv (numbers), .md and .png, years.csv, .md and .png if runs were tested on several sets, and
dates.csv, .md, .png and dates_classes.csv if there are runs of several days (main_tscls.py --until-doy).
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from utils.errors import Parser, UsageError, WriteError, exit_cleanly
from utils.files import make_folder, write_csv, write_text
from utils.metrics import SCORE_NAMES, SCORES, class_accuracies
from utils.results import dates, figures
from utils.results.runs import COSTS, NO_PRIOR, TESTED, is_pretraining, read_runs, results, run_folders
from utils.results.tables import aligned, markdown

SHOWN = ("oa", "macro_f1", "macro_f1_present")  # scores in pictures
TRUST = {  # tables of a test, and their columns
    "reliability": ("low", "high", "series", "confidence", "accuracy"),
    "coverage": ("coverage", "accuracy"),
}
NEEDED = ("epoch", "train_loss")  # columns of a trainlog.csv
_failures: set[int | None] = set()  # of pictures that could not be written, as the system numbers them
Where = str | Path | Sequence[str | Path]


def write_run_report(folder: str | Path) -> list[Path]:
    """Write what a run folder's logs allow: accuracies by class and confusion matrix a test set, learning curve.

    Reads test_conf_mat*.npy (rows true) with classes.json, test_reliability*.csv with test_coverage*.csv, and
    trainlog.csv; returns the files written.

    A picture that cannot be written is left out, with a line.

    Raises:
        UsageError: one of these files is damaged; the message says which.
        WriteError: a table cannot be written.
    """
    folder, written = Path(folder), []
    try:
        for file in sorted(folder.glob("test_conf_mat*.npy")):
            written += _write_test_report(folder, file.stem.removeprefix("test_conf_mat"))
        for file in sorted(folder.glob("test_reliability*.csv")) if _pictures() else ():
            written += _draw_trust(folder, file.stem.removeprefix("test_reliability"))
        if (folder / "trainlog.csv").is_file() and _pictures():
            written += _write_learning_curve(folder)
    except WriteError:
        raise
    except OSError as error:  # reading raises UsageErrors
        raise UsageError(f"{error.filename or folder}: cannot be written ({error.strerror}); no full report") from None
    return written


def _write_test_report(folder: Path, tag: str) -> list[Path]:
    """Accuracies by class as a table and the confusion matrix as a picture; `tag` tells several test sets apart."""
    matrix = _read(folder / f"test_conf_mat{tag}.npy", _read_matrix)
    names = _read(folder / "classes.json", lambda file: json.loads(file.read_text(encoding="utf-8")))
    if not isinstance(names, list) or matrix.shape != (len(names), len(names)):
        raise UsageError(
            f"{folder}: no full report: test_conf_mat{tag}.npy has shape {matrix.shape}, classes.json"
            f" {len(names) if isinstance(names, list) else 'no'} names"
        )
    accuracies = class_accuracies(matrix)
    table = pd.DataFrame({
        "class": range(len(names)), "name": names, "support": matrix.sum(1), "f1": accuracies["class_f1"],
        "users_accuracy": accuracies["users_accuracy"], "producers_accuracy": accuracies["producers_accuracy"],
    })  # fmt: skip
    path = folder / f"test_class_f1{tag}.csv"
    write_csv(path, table)
    title = folder.name + tag.replace("_", ", tested on ", 1)
    draw = functools.partial(figures.confusion_matrix, matrix, names, title=title)
    return [path, *(_draw(folder / f"confusion_matrix{tag}.png", draw) if _pictures() else [])]


def _draw_trust(folder: Path, tag: str) -> list[Path]:
    """Calibration and coverage of a test as a picture."""
    tables = {}
    for name, needed in TRUST.items():
        file = folder / f"test_{name}{tag}.csv"
        tables[name] = _read(file, pd.read_csv)
        missing = [column for column in needed if column not in tables[name]]
        if missing or tables[name].empty:
            raise UsageError(f"{file}: no full report: no {' and '.join(missing) or 'row'} in it")
    draw = functools.partial(figures.trust, *tables.values(), title=folder.name + tag.replace("_", ", tested on ", 1))
    return _draw(folder / f"trust{tag}.png", draw)


def _read_matrix(file: Path) -> np.ndarray:
    """Counts, mapped first, so that a header cannot ask for more memory than the file has bytes."""
    try:
        matrix = np.array(np.load(file, mmap_mode="r", allow_pickle=False))
    except OSError:
        raise
    except Exception as error:  # NumPy evaluates the text of the header: damaged text can raise nearly anything
        raise ValueError(str(error)) from None
    if matrix.dtype.kind not in "iu" or (matrix < 0).any():
        raise ValueError("expected counts")
    return matrix


def _write_learning_curve(folder: Path) -> list[Path]:
    log = _read(folder / "trainlog.csv", pd.read_csv)
    missing = [column for column in NEEDED if column not in log]
    if missing or log.empty:
        raise UsageError(f"{folder / 'trainlog.csv'}: no full report: no {' and '.join(missing) or 'row'} in it")
    return _draw(folder / "learning_curve.png", functools.partial(figures.learning_curve, log, title=folder.name))


def _draw(path: Path, draw: Callable[..., None]) -> list[Path]:
    """Draw a picture with ``draw(path=…)``, or say once that it cannot be written; the pictures that there are then."""
    try:
        draw(path=path)
    except OSError as error:
        if error.errno not in _failures:
            print(f"no picture {error}", file=sys.stderr)
        _failures.add(error.errno)
        return []
    return [path]


def _read(file: Path, read: Callable[[Path], Any]) -> Any:
    try:
        return read(file)
    except FileNotFoundError:
        raise UsageError(f"{file}: no full report: this file is missing") from None
    except (OSError, EOFError, ValueError, TypeError, RecursionError) as error:
        raise UsageError(f"{file}: no full report: this file is damaged ({' '.join(str(error).split())})") from None


@functools.cache
def _pictures() -> bool:
    """Whether pictures can be drawn; if not, one line says so once."""
    if not figures.available():
        print("no pictures: matplotlib is not installed (pip install matplotlib)", file=sys.stderr)
    return figures.available()


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over runs that differ only in seed, best OA first.

    `rows` are the `results` of the runs. A row of the summary has label, model, pretrained, budget, train_year,
    the test (year, regions, prior: the training year if it was tested, else the first), runs, seeds, `<score>_mean`
    and `<score>_std` (n-1 in the denominator; 0 for one run) of SCORES (macro_f1_present is NaN for runs of earlier
    versions), and the means of parameters, train_seconds and series_per_s.
    """
    summary = _average(rows[rows["headline"]]).sort_values("oa_mean", ascending=False, kind="stable", ignore_index=True)
    tested = _test_sets(summary)
    if tested.nunique() > 1:
        summary["label"] += " on " + tested
    return summary


def _test_sets(rows: pd.DataFrame) -> pd.Series:
    tested = (rows["year"] + " " + rows["regions"]).str.strip()
    return tested + rows["prior"].map(lambda prior: "" if prior == NO_PRIOR else f" prior {prior}")


def _by_test_set(rows: pd.DataFrame) -> pd.DataFrame:
    """All test sets of each experiment, experiments in the order of the comparison."""
    best = rows[rows["headline"]].groupby("label")["oa"].mean()
    averages = _average(rows).sort_values(["label", *TESTED])
    return averages.sort_values("label", key=lambda labels: -labels.map(best), kind="stable", ignore_index=True)


def _average(rows: pd.DataFrame, more: Sequence[str] = ()) -> pd.DataFrame:
    """Average over the runs of each experiment and test set; ``more`` are columns to keep."""
    by = ["experiment", "label", "model", "pretrained", "budget", "train_year", *TESTED, *more]
    groups = rows.groupby(by, sort=False)
    columns = {"runs": groups.size(), "seeds": groups["seed"].agg(" ".join)}
    for score in SCORES:
        columns[f"{score}_mean"] = groups[score].mean()
        columns[f"{score}_std"] = groups[score].std(ddof=1).fillna(0).where(groups[score].count() > 0)
    columns |= {cost: groups[cost].mean() for cost in COSTS}
    return pd.DataFrame(columns).reset_index().drop(columns="experiment")


def write_comparison(where: Where, out: str | Path) -> str:
    """Write the comparison of all runs, and scores by test set and by date if there are several, into the folder `out`.

    All such files in the folder are then of these runs: those of an earlier comparison are removed if no longer needed.
    Returns the tables as text to print.

    Raises:
        UsageError: no finished training run.
    """
    out = Path(out)
    rows = results(read_runs(where))
    summary = summarise(rows)
    make_folder(out)
    text = _write_table(summary, comparison_cells(summary), out / "comparison")
    if _pictures():
        scores = {SCORE_NAMES[s]: (summary[f"{s}_mean"], _spread(summary, s)) for s in _known(summary)}
        _draw(out / "comparison.png", functools.partial(figures.comparison, list(summary["label"]), scores))
    if _test_sets(rows).nunique() > 1:
        years = _by_test_set(rows)
        if _pictures():
            _draw(out / "years.png", functools.partial(_draw_years, years))
        text += f"\n\n{_write_table(years, years_cells(years), out / 'years')}"
    else:
        _remove(out, "years.csv", "years.md", "years.png")
    return text + _write_dates(dates.dated(rows), out)


def _write_dates(rows: pd.DataFrame, out: Path) -> str:
    """Accuracy by the day that series end with, overall and by class, where runs of several days are among `rows`."""
    if rows.empty:
        _remove(out, "dates.csv", "dates.md", "dates.png", "dates_classes.csv")
        return ""
    overall, classes = _average(rows.assign(label=rows["curve"]), ["until_doy"]), dates.by_class(rows)
    write_csv(out / "dates_classes.csv", classes)
    if _pictures():
        _draw(out / "dates.png", functools.partial(figures.by_date, overall, classes))
    cells = {"model": overall["label"], "up to day": overall["until_doy"].map("{:.0f}".format)}
    return f"\n\n{_write_table(overall, pd.DataFrame({**cells, **_score_cells(overall)}), out / 'dates')}"


def _remove(folder: Path, *names: str) -> None:
    """Remove what an earlier comparison has left."""
    for name in names:
        (folder / name).unlink(missing_ok=True)


def _known(rows: pd.DataFrame) -> list[str]:
    """The SHOWN scores that these rows have."""
    return [score for score in SHOWN if rows[f"{score}_mean"].notna().any()]


def _draw_years(years: pd.DataFrame, path: Path) -> None:
    curves = years.assign(tested=_test_sets(years))
    scores = {
        SCORE_NAMES[score]: {
            label: (group["tested"], group[f"{score}_mean"], _spread(group, score))
            for label, group in curves.groupby("label", sort=False)
        }
        for score in _known(years)
    }
    figures.years(scores, path)


def _write_table(numbers: pd.DataFrame, cells: pd.DataFrame, path: Path) -> str:
    write_csv(path.with_suffix(".csv"), numbers)
    write_text(path.with_suffix(".md"), markdown(cells) + "\n")
    return aligned(cells)


def comparison_cells(summary: pd.DataFrame) -> pd.DataFrame:
    """The comparison as strings, for people."""
    cells = {"model": summary["label"], **_score_cells(summary)}
    cells["parameters"] = summary["parameters"].map(_count)
    cells["training"] = summary["train_seconds"].map(_duration)
    cells["series/s"] = summary["series_per_s"].map(_count)
    cells["seeds"] = summary["runs"].astype(str)
    return pd.DataFrame(cells)


def years_cells(years: pd.DataFrame) -> pd.DataFrame:
    """Scores by model and test set, as strings: the paper's cross-year transfer."""
    return pd.DataFrame({"model": years["label"], "tested on": _test_sets(years), **_score_cells(years)})


def _score_cells(rows: pd.DataFrame) -> dict[str, list[str]]:
    return {
        name: [figures.with_spread(*pair) for pair in zip(rows[f"{score}_mean"], _spread(rows, score), strict=True)]
        for score, name in SCORE_NAMES.items()
    }


def _spread(rows: pd.DataFrame, score: str) -> pd.Series:
    """Standard deviation over runs; a single run has none, so NaN."""
    return rows[f"{score}_std"].where(rows["runs"] > 1)


def _count(number: float) -> str:
    return "–" if np.isnan(number) else f"{number:,.0f}"


def _duration(seconds: float) -> str:
    if np.isnan(seconds):
        return "–"
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


@exit_cleanly
def main(arguments: list[str] | None = None) -> None:
    parser = Parser(
        prog="python -m utils.report",
        description="Rebuild tables and pictures from the run folders on disk.",
    )
    parser.add_argument("logdirs", nargs="+", metavar="LOGDIR", help="folders of runs, or single run folders")
    parser.add_argument("--out", metavar="DIR", help="folder for the comparison (default: the first LOGDIR)")
    options = parser.parse_args(arguments)
    folders = run_folders(options.logdirs)
    for folder in folders:
        try:
            write_run_report(folder)
        except (UsageError, WriteError) as error:
            print(error, file=sys.stderr)
    if all(map(is_pretraining, folders)):
        print(f"{len(folders)} pre-training runs: learning curves written, no training run to compare")
        return
    out = options.out or options.logdirs[0]
    print(write_comparison(folders, out))
    print(f"\nwritten: {out}/comparison.csv and .md, and tables and pictures in each run folder")


if __name__ == "__main__":
    main()
