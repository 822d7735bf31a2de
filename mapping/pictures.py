"""The pictures of an assessment. matplotlib is optional: ask `figures.available()` first."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from datasets.imagery.grid import Grid, Sampler
from datasets.optional import need
from mapping.codes import NO_CODE, Map, Raster
from mapping.legend import MISSING_COLOUR
from mapping.reference import Tally
from mapping.tables import Result
from utils.results.figures import COLOURS, confusion_matrix, new_figure, save

SIDE = 700  # pixels of the longer side of a map in a picture
BIN = 10  # per cent of confidence
AGREE, DISAGREE = COLOURS[2], COLOURS[3]


def draw_maps(
    source: Map, result: Result, path: Path, *, reference: Raster | None = None, points: np.ndarray | None = None
) -> None:
    """The map beside the reference raster, or with the points that were compared, by whether they agree."""
    grid = coarse(source.grid)
    panels = {"map": _codes_on(source, grid)}
    if reference is not None:
        panels["reference"] = _codes_on(reference, grid)
    height = min(max(5 * grid.height / grid.width, 2), 10)
    figure = new_figure(5 * len(panels) + 0.3, height + 0.6 + 0.22 * math.ceil(len(result.entries) / 4))
    extent = (0, source.grid.width, source.grid.height, 0)
    for axes, (title, codes) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        axes.imshow(painted(codes, result), interpolation="nearest", extent=extent)
        if points is not None:
            for agrees, colour in ((1, AGREE), (0, DISAGREE)):
                rows, cols = points[points[:, 2] == agrees, :2].T + 0.5
                label = f"{'agrees' if agrees else 'differs'} ({len(rows):,})"
                axes.scatter(cols, rows, s=14, color=colour, edgecolors="white", linewidths=0.5, label=label)
            axes.legend(loc="upper right", fontsize=8)
        axes.set_title(title, fontsize=10)
        axes.set(xlabel="column", ylabel="row")
        axes.tick_params(labelsize=7)
    _legend(figure, result)
    save(figure, path)


def coarse(grid: Grid) -> Grid:
    """The same extent in square pixels, SIDE along the longer side at most."""
    factor = max(grid.height, grid.width) / SIDE
    if factor <= 1:
        return grid
    height, width = (max(round(length / factor), 1) for length in (grid.height, grid.width))
    scale = type(grid.transform).scale(grid.width / width, grid.height / height)
    return Grid(grid.crs, grid.transform @ scale, height, width)


def _codes_on(raster: Raster, grid: Grid) -> np.ndarray:
    whole = need("rasterio.windows").Window(0, 0, grid.width, grid.height)
    return raster.at(Sampler(grid, whole), raster.codes, NO_CODE)


def painted(codes: np.ndarray, result: Result) -> np.ndarray:
    """Codes (h, w) in the colours of the classes, (h, w, 3) uint8; white where there is none.

    Codes that are no class of the result have the colour of "Other", if it is one."""
    image = np.full((*codes.shape, 3), MISSING_COLOUR, dtype=np.uint8)
    for entry, colour in zip(result.entries, colours(result), strict=True):
        if entry.name == "Other" and not entry.code:
            image[:] = colour
    image[codes == NO_CODE] = 255
    for entry, colour in zip(result.entries, colours(result), strict=True):
        image[codes == entry.code] = colour
    return image


def colours(result: Result) -> list[tuple[int, int, int]]:
    """Colour of each class: its own, else one of matplotlib's in turn."""
    default = need("matplotlib").colormaps["tab20"].colors
    spare = [tuple(round(255 * part) for part in colour) for colour in default]
    return [entry.colour or spare[number % len(spare)] for number, entry in enumerate(result.entries)]


def _legend(figure, result: Result) -> None:
    patch = need("matplotlib.patches").Patch
    handles = [
        patch(facecolor=np.array(colour) / 255, edgecolor="#888888", label=name)
        for name, colour in zip(result.names, colours(result), strict=True)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8, frameon=False)


