"""Windows of a scene: what canopy and atmosphere give for the field that a pixel lies in."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from datasets.simulate import plan_blocks
from datasets.simulation import atmosphere, canopy
from datasets.simulation.atmosphere import HAZE
from datasets.simulation.blocks import WITHIN, simulate_block
from datasets.simulation.landscape import ScenePlan
from datasets.simulation.render import (
    Window,
    _as_pixels,
    _mix,
    at_edge,
    centres,
    ground_of,
    passes_of,
    render,
    scene_classes,
    transform_of,
    windows,
)
from datasets.simulation.sites import HARVEY, SITES
from datasets.simulation.sky import Sky, outside_swath, sky_of

PLAN = ScenePlan(seed=7, site=SITES.index(HARVEY), year=2019, size=400)
WINDOW = Window(40, 60, 96, 80)
PASSES = list(range(len(PLAN.weather.days)))


@pytest.fixture(scope="module")
def numbers() -> np.ndarray:
    return render(PLAN, WINDOW, PASSES)[:, :10]


def test_windows_cover_the_scene_once():
    plan = ScenePlan(1, 0, 2019, 70)
    times = np.zeros((70, 70), int)
    for w in windows(plan, 32):
        times[w.row : w.row + w.height, w.column : w.column + w.width] += 1
        assert w.height <= 32 and w.width <= 32
    assert (times == 1).all()


def test_coordinates_are_those_of_the_transform():
    xs, ys = centres(PLAN, WINDOW)
    assert transform_of(PLAN, WINDOW) * (3.5, 7.5) == (xs[3], ys[7])
    whole_xs, whole_ys = centres(PLAN, Window(0, 0, 400, 400))
    np.testing.assert_array_equal(xs, whole_xs[60:140])
    np.testing.assert_array_equal(ys, whole_ys[40:136])


def test_the_ground_is_the_same_in_every_window():
    whole, part = ground_of(PLAN, Window(0, 0, 400, 400)), ground_of(PLAN, WINDOW)
    np.testing.assert_array_equal(part.code[part.number], whole.code[whole.number][40:136, 60:140])
    np.testing.assert_array_equal(
        part.fields.soil[part.number], whole.fields.soil[whole.number][40:136, 60:140]
    )  # fmt: skip
    assert whole.number.min() >= 0


def test_a_centre_between_two_polygons_is_of_its_section():
    """Rounding leaves the centre of pixel (237, 66) of this scene in no polygon."""
    plan = ScenePlan(seed=3, site=1, year=2019, size=400)
    assert ground_of(plan, Window(230, 60, 16, 16), with_fields=False).number.min() >= 0


def test_every_pass_and_window_has_noise_of_its_own(monkeypatch):
    drawn, deliver = [], atmosphere.deliver

    def recorded(rng, *sky):
        drawn.append(rng.random())
        return deliver(rng, *sky)

    monkeypatch.setattr(atmosphere, "deliver", recorded)
    for row, column in ((0, 0), (0, 8), (8, 0)):
        render(PLAN, Window(row, column, 8, 8), [3, 4])
    assert len(set(drawn)) == len(drawn) == 6


def test_the_clear_series_of_a_field_is_what_canopy_and_atmosphere_give(numbers):
    ground = ground_of(PLAN, WINDOW)
    inner = ~at_edge(ground.number)
    inner[[0, -1]] = inner[:, [0, -1]] = False
    field = np.bincount(ground.number[inner]).argmax()
    inside = inner & (ground.number == field)
    assert inside.sum() > 400
    one, tile = ground.fields.take(np.array([field])), PLAN.weather
    surface = canopy.reflectance(one, canopy.ground_state(one, tile.days), tile)[:, 0]  # (10, D)
    xs, ys = centres(PLAN, WINDOW)
    compared = 0
    for n in PASSES:
        sky = sky_of(PLAN, n, xs, ys)
        clear = inside & (sky.opacity == 0) & (sky.depth == 0) & ~outside_swath(PLAN, n, xs, ys)
        if clear.sum() < 300 or tile.snow[n] > 0:
            continue
        factor = np.exp(tile.bright[n] + np.where(np.arange(10) >= 8, tile.swir[n], 0))
        expected = 1e4 * (surface[:, n] * factor + tile.haze[n] * HAZE)
        np.testing.assert_allclose(numbers[n][:, clear].mean(axis=1), expected, rtol=0.06, atol=25)
        compared += 1
    assert compared > 20


def test_pixels_of_a_field_differ_a_little_and_smoothly():
    skies = [sky_of(PLAN, n, *centres(PLAN, WINDOW)) for n in PASSES[:40]]
    clear = int(np.argmin([sky.opacity.max() + sky.depth.max() for sky in skies]))
    numbers = render(PLAN, WINDOW, [clear])[0, :10].astype(float)
    ground = ground_of(PLAN, WINDOW)
    inside = (ground.number == np.bincount(ground.number.ravel()).argmax()) & ~at_edge(ground.number)
    red_edge = np.where(inside, numbers[5], np.nan)
    assert 0.02 < np.nanstd(red_edge) / np.nanmean(red_edge) < 0.2
    pairs = np.stack([red_edge[:, :-1].ravel(), red_edge[:, 1:].ravel()])
    assert np.corrcoef(pairs[:, np.isfinite(pairs).all(axis=0)])[0, 1] > 0.6


def test_an_image_does_not_depend_on_the_passes_made_with_it():
    np.testing.assert_array_equal(render(PLAN, WINDOW, [5])[0], render(PLAN, WINDOW, [4, 5, 9])[1])


def test_digital_numbers_are_in_range_and_zero_only_outside_the_swath():
    window = Window(100, 250, 30, 120)
    numbers = render(PLAN, window, PASSES)
    outside = np.stack([outside_swath(PLAN, n, *centres(PLAN, window)) for n in PASSES])
    assert outside.any() and numbers.dtype == np.uint16
    np.testing.assert_array_equal((numbers == 0).any(axis=1), outside)  # scene classes too
    np.testing.assert_array_equal((numbers == 0).all(axis=1), outside)
    assert numbers.max() <= 16_000


def test_series_are_like_those_of_the_simulator(numbers):
    plans = [p for p in plan_blocks("train", 2019, 20_000, seed=7) if p.site == PLAN.site]
    pooled = np.concatenate([simulate_block(p).bands for p in plans])
    opaque = np.stack([sky_of(PLAN, n, *centres(PLAN, WINDOW)).opacity for n in PASSES]) > 0.5
    seen = np.moveaxis(numbers, 1, -1)[~opaque & (numbers[:, 0] > 0)]
    for quantile, tolerance in ((0.05, 0.45), (0.5, 0.25), (0.9, 0.3)):  # the window has few fields
        ratio = np.log(np.quantile(seen, quantile, axis=0) / np.quantile(pooled, quantile, axis=0))
        assert np.abs(ratio).max() < tolerance and np.abs(ratio[4:8]).max() < 0.1, (quantile, ratio)


def test_the_spread_within_a_field_is_that_of_the_simulator():
    window = Window(0, 0, 400, 400)
    ground = ground_of(PLAN, window)
    fields, pixels = ground.fields.take(ground.number.ravel()), _as_pixels(PLAN, window, ground)
    late = (pixels.up - fields.up)[:, 0]
    np.testing.assert_allclose(pixels.down - fields.down, late[:, None] + 0 * pixels.down, atol=1e-6)
    assert late.std() == pytest.approx(WITHIN["days"], rel=0.15)
    assert (pixels.soil - fields.soil).std() == pytest.approx(WITHIN["soil"], rel=0.15)
    grown = fields.lai[:, 0] > 0
    drawn = {"late": late}
    for name, chosen in (("lai", grown), ("base", fields.base > 0), ("leaf", ...), ("wetness", fields.wetness > 0)):
        before, after = (vars(some)[name].reshape(len(late), -1)[:, 0][chosen] for some in (fields, pixels))
        drawn[name] = np.full(len(late), np.nan)
        drawn[name][chosen] = np.log(after / before)
        assert np.nanstd(drawn[name]) == pytest.approx(WITHIN[name], rel=0.15), name
    for one, two in itertools.combinations(drawn.values(), 2):  # each has a random field of its own
        both = np.isfinite(one) & np.isfinite(two)
        assert both.sum() < 2 or abs(np.corrcoef(one[both], two[both])[0, 1]) < 0.3
    for values, scale in ((late, 160), ((pixels.soil - fields.soil)[:, 0], 240), (drawn["leaf"], 80)):
        image = values.reshape(400, 400)
        near, far = (np.corrcoef(image[:, :-k].ravel(), image[:, k:].ravel())[0, 1] for k in (scale // 40, scale // 4))
        assert near > 0.45 > 0.25 > far, (scale, near, far)  # a quarter of the scale apart, and 2.5 times


def test_scene_classes_tell_ground_shadow_and_cloud():
    """One pixel each of vegetation, bare ground, snow and water, seen clear, in shadow, and under thicker clouds."""
    bands = np.array([  # B3, B4, B8, B11
        [0.08, 0.05, 0.40, 0.20], [0.12, 0.15, 0.25, 0.30], [0.80, 0.80, 0.70, 0.10], [0.06, 0.03, 0.02, 0.01],
    ])  # fmt: skip
    surface = np.full((10, 6, 4), 0.2)
    surface[[1, 2, 6, 8]] = bands.T[:, None, :]
    opacity = np.array([0.05, 0.05, 0.2, 0.3, 0.6, 0.6])[:, None] + np.zeros(4)
    depth = np.array([0.3, 0.5, 0.5, 0.0, 0.0, 0.9])[:, None] + np.zeros(4)
    water = np.tile([False, False, False, True], (6, 1))
    found = scene_classes(surface, water, Sky(opacity, depth, opacity, opacity, opacity))
    expected = [[4, 5, 11, 6], [3] * 4, [10] * 4, [8] * 4, [9] * 4, [9] * 4]
    assert found.dtype == np.uint16 and found.tolist() == expected


def test_the_last_band_is_the_scene_classes_of_the_pass():
    ground = ground_of(PLAN, window := Window(100, 250, 60, 120))
    images, skies = render(PLAN, window, PASSES[::4]), [sky_of(PLAN, n, *centres(PLAN, window)) for n in PASSES[::4]]
    classes, seen = images[:, 10], images[:, 0] > 0
    assert set(np.unique(classes)) == {0, 3, 4, 5, 6, 8, 9, 10}
    opaque, deep = np.stack([s.opacity for s in skies]) > 0.5, np.stack([s.depth for s in skies]) > 0.4
    np.testing.assert_array_equal((classes == 9)[seen], opaque[seen])
    clear = seen & (np.stack([s.opacity for s in skies]) <= 0.1)
    np.testing.assert_array_equal((classes == 3)[clear], deep[clear])
    water = (ground.code == 111)[ground.number]
    np.testing.assert_array_equal((classes == 6)[clear & ~deep], np.broadcast_to(water, clear.shape)[clear & ~deep])


def test_weather_of_some_passes():
    tile = passes_of(PLAN.weather, [2, 5])
    assert tile.days.tolist() == PLAN.weather.days[[2, 5]].tolist() and tile.shift == PLAN.weather.shift
    assert tile.snow.tolist() == PLAN.weather.snow[[2, 5]].tolist()


def test_only_pixels_beside_another_polygon_are_mixed():
    number = np.zeros((6, 7), int)
    number[:, 4:] = 1
    surface = np.where(number == 1, 0.5, 0.1).astype(np.float32)[None, :, :, None]
    mixed = _mix(surface, number)[0, :, :, 0]
    assert mixed.shape == (4, 5)
    np.testing.assert_allclose(mixed, np.tile([0.1, 0.1, 0.2, 0.4, 0.5], (4, 1)), rtol=1e-6)  # a quarter of each


def test_mixing_weighs_the_corners_least():
    number = np.zeros((3, 3), int)
    number[0, 0] = 1
    corner = np.zeros((1, 3, 3, 1), np.float32)
    corner[0, 0, 0] = 1
    side = np.zeros((1, 3, 3, 1), np.float32)
    side[0, 0, 1] = 1
    assert (_mix(corner, number)[0, 0, 0, 0], _mix(side, number)[0, 0, 0, 0]) == (0.0625, 0.125)


def test_edges_are_where_one_of_eight_neighbours_differs():
    number = np.zeros((4, 5), int)
    number[0, 0] = 3
    expected = np.zeros((4, 5), bool)
    expected[:2, :2] = True
    np.testing.assert_array_equal(at_edge(number), expected)
    assert not at_edge(np.full((2, 2), 9)).any()


@pytest.mark.parametrize("margin", [1, 4])
def test_a_window_grows_on_all_sides(margin):
    grown = WINDOW.grown(margin)
    assert grown == (40 - margin, 60 - margin, 96 + 2 * margin, 80 + 2 * margin)
