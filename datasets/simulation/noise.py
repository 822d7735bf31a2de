"""Coherent random fields on the plane: the same point has the same value, whichever window it is computed in."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_STEPS = tuple(np.uint64(x) for x in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))  # of SplitMix64


def smooth(key: tuple[int, ...], xs: np.ndarray, ys: np.ndarray, scale: float) -> np.ndarray:
    """(rows, columns) float32, standard normal at every point of the grid `ys` x `xs`, smooth over `scale`.

    White noise on a lattice of step `scale` under a cubic B-spline, which is nearly a Gaussian and so shows no axes.
    Coordinates and scale have one unit. `key`, whole numbers from 0 up, names the field.
    """
    across, down = _taps(np.asarray(xs) / scale), _taps(np.asarray(ys) / scale)
    lattice = _lattice(key, down.first, down.count, across.first, across.count)
    rows = sum(lattice[down.start + k] * down.weights[:, k, None] for k in range(4))
    return sum(rows[:, across.start + k] * across.weights[:, k] for k in range(4))


def layered(
    key: tuple[int, ...], xs: np.ndarray, ys: np.ndarray, scale: float, octaves: int, gain: float = 0.55
) -> np.ndarray:
    """Like `smooth`, with detail: each octave has half the scale and `gain` times the amplitude of the one before."""
    amplitudes = gain ** np.arange(octaves)
    layers = (a * smooth((*key, k), xs, ys, scale / 2**k) for k, a in enumerate(amplitudes.astype(np.float32)))
    return sum(layers) / np.float32(np.sqrt((amplitudes**2).sum()))


def uniform(normal: np.ndarray) -> np.ndarray:
    """Standard normal to uniform numbers, by the approximation of Page (1977, Appl. Stat. 26); error below 2e-4."""
    return 0.5 + 0.5 * np.tanh(0.79788456 * normal + 0.03567721 * normal * normal * normal)


class _Taps(NamedTuple):
    """How N points lie among the lattice points of one axis, which run from number `first`, `count` of them."""

    first: int
    count: int
    start: np.ndarray  # (N,) the first of the four lattice points around a point, counted from `first`
    weights: np.ndarray  # (N, 4) of those; their squares sum to 1


def _taps(at: np.ndarray) -> _Taps:
    left = np.floor(at)
    t = at - left
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1)
    weights /= np.sqrt((weights**2).sum(axis=1, keepdims=True))
    first = int(left.min()) - 1
    start = left.astype(np.int64) - 1 - first
    return _Taps(first, int(start.max()) + 4, start, weights.astype(np.float32))


def _lattice(key: tuple[int, ...], row: int, rows: int, column: int, columns: int) -> np.ndarray:
    """Standard normal numbers of lattice points, from a hash of their place (SplitMix64, Steele et al. 2014)."""
    start = np.random.SeedSequence(key).generate_state(1, np.uint64)
    down, across = (np.arange(n, n + count).astype(np.uint64) for n, count in ((row, rows), (column, columns)))
    state = _mix(_mix(start + down * _STEPS[0])[:, None] + across * _STEPS[0])
    radius = np.sqrt(-2 * np.log(((state >> np.uint64(32)).astype(np.float64) + 0.5) / 2**32))  # Box-Muller
    angle = (state & np.uint64(0xFFFFFFFF)).astype(np.float64) * (2 * np.pi / 2**32)
    return (radius * np.cos(angle)).astype(np.float32)


def _mix(state: np.ndarray) -> np.ndarray:
    state = (state ^ (state >> np.uint64(30))) * _STEPS[1]
    state = (state ^ (state >> np.uint64(27))) * _STEPS[2]
    return state ^ (state >> np.uint64(31))
