"""The realism figures: right on constructed series, and unable to tell two simulations apart."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import realism
from benchmarks.realism import LAGS, Observations, discriminability, features, features_count, lag_correlation
from datasets.catalog import open_unlabelled
from datasets.simulate import simulate
from datasets.store import SeriesSet, Store, StoreWriter
from tests.support.runs import refused


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    folder = tmp_path_factory.mktemp("realism")
    sizes = dict(train=0, valid=0, evaluation=0, years=(2019,), progress=False)
    return [simulate(folder / f"seed{seed}", unlabelled=400, seed=seed, **sizes) for seed in (1, 2)]


@pytest.fixture(scope="module")
def simulated(roots) -> list[Observations]:
    return [Observations(open_unlabelled(root, 2019)) for root in roots]


def make(path, bands: np.ndarray, doy: np.ndarray, lengths: list[int]) -> Observations:
    with StoreWriter(path) as writer:
        writer.append(bands, doy, np.array(lengths))
    store = Store.open(path)
    return Observations(SeriesSet(store, np.arange(len(store))))


def test_figures_of_constructed_series_are_known(tmp_path):
    bands = np.full((5, 10), 500)
    bands[:, 6] = 1500  # NDVI 0.5
    bands[1, :3] = 1100  # brightness 0.33: cloudy
    data = make(tmp_path / "known", bands, np.array([10, 12, 40, 45, 200]), [3, 2])
    assert data.lengths.tolist() == [3, 2]
    assert data.cloudy.tolist() == [False, True, False, False, False]
    assert data.month.tolist() == [0, 0, 1, 1, 6]
    np.testing.assert_allclose(data.ndvi[[0, 2, 3, 4]], 0.5, atol=1e-6)
    np.testing.assert_allclose(realism._gap_fractions(data), [1 / 3, 0, 0, 0, 0, 0, 2 / 3, 2 / 3])


def test_lag_correlation_of_constant_series_is_one(tmp_path):
    rng = np.random.default_rng(0)
    nir = np.repeat(rng.integers(600, 4000, 30), 40)
    bands = np.full((1200, 10), 500)
    bands[:, 6] = nir
    data = make(tmp_path / "constant", bands, np.tile(np.arange(1, 201, 5), 30), [40] * 30)
    np.testing.assert_allclose(lag_correlation(data), np.ones(len(LAGS)), atol=1e-9)


def test_the_number_of_features_is_the_stated_one(simulated):
    assert features(simulated[0]).shape == (400, features_count())


def test_simulations_of_two_seeds_are_alike_and_the_shuffled_bands_are_not(simulated):
    first, second = simulated
    assert discriminability(first, second, by_tile=True) < 0.75
    changed = Observations.__new__(Observations)
    changed.__dict__ = {**vars(second), "reflectance": second.reflectance[:, ::-1]}
    assert discriminability(first, changed, by_tile=True) > 0.95


def test_the_program_prints_every_table(roots, capsys):
    realism.main(["--real", str(roots[0]), "--sim", str(roots[1]), "--num", "200"])
    printed = capsys.readouterr().out
    titles = "mean, all", "cloudy fraction", "observations a series", "lag correlation", "correlation between bands"
    for title in titles:
        assert title in printed
    assert "400 series; simulated: 200 series" in printed


def test_a_missing_root_is_one_line(tmp_path, capsys):
    assert "none: no such data folder" in refused(realism, ["--real", tmp_path / "none"], capsys)
