"""Clouds and shadows: the covers of the weather, in clouds that hang together; shadows away from the sun."""

from __future__ import annotations

import numpy as np
import pytest

from datasets.simulation.atmosphere import HAZE_ERROR, LIGHT_ERROR, SWIR_ERROR
from datasets.simulation.landscape import ScenePlan
from datasets.simulation.render import Window, centres
from datasets.simulation.sites import COAHOMA, HARVEY, SITES
from datasets.simulation.sky import (
    cloud_height,
    cloud_limit,
    cloud_opacity,
    outside_swath,
    shadow_offset,
    sky_of,
    sun_direction,
)
from datasets.simulation.weather import TILES, tile_year

PLAN = ScenePlan(seed=7, site=SITES.index(HARVEY), year=2019, size=400)
XS, YS = centres(PLAN, Window(0, 0, 400, 400))
PASSES = range(len(PLAN.weather.days))


def test_a_scene_has_the_weather_of_a_tile_of_its_own():
    assert PLAN.weather is tile_year(7, PLAN.site, TILES, 2019)


def test_opaque_clouds_cover_what_the_weather_says():
    few = np.arange(3) * 2_000.0
    broken = [n for n in PASSES if PLAN.weather.cover[n] > 0.1]
    for number in broken[::6]:
        places = [(few + 1e5 * k, few - 1e5 * k) for k in range(120)]  # of independent clouds
        share = np.mean([cloud_height(PLAN, number, *place) < cloud_limit(PLAN, number) for place in places])
        assert share == pytest.approx(PLAN.weather.cover[number], abs=0.07)


def test_cloud_over_the_year_is_as_in_the_weather():
    share = np.mean([(cloud_opacity(PLAN, n, XS[::4], YS[::4]) > 0.5).mean() for n in PASSES])
    assert share == pytest.approx(PLAN.weather.cover.mean(), abs=0.05)


def test_clouds_hang_together():
    cloudy = [n for n in PASSES if 0.2 < PLAN.weather.cover[n] < 0.8]
    state = np.stack([cloud_opacity(PLAN, n, XS[:200], YS[:200]) > 0.5 for n in cloudy]).astype(float)

    def agreement(step: int) -> float:
        return np.corrcoef(state[:, :, :-step].ravel(), state[:, :, step:].ravel())[0, 1]

    assert agreement(1) > 0.95 and agreement(10) > 0.7 > agreement(150)
    inner = state[:, 1:-1, 1:-1]
    around = [state[:, r : r + 198, c : c + 198] for r, c in ((0, 1), (1, 0), (1, 2), (2, 1))]
    assert np.mean(inner > np.max(around, axis=0)) < 1e-3  # a cloud of one pixel


def test_opacity_begins_at_nothing_and_ends_at_one():
    values = np.stack([cloud_opacity(PLAN, n, XS[:200], YS[:200]) for n in PASSES[::5]])
    assert values.min() == 0 and 0.95 < values.max() <= 1
    steps = np.abs(np.diff(values, axis=2))
    assert np.quantile(steps, 0.999) < 0.35  # edges are soft
    clear = [n for n in PASSES if PLAN.weather.cover[n] <= 0.01]
    assert np.mean([cloud_opacity(PLAN, n, XS[::8], YS[::8]) > 0 for n in clear]) == pytest.approx(0.08, abs=0.04)


def test_shadows_are_the_clouds_moved_away_from_the_sun():
    number = int(np.argmin(np.abs(PLAN.weather.cover - 0.4)))
    east, north = shadow_offset(PLAN, number)
    assert east < 0 < north  # the morning sun stands in the south-east
    sky = sky_of(PLAN, number, XS[:100], YS[:80])
    np.testing.assert_array_equal(sky.opacity, cloud_opacity(PLAN, number, XS[:100], YS[:80]))
    casting = cloud_opacity(PLAN, number, XS[:100] - east, YS[:80] - north)
    np.testing.assert_array_equal(sky.depth, np.sqrt(casting))
    long, short = (np.hypot(*shadow_offset(PLAN, int(np.argmin(np.abs(PLAN.weather.days - d))))) for d in (1, 172))
    assert 150 < short < 1_000 and 500 < long < 4_000


