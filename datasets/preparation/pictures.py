"""Three pictures of what a preparation made, for a first look: where, how many of what, and the NDVI of each class."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd

from datasets.classmap import ClassMap
from datasets.preparation.root import LABELLED, UNLABELLED
from datasets.preparation.summary import NdviByDay, count_series
from datasets.tables import OPTIONS
from utils.files import atomic_write

COLOURS = {"train": "#4477aa", "valid": "#ddaa33", "eval": "#bb5566", "unlabelled": "#4477aa"}
POINTS, POINT = 20_000, 0.8  # of a split that are drawn, and the area of one
MAP, COUNTS, NDVI = "blocks", "classes", "ndvi"
COLUMNS = 4  # panels of classes side by side


def available() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(
    root: Path, year: int, site: str, classmap: ClassMap | None, ndvi: NdviByDay, regions: Collection[str] = ()
) -> list[str]:
    """Write ROOT/<site>-<year>-{blocks,classes,ndvi}.png; lines that say so.

    `regions`: of the series of the site, if they have others than its name. Unlabelled series have no picture of
    classes, and series without x and y no map.
    """
    if not available():
        return ["no pictures: they need matplotlib (pip install matplotlib)"]
    from matplotlib.figure import Figure

    kind = f"{site}-{year}" + ("" if classmap is not None else f"-{UNLABELLED}")
    title, names = f"{site}, {year}", {region.lower() for region in regions or (site,)}
    of_split = {
        split: index
        for split in (LABELLED if classmap is not None else (UNLABELLED,))
        if (index := _of_regions(root / str(year) / split / "index.csv", names, ("x", "y", "block"))) is not None
    }
    lines, drawings = [], {}
    if of_split:
        drawings[MAP] = lambda figure: _draw_map(figure, title, of_split, classmap is not None)
    else:
        lines.append("no picture of blocks: the series have no x and y")
    if classmap is not None:
        drawings[COUNTS] = lambda figure: _draw_counts(figure, title, root / str(year), names, classmap)
    drawings[NDVI] = lambda figure: _draw_ndvi(figure, ndvi, classmap)
    for name, drawing in drawings.items():
        figure = Figure(layout="constrained", dpi=120)
        drawing(figure)
        path = root / f"{kind}-{name}.png"
        with atomic_write(path) as partial:
            figure.savefig(partial, metadata={"Software": None})
        lines.append(f"picture: {path}")
    return lines


def _draw_map(figure, title: str, of_split: dict[str, pd.DataFrame], labelled: bool) -> None:
    """The sampled pixels at their places, coloured by split, with the outline of every block."""
    figure.set_size_inches(7, 7)
    axes = figure.subplots()
    for split, index in of_split.items():
        x, y = index["x"].astype(float), index["y"].astype(float)
        if labelled:
            for _, block in pd.DataFrame({"x": x, "y": y}).groupby(index["block"]):
                low, high = block.min(), block.max()
                corners = [low.x, high.x, high.x, low.x, low.x], [low.y, low.y, high.y, high.y, low.y]
                axes.plot(*corners, color=COLOURS[split], linewidth=0.6, alpha=0.6, zorder=1)
        shown = np.linspace(0, len(x) - 1, min(len(x), POINTS)).astype(int)
        axes.scatter(x.iloc[shown], y.iloc[shown], s=POINT, color=COLOURS[split], linewidths=0, zorder=2,
                     label=f"{split}, {len(x):,} series")  # fmt: skip
    axes.set_aspect("equal")
    axes.set_title(f"{title}: sampled pixels" + (" and blocks by split" if labelled else ""))
    axes.set_xlabel("x, in the CRS of the images")
    axes.set_ylabel("y")
    axes.ticklabel_format(useOffset=False, style="plain")
    axes.tick_params(axis="x", rotation=30)
    figure.legend(loc="outside lower center", ncols=3, markerscale=6, frameon=False)


def _of_regions(file: Path, regions: set[str], columns: tuple[str, ...]) -> pd.DataFrame | None:
    """These columns of the rows of some regions (in lower case), where they have a value; None without any."""
    if not file.exists():
        return None
    wanted, parts = ("region", *columns), []
    options = OPTIONS | {"low_memory": True}
    with pd.read_csv(file, dtype=str, usecols=lambda name: name in wanted, chunksize=65536, **options) as reader:
        for part in reader:
            if any(name not in part for name in wanted):
                return None
            filled = (part[list(columns)] != "").all(axis=1)
            parts.append(part[part["region"].str.lower().isin(regions) & filled])
    found = pd.concat(parts, ignore_index=True)
    return None if found.empty else found


def _draw_counts(figure, title: str, folder: Path, regions: set[str], classmap: ClassMap) -> None:
    """Bars: series of every class by split, on a logarithmic axis, as rare classes are what matters here."""
    counts = Counter()
    for (label, split, region), count in count_series(folder).items():
        if region.lower() in regions:
            counts[label, split] += count
    classes = sorted({label for label, _ in counts}, key=lambda c: sum(counts.get((c, split), 0) for split in LABELLED))
    figure.set_size_inches(7, 1.6 + 0.42 * len(classes))
    axes = figure.subplots()
    for number, split in enumerate(LABELLED):
        values = [counts.get((label, split), 0) for label in classes]
        bars = axes.barh(np.arange(len(classes)) + 0.27 * (1 - number), values, 0.25, color=COLOURS[split], label=split)
        axes.bar_label(bars, [f"{value:,}" for value in values], padding=2, fontsize=6)
    axes.set_xscale("log")
    axes.set_xlim(0.7, 3 * max(counts.values(), default=1))
    axes.set_yticks(np.arange(len(classes)), [classmap.names[label] for label in classes])
    axes.set_xlabel("series")
    axes.set_title(f"{title}: labels by class and split")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)


def _draw_ndvi(figure, ndvi: NdviByDay, classmap: ClassMap | None) -> None:
    """A panel a class: mean NDVI by date, one standard deviation around it, the other classes in grey."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    present = ndvi.present()
    across = min(COLUMNS, len(present))
    down = -(-len(present) // across)
    figure.set_size_inches(max(3.2 * across, 5), max(2.3 * down + 0.5, 3.2))
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).reshape(-1)
    curves = {label: ndvi.of(label) for label in present}
    for panel in panels[len(present) :]:
        panel.set_visible(False)
    for panel in panels[max(len(present) - across, 0) : len(present)]:
        panel.tick_params(labelbottom=True)
    for panel, label in zip(panels, present, strict=False):
        for other, (dates, mean, _) in curves.items():
            if other != label:
                panel.plot(dates, mean, color="0.85", linewidth=0.7)
        dates, mean, deviation = curves[label]
        colour = COLOURS[UNLABELLED] if classmap is None else _readable(classmap.colours[label])
        panel.fill_between(dates, mean - deviation, mean + deviation, color=colour, alpha=0.3, linewidth=0)
        panel.plot(dates, mean, color=colour, marker=".", markersize=3)
        panel.set_title(ndvi.names[label], fontsize=9)
        panel.set_ylim(-0.3, 1)
        panel.tick_params(labelsize=7)
        locator = AutoDateLocator(maxticks=6)
        panel.xaxis.set_major_locator(locator)
        panel.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    figure.supylabel("NDVI, mean ± standard deviation", fontsize=9)


def _readable(colour: tuple[int, int, int]) -> tuple[float, ...]:
    """A class's colour, darkened where it would be lost on white."""
    red, green, blue = (part / 255 for part in colour)
    brightness = 0.3 * red + 0.6 * green + 0.1 * blue
    return tuple(part * min(1, 0.65 / max(brightness, 0.01)) for part in (red, green, blue))
