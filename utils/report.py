"""Tables and pictures of training runs, made from what lies on disk.

    python -m utils.report results                       # every run below results/
    python -m utils.report results/T_* other --out docs  # chosen runs, tables elsewhere

In each run folder: test_class_f1.csv, confusion_matrix.png, learning_curve.png. In --out: comparison.csv (numbers),
comparison.md, comparison.png, and years.csv, years.md where runs were tested on several sets.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from utils.errors import Parser, UsageError, exit_cleanly
from utils.metrics import SCORES
from utils.results import figures
from utils.results.runs import COSTS, is_pretraining, read_runs, results, run_folders

SCORE_NAMES = dict(zip(SCORES, ("OA", "kappa", "macro F1", "weighted F1"), strict=True))
Where = str | Path | Sequence[str | Path]


def write_run_report(folder: str | Path) -> list[Path]:
    """Write what a run folder's logs allow: F1 by class and confusion matrix a test set, and the learning curve.

    Reads test_conf_mat*.npy (rows true) with classes.json, and trainlog.csv; returns the files written.

    Raises:
        UsageError: one of these files is damaged.
    """
    folder = Path(folder)
    written = []
    try:
        for matrix_path in sorted(folder.glob("test_conf_mat*.npy")):
            written += _write_test_report(folder, matrix_path.stem.removeprefix("test_conf_mat"))
        if (folder / "trainlog.csv").is_file() and _pictures():
            log = pd.read_csv(folder / "trainlog.csv")
            missing = {"epoch", "train_loss"} - set(log)
            if missing or log.empty:
                raise ValueError(f"trainlog.csv lacks {', '.join(sorted(missing)) or 'a row'}")
            figures.learning_curve(log, folder / "learning_curve.png", folder.name)
            written.append(folder / "learning_curve.png")
    except (OSError, EOFError, ValueError, TypeError) as error:
        raise UsageError(f"{folder}: no full report, for a file is damaged or missing ({error})") from error
    return written


def _write_test_report(folder: Path, tag: str) -> list[Path]:
    """F1 by class as a table and the confusion matrix as a picture; `tag` tells several test sets apart."""
    matrix = np.load(folder / f"test_conf_mat{tag}.npy", allow_pickle=False)
    names = json.loads((folder / "classes.json").read_text(encoding="utf-8"))
    if matrix.shape != (len(names), len(names)):
        raise ValueError(f"test_conf_mat{tag}.npy has shape {matrix.shape}, classes.json {len(names)} names")
    support, hits = matrix.sum(1), np.diag(matrix)
    f1 = 2 * hits / np.maximum(support + matrix.sum(0), 1)
    table = pd.DataFrame({"class": range(len(names)), "name": names, "support": support, "f1": f1})
    table.to_csv(folder / f"test_class_f1{tag}.csv", index=False)
    if not _pictures():
        return [folder / f"test_class_f1{tag}.csv"]
    picture = folder / f"confusion_matrix{tag}.png"
    figures.confusion_matrix(matrix, names, picture, folder.name + tag.replace("_", ", tested on ", 1))
    return [folder / f"test_class_f1{tag}.csv", picture]


@functools.cache
def _pictures() -> bool:
    """Whether pictures can be drawn; where not, it is said once."""
    if not figures.available():
        print("no pictures: matplotlib is not installed (pip install matplotlib)", file=sys.stderr)
    return figures.available()


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over runs that differ only in seed, best OA first.

    `rows` are the `results` of the runs. A row of the summary has label, model, pretrained, budget, train_year,
    the test set (year, regions: the training year where it was tested, else the first), runs, seeds, `<score>_mean`
    and `<score>_std` (n-1 in the denominator; 0 for one run) of oa, kappa, macro_f1, weighted_f1, and the means of
    parameters, train_seconds and series_per_s.
    """
    summary = _average(rows[rows["headline"]]).sort_values("oa_mean", ascending=False, kind="stable", ignore_index=True)
    tested = _test_sets(summary)
    if tested.nunique() > 1:
        summary["label"] += " on " + tested
    return summary


