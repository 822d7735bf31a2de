"""Embeddings as files, in constant memory: arrays in an .npz, bands of a GeoTIFF."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from datasets.errors import DataError
from datasets.images import Images, Pixels
from datasets.optional import need
from datasets.store import SeriesSet, Store
from tscls.classifier import Classifier
from utils.files import atomic_write

WINDOW = 256  # pixels along a side of what is read together
SAMPLES, SAMPLE_WINDOW = 16, 32  # windows from which the range of the features is taken, and pixels along their side
MARGIN = 1.25  # by which the range is wider than that of the sample
LARGEST, NO_DATA = 127, -128  # of int8


@contextmanager
def npz_writer(path: Path, count: int, width: int) -> Iterator[Callable]:
    """A function of (ids (B,), labels (B,) or None, features (B, width)) that appends ``count`` series to an .npz.

    The file has the arrays features (float32), id and, where known, label, and appears once it is complete.
    """
    kept: dict[str, list[np.ndarray]] = {"id": [], "label": []}
    with atomic_write(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        with archive.open("features.npy", "w", force_zip64=True) as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": (count, width)}
            np.lib.format.write_array_header_1_0(file, header)

            def write(ids: np.ndarray, labels: np.ndarray | None, features: np.ndarray) -> None:
                file.write(np.ascontiguousarray(features, "<f4").tobytes())
                kept["id"].append(ids)
                if labels is not None:
                    kept["label"].append(labels)

            yield write
        for name, parts in kept.items():
            if parts:
                with archive.open(f"{name}.npy", "w") as file:
                    joined = np.concatenate(parts)
                    np.lib.format.write_array(file, joined.astype(str) if joined.dtype == object else joined)


class Quantisation:
    """Features as int8, each with a range of its own: value = scale * number + offset.

    Args:
        features: a sample (N, F), from which the range is taken, with a margin.
    """

    def __init__(self, features: np.ndarray):
        low, high = features.min(0), features.max(0)
        self.offset = (low + high) / 2
        self.scale = np.maximum(MARGIN * (high - low) / 2, 1e-6) / LARGEST
        self.clipped = self.total = 0

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """(N, F) int8; counts the values beyond the range."""
        numbers = np.rint((features - self.offset) / self.scale)
        self.clipped += int((np.abs(numbers) > LARGEST).sum())
        self.total += numbers.size
        return numbers.clip(-LARGEST, LARGEST).astype(np.int8)


def embed_pixels(encoder: Classifier, pixels: Pixels) -> np.ndarray:
    """Features (P, F) float32 of the pixels of a window."""
    offsets = np.concatenate([[0], np.cumsum(pixels.lengths)])
    store = Store(Path("images"), "the images", {"classes": None}, pixels.bands, pixels.doy, offsets)
    found = list(encoder.embed(SeriesSet.whole(store), draws=0))
    return torch.cat(found).numpy() if found else np.zeros((0, encoder.model.num_features), np.float32)


def write_raster(encoder: Classifier, images: Images, path: Path, tags: dict[str, str]) -> tuple[int, float]:
    """Write the features of every pixel as a GeoTIFF; returns pixels, and the fraction of values that were clipped.

    DataError: no pixel has an observation.
    """
    rasterio, grid = need("rasterio", "embeddings of images"), images.grid
    quantise = Quantisation(_sample(encoder, images))
    width, count = encoder.model.num_features, 0
    profile = {"driver": "GTiff", "tiled": True, "blockxsize": WINDOW, "blockysize": WINDOW, "compress": "deflate"}
    profile |= {"count": width, "dtype": "int8", "nodata": NO_DATA, "interleave": "pixel", "bigtiff": "if_safer"}
    profile |= {"height": grid.height, "width": grid.width, "crs": grid.crs, "transform": grid.transform}
    windows = list(grid.windows(WINDOW))
    with atomic_write(path) as partial, rasterio.Env(GDAL_PAM_ENABLED=False):
        with rasterio.open(partial, "w", **profile) as file:
            file.scales, file.offsets = quantise.scale.tolist(), quantise.offset.tolist()
            file.descriptions = [f"f{i}" for i in range(width)]
            file.update_tags(**tags)
            for window, pixels in zip(windows, images.read_each((one, None) for one in windows), strict=True):
                values = np.full((width, window.height, window.width), NO_DATA, np.int8)
                place = (pixels.row - int(window.row_off), pixels.col - int(window.col_off))
                values[(slice(None), *place)] = quantise(embed_pixels(encoder, pixels)).T
                file.write(values, window=window)
                count += len(pixels.lengths)
    return count, quantise.clipped / max(quantise.total, 1)


def _sample(encoder: Classifier, images: Images) -> np.ndarray:
    """Features of pixels in small windows spread over the images."""
    windows = list(images.grid.windows(SAMPLE_WINDOW))
    chosen = [windows[i] for i in np.unique(np.linspace(0, len(windows) - 1, SAMPLES, dtype=int))]
    found = np.concatenate([embed_pixels(encoder, images.read(window)) for window in chosen])
    if not len(found):
        raise DataError(f"{images!r}: no observation in {len(chosen)} windows spread over it; nothing to embed")
    return found
