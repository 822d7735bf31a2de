"""Pictures of a run and of a comparison. matplotlib is optional: ask `available()` first.

Figures are drawn on their own Agg canvas, so no display is needed and no global state of matplotlib is touched.
"""

from __future__ import annotations

import importlib.util
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

COLOURS = ("#2a6f97", "#e09f3e", "#6a994e", "#9e2a2b")


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


def confusion_matrix(matrix: np.ndarray, names: Sequence[str], path: Path, title: str = "") -> None:
    """Counts (C, C), rows true, of the classes that occur in truth or prediction; colour is the share of the row."""
    present = np.flatnonzero(matrix.sum(0) + matrix.sum(1))
    counts, names = matrix[np.ix_(present, present)], [names[i] for i in present]
    support = counts.sum(1)
    share = counts / np.maximum(support, 1)[:, None]
    size = len(present)
    figure = new_figure(4.2 + 0.46 * size, 2.8 + 0.46 * size)
    axes = figure.subplots()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in zip(*np.nonzero(counts), strict=True):
        colour = "white" if share[row, column] > 0.5 else "black"
        axes.text(column, row, _short(counts[row, column]), ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(range(size), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(size), [f"{name} ({n:,})" for name, n in zip(names, support, strict=True)])
    axes.set_xticks(np.arange(size + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(size + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#dddddd", linewidth=0.5)
    axes.tick_params(which="both", length=0, labelsize=9)
    axes.set(xlabel="predicted class", ylabel="true class (series)")
    absent = len(matrix) - size
    note = f"{absent} of {len(matrix)} classes in neither truth nor prediction, not shown" if absent else ""
    axes.set_title("\n".join(filter(None, (title, note))), fontsize=10)
    figure.colorbar(image, ax=axes, shrink=0.6, label="share of the true class")
    figure.savefig(path, bbox_inches="tight")


def _short(count: int) -> str:
    """At most five characters: 99999, 123k, 4.5M."""
    if count < 100_000:
        return str(count)
    return f"{count / 1e3:.0f}k" if count < 999_500 else f"{count / 1e6:.3g}M"


def learning_curve(log: pd.DataFrame, path: Path, title: str = "") -> None:
    """Loss, and the scores there are, by epoch; the epoch with the lowest held-out loss is marked.

    `log` has columns epoch, train_loss and any of valid_loss, train_oa, valid_oa, valid_macro_f1 (training) or
    train_top1, valid_top1 (pre-training).
    """
    curves = {
        "loss": {"train_loss": "train", "valid_loss": "held out"},
        "score": {"train_oa": "train OA", "valid_oa": "held-out OA", "valid_macro_f1": "held-out macro F1",
                  "train_top1": "train top-1", "valid_top1": "held-out top-1"},
    }  # fmt: skip
    curves = {quantity: columns for quantity, columns in curves.items() if set(columns) & set(log)}
    held_out = log["valid_loss"] if "valid_loss" in log else pd.Series(dtype=float)
    best = log["epoch"][held_out.idxmin()] if held_out.notna().any() else None
    figure = new_figure(5 * len(curves), 4)
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    for axes, (quantity, columns) in zip(panels, curves.items(), strict=True):
        for column, colour in zip(filter(log.__contains__, columns), COLOURS, strict=False):
            axes.plot(log["epoch"], log[column], color=colour, label=columns[column], marker=".", markersize=4)
        if best is not None:
            axes.axvline(best, color="#777777", linestyle="--", linewidth=1, label=f"best epoch: {best:g}")
        axes.set(xlabel="epoch", ylabel=quantity, xlim=(log["epoch"].min() - 0.5, log["epoch"].max() + 0.5))
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.grid(color="#eeeeee")
        axes.legend(frameon=False, fontsize=9)
    losses = log[[column for column in curves["loss"] if column in log]]
    if losses.min(axis=None) > 0 and losses.max(axis=None) > 20 * losses.min(axis=None):
        panels[0].set_yscale("log")  # a fresh head can start far above where it ends
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, bbox_inches="tight")


def with_spread(mean: float, std: float) -> str:
    """0.812 ± 0.020, or 0.812 where there is no standard deviation (NaN)."""
    return f"{mean:.3f}" if np.isnan(std) else f"{mean:.3f} ± {std:.3f}"


def _broken(label: str) -> str:
    """The label in lines of at most 36 characters, cut at blanks and, where a word is longer, behind its separators."""
    lines = textwrap.wrap(label, 36, break_long_words=False, break_on_hyphens=False)
    return "\n".join(part for line in lines for part in re.findall(r".{1,36}$|.{1,35}[_/+,:=]|.+?(?:[_/+,:=]|$)", line))


def comparison(labels: Sequence[str], scores: Mapping[str, tuple[ArrayLike, ArrayLike]], path: Path) -> None:
    """Horizontal bars with error bars, a group a label, first label on top.

    `scores` maps a score's name to its means and standard deviations (NaN: none), each as long as `labels`, in 0 … 1.
    """
    labels = [_broken(label) for label in labels]
    height = 0.8 / len(scores)
    lines = max(label.count("\n") + 1 for label in labels)
    figure = new_figure(9, 1.1 + len(labels) * max(0.3 * len(scores), 0.18 * lines + 0.1))
    axes = figure.subplots()
    for position, (name, (means, stds)) in enumerate(scores.items()):
        places = np.arange(len(labels)) + (position - (len(scores) - 1) / 2) * height
        axes.barh(places, means, height, xerr=stds, label=name, color=COLOURS[position], capsize=2.5,
                  error_kw={"linewidth": 1})  # fmt: skip
        for place, mean, std in zip(places, means, stds, strict=True):
            end = min(max(mean, 0) + np.nan_to_num(std), 1)
            axes.text(end + 0.012, place, with_spread(mean, std), va="center", fontsize=8)
    axes.set_yticks(range(len(labels)), labels, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)  # what is written behind a long bar stands outside
    axes.set_xticks(np.linspace(0, 1, 6))
    has_spread = not all(np.isnan(stds).all() for _, stds in scores.values())
    axes.set_xlabel(f"score on the eval split{', mean ± standard deviation over seeds' if has_spread else ''}")
    axes.grid(axis="x", color="#eeeeee")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=len(scores), frameon=False, fontsize=9)
    figure.savefig(path, bbox_inches="tight")
