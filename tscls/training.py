"""Training a network on labelled series."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from datasets.batches import even_batches, split_batches
from datasets.catalog import Splits
from datasets.store import SeriesSet, join
from datasets.transforms import temporal_shift
from models import Network
from tscls.classifier import Classifier
from tscls.estimators import training_input
from tscls.evaluation import scores_on
from tscls.inputs import LabelledSeries
from tscls.recipe import Recipe
from utils.errors import UsageError
from utils.metrics import SCORES
from utils.precision import Precision
from utils.results.logs import RunLog
from utils.results.progress import Progress
from utils.runtime.distributed import World
from utils.runtime.seeding import RandomStreams
from utils.schedule import Schedule, applied_rate

VALIDATION_DRAWS = 1  # as published: one random draw, the same in every epoch
HUGE_LOSS = 1e6  # with the published start of the weights the first epochs have some hundreds
LOSSES = {"train_loss": "the training loss", "valid_loss": "the validation loss"}


def fit(
    classifier: Classifier,
    splits: Splits,
    recipe: Recipe,
    open_log: Callable[[], RunLog | None],
    precision: Precision,
    world: World,
    *,
    print_freq: int = 10,
    **options,
) -> RunLog | None:
    """Train the classifier's network, watching the valid split unless the recipe trains on it too.

    The best weights by validation loss, or else the last ones, are saved as model_best.pth in the folder of the log,
    which ``open_log`` makes, and which is None in all but the main process. ``options`` are those of ``Training``.

    Raises:
        UsageError: the loss became infinite or not a number.
    """
    series = splits.train if recipe.patience else join((splits.train, splits.valid))
    training = Training(classifier, series, recipe, precision, world, **options)
    log = open_log()
    progress = Progress(log.folder.name if log else "", recipe.epochs, world.is_main)
    best, not_improved = math.inf, 0
    for epoch in progress:
        row = {"epoch": epoch, **training.run_epoch(epoch, progress, log, print_freq)}
        world.average_statistics(classifier.model)
        if recipe.patience:
            scores = scores_on(classifier, splits.valid, world, draws=VALIDATION_DRAWS, precision=precision)
            row |= {f"valid_{name}": scores[name] for name in ("loss", *SCORES)}
            not_improved = 0 if scores["loss"] < best else not_improved + 1
            best = min(best, scores["loss"])
        check_finite(row)
        if log:
            log.epoch(row)
            if not_improved == 0:
                where = {"epoch": epoch, "val_loss_min": best, "not_improved_count": not_improved}
                classifier.save(log.folder / "model_best.pth", **where)
        is_last = epoch + 1 == recipe.epochs or bool(recipe.patience and not_improved >= recipe.patience)
        progress.epoch(row, is_last)
        if is_last:
            if world.is_main:
                warn_if_huge(row)
            break
    return log  # and drop DDP with ``training``: one that outlives its process group can hang


def fit_estimator(
    classifier: Classifier, splits: Splits, recipe: Recipe, open_log: Callable[[], RunLog | None]
) -> RunLog | None:
    """Train a classifier of scikit-learn on what ``fit`` trains on, and save it as model_best.skops.

    Every rank trains the same one, for scikit-learn has no other way.
    """
    series = splits.train if recipe.patience else join((splits.train, splits.valid))
    x = training_input(series, classifier.way, classifier.seed)
    classifier.model.fit(x, series.labels)
    log = open_log()
    if log:
        classifier.save(log.folder / "model_best.skops")
    return log


class Training:
    """A network in training on a set of series: its optimizer, learning rate and random streams.

    ``is_frozen`` trains the decoder alone, ``is_compiled`` goes through torch.compile, and ``workers`` threads read
    batches ahead.
    """

    def __init__(
        self,
        classifier: Classifier,
        series: SeriesSet,
        recipe: Recipe,
        precision: Precision,
        world: World,
        *,
        is_frozen: bool = False,
        is_compiled: bool = False,
        workers: int = 0,
    ):
        check_batch(recipe.batchsize, world)
        self.network, self.way, self.recipe = classifier.model.to(world.device), classifier.way, recipe
        self.precision, self.world, self.is_frozen = precision, world, is_frozen
        self.data = LabelledSeries(series, world, workers)
        train_mode(self.network, is_frozen)  # before DDP is told what gets gradients
        # not by default, as compiling costs more than short runs gain; an epoch's last batch is of another size
        model = torch.compile(self.network, dynamic=False) if is_compiled else self.network
        self.model = world.parallel(model)
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(
            parameters, recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
        )
        steps = len(self.batches(np.arange(len(series))))
        self.schedule = Schedule(
            recipe.learning_rate, steps, recipe.epochs, recipe.warmup_epochs, recipe.milestones, recipe.cosine
        )
        self.streams = RandomStreams(classifier.seed, world.device, world.rank)

    def batches(self, order: np.ndarray) -> list[np.ndarray]:
        """Batches of an epoch; each gives every rank the two series that batch normalisation needs."""
        if self.recipe.is_even:
            return even_batches(order, self.recipe.batchsize)
        return split_batches(order, self.recipe.batchsize, smallest=2 * self.world.size)

    def run_epoch(self, epoch: int, progress: Progress, log: RunLog | None = None, print_freq: int = 10) -> dict:
        """One pass over the series in an order of its own; returns its means for the log."""
        world, augment, start = self.world, self.streams.augment, time.monotonic()
        batches = self.batches(self.streams.order(epoch, len(self.data)))
        sums = torch.zeros(3, dtype=torch.float64, device=world.device)  # loss, hits, series
        train_mode(self.network, self.is_frozen)
        for step, (series, labels) in enumerate(self.data.stream(batches)):
            position = epoch * len(batches) + step
            self.streams.seek(epoch, step)
            self.schedule.apply(self.optimizer, position)
            with self.precision.autocast():
                logits = self.model(self.way.drawn(temporal_shift(series, augment), augment))
                loss = cross_entropy(logits, labels)
            weight = len(labels) * world.size / len(batches[step])  # DDP takes the mean over ranks, of any shard sizes
            self.precision.backward_and_step(loss * weight, self.optimizer)
            hits = (logits.argmax(1) == labels).sum()
            sums += torch.stack((loss.detach().double() * len(labels), hits, sums.new_tensor(len(labels))))
            if (position + 1) % print_freq == 0:
                rate = sums[2].item() / (time.monotonic() - start)
                progress.step(epoch, step + 1, len(batches), loss.item(), rate)
                if log:
                    log.scalars("step", {"loss": loss.item()}, position + 1)
        loss, hits, seen = world.all_reduce_sum_(sums).tolist()
        seconds = time.monotonic() - start
        means = {"train_loss": loss / seen, "train_oa": hits / seen, "seconds": seconds, "series_per_s": seen / seconds}
        return {"lr": applied_rate(self.optimizer), **means}


def check_batch(batchsize: int, world: World) -> None:
    """UsageError where a batch cannot give every rank the two series that batch normalisation needs."""
    if batchsize < 2 * world.size:
        raise UsageError(f"-b {batchsize}: {world.size} ranks need at least 2 series each in a batch")


def train_mode(network: Network, is_frozen: bool) -> None:
    """Train everything, or the decoder alone; a frozen trunk also keeps its running statistics."""
    network.train().requires_grad_(not is_frozen)
    if is_frozen:
        network.eval().decoder.train().requires_grad_(True)


def check_finite(row: dict) -> None:
    """UsageError where a loss of an epoch is infinite or not a number."""
    for name, what in LOSSES.items():
        if not math.isfinite(row.get(name, 0)):
            raise UsageError(f"{what} became {row[name]} in epoch {row['epoch']}; lower -lr")


def warn_if_huge(row: dict) -> None:
    """Say that a run has diverged, which its scores alone do not tell."""
    for name, what in LOSSES.items():
        if row.get(name, 0) > HUGE_LOSS:
            print(f"warning: {what} is {row[name]:.3g} at the end of training, so it diverged; lower -lr")
