"""Which recipe is used, and how long it trains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.batches import even_batches
from tscls.recipe import FEW_LABELS, PUBLISHED, RECIPES, choose_recipe


@pytest.mark.parametrize(
    ("labels", "epochs", "steps"), [(10, 800, 800), (50, 267, 801), (200, 67, 804), (400, 40, 1000), (2000, 40, 5000)]
)
def test_the_few_label_recipe_has_at_least_800_steps_and_40_epochs(labels, epochs, steps):
    recipe = choose_recipe("auto", labels)
    assert recipe.name == "few-label" and recipe.epochs == epochs
    assert recipe.epochs * len(even_batches(np.arange(labels), recipe.batchsize)) == steps


@given(labels=st.integers(1, 3000), batchsize=st.integers(2, 64))
def test_even_batches_hold_every_series_and_differ_by_one_at_most(labels, batchsize):
    batches = even_batches(np.arange(labels)[::-1], batchsize)
    np.testing.assert_array_equal(np.concatenate(batches), np.arange(labels)[::-1])
    sizes = [len(batch) for batch in batches]
    assert max(sizes) - min(sizes) <= 1 and min(labels, batchsize) <= min(sizes) < 2 * batchsize


def test_auto_is_the_few_label_recipe_up_to_a_number_of_labels():
    assert choose_recipe("auto", FEW_LABELS).name == choose_recipe("few-label", 10**6).name == "few-label"
    assert choose_recipe("published", 50) == PUBLISHED
    assert choose_recipe("auto", FEW_LABELS + 1) == replace(PUBLISHED, draws=0)


def test_predictions_are_from_all_observations_unless_the_published_recipe_is_asked_for():
    draws = {name: choose_recipe(name, FEW_LABELS + 1).draws for name in RECIPES}
    assert draws == {"auto": 0, "few-label": 0, "published": 1}
    assert choose_recipe("auto", 50).draws == 0 and choose_recipe("published", 50, draws=0).draws == 0
    assert choose_recipe("few-label", 50, draws=8).draws == 8


def test_milestones_take_the_place_of_the_cosine():
    assert choose_recipe("few-label", 50).cosine
    recipe = choose_recipe("few-label", 50, milestones=(3, 5))
    assert recipe.milestones == (3, 5) and not recipe.cosine


def test_what_is_given_takes_the_place_of_what_the_recipe_says():
    recipe = choose_recipe("few-label", 100, batchsize=32, epochs=None, learning_rate=0.5)
    assert (recipe.batchsize, recipe.epochs, recipe.learning_rate) == (32, 267, 0.5)
    assert choose_recipe("few-label", 100, epochs=7).epochs == 7


def test_a_decoder_that_is_kept_is_trained_more_carefully():
    fresh, kept = (choose_recipe("auto", 100, keeps_decoder=keeps) for keeps in (False, True))
    assert (fresh.learning_rate, kept.learning_rate) == (1e-3, 1e-4)
    assert replace(kept, learning_rate=1e-3) == fresh
    assert choose_recipe("auto", 100, keeps_decoder=True, learning_rate=0.01).learning_rate == 0.01
    assert choose_recipe("published", 100, keeps_decoder=True) == PUBLISHED
