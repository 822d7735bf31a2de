"""A season across New Year, whose day of year falls once: nothing from the store to the predictions minds."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.batches import MappedSeries, ResidentSeries
from datasets.store import SeriesSet, Store, StoreWriter
from datasets.transforms import (
    Series,
    interpolate,
    model_input,
    pad,
    random_choice,
    remove,
    spectral_noise,
    temporal_shift,
)
from models import build_model
from tests.support.series import make_batch, observations, padding_is_empty, seeded

STEPS = {
    "shift": temporal_shift,
    "noise": spectral_noise,
    "removal": remove,
    "pad": lambda series, generator: pad(series, 8, generator),
    "rc": lambda series, generator: random_choice(series, 8, generator),
}
CPU = torch.device("cpu")
batches = st.tuples(st.lists(st.integers(1, 20), min_size=1, max_size=5), st.integers(0, 999), st.integers(0, 365))


def across_new_year(batch) -> tuple[Series, Series]:
    """Series whose season starts `later` days after New Year's Day, and the same values on days of one year.

    Day d of the second is d - 1 days after the start of the season.
    """
    lengths, seed, later = batch
    series = make_batch(lengths, width=max(lengths) + 2, seed=seed)
    doy = ((series.doy - 1 + later) % 366 + 1).masked_fill(series.doy == 0, 0)
    return series._replace(doy=doy), series


@pytest.mark.parametrize("name", STEPS)
@given(batch=batches, seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_a_step_does_the_same_whatever_the_days_are_called(name, batch, seed):
    fallen, plain = across_new_year(batch)
    result, expected = STEPS[name](fallen, seeded(seed)), STEPS[name](plain, seeded(seed))
    later = batch[2]
    renamed = ((expected.doy - 1 + later) % 366 + 1).masked_fill(expected.doy == 0, 0)
    assert torch.equal(result.values, expected.values) and torch.equal(result.length, expected.length)
    assert torch.equal(result.doy, renamed) and padding_is_empty(result)


@given(batch=batches, size=st.integers(2, 30))
@settings(max_examples=60, deadline=None)
def test_interpolation_counts_days_from_the_start_of_the_season(batch, size):
    fallen, plain = across_new_year(batch)
    fitted = interpolate(fallen, size)
    grid = np.linspace(0, 366, size).astype(int)
    for i, length in enumerate(fallen.length.tolist()):
        doy, days = fallen.doy[i, :length], plain.doy[i, :length]
        if (doy.diff() < 0).any():
            start, known = doy[0].item(), (days - days[0]).numpy()
        else:
            start, known = 0, doy.numpy()
        for band in (0, 9):
            expected = np.interp(grid, known, fallen.values[i, :length, band].numpy())
            np.testing.assert_allclose(fitted.values[i, :, band], expected, atol=1e-5)
        calendar = [(start + day - 1) % 366 + 1 if start else day for day in grid]
        assert fitted.doy[i].tolist() == calendar


def test_interpolation_of_a_season_by_hand():
    values = torch.tensor([0.0, 6.0, 10.0, 0.0])[None, :, None].expand(1, 4, 10)
    season = Series(values, torch.tensor([[363, 3, 7, 0]]), torch.tensor([3]))  # days 0, 6 and 10 of the season
    fitted = interpolate(season, 367)
    assert fitted.values[0, :12, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10]
    assert fitted.doy[0, :5].tolist() == [363, 364, 365, 366, 1] and fitted.doy[0, -1] == 363


@cache
def network(name: str, size: int, **options):
    torch.manual_seed(0)
    return build_model(name, num_classes=4, sequencelength=size, init="torch", **options).eval()


def predict(model, series: Series, size: int, method: str) -> torch.Tensor:
    with torch.no_grad():
        return model(tuple(model_input(series, size, method, seeded(3))))


@pytest.mark.parametrize("method", ["pad", "rc"])
@pytest.mark.parametrize(("name", "options"), [("transformer", {"use_doy": True}), ("stnet", {})])
@given(batch=batches)
@settings(max_examples=10, deadline=None)
def test_models_that_encode_days_do_not_mind_in_which_order_they_come(name, options, method, batch):
    """They take the day of year as it is: the observations in the order of the calendar give the same prediction."""
    fallen, _ = across_new_year(batch)
    inputs = model_input(fallen, 25, method, seeded(3))
    order = inputs.doy.masked_fill(inputs.doy == 0, 1000).argsort(dim=1, stable=True)
    reordered = (
        inputs.x.gather(1, order[..., None].expand_as(inputs.x)),
        None if inputs.mask is None else inputs.mask.gather(1, order),
        inputs.doy.gather(1, order),
        inputs.weight.gather(1, order),
    )
    model = network(name, 25, **options)
    with torch.no_grad():
        torch.testing.assert_close(model(tuple(inputs)), model(reordered), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("method", ["pad", "rc"])
@given(batch=batches)
@settings(max_examples=20, deadline=None)
def test_ltae_predicts_the_same_whenever_a_season_starts(method, batch):
    fallen, plain = across_new_year(batch)
    model = network("ltae", 25)
    assert torch.equal(predict(model, fallen, 25, method), predict(model, plain, 25, method))


@pytest.mark.parametrize("name", ["tempcnn", "lstm"])
@given(batch=batches)
@settings(max_examples=10, deadline=None)
def test_models_of_interpolated_series_predict_the_same_whenever_a_season_starts(name, batch):
    fallen, plain = across_new_year(batch)
    falls = ((fallen.doy.diff(dim=1) < 0) & (fallen.doy[:, 1:] > 0)).any(dim=1)
    counted = plain._replace(doy=(plain.doy - plain.doy[:, :1]) * (plain.doy > 0))  # from the first observation
    model = network(name, 25)
    expected = predict(model, counted, 25, "interp")
    torch.testing.assert_close(predict(model, fallen, 25, "interp")[falls], expected[falls], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("reader", [MappedSeries, ResidentSeries])
@given(batch=batches)
@settings(max_examples=10, deadline=None)
def test_a_store_and_its_batches_keep_the_order(reader, batch, tmp_path_factory):
    fallen, _ = across_new_year(batch)
    real = [fallen.doy[i, :length] for i, length in enumerate(fallen.length)]
    bands = torch.cat([fallen.values[i, :length] for i, length in enumerate(fallen.length)]) * 1e4
    path = tmp_path_factory.mktemp("stores") / "store"
    with StoreWriter(path) as writer:
        writer.append(bands.numpy(), torch.cat(real).numpy(), fallen.length.numpy())
    store = Store.open(path)
    store.validate()
    gathered = reader(SeriesSet.whole(store), CPU).gather(np.arange(len(store)))
    for i, days in enumerate(real):
        assert [day for day, _ in observations(gathered, i)] == days.tolist()
