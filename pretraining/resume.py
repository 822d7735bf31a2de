"""The state of a pre-training run: what a checkpoint holds of it, and how a run resumes from one."""

from __future__ import annotations

import math
from pathlib import Path

from torch import Tensor, nn
from torch.optim import Optimizer

from datasets import bands
from utils.checkpoint import load_checkpoint, load_weights
from utils.errors import UsageError
from utils.options import differences
from utils.precision import Precision

ADVICE = "give a checkpoint of main_moco.py; a run resumes exactly from its model_last.pth"
UNTRAINED = "pre-train this run first (leave out --evaluate), give the flags it had, or a checkpoint with --resume"


class RunState:
    """A pretext, what updates it, and how far training has come.

    Attributes:
        identity: everything that decides what the run computes, by option; a checkpoint with another is not resumed.
        epoch, step: the next step is ``step`` of ``epoch``, both counted from 0.
        best, epochs_since_best: the lowest held-out loss, and the epochs since then.
        sums: sums of loss and figures over the epoch's steps so far.
    """

    def __init__(
        self,
        pretext: nn.Module,
        optimizer: Optimizer,
        precision: Precision,
        *,
        identity: dict,
        length_method: str,
        steps_per_epoch: int,
        start_epoch: int = 0,
    ):
        self.pretext, self.optimizer, self.precision = pretext, optimizer, precision
        self.identity, self.length_method, self.steps_per_epoch = identity, length_method, steps_per_epoch
        self.epoch, self.step = start_epoch, 0
        self.best, self.epochs_since_best = math.inf, 0
        self.sums: dict[str, Tensor] = {}

    @property
    def steps_done(self) -> int:
        """Optimizer steps done, as counted from epoch 0."""
        return self.epoch * self.steps_per_epoch + self.step

    def is_finished(self, epochs: int, patience: int) -> bool:
        """Whether all epochs are done, or the held-out loss has not improved for ``patience`` of them."""
        return self.epoch >= epochs or self.epochs_since_best >= patience

    def add_step(self, figures: dict[str, Tensor]) -> None:
        """Count a step and its figures."""
        for name, value in figures.items():
            self.sums[name] = self.sums.get(name, 0) + value.double()
        self.step += 1

    def end_epoch(self, held_out_loss: float) -> bool:
        """Count an evaluated epoch; returns whether its held-out loss is the best so far."""
        is_best = held_out_loss < self.best
        self.best = min(self.best, held_out_loss)
        self.epochs_since_best = 0 if is_best else self.epochs_since_best + 1
        return is_best

    def begin_epoch(self) -> None:
        """Move on to the next epoch."""
        self.epoch, self.step, self.sums = self.epoch + 1, 0, {}

    def checkpoint(self) -> dict:
        """Everything that resuming, or fine-tuning from it, needs."""
        return {
            "model_state": self.pretext.state_dict(),
            "epoch": self.epoch,
            "val_loss_min": self.best,
            "not_improved_count": self.epochs_since_best,
            "normalisation": bands.normalisation(),
            "model": self.pretext.encoder_q.arguments,
            "length_method": self.length_method,
            "pretext": self.pretext.name,
            self.pretext.name: self.pretext.identity(),
            "identity": self.identity,
            "training": {
                "step": self.step,
                "steps": self.steps_per_epoch,
                "sums": dict(self.sums),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.precision.scaler.state_dict(),
            },
        }

    def load(self, path: str | Path) -> None:
        """Resume from a checkpoint. A published one has no optimizer state, so its optimizer starts afresh.

        Raises:
            UsageError: not a checkpoint of this run.
        """
        checkpoint = self.load_weights(path, ADVICE)
        missing = {"epoch", "val_loss_min", "not_improved_count"} - checkpoint.keys()
        if missing:
            raise UsageError(f"{path}: no {', '.join(sorted(missing))} in it; --resume takes a pre-training checkpoint")
        self.epoch, self.step, self.sums = checkpoint["epoch"] + 1, 0, {}
        self.best, self.epochs_since_best = float(checkpoint["val_loss_min"]), int(checkpoint["not_improved_count"])
        if (training := checkpoint.get("training")) is not None:
            self._load_training(training, path)

    def load_weights(self, path: str | Path, advice: str = UNTRAINED) -> dict:
        """Take the pretext's weights from a checkpoint of the same identity; returns the checkpoint.

        Raises:
            UsageError: no such checkpoint, or one of other data or settings.
        """
        checkpoint = load_checkpoint(path, advice)
        names = {name.removeprefix("module.") for name in checkpoint["model_state"]}
        if not any(name.startswith("encoder_q.") for name in names):
            raise UsageError(f"{path}: no encoder_q in it, so not a checkpoint of a pre-training; {ADVICE}")
        if told := differences(self.identity, saved_identity(checkpoint)):
            raise UsageError(f"{path}: {told}; give the flags and the data it had")
        beside_encoder = {name for name in self.pretext.state_dict() if not name.startswith("encoder_q.")}
        if beside_encoder and beside_encoder.isdisjoint(names):
            raise UsageError(f"{path}: holds the encoder alone, which --pretrained takes; {ADVICE}")
        load_weights(self.pretext, checkpoint["model_state"], path)
        return checkpoint

    def _load_training(self, training: dict, path: str | Path) -> None:
        if training["steps"] != self.steps_per_epoch:
            raise UsageError(
                f"{path}: was trained with {training['steps']} steps an epoch, this run has {self.steps_per_epoch};"
                " resume with the data (--datapath, -n, --useall) and the batch size (-b) it had"
            )
        if training["step"] < self.steps_per_epoch:  # saved inside the epoch
            self.epoch, self.step = self.epoch - 1, training["step"]
            sums, device = training["sums"], next(self.pretext.parameters()).device
            if isinstance(sums, Tensor):  # as saved before the pretexts had names
                sums = dict(zip(("loss", "top1"), sums.unbind(), strict=True))
            self.sums = {name: value.to(device) for name, value in sums.items()}
        self.optimizer.load_state_dict(training["optimizer"])
        if training["scaler"]:
            self.precision.scaler.load_state_dict(training["scaler"])


def saved_identity(checkpoint: dict) -> dict:
    """What a checkpoint says of its run: all of it, or the part that older ones kept; nothing for a published one."""
    if "identity" in checkpoint:
        return checkpoint["identity"]
    model, moco = checkpoint.get("model", {}), checkpoint.get("moco", {})
    found = {
        "model": model.get("name"),
        "use_doy": model.get("use_doy") if model.get("name") == "transformer" else None,
        "sequencelength": model.get("sequencelength"),
        **{f"moco_{name.lower()}": moco.get(name) for name in ("dim", "K", "m", "T")},
        "mlp": moco.get("mlp"),
        "rc": checkpoint["length_method"] == "rc" if "length_method" in checkpoint else None,
        "seed": checkpoint.get("seed"),
        "optimizer": checkpoint.get("training", {}).get("optimizer_name"),
    }
    return {name: value for name, value in found.items() if value is not None}


def hint(folder: Path, resumed: str | None) -> str:
    """How a user continues a run that has ended before its time."""
    last = folder / "model_last.pth"
    path = last if last.exists() else resumed
    return f"; resume with --resume {path}" if path else ""
