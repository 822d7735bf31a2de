"""The files of the solar days: what is merged in each, and its tags."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tqdm import tqdm

from datasets.area import Area
from datasets.optional import need
from datasets.stac.items import BANDS, ItemFailed, Radiometry, find_assets, radiometry_of
from datasets.stac.mosaic import Reader, Source, is_complete, write_mosaic

if TYPE_CHECKING:
    from pystac import Item


class Day(NamedTuple):
    """A file to be written: what is merged in it, and its tags."""

    path: Path
    sources: list[Source]
    tags: dict[str, str]
    reason: str


def write_days(
    folder: Path,
    days: Mapping[date, list[Item]],
    area: Area,
    bands: Mapping[str, tuple[str, ...]],
    reader: Reader,
    workers: int,
) -> dict[str, str]:
    """Write the files that are not there yet; the reason of failure by the id of the item."""
    failed, reasons, plans = {}, Counter(), []
    for day, items in days.items():
        plan, unusable = plan_day(folder / f"{day}.tif", items, bands)
        failed |= unusable
        if plan.sources:
            reasons[plan.reason] += 1
            if not is_complete(plan.path, [source.name for source in plan.sources]):
                plans.append(plan)
    for reason, count in reasons.most_common():
        print(f"{count} days: {reason}")
    if len(plans) < sum(reasons.values()):
        print(f"{sum(reasons.values()) - len(plans)} days are there already")
    # rasterio silences this warning about arrays in memory, but not in a thread that does so while another one does
    warnings.filterwarnings("ignore", category=need("rasterio.errors").NotGeoreferencedWarning)
    with ThreadPoolExecutor(workers) as pool, tqdm(total=len(plans), unit=" days", desc=str(folder)) as bar:
        try:
            jobs = [pool.submit(_write_day, plan, area, list(bands), reader) for plan in plans]
            for job in as_completed(jobs):
                failed |= job.result()
                bar.update()
        except BaseException:
            reader.stop.set()  # ends the days that are being written, and those that wait at their first window
            raise
    return failed


def plan_day(path: Path, items: list[Item], bands: Mapping[str, tuple[str, ...]]) -> tuple[Day, dict[str, str]]:
    """What is merged in the file of a day; the reason of failure by the id of the items that cannot be."""
    usable: list[tuple[Item, dict, Radiometry]] = []
    failed = {}
    for item in items:
        try:
            assets = find_assets(item, bands)
            usable.append((item, assets, radiometry_of(item, (assets[band] for band in BANDS))))
        except ItemFailed as error:
            failed[item.id] = str(error)
    offset = min((radiometry.offset or 0 for _, _, radiometry in usable), default=0)
    sources = [Source(item.id, assets, (radiometry.offset or 0) - offset) for item, assets, radiometry in usable]
    radiometries = [radiometry for _, _, radiometry in usable]
    reason = "; ".join(dict.fromkeys(radiometry.reason for radiometry in radiometries))
    tags = {"OFFSET_REASON": reason}
    if radiometries and radiometries[0].baseline:
        tags["PROCESSING_BASELINE"] = radiometries[0].baseline
    if any(radiometry.offset is not None for radiometry in radiometries):
        tags["BOA_ADD_OFFSET"] = str(offset)
        reason = f"offset {offset} DN to be added ({reason})"
    return Day(path, sources, tags, reason), failed


def _write_day(day: Day, area: Area, bands: list[str], reader: Reader) -> dict[str, str]:
    return write_mosaic(day.path, day.sources, area, bands, reader, valid=len(BANDS), tags=day.tags)
