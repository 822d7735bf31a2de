"""Class shares: read, estimated without labels, and applied to a classifier's probabilities."""

from __future__ import annotations

import numpy as np
import pytest

from datasets.classmap import CDL20
from tscls import prior
from utils.errors import UsageError

TRAINED, THERE = np.array([0.5, 0.25, 0.25]), np.array([0.1, 0.6, 0.3])


def classified(shares: np.ndarray, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn with these shares, and the exact log-probabilities (N, 3) that a training with TRAINED gives for
    one value a series, which is normal around its class."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(3, count, p=shares)
    values = generator.normal(1.5 * labels, 1.0)
    log_likelihood = -((values[:, None] - 1.5 * np.arange(3)) ** 2) / 2
    weighted = log_likelihood + np.log(TRAINED)
    return labels, weighted - np.logaddexp.reduce(weighted, axis=1, keepdims=True)


def test_training_shares_have_one_more_series_a_class():
    assert prior.training_shares(np.array([0, 0, 2, 2, 2]), 4).tolist() == [3 / 9, 1 / 9, 4 / 9, 1 / 9]


def test_corrected_probabilities_are_those_of_bayes_rule():
    found = np.exp(prior.corrected(np.log([[0.6, 0.3, 0.1]]), TRAINED, THERE))
    expected = np.array([0.6 * 0.1 / 0.5, 0.3 * 0.6 / 0.25, 0.1 * 0.3 / 0.25])
    assert found[0] == pytest.approx(expected / expected.sum())
    unchanged = np.log([[0.6, 0.3, 0.1]])
    assert prior.corrected(unchanged, TRAINED, TRAINED) == pytest.approx(unchanged)


def test_the_correction_raises_accuracy_where_shares_differ():
    labels, log_probability = classified(THERE, 5000)
    before = (log_probability.argmax(1) == labels).mean()
    after = (prior.corrected(log_probability, TRAINED, THERE).argmax(1) == labels).mean()
    assert after > before + 0.05


@pytest.mark.parametrize("shares", [THERE, np.array([0.8, 0.15, 0.05])])
def test_shares_are_estimated_from_series_without_labels(shares):
    labels, log_probability = classified(shares, 20_000)
    found = prior.estimated(log_probability, TRAINED)
    assert found == pytest.approx(np.bincount(labels) / len(labels), abs=0.02)
    assert found.sum() == pytest.approx(1)


def test_with_few_series_the_estimate_stays_near_the_training():
    _, log_probability = classified(THERE, 4)
    near, far = prior.estimated(log_probability, TRAINED), prior.estimated(log_probability, TRAINED, strength=1e-6)
    assert np.abs(near - TRAINED).max() < np.abs(far - TRAINED).max()
    believed = prior.estimated(log_probability, TRAINED, strength=1e6)
    assert believed == pytest.approx(TRAINED, abs=1e-4)


def test_a_class_that_is_never_predicted_does_not_vanish():
    log_probability = np.log(np.tile([[1 - 2e-9, 1e-9, 1e-9]], (100_000, 1)))
    found = prior.estimated(log_probability, TRAINED, strength=1e-9)
    assert found[1:] == pytest.approx(prior.LEAST, rel=0.01)


# -- files -------------------------------------------------------------------------------------------------------------


def written(tmp_path, text: str):
    path = tmp_path / "shares.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize("column", ["share", "area"])
def test_classes_are_named_or_given_by_code(tmp_path, column):
    path = written(tmp_path, f"class,{column}\nCorn,30\n5,60\nwinter wheat,0\n")
    found = prior.read_shares(path, CDL20)
    corn, soybeans = CDL20.names.index("Corn"), CDL20.codes.index(5)
    rest = prior.LEAST / (1 + 19 * prior.LEAST)
    assert found[[corn, soybeans]] == pytest.approx([1 / 3, 2 / 3], rel=0.01)
    others = np.delete(found, [corn, soybeans])
    assert others == pytest.approx(np.full(19, rest)) and found.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name,share\nCorn,1\n", "has the columns name, share; expected class and share (or area)"),
        ("class,percent\nCorn,1\n", "has the columns class, percent; expected class and share (or area)"),
        ("class,share\nCorn,1\nMaize,1\n", "line 3: 'Maize' is no class; expected of Grass/Pasture, "),
        ("class,share\nCorn,x\n", "line 2: share 'x'; expected a number of at least 0"),
        ("class,share\nCorn,-1\n", "line 2: share -1; expected a number of at least 0"),
        ("class,share\nCorn,inf\n", "line 2: share inf; expected a number of at least 0"),
        ("class,share\nCorn,0\n", "the shares add up to 0"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(tmp_path, text, told):
    path = written(tmp_path, text)
    with pytest.raises(UsageError) as refused:
        prior.read_shares(path, CDL20)
    assert str(path) in str(refused.value) and told in str(refused.value)


def test_a_class_that_is_given_twice_is_refused(tmp_path):
    with pytest.raises(UsageError, match="line 3: '1' has a row already"):
        prior.read_shares(written(tmp_path, "class,share\nCorn,1\n1,1\n"), CDL20)
