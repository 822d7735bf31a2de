"""How a classifier is trained: the published way, or one that is good with few labels.

The published recipe (Xu et al. 2024, section 4.2) is for thousands of labels: batches of 512, patience of 10 epochs.
With 45 training labels an epoch is one step, and it stops after a dozen of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import nn

FEW_LABELS = 1000  # up to this many training series, "auto" is the few-label recipe


@dataclass(frozen=True)
class Recipe:
    """Everything about training that is not the model or the data.

    ``patience`` None trains to the end and keeps the last weights; else the best by validation loss are kept.
    ``trunk_rate`` scales the learning rate of a pre-trained trunk against that of its fresh decoder.
    ``average`` is the decay of an exponential moving average of the weights, which is what is then tested.
    ``draws`` is the number of random choices (``--rc``) that a prediction is averaged over.
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
    label_smoothing: float = 0.0


PUBLISHED = Recipe("published")


def few_label_recipe(num_train: int, pretrained: bool) -> Recipe:
    """For up to FEW_LABELS training series: small batches, a length in steps, a cosine, averaged weights and draws."""
    batchsize = 16
    steps_per_epoch = max(1, num_train // batchsize)
    epochs = math.ceil(STEPS / steps_per_epoch)
    return Recipe(
        "few-label",
        batchsize=batchsize,
        epochs=epochs,
        patience=None,
        warmup_epochs=0.05 * epochs,
        cosine=True,
        trunk_rate=1.0,
        average=0.99,
        draws=8,
    )


STEPS = 800


def choose_recipe(name: str, num_train: int, pretrained: bool, **given) -> Recipe:
    """The recipe by name ("auto", "published"), with what was given on the command line (not None) in its place."""
    if name == "auto" and num_train <= FEW_LABELS:
        recipe = few_label_recipe(num_train, pretrained)
    else:
        recipe = PUBLISHED
    return replace(recipe, **{key: value for key, value in given.items() if value is not None})


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Adam on what is to be trained; the trunk's rate is the decoder's times ``trunk_rate``."""
    groups = {True: [], False: []}  # by whether a parameter is the decoder's
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            groups[name.startswith("decoder.")].append(parameter)
    rates = {True: recipe.learning_rate, False: recipe.learning_rate * recipe.trunk_rate}
    parameters = [{"params": group, "lr": rates[key]} for key, group in groups.items() if group]
    return torch.optim.Adam(parameters, recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True)
