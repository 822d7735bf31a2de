"""Command line pieces that both scripts share."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

from utils.errors import UsageError
from utils.precision import AMP


class Parser(argparse.ArgumentParser):
    """A mistake on the command line is a UsageError: one line, without the usage."""

    def error(self, message: str):
        raise UsageError(f"{message}; see --help")


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults in the help where there are any, and the description as it is written."""

    def _get_help_string(self, action: argparse.Action) -> str:
        if action.default is None or action.default is False or action.default == []:
            return action.help
        return super()._get_help_string(action)


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


def not_negative(text: str) -> float:
    """An argument type: finite numbers from 0 on."""
    value = float(text)
    if not (value >= 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"{text} is below 0, or no number")
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


def leave_to_recipe(parser: argparse.ArgumentParser, names: Sequence[str]) -> None:
    """Make None the default of these options, and tell in their help whose default then holds."""
    for action in parser._actions:
        if action.dest in names:
            action.help = f"{action.help} (default: as the recipe says; published {action.default})"
    parser.set_defaults(**dict.fromkeys(names))


def add_training(parser: argparse.ArgumentParser) -> None:
    """How long, how fast, on what, and where the results go."""
    add = parser.add_argument
    add("-j", "--workers", type=at_least(0), default=0, help="threads that read batches ahead (a GPU has at least one)")
    add("-e", "--epochs", type=at_least(1), default=100, help="passes over the series, at most")
    add("-b", "--batchsize", type=at_least(1), default=512, help="series in a batch, of all ranks together")
    add("-lr", "--learning-rate", type=positive, default=1e-3, help="largest learning rate of the schedule")
    add("--weight-decay", type=not_negative, default=1e-4, help="L2 penalty on the weights")
    add("--warmup-epochs", type=not_negative, default=0, help="epochs over which the learning rate rises from 0")
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
        help="torch.compile (default: for pre-training on one GPU); pays from some hundred steps on",
    )
