"""Checks of some values of images: floats that are reflectance, an offset that is still in, days in a `doy` band."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from datasets.bands import DN_SCALE
from datasets.errors import DataError
from datasets.imagery.grid import Grid, Nearest
from datasets.imagery.image import Draft, Image
from datasets.imagery.names import choose_bands
from datasets.imagery.raster import BadFile, Header
from datasets.imagery.sources import Sources
from datasets.imagery.values import is_reflectance, missing

BLOCK = 1024  # pixels of a side that are read at once to see whether a file can be
SIZE = 128  # pixels of a side of a sampled window
IMAGES = 3  # that are sampled of each kind
ENOUGH = 2000  # valid pixels of an image
NOT_SHIFTED = 1000  # DN: the darkest pixels of every band are above where the offset was not taken off
TOO_DARK = -100  # DN: the darkest pixels of a band are below where it was taken off twice


def sample(image: Image, headers: dict[str, Header], sources: Sources, enough: int = ENOUGH) -> np.ndarray:
    """Valid values (10, n) as stored, from windows of the image spread from its centre until there are enough."""
    grid = headers[image.bands[0].file].grid
    found = []
    for window in _spread(grid):
        values, inside, _ = sources.read_image(image, headers, grid, window)
        valid = inside & ~missing(values, [headers[layer.file].nodata[layer.band] for layer in image.bands])
        found.append(values[:, valid])
        if sum(map(np.size, found)) >= 10 * enough:
            break
    return np.concatenate(found, axis=1)


def _spread(grid: Grid):
    """At most 16 windows on a 4 x 4 pattern, those near the centre first."""
    window = next(iter(grid.windows(1))).__class__
    height, width = min(SIZE, grid.height), min(SIZE, grid.width)
    places = sorted(
        {(int((grid.height - height) * y / 3), int((grid.width - width) * x / 3)) for y in range(4) for x in range(4)},
        key=lambda place: abs(2 * place[0] + height - grid.height) + abs(2 * place[1] + width - grid.width),
    )
    return [window(left, top, width, height) for top, left in places]


def check_values(images: list[Image], headers: dict[str, Header], sources: Sources) -> tuple[list[Image], list[str]]:
    """The images with the scale of reflectance where floats are that, and what a user is told.

    A few images of each kind (data type, scale, offset), spread over the dates, are sampled.
    """
    kinds: dict[tuple, list[int]] = {}
    for i, image in enumerate(images):
        is_float = any(np.dtype(headers[layer.file].dtypes[layer.band]).kind == "f" for layer in image.bands)
        kinds.setdefault((is_float, image.scale, image.offset), []).append(i)
    images, notes = list(images), []
    for (is_float, scale, offset), members in kinds.items():
        pooled = np.concatenate(_samples([images[i] for i in members], headers, sources), axis=1)
        if not pooled.shape[1]:
            continue
        if is_float and scale == 1 and is_reflectance(pooled):
            scale = 1 / DN_SCALE
            for i in members:
                images[i] = images[i]._replace(scale=scale)
            notes.append(f"floats up to {pooled.max():.3g} are reflectance: brought to digital numbers, times 10,000")
        notes += _warnings(np.percentile(pooled * scale, 1, axis=1), offset, len(members))
    return images, notes


def _samples(images: Sequence[Image], headers: dict[str, Header], sources: Sources) -> list[np.ndarray]:
    """Samples of a few images that have valid pixels, those spread evenly over the list first."""
    order = list(dict.fromkeys(np.linspace(0, len(images) - 1, IMAGES).round().astype(int).tolist()))
    order += [i for i in range(len(images)) if i not in order]
    samples = []
    for i in order[: 4 * IMAGES]:
        values = sample(images[i], headers, sources)
        samples.append(values.astype(np.float64))
        if sum(one.shape[1] > 0 for one in samples) >= IMAGES:
            break
    return samples


def _warnings(dark: np.ndarray, offset: float, count: int) -> list[str]:
    """From the 1st percentiles of the ten bands before the offset."""
    if offset == 0 and dark.min() > NOT_SHIFTED:
        return [
            f"warning: the darkest pixels of {count} images are above {NOT_SHIFTED} in every band (1st percentile from"
            f" {dark.min():.0f}), as if the offset of -1000 was not taken off; check the source, or give --offset -1000"
        ]
    if dark.min() + offset < TOO_DARK:
        return [
            f"warning: with the offset {offset:g} the darkest pixels of {count} images are negative (1st percentile"
            f" from {dark.min() + offset:.0f}), as if it was taken off before; check the source, or give --offset 0"
        ]
    return []


def unreadable(headers: dict[str, Header], sources: Sources) -> dict[str, str]:
    """Read every file whole; the reasons, by file, why some cannot be."""
    bad = {}
    for file, header in headers.items():
        try:
            for window in header.grid.windows(BLOCK):
                part = Nearest(window.row_off, window.col_off, window.height, window.width, None, None, None, True)
                sources.read(header, range(len(header.dtypes)), part)
        except BadFile as error:
            bad[file] = str(error)
    return bad


def days_of_year(drafts: Sequence[Draft], headers: dict[str, Header], sources: Sources) -> tuple[dict, list[str]]:
    """Day of year (from 1) in the `doy` band of every draft by name, `None` where it has no valid pixel, and notes.

    Published exports count days from 0: known when a 0 occurs, or the other way round a 366; else it is assumed.
    """
    raw = {draft.name: None for draft in drafts}
    for draft in drafts:
        value = _doy(draft, headers, sources)
        if value is not None and raw[draft.name] not in (None, value):
            raise DataError(f"{draft.file}: its parts have the days {raw[draft.name]} and {value}; expected one")
        raw[draft.name] = raw[draft.name] if value is None else value
    known = [value for value in raw.values() if value is not None]
    empty = sum(value is None for value in raw.values())
    from_one = bool(known) and max(known) == 366
    if from_one and min(known) == 0:
        raise DataError(f"{drafts[0].file}: the doy bands hold days from 0 to 366; expected 0-365 or 1-366")
    sure = "a 366 occurs" if from_one else "a 0 occurs" if known and min(known) == 0 else None
    why = sure or "assumed, as in published exports"
    notes = [f"dates are those of the doy band, which counts days from {1 if from_one else 0} ({why})"]
    if empty:
        notes.append(f"left out, as they have no valid pixel and so no date: {empty} images")
    return {name: None if value is None else value + (not from_one) for name, value in raw.items()}, notes


def _doy(draft: Draft, headers: dict[str, Header], sources: Sources) -> int | None:
    """The value of the `doy` band in the first sampled window that has valid pixels."""
    layers, _ = choose_bands(draft.layers, draft.file)
    image = Image(draft.name, None, tuple(layers), draft.layers["doy"])
    grid = headers[layers[0].file].grid
    for window in _spread(grid):
        values, inside, days = sources.read_image(image, headers, grid, window)
        valid = inside & ~missing(values, [headers[layer.file].nodata[layer.band] for layer in layers])
        if valid.any():
            found = np.unique(days[valid])
            if len(found) > 1 or not 0 <= found[0] <= 366 or found[0] % 1:
                some = ", ".join(f"{value:g}" for value in found[:3])
                raise DataError(f"{draft.file}: its doy band holds {some}; expected one day of year, 0-366")
            return int(found[0])
    return None
