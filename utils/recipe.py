"""How a classifier is trained: the published way, or one that is good with few labels.

The published recipe (Xu et al. 2024, section 4.2) is for thousands of labels: batches of 512, patience of 10 epochs.
With 45 training labels an epoch is one step, and it stops after a dozen of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import nn

FEW_LABELS = 1000  # up to this many labelled series, "auto" is the few-label recipe


@dataclass(frozen=True)
class Recipe:
    """Everything about training that is not the model or the data.

    Attributes:
        patience: epochs without a better validation loss before training stops, and the best weights are kept.
            None: train to the end on train and valid together (their labels are one budget) and keep the last weights.
        trunk_rate: the learning rate of the trunk, as a share of that of the decoder.
        average: decay of an exponential moving average of the weights, which is then what is tested; 0 keeps none.
        draws: random choices of observations (``--rc``) that a prediction is averaged over.
    """

    name: str
    batchsize: int = 512
    epochs: int = 100
    patience: int | None = 10
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    warmup_epochs: float = 0
    cosine: bool = False
    trunk_rate: float = 1.0
    average: float = 0.0
    draws: int = 1


PUBLISHED = Recipe("published")
STEPS = 400  # of the few-label recipe


def few_label_recipe(num_series: int, *, batchsize: int = 16, epochs: int | None = None) -> Recipe:
    """Small batches, a length in steps, warm-up and cosine, averaged weights and averaged predictions."""
    epochs = epochs or math.ceil(STEPS * batchsize / max(num_series, batchsize))
    return Recipe(
        "few-label",
        batchsize=batchsize,
        epochs=epochs,
        patience=None,
        warmup_epochs=0.05 * epochs,
        cosine=True,
        average=0.99,
        draws=8,
    )


def choose_recipe(name: str, num_series: int, **given) -> Recipe:
    """The recipe by name ("auto", "published") for so many labelled series.

    What was ``given`` on the command line (batchsize, epochs …, unless None) takes the place of what the recipe says.
    """
    given = {key: value for key, value in given.items() if value is not None}
    recipe = PUBLISHED
    if name == "auto" and num_series <= FEW_LABELS:
        recipe = few_label_recipe(num_series, **{key: given[key] for key in ("batchsize", "epochs") if key in given})
    return replace(recipe, **given)


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Adam on what is to be trained; the trunk's rate is the decoder's times ``trunk_rate``."""
    groups = {True: [], False: []}  # by whether a parameter is the decoder's
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            groups[name.startswith("decoder.")].append(parameter)
    rates = {True: recipe.learning_rate, False: recipe.learning_rate * recipe.trunk_rate}
    parameters = [{"params": group, "lr": rates[key]} for key, group in groups.items() if group]
    return torch.optim.Adam(parameters, recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True)
