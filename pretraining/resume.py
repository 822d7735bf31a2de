"""What a pre-training run saves of itself, and how it goes on from that.

``run`` is the Trainer of main_moco.py, or anything with its args, moco, optimizer, precision, and its place in the run.
"""

from __future__ import annotations

from pathlib import Path

from datasets import bands
from utils.checkpoint import load_checkpoint, load_weights
from utils.errors import UsageError

ADVICE = "give a checkpoint of main_moco.py; from its model_last.pth a run goes on exactly where it was"
UNTRAINED = "pre-train this run first (leave out --evaluate), give the flags it had, or a checkpoint with --resume"
FLAGS = {"name": "model", "num_classes": "-c", "dim": "--moco-dim", "K": "--moco-k", "m": "--moco-m", "T": "--moco-t"}


def hint(folder: Path, resumed: str | None) -> str:
    """What a user can do when a run has ended before its time."""
    last = folder / "model_last.pth"
    path = last if last.exists() else resumed
    return f"; go on with --resume {path}" if path else ""


def method(run) -> dict:
    """What may not change when a run goes on."""
    args = run.args
    return {
        "model": run.moco.encoder_q.arguments,
        "moco": {"dim": args.moco_dim, "K": args.moco_k, "m": args.moco_m, "T": args.moco_t, "mlp": args.mlp},
        "length_method": "rc" if args.rc else "pad",
        "seed": args.seed,
    }


def state(run) -> dict:
    """Everything that resuming, or fine-tuning from it, needs."""
    return {
        "model_state": run.moco.state_dict(),
        "epoch": run.epoch,
        "val_loss_min": run.best,
        "not_improved_count": run.not_improved,
        "normalisation": bands.normalisation(),
        **method(run),
        "training": {
            "step": run.step,
            "steps": run.steps,
            "sums": run.sums,
            "optimizer_name": run.args.optimizer,
            "optimizer": run.optimizer.state_dict(),
            "scaler": run.precision.scaler.state_dict(),
        },
    }


def flags(method: dict) -> dict:
    """The flags behind a method, with their values."""
    model = method["model"]
    values = {**model, **method["moco"], "seed": method["seed"], "rc": method["length_method"] == "rc"}
    values["num_classes"] = model["num_classes"] - 1  # the flag does not count "Other"
    return {FLAGS.get(name, f"--{name.replace('_', '-')}"): value for name, value in values.items()}


def differences(here: dict, saved: dict) -> str:
    """What tells the flags of this run from those of a checkpoint, flag by flag."""
    told = []
    for flag in here | saved:
        own, other = here.get(flag), saved.get(flag)
        if isinstance(own, bool):
            own, other = (f"{'with' if is_set else 'without'} {flag}" for is_set in (own, other))
            flag = ""
        if own != other:
            told.append(f"{flag} {own} here, {other} in the checkpoint".strip())
    return "; ".join(told)


def load(run, path: str, *, weights_only: bool = False) -> None:
    """Go on from a checkpoint; a published one has no optimizer state, and its optimizer starts afresh."""
    checkpoint = load_checkpoint(path, UNTRAINED if weights_only and not run.args.resume else ADVICE)
    if not any(name.removeprefix("module.") == "queue" for name in checkpoint["model_state"]):
        raise UsageError(f"{path}: no queue in it, so not a whole checkpoint of a pre-training; {ADVICE}")
    own = method(run)
    saved = {name: checkpoint.get(name, value) for name, value in own.items()}  # a published one says nothing of these
    if saved != own:
        raise UsageError(f"{path}: {differences(flags(own), flags(saved))}; give the flags it had")
    load_weights(run.moco, checkpoint["model_state"], path)
    if weights_only:
        return
    missing = {"epoch", "val_loss_min", "not_improved_count"} - checkpoint.keys()
    if missing:
        raise UsageError(f"{path}: no {', '.join(sorted(missing))} in it; --resume takes a pre-training checkpoint")
    run.epoch, run.step = checkpoint["epoch"] + 1, 0
    run.best, run.not_improved = float(checkpoint["val_loss_min"]), int(checkpoint["not_improved_count"])
    training = checkpoint.get("training")
    if training is not None:
        _load_training(run, training, path)


def _load_training(run, training: dict, path: str) -> None:
    """The part of a checkpoint that only resuming needs."""
    if training["steps"] != run.steps:
        raise UsageError(
            f"{path}: was trained with {training['steps']} steps an epoch, this run has {run.steps};"
            " resume with the data (--datapath, -n, --useall) and the batch size (-b) it had"
        )
    if training["step"] < run.steps:  # saved inside the epoch
        run.epoch, run.step = run.epoch - 1, training["step"]
        run.sums.copy_(training["sums"])
    optimizer = training["optimizer_name"]
    if optimizer != run.args.optimizer:
        raise UsageError(f"{path}: was trained by {optimizer}; give --optimizer {optimizer}")
    run.optimizer.load_state_dict(training["optimizer"])
    if training["scaler"]:
        run.precision.scaler.load_state_dict(training["scaler"])
