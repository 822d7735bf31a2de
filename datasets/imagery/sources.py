"""Reading the bands of images on a grid, whatever file they are in."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence

import numpy as np

from datasets.imagery import cube
from datasets.imagery.grid import Grid, Nearest, Sampler
from datasets.imagery.image import Image, Layer
from datasets.imagery.raster import Header, RasterFiles

LARGEST = 1 << 25  # values of a file that are read at once for a window on a coarser grid


class Sources:
    """Opens files when they are first read; copied or forked to another process, it starts with none open there."""

    def __init__(self):
        self._start()

    def _start(self) -> None:
        self._process, self._rasters = os.getpid(), RasterFiles()

    def __reduce__(self):
        return Sources, ()

    def read_image(self, image: Image, headers: dict[str, Header], grid: Grid, window):
        """Values (10, h, w), whether all files cover a pixel (h, w), and the image's `scl` layer (h, w) or None."""
        return WindowReader(self, [image], headers, grid, window).read(image)

    def read(self, header: Header, bands: Sequence[int], part) -> tuple[np.ndarray, np.ndarray | None]:
        """Values (n, h, w) of bands (from 0) in a part of a file, and where its mask says valid (`None`: no mask)."""
        if header.cube is not None:
            return cube.read_part(header, bands, part), None
        if self._process != os.getpid():  # a fork would share the positions in the parent's open files
            self._start()
        return self._rasters.read(header, bands, part)


class WindowReader:
    """Reads one window of many images. A file that holds several of them is read once, and forgotten after the last."""

    def __init__(self, sources: Sources, images: Sequence[Image], headers: dict[str, Header], grid: Grid, window):
        self.sources, self.headers, self.sampler = sources, headers, Sampler(grid, window)
        self.uses: Counter = Counter()  # how many images still need a file
        self.bands: dict[str, list[int]] = {}
        self._parts: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for image in images:
            layers = _layers(image)
            self.uses.update({layer.file for layer in layers})
            for layer in layers:
                self.bands.setdefault(layer.file, []).append(layer.band)
        for file, bands in self.bands.items():
            self.bands[file] = sorted(set(bands))

    def read(self, image: Image) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Values (10, h, w) as stored, where all ten files have the pixel (h, w) bool, the scl layer (h, w) or None."""
        files = {layer.file for layer in _layers(image)}
        parts = {file: self._part(file) for file in files}
        inside = np.logical_and.reduce([parts[file][1] for file in {layer.file for layer in image.bands}])
        values = self._stack(image.bands, parts)
        scl = None
        if image.scl is not None:
            plane = self._plane(image.scl, parts)
            scl = plane if parts[image.scl.file][1].all() else np.where(parts[image.scl.file][1], plane, 0)
        for file in files:
            self.uses[file] -= 1
            if not self.uses[file]:
                self._parts.pop(file, None)
        return values, inside, scl

    def _stack(self, layers: Sequence[Layer], parts) -> np.ndarray:
        """Ten planes as one array; a view where they follow one another in one file."""
        places = [self.bands[layer.file].index(layer.band) for layer in layers]
        one_file = len({layer.file for layer in layers}) == 1
        if one_file and places == list(range(places[0], places[0] + len(places))):
            return parts[layers[0].file][0][places[0] : places[0] + len(places)]
        if one_file:
            return parts[layers[0].file][0][places]
        return np.stack([self._plane(layer, parts) for layer in layers])

    def _plane(self, layer: Layer, parts) -> np.ndarray:
        return parts[layer.file][0][self.bands[layer.file].index(layer.band)]

    def _part(self, file: str) -> tuple[np.ndarray, np.ndarray]:
        """What the window gets of the needed bands of a file (n, h, w), and where it is inside and unmasked (h, w)."""
        if file not in self._parts:
            self._parts[file] = self._read(self.headers[file], self.bands[file])
        return self._parts[file]

    def _read(self, header: Header, bands: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        nearest = self.sampler.nearest(header.grid)
        strips = list(nearest.strips(LARGEST // len(bands)))
        if len(strips) == 1 and nearest.height:
            return self._read_strip(header, bands, nearest)
        dtype = np.result_type(*(header.dtypes[band] for band in bands))
        values, inside = np.zeros((len(bands), *nearest.inside.shape), dtype), nearest.inside.copy()
        for rows, strip in strips:
            if strip.height:
                values[:, rows], inside[rows] = self._read_strip(header, bands, strip)
        return values, inside

    def _read_strip(self, header: Header, bands: Sequence[int], nearest: Nearest) -> tuple[np.ndarray, np.ndarray]:
        values, valid = self.sources.read(header, bands, nearest)
        inside = nearest.inside if valid is None else nearest.inside & nearest.pick(valid[None])[0]
        return nearest.pick(values), inside


def _layers(image: Image) -> tuple[Layer, ...]:
    return image.bands if image.scl is None else (*image.bands, image.scl)
