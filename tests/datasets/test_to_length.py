"""Series brought to the length that a model sees: padded, chosen at random, or interpolated."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.transforms import (
    LENGTH_METHODS,
    Series,
    evenly_spaced,
    interpolate,
    model_input,
    pad,
    random_choice,
    reflectance,
    to_length,
)
from tests.conftest import SHARED, needs_shared
from tests.support.series import make_batch, numbered, observations, padding_is_empty, seeded

lengths_of_a_batch = st.lists(st.integers(1, 30), min_size=1, max_size=6)


@pytest.mark.parametrize("method", LENGTH_METHODS)
@given(lengths=lengths_of_a_batch, extra=st.integers(0, 4), size=st.integers(1, 35), seed=st.integers(0, 999))
@settings(max_examples=60, deadline=None)
def test_model_input_is_well_formed(method, lengths, extra, size, seed):
    series = make_batch(lengths, width=max(lengths) + extra, seed=seed)
    x, mask, doy, weight = model_input(series, size, method, seeded(seed))
    count = len(lengths)
    assert x.shape == (count, size, 10) and x.dtype == torch.float32 and x.isfinite().all()
    assert doy.shape == (count, size) and doy.dtype == torch.int64
    assert weight.shape == (count, size) and weight.dtype == torch.float32 and (weight >= 0).all()
    torch.testing.assert_close(weight.sum(1), torch.ones(count))
    padding = torch.arange(size) >= torch.tensor(lengths)[:, None]
    if method != "pad":
        assert mask is None
        padding = torch.zeros_like(padding)
    else:
        assert torch.equal(mask, padding)
    assert not x[padding].any() and not doy[padding].any() and not weight[padding].any()
    assert (doy.masked_fill(padding, 1000).diff(dim=1) >= 0).all()


@pytest.mark.parametrize("method", ["pad", "rc"])
@given(lengths=lengths_of_a_batch, extra=st.integers(0, 4), size=st.integers(1, 35), seed=st.integers(0, 999))
@settings(max_examples=60, deadline=None)
def test_to_length_takes_observations_of_the_series(method, lengths, extra, size, seed):
    series = make_batch(lengths, width=max(lengths) + extra, seed=seed)
    fitted = to_length(series, size, method, seeded(seed))
    for i, length in enumerate(lengths):
        before, after = observations(series, i), observations(fitted, i)
        assert set(after) <= set(before)
        assert len(after) == (min(length, size) if method == "pad" else size)
        if length >= size or method == "pad":
            assert len(set(after)) == len(after)  # without replacement
        if method == "pad" and length <= size:
            assert after == before


def test_rc_takes_every_observation_equally_often():
    fitted = random_choice(numbered(20_000, 20), 5, seeded())
    counts = torch.bincount(fitted.doy.flatten(), minlength=21)[1:] / 20_000
    np.testing.assert_allclose(counts, np.full(20, 5 / 20), atol=0.015)


def test_rc_subsets_are_equally_likely():
    fitted = random_choice(numbered(30_000, 4), 2, seeded())
    pairs, counts = fitted.doy.unique(dim=0, return_counts=True)
    assert pairs.tolist() == [[1, 2], [1, 3], [1, 4], [2, 3], [2, 4], [3, 4]]
    np.testing.assert_allclose(counts / 30_000, np.full(6, 1 / 6), atol=0.01)


def test_rc_of_a_short_series_draws_with_replacement():
    fitted = random_choice(numbered(20_000, 3), 5, seeded())
    times_first = (fitted.doy == 1).sum(1)
    for k in range(6):  # binomial(5, 1/3)
        probability = math.comb(5, k) * (1 / 3) ** k * (2 / 3) ** (5 - k)
        assert (times_first == k).double().mean().item() == pytest.approx(probability, abs=0.012), k


def test_rc_of_short_and_long_series_in_one_batch():
    series = make_batch([30, 3, 12] * 100)
    fitted = random_choice(series, 12, seeded())
    distinct = torch.tensor([len(set(row.tolist())) for row in fitted.doy]).view(-1, 3)
    assert (distinct[:, 0] == 12).all() and (distinct[:, 2] == 12).all() and (distinct[:, 1] <= 3).all()


def test_pad_of_a_long_series_is_a_random_subset():
    fitted = pad(numbered(20_000, 10), 4, seeded())
    counts = torch.bincount(fitted.doy.flatten(), minlength=11)[1:] / 20_000
    np.testing.assert_allclose(counts, np.full(10, 0.4), atol=0.015)


@given(length=st.integers(1, 20), size=st.integers(2, 40), seed=st.integers(0, 999))
@settings(max_examples=40, deadline=None)
def test_interpolation_is_numpys(length, size, seed):
    series = make_batch([length, 3], seed=seed)
    if length > 3:  # some days have two observations
        series.doy[0, 0], series.doy[0, length - 2] = series.doy[0, 1], series.doy[0, length - 1]
    fitted = interpolate(series, size)
    grid = np.linspace(0, 366, size).astype(int)
    assert fitted.doy[0].tolist() == grid.tolist()
    doy = series.doy[0, :length].numpy()
    for band in range(10):
        expected = np.interp(grid, doy, series.values[0, :length, band].numpy())
        np.testing.assert_allclose(fitted.values[0, :, band], expected, atol=1e-5)


@pytest.mark.parametrize("method", ["pad", "interp"])
def test_series_do_not_depend_on_their_batch(method):
    """Where nothing is drawn, the input of a series is the same alone and beside longer ones."""
    lengths = [12, 3, 1, 9]
    together = model_input(make_batch(lengths, width=12), 15, method, seeded())
    for i, length in enumerate(lengths):
        alone = Series(*(part[i : i + 1] for part in make_batch(lengths, width=12)[:3]))
        alone = alone._replace(values=alone.values[:, :length], doy=alone.doy[:, :length])
        for part, whole in zip(model_input(alone, 15, method, seeded(9)), together, strict=True):
            assert part is None and whole is None or torch.equal(part[0], whole[i])


def test_unknown_method():
    with pytest.raises(ValueError, match="unknown way to length 'crop'; expected one of pad, rc, interp"):
        to_length(make_batch([3]), 3, "crop", seeded())


# ---- the published inputs


@needs_shared
@pytest.mark.parametrize("method", ["pad", "interp"])
def test_published_inputs(method):
    golden = torch.load(SHARED / "golden" / "transforms.pt", weights_only=True)
    size = 70
    items = [item for item in golden if method != "pad" or len(item["series"]) <= size]
    lengths = torch.tensor([len(item["series"]) for item in items])
    dn = torch.nn.utils.rnn.pad_sequence([item["series"] for item in items], batch_first=True)
    series = Series(reflectance(dn[..., :10].to(torch.int16)), dn[..., 10].long(), lengths)
    x, mask, doy, weight = model_input(series, size, method, seeded())
    expected = {key: torch.stack([item[method][key] for item in items]) for key in ("x", "mask", "doy", "weight")}
    torch.testing.assert_close(x, expected["x"], atol=1e-5, rtol=0)
    torch.testing.assert_close(weight, expected["weight"], atol=1e-5, rtol=0)
    assert torch.equal(doy, expected["doy"])
    assert not expected["mask"].any() if mask is None else torch.equal(mask, expected["mask"])


# ---- evenly spaced


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=6), size=st.integers(1, 50), repeat=st.booleans())
def test_evenly_spaced_observations(lengths, size, repeat):
    """The middle ones of ``size`` equal parts; a series is copied, unless it may repeat, where it is not longer."""
    series = make_batch(lengths)
    chosen = evenly_spaced(series, size, repeat=repeat)
    assert chosen.doy.shape == (len(lengths), size) and padding_is_empty(chosen)
    for i, length in enumerate(lengths):
        whole, found = observations(series, i), observations(chosen, i)
        if length > size or repeat:
            assert found == [whole[int((j + 0.5) * length / size + 1e-9)] for j in range(size)]
        else:
            assert found == whole
