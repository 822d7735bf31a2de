"""How a classifier is trained: the published way, or one that is good with few labels.

The published recipe (Xu et al. 2024) is for thousands of labels: batches of 512, patience of 10 epochs. With 45
training labels an epoch is one step, and it stops after a dozen of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

RECIPES = ("auto", "few-label", "published")
FEW_LABELS = 2000  # up to this many labelled series, "auto" is the few-label recipe


@dataclass(frozen=True)
class Recipe:
    """Everything about training that is not the model or the data.

    Attributes:
        init: how fresh weights start.
        patience: epochs without a better validation loss before training stops, and the best weights are kept.
            None: train to the end on train and valid together (their labels are one budget) and keep the last weights.
        milestones: epochs at which the learning rate drops, in place of the cosine.
        draws: random draws of observations that a prediction is averaged over; 0: it is made from all observations.
        is_even: batches are of equal size; else the last one of an epoch is what is left.
    """

    name: str
    init: str = "published"
    batchsize: int = 512
    epochs: int = 100
    patience: int | None = 10
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    warmup_epochs: float = 0
    milestones: tuple[int, ...] = ()
    cosine: bool = False
    draws: int = 0
    is_even: bool = False


PUBLISHED = Recipe("published", draws=1)
STEPS, EPOCHS = 800, 40  # of the few-label recipe, at least; with few labels the steps decide
RATE, CAREFUL_RATE = 1e-3, 1e-4  # the latter where the decoder has been trained too, and should not be unlearned


def few_label_recipe(
    num_series: int, *, batchsize: int = 16, epochs: int | None = None, keeps_decoder: bool = False
) -> Recipe:
    """Small batches, a length in steps and epochs, warm-up and cosine."""
    epochs = epochs or max(EPOCHS, math.ceil(STEPS / max(1, num_series // batchsize)))
    return Recipe(
        "few-label",
        init="torch",
        batchsize=batchsize,
        epochs=epochs,
        patience=None,
        learning_rate=CAREFUL_RATE if keeps_decoder else RATE,
        warmup_epochs=0.05 * epochs,
        cosine=True,
        is_even=True,
    )


def choose_recipe(name: str, num_series: int, *, keeps_decoder: bool = False, **given) -> Recipe:
    """The recipe by name ("auto", "few-label", "published") for so many labelled series.

    ``keeps_decoder``: training starts from a classifier of the same classes, decoder included.

    What was ``given`` on the command line (batchsize, epochs …, unless None) takes the place of what the recipe says.
    The random draw of the published prediction has to be asked for, by "published".
    """
    given = {key: value for key, value in given.items() if value is not None}
    recipe = PUBLISHED if name == "published" else replace(PUBLISHED, draws=0)
    if name == "few-label" or name == "auto" and num_series <= FEW_LABELS:
        counts = {key: given[key] for key in ("batchsize", "epochs") if key in given}
        recipe = few_label_recipe(num_series, keeps_decoder=keeps_decoder, **counts)
    recipe = replace(recipe, **given)
    return replace(recipe, cosine=recipe.cosine and not recipe.milestones)
