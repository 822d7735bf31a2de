"""What a checkpoint of a pre-training holds beside the state of the run, and which ones a run resumes from."""

from __future__ import annotations

from torch import Tensor, nn

from datasets import bands
from utils.errors import UsageError
from utils.results.resume import Saved, check_same
from utils.results.state import RunState

ADVICE = "give a checkpoint of main_moco.py; a run resumes exactly from its model_last.pth"
UNTRAINED = "pre-train this run first (leave out --evaluate), give the flags it had, or a checkpoint with --resume"

# Options that do not decide what a run computes. For the data, their fingerprint is compared instead.
NOT_IDENTITY = frozenset(
    "datapath year num useall nclasses workers epochs start_epoch print_freq device logdir suffix overwrite amp compile"
    " resume save_minutes evaluate patience probe probe_every probe_num skip_bad".split()
)


def identity(options: dict, data: str) -> dict:
    """What decides what a run computes, by option: a checkpoint with other values is not resumed.

    ``options`` are those of the command line, ``data`` is what tells the series.
    """
    kept = {name: value for name, value in options.items() if name not in NOT_IDENTITY}
    if options["amp"]:  # else the device decides
        kept["amp"] = options["amp"]
    if options["cos"]:  # the schedule stretches over all epochs
        kept["epochs"] = options["epochs"]
    return kept | {"data": data}


def describe(pretext: nn.Module, length_method: str) -> dict:
    """What fine-tuning, or using a classifier, needs to know, and which pretext it was trained by."""
    classmap = getattr(pretext, "classmap", None)
    return {
        **({"classmap": classmap.as_dict()} if classmap else {}),
        "normalisation": bands.normalisation(),
        "model": pretext.encoder_q.arguments,
        "length_method": length_method,
        "pretext": pretext.name,
        pretext.name: pretext.identity(),
    }


def load(run: RunState, saved: Saved) -> None:
    """Resume a run. A published checkpoint has no optimizer state, so its optimizer starts afresh.

    Raises:
        UsageError: not a checkpoint of this run.
    """
    saved = checked(run, saved)
    missing = {"epoch", "val_loss_min", "not_improved_count"} - saved.content.keys()
    if missing:
        told = ", ".join(sorted(missing))
        raise UsageError(f"{saved.path}: no {told} in it; --resume takes a pre-training checkpoint")
    run.load(saved)


def load_weights(run: RunState, saved: Saved) -> None:
    """Take the pretext's weights from a checkpoint of the same identity.

    Raises:
        UsageError: one of other data or settings.
    """
    run.load_weights(checked(run, saved))


def checked(run: RunState, saved: Saved) -> Saved:
    """A checkpoint of the run, with the identity and the sums that earlier versions wrote in another form.

    Raises:
        UsageError: it has no query encoder or nothing else, or is of another run.
    """
    path, content = saved
    names = {name.removeprefix("module.") for name in content["model_state"]}
    if not any(name.startswith("encoder_q.") for name in names):
        raise UsageError(f"{path}: no encoder_q in it, so not a checkpoint of a pre-training; {ADVICE}")
    content = content | {"identity": saved_identity(content)}
    check_same(run.identity, content["identity"], path)
    beside_encoder = {name for name in run.module.state_dict() if not name.startswith("encoder_q.")}
    if beside_encoder and beside_encoder.isdisjoint(names):
        raise UsageError(f"{path}: holds the encoder alone, which --pretrained takes; {ADVICE}")
    training = content.get("training")
    if training is not None and isinstance(training.get("sums"), Tensor):  # as saved before the pretexts had names
        sums = dict(zip(("loss", "top1"), training["sums"].unbind(), strict=True))
        content["training"] = training | {"sums": sums}
    return Saved(path, content)


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