def _test_sets(rows: pd.DataFrame) -> pd.Series:
    return (rows["year"] + " " + rows["regions"]).str.strip()


def _by_test_set(rows: pd.DataFrame) -> pd.DataFrame:
    """All test sets of each experiment, experiments in the order of the comparison."""
    best = rows[rows["headline"]].groupby("label")["oa"].mean()
    averages = _average(rows).sort_values(["label", "year", "regions"])
    return averages.sort_values("label", key=lambda labels: -labels.map(best), kind="stable", ignore_index=True)


def _average(rows: pd.DataFrame) -> pd.DataFrame:
    """Average over the runs of each experiment and test set."""
    by = ["experiment", "label", "model", "pretrained", "budget", "train_year", "year", "regions"]
    groups = rows.groupby(by, sort=False)
    columns = {"runs": groups.size(), "seeds": groups["seed"].agg(" ".join)}
    for score in SCORES:
        columns[f"{score}_mean"] = groups[score].mean()
        columns[f"{score}_std"] = groups[score].std(ddof=1).fillna(0)
    columns |= {cost: groups[cost].mean() for cost in COSTS}
    return pd.DataFrame(columns).reset_index().drop(columns="experiment")


def write_comparison(where: Where, out: str | Path) -> str:
    """Write the comparison of all runs, and the table by test year where there are several, into the folder `out`.

    All tables there are then of these runs: where no table by year is needed, an earlier one is removed.
    Returns the same as aligned text to print.

    Raises:
        UsageError: no finished training run.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    rows = results(read_runs(where))
    summary = summarise(rows)
    text = _write_table(summary, comparison_cells(summary), out / "comparison")
    if _pictures():
        scores = {SCORE_NAMES[s]: (summary[f"{s}_mean"], _spread(summary, s)) for s in ("oa", "macro_f1")}
        figures.comparison(list(summary["label"]), scores, out / "comparison.png")
    if _test_sets(rows).nunique() > 1:
        years = _by_test_set(rows)
        return f"{text}\n\n{_write_table(years, years_cells(years), out / 'years')}"
    for name in ("years.csv", "years.md"):  # of an earlier comparison, which is no longer there
        (out / name).unlink(missing_ok=True)
    return text


def _write_table(numbers: pd.DataFrame, cells: pd.DataFrame, path: Path) -> str:
    numbers.to_csv(path.with_suffix(".csv"), index=False)
    path.with_suffix(".md").write_text(markdown(cells) + "\n", encoding="utf-8")
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
    """Model and test set against scores, as strings: the paper's cross-year transfer."""
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


def aligned(cells: pd.DataFrame) -> str:
    """Strings as a plain-text table: first column flush left, the others right."""
    lines = [list(cells.columns), *cells.to_numpy().tolist()]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [
        [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))]
        for first, *rest in lines
    ]
    return "\n".join("  ".join(line) for line in padded)


def markdown(cells: pd.DataFrame) -> str:
    """Strings as a Markdown table."""
    rule = ["---", *["---:"] * (len(cells.columns) - 1)]
    lines = [list(cells.columns), rule, *cells.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@exit_cleanly
def main(arguments: list[str] | None = None) -> None:
    parser = Parser(
        prog="python -m utils.report",
        description="Rebuild tables and pictures from the run folders on disk.",
    )
    parser.add_argument("logdirs", nargs="+", metavar="LOGDIR", help="folders of runs, or single run folders")
    parser.add_argument("--out", metavar="DIR", help="where the comparison goes (default: the first LOGDIR)")
    options = parser.parse_args(arguments)
    folders = run_folders(options.logdirs)
    for folder in folders:
        try:
            write_run_report(folder)
        except UsageError as error:
            print(error, file=sys.stderr)
    if all(map(is_pretraining, folders)):
        print(f"{len(folders)} pre-training runs: learning curves written, no training run to compare")
        return
    out = options.out or options.logdirs[0]
    print(write_comparison(folders, out))
    print(f"\nwritten into {out}: comparison.csv, comparison.md and the like; pictures in each run folder")


if __name__ == "__main__":
    main()