def draw_matrix(result: Result, path: Path) -> None:
    """Samples by class of reference (rows) and map (columns)."""
    title = f"{result.matrix.sum():,} samples; predicted is the class in the map"
    confusion_matrix(result.matrix.T, result.names, path, title, unit="samples")


def draw_areas(result: Result, path: Path) -> None:
    """Area of each class as mapped and as estimated, with 95 % intervals."""
    accuracy = result.accuracy
    places = np.arange(len(result.entries))
    figure = new_figure(7, 1.4 + 0.5 * len(places))
    axes = figure.subplots()
    axes.barh(places - 0.2, result.hectares, 0.36, color="#bbbbbb", label="mapped: pixels of the class")
    known = ~np.isnan(accuracy.area_ha)
    axes.barh(
        places[known] + 0.2, accuracy.area_ha[known], 0.36, xerr=np.nan_to_num(accuracy.area_ci95_ha[known]),
        color=COLOURS[0], capsize=3, error_kw={"linewidth": 1}, label="estimated, with 95 % interval",
    )  # fmt: skip
    for place in places[~known]:
        axes.text(0, place + 0.2, " too few samples", va="center", fontsize=8)
    axes.set_yticks(places, result.names, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel("hectares")
    axes.ticklabel_format(axis="x", style="plain")
    axes.xaxis.set_major_formatter(need("matplotlib.ticker").StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_major_locator(need("matplotlib.ticker").MaxNLocator(6))
    axes.grid(axis="x", color="#eeeeee")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    save(figure, path)


def by_bins(confidence: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of samples and agreeing samples by per cent (101, 2): mean confidence, accuracy and samples of bins of BIN.

    Bins without samples are left out; the last one holds 100 too. Confidence and accuracy are fractions.
    """
    per_cent = np.arange(101)
    bins = np.minimum(per_cent // BIN, 100 // BIN - 1)
    samples, agreeing = (np.bincount(bins, weights=column) for column in confidence.T)
    total = np.bincount(bins, weights=per_cent * confidence[:, 0])
    some = samples > 0
    return total[some] / samples[some] / 100, agreeing[some] / samples[some], samples[some].astype(np.int64)


def draw_confidence(tally: Tally, path: Path) -> None:
    """Accuracy of the samples against the map's confidence, and how many samples have which."""
    confidence, accuracy, _ = by_bins(tally.confidence)
    figure = new_figure(5.2, 5.2)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], color="#999999", linestyle="--", linewidth=1, label="confidence = accuracy")
    upper.plot(confidence, accuracy, marker="o", color=COLOURS[0], label="samples of the map")
    upper.set(ylabel="fraction that agrees", xlim=(0, 1), ylim=(0, 1.02))
    upper.legend(frameon=False, fontsize=9)
    upper.grid(color="#eeeeee")
    lower.bar(np.arange(101) / 100, tally.confidence[:, 0], 0.01, color="#bbbbbb")
    lower.set(xlabel="confidence of the map", ylabel="samples")
    save(figure, path)


def draw_all(
    out: Path, source: Map, result: Result, tally: Tally, reference: Raster | None = None
) -> dict[str, Path]:
    """Draw all pictures into a folder; title -> file. Without a confidence in the map there is none of it."""
    files = {
        "Map and reference": out / "map.png",
        "Error matrix": out / "matrix.png",
        "Areas": out / "areas.png",
        "Confidence and accuracy": out / "confidence.png",
    }
    whole, matrix, areas, confidence = files.values()
    draw_maps(source, result, whole, reference=reference, points=tally.at)
    draw_matrix(result, matrix)
    draw_areas(result, areas)
    if tally.confidence.any():
        draw_confidence(tally, confidence)
        return files
    confidence.unlink(missing_ok=True)  # of an earlier assessment
    return {title: file for title, file in files.items() if file != confidence}
