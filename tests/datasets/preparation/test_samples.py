import numpy as np
import pytest
from affine import Affine
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.warp import transform

from datasets.imagery.grid import Grid
from datasets.preparation.labels import Labels
from datasets.preparation.samples import Samples, all_inside, at_centres, draw_per_group, draw_pixels, pixel_at, unique
from tests.support.imagery import ORIGIN, UTM

GRID = Grid(UTM, ORIGIN, 30, 40)
CONUS = CRS.from_epsg(5070)


THIRTY = ORIGIN * Affine.scale(3)  # 30 m pixels


def labels_of(codes, transform=THIRTY, crs=UTM, row=0, col=0):
    """Labels of which every pixel but those of code 0 qualifies."""
    return Labels(codes, codes > 0, row, col, crs, transform, {})


def found(samples):
    return set(zip(samples.row.tolist(), samples.col.tolist(), samples.columns["code"].tolist(), strict=True))


def test_the_centre_of_a_30_m_label_is_the_middle_one_of_its_nine_pixels():
    codes = np.array([[0, 7], [8, 0]])
    samples, left_out = at_centres(labels_of(codes), GRID)
    assert found(samples) == {(1, 4, 7), (4, 1, 8)} and not any(left_out.values())
    samples, _ = at_centres(labels_of(codes, row=2, col=5), GRID)
    assert found(samples) == {(7, 19, 7), (10, 16, 8)}


def test_a_centre_on_the_line_between_two_pixels_takes_the_second():
    codes = np.array([[5]])
    samples, _ = at_centres(labels_of(codes, ORIGIN * Affine.scale(2)), GRID)
    assert found(samples) == {(1, 1, 5)}
    shifted = ORIGIN * Affine.translation(1e-9, -1e-9) * Affine.scale(2)
    assert found(at_centres(labels_of(codes, shifted), GRID)[0]) == {(1, 1, 5)}


def slow_centres(labels, grid):
    """Centre of each qualifying pixel to the pixel of the images, one by one; pixels at odds left out."""
    hits = {}
    for row, col in zip(*np.nonzero(labels.qualifies), strict=True):
        x, y = labels.transform * (labels.col + col + 0.5, labels.row + row + 0.5)
        if labels.crs != grid.crs:
            (x,), (y,) = transform(labels.crs, grid.crs, [x], [y])
        place = ~grid.transform * (x, y)
        assume(all(abs(value - round(value)) > 1e-4 for value in place))  # on a line rounding decides; see above
        c, r = (int(np.floor(value)) for value in place)
        if 0 <= r < grid.height and 0 <= c < grid.width:
            hits.setdefault((r, c), []).append(int(labels.codes[row, col]))
    return {(*pixel, codes[0]) for pixel, codes in hits.items() if len(set(codes)) == 1}, hits


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.floats(0, 360), st.floats(4, 60), st.floats(-180, 180), st.floats(0, 90),
    st.booleans(), st.booleans(),
)  # fmt: skip
def test_centres_are_found_on_rotated_shifted_and_projected_grids(seed, turn, size, shift, grid_turn, flip, projected):
    """Any affine grid of labels over any affine grid of images, in one CRS or two, against a plain loop."""
    codes = np.random.default_rng(seed).integers(0, 4, (9, 11))
    x, y = ORIGIN * (20, 15)
    grid = Grid(UTM, Affine.translation(x, y) * Affine.rotation(grid_turn) * Affine(10, 0, -200, 0, -10, 150), 30, 40)
    crs = CONUS if projected else UTM
    if projected:
        (x,), (y,) = transform(UTM, CONUS, [x], [y])
    pixel = Affine.rotation(turn) * Affine.scale(size, size if flip else -size)
    place = Affine.translation(x + shift + 0.37, y + 0.23) * pixel
    labels = labels_of(codes, place * Affine.translation(-8, -9), crs, row=3, col=2)
    samples, left_out = at_centres(labels, grid)
    expected, hits = slow_centres(labels, grid)
    assert found(samples) == expected
    inside = sum(map(len, hits.values()))
    assert left_out["centre outside the images"] == labels.qualifies.sum() - inside
    assert len(samples) + sum(left_out.values()) == labels.qualifies.sum()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 360), st.floats(4, 60), st.booleans())
