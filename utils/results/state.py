"""The state of a training run: what is trained and by what, how far it has come, and what a checkpoint holds of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from utils.checkpoint import load_weights
from utils.errors import UsageError
from utils.precision import Precision
from utils.results.resume import Saved, check_same
from utils.runtime.distributed import World


class RunState:
    """A module in training, what updates it, and how far training has come.

    Attributes:
        identity: everything that decides what the run computes, by option; a checkpoint with another is not resumed.
        describe: returns what else a checkpoint holds: how to rebuild the module.
        epoch, step: the next step is ``step`` of ``epoch``, both counted from 0.
        best, epochs_since_best: the lowest held-out loss, and the epochs since then.
        sums: sums of loss and figures over the epoch's steps so far, on this rank.
    """

    def __init__(
        self,
        module: nn.Module,
        optimizer: Optimizer,
        precision: Precision,
        world: World,
        *,
        identity: dict,
        describe: Callable[[], dict],
        steps_per_epoch: int,
        start_epoch: int = 0,
    ):
        self.module, self.optimizer, self.precision, self.world = module, optimizer, precision, world
        self.identity, self.describe, self.steps_per_epoch = identity, describe, steps_per_epoch
        self.epoch, self.step = start_epoch, 0
        self.best, self.epochs_since_best = math.inf, 0
        self.sums: dict[str, Tensor] = {}
        self.seconds_before, self.start = 0.0, time.monotonic()

    @property
    def seconds(self) -> float:
        """The time that training has taken, in all processes that resumed it."""
        return self.seconds_before + time.monotonic() - self.start

    @property
    def steps_done(self) -> int:
        """Optimizer steps done, as counted from epoch 0."""
        return self.epoch * self.steps_per_epoch + self.step

    def is_finished(self, epochs: int, patience: int | None) -> bool:
        """Whether all epochs are done, or the held-out loss has not improved for ``patience`` of them."""
        return self.epoch >= epochs or patience is not None and self.epochs_since_best >= patience

    def is_last(self, epochs: int, patience: int | None) -> bool:
        """Whether the present epoch, which has been counted, is the last one."""
        return self.epoch + 1 >= epochs or self.is_finished(epochs, patience)

    def add_step(self, figures: dict[str, Tensor]) -> None:
        """Count a step and its figures."""
        for name, value in figures.items():
            self.sums[name] = self.sums.get(name, 0) + value.double()
        self.step += 1

    def means(self) -> dict[str, float]:
        """Means of the epoch's loss and figures over its steps so far and all ranks; all ranks call this."""
        size = self.world.size
        return {
            name: self.world.all_reduce_sum_(total.clone()).item() / size / self.step
            for name, total in self.sums.items()
        }

    def end_epoch(self, held_out_loss: float) -> bool:
        """Count an evaluated epoch; returns whether its held-out loss is the best so far."""
        is_best = held_out_loss < self.best
        self.best = min(self.best, held_out_loss)
        self.epochs_since_best = 0 if is_best else self.epochs_since_best + 1
        return is_best

    def begin_epoch(self) -> None:
        """Move on to the next epoch."""
        self.epoch, self.step, self.sums = self.epoch + 1, 0, {}

    def checkpoint(self, *, is_whole: bool) -> dict:
        """Everything that resuming, or fine-tuning from it, needs; ``is_whole``: the epoch is evaluated and counted.

        All ranks call this. Running statistics of batch normalisation and the sums are each rank's own inside an
        epoch: they are kept for every rank, and their means for another number of ranks.

        Raises:
            UsageError: a weight is infinite or not a number.
        """
        state, sums, ranks = self.module.state_dict(), dict(self.sums), []
        if self.world.size > 1:
            ranks = self.world.gather_objects({"statistics": statistics(state), "sums": on_cpu(self.sums)})
            state = state | means([one["statistics"] for one in ranks])
            sums = means([one["sums"] for one in ranks])
        self._check_finite(state)
        return {
            "model_state": state,
            "epoch": self.epoch,
            "val_loss_min": self.best,
            "not_improved_count": self.epochs_since_best,
            **self.describe(),
            "identity": self.identity,
            "training": {
                "step": self.step,
                "steps": self.steps_per_epoch,
                "is_whole": is_whole,
                "seconds": self.seconds,
                "sums": sums,
                "ranks": ranks,
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.precision.scaler.state_dict(),
            },
        }

    def load(self, saved: Saved) -> None:
        """Resume from a checkpoint. One without optimizer state, as published, starts with a fresh optimizer.

        Raises:
            UsageError: it is of another run, or damaged.
        """
        self.load_weights(saved)
        try:
            self._load_progress(saved.content)
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            if isinstance(error, UsageError):
                raise UsageError(f"{saved.path}: {error}") from None
            told = " ".join(f"{type(error).__name__}: {error}".split())
            raise UsageError(f"{saved.path}: what it says of the training is damaged ({told})") from None

    def _load_progress(self, content: dict) -> None:
        """Take all but the weights."""
        self.epoch, self.step, self.sums = content["epoch"] + 1, 0, {}
        self.best, self.epochs_since_best = float(content["val_loss_min"]), int(content["not_improved_count"])
        if (training := content.get("training")) is None:
            return
        if training["steps"] != self.steps_per_epoch:
            raise UsageError(
                f"was trained with {training['steps']} steps an epoch, this run has {self.steps_per_epoch};"
                " resume with the data (--datapath, -n, --useall) and the batch size (-b) it had"
            )
        if not training.get("is_whole", training["step"] == self.steps_per_epoch):
            self._load_epoch(training)
        self.seconds_before = training.get("seconds", 0.0)
        self.optimizer.load_state_dict(training["optimizer"])
        if training["scaler"]:
            self.precision.scaler.load_state_dict(training["scaler"])

    def load_weights(self, saved: Saved) -> None:
        """Take the weights alone.

        Raises:
            UsageError: they are of another run.
        """
        check_same(self.identity, saved.content.get("identity", {}), saved.path)
        load_weights(self.module, saved.content["model_state"], saved.path)

    def _load_epoch(self, training: dict) -> None:
        """Continue inside an epoch."""
        self.epoch, self.step = self.epoch - 1, training["step"]
        own = {"statistics": {}, "sums": training["sums"]}
        if len(ranks := training.get("ranks", [])) == self.world.size:
            own = ranks[self.world.rank]
        self.module.load_state_dict(own["statistics"], strict=False)
        self.sums = {name: value.to(self.world.device) for name, value in own["sums"].items()}

    def _check_finite(self, state: dict[str, Tensor]) -> None:
        bad = [name for name, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
        if bad:
            where = f"epoch {self.epoch}, by step {self.step} of {self.steps_per_epoch}"
            raise UsageError(
                f"weights became infinite or not a number ({bad[0]}) in {where}; lower -lr, or give --clip-grad"
            )


def statistics(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The running statistics of batch normalisation in a state, on the CPU."""
    return on_cpu({name: value for name, value in state.items() if name.endswith(("running_mean", "running_var"))})


def on_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.cpu() for name, tensor in tensors.items()}


def means(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean over dicts of tensors of the same names and shapes."""
    return {name: torch.stack([part[name] for part in parts]).mean(0) for name in parts[0]}