def test_the_sun_is_where_it_is():
    assert sun_direction(38.0, 172) == pytest.approx((0.2987, -0.2206, 0.9285), abs=2e-3)
    days, sun = PLAN.weather.days, PLAN.weather.sun
    up = [sun_direction(HARVEY.latitude, float(day))[2] / sun_direction(HARVEY.latitude, 172)[2] for day in days]
    np.testing.assert_allclose(up, sun, rtol=1e-6)


def test_what_differs_among_pixels_has_the_spread_of_the_simulator():
    skies = [sky_of(PLAN, n, XS[::20], YS[::20]) for n in PASSES]
    tile = PLAN.weather
    light = np.stack([np.log(s.light) - tile.bright[n] for n, s in enumerate(skies)])
    swir = np.stack([np.log(s.swir) - tile.swir[n] for n, s in enumerate(skies)])
    haze = np.stack([s.haze - tile.haze[n] for n, s in enumerate(skies)])
    for values, spread in ((light, LIGHT_ERROR), (swir, SWIR_ERROR), (haze, HAZE_ERROR)):
        assert values.std() == pytest.approx(spread, rel=0.05) and abs(values.mean()) < 0.05 * spread
    drawn = np.stack([light.ravel(), swir.ravel(), haze.ravel()])
    assert np.abs(np.corrcoef(drawn) - np.eye(3)).max() < 0.1  # each by itself


def test_only_the_second_orbit_misses_the_east_of_the_scene():
    for number in PASSES:
        outside = outside_swath(PLAN, number, XS, YS)
        if PLAN.weather.orbit[number] == 0:
            assert not outside.any()
            continue
        assert 0.08 < outside.mean() < 0.52
        seen = (~outside).sum(axis=1)
        assert (np.diff(seen) <= 0).all() and seen[0] - seen[-1] == pytest.approx(400 * np.tan(np.deg2rad(13)), abs=2)
        assert not outside[:, 0].any() and (np.diff(outside.astype(int), axis=1) >= 0).all()


def test_a_site_with_one_orbit_is_always_seen_whole():
    plan = ScenePlan(7, SITES.index(COAHOMA), 2019, 400)
    xs, ys = centres(plan, Window(0, 0, 400, 400))
    assert not any(outside_swath(plan, n, xs, ys).any() for n in range(len(plan.weather.days)))


def test_the_sky_of_two_passes_at_six_places_is_known():
    """Values of a run that was looked at: every factor of clouds, shadows and light enters them."""
    sky = sky_of(PLAN, 33, XS[[20, 150, 300]], YS[[50, 200]])
    expected = [
        [[0.0716, 0.6475, 0.1447], [0.5313, 1.0, 0.9966]], [[0.7071, 0.9847, 0.2233], [0.9616, 0.9726, 0.8943]],
        [[1.0578, 0.9538, 1.0426], [1.0776, 1.1206, 1.0504]], [[1.0666, 1.0505, 1.0275], [1.0677, 1.0545, 1.0621]],
        [[0.0167, 0.0175, 0.0159], [0.0144, 0.0147, 0.0096]],
    ]  # fmt: skip
    np.testing.assert_allclose(np.stack(sky), expected, atol=2e-4)
    opacity = cloud_opacity(PLAN, 9, XS[[20, 150, 300]], YS[[50, 200]])
    np.testing.assert_allclose(opacity, [[0.9621, 0.4583, 0.0221], [0.008, 0.2172, 0.0082]], atol=2e-4)
    assert PLAN.weather.orbit[11] == 1 and outside_swath(PLAN, 11, XS, YS).sum() == pytest.approx(31_654, abs=2)
