"""Draws docs/architecture.png, the picture in the README: python -m docs.architecture

The series is made up for the drawing; its views, day encoding and vegetation weights come from this project's code.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from datasets.bands import CLOUD_BRIGHTNESS, NIR, RED, SWIR1, SWIR2
from datasets.classmap import CDL20
from datasets.transforms import Series, random_choice, remove, spectral_noise, temporal_shift, vegetation_weight
from models.layers import sinusoid_table
from utils.files import atomic_write

WIDTH, HEIGHT, DPI = 110, 57, 200  # the canvas in tenths of an inch, and its resolution
LENGTH = 70  # observations S of a view
QUERY, KEY, PLANT, LOSS, INK, GREY = "#2a6f97", "#c77f1a", "#5b8a3c", "#9e2a2b", "#22313a", "#6f7b81"
LIMITS = (-0.2, 0.95)  # NDVI that a small plot shows
TEXT = 9  # points, readable at 1100 pixels


def made_up_series() -> Series:
    """One summer crop, cloudy every now and then, as a batch of one: values (1, T, 10) reflectance."""
    rng = np.random.default_rng(7)
    doy = np.cumsum(rng.choice([2, 3, 5, 8, 10], size=62))
    doy = doy[doy <= 366]
    green = 1 / (1 + np.exp(-(doy - 150) / 11)) - 1 / (1 + np.exp(-(doy - 265) / 12))
    ndvi = 0.18 + 0.66 * green + rng.normal(0, 0.02, len(doy))
    cloudy = rng.random(len(doy)) < 0.25
    values = np.full((len(doy), 10), 0.06)
    values[:, NIR] = 0.06 * (1 + ndvi) / (1 - ndvi)
    values[:, [SWIR1, SWIR2]] = 0.2
    values[cloudy] = rng.uniform(0.3, 0.55, (cloudy.sum(), 1)) + rng.normal(0, 0.02, (cloudy.sum(), 10))
    return Series(torch.tensor(values[None]).float(), torch.tensor(doy[None]), torch.tensor([len(doy)]))


def random_view(series: Series, seed: int) -> Series:
    """The four random steps of a view, in their order."""
    generator = torch.Generator().manual_seed(seed)
    series = temporal_shift(series, generator, probability=1)
    series = spectral_noise(series, generator)
    return random_choice(remove(series, generator), LENGTH, generator)


def small_axes(ax: Axes, x: float, y: float, width: float, height: float, colour: str) -> Axes:
    """Axes without ticks inside the canvas."""
    inset = ax.inset_axes((x, y, width, height), transform=ax.transData)
    inset.set(xticks=[], yticks=[], facecolor="white")
    for spine in inset.spines.values():
        spine.set(color=colour, linewidth=1)
    return inset


def plot_series(ax: Axes, x: float, y: float, series: Series, colour: str) -> None:
    """NDVI of each observation against the day; cloudy ones in grey."""
    values, doy = series.values[0].numpy(), series.doy[0].numpy()
    ndvi = ((values[:, NIR] - values[:, RED]) / (values[:, NIR] + values[:, RED])).clip(*LIMITS)
    cloudy = values[:, :3].sum(1) > CLOUD_BRIGHTNESS
    inset = small_axes(ax, x, y, 12, 9.5, colour)
    inset.scatter(doy[~cloudy], ndvi[~cloudy], s=5, color=PLANT, zorder=3)
    inset.scatter(doy[cloudy], ndvi[cloudy], s=5, color=GREY, zorder=2)
    inset.set(xlim=(-8, 374), ylim=(LIMITS[0] - 0.06, LIMITS[1] + 0.06))


def box(ax: Axes, x: float, y: float, width: float, height: float, text: str, colour: str, **style) -> None:
    """A rounded box with text in its middle."""
    patch = FancyBboxPatch(
        (x, y), width, height, boxstyle="round,pad=0,rounding_size=0.8", linewidth=1.2,
        edgecolor=colour, facecolor=style.pop("facecolor", "white"), **style,
    )  # fmt: skip
    ax.add_patch(patch)
    write(ax, x + width / 2, y + height / 2, text, INK)


def write(ax: Axes, x: float, y: float, text: str, colour: str = INK, align: str = "center", **style) -> None:
    style = {"fontsize": TEXT, "va": "center", "linespacing": 1.35} | style
    ax.text(x, y, text, color=colour, ha=align, **style)


def arrow(ax: Axes, *points: tuple[float, float], colour: str = INK, style: str = "-") -> None:
    """A line through the points that ends in an arrow head."""
    *start, before, end = points
    path = [*start, before]
    ax.plot(*zip(*path, strict=True), color=colour, linewidth=1.4, linestyle=style, solid_capstyle="butt")
    properties = {"arrowstyle": "-|>,head_width=0.22,head_length=0.45", "color": colour, "linewidth": 1.4}
    ax.annotate("", end, before, arrowprops={**properties, "linestyle": style, "shrinkA": 0, "shrinkB": 0})


def panel(ax: Axes, x: float, width: float, title: str, script: str, colour: str) -> None:
    ax.add_patch(FancyBboxPatch(
        (x, 0.8), width, HEIGHT - 1.6, boxstyle="round,pad=0,rounding_size=1.5", linewidth=0, facecolor=colour
    ))  # fmt: skip
    write(ax, x + 2, HEIGHT - 3.6, title, fontsize=12, weight="bold", align="left")
    write(ax, x + width - 2, HEIGHT - 3.6, script, GREY, fontsize=TEXT, family="monospace", align="right")


def draw_views(ax: Axes) -> None:
    """One series, and two random views of it."""
    series = made_up_series()
    plot_series(ax, 3, 20.5, series, INK)
    write(ax, 9, 31.6, "one series")
    write(ax, 9, 18.8, "NDVI over the year;\ngrey: cloud", GREY, fontsize=8, va="top")
    plot_series(ax, 21, 35, random_view(series, 5), QUERY)
    plot_series(ax, 21, 6, random_view(series, 12), KEY)
    arrow(ax, (15.2, 28), (20.6, 38.5))
    arrow(ax, (15.2, 22.5), (20.6, 12))
    steps = "each view, at random:\ntemporal shift\nspectral noise\nremoval\nrandom choice of S"
    write(ax, 27, 25.3, steps)


def draw_contrast(ax: Axes) -> None:
    """Two encoders, the queue and the loss."""
    box(ax, 38, 35.7, 11.5, 8, "query\nencoder", QUERY)
    box(ax, 38, 6.7, 11.5, 8, "key\nencoder", KEY)
    arrow(ax, (33.3, 39.7), (37.7, 39.7), colour=QUERY)
    arrow(ax, (33.3, 10.7), (37.7, 10.7), colour=KEY)
    arrow(ax, (41, 35.5), (41, 15), style=(0, (3, 2)))
    write(ax, 42, 25.3, "momentum\nupdate:\nk ← m k +\n(1 − m) q", align="left")
    box(ax, 54.5, 35.7, 9.5, 8, "contrastive\nloss", LOSS)
    arrow(ax, (49.7, 40.8), (54.2, 40.8), colour=QUERY)
    write(ax, 51.8, 42.3, "query", QUERY)
    arrow(ax, (49.7, 12.2), (52.2, 12.2), (52.2, 37.8), (54.2, 37.8), colour=KEY)
    write(ax, 53, 31.6, "own\nkey", KEY, align="left")
    arrow(ax, (49.7, 9.2), (54.2, 9.2), colour=KEY)
    for cell in range(6):
        ax.add_patch(Rectangle((54.5 + cell * 1.58, 7.2), 1.58, 4, edgecolor=KEY, facecolor=KEY, alpha=0.75 - cell / 9))
    write(ax, 59.3, 4.6, "queue of K keys", KEY)
    arrow(ax, (60.5, 11.6), (60.5, 35.4), colour=KEY)
    write(ax, 61.2, 23.5, "K\nother\nkeys", KEY, align="left")


def draw_stnet(ax: Axes) -> None:
    """STNet from observations to classes, with what comes in from the side."""
    left, width, middle = 84, 22, 95
    box(ax, left - 1.7, 25.4, width + 3.4, 23.4, "", QUERY, facecolor="#dbe8ef", linestyle=(0, (3, 2)))
    write(ax, middle, 51, "S observations × 10 bands")
    arrow(ax, (middle, 49.8), (middle, 46.2))
    box(ax, left, 41, width, 5, "pointwise MLP  10 → 128", QUERY)
    arrow(ax, (middle, 40.8), (middle, 38))
    circle = {"boxstyle": "circle,pad=0.12", "fc": "white", "ec": QUERY, "lw": 1.2}
    write(ax, middle, 36.7, "+", fontsize=13, bbox=circle)
    arrow(ax, (middle, 35.4), (middle, 32.4))
    box(ax, left, 27.2, width, 5, "Transformer encoder layer", QUERY)
    arrow(ax, (middle, 27), (middle, 22.9))
    box(ax, left, 17.7, width, 5, "vegetation-weighted pooling", PLANT)
    arrow(ax, (middle, 17.5), (middle, 14.9))
    box(ax, left, 9.7, width, 5, "decoder  128 → 64 → 32 → 21", LOSS)
    arrow(ax, (middle, 9.5), (middle, 7.2))
    for number, colour in enumerate(CDL20.colours):
        corner = (left + number * width / 21, 5)
        ax.add_patch(Rectangle(corner, 0.85, 1.9, facecolor=np.array(colour) / 255, edgecolor="none"))
    write(ax, middle, 3.3, "21 classes")


def draw_side_inputs(ax: Axes) -> None:
    """Day encoding and vegetation weights, which STNet gets beside the bands."""
    encoding = small_axes(ax, 69.5, 34.2, 9, 5, QUERY)
    encoding.plot(sinusoid_table(366, 128)[:, [68, 80, 92, 108]], color=QUERY, linewidth=0.9, alpha=0.8)
    encoding.set(xlim=(-4, 370), ylim=(-1.15, 1.15))
    write(ax, 74, 32.6, "day encoding")
    arrow(ax, (78.8, 36.7), (93.3, 36.7), colour=QUERY)
    series = made_up_series()
    weights = small_axes(ax, 69.5, 17.7, 9, 5, PLANT)
    weights.bar(series.doy[0], vegetation_weight(series.values)[0], width=3.2, color=PLANT)
    weights.set(xlim=(-4, 370))
    write(ax, 74, 16, "vegetation weight")
    arrow(ax, (78.8, 20.2), (83.7, 20.2), colour=PLANT)


def draw() -> Figure:
    figure = Figure(figsize=(WIDTH / 10, HEIGHT / 10), dpi=DPI)
    FigureCanvasAgg(figure)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))
    ax.axis("off")
    panel(ax, 0.8, 64.9, "Pre-training without labels", "main_moco.py", "#f3f5f6")
    panel(ax, 67, 42.2, "Fine-tuning STNet", "main_tscls.py", "#f3f5f6")
    draw_views(ax)
    draw_contrast(ax)
    draw_stnet(ax)
    draw_side_inputs(ax)
    arrow(ax, (43.7, 43.9), (43.7, 47.2), (82, 47.2), colour=QUERY)
    write(ax, 54.5, 48.7, "weights of encoder_q", QUERY)
    return figure


if __name__ == "__main__":
    with atomic_write(Path(__file__).with_name("architecture.png")) as partial:
        draw().savefig(partial)
