"""What main_moco.py is made of: the pretexts by name, the data, the training step, the state of a run.

A pretext is an ``nn.Module`` that learns an encoder. The training loop knows nothing else of it:

    name, run_name              in checkpoints, and in the names of run folders
    encoder_q                   the network that fine-tuning starts from; the name is part of the file format
    identity()                  its settings, as plain values; a checkpoint of other settings is not resumed
    classmap                    of a pretext whose ``encoder_q`` predicts classes only: the classes
    views(series, generator)    the tuple that forward takes, made from a batch of series
    before_step()               called before forward in training
    forward(*views)             returns an object with ``loss`` and ``figures``, a dict of further numbers for the log
    after_step(output)          called after the optimizer step, with what forward returned
    evaluate(views, precision, world)   held-out "loss", and figures of the same names; changes nothing

To add one, write a module with its NAME and ``build(encoder, augment, options)``, and enter it in ``MODULES``; where it
has options, in ``add_arguments`` too, and in ``WITH_LABELS`` where its ``views`` need ``series.labels``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

from torch import nn

from moco.builder import MoCo
from pretraining import barlow, bert, labels, simclr, summed, supcon

MODULES = (simclr, barlow, bert, labels, supcon)
WITH_LABELS = {labels.NAME, supcon.NAME}
SUMS = ("moco+labels", "moco+bert")


def build_moco(encoder: nn.Module, augment: Callable, options: dict) -> MoCo:
    """MoCo of the options ``moco_dim``, ``moco_k``, ``moco_m``, ``moco_t``, ``mlp`` and ``bn_splits``."""
    return MoCo(
        encoder,
        augment,
        dim=options["moco_dim"],
        K=options["moco_k"],
        m=options["moco_m"],
        T=options["moco_t"],
        mlp=options["mlp"],
        bn_splits=options["bn_splits"],
    )


# name -> function of (encoder, two views of (series, generator), the command line's options by name)
PRETEXTS: dict[str, Callable[[nn.Module, Callable, dict], nn.Module]] = {
    "moco": build_moco,
    **{module.NAME: module.build for module in MODULES},
}
PRETEXTS |= {name: partial(summed.build, [PRETEXTS[part] for part in name.split("+")]) for name in SUMS}


def needs_labels(pretext: str) -> bool:
    """Whether a pretext of this name, or a part of it, learns from labelled series."""
    return not WITH_LABELS.isdisjoint(pretext.split("+"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the pretexts but MoCo, whose options are the published ones of main_moco.py."""
    for module in (simclr, barlow, bert, supcon, summed):
        module.add_arguments(parser)
