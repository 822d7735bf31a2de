"""What a checkpoint says of the model in it and of its input; what a published one does not say is inferred."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from datasets import bands
from utils.checkpoint import CheckpointError

# The first tensor of each model that no other one has; the Transformer's is STNet's as well.
MARKS = {
    "conv_bn_relu1.block.0.weight": "tempcnn",
    "lstm.weight_hh_l0": "lstm",
    "attention_heads.Q": "ltae",
    "transformerencoder.norm.weight": "stnet",
}


def infer_model(state: Mapping[str, Tensor]) -> dict:
    """The arguments of ``build_model`` for a classifier with these tensors; empty where they are of none.

    ``stnet`` stands for ``transformer`` too: their tensors have the same names and shapes.
    """
    shapes = {name.removeprefix("module."): tuple(tensor.shape) for name, tensor in state.items()}
    name = next((model for mark, model in MARKS.items() if mark in shapes), None)
    try:
        if name == "tempcnn":
            hidden, _, kernel = shapes["conv_bn_relu1.block.0.weight"]
            size = {
                "hidden_dims": hidden,
                "kernel_size": kernel,
                "sequencelength": shapes["dense.block.0.weight"][1] // hidden,
            }
        elif name == "lstm":
            layers = sum(bool(re.fullmatch(r"lstm\.weight_hh_l\d+", found)) for found in shapes)
            size = {"hidden_dims": shapes["lstm.weight_hh_l0"][1], "num_layers": layers}
        else:
            size = {"sequencelength": shapes["inconv.1.weight"][1]} if name == "ltae" else {}
        last = "decoder.weight" if name in ("tempcnn", "lstm") else "decoder.6.weight"
        return {"name": name, "num_classes": shapes[last][0], **size} if name else {}
    except (KeyError, IndexError, ValueError, ZeroDivisionError):
        return {}


def check_normalisation(saved: dict | None, path: str | Path) -> None:
    """CheckpointError where a model was trained on input normalised in another way than ours; None says nothing."""
    here = bands.normalisation()
    if saved is not None and not (isinstance(saved, dict) and saved.keys() == here.keys()):
        raise CheckpointError(f"{path}: its normalisation is damaged; expected {', '.join(here)}")
    for name, own in here.items() if saved else ():
        if not _equal(saved[name], own):
            raise CheckpointError(
                f"{path}: its input was normalised with another {name}: {_difference(saved[name], own)};"
                " this program cannot normalise input in that way, so train it again"
            )


def _equal(one: object, other: object) -> bool:
    """Values as ``bands.normalisation`` has them; numbers to float32's precision."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-6)
    return type(one) is type(other) and one == other


def _difference(saved: object, own: object) -> str:
    """The first entry of a list that differs, or the whole."""
    if isinstance(saved, list) and isinstance(own, list) and len(saved) == len(own):
        band, one, other = next(
            (band, *pair) for band, *pair in zip(bands.BANDS, saved, own, strict=True) if not _equal(*pair)
        )
        return f"{one} for {band}, ours is {other}"
    return f"{saved}, ours is {own}"
