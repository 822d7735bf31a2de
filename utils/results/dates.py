"""Accuracy by date: runs of series that end with different days (main_tscls.py --until-doy)."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

CLASS = ["class", "name"]


def dated(rows: pd.DataFrame) -> pd.DataFrame:
    """Of the `results` of runs the headline rows of each curve, an experiment but for its day, that has several days.

    In the order of curves, by day.
    """
    found = rows[rows["headline"] & rows["until_doy"].notna()].astype({"until_doy": "Int64"})
    has_several = found.groupby("curve")["until_doy"].transform("nunique") > 1
    return found[has_several].sort_values(["curve", "until_doy"], kind="stable", ignore_index=True)


def by_class(rows: pd.DataFrame) -> pd.DataFrame:
    """F1 by class, from the test_class_f1*.csv of the `dated` runs, of the classes that a test has.

    Columns: label, until_doy, class, name, support (mean over runs), f1_mean, f1_std (NaN for one run).
    """
    frames = [_class_table(row).assign(label=row.curve, until_doy=row.until_doy) for row in rows.itertuples()]
    found = pd.concat(frames, ignore_index=True)
    groups = found.groupby(["label", "until_doy", *CLASS])
    table = {"support": groups["support"].mean(), "f1_mean": groups["f1"].mean(), "f1_std": groups["f1"].std(ddof=1)}
    table = pd.DataFrame(table).reset_index()
    is_present = table.groupby(["label", "class"])["support"].transform("max") > 0
    return table[is_present].reset_index(drop=True)


def _class_table(row) -> pd.DataFrame:
    """Support and F1 by class of one of the `results`; empty, with a line, where they cannot be read."""
    needed, year = [*CLASS, "support", "f1"], Path(row.folder, f"test_class_f1_{row.year}.csv")
    file = year if row.year != row.train_year and year.is_file() else Path(row.folder, "test_class_f1.csv")
    try:
        return pd.read_csv(file)[needed]
    except (OSError, ValueError, KeyError) as error:
        print(f"no F1 by class of {row.folder}: {file.name} {' '.join(str(error).split())}", file=sys.stderr)
        return pd.DataFrame({name: pd.Series(dtype=str if name == "name" else float) for name in needed})
