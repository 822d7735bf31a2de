"""Images and classifiers that are held in memory, for tests of the windows of a map."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from affine import Affine
from rasterio.crs import CRS

from datasets.imagery.grid import Grid
from datasets.images import Pixels
from datasets.store import SeriesSet
from mapping.area import Box
from mapping.legend import Entry
from mapping.windows import NO_DATA, Options, Part, Plan
from tests.support.image_files import UTM, Scene

LEGEND = (Entry(3, "Corn", (1, 2, 3), 0), Entry(0, "Other", (4, 5, 6), 1), Entry(77, "Rice", (7, 8, 9), 2))


class KnownImages:
    """The series of a scene, as Images gives them. asked: windows and pixels of every read."""

    def __init__(self, scene: Scene):
        self.dates = list(scene.dates)
        self.grid = Grid(CRS.from_user_input(UTM), scene.transform, *scene.values.shape[2:])
        self.all, self.asked = scene.pixels(), []

    def read(self, window, pixels: np.ndarray | None = None) -> Pixels:
        self.asked.append((window, pixels))
        rows, cols = self.all.row - window.row_off, self.all.col - window.col_off
        chosen = (rows >= 0) & (rows < window.height) & (cols >= 0) & (cols < window.width)
        if pixels is not None:
            chosen[chosen] = pixels[rows[chosen], cols[chosen]]
        return some_of(self.all, chosen)


def some_of(pixels: Pixels, chosen: np.ndarray) -> Pixels:
    """The series that are chosen, (P,) bool."""
    each = np.repeat(chosen, pixels.lengths)
    return Pixels(
        pixels.bands[each], pixels.doy[each], *(values[chosen] for values in pixels[2:5]), counts=pixels.counts
    )


class Mask:
    """Which pixels of a grid are inside; as Within."""

    def __init__(self, values: np.ndarray):
        self.values = values

    def inside(self, window) -> np.ndarray:
        top, left = window.row_off, window.col_off
        return self.values[top : top + window.height, left : left + window.width]


class KnownClassifier:
    """Three classes by a formula. batches: lengths of the series that are seen together."""

    def __init__(self, device: str = "cpu"):
        self.device, self.batches = torch.device(device), []

    @staticmethod
    def probability(bands: np.ndarray, doy: np.ndarray) -> np.ndarray:
        """(3,) float32 of a series (T, 10)."""
        about = bands.astype(np.float64).mean(0) / 9000
        logits = np.array([about[0] + about[7], 2 * about[3], about[9] + (doy.astype(int) % 7).mean() / 7])
        return (np.exp(8 * logits) / np.exp(8 * logits).sum()).astype(np.float32)

    def predict(self, series: SeriesSet, *, draws: int, batch_size: int) -> Iterator[torch.Tensor]:
        assert draws == 0
        found = [self.probability(*series.store.series(i)) for i in series.rows]
        for start in range(0, len(found), batch_size):
            self.batches.append(series.lengths[start : start + batch_size].tolist())
            yield torch.from_numpy(np.array(found[start : start + batch_size])).log()


class Found(NamedTuple):
    """A whole map from its parts."""

    values: np.ndarray
    probabilities: np.ndarray | None
    counts: dict[str, int]


def plan_of(images, *, box=None, within=None, classes=LEGEND, size=256, **options) -> Plan:
    """A plan of all the images, or of a box (top, left, bottom, right)."""
    top, left, bottom, right = box or (0, 0, images.grid.height, images.grid.width)
    place = images.grid.transform @ Affine.translation(left, top)
    grid = Grid(images.grid.crs, place, bottom - top, right - left)
    return Plan(images, Box(top, left, grid), within, classes, Options(**options), size)


def part_of(plan: Plan, number: int, classifier) -> Part:
    return plan.classify(number, classifier, *plan.read(number))


def whole_map(plan: Plan, classifier) -> Found:
    """The windows side by side."""
    shape = plan.box.grid.height, plan.box.grid.width
    values, counts = np.full((2, *shape), 99, plan.dtype), {"outside": 0, "few": 0, "classified": 0}
    each = np.full((len(plan.classes), *shape), 99, np.uint8) if plan.options.probabilities else None
    for number, window in enumerate(plan.windows):
        part = part_of(plan, number, classifier)
        place = (slice(None), *window.toslices())
        values[place] = part.values
        if each is not None:
            each[place] = part.probabilities
        assert part.values.dtype == plan.dtype
        counts = {key: counts[key] + part.counts[key] for key in counts}
    return Found(values, each, counts)


def by_pixel(scene: Scene, inside: np.ndarray, least: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (3, h, w) float32, and which pixels have one (h, w), in a plain loop."""
    probability, valid = np.zeros((3, *inside.shape), np.float32), np.zeros(inside.shape, bool)
    pixels, first = scene.pixels(), 0
    for row, col, length in zip(pixels.row, pixels.col, pixels.lengths, strict=True):
        part = slice(first, first + length)
        if inside[row, col] and length >= least:
            probability[:, row, col] = KnownClassifier.probability(pixels.bands[part], pixels.doy[part])
            valid[row, col] = True
        first += length
    return probability, valid


def drawn(probability: np.ndarray, valid: np.ndarray, no_data: int = NO_DATA["uint8"]) -> np.ndarray:
    """Codes and confidences (2, h, w)."""
    codes = np.array([one.code for one in LEGEND])[probability.argmax(0)]
    return np.where(valid, np.stack([codes, np.rint(100 * probability.max(0))]), no_data)
