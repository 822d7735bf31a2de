"""Command line pieces that both scripts share."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Sequence

from utils.errors import UsageError
from utils.precision import AMP

AUTO = "auto"  # as --resume: the last state in the run's own folder; as --suffix: the first that is free
SUFFIX_BYTES = 100  # a file name has at most 255, and the other parts of a run's name need room


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults that say something, and keeps the line breaks of the description."""

    def _get_help_string(self, action: argparse.Action) -> str:
        if action.default is None or action.default is False or action.default == []:
            return action.help
        return super()._get_help_string(action)


def at_least(lowest: int):
    """An argument type: whole numbers of at least ``lowest``."""

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
    """An argument type: finite numbers of at least 0."""
    value = float(text)
    if not (value >= 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"{text} is below 0 or not finite")
    return value


def fraction(text: str) -> float:
    """An argument type: numbers from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def file_name_part(text: str) -> str:
    """An argument type: text that can be part of a file name on every system, and needs no quotes in a shell."""
    if not re.fullmatch(r"[\w.,+=@-]*", text) or text.endswith("."):
        raise argparse.ArgumentTypeError(f"{text!r} cannot be in a folder name; use letters, digits and _ - + = , @ .")
    if len(text.encode()) > SUFFIX_BYTES:
        raise argparse.ArgumentTypeError(f"{len(text.encode())} bytes; a folder name has room for {SUFFIX_BYTES}")
    return text


FLAGS = {"model": "model", "data": "data", "batchsize": "-b", "learning_rate": "-lr", "epochs": "-e"} | {
    "length_method": "length method (--rc, --pad, --interp)"
}


def differences(here: dict, other: dict, where: str = "in the checkpoint") -> str:
    """What tells the options of this run from those of another, one by one; '' if nothing does, or only in one."""
    told = []
    for name in here:
        if name not in other or here[name] == other[name]:
            continue
        flag = FLAGS.get(name, f"--{name.replace('_', '-')}")
        if isinstance(here[name], bool):
            own, theirs = (f"{'with' if is_set else 'without'} {flag}" for is_set in (here[name], other[name]))
            told.append(f"{own} here, {theirs} {where}")
        else:
            own, theirs = ("not given" if value is None else value for value in (here[name], other[name]))
            told.append(f"{flag} {own} here, {theirs} {where}")
    return "; ".join(told)


def check_place(args: argparse.Namespace, is_test: bool) -> None:
    """UsageError for flags of the run's folder that do not go together."""
    if args.suffix == AUTO and args.overwrite:
        raise UsageError("--suffix auto keeps the run that is there, --overwrite replaces it; give one of them")
    if args.resume and args.overwrite:
        raise UsageError("--resume continues a run, --overwrite starts afresh; give one of them")
    if args.suffix == AUTO and is_test:
        raise UsageError("--suffix auto is for a new run; give the suffix of the run to test, or none")


def add_data(parser: argparse.ArgumentParser, datapath: str, num_help: str) -> None:
    """Add the options that say which series are used, and how they are brought to length S."""
    add = parser.add_argument
    add("--datapath", default=datapath, help="data root, of stores or in the published layout")
    add("--year", type=int, default=2019, help="year of the series")
    add("-n", "--num", type=at_least(1), default=3000, help=num_help)
    add("--useall", action="store_true", help="use all series and ignore -n")
    add("-c", "--nclasses", type=at_least(1), default=20, help="classes of the class map, not counting 'Other'")
    add("-seq", "--sequencelength", type=at_least(1), default=70, help="length S of a model's input, in observations")
    add("--rc", action="store_true", help="draw S observations at random instead of padding to S")
    add("--use-doy", action="store_true", help="transformer: encode the day of year instead of the position")
    add("--skip-bad", action="store_true", help="leave out series that cannot be used, instead of ending with an error")


def leave_to_recipe(parser: argparse.ArgumentParser, names: Sequence[str]) -> None:
    """Make None the default of these options, and say in their help that the recipe decides."""
    for action in parser._actions:
        if action.dest in names:
            action.help = f"{action.help} (default: the recipe's; {action.default} in --recipe published)"
    parser.set_defaults(**dict.fromkeys(names))


def add_training(parser: argparse.ArgumentParser) -> None:
    """Add the options of length, optimisation, hardware and output."""
    add = parser.add_argument
    add("-j", "--workers", type=at_least(0), default=0, help="threads that read batches ahead (a GPU has at least one)")
    add("-e", "--epochs", type=at_least(1), default=100, help="maximum number of passes over the series")
    add("-b", "--batchsize", type=at_least(1), default=512, help="series in a batch, summed over all ranks")
    add("-lr", "--learning-rate", type=positive, default=1e-3, help="peak learning rate of the schedule")
    add("--weight-decay", type=not_negative, default=1e-4, help="L2 penalty on the weights")
    add("--warmup-epochs", type=not_negative, default=0, help="epochs over which the learning rate rises from 0")
    add("--schedule", type=int, nargs="*", default=[], metavar="EPOCH", help="epochs at which the rate drops x0.1")
    add("-p", "--print-freq", type=at_least(1), default=10, help="steps between two reports of the loss")
    add("-d", "--device", default=None, help="cpu, cuda, cuda:1 … (default: cuda if available)")
    add("-l", "--logdir", default="./results", help="folder for the folders of runs")
    add("-s", "--suffix", type=file_name_part, default=None, help="ends the name of the run's folder; auto: a free one")
    add("--overwrite", action="store_true", help="replace the run that is in the run's folder")
    add("--amp", choices=AMP, default=None, help="mixed precision (default: bf16 on a GPU that supports it, else off)")
    add("--clip-grad", type=positive, default=None, metavar="NORM", help="scale gradients down to this norm at most")
    add("--resume", metavar="PATH", help="continue exactly from this model_last.pth; auto: the run's own, if any")
    add("--save-minutes", type=not_negative, default=10, help="the saved state is at most this old; 0: every epoch")
    add(
        "--compile",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="torch.compile (default: for pre-training on one GPU); worth its time from some hundred steps on",
    )
