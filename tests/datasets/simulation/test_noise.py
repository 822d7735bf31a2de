"""Coherent noise: standard normal at every point, the same in every window, smooth."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from datasets.simulation.noise import layered, smooth, uniform


@pytest.mark.parametrize("make", [smooth, lambda *a: layered(*a, octaves=3)], ids=["smooth", "layered"])
@pytest.mark.parametrize("at", [0.0, 0.37, 0.5])
def test_every_point_is_standard_normal(make, at):
    far_apart = (np.arange(120) * 7 + at) * 100.0  # seven lattice steps between points: independent
    values = make((3, 5), far_apart, far_apart, 100.0)
    assert values.dtype == np.float32 and values.shape == (120, 120)
    assert abs(values.mean()) < 0.03
    assert values.std() == pytest.approx(1, abs=0.03)
    assert np.quantile(values, [0.025, 0.975]) == pytest.approx([-1.96, 1.96], abs=0.12)


def test_a_point_has_one_value_in_every_window():
    xs, ys = np.arange(-50, 70) * 10.0, np.arange(-20, 30) * -10.0
    whole = layered((1, 2), xs, ys, 130.0, octaves=4)
    np.testing.assert_array_equal(layered((1, 2), xs[31:77], ys[9:20], 130.0, octaves=4), whole[9:20, 31:77])


def test_rows_follow_y_and_columns_follow_x():
    xs, ys = np.arange(3) * 1e3, np.arange(5) * 1e3 + 7e6
    values = smooth((1,), xs, ys, 50.0)
    np.testing.assert_array_equal(values[:, 1], smooth((1,), xs[1:2], ys, 50.0)[:, 0])
    np.testing.assert_array_equal(values[2], smooth((1,), xs, ys[2:3], 50.0)[0])


def test_near_points_agree_and_far_points_and_other_keys_do_not():
    xs = np.arange(3000) * 10.0
    line = smooth((4,), xs, xs[:40] * 50, 100.0)
    assert np.corrcoef(line[:, :-1].ravel(), line[:, 1:].ravel())[0, 1] > 0.98
    assert abs(np.corrcoef(line[:, :-50].ravel(), line[:, 50:].ravel())[0, 1]) < 0.06
    other = smooth((5,), xs, xs[:40] * 50, 100.0)
    assert abs(np.corrcoef(line.ravel(), other.ravel())[0, 1]) < 0.06


def test_normal_becomes_uniform():
    x = np.linspace(-4, 4, 801)
    exact = [NormalDist().cdf(v) for v in x]
    assert np.abs(uniform(x) - exact).max() < 2e-4
