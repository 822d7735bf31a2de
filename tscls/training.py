"""Training a network on labelled series."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from datasets.batches import even_batches, split_batches
from datasets.catalog import Splits
from datasets.numbers import series_at
from datasets.store import SeriesSet, join
from datasets.transforms import temporal_shift
from models import Network
from tscls.classifier import Classifier
from tscls.estimators import training_input
from tscls.evaluation import scores_on
from tscls.inputs import LabelledSeries
from tscls.prior import training_shares
from tscls.recipe import Recipe
from utils.errors import UsageError
from utils.metrics import SCORES
from utils.precision import Precision
from utils.results.keeper import Keeper
from utils.results.logs import RunLog
from utils.results.losses import LossWatch, bad_batch, check_finite
from utils.results.progress import Progress
from utils.results.resume import Saved
from utils.results.state import RunState
from utils.runtime.distributed import World
from utils.runtime.seeding import RandomStreams
from utils.runtime.signals import Requests
from utils.schedule import Schedule, applied_rate

VALIDATION_DRAWS = 1  # as published: one random draw, the same in every epoch
HUGE_LOSS = 1e6  # with the published start of the weights the first epochs have some hundreds
LOSSES = {"train_loss": "the training loss", "valid_loss": "the validation loss"}


def fit(
    classifier: Classifier,
    splits: Splits,
    recipe: Recipe,
    folder: Path,
    open_log: Callable[[int | None], RunLog | None],
    precision: Precision,
    world: World,
    *,
    saved: Saved | None = None,
    requests: Requests | None = None,
    save_minutes: float = 0,
    print_freq: int = 10,
    **options,
) -> RunLog | None:
    """Train the classifier's network, watching the valid split unless the recipe trains on it too.

    The best weights by validation loss, or else the last ones, are saved as model_best.pth in ``folder``, whose log
    ``open_log`` makes: of a run that is resumed from ``saved``, with the rows before an epoch, which it is given. It is
    None in all but the main process. ``requests`` and ``save_minutes`` are those of ``Keeper``, ``options`` those of
    ``Training``.

    Raises:
        UsageError: the loss became infinite or not a number, or ``saved`` is of another run.
        Stopped: a signal asked for it; the state is saved.
    """
    training = Training(classifier, splits, recipe, precision, world, **options)
    run, requests = training.run, requests or Requests()
    if saved:
        run.load(saved)
    log = open_log(run.epoch if saved else None)
    watch = LossWatch(partial(bad_batch, training.series_of, run.steps_per_epoch, folder))
    keeper = Keeper(run, log and log.folder, requests, world, save_minutes, before=watch.finish)
    progress = Progress(folder.name, recipe.epochs, world.is_main, run.epoch)

    def after_step(loss: Tensor) -> None:
        watch.add(loss, run.epoch, run.step)
        if world.size == 1 or run.steps_done % print_freq == 0:  # it is a collective
            keeper.after_step()

    with requests.deferred():
        for epoch in progress:
            if run.is_finished(recipe.epochs, recipe.patience):  # and was so when it was saved
                break
            row = {"epoch": epoch, **training.run_epoch(progress, log, print_freq, after_step)}
            watch.finish()
            world.average_statistics(classifier.model)
            is_best = not recipe.patience and run.is_last(recipe.epochs, None)
            if recipe.patience:
                options = {"draws": VALIDATION_DRAWS, "temperature": 1, "precision": precision}
                scores = scores_on(classifier, splits.valid, world, **options)
                row |= {f"valid_{name}": scores[name] for name in ("loss", *SCORES)}
                check_finite(scores["loss"], "the validation loss", epoch)
                is_best = run.end_epoch(scores["loss"])
            is_last = run.is_last(recipe.epochs, recipe.patience)
            if log:
                log.epoch(row)
                if is_best:
                    where = {"epoch": epoch, "val_loss_min": run.best, "not_improved_count": run.epochs_since_best}
                    classifier.save(log.folder / "model_best.pth", **where)
            progress.epoch(row, is_last)
            keeper.after_epoch()  # after the last one too, as the test is still to come
            run.begin_epoch()
            if is_last:
                if world.is_main:
                    warn_if_huge(row)
                break
    return log  # and drop DDP with ``training``: one that outlives its process group can hang


def fit_estimator(
    classifier: Classifier, splits: Splits, recipe: Recipe, open_log: Callable[[int | None], RunLog | None]
) -> RunLog | None:
    """Train a classifier of scikit-learn on what ``fit`` trains on, and save it as model_best.skops.

    Every rank trains the same one, for scikit-learn has no other way.
    """
    series = training_series(splits, recipe)
    classifier.shares = training_shares(series.labels, classifier.num_classes)
    x = training_input(series, classifier.way, classifier.seed)
    classifier.model.fit(x, series.labels)
    log = open_log(None)
    if log:
        classifier.save(log.folder / "model_best.skops")
    return log


class Training:
    """A network in training: its series, optimizer, learning rate and random streams, and how far it has come.

    ``identity`` is that of ``RunState``, ``is_frozen`` trains the decoder alone, ``is_compiled`` goes through
    torch.compile, and ``workers`` threads read batches ahead.
    """

    def __init__(
        self,
        classifier: Classifier,
        splits: Splits,
        recipe: Recipe,
        precision: Precision,
        world: World,
        *,
        identity: dict | None = None,
        is_frozen: bool = False,
        is_compiled: bool = False,
        workers: int = 0,
    ):
        check_batch(recipe.batchsize, world)
        self.network, self.way, self.recipe = classifier.model.to(world.device), classifier.way, recipe
        self.precision, self.world, self.is_frozen = precision, world, is_frozen
        self.parts, series = trained_on(splits, recipe), training_series(splits, recipe)
        self.data = LabelledSeries(series, world, workers)
        classifier.shares = training_shares(series.labels, classifier.num_classes)
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
        self.run = RunState(
            self.network,
            self.optimizer,
            precision,
            world,
            identity=identity or {},
            describe=classifier.settings,
            steps_per_epoch=steps,
        )

    def batches(self, order: np.ndarray) -> list[np.ndarray]:
        """Batches of an epoch; each gives every rank the two series that batch normalisation needs."""
        if self.recipe.is_even:
            return even_batches(order, self.recipe.batchsize)
        return split_batches(order, self.recipe.batchsize, smallest=2 * self.world.size)

    def epoch_batches(self, epoch: int) -> list[np.ndarray]:
        """Positions of the batches of an epoch, of all ranks."""
        return self.batches(self.streams.order(epoch, len(self.data)))

    def series_of(self, epoch: int, step: int) -> list[dict]:
        """Where the series of this rank in a step come from (``datasets.numbers``); steps are counted from 0."""
        return series_at(self.parts, self.world.shard(self.epoch_batches(epoch)[step]))

    def run_epoch(
        self,
        progress: Progress,
        log: RunLog | None = None,
        print_freq: int = 10,
        after_step: Callable[[Tensor], None] = lambda loss: None,
    ) -> dict:
        """A pass over the series in an order of its own, from the run's step on; returns its means for the log.

        ``after_step`` is called with the loss () of each step.
        """
        world, run, augment, start = self.world, self.run, self.streams.augment, time.monotonic()
        batches, first = self.epoch_batches(run.epoch), run.step
        train_mode(self.network, self.is_frozen)
        for series, labels in self.data.stream(batches[first:]):
            self.streams.seek(run.epoch, run.step)
            self.schedule.apply(self.optimizer, run.steps_done)
            with self.precision.autocast():
                logits = self.model(self.way.drawn(temporal_shift(series, augment), augment))
                loss = cross_entropy(logits, labels)
            weight = len(labels) * world.size / len(batches[run.step])
            # DDP takes the mean over ranks, of any shard sizes
            self.precision.backward_and_step(loss * weight, self.optimizer)
            loss, hits = loss.detach(), (logits.argmax(1) == labels).sum()
            run.add_step({"loss": loss.double() * len(labels), "hits": hits, "series": loss.new_tensor(len(labels))})
            if run.steps_done % print_freq == 0:
                rate = run.sums["series"].item() * (1 - first / run.step) / (time.monotonic() - start)
                progress.step(run.epoch, run.step, len(batches), loss.item(), rate)
                if log:
                    log.scalars("step", {"loss": loss.item()}, run.steps_done)
            after_step(loss)
        loss, hits, seen = world.all_reduce_sum_(torch.stack([*run.sums.values()])).tolist()
        seconds = time.monotonic() - start
        speed = {"seconds": seconds, "series_per_s": seen * (1 - first / len(batches)) / seconds}
        means = {"train_loss": loss / seen, "train_oa": hits / seen, **speed}
        return {"lr": applied_rate(self.optimizer), **means}


def trained_on(splits: Splits, recipe: Recipe) -> tuple[SeriesSet, ...]:
    """The train split, and the valid split where the recipe does not watch it."""
    return (splits.train,) if recipe.patience else (splits.train, splits.valid)


def training_series(splits: Splits, recipe: Recipe) -> SeriesSet:
    """The same as one set."""
    parts = trained_on(splits, recipe)
    return parts[0] if len(parts) == 1 else join(parts)


def check_batch(batchsize: int, world: World) -> None:
    """UsageError where a batch cannot give every rank the two series that batch normalisation needs."""
    if batchsize < 2 * world.size:
        raise UsageError(f"-b {batchsize}: {world.size} ranks need at least 2 series each in a batch")


def train_mode(network: Network, is_frozen: bool) -> None:
    """Train everything, or the decoder alone; a frozen trunk also keeps its running statistics."""
    network.train().requires_grad_(not is_frozen)
    if is_frozen:
        network.eval().decoder.train().requires_grad_(True)


def warn_if_huge(row: dict) -> None:
    """Say that a run has diverged, which its scores alone do not tell."""
    for name, what in LOSSES.items():
        if row.get(name, 0) > HUGE_LOSS:
            print(f"warning: {what} is {row[name]:.3g} at the end of training, so it diverged; lower -lr")
