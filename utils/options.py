"""Command line pieces that both scripts share."""

from __future__ import annotations

import argparse
import math

from utils.precision import AMP


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults in the help, and the description as it is written."""


def at_least(lowest: int):
    """An argument type: whole numbers from ``lowest`` on."""

    def whole(text: str) -> int:
        value = int(text)
        if value < lowest:
            raise argparse.ArgumentTypeError(f"{value} is below {lowest}")
        return value

    whole.__name__ = "whole number"
    return whole


def positive(text: str) -> float:
    """An argument type: finite numbers above 0."""
    value = float(text)
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def share(text: str) -> float:
    """An argument type: numbers from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def add_data(parser: argparse.ArgumentParser, datapath: str, num_help: str) -> None:
    """Which series, and how they reach length S."""
    add = parser.add_argument
    add("--datapath", default=datapath, help="data root, in the published layout or of stores")
    add("--year", type=int, default=2019, help="year of the series")
    add("-n", "--num", type=at_least(1), default=3000, help=num_help)
    add("--useall", action="store_true", help="all series, whatever -n says")
    add("-c", "--nclasses", type=at_least(1), default=20, help="classes of the class map; 'Other' comes on top")
    add("-seq", "--sequencelength", type=at_least(1), default=70, help="observations S that a model sees of a series")
    add("--rc", action="store_true", help="random choice of S observations, in place of padding to S")
    add("--use-doy", action="store_true", help="transformer: encode the day of year, not the position")


def add_training(parser: argparse.ArgumentParser) -> None:
    """How long, how fast, on what, and where the results go."""
    add = parser.add_argument
    add("-j", "--workers", type=at_least(0), default=0, help="threads that read batches ahead (a GPU has at least one)")
    add("-e", "--epochs", type=at_least(1), default=100)
    add("-b", "--batchsize", type=at_least(1), default=512, help="series in a batch, of all ranks together")
    add("-lr", "--learning-rate", type=positive, default=1e-3)
    add("--weight-decay", type=float, default=1e-4)
    add("--warmup-epochs", type=float, default=0, help="epochs over which the learning rate rises from 0")
    add("--schedule", type=int, nargs="*", default=[], metavar="EPOCH", help="epochs at which the rate drops x0.1")
    add("-p", "--print-freq", type=at_least(1), default=10, help="steps between looks at the loss")
    add("-d", "--device", default=None, help="cpu, cuda, cuda:1 … (default: a GPU if there is one)")
    add("-l", "--logdir", default="./results", help="folder that gets the run's folder")
    add("-s", "--suffix", default=None, help="appended to the run's name")
    add("--amp", choices=AMP, default=None, help="mixed precision (default: bf16 on a GPU that has it, else off)")
    add(
        "--compile",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="compile the model (default: on a GPU); pays from some hundred steps on",
    )
