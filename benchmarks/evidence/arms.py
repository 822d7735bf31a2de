"""Arms: what is compared. Each is a model, a start of its weights, and options of its training."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from utils.errors import UsageError

FROZEN = ", frozen"  # ends the name of an arm whose encoder is frozen


class Arm(NamedTuple):
    """One line of the comparison.

    Attributes:
        model: of main_tscls.py.
        pretraining: name of the pre-training that it starts from, a key of ``PRETRAININGS``.
        checkpoint: a file to start from instead.
        options: further options of main_tscls.py.
        members: names of arms whose probabilities are averaged; then nothing is trained.
        is_frozen: a logistic regression is fitted to the features of the frozen encoder, and no network trained.
        is_trained: False tests the pre-trained network as it is, without any label of the target.
    """

    model: str = "stnet"
    pretraining: str | None = None
    checkpoint: str | None = None
    options: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    is_frozen: bool = False
    is_trained: bool = True


class Pretraining(NamedTuple):
    """A pre-training: the encoder, and options of main_moco.py."""

    options: tuple[str, ...] = ()
    model: str = "transformer"


SCRATCH = {
    "scratch": Arm(options=("--init", "published")),
    "scratch, torch init": Arm(options=("--init", "torch")),
}
PRETEXTS = {
    name: Pretraining(("--pretext", name))
    for name in ("moco", "simclr", "barlow", "bert", "moco+bert", "supcon", "labels", "moco+labels")
}
BASELINES = {
    "rf": Arm("rf", options=("--interp",)),
    "tempcnn": Arm("tempcnn", options=("--interp",)),
}


def started_from(pretrainings: Iterable[str]) -> dict[str, Arm]:
    """Fine-tuned, and frozen, from each pre-training."""
    arms = {}
    for name in pretrainings:
        arms[name] = Arm(pretraining=name)
        arms[name + FROZEN] = Arm(pretraining=name, is_frozen=True)
    return arms


def from_files(given: Iterable[str]) -> dict[str, Arm]:
    """The same from checkpoints given as NAME=PATH; UsageError if there is no such file."""
    arms = {}
    for text in given:
        name, _, path = text.partition("=")
        if not path or not Path(path).is_file():
            raise UsageError(f"--checkpoint {text}: expected NAME=PATH, with the path of a checkpoint")
        arms[name] = Arm(checkpoint=path)
        arms[name + FROZEN] = Arm(checkpoint=path, is_frozen=True)
    return arms


def chosen(names: Iterable[str], arms: dict[str, Arm]) -> dict[str, Arm]:
    """The arms of these names, and before each ensemble its members; UsageError names one that is unknown."""
    found: dict[str, Arm] = {}
    for name in names:
        if name not in arms:
            raise UsageError(f"--arms: no {name!r}; expected of: {'; '.join(arms)}")
        found |= chosen(arms[name].members, arms) | {name: arms[name]}
    return found
