"""Calibration and coverage: values by hand, properties of temperature scaling, the picture."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tscls import trust

# five predictions of two classes: confidence 0.55, 0.6, 0.95, 0.9, 0.91
PROBABILITY = np.array([[0.55, 0.45], [0.4, 0.6], [0.95, 0.05], [0.1, 0.9], [0.91, 0.09]])
LABELS = np.array([0, 0, 0, 1, 1])
LOG = np.log(PROBABILITY)


def test_bins_hold_what_lies_in_them():
    rows = trust.reliability(LOG, LABELS)
    assert rows["low"].tolist() == [0.5, 0.8, 0.9] and rows["high"].tolist() == [0.6, 0.9, 1.0]
    assert rows["series"].tolist() == [2, 1, 2]
    assert rows["confidence"].tolist() == pytest.approx([0.575, 0.9, 0.93])
    assert rows["accuracy"].tolist() == [0.5, 1, 0.5]


def test_the_calibration_error_is_weighted_by_series():
    expected = (2 * 0.075 + 1 * 0.1 + 2 * 0.43) / 5
    assert trust.calibration_error(LOG, LABELS) == pytest.approx(expected)
    assert trust.calibration_error(LOG, LABELS, bins=1) == pytest.approx(abs(PROBABILITY.max(1).mean() - 0.6))


def test_a_certain_prediction_lies_in_the_last_bin():
    rows = trust.reliability(np.log(np.array([[1.0, 1e-30]])), np.array([0]))
    assert rows.loc[0, ["low", "high", "accuracy"]].tolist() == [0.9, 1, 1]


def test_coverage_begins_with_the_surest():
    rows = trust.coverage(LOG, LABELS)
    assert rows["coverage"].tolist() == [0.2, 0.4, 0.6, 0.8, 1]
    assert rows["confidence"].tolist() == pytest.approx([0.95, 0.91, 0.9, 0.6, 0.55])
    assert rows["accuracy"].tolist() == pytest.approx([1, 1 / 2, 2 / 3, 2 / 4, 3 / 5])


def drawn(count: int, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Calibrated logits and labels drawn from them, the logits then made sharper by the temperature."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(count, 4, generator=generator)
    labels = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
    return (logits * temperature).log_softmax(-1), labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_was_applied_is_found_and_mends_the_calibration(temperature):
    log_probability, labels = drawn(20_000, temperature)
    found = trust.fit_temperature(log_probability, labels)
    assert found == pytest.approx(temperature, rel=0.05)
    cooled = trust.cooled(log_probability, found)
    assert trust.calibration_error(cooled.numpy(), labels.numpy()) < 0.01
    assert (cooled.argmax(1) == log_probability.argmax(1)).all()
    assert cooled.exp().sum(1) == pytest.approx(np.ones(len(labels)), abs=1e-5)


def test_a_temperature_stays_within_its_bounds():
    always_right, labels = drawn(200, 1.0)
    assert trust.fit_temperature(always_right, always_right.argmax(1)) == pytest.approx(trust.TEMPERATURES[0], rel=0.01)
    worst = always_right.argmin(1)
    assert trust.fit_temperature(always_right, worst) == pytest.approx(trust.TEMPERATURES[1], rel=0.01)
    assert trust.cooled(always_right, 1) is always_right


@given(st.integers(1, 40), st.integers(2, 5), st.integers(0, 1000))
def test_bins_cover_all_series_and_coverage_ends_at_the_accuracy(count, classes, seed):
    generator = np.random.default_rng(seed)
    log_probability = np.log(generator.dirichlet(np.ones(classes), count) + 1e-12)
    labels = generator.integers(0, classes, count)
    rows, kept = trust.reliability(log_probability, labels), trust.coverage(log_probability, labels)
    accuracy = (log_probability.argmax(1) == labels).mean()
    assert rows["series"].sum() == count and kept["accuracy"].iloc[-1] == pytest.approx(accuracy)
    assert np.average(rows["accuracy"], weights=rows["series"]) == pytest.approx(accuracy)
    assert ((rows["low"] - 1e-9 < rows["confidence"]) & (rows["confidence"] < rows["high"] + 1e-9)).all()
    assert (np.diff(kept["confidence"]) <= 0).all()


@given(st.integers(1, 1000))
def test_coverage_is_kept_at_each_per_cent(count):
    rows = trust.at_per_cents(pd.DataFrame({"coverage": np.arange(1, count + 1) / count}))
    kept = rows["coverage"].to_numpy()
    assert len(rows) == min(count, 100) and kept[-1] == 1 and (np.diff(kept) > 0).all()
    if count >= 100:  # the first that reaches the per cent
        assert (kept >= np.arange(1, 101) / 100 - 1e-9).all() and (kept < np.arange(1, 101) / 100 + 1 / count).all()
