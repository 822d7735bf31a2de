"""The label raster of a scene, made as the Cropland Data Layer is: 30 m cells, a confidence, and errors.

Errors lie where real ones do (Boryan et al. 2011, Geocarto Int. 26; Lark et al. 2021, Remote Sens. 13): along field
edges, where a cell of 30 m is mixed, less often inside of fields that the classifier was unsure of, and now and then
over a whole field. All rates are assumed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from datasets.optional import need
from datasets.simulation import noise
from datasets.simulation.crops import CROPS, NUMBER
from datasets.simulation.landscape import ScenePlan, frame
from datasets.simulation.render import Ground, Window, at_edge, ground_of
from datasets.simulation.sites import SITES
from datasets.simulation.sky import PIXEL

CELL = 30.0  # m
CRS = "EPSG:5070"  # CONUS Albers, on whose 30 m grid, 15 m off its origin, the CDL lies
REACH = 2  # cells from a field edge within which edge errors occur
EDGE_ERRORS = (0.25, 0.05)  # chance of a wrong cell at an edge, and one cell further in
UNSURE_ERRORS = 0.08  # chance of a wrong cell where confidence is 0, inside fields; falls to 0 at 100 per cent
_LABEL_STREAM = 16  # keeps these random streams apart from the others
_ERROR, _ACROSS, _DOWN, _OTHER, _DOUBT = range(5)  # random fields


class Cells(NamedTuple):
    """The grid of the label raster."""

    left: float
    top: float
    height: int
    width: int


def cells_of(plan: ScenePlan) -> Cells:
    """All cells that cover the images, in whole cells."""
    at, side = frame(SITES[plan.site]), plan.size * PIXEL
    transform_bounds = need("rasterio.warp", "a scene").transform_bounds
    bounds = transform_bounds(f"EPSG:{at.epsg}", CRS, at.left, at.top - side, at.left + side, at.top)
    low, high = (np.floor((np.array(bounds[:2]) - 15) / CELL), np.ceil((np.array(bounds[2:]) - 15) / CELL))
    width, height = (high - low).astype(int)
    return Cells(float(low[0] * CELL + 15), float(high[1] * CELL + 15), int(height), int(width))


def label_window(plan: ScenePlan, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """(rows, columns) uint8 codes and confidence in per cent of a window of cells."""
    wide = window.grown(2 * REACH)
    cells = cells_of(plan)
    xs = cells.left + CELL * (wide.column + np.arange(wide.width) + 0.5)
    ys = cells.top - CELL * (wide.row + np.arange(wide.height) + 0.5)
    ground = _ground_at(plan, xs, ys)
    edge = at_edge(ground.number)
    near = at_edge(edge) | edge

    def normal(field: int, scale: float) -> np.ndarray:
        return noise.layered((plan.seed, _LABEL_STREAM, plan.site, plan.year, field), xs, ys, scale, 2)

    confidence = 57 + 72 * ground.certainty[ground.number] + 6 * normal(_DOUBT, 120.0)
    confidence -= np.where(edge, 30, np.where(near, 8, 0)) * (1 + 0.4 * normal(_DOUBT, 45.0))
    confidence = np.clip(confidence, 1, 100)
    chance = np.where(edge, EDGE_ERRORS[0], np.where(near, EDGE_ERRORS[1], UNSURE_ERRORS * (1 - confidence / 100)))
    wrong = noise.uniform(normal(_ERROR, 45.0)) < chance
    claimed = ground.claimed[ground.number]
    mistaken = _other_cover(plan, noise.uniform(normal(_OTHER, 90.0)))
    down, across = normal(_DOWN, 60.0), normal(_ACROSS, 60.0)
    for rows, columns in ((down, across), (-down, -across), (across, -down), (-across, down)):  # the last one decides
        beside = _shifted(claimed, rows, columns)
        mistaken = np.where(near & (beside != claimed), beside, mistaken)
    codes = np.where(wrong, mistaken, claimed)
    confidence = np.where(wrong, np.maximum(confidence - 12, 1), confidence)
    inner = slice(2 * REACH, -2 * REACH)
    return codes[inner, inner].astype(np.uint8), np.rint(confidence[inner, inner]).astype(np.uint8)


def _ground_at(plan: ScenePlan, xs: np.ndarray, ys: np.ndarray) -> Ground:
    """The polygon at the centre of each cell, to the 10 m pixel."""
    at = frame(SITES[plan.site])
    transform = need("rasterio.warp", "a scene").transform
    x, y = np.meshgrid(xs, ys)
    east, north = (np.asarray(v) for v in transform(CRS, f"EPSG:{at.epsg}", x.ravel(), y.ravel()))
    columns = np.floor((east - at.left) / PIXEL).astype(np.int64)
    rows = np.floor((at.top - north) / PIXEL).astype(np.int64)
    row, column = int(rows.min()), int(columns.min())
    window = Window(row, column, int(rows.max()) - row + 1, int(columns.max()) - column + 1)
    ground = ground_of(plan, window, with_fields=False)
    return ground._replace(number=ground.number[rows - row, columns - column].reshape(x.shape))


def _shifted(codes: np.ndarray, down: np.ndarray, across: np.ndarray) -> np.ndarray:
    """The code up to REACH cells away, in a direction that the two random fields give."""
    rows, columns = np.indices(codes.shape)
    rows = np.clip(rows + np.clip(np.rint(1.5 * down), -REACH, REACH).astype(int), 0, codes.shape[0] - 1)
    columns = np.clip(columns + np.clip(np.rint(1.5 * across), -REACH, REACH).astype(int), 0, codes.shape[1] - 1)
    return codes[rows, columns]


def _other_cover(plan: ScenePlan, pick: np.ndarray) -> np.ndarray:
    """Codes of the site's covers, by their shares."""
    land = SITES[plan.site].land
    limits = np.cumsum(list(land.values())) / sum(land.values())
    codes = np.array([CROPS[NUMBER[name]].codes[0] for name in land])
    return codes[np.minimum(np.searchsorted(limits, pick), len(codes) - 1)]
