"""The label raster: right inside sure fields, wrong and unsure along edges, on the grid of the CDL."""

from __future__ import annotations

import numpy as np
import pytest
from rasterio.warp import transform

from datasets.simulation.crops import CROPS, NUMBER
from datasets.simulation.labels import (
    CELL,
    CRS,
    EDGE_ERRORS,
    REACH,
    UNSURE_ERRORS,
    _ground_at,
    _other_cover,
    _shifted,
    cells_of,
    label_window,
)
from datasets.simulation.landscape import ScenePlan, frame
from datasets.simulation.render import Window, at_edge
from datasets.simulation.sites import HARVEY, SITES

PLAN = ScenePlan(seed=7, site=SITES.index(HARVEY), year=2019, size=600)
CELLS = cells_of(PLAN)


@pytest.fixture(scope="module")
def whole():
    return label_window(PLAN, Window(0, 0, CELLS.height, CELLS.width))


@pytest.fixture(scope="module")
def ground():
    xs = CELLS.left + CELL * (np.arange(CELLS.width) + 0.5)
    ys = CELLS.top - CELL * (np.arange(CELLS.height) + 0.5)
    return _ground_at(PLAN, xs, ys)


@pytest.fixture(scope="module")
def rings(ground):
    """Cells at an edge, those beside them, and the rest; without the border, where edges may lie outside."""
    edge = at_edge(ground.number)
    near = at_edge(edge) & ~edge
    rest = ~edge & ~near
    for ring in (edge, near, rest):
        ring[:3] = ring[-3:] = ring[:, :3] = ring[:, -3:] = False
    return edge, near, rest


def test_the_grid_is_that_of_the_cdl_and_covers_the_images():
    assert CELLS.left % 30 == 15 and CELLS.top % 30 == 15
    at, side = frame(HARVEY), 6_000
    corners = [at.left, at.left + side], [at.top, at.top - side]
    for x in corners[0]:
        for y in corners[1]:
            (east,), (north,) = transform(f"EPSG:{at.epsg}", CRS, [x], [y])
            assert 0 <= (east - CELLS.left) / CELL <= CELLS.width
            assert 0 <= (CELLS.top - north) / CELL <= CELLS.height
    assert CELLS.width * CELL < 1.1 * side and CELLS.height * CELL < 1.1 * side


def test_a_window_has_what_the_whole_has_there(whole):
    window = Window(57, 31, 64, 80)
    for part, all_of_it in zip(label_window(PLAN, window), whole, strict=True):
        np.testing.assert_array_equal(part, all_of_it[57:121, 31:111])


def test_errors_are_concentrated_at_edges(whole, ground, rings):
    wrong = whole[0] != ground.claimed[ground.number]
    edge, near, rest = (wrong[ring].mean() for ring in rings)
    assert 0.5 * EDGE_ERRORS[0] < edge < EDGE_ERRORS[0] * 1.1
    assert 0.5 * EDGE_ERRORS[1] < near < EDGE_ERRORS[1] * 1.2
    assert 0 < rest < 0.4 * UNSURE_ERRORS and near > rest


def test_cells_of_full_confidence_inside_a_field_carry_the_field_s_label(whole, ground, rings):
    sure = rings[2] & (whole[1] == 100)
    assert sure.mean() > 0.15
    np.testing.assert_array_equal(whole[0][sure], ground.claimed[ground.number][sure])


def test_labels_taken_by_the_rule_of_the_method_are_almost_all_right(whole, ground):
    codes, confidence = whole
    rule = (confidence > 95) & ~at_edge(codes)
    assert 0.15 < rule.mean() < 0.5
    truth = ground.code[ground.number]
    assert 0.94 < (codes == truth)[rule].mean() < 0.999
    assert (codes == truth)[rule].mean() > (codes == truth).mean() + 0.03


def test_confidence_is_lower_at_edges_and_where_labels_are_wrong(whole, ground, rings):
    confidence = whole[1].astype(float)
    edge, near, rest = (confidence[ring].mean() for ring in rings)
    assert edge + 10 < near < rest
    wrong = whole[0] != ground.claimed[ground.number]
    assert confidence[wrong & rings[0]].mean() < confidence[~wrong & rings[0]].mean() - 5
    assert confidence.min() >= 1 and confidence.max() == 100


def test_wrong_cells_at_an_edge_mostly_have_the_code_of_a_neighbour(whole, ground, rings):
    claimed = ground.claimed[ground.number]
    rows, columns = np.nonzero((whole[0] != claimed) & rings[0])
    reach = range(-REACH, REACH + 1)
    around = np.stack([claimed[rows + r, columns + c] for r in reach for c in reach])
    assert (around == whole[0][rows, columns]).any(axis=0).mean() > 0.75


def test_other_covers_are_drawn_by_their_shares_of_the_site():
    land = SITES[PLAN.site].land
    drawn = _other_cover(PLAN, (np.arange(10_000) + 0.5) / 10_000)
    first = {name: CROPS[NUMBER[name]].codes[0] for name in land}
    for name, share in land.items():
        assert (drawn == first[name]).mean() == pytest.approx(share / sum(land.values()), abs=2e-4)


def test_wrong_cells_lie_together(whole, ground, rings):
    wrong = (whole[0] != ground.claimed[ground.number])[3:-3, 3:-3]
    assert np.corrcoef(wrong[:, :-1].ravel(), wrong[:, 1:].ravel())[0, 1] > 0.15


def test_a_code_is_taken_from_down_and_across():
    codes = np.arange(25).reshape(5, 5)
    none, one = np.zeros((5, 5)), np.full((5, 5), 0.7)
    np.testing.assert_array_equal(_shifted(codes, none, none), codes)
    assert _shifted(codes, one, none)[1, 1] == codes[2, 1] and _shifted(codes, none, one)[1, 1] == codes[1, 2]
    assert _shifted(codes, -9 * one, 9 * one)[2, 2] == codes[0, 4]


def test_a_cell_is_of_the_polygon_at_its_centre(ground):
    from datasets.simulation.render import ground_of

    at = frame(HARVEY)
    image = ground_of(PLAN, Window(0, 0, 600, 600), with_fields=False)
    rows, columns = np.array([40, 100, 160]), np.array([40, 110, 162])
    x, y = CELLS.left + CELL * (columns + 0.5), CELLS.top - CELL * (rows + 0.5)
    east, north = (np.array(v) for v in transform(CRS, f"EPSG:{at.epsg}", x, y))
    r, c = ((at.top - north) // 10).astype(int), ((east - at.left) // 10).astype(int)
    np.testing.assert_array_equal(image.certainty[image.number[r, c]], ground.certainty[ground.number[rows, columns]])


def test_the_labels_of_a_window_are_known():
    """Values of a run that was looked at: cells of each code, and confidence."""
    codes, confidence = label_window(PLAN, Window(40, 40, 60, 60))
    counted = dict(zip(*(values.tolist() for values in np.unique(codes, return_counts=True)), strict=True))
    expected = {1: 379, 4: 963, 5: 852, 24: 206, 26: 397, 36: 251, 111: 71, 121: 17, 122: 18, 123: 36, 124: 37,
                141: 73, 176: 300}  # fmt: skip
    assert set(counted) == set(expected) and all(abs(counted[code] - expected[code]) <= 2 for code in expected)
    assert confidence.sum() == pytest.approx(309_231, abs=60)
    np.testing.assert_array_equal(confidence[::20, ::20], [[100, 43, 70], [91, 55, 100], [91, 96, 100]])
