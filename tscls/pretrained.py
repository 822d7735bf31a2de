"""Starting a classifier from a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from models import NETWORKS, ModelError, Network, build_model, model_class
from tscls.checkpoints import check_normalisation, saved_day
from tscls.classifier import Classifier, find_checkpoint, load_classifier
from tscls.inputs import length_method
from utils.checkpoint import Taken, is_pretraining_state, load_checkpoint, load_pretrained, told_classes

ADVICE = "give a run folder of main_tscls.py or main_moco.py, or a checkpoint in one"
SAME_TRUNK = ("stnet", "transformer")  # each starts from a checkpoint of the other


def start_from(network: Network, path: str | Path, classes: Sequence[str] | None = None) -> Taken:
    """Take the trunk of a pre-training or of a classifier, of the same model or of one with the same trunk.

    The decoder is taken too from a classifier that tells the same ``classes``, by their names in their order.

    Raises:
        CheckpointError: it does not fit, or was trained on input normalised in another way.
    """
    name = network.arguments["name"]
    taken = load_pretrained(network, path, SAME_TRUNK if name in SAME_TRUNK else (name,), classes)
    check_normalisation(taken.normalisation, path)
    return taken


def has_decoder_for(classes: Sequence[str], until: int | None, path: str | Path) -> bool:
    """Whether the decoder of a checkpoint is one for these classes, of series up to the same day (None: whole)."""
    saved = load_checkpoint(path)
    return told_classes(saved) == [*classes] and saved_day(saved, Path(path)) == until


def length_methods(names: Sequence[str], path: str | Path | None, arguments: dict, **flags: bool) -> dict[str, str]:
    """How series reach length S, by model.

    ``path`` is the checkpoint to start from, ``arguments`` are those of build_model, ``flags`` those of length_method.

    Raises:
        UsageError: a model cannot be built, or cannot start from the checkpoint.
    """
    methods = {}
    for name in names:
        network = build_model(name, **arguments) if name in NETWORKS else None
        pretrained = start_from(network, path).length_method if network is not None and path else None
        methods[name] = length_method(model_class(name).interpolates, pretrained=pretrained, **flags)
    return methods


def open_encoder(path: str | Path, device: torch.device, *, name: str | None = None) -> Classifier:
    """The network of a classifier or of a pre-training, to embed series; of a pre-training its decoder is untrained.

    ``name``: the network that takes the weights, where that is not what the checkpoint says.

    Raises:
        CheckpointError: no such checkpoint, or one of another kind. ModelError: scikit-learn has no features.
    """
    file = find_checkpoint(path)
    saved = load_checkpoint(file, ADVICE) if file.suffix != ".skops" else {}
    if not saved or name is None and ("classmap" in saved or not is_pretraining_state(saved["model_state"])):
        loaded = load_classifier(file, device, advice=ADVICE)
        if not loaded.is_network:
            raise ModelError(f"{loaded.name} has no features: only networks do")
        return loaded
    told = saved.get("model") or {}
    size = int(told.get("sequencelength", 70))
    network = build_model(name or told.get("name", "stnet"), sequencelength=size, use_doy=bool(told.get("use_doy")))
    taken = start_from(network, file)
    return Classifier(network.to(device), None, size, taken.length_method or "pad")


def notes(network: Network, taken: Taken, path: str | Path) -> list[str]:
    """What was taken, and what should be known about it, a line each."""
    decoder = ", the decoder's among them: its classes are these" if taken.has_decoder else ""
    lines = [f"{path}: took {len(taken.names)} tensors{decoder}"]
    read, known = getattr(network, "use_doy", None), taken.model.get("use_doy")
    if read is not None and known is not None and read != known:
        remedy = "give --use-doy" if known else "leave out --use-doy" if network.uses_doy_flag else "it is fine-tuned"
        units = {True: "days of the year", False: "positions"}
        lines.insert(0, f"{path}: was trained with {units[known]} encoded, this model encodes {units[read]}: {remedy}")
    if taken.missing:
        lines.append(f"not in it, and left as initialised: {', '.join(taken.missing)}")
    return lines
