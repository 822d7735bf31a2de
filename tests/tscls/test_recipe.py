"""Which recipe is used, and how long it trains."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.batches import even_batches
from tscls.recipe import FEW_LABELS, PUBLISHED, choose_recipe


@pytest.mark.parametrize(
    ("labels", "epochs", "steps"), [(10, 800, 800), (50, 267, 801), (200, 67, 804), (400, 40, 1000), (2000, 40, 5000)]
)
def test_the_length_of_the_few_label_recipe(labels, epochs, steps):
    """At least 800 steps, and at least 40 epochs."""
    recipe = choose_recipe("auto", labels)
    assert recipe.name == "few-label" and recipe.epochs == epochs
    assert recipe.epochs * len(even_batches(np.arange(labels), recipe.batchsize)) == steps


@given(labels=st.integers(1, 3000), batchsize=st.integers(2, 64))
def test_even_batches(labels, batchsize):
    batches = even_batches(np.arange(labels)[::-1], batchsize)
    np.testing.assert_array_equal(np.concatenate(batches), np.arange(labels)[::-1])
    sizes = [len(batch) for batch in batches]
    assert max(sizes) - min(sizes) <= 1 and min(labels, batchsize) <= min(sizes) < 2 * batchsize


def test_which_recipe():
    assert choose_recipe("auto", FEW_LABELS).name == choose_recipe("few-label", 10**6).name == "few-label"
    assert choose_recipe("auto", FEW_LABELS + 1) == choose_recipe("published", 50) == PUBLISHED


def test_what_is_given_comes_first():
    recipe = choose_recipe("few-label", 100, batchsize=32, epochs=None, learning_rate=0.5)
    assert (recipe.batchsize, recipe.epochs, recipe.learning_rate) == (32, 267, 0.5)
    assert choose_recipe("few-label", 100, epochs=7).epochs == 7
