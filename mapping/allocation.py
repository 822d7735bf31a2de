"""How many points of a sample each class of a map gets (Olofsson et al. 2014, section 5.1.2)."""

from __future__ import annotations

import numpy as np

from datasets.errors import DataError

FLOOR = 50  # points: Olofsson et al. give rare classes 50 to 100
METHODS = ("proportional", "equal")


def allocate(
    pixels: np.ndarray, size: int, method: str = "proportional", floor: int = FLOOR, most: np.ndarray | None = None
) -> np.ndarray:
    """Points of each class, (C,) int64, that sum to `size`, none above `most` (C,), by default the class's pixels.

    pixels: (C,) of each class in the map, 1 or more. proportional: by pixels, but at least `floor` of each class (all
    it can have where that is less; where `size` does not suffice for the floors, equal ones that take half of it);
    equal: as many of each. What a class cannot take goes to the others.

    Raises:
        DataError: `size` is below the number of classes, or above what the classes can take.
    """
    pixels = np.asarray(pixels)
    most = pixels if most is None else np.asarray(most)
    if not len(pixels) <= size <= most.sum():
        raise DataError(
            f"{size:,} points for a map of {len(pixels)} classes that can have {most.sum():,} points; expected at least"
            " one a class, and no more than they can have"
        )
    alike, none = np.ones(len(pixels)), np.zeros_like(pixels)
    if method == "equal":
        return _shared(size, alike, none, most)
    low = np.minimum(floor, most)
    if low.sum() > size:
        low = _shared(max(size // 2, len(pixels)), alike, none, low)
    return _shared(size, pixels.astype(np.float64), low, most)


def _shared(size: int, weights: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Whole numbers from low to high that sum to size, by weight where neither limit holds (largest remainder)."""
    exact = np.clip(_scale(size, weights, low, high) * weights, low, high)
    numbers = np.floor(exact).astype(np.int64)
    largest = np.argsort(numbers - exact, kind="stable")[: size - numbers.sum()]  # 0 at a limit
    numbers[largest] += 1
    return numbers


def _scale(size: int, weights: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
    """The factor by which the weights, clipped to low and high, sum to size: by bisection, as the sum only grows."""
    below, above = 0.0, float((high / weights).max())
    for _ in range(200):
        middle = (below + above) / 2
        if np.clip(middle * weights, low, high).sum() < size:
            below = middle
        else:
            above = middle
    return below
