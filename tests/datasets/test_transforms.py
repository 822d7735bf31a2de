"""From ragged series to model input: each random step against its definition, each fixed one against known values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.bands import BLUE, GREEN, MEAN, NIR, RED, STD, SWIR1, SWIR2
from datasets.transforms import (
    interpolate,
    pad,
    random_choice,
    reflectance,
    remove,
    spectral_noise,
    standardise,
    temporal_shift,
    vegetation_weight,
)
from tests.support.series import make_batch, numbered, observations, padding_is_empty, same_tensors, seeded

STEPS = {
    "shift": temporal_shift,
    "noise": spectral_noise,
    "removal": remove,
    "pad": lambda series, generator: pad(series, 8, generator),
    "rc": lambda series, generator: random_choice(series, 8, generator),
    "interp": lambda series, _: interpolate(series, 8),
}
lengths_of_a_batch = st.lists(st.integers(1, 30), min_size=1, max_size=6)


# ---- what every step keeps to


@pytest.mark.parametrize("name", STEPS)
def test_inputs_are_left_as_they_were(name):
    series = make_batch([20, 3, 1, 8])
    before = [part.clone() for part in series[:3]]
    STEPS[name](series, seeded())
    assert same_tensors(before, series[:3]) and series.labels is None


@pytest.mark.parametrize("name", STEPS)
def test_the_generator_alone_decides(name):
    series = make_batch([20, 3, 1, 8] * 8)
    torch.manual_seed(1)
    first, other = STEPS[name](series, seeded(5)), STEPS[name](series, seeded(6))
    torch.manual_seed(2)
    again = STEPS[name](series, seeded(5))
    assert same_tensors(first, again) and same_tensors(first, other) == (name == "interp")


@pytest.mark.parametrize("name", ["shift", "noise", "removal"])
@given(lengths=lengths_of_a_batch, seed=st.integers(0, 999))
@settings(max_examples=30, deadline=None)
def test_padding_stays_empty(name, lengths, seed):
    series = make_batch(lengths, width=max(lengths) + 2, seed=seed)
    assert padding_is_empty(STEPS[name](series, seeded(seed)))


def test_reflectance_and_standardising_by_their_definition():
    dn = torch.tensor([[1470, 1690, 1860, 2210, 2730, 2970, 3080, 3160, 2560, 1880]], dtype=torch.int16)
    values = reflectance(dn)
    assert values.dtype == torch.float32
    np.testing.assert_allclose(values[0], MEAN, rtol=1e-6)
    np.testing.assert_allclose(standardise(values)[0], np.zeros(10), atol=1e-6)
    np.testing.assert_allclose(standardise(values + torch.from_numpy(STD) * 2)[0], np.full(10, 2), rtol=1e-5)


# ---- temporal shift


def shift_probabilities() -> dict[int, float]:
    """Of each number of observations: with p = 0.5 trunc(clip(0.3 N, -1, 1) * 6), else 0."""

    def below(x: float) -> float:
        return 0.5 * (1 + math.erf(x / math.sqrt(2)))

    share = {k: below((k + 1) / 1.8) - below(k / 1.8) for k in range(1, 6)} | {6: 1 - below(1 / 0.3)}
    both = {k: share[abs(k)] / 2 for k in range(-6, 7) if k}
    return both | {0: 1 - sum(both.values())}


def test_shift_is_distributed_as_defined():
    count, length = 100_000, 13
    rolled = temporal_shift(numbered(count, length), seeded()).values[..., 0]
    steps = (-rolled[:, 0] + 6) % length - 6  # values rolled forward by s begin with number -s
    expected = shift_probabilities()
    for k in range(-6, 7):
        probability = expected[k]
        tolerance = 4.5 * math.sqrt(probability * (1 - probability) / count)
        assert (steps == k).double().mean().item() == pytest.approx(probability, abs=tolerance), k


def test_shift_rolls_values_inside_each_series_and_leaves_the_days():
    series = make_batch([9, 4, 1, 2] * 50, width=11)
    shifted = temporal_shift(series, seeded())
    assert torch.equal(shifted.doy, series.doy) and torch.equal(shifted.length, series.length)
    moved = 0
    for before, after, length in zip(series.values, shifted.values, series.length.tolist(), strict=True):
        rolls = [before[:length].roll(steps, 0) for steps in range(length)]
        assert any(torch.equal(after[:length], roll) for roll in rolls)
        moved += not torch.equal(before, after)
    assert 20 < moved < 100


def test_shift_with_certainty_or_never():
    series = numbered(2000, 13)
    assert torch.equal(temporal_shift(series, seeded(), probability=0).values, series.values)
    moved = (temporal_shift(series, seeded(), probability=1).values != series.values).any(1).float().mean().item()
    assert moved == pytest.approx(2 * (1 - shift_probabilities()[0]), abs=0.04)


# ---- spectral noise


@pytest.fixture(scope="module")
def noise():
    """What was added to 6000 series of 10 observations, in units of the bands' standard deviations."""
    zeros = numbered(6000, 10)._replace(values=torch.zeros(6000, 10, 10))
    return spectral_noise(zeros, seeded()).values / torch.from_numpy(STD)


