"""Values of images: which are missing, and digital numbers from what is stored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from datasets.bands import DN_SCALE
from datasets.errors import DataError

FILL = 65535  # what unsigned 16-bit images have where nothing was observed
LARGEST = np.iinfo(np.int16).max
SCENE_CLASSES = range(12)


def missing(values: np.ndarray, nodata: Sequence[float | None]) -> np.ndarray:
    """Where an observation (10, h, w) is missing, (h, w) bool: a band is the file's no-data, NaN, infinite or 65535, or
    all are 0. nodata: a value or `None` a band."""
    low, high = values.min(axis=0), values.max(axis=0)  # NaN where a band is
    bad = (low == 0) & (high == 0)
    if values.dtype.kind == "f":
        bad |= ~(np.isfinite(low) & np.isfinite(high))
    if values.dtype == np.uint16:
        bad |= high == FILL
    elif values.dtype.itemsize > 2 or values.dtype.kind == "f":
        bad |= (values == FILL).any(axis=0)
    if len(set(nodata)) == 1 and nodata[0] is not None and (values.dtype, nodata[0]) != (np.uint16, FILL):
        bad |= low == 0 if nodata[0] == 0 and values.dtype.kind == "u" else _equal(values, nodata[0]).any(axis=0)
    elif len(set(nodata)) > 1:
        for band, value in zip(values, nodata, strict=True):
            if value is not None:
                bad |= _equal(band, value)
    return bad


def _equal(values: np.ndarray, value: float) -> np.ndarray:
    """Where values are a no-data value, which a header holds as a float64."""
    if values.dtype.kind == "f":
        return values == values.dtype.type(value)
    return values == int(value) if float(value).is_integer() else np.zeros(values.shape, bool)


def digital_numbers(values: np.ndarray, scale: float, offset: float, valid: np.ndarray) -> tuple[np.ndarray, int]:
    """DN (10, h, w) int16 = value * scale + offset, and how many of the valid ones were above 32,767 and are that now.

    Valid pixels that an offset brings to 0 or below become 1, as in ESA's conversion (0 is kept for no-data); DN below
    -32,768 become that. What is not valid has any value.
    """
    if values.dtype == np.int16 and (scale, offset) == (1, 0):
        return values, 0
    if values.dtype == np.uint16 and (scale, offset) == (1, 0):
        numbers = values
    elif values.dtype.kind in "iu" and values.dtype.itemsize <= 2 and scale == 1 and float(offset).is_integer():
        numbers = values.astype(np.int32) + int(offset)
    else:
        numbers = np.where(np.isfinite(values), values, 0).astype(np.float64)
        numbers = np.rint(numbers * scale + offset)
    if offset:
        numbers = np.maximum(numbers, 1)
    clipped = 0
    if numbers.max(initial=0) > LARGEST:
        clipped = int(np.count_nonzero((numbers > LARGEST) & valid))
        numbers = np.minimum(numbers, LARGEST)
    if numbers.dtype.kind == "f" or numbers.dtype.itemsize > 2:
        numbers = np.maximum(numbers, -LARGEST - 1)
    return numbers.view(np.int16) if numbers.dtype == np.uint16 else numbers.astype(np.int16), clipped


def is_reflectance(values: np.ndarray) -> bool:
    """Whether floats are reflectance, about 0 to 1 (clouds a little above), and not digital numbers."""
    return values.dtype.kind == "f" and values.size > 0 and float(np.percentile(values, 99)) <= 2


REFLECTANCE_SCALE = 1 / DN_SCALE


def parse_mask(mask: str | None) -> tuple[int, ...]:
    """'scl:3,8,9,10,11' -> the classes of the scene classification that are dropped."""
    if mask is None:
        return ()
    name, _, classes = mask.partition(":")
    texts = [text.strip() for text in classes.split(",")]
    if name.strip().lower() != "scl" or not all(text.isdigit() and int(text) in SCENE_CLASSES for text in texts):
        raise DataError(f"--mask {mask}: expected scl: and classes from 0 to 11, such as scl:3,8,9,10,11")
    return tuple(sorted(set(map(int, texts))))
