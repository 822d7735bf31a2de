"""What is done for one window of a map: its pixels are read, classified from all their observations, and smoothed."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from datasets.errors import DataError
from datasets.imagery.raster import BadFile
from datasets.images import Images, Pixels
from datasets.store import SeriesSet, Store
from mapping.area import Box, Within
from mapping.legend import Entry
from tscls.classifier import OBSERVATIONS, Classifier

CPU_BATCH, GPU_BATCH = 128, 512  # series of one length that the model sees together
NO_DATA = {"uint8": 255, "uint16": 65535}  # of both bands; 0 is the code of "Other"
NO_PER_CENT = 255


class Part(NamedTuple):
    """A finished window.

    values (2, h, w): code and confidence in per cent; probabilities (classes, h, w) uint8 per cent, or None; counts of
    pixels: `outside` of what the map is confined to, `few` observations, `classified`.
    """

    values: np.ndarray
    probabilities: np.ndarray | None
    counts: dict[str, int]


class Options(NamedTuple):
    """How pixels are classified. smooth: side of the neighbourhood, odd; 1 smooths nothing. until_doy: the day up to
    which there are images (`datasets.inseason`)."""

    min_observations: int = 1
    smooth: int = 1
    probabilities: bool = False
    until_doy: int | None = None


class Plan:
    """All windows of a map, by number, row by row. Picklable.

    dtype: of the map, uint8 where its codes fit, or else uint16.

    Raises:
        DataError: codes that are too large.
    """

    def __init__(
        self,
        images: Images,
        box: Box,
        within: Within | None,
        classes: tuple[Entry, ...],
        options: Options,
        size: int = 256,
    ):
        self.images, self.box, self.within = images, box, within
        self.classes, self.options, self.size = classes, options, size
        self.windows = list(box.grid.windows(size))
        largest = max(classes, key=lambda one: one.code)
        fitting = [dtype for dtype, no_data in NO_DATA.items() if largest.code < no_data]
        if not fitting:
            raise DataError(f"code {largest.code} of {largest.name}: a map holds codes of at most 65534")
        self.dtype = fitting[0]

    @property
    def no_data(self) -> int:
        return NO_DATA[self.dtype]

    def read(self, number: int) -> tuple[Pixels, np.ndarray]:
        """The series of a window and of the pixels around it that smoothing needs, and which are inside (h, w).

        BadFile: a file cannot be read; names the window too.
        """
        wide = self._wide(number)
        inside = self.within.inside(wide) if self.within else np.ones((wide.height, wide.width), bool)
        if not inside.any():
            return _no_pixels(), inside
        try:
            return self.images.read(wide, None if inside.all() else inside), inside
        except BadFile as error:
            raise BadFile(f"window {number} ({self._name(number)}): {error}") from None

    def _wide(self, number: int):
        """A window in the grid of the images, with a margin for smoothing as far as there are images."""
        window, grid, margin = self.windows[number], self.images.grid, self.options.smooth // 2
        top, left = self.box.row + window.row_off, self.box.col + window.col_off
        bottom, right = min(top + window.height + margin, grid.height), min(left + window.width + margin, grid.width)
        top, left = max(top - margin, 0), max(left - margin, 0)
        return type(window)(left, top, right - left, bottom - top)

    def _name(self, number: int) -> str:
        window = self.windows[number]
        rows, cols = self.box.row + window.row_off, self.box.col + window.col_off
        return f"rows {rows}-{rows + window.height - 1}, columns {cols}-{cols + window.width - 1}"

    def classify(self, number: int, classifier: Classifier, pixels: Pixels, inside: np.ndarray) -> Part:
        """The part of the map, from what `read` gave."""
        wide, window = self._wide(number), self.windows[number]
        enough = pixels.lengths >= self.options.min_observations
        place = (pixels.row[enough] - int(wide.row_off), pixels.col[enough] - int(wide.col_off))
        probability = np.zeros((len(self.classes), *inside.shape), np.float32)
        valid = np.zeros(inside.shape, bool)
        valid[place] = True
        if enough.any():
            longest = len(self.images.dates)
            probability[(slice(None), *place)] = class_probabilities(classifier, pixels, enough, longest).T
        if self.options.smooth > 1:
            probability = smoothed(probability, valid, self.options.smooth)
        top = self.box.row + window.row_off - wide.row_off
        left = self.box.col + window.col_off - wide.col_off
        core = (slice(top, top + window.height), slice(left, left + window.width))
        return self._part(probability[(slice(None), *core)], valid[core], inside[core])

    def _part(self, probability: np.ndarray, valid: np.ndarray, inside: np.ndarray) -> Part:
        codes = np.array([one.code for one in self.classes], self.dtype)
        best = probability.argmax(0)
        values = np.full((2, *valid.shape), self.no_data, self.dtype)
        values[0][valid] = codes[best][valid]
        values[1][valid] = per_cent(probability.max(0))[valid]
        each = None
        if self.options.probabilities:
            each = np.where(valid, per_cent(probability), np.uint8(NO_PER_CENT))
        counts = {"outside": int((~inside).sum()), "few": int((inside & ~valid).sum()), "classified": int(valid.sum())}
        return Part(values, each, counts)


def _no_pixels() -> Pixels:
    none = np.zeros(0, np.int64)
    return Pixels(np.zeros((0, 10), np.int16), np.zeros(0, np.int16), none, none, none, {})


def per_cent(probability: np.ndarray) -> np.ndarray:
    """Whole per cent, uint8."""
    return np.rint(probability * 100).astype(np.uint8)


def class_probabilities(classifier: Classifier, pixels: Pixels, chosen: np.ndarray, longest: int) -> np.ndarray:
    """(n, classes) float32 of the chosen series (P,) bool, from all their observations in one pass.

    Sums of floats depend on the shapes that a network computes with. So every batch holds series of one length, and
    the last one of a length is filled up with repeats: a pixel then gets the same bits whatever window it lies in.
    `longest` is the length that no series exceeds.
    """
    offsets = np.concatenate([[0], np.cumsum(pixels.lengths)])
    store = Store(Path("images"), "the images", {"classes": None}, pixels.bands, pixels.doy, offsets)
    size = GPU_BATCH if classifier.device.type == "cuda" else CPU_BATCH
    size = max(1, min(size, OBSERVATIONS // longest))
    positions = np.flatnonzero(chosen)
    rows, kept = full_batches(pixels.lengths[positions], size)
    found = torch.cat(list(classifier.predict(SeriesSet(store, positions[rows]), draws=0, batch_size=size)))
    probability = np.empty((len(positions), found.shape[1]), np.float32)
    probability[rows[kept]] = found.exp().numpy()[kept]
    return probability


def full_batches(lengths: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """An order (m,) of series, the longest first, in which every batch of `size` has one length, and which of its
    entries are no repeats that fill up a batch, (m,) bool."""
    order, kept = [], []
    by_length = np.argsort(-lengths, kind="stable")
    edges = np.flatnonzero(np.diff(lengths[by_length])) + 1
    for group in np.split(by_length, edges):
        fill = -len(group) % size
        order += [group, np.repeat(group[-1:], fill)]
        kept += [np.ones(len(group), bool), np.zeros(fill, bool)]
    return np.concatenate(order), np.concatenate(kept)


def smoothed(probability: np.ndarray, valid: np.ndarray, side: int) -> np.ndarray:
    """Means (classes, h, w) over the valid pixels of a `side` x `side` neighbourhood of each pixel, 0 where not valid.

    Added up in the same order around every pixel, so that the sums do not depend on where a window begins.
    """
    total = _sums(_sums(probability.astype(np.float64), side, 1), side, 2)
    count = _sums(_sums(valid[None].astype(np.float64), side, 1), side, 2)
    return np.where(valid, total / np.maximum(count, 1), 0)


def _sums(values: np.ndarray, side: int, axis: int) -> np.ndarray:
    """Sums of `side` neighbours along an axis, zeros beyond the edges."""
    margin = [(0, 0)] * values.ndim
    margin[axis] = (side // 2, side // 2)
    padded, size = np.pad(values, margin), values.shape[axis]
    total = np.zeros_like(values)
    for shift in range(side):
        total += padded.take(range(shift, shift + size), axis)
    return total
