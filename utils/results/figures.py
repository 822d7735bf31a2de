"""Pictures of a run and of a comparison. matplotlib is optional: ask `available()` first.

Figures are drawn on their own Agg canvas, so no display is needed and no global state of matplotlib is touched.
"""

from __future__ import annotations

import importlib.util
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from utils.files import atomic_write

COLOURS = ("#2a6f97", "#e09f3e", "#6a994e", "#9e2a2b")
MARKERS = "osD^v<>p*X"


def available() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def new_figure(width: float, height: float):
    """An empty figure of this size in inches that can be saved without pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure, path: Path) -> None:
    """Write a picture, whole or not at all."""
    with atomic_write(path) as partial:
        figure.savefig(partial, bbox_inches="tight")


def offsets(count: int, gap: float) -> np.ndarray:
    """Shifts (count,) around 0, `gap` apart, for series of error bars that would overlap at one place."""
    return gap * (np.arange(count) - (count - 1) / 2)


def confusion_matrix(
    matrix: np.ndarray, names: Sequence[str], path: Path, title: str = "", *, unit: str = "series"
) -> None:
    """Counts (C, C) of `unit`, rows true; the colour is the fraction of the row.

    Rows are the classes that occur in the truth, columns those that occur in truth or prediction.
    """
    support = matrix.sum(1)
    rows, columns = np.flatnonzero(support), np.flatnonzero(support + matrix.sum(0))
    counts, support = matrix[np.ix_(rows, columns)], support[rows]
    fraction = counts / support[:, None]
    figure = new_figure(4.2 + 0.46 * len(columns), 2.8 + 0.46 * len(rows))
    axes = figure.subplots()
    image = axes.imshow(fraction, cmap="Blues", vmin=0, vmax=1)
    for row, column in zip(*np.nonzero(counts), strict=True):
        colour = "white" if fraction[row, column] > 0.5 else "black"
        axes.text(column, row, _short(counts[row, column]), ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(range(len(columns)), [names[i] for i in columns], rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), [f"{names[i]} ({n:,})" for i, n in zip(rows, support, strict=True)])
    axes.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#dddddd", linewidth=0.5)
    axes.tick_params(which="both", length=0, labelsize=9)
    axes.set(xlabel="predicted class", ylabel=f"true class ({unit})")
    axes.set_title("\n".join(filter(None, (title, _absent(len(matrix), len(rows), len(columns))))), fontsize=10)
    figure.colorbar(image, ax=axes, shrink=0.6, label="fraction of the true class")
    save(figure, path)


def _absent(classes: int, rows: int, columns: int) -> str:
    """Which classes a confusion matrix does not show."""
    notes = []
    if rows < columns:
        notes.append(f"{columns - rows} predicted but without series")
    if columns < classes:
        notes.append(f"{classes - columns} in neither truth nor prediction, not shown")
    return f"of {classes} classes: {'; '.join(notes)}" if notes else ""


def _short(count: int) -> str:
    """At most five characters: 99999, 123k, 4.5M."""
    if count < 100_000:
        return str(count)
    return f"{count / 1e3:.0f}k" if count < 999_500 else f"{count / 1e6:.3g}M"


def trust(reliability: pd.DataFrame, coverage: pd.DataFrame, path: Path, title: str = "") -> None:
    """Accuracy against confidence, and against the fraction of the surest series; the tables of ``tscls.trust``."""
    rows, kept = reliability, coverage
    figure = new_figure(9, 4.2)
    left, right = figure.subplots(1, 2)
    left.plot((0, 1), (0, 1), color="#888888", linewidth=1)
    widths, style = rows["high"] - rows["low"], {"align": "edge", "color": COLOURS[0], "edgecolor": "white"}
    left.bar(rows["low"], rows["accuracy"], widths, **style)
    left.plot(rows["confidence"], rows["accuracy"], "o", color=COLOURS[1], markersize=4)
    for row in rows.itertuples():
        place = ((row.low + row.high) / 2, row.accuracy + 0.015)
        left.text(*place, _short(int(row.series)), ha="center", fontsize=7)
    error = np.average((rows["confidence"] - rows["accuracy"]).abs(), weights=rows["series"])
    left.set(xlim=(0, 1), ylim=(0, 1.06), xlabel="confidence (numbers: series)", ylabel="accuracy")
    left.set_title(f"expected calibration error {error:.3f}")
    right.plot(kept["coverage"], kept["accuracy"], color=COLOURS[0], marker="o", markersize=2)
    right.set(xlim=(0, 1.02), xlabel="fraction of the series, the surest first", ylabel="accuracy")
    right.set_title(f"all: {kept['accuracy'].iloc[-1]:.3f}")
    for axes in (left, right):
        axes.grid(color="#eeeeee")
        axes.set_axisbelow(True)
        axes.title.set_fontsize(9)
    figure.suptitle(title, fontsize=10)
    save(figure, path)


CURVES = {  # label of a panel's axis -> columns of trainlog.csv and their names in the legend
    "loss": {"train_loss": "train", "valid_loss": "held out"},
    "OA": {"train_oa": "train", "valid_oa": "held out"},
    "macro F1": {"valid_macro_f1": "held out, all classes", "valid_macro_f1_present": "held out, present classes"},
    "top-1 accuracy": {"train_top1": "train", "valid_top1": "held out"},
    "correlation of the views": {"train_agreement": "train", "valid_agreement": "held out"},
    "fraction of noise removed": {"train_restored": "train", "valid_restored": "held out"},
    "OA of frozen features": {"probe_knn": "k nearest neighbours", "probe_linear": "logistic regression"},
}


def learning_curve(log: pd.DataFrame, path: Path, title: str = "") -> None:
    """Loss and scores by epoch, a panel each; the epoch with the lowest held-out loss is marked.

    `log` has the column epoch and columns of CURVES.
    """
    curves = {quantity: columns for quantity, columns in CURVES.items() if set(columns) & set(log)}
    held_out = log["valid_loss"] if "valid_loss" in log else pd.Series(dtype=float)
    best = log["epoch"][held_out.idxmin()] if held_out.notna().any() else None
    marker = {"marker": "o", "markersize": 3 if len(log) > 1 else 8}  # one epoch has no line, only its marker
    figure = new_figure(4.6 * len(curves), 4)
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    for axes, (quantity, columns) in zip(panels, curves.items(), strict=True):
        if best is not None:
            axes.axvline(best, color="#777777", linestyle="--", linewidth=1, label=f"best epoch: {best:g}")
        for column, colour in zip(filter(log.__contains__, columns), COLOURS, strict=False):
            axes.plot(log["epoch"], log[column], color=colour, label=columns[column], **marker)
        axes.set(xlabel="epoch", ylabel=quantity, xlim=(log["epoch"].min() - 0.5, log["epoch"].max() + 0.5))
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.grid(color="#eeeeee")
        axes.legend(frameon=False, fontsize=9)
    losses = log[[column for column in curves["loss"] if column in log]]
    if losses.min(axis=None) > 0 and losses.max(axis=None) > 20 * losses.min(axis=None):
        panels[0].set_yscale("log")  # a new decoder can start far above where it ends
    figure.suptitle(title, fontsize=11)
    save(figure, path)


def with_spread(mean: float, std: float) -> str:
    """0.812 ± 0.020, or 0.812 without a standard deviation (NaN), or – without a mean."""
    if np.isnan(mean):
        return "–"
    return f"{mean:.3f}" if np.isnan(std) else f"{mean:.3f} ± {std:.3f}"


def wrap(label: str, width: int = 36) -> str:
    """The label in lines of about `width` characters, broken at blanks alone: a longer word stays whole."""
    return "\n".join(textwrap.wrap(label, width, break_long_words=False, break_on_hyphens=False))


def comparison(labels: Sequence[str], scores: Mapping[str, tuple[ArrayLike, ArrayLike]], path: Path) -> None:
    """Horizontal bars with error bars, a group for each label, the first label on top.

    `scores` maps a score's name to its means and standard deviations (NaN: none), each as long as `labels`, in 0 … 1.
    """
    labels = [wrap(label) for label in labels]
    height = 0.8 / len(scores)
    lines = max(label.count("\n") + 1 for label in labels)
    longest = max(len(line) for label in labels for line in label.split("\n"))
    figure = new_figure(6.5 + 0.075 * longest, 1.1 + len(labels) * max(0.3 * len(scores), 0.18 * lines + 0.1))
    axes = figure.subplots()
    shifts = offsets(len(scores), height)
    for (name, (means, stds)), shift, colour in zip(scores.items(), shifts, COLOURS, strict=False):
        places = np.arange(len(labels)) + shift
        axes.barh(places, means, height, xerr=stds, label=name, color=colour, capsize=2.5, error_kw={"linewidth": 1})
        for place, mean, std in zip(places, means, stds, strict=True):
            end = min(max(np.nan_to_num(mean), 0) + np.nan_to_num(std), 1)
            axes.text(end + 0.012, place, with_spread(mean, std), va="center", fontsize=8)
    axes.set_yticks(range(len(labels)), labels, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)  # the text after a long bar is outside
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.set_xlabel(f"{', '.join(scores)} on the eval split{_spread_note(stds for _, stds in scores.values())}")
    axes.grid(axis="x", color="#eeeeee")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=len(scores), frameon=False, fontsize=9)
    save(figure, path)


def years(scores: Mapping[str, Mapping[str, tuple[Sequence[str], ArrayLike, ArrayLike]]], path: Path) -> None:
    """Scores by test set, a panel for each score and a line with error bars for each label.

    `scores` maps a score's name to, for each label, its test sets, means and standard deviations (NaN: none).
    """
    labels = list(dict.fromkeys(label for curves in scores.values() for label in curves))
    sets = sorted({name for curves in scores.values() for names, *_ in curves.values() for name in names})
    shifts = dict(zip(labels, offsets(len(labels), min(0.06, 0.5 / len(labels))), strict=True))
    figure = new_figure(len(scores) * max(3.2, 0.9 * len(sets)), 4 + 0.2 * len(labels))
    for axes, (name, curves) in zip(figure.subplots(1, len(scores), squeeze=False)[0], scores.items(), strict=True):
        for number, (label, (names, means, stds)) in enumerate(curves.items()):
            places = [sets.index(name) + shifts[label] for name in names]
            style = {"marker": MARKERS[number % len(MARKERS)], "color": f"C{number % 10}", "capsize": 2.5}
            axes.errorbar(places, means, np.nan_to_num(stds), label=label, linewidth=1.2, **style)
        axes.set_xticks(range(len(sets)), [wrap(name, 12) for name in sets])
        axes.set(xlabel="tested on", ylabel=name, xlim=(-0.5, len(sets) - 0.5))
        axes.grid(axis="y", color="#eeeeee")
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", frameon=False, fontsize=9)
    note = _spread_note(stds for curves in scores.values() for *_, stds in curves.values())
    figure.suptitle(f"scores on the eval split of each test set{note}", fontsize=10)
    save(figure, path)


BY_DATE = {"oa": "OA", "macro_f1_present": "macro F1 of the classes present"}
MAX_DOY = 366  # from here on days are those of the next year


def by_date(overall: pd.DataFrame, classes: pd.DataFrame, path: Path) -> None:
    """Scores against the day that series end with, a row of panels for each label: overall, and F1 by class.

    The tables of ``utils.report``: `overall` has label, until_doy, and means and standard deviations over runs, and
    `classes` those of ``utils.results.dates.by_class``.
    """
    labels = list(dict.fromkeys(overall["label"]))
    days = sorted(overall["until_doy"].unique())
    figure = new_figure(5.4 + max(5.4, 0.6 * len(days)) + 2.2, 0.6 + 4.2 * len(labels))
    for (left, right), label in zip(figure.subplots(len(labels), 2, squeeze=False), labels, strict=True):
        rows, many = overall[overall["label"] == label], classes[classes["label"] == label]
        for (score, name), colour in zip(BY_DATE.items(), COLOURS, strict=False):
            spread = np.nan_to_num(rows[f"{score}_std"])
            left.errorbar(
                rows["until_doy"], rows[f"{score}_mean"], spread, label=name, color=colour, marker="o", capsize=3
            )
        left.legend(frameon=False, fontsize=8, loc="lower right")
        left.set_title(wrap(label, 60), fontsize=9)
        support = many.groupby(["class", "name"])["support"].max().sort_values(ascending=False, kind="stable")
        for number, ((one, name), count) in enumerate(support.items()):
            curve = many[many["class"] == one]
            style = {"color": f"C{number % 10}", "marker": MARKERS[number // 10 % len(MARKERS)], "markersize": 4}
            style["linestyle"] = "-" if number < 10 else "--"
            right.plot(curve["until_doy"], curve["f1_mean"], label=f"{name} ({count:,.0f})", linewidth=1.2, **style)
        right.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), title="class (test series)")
        for axes, what in ((left, "score"), (right, "F1 of the class")):
            axes.set_xticks(days, [f"{day}\n{readable_day(day)}" for day in days], fontsize=8)
            axes.set(xlabel="last day of the series", ylabel=what, ylim=(-0.02, 1.02))
            axes.grid(color="#eeeeee")
            axes.set_axisbelow(True)
    note = ", mean ± standard deviation over seeds" if (overall["runs"] > 1).any() else ""
    figure.suptitle(f"accuracy on the eval split by date{note}", fontsize=10)
    save(figure, path)


def readable_day(day: int) -> str:
    """30 May, of a day of the year that may lie in the next one."""
    number = min(day - MAX_DOY if day > MAX_DOY else day, 365)
    found = date(2019, 1, 1) + timedelta(days=int(number) - 1)
    return f"{found.day} {found:%b}"


def _spread_note(stds: Iterable[ArrayLike]) -> str:
    has_spread = any(not np.isnan(of_score).all() for of_score in stds)
    return ", mean ± standard deviation over seeds" if has_spread else ""
