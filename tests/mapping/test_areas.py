"""Accuracy and areas: the worked example of Olofsson et al. 2014, properties, and simulated samples."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mapping.areas import Z95, assess

# Olofsson et al. 2014, table 8: deforestation, forest gain, stable forest, stable non-forest; pixels of 30 m
MATRIX = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
PIXELS = np.array([200_000, 150_000, 3_200_000, 6_450_000])
HECTARES = PIXELS * 0.09


def test_the_worked_example_of_olofsson_comes_out_to_the_last_digit():
    found = assess(MATRIX, PIXELS, HECTARES)
    assert (round(found.oa, 4), round(found.oa_ci95, 4)) == (0.9465, 0.0185)
    assert found.users.round(4).tolist() == [0.8800, 0.7333, 0.9273, 0.9631]
    assert found.users_ci95.round(4).tolist() == [0.0740, 0.1008, 0.0397, 0.0205]
    assert found.producers.round(4).tolist() == [0.7487, 0.8472, 0.9345, 0.9616]
    assert found.producers_ci95.round(4).tolist() == [0.2133, 0.2544, 0.0343, 0.0184]
    assert found.area_ha.round().tolist() == [21_158, 11_686, 285_770, 581_386]
    assert found.area_ci95_ha.round().tolist() == [6_158, 3_756, 15_510, 16_282]
    assert not found.too_few.any() and found.coverage == 1


def by_the_equations(matrix, pixels):
    """Olofsson et al. 2014, equations 5 to 11, as they stand there, in plain loops."""
    classes, n, pixels = range(len(pixels)), matrix.sum(1), pixels.astype(float)
    weights = pixels / pixels.sum()
    p = np.array([[weights[i] * matrix[i, j] / n[i] for j in classes] for i in classes])
    users = np.array([p[i, i] / p[i].sum() for i in classes])
    producers = np.array([p[j, j] / p[:, j].sum() for j in classes])
    of_users = users * (1 - users) / (n - 1)
    of_oa = sum(weights[i] ** 2 * of_users[i] for i in classes)
    of_producers, of_areas = [], []
    for j in classes:
        total = sum(pixels[i] * matrix[i, j] / n[i] for i in classes)
        first = pixels[j] ** 2 * (1 - producers[j]) ** 2 * of_users[j]
        q = matrix[:, j] / n
        second = sum(pixels[i] ** 2 * q[i] * (1 - q[i]) / (n[i] - 1) for i in classes if i != j)
        of_producers.append((first + producers[j] ** 2 * second) / total**2)
        of_areas.append(sum((weights[i] * p[i, j] - p[i, j] ** 2) / (n[i] - 1) for i in classes))
    return p, users, producers, of_oa, of_users, np.array(of_producers), np.array(of_areas)


@st.composite
def samples(draw, low=0):
    """(matrix, pixels) of a map of 2 to 5 classes, two samples or more in each, and each in the reference."""
    count = draw(st.integers(2, 5))
    numbers = st.lists(st.integers(low, 60), min_size=count, max_size=count)
    matrix = np.array(draw(st.lists(numbers, min_size=count, max_size=count)))
    np.fill_diagonal(matrix, matrix.diagonal() + 2)
    pixels = np.array(draw(st.lists(st.integers(100, 10**10), min_size=count, max_size=count)))
    return matrix, pixels


@given(samples())
def test_every_figure_is_that_of_the_equations_of_olofsson(sample):
    matrix, pixels = sample
    found = assess(matrix, pixels, pixels * 0.01)
    p, users, producers, of_oa, of_users, of_producers, of_areas = by_the_equations(matrix, pixels)
    np.testing.assert_allclose(found.oa, np.trace(p), rtol=1e-9)
    np.testing.assert_allclose(found.users, users, rtol=1e-9)
    np.testing.assert_allclose(found.producers, producers, rtol=1e-9)
    np.testing.assert_allclose(found.area_ha, p.sum(0) * pixels.sum() * 0.01, rtol=1e-9)
    close = {"rtol": 1e-6, "atol": 1e-6}  # the root of a rounding error is about 1e-8
    np.testing.assert_allclose(found.oa_ci95, 1.96 * np.sqrt(max(of_oa, 0)), **close)
    np.testing.assert_allclose(found.users_ci95, 1.96 * np.sqrt(np.maximum(of_users, 0)), **close)
    np.testing.assert_allclose(found.producers_ci95, 1.96 * np.sqrt(np.maximum(of_producers, 0)), **close)
    areas = 1.96 * pixels.sum() * 0.01 * np.sqrt(np.maximum(of_areas, 0))
    np.testing.assert_allclose(found.area_ci95_ha, areas, rtol=1e-5, atol=1e-6 * pixels.sum() * 0.01)


@given(samples())
def test_areas_sum_to_that_of_the_map(sample):
    matrix, pixels = sample
    np.testing.assert_allclose(assess(matrix, pixels, pixels * 0.09).area_ha.sum(), pixels.sum() * 0.09)


@given(samples(), st.integers(1, 50))
def test_of_strata_in_proportion_every_figure_is_the_plain_one(sample, factor):
    matrix, _ = sample
    found = assess(matrix, matrix.sum(1) * factor, matrix.sum(1) * 1.0)
    total, true, mapped = matrix.sum(), matrix.sum(0), matrix.sum(1)
    np.testing.assert_allclose(found.oa, np.trace(matrix) / total)
    np.testing.assert_allclose(found.producers, matrix.diagonal() / true)
    f1 = 2 * matrix.diagonal() / (true + mapped)
    np.testing.assert_allclose(found.f1, f1)
    np.testing.assert_allclose(found.macro_f1, f1.mean())
    expected = true @ mapped / total**2
    np.testing.assert_allclose(found.kappa, (np.trace(matrix) / total - expected) / (1 - expected))
    np.testing.assert_allclose(found.area_ha, true)


@given(samples(), st.randoms())
def test_the_order_of_the_classes_does_not_matter(sample, random):
    matrix, pixels = sample
    order = list(range(len(pixels)))
    random.shuffle(order)
    one = assess(matrix, pixels, pixels * 2.0)
    other = assess(matrix[np.ix_(order, order)], pixels[order], pixels[order] * 2.0)
    for name in ("users", "users_ci95", "producers", "producers_ci95", "f1", "f1_ci95", "area_ha", "area_ci95_ha"):
        np.testing.assert_allclose(getattr(one, name)[order], getattr(other, name), rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose([one.kappa, one.kappa_ci95], [other.kappa, other.kappa_ci95], rtol=1e-7)


@settings(max_examples=20)
@given(samples(low=1))
def test_intervals_of_f1_and_kappa_are_those_of_derivatives_taken_numerically(sample):
    matrix, pixels = sample
    found = assess(matrix, pixels, pixels * 1.0)
    n, weights = matrix.sum(1), pixels / pixels.sum()

    def figures(fractions):  # fractions (C, C) of the samples of a row
        p = weights[:, None] * fractions
        f1 = 2 * p.diagonal() / (p.sum(0) + p.sum(1))
        expected = p.sum(0) @ weights
        return np.append(f1, (np.trace(p) - expected) / (1 - expected))

    fractions, step = matrix / n[:, None], 1e-6
    slopes = np.zeros((len(n) + 1, *matrix.shape))
    for cell in np.ndindex(matrix.shape):
        change = np.zeros(matrix.shape)
        change[cell] = step
        # row sums are the weights of the map and do not change: p.sum(1) is replaced by them
        above, below = (figures_with_known_rows(fractions + s * change, weights) for s in (1, -1))
        slopes[(slice(None), *cell)] = (above - below) / (2 * step)
    variance = np.zeros(len(slopes))
    for i in range(len(n)):
        covariance = (np.diag(fractions[i]) - np.outer(fractions[i], fractions[i])) / (n[i] - 1)  # multinomial
        variance += np.einsum("kj,jl,kl->k", slopes[:, i], covariance, slopes[:, i])
    np.testing.assert_allclose(figures(fractions), [*found.f1, found.kappa])
    np.testing.assert_allclose([*found.f1_ci95, found.kappa_ci95], 1.96 * np.sqrt(variance), rtol=1e-4, atol=1e-7)


def figures_with_known_rows(fractions, weights):
    p = weights[:, None] * fractions
    f1 = 2 * p.diagonal() / (p.sum(0) + weights)
    expected = p.sum(0) @ weights
    return np.append(f1, (np.trace(p) - expected) / (1 - expected))


def test_intervals_cover_the_truth_in_95_of_100_samples():
    rng = np.random.default_rng(0)
    true = np.array([[0.85, 0.1, 0.05], [0.2, 0.7, 0.1], [0.02, 0.08, 0.9]])  # of each class of the map
    pixels = np.array([20_000, 10_000, 70_000])
    p = true * (pixels / pixels.sum())[:, None]
    expected = p.sum(0) @ (pixels / pixels.sum())
    truth = [np.trace(p), (np.trace(p) - expected) / (1 - expected), 2 * p[1, 1] / (p[1].sum() + p[:, 1].sum()),
             p[0, 0] / p[:, 0].sum(), p[:, 1].sum() * 900]  # fmt: skip
    covered = np.zeros(5)
    for _ in range(400):
        found = assess(np.stack([rng.multinomial(400, row) for row in true]), pixels, pixels * 900 / pixels.sum())
        pairs = [(found.oa, found.oa_ci95), (found.kappa, found.kappa_ci95), (found.f1[1], found.f1_ci95[1]),
                 (found.producers[0], found.producers_ci95[0]), (found.area_ha[1], found.area_ci95_ha[1])]  # fmt: skip
        covered += [abs(value - exact) <= half for (value, half), exact in zip(pairs, truth, strict=True)]
    assert ((covered / 400 > 0.91) & (covered / 400 < 0.98)).all()


def test_a_class_without_samples_has_no_figures_and_the_others_are_of_the_rest_of_the_map():
    found = assess([[8, 2, 0], [1, 9, 0], [0, 0, 0]], [600, 300, 100], [6.0, 3.0, 1.0])
    rest = assess([[8, 2], [1, 9]], [600, 300], [6.0, 3.0])
    assert found.too_few.tolist() == [False, False, True]
    assert found.coverage == 0.9
    for name in ("users", "users_ci95", "producers", "producers_ci95", "f1", "f1_ci95", "area_ha", "area_ci95_ha"):
        assert np.isnan(getattr(found, name)[2])
        np.testing.assert_allclose(getattr(found, name)[:2], getattr(rest, name))
    for name in ("oa", "oa_ci95", "kappa", "kappa_ci95", "macro_f1"):
        np.testing.assert_allclose(getattr(found, name), getattr(rest, name))


def test_a_class_with_one_sample_has_figures_without_intervals_and_counts_with_the_largest_variance():
    found = assess([[8, 2], [0, 1]], [800, 200], [8.0, 2.0])
    assert found.too_few.tolist() == [False, True]
    assert (found.users[1], found.coverage) == (1, 1)
    for name in ("users_ci95", "producers_ci95", "f1_ci95", "area_ci95_ha"):
        assert np.isnan(getattr(found, name)).tolist() == [False, True]
    variance = 0.8**2 * 0.8 * 0.2 / 9 + 0.2**2 / 4
    np.testing.assert_allclose(found.oa_ci95, Z95 * np.sqrt(variance))
    np.testing.assert_allclose(found.area_ci95_ha[0], 10 * Z95 * np.sqrt(variance))


def test_a_single_sample_counts_with_the_largest_variance_in_ratios_too():
    with np.errstate(all="raise"):  # a warning would be seen
        found = assess([[8, 2], [0, 1]], [800, 200], [8.0, 2.0])
    observed, expected = 0.8 * 0.8 + 0.2, 0.8 * (0.8 * 0.8 + 0.2 * 0.2) + 0.2 * 0.2
    hit, miss = (1 - expected) - np.array([0.8, 0.2]) * (1 - observed), -np.array([0.2, 0.8]) * (1 - observed)
    first, second = (hit - miss) / (
        1 - expected
    ) ** 2  # by how much z of a sample that is right differs from a wrong one
    np.testing.assert_allclose(found.kappa, (observed - expected) / (1 - expected))
    variance = 0.8**2 * 0.8 * 0.2 / 9 * first**2 + 0.2**2 / 4 * second**2
    np.testing.assert_allclose(found.kappa_ci95, Z95 * np.sqrt(variance))
    assert found.producers[0] == 1
    np.testing.assert_allclose(found.producers_ci95[0], Z95 * 0.2 * 0.5 / 0.64)


def test_a_class_of_one_pixel_has_too_few_samples():
    assert assess([[8, 2], [0, 1]], [800, 1], [8.0, 0.01]).too_few.tolist() == [False, True]


def test_a_class_of_the_reference_alone_has_an_area_and_is_never_right():
    found = assess([[8, 0, 2], [0, 10, 0], [0, 0, 0]], [500, 500, 0], [5.0, 5.0, 0.0])
    assert np.isnan(found.users[2]) and (found.producers[2], found.f1[2]) == (0, 0)
    assert not found.too_few.any() and found.coverage == 1
    np.testing.assert_allclose(found.area_ha, [4, 5, 1])
    np.testing.assert_allclose(found.area_ci95_ha[2], 10 * 1.96 * 0.5 * np.sqrt(0.2 * 0.8 / 9))


def test_a_class_of_the_map_alone_is_never_right_and_has_no_producers_accuracy():
    found = assess([[10, 0], [5, 0]], [500, 500], [5.0, 5.0])
    assert (found.users[1], found.area_ha[1], found.f1[1]) == (0, 0, 0)
    assert np.isnan(found.producers[1])


def test_where_all_is_of_one_class_kappa_is_undefined():
    found = assess([[10]], [500], [5.0])
    assert np.isnan(found.kappa) and np.isnan(found.kappa_ci95) and (found.oa, found.oa_ci95) == (1, 0)


def test_areas_are_weighted_by_hectares_and_accuracies_by_pixels():
    found = assess([[9, 1], [2, 8]], [100, 300], [30.0, 10.0])
    np.testing.assert_allclose(found.oa, 0.25 * 0.9 + 0.75 * 0.8)
    np.testing.assert_allclose(found.area_ha, [30 * 0.9 + 10 * 0.2, 30 * 0.1 + 10 * 0.8])
    np.testing.assert_allclose(found.area_ci95_ha, 1.96 * np.sqrt(900 * 0.09 / 9 + 100 * 0.16 / 9))


def test_pixel_counts_beyond_32_bits_are_exact():
    found = assess([[9, 1], [2, 8]], [6 * 10**9, 2 * 10**9], [6.0, 2.0])
    np.testing.assert_allclose(found.oa, 0.75 * 0.9 + 0.25 * 0.8)


@given(samples(), st.integers(2, 9))
def test_more_samples_of_the_same_fractions_give_narrower_intervals(sample, factor):
    matrix, pixels = sample
    one, other = assess(matrix, pixels, pixels * 1.0), assess(matrix * factor, pixels, pixels * 1.0)
    assume(one.oa_ci95 > 1e-9)
    assert other.oa_ci95 < one.oa_ci95 and other.kappa_ci95 <= one.kappa_ci95
    np.testing.assert_allclose(other.producers, one.producers)


@pytest.mark.parametrize(
    ("matrix", "pixels", "reason"),
    [
        ([[1, 2], [3, 4]], [5, 5, 5], "shapes"),
        ([[0, 0], [0, 0]], [5, 5], "no samples"),
        ([[1, 2], [3, 4]], [5, 0], "of which the map has no pixel"),
    ],
)
def test_what_is_no_sample_of_the_map_is_refused(matrix, pixels, reason):
    with pytest.raises(ValueError, match=reason):
        assess(matrix, pixels, np.array(pixels, dtype=float))


@pytest.mark.parametrize(
    "shapes", [((2, 3), 2, 2), ((3, 3), 2, 2), ((2, 2), 2, 3), ((2, 2), 3, 2), ((2, 2), 2, (2, 1))]
)
def test_arrays_of_other_shapes_are_refused(shapes):
    with pytest.raises(ValueError, match="shapes .* expected"):
        assess(*(np.ones(shape, int) for shape in shapes))
