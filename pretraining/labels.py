"""Learning from labels: the pretext ``Labels``, cross-entropy on the class of each series.

The upper reference of the other pretexts, for labels that cost nothing, such as those of simulated series. The views
are those of main_tscls.py: the temporal shift of Y. Xu, Y. Ma and Z. Zhang, "Self-supervised pre-training for
large-scale crop mapping using Sentinel-2 time series", ISPRS Journal of Photogrammetry and Remote Sensing 207 (2024),
312-325.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from datasets.catalog import open_classmap
from datasets.classmap import ClassMap
from datasets.transforms import ModelInput, Series
from moco.loader import Augmentation, augmentation_of
from moco.loader import view as random_view
from pretraining.joint import Output
from utils.precision import Precision
from utils.runtime.distributed import World

NAME = "labels"
SHIFT_ALONE = Augmentation(noise_probability=0.0, removal_probability=0.0)  # as in main_tscls.py


class Labels(nn.Module):
    """A whole classifier, decoder included; its figure is accuracy.

    Args:
        encoder: a network with as many outputs as there are classes.
        augment: makes a view, the model input of the whole batch, of (series, generator).
        classmap: the classes. With them in it, a checkpoint is that of a classifier.
    """

    name, run_name = NAME, "Labels"

    def __init__(self, encoder: nn.Module, augment: Callable, classmap: ClassMap):
        super().__init__()
        self.encoder_q, self.augment, self.classmap = encoder, augment, classmap

    def identity(self) -> dict:
        """The settings of the pretext, by which a checkpoint is recognised."""
        return {"classes": list(self.classmap.names)}

    def views(self, series: Series, generator: Generator) -> tuple[ModelInput, Tensor]:
        """A random view of each series, and their labels (B,)."""
        return self.augment(series, generator), series.labels

    def before_step(self) -> None:
        """Nothing comes before a step."""

    def forward(self, view: tuple, labels: Tensor) -> Output:
        """The mean cross-entropy of a view. Ranks have batches of one size, so that their mean is the mean of all."""
        loss, hits = self.sums(view, labels)
        return Output(loss / len(labels), {"accuracy": hits / len(labels)})

    def sums(self, view: tuple, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Sums over the batch of the cross-entropy, and of the series whose class is found, each ()."""
        logits = self.encoder_q(view).float()
        return F.cross_entropy(logits, labels, reduction="sum"), (logits.detach().argmax(1) == labels).sum()

    def after_step(self, output: Output) -> None:
        """Nothing comes after a step."""

    @torch.no_grad()
    def evaluate(self, views: Iterable[tuple], precision: Precision, world: World) -> dict[str, float]:
        """Mean loss and accuracy of views of all held-out series; changes nothing."""
        totals = torch.zeros(3, dtype=torch.float64, device=world.device)  # loss, hits, series
        for view, labels in views:
            with precision.autocast():
                totals[:2] += torch.stack(self.sums(view, labels)).double()
            totals[2] += len(labels)
        loss, hits, count = world.all_reduce_sum_(totals).tolist()
        return {"loss": loss / count, "accuracy": hits / count}


def build(encoder: nn.Module, augment: Callable, settings: dict) -> Labels:
    """It makes its own views: the random shift alone, unless the options of the views ask for more."""
    method = "rc" if settings["rc"] else "pad"
    augmentation = augmentation_of(settings, SHIFT_ALONE)
    view = partial(random_view, size=settings["sequencelength"], method=method, augmentation=augmentation)
    return Labels(encoder, view, open_classmap(settings["datapath"], settings["nclasses"]))