def test_all_image_pixels_in_qualifying_labels_are_found(seed, turn, size, projected):
    codes = np.random.default_rng(seed).integers(0, 4, (9, 11))
    x, y = ORIGIN * (20, 15)
    crs = CONUS if projected else UTM
    if projected:
        (x,), (y,) = transform(UTM, CONUS, [x], [y])
    place = Affine.translation(x + 0.37, y) * Affine.rotation(turn) * Affine.scale(size, -size)
    labels = labels_of(codes, place * Affine.translation(-6, -5), crs, row=1, col=2)
    pixels = [(row, col) for row in range(GRID.height) for col in range(GRID.width)]
    xs, ys = zip(*(GRID.transform * (col + 0.5, row + 0.5) for row, col in pixels), strict=True)
    if projected:
        xs, ys = transform(UTM, CONUS, xs, ys)
    expected, inverse = set(), ~labels.transform
    for (row, col), px, py in zip(pixels, xs, ys, strict=True):
        c, r = (int(np.floor(value)) for value in inverse * (px, py))
        r, c = r - labels.row, c - labels.col
        if 0 <= r < 9 and 0 <= c < 11 and codes[r, c]:
            expected.add((row, col, codes[r, c]))
    assert found(all_inside(labels, GRID)) == expected


def test_pieces_make_the_same_whole(monkeypatch):
    labels = labels_of(np.random.default_rng(0).integers(0, 3, (10, 13)))
    whole = found(at_centres(labels, GRID)[0]), found(all_inside(labels, GRID))
    monkeypatch.setattr("datasets.preparation.samples.STRIP", 50)
    assert (found(at_centres(labels, GRID)[0]), found(all_inside(labels, GRID))) == whole


def test_points_that_have_no_place_in_the_images_crs_are_outside():
    row, col = pixel_at(np.array([np.inf, 600_005, 599_999]), np.array([0, 4_199_995, 4_199_995]), GRID)
    assert row.tolist() == [-1, 0, -1] and col.tolist() == [-1, 0, -1]


def test_a_pixel_is_used_once_and_not_at_all_if_its_labels_differ():
    samples = Samples(
        np.array([3, 1, 3, 1, 2, 3]), np.array([0, 5, 0, 5, 2, 0]), {"code": np.array([7, 4, 7, 9, 6, 7])}
    )
    kept, twice, disputed = unique(samples, "code", GRID)
    assert found(kept) == {(2, 2, 6), (3, 0, 7)} and (twice, disputed) == (2, 2)
    assert kept.row.tolist() == [2, 3]
    assert len(unique(samples.take(np.zeros(0, int)), "code", GRID)[0]) == 0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 4), max_size=60), st.integers(1, 10), st.integers(0, 5))
def test_at_most_so_many_of_each_group_are_drawn(groups, most, seed):
    groups = np.array(groups, dtype=int)
    drawn = draw_per_group(groups, most, seed)
    assert np.array_equal(drawn, np.unique(drawn)) and np.array_equal(drawn, draw_per_group(groups, most, seed))
    for group in set(groups.tolist()):
        assert (groups[drawn] == group).sum() == min(most, (groups == group).sum())


def test_every_member_of_a_group_is_as_likely_as_any_other():
    groups = np.array([0, 1, 0, 1, 0, 1, 0, 1])
    drawn = np.concatenate([draw_per_group(groups, 1, seed) for seed in range(400)])
    assert np.bincount(drawn, minlength=8).min() > 60  # of 100 expected


def test_pixels_are_drawn_from_the_whole_grid_without_repetition():
    samples = draw_pixels(GRID, 300, seed=1)
    places = samples.row.astype(int) * 40 + samples.col
    assert len(set(places.tolist())) == 300 and (np.diff(places) > 0).all()
    assert sorted(samples.columns["rank"].tolist()) == list(range(300))
    assert samples.row.max() < 30 and samples.col.max() < 40 and samples.row.min() < 3 and samples.row.max() > 26
    fewer = draw_pixels(GRID, 300, seed=2)
    assert not np.array_equal(fewer.row, samples.row)
    by_rank = np.argsort(samples.columns["rank"])[:150]
    assert 8 < samples.row[by_rank].mean() < 21  # the first of the draw are from everywhere too
    everything = draw_pixels(GRID, 1200, seed=0)
    assert np.array_equal(everything.row * 40 + everything.col, np.arange(1200))


@pytest.mark.parametrize("mask", [np.array([True, False]), np.array([0])])
def test_columns_go_with_their_pixels(mask):
    samples = Samples(np.array([1, 2]), np.array([3, 4]), {"code": np.array([5, 6])}).having(label=np.array([7, 8]))
    taken = samples.take(mask)
    assert (len(taken), taken.col.tolist(), taken.columns["label"].tolist()) == (1, [3], [7])
