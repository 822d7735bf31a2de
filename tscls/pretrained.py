"""Starting a classifier's trunk from a checkpoint."""

from __future__ import annotations

from pathlib import Path

from models import Network
from tscls.checkpoints import check_normalisation
from utils.checkpoint import Taken, load_pretrained

SAME_TRUNK = ("stnet", "transformer")  # each starts from a checkpoint of the other


def start_from(network: Network, path: str | Path) -> Taken:
    """Take the trunk of a pre-training or of a classifier, of the same model or of one with the same trunk.

    Raises:
        CheckpointError: it does not fit, or was trained on input normalised in another way.
    """
    name = network.arguments["name"]
    taken = load_pretrained(network, path, SAME_TRUNK if name in SAME_TRUNK else (name,))
    check_normalisation(taken.normalisation, path)
    return taken


def notes(network: Network, taken: Taken, path: str | Path) -> list[str]:
    """What was taken, and what should be known about it, a line each."""
    lines = [f"{path}: took {len(taken.names)} tensors"]
    read, known = getattr(network, "use_doy", None), taken.model.get("use_doy")
    if read is not None and known is not None and read != known:
        remedy = "give --use-doy" if known else "leave out --use-doy" if network.uses_doy_flag else "it is fine-tuned"
        units = {True: "days of the year", False: "positions"}
        lines.insert(0, f"{path}: was trained with {units[known]} encoded, this model encodes {units[read]}: {remedy}")
    if taken.missing:
        lines.append(f"not in it, and left as initialised: {', '.join(taken.missing)}")
    return lines
