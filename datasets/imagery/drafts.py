"""From drafts, as the readers found them, to dated images whose bands and offsets are known."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date, datetime
from pathlib import Path

from datasets.errors import DataError
from datasets.imagery import dates as when
from datasets.imagery.grid import Grid, transform_points
from datasets.imagery.image import Draft, Image
from datasets.imagery.metadata import radiometry
from datasets.imagery.names import STAND_IN, choose_bands, label
from datasets.imagery.raster import Header

SAFE_BASELINE = re.compile(r"_N(\d{2})(\d{2})_")


def dated(
    drafts: Sequence[Draft], given: Callable[[int], list[date] | None], season, headers: dict[str, Header], days_of
) -> tuple[list[tuple[Draft, date]], list[str]]:
    """The drafts with their solar days, and what a user is told of the dates.

    given: the user's dates of a number of time steps, which overrule; days_of(drafts): the days of year in their `doy`
    bands (from 1) with notes. Without a day, and left out, are images with no valid pixel in a `doy` band and bad files
    whose names have no date. DataError names the first other image whose date nothing tells.
    """
    steps = sorted({draft.step for draft in drafts}, key=_natural)
    days = given(len(steps))
    if days is not None:
        by_step = dict(zip(steps, days, strict=True))
        return [(draft, by_step[draft.step]) for draft in drafts], []
    by_band = [draft for draft in drafts if draft.date is None and "doy" in draft.layers]
    doys, notes = days_of(by_band) if by_band else ({}, [])
    doys = {name: None if doy is None else when.in_season(doy, season, name) for name, doy in doys.items()}
    days = [doys[draft.name] if draft.name in doys else _by_name(draft, season, headers) for draft in drafts]
    return [(draft, day) for draft, day in zip(drafts, days, strict=True) if day is not None], notes


def _by_name(draft: Draft, season, headers: dict[str, Header]) -> date | None:
    """The date in the name, or of a bare day of year there."""
    if draft.date is not None:
        grids = [headers[layer.file].grid for layer in draft.layers.values()]
        timed = isinstance(draft.date, datetime)
        return when.solar_day(draft.date, _longitude(grids[0]) if timed and grids else 0.0)
    if isinstance(draft.step, int):
        raise DataError(
            f"{draft.file}: holds several dates, but nothing tells them; give --start and --step, or --dates"
        )
    doy = when.bare_day(Path(draft.name).name)
    if doy is not None:
        return when.in_season(doy, season, draft.file)
    if draft.layers or draft.file in headers:
        raise DataError(
            f"{draft.file}: no date in its name; expected one such as 2019-05-03, 20190503 or 2019123 (day of year), a"
            " day of year with --year, or --dates"
        )
    return None


def _natural(step: int | str) -> list:
    """Sorts 'step_2' before 'step_10'."""
    return [(0, int(text), "") if text.isdigit() else (1, 0, text) for text in re.split(r"(\d+)", str(step)) if text]


def _longitude(grid: Grid) -> float:
    x, y = grid.centres(grid.height / 2, grid.width / 2)
    return float(transform_points(grid.crs, "EPSG:4326", [x], [y])[0][0])


def complete(
    dated: Sequence[tuple[Draft, date]], headers: dict[str, Header], root: Path, offset: str
) -> tuple[list[Image], list[str]]:
    """The images in the order in which they are merged, and what a user is told of bands and offsets.

    Sorted by day, of one day the newest processing baseline first, then by name.
    """
    images, stand_ins, reasons = [], Counter(), Counter()
    for draft, day in dated:
        layers, stand_in = choose_bands(draft.layers, draft.file)
        found = {radiometry(headers[layer.file], layer.band, root) for layer in layers}
        values = {(one.scale, one.offset) for one in found}
        if len(values) > 1 and offset == "auto":
            raise DataError(
                f"{draft.file}: its bands have different scales and offsets {sorted(values)}; expected the same, or"
                " give --offset"
            )
        first = sorted(found)[0]
        shift, why = (first.offset, first.why) if offset == "auto" else (float(offset), "--offset")
        safe = SAFE_BASELINE.search(draft.name)
        baseline = first.baseline or (f"{safe[1]}.{safe[2]}" if safe else "")
        images.append(
            Image(draft.name, day, tuple(layers), draft.layers.get("scl"), stand_in, baseline, first.scale, shift)
        )
        reasons[shift, why] += 1
        stand_ins[stand_in] += 1
    images.sort(key=lambda image: image.name)
    images.sort(key=lambda image: image.baseline, reverse=True)
    images.sort(key=lambda image: image.day)
    notes = [
        f"band {label(band)} is missing in {count} of {len(images)} images: {label(STAND_IN[band])} stands in for it"
        for band, count in stand_ins.items()
        if band
    ]
    notes += [f"offset {shift:g} for {count} of {len(images)} images: {why}" for (shift, why), count in reasons.items()]
    return images, notes


def in_season(dated: Sequence[tuple[Draft, date]], season, path: Path) -> tuple[list[tuple[Draft, date]], list[str]]:
    """The images of the season, and a note of those outside. DataError when all are, or when dates without a season
    span more than twelve months, as a day of year would stand for two dates."""
    days = sorted({day for _, day in dated})
    if not days:
        raise DataError(f"{path}: no image has a date; give --dates")
    if season is None:
        first, last = (days[end].timetuple() for end in (0, -1))
        if last.tm_year > first.tm_year + (last.tm_yday < first.tm_yday):
            raise DataError(f"{path}: dates from {days[0]} to {days[-1]} span more than twelve months; give --year")
        return list(dated), []
    kept = [(draft, day) for draft, day in dated if season.holds(day)]
    if not kept:
        raise DataError(f"{path}: all dates, {days[0]} to {days[-1]}, are outside {season}; check --year")
    outside = [day for day in days if not season.holds(day)]
    if not outside:
        return kept, []
    return kept, [f"{len(outside)} of {len(days)} dates are outside {season} and left out"]


def without_bad(
    dated: Sequence[tuple[Draft, date]], bad: dict[str, str], path: Path
) -> tuple[list[tuple[Draft, date]], list[str]]:
    """The images of the days on which all files can be read, and a line for every bad file."""
    days: dict[str, set[date]] = {file: set() for file in bad}
    for draft, day in dated:
        for file in {draft.file, *(layer.file for layer in draft.layers.values())} & bad.keys():
            days[file].add(day)
    left_out = set().union(*days.values())
    kept = [(draft, day) for draft, day in dated if day not in left_out]
    if bad and not kept:
        raise DataError(f"{path}: no date has files that can all be read; the first: {next(iter(bad.values()))}")
    lines = [
        f"{', '.join(map(str, sorted(days[file]))) or 'no date'} left out: {reason.partition('; get it again')[0]}"
        for file, reason in bad.items()
    ]
    return kept, lines


def check_masks(images: Sequence[Image]) -> None:
    """Every image has a scene classification; DataError names the first without."""
    for image in images:
        if image.scl is None:
            raise DataError(f"{image.name}: no SCL band or file, which --mask needs; expected one for every image")
