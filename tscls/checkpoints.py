"""What a checkpoint says of the model in it and of its input; what a published one does not say is inferred."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from datasets import bands
from datasets.inseason import LAST_DAY
from models import Network, build_model
from utils.checkpoint import CheckpointError, check_weights, encoder_state, is_pretraining_state, load_weights

LARGEST = 4096  # number among a model's arguments, S or draws that is believed of a file

logger = logging.getLogger(__name__)

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


def saved_network(saved: dict, path: Path, model: str | dict | None) -> Network:
    """The network that a checkpoint's content describes, or else the one that its tensors are of, with its weights.

    ``model`` names it where the checkpoint does not, or gives the arguments of ``build_model``.

    Raises:
        CheckpointError: it is of another model, of none, or a pre-training without classes.
    """
    state, told = saved["model_state"], saved.get("model")
    given = {"name": model} if isinstance(model, str) else dict(model or {})
    if is_pretraining_state(state):
        if "classmap" not in saved:
            raise CheckpointError(
                f"{path}: a pre-training, which predicts no classes; fine-tune from it:"
                f" main_tscls.py --pretrained {path}"
            )
        state = encoder_state(state)
    if told and given and given["name"] != told["name"]:
        raise CheckpointError(f"{path}: is of {told['name']}, not of {given['name']}")
    arguments = told or {**infer_model(state), **given}
    if not arguments:
        raise CheckpointError(f"{path}: its tensors ({', '.join(list(state)[:3])} …) are of no model; name it")
    if not told and not given and arguments["name"] == "stnet":
        logger.warning("%s: does not say whether it is of stnet or transformer; stnet is assumed", path)
    _check_size(arguments, state, path)
    network = build_model(**arguments)
    load_weights(network, state, path)
    return network


def _check_size(arguments: dict, state: dict[str, Tensor], path: Path) -> None:
    """CheckpointError or ValueError for a model that is not that of the weights, before memory is taken for it."""
    for name, value in arguments.items():
        if isinstance(value, int) and not 0 <= value <= LARGEST:
            raise ValueError(f"{name} is {value}")
    with torch.device("meta"):
        check_weights(build_model(**arguments), state, path)


def saved_day(saved: dict, path: str | Path) -> int | None:
    """The day up to which a model was trained on series (``datasets.inseason``); None: they were whole.

    Raises:
        CheckpointError: it is no day.
    """
    day = saved.get("until_doy")
    if day is not None and not (type(day) is int and 1 <= day <= LAST_DAY):
        raise CheckpointError(f"{path}: its settings are damaged (until_doy); train it again")
    return day


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