def test_noise_comes_to_the_right_share_of_observations(noise):
    touched = (noise != 0).any(-1)
    assert touched.float().mean().item() == pytest.approx(0.15, abs=0.006)
    assert touched.float().mean(0).sub(0.15).abs().max() < 0.02  # wherever they stand in the series
    assert torch.equal(touched, (noise != 0).all(-1))


def test_noise_has_one_sign_an_observation_and_half_of_each(noise):
    touched = noise[(noise != 0).any(-1)]
    assert (touched.sign() == touched[:, :1].sign()).all()
    assert (touched[:, 0] > 0).float().mean().item() == pytest.approx(0.5, abs=0.025)


def test_noise_is_half_normal_and_independent_between_bands(noise):
    size = noise[(noise != 0).any(-1)].abs().double()
    assert size.mean().item() == pytest.approx(0.5 * math.sqrt(2 / math.pi), rel=0.01)
    assert size.square().mean(0).sqrt().numpy() == pytest.approx(np.full(10, 0.5), rel=0.04)
    assert (size > 1).double().mean().item() == pytest.approx(1 - math.erf(2 / math.sqrt(2)), abs=0.003)
    correlation = torch.corrcoef(size.T).fill_diagonal_(0)
    assert correlation.abs().max() < 0.05


def test_noise_strength_is_what_it_is_given():
    zeros = numbered(3000, 10)._replace(values=torch.zeros(3000, 10, 10))
    noise = spectral_noise(zeros, seeded(), probability=0.3, scale=1.0).values / torch.from_numpy(STD)
    touched = (noise != 0).any(-1)
    assert touched.float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert noise[touched].square().mean().sqrt().item() == pytest.approx(1, rel=0.02)


def test_noise_is_added_to_the_values():
    series = make_batch([12, 5])
    added = spectral_noise(series, seeded(), probability=1).values - series.values
    zeros = series._replace(values=torch.zeros_like(series.values))
    torch.testing.assert_close(added, spectral_noise(zeros, seeded(), probability=1).values)


# ---- removal


def test_removal_drops_the_right_share():
    series = numbered(20_000, 20)
    removed = remove(series, seeded())
    assert removed.length.double().mean().item() == pytest.approx(20 * 0.85, abs=0.05)
    assert removed.length.double().var().item() == pytest.approx(20 * 0.85 * 0.15, rel=0.05)
    kept = torch.zeros(20_000, 21).scatter_(1, removed.doy, 1)[:, 1:]  # doy is the number of the observation plus one
    np.testing.assert_allclose(kept.mean(0), np.full(20, 0.85), atol=0.012)


@given(lengths=lengths_of_a_batch, probability=st.sampled_from([0.0, 0.15, 0.9, 1.0]), seed=st.integers(0, 999))
@settings(max_examples=60, deadline=None)
def test_removal_keeps_order_and_at_least_one(lengths, probability, seed):
    series = make_batch(lengths, seed=seed)
    removed = remove(series, seeded(seed), probability)
    assert padding_is_empty(removed)
    for i, length in enumerate(lengths):
        before, after = observations(series, i), observations(removed, i)
        assert [item for item in before if item in after] == after
        assert 1 <= len(after) <= length
        assert probability > 0 or after == before
        assert probability < 1 or len(after) == 1


# ---- vegetation weight


def spectrum(**bands: float) -> list[float]:
    """A clear and bright but bare observation, less what is given."""
    values = dict(zip(("blue", "green", "red", "nir", "swir1", "swir2"), (0.05, 0.08, 0.1, 0.1, 0.3, 0.2), strict=True))
    row = [0.2] * 10
    places = (BLUE, GREEN, RED, NIR, SWIR1, SWIR2)
    for place, value in zip(places, (values | bands).values(), strict=True):
        row[place] = value
    return row


def test_vegetation_weight_by_hand():
    rows = {
        "bare": (spectrum(), 0.0),  # nir = red
        "green": (spectrum(red=0.02, nir=0.38), 0.36 / 0.4),
        "cloud": (spectrum(blue=0.1, green=0.12, red=0.11, nir=0.9), -1.0),  # 0.33 > 0.32
        "almost cloud": (spectrum(blue=0.1, green=0.11, red=0.1, nir=0.3), 0.5),  # 0.31
        "dark": (spectrum(red=0.01, nir=0.14, swir1=0.1, swir2=0.1), -1.0),  # 0.34 < 0.35
        "almost dark": (spectrum(red=0.04, nir=0.16, swir1=0.1, swir2=0.1), 0.6),  # 0.36
        "out of range": (spectrum(red=-0.1, nir=0.2), 1.0),  # 0.3 / 0.1, clipped
    }
    values = torch.tensor([[row for row, _ in rows.values()]])
    expected = np.exp([ndvi for _, ndvi in rows.values()])
    np.testing.assert_allclose(vegetation_weight(values)[0], expected / expected.sum(), rtol=1e-5)
    mask = torch.tensor([[False, False, True, False, True, False, False]])
    expected[[2, 4]] = 0
    weight = vegetation_weight(values, mask)
    np.testing.assert_allclose(weight[0], expected / expected.sum(), rtol=1e-5)
    assert weight[0, [2, 4]].tolist() == [0, 0]
