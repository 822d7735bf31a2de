"""What the runs of a comparison say: scores, paired gains with intervals, a table and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.evidence.arms import FROZEN
from benchmarks.evidence.intervals import Interval, bootstrap
from benchmarks.evidence.pretrain import Found
from benchmarks.evidence.runs import Predictions
from utils.metrics import SCORES, classification_metrics
from utils.report import markdown
from utils.results import figures

Results = dict[str, dict[int, dict[int, Predictions]]]  # by arm, labels, seed


def scores(results: Results) -> pd.DataFrame:
    """A row for each run: arm, labels, seed and SCORES."""
    rows = []
    for arm, budgets in results.items():
        for labels, seeds in budgets.items():
            for seed, found in seeds.items():
                predicted = found.log_probability.argmax(1)
                metrics = classification_metrics(found.truth, predicted, found.log_probability.shape[1])
                row = {"arm": arm, "labels": labels, "seed": seed}
                rows.append(row | {name: metrics[name] for name in SCORES})
    return pd.DataFrame(rows)


def hits(seeds: dict[int, Predictions]) -> np.ndarray:
    """Which test series each seed classifies correctly, (seeds, N), as 0 and 1."""
    return np.array([found.log_probability.argmax(1) == found.truth for found in seeds.values()], dtype=float)


def gains(results: Results, baselines: Sequence[str], blocks: np.ndarray | None = None) -> pd.DataFrame:
    """Rows baseline, arm, labels, gain, low, high: the paired difference of overall accuracy, in points."""
    rows = []
    for baseline in baselines:
        for arm, budgets in results.items():
            for labels, seeds in budgets.items():
                if not is_compared(arm, baseline, baselines) or labels not in results[baseline]:
                    continue
                found = bootstrap(100 * (hits(seeds) - hits(results[baseline][labels])), blocks)
                row = {"baseline": baseline, "arm": arm, "labels": labels}
                rows.append(row | {"gain": found.mean, "low": found.low, "high": found.high})
    return pd.DataFrame(rows, columns=["baseline", "arm", "labels", "gain", "low", "high"])


def is_compared(arm: str, baseline: str, baselines: Sequence[str]) -> bool:
    """Whether an arm's gain over a baseline is told: where a baseline is frozen, frozen arms have their own."""
    has_frozen = any(name.endswith(FROZEN) for name in baselines)
    return arm != baseline and (not has_frozen or arm.endswith(FROZEN) == baseline.endswith(FROZEN))


def table(rows: pd.DataFrame, score: str = "oa") -> str:
    """A score, mean and standard deviation over seeds, arms x labels, as Markdown."""
    stats = rows.groupby(["arm", "labels"], sort=False)[score].agg(["mean", "std"])
    budgets, arms = sorted(rows["labels"].unique()), rows["arm"].unique()
    cells = {"": arms}
    for labels in budgets:
        present = [(arm, labels) in stats.index for arm in arms]
        cells[f"{labels} labels"] = [
            figures.with_spread(*stats.loc[(arm, labels)]) if known else "–"
            for arm, known in zip(arms, present, strict=True)
        ]
    return markdown(pd.DataFrame(cells))


def gain_table(rows: pd.DataFrame) -> str:
    """Gains over one baseline with their intervals, arms x labels, as Markdown; those that exclude zero are bold."""
    budgets, arms = sorted(rows["labels"].unique()), rows["arm"].unique()
    found = {(row.arm, row.labels): Interval(row.gain, row.low, row.high) for row in rows.itertuples()}
    cells = {"": arms}
    for labels in budgets:
        cells[f"{labels} labels"] = [told(found.get((arm, labels))) for arm in arms]
    return markdown(pd.DataFrame(cells))


def pretraining_table(found: dict[str, Found]) -> str:
    """How each pre-training was trained, and what a linear probe of the simulated labels says, as Markdown."""
    cells = {
        "": list(found),
        "rate": [f"{one.rate:g}" for one in found.values()],
        "probe": [f"{one.probed:.3f}" for one in found.values()],
        "tried": [", ".join(f"{rate}: {oa:.3f}" for rate, oa in one.trials.items()) or "–" for one in found.values()],
        "minutes": [f"{one.seconds / 60:.0f}" for one in found.values()],
    }
    return markdown(pd.DataFrame(cells))


def told(gain: Interval | None) -> str:
    """A gain as text: ``**+2.1 [0.4, 3.9]**``."""
    if gain is None:
        return "–"
    text = f"{gain.mean:+.1f} [{gain.low:.1f}, {gain.high:.1f}]"
    return f"**{text}**" if gain.excludes_zero else text


def picture(rows: pd.DataFrame, differences: pd.DataFrame, path: Path) -> None:
    """Left, overall accuracy against labels; right, the gains over the first baseline with their intervals."""
    arms, budgets = list(rows["arm"].unique()), sorted(rows["labels"].unique())
    figure = figures.new_figure(12, 2.6 + 0.26 * len(arms))
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.1))
    styles = {
        arm: {"color": f"C{number % 10}", "marker": figures.MARKERS[(number + number // 10) % len(figures.MARKERS)]}
        for number, arm in enumerate(arms)
    }
    for arm in arms:
        means = rows[rows["arm"] == arm].groupby("labels")["oa"].mean()
        places = [budgets.index(labels) for labels in means.index]
        left.plot(
            places, means, label=arm, markersize=5, linestyle="--" if arm.endswith(FROZEN) else "-", **styles[arm]
        )
    left.set_xticks(range(len(budgets)), [str(labels) for labels in budgets])
    left.set(xlabel="labelled series (train and valid together)", ylabel="overall accuracy, mean over seeds")
    left.grid(axis="y", alpha=0.3)
    baseline = differences["baseline"].iloc[0]
    shown = differences[differences["baseline"] == baseline]
    names = [arm for arm in arms if arm in set(shown["arm"])]
    for number, labels in enumerate(budgets):
        part = shown[shown["labels"] == labels]
        if part.empty:
            continue
        places = [names.index(arm) + (number - (len(budgets) - 1) / 2) * 0.22 for arm in part["arm"]]
        errors = np.stack((part["gain"] - part["low"], part["high"] - part["gain"]))
        style = {"fmt": figures.MARKERS[number], "color": figures.COLOURS[number % len(figures.COLOURS)]}
        right.errorbar(part["gain"], places, xerr=errors, label=f"{labels} labels", markersize=4, capsize=2, **style)
    right.axvline(0, color="#888888", linewidth=1)
    right.set_yticks(range(len(names)), names)
    right.invert_yaxis()
    right.set_xlabel(f"gain over {baseline}, points of overall accuracy, 95 % interval")
    right.grid(axis="x", alpha=0.3)
    right.legend(frameon=False, fontsize=8)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False, fontsize=8)
    figures.save(figure, path)
