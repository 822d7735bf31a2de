"""A picture of a map, with its legend, a scale bar and the areas of its classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets.imagery.grid import METRES_PER_DEGREE, Grid
from datasets.optional import need
from mapping.ground import pixel_hectares
from mapping.legend import Entry
from utils.results.figures import new_figure, save

MOST = 1200  # pixels along the longer side of the picture
ROWS = 1024  # of the map that are counted at once
NOTHING = (255, 255, 255)


def class_hectares(path: Path, classes: Sequence[Entry]) -> dict[int, float]:
    """Area of each class of a map by code."""
    with need("rasterio", "a map").open(path) as file:
        grid = Grid(file.crs, file.transform, file.height, file.width)
        total = np.zeros(max(entry.code for entry in classes) + 1)
        for window in grid.windows((ROWS, grid.width)):
            codes = file.read(1, window=window)
            area = np.broadcast_to(pixel_hectares(grid, window), codes.shape)
            valid = codes != file.nodata
            total += np.bincount(codes[valid], weights=area[valid], minlength=len(total))
    return {entry.code: float(total[entry.code]) for entry in classes}


def draw(path: Path, picture: Path, classes: Sequence[Entry], title: str) -> None:
    """Draw the map at `path` as `picture`, a PNG; needs matplotlib (`utils.results.figures.available`)."""
    with need("rasterio", "a map").open(path) as file:
        grid, step = Grid(file.crs, file.transform, file.height, file.width), max(file.shape) / MOST
        shape = tuple(max(1, round(size / max(step, 1))) for size in file.shape)
        codes, no_data = file.read(1, out_shape=shape), int(file.nodata)
    colours = np.full((no_data + 1, 3), NOTHING, np.uint8)
    for entry in classes:
        colours[entry.code] = entry.colour
    hectares = class_hectares(path, classes)
    shown = sorted((entry for entry in classes if hectares[entry.code]), key=lambda entry: -hectares[entry.code])
    height = max(3.0, 7.0 * shape[0] / max(shape), 0.26 * len(shown) + 0.8)
    figure = new_figure(7.0 * shape[1] / max(shape) + 3.4, height)
    axes = figure.subplots()
    across = grid.width * pixel_metres(grid)[0]
    tall = grid.height * pixel_metres(grid)[1]
    axes.imshow(colours[codes], extent=(0, across, 0, tall), interpolation="nearest")
    axes.set(xticks=[], yticks=[], title=title)
    _scale_bar(axes, across, tall)
    _legend(axes, shown, hectares)
    save(figure, picture)


def pixel_metres(grid: Grid) -> tuple[float, float]:
    """Width and height of a pixel in metres; degrees are taken at the middle of the grid."""
    t = grid.transform
    width, height = math.hypot(t.a, t.d), math.hypot(t.b, t.e)
    if not grid.crs.is_geographic:
        unit = grid.crs.linear_units_factor[1]
        return width * unit, height * unit
    _, latitude = grid.centres(grid.height / 2, grid.width / 2)
    return width * METRES_PER_DEGREE * math.cos(math.radians(float(latitude))), height * METRES_PER_DEGREE


def bar_length(metres: float) -> float:
    """The longest of 1, 2, 5, 10 … that is at most a quarter of a width."""
    power = 10.0 ** math.floor(math.log10(metres / 4))
    return max(step * power for step in (1, 2, 5) if step * power <= metres / 4)


def _scale_bar(axes, width: float, height: float) -> None:
    length = bar_length(width)
    left, bottom, thick = 0.03 * width, 0.03 * height, 0.008 * height
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 2}
    axes.fill_between([left, left + length], bottom, bottom + thick, color="black", zorder=3)
    text = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    axes.text(left + length / 2, bottom + 2 * thick, text, ha="center", va="bottom", fontsize=8, bbox=box, zorder=2)


def _legend(axes, shown: Sequence[Entry], hectares: dict[int, float]) -> None:
    from matplotlib.patches import Patch

    total = sum(hectares.values())
    patches = [
        Patch(
            facecolor=np.array(entry.colour) / 255,
            edgecolor="0.5",
            label=f"{entry.name}  {_hectares(hectares[entry.code])} ha, {hectares[entry.code] / total:.1%}",
        )
        for entry in shown
    ]
    if patches:
        axes.legend(handles=patches, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize=8)


def _hectares(area: float) -> str:
    return f"{area:,.0f}" if area >= 10 else f"{area:.2g}"
