"""--until-doy: classifiers of series that are cut after a day, as they are while the season lasts."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path

from datasets.inseason import LAST_DAY
from datasets.store import SeriesSet


def day(text: str) -> int:
    """An argument type: days of the year, and on to those of the next one."""
    value = int(text)
    if not 1 <= value <= LAST_DAY:
        raise argparse.ArgumentTypeError(f"{value}: expected a day from 1 to {LAST_DAY}, above 366 after New Year")
    return value


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add --until-doy to the options of a command that uses a classifier."""
    add = parser.add_argument
    add("--until-doy", type=day, metavar="D", help="use series up to day D (default: as in training)")


def choose_day(trained: int | None, given: int | None, path: str | Path) -> tuple[int | None, list[str]]:
    """The day up to which a model sees series: the one that is given, or else that of its training.

    And lines that say so, for a user: none where series are whole in both. ``path`` is that of the model.
    """
    day = trained if given is None else given
    if day is None:
        return None, []
    told = "as in training"
    if trained != day:
        told = f"but {path} was trained on {'whole series' if trained is None else f'series up to day {trained}'}"
    return day, [f"series up to day {day}, {told}"]


def left_out(whole: Mapping[object, SeriesSet], seen: Mapping[object, SeriesSet], day: int | None) -> Iterator[str]:
    """How many series of which set have no observation up to a day."""
    for name, series in seen.items():
        if count := len(whole[name]) - len(series):
            yield f"{name}: {count:,} of {len(whole[name]):,} series have no observation up to day {day}; left out"
