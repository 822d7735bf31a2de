"""Images and labels of a place from a STAC catalogue, as a folder that `datasets.prepare` takes as it is.

    python -m datasets.download stac --catalog URL --bbox W S E N --year 2021 --out DIR

    DIR/images/2021-05-03.tif      a file a solar day: bands B2 ... B12 as digital numbers, no-data 0
    DIR/cdl.tif, confidence.tif    the Cropland Data Layer and its confidence, if the catalogue has them
    DIR/download.json              what was asked for

The values are those of the catalogue. The tags of a file say what is to be done with them: PROCESSING_BASELINE and
BOA_ADD_OFFSET, with reflectance = (DN + BOA_ADD_OFFSET) / 10,000, OFFSET_REASON, and the items (STAC_ITEMS,
STAC_FAILED). Where the items of a day differ in their offset, those with the larger one are shifted to the smaller, so
that one offset holds for the file and nothing is lost.

The same command resumes a run that was interrupted or had failures: it keeps the files that hold all their items.
"""

from __future__ import annotations

import json
import logging
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import date
from itertools import chain
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from datasets.area import area_of, check_bbox, utm_of
from datasets.errors import DataError
from datasets.optional import need
from datasets.season import Season
from datasets.stac.days import write_days
from datasets.stac.items import BANDS, SCL
from datasets.stac.labels import COLLECTION as LABELS
from datasets.stac.labels import find_labels, write_labels
from datasets.stac.mosaic import Reader
from datasets.stac.search import has_collection, open_catalogue, search, select, utc_days
from utils.files import one_at_a_time, write_text

if TYPE_CHECKING:
    from pystac import Item
    from pystac_client import Client

HELP = "images and labels of a place from a STAC catalogue"


def add_arguments(parser: ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--catalog", required=True, metavar="URL", help="root of a STAC API")
    parser.add_argument(
        "--bbox", type=float, nargs=4, required=True, metavar=("W", "S", "E", "N"), help="the place, in degrees"
    )
    parser.add_argument("--year", type=int, required=True, help="the year of the images and the labels")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for images/, cdl.tif, ...")
    parser.add_argument("--collection", default="sentinel-2-l2a", help="of the images (default: %(default)s)")
    parser.add_argument(
        "--season-start", default="01-01", metavar="MM-DD", help="first day of the twelve months (default: %(default)s)"
    )
    parser.add_argument(
        "--cloud-cover", type=_percentage, default=100.0, metavar="PCT",
        help="leave out items that are cloudier than this percentage (default: none)",
    )  # fmt: skip
    parser.add_argument("--resolution", type=_positive, default=10.0, help="pixel in metres (default: %(default)g)")
    parser.add_argument("--crs", type=_crs, metavar="EPSG", help="of the images (default: that of most items)")
    parser.add_argument("--scl", action="store_true", help="add the scene classification as a band")
    parser.add_argument("--max-items", type=_count, metavar="N", help="stop after N items (default: all)")
    parser.add_argument("--sign", choices=SIGNERS, help="sign the addresses of the files for this provider")
    parser.add_argument("--workers", type=_count, default=4, metavar="N", help="days at a time (default: %(default)s)")


def run(args: Namespace) -> int:
    """Run the command; the exit code is 1 where items failed."""
    return download(
        args.catalog,
        tuple(args.bbox),
        args.year,
        args.out,
        collection=args.collection,
        season_start=args.season_start,
        cloud_cover=args.cloud_cover,
        resolution=args.resolution,
        crs=args.crs,
        scl=args.scl,
        max_items=args.max_items,
        sign=args.sign,
        workers=args.workers,
    )


def _planetary_computer() -> Callable[[str], str]:
    """Signs an address when it is read, since a signature lasts less than an hour."""
    try:
        import planetary_computer
    except ModuleNotFoundError:
        raise DataError("--sign planetary-computer needs its package: pip install planetary-computer") from None
    return planetary_computer.sign


SIGNERS = {"planetary-computer": _planetary_computer}


def download(
    catalog: str,
    bbox: tuple[float, float, float, float],
    year: int,
    out: Path,
    *,
    collection: str = "sentinel-2-l2a",
    season_start: str = "01-01",
    cloud_cover: float = 100.0,
    resolution: float = 10.0,
    crs: str | None = None,
    scl: bool = False,
    max_items: int | None = None,
    sign: str | None = None,
    workers: int = 4,
) -> int:
    """Fill the folder `out` from a catalogue, and return 0, or 1 where items failed: they are listed.

    DataError: the catalogue cannot be used, has nothing of the place and time, or `out` holds something else.
    """
    check_bbox(bbox)
    season = Season.of(year, season_start)
    need("odc.stac", "a STAC catalogue")
    for library in ("odc", "rasterio"):  # they log each attempt, with signed addresses; what fails in the end is said
        logging.getLogger(library).setLevel(logging.CRITICAL)
    reader = Reader(SIGNERS[sign]() if sign else None, Event())
    catalogue = open_catalogue(catalog)
    if not has_collection(catalogue, catalog, collection):
        raise DataError(f"{catalog} has no collection {collection}: expected one of its names in --collection")
    found = search(catalogue, catalog, collection, bbox, *utc_days(season))
    days, cloudy, failed = select(found, season, (bbox[0] + bbox[2]) / 2, cloud_cover, max_items)
    print(f"{sum(map(len, days.values()))} items on {len(days)} days, {season}; {cloudy} left out for clouds")
    if not days:
        raise DataError(f"{collection} has no such items in this place: check --bbox, --year and --cloud-cover")
    request = {
        "catalog": catalog, "collection": collection, "bbox": list(bbox), "year": year, "season_start": season_start,
        "cloud_cover": cloud_cover, "resolution": resolution, "crs": crs, "scl": scl,
    }  # fmt: skip
    with one_at_a_time(out):
        area = area_of(bbox, _settle(out, request, days), resolution)
        failed |= write_days(out / "images", days, area, BANDS | (SCL if scl else {}), reader, workers)
        labels, label_failures = _labels(catalogue, catalog, bbox, year, out, reader)
    return _report(out, year, season_start, labels, failed | label_failures)


def _settle(out: Path, request: dict, days: Mapping[date, list[Item]]) -> str:
    """Write down what is asked for, or compare it with what was asked for before; returns the CRS of the files."""
    (out / "images").mkdir(parents=True, exist_ok=True)
    record = out / "download.json"
    if not record.exists():
        if any((out / "images").iterdir()):
            raise DataError(f"{out / 'images'} holds files that are not of a download: choose another --out")
        request["crs"] = request["crs"] or _common_crs(days) or utm_of(request["bbox"])
        area_of(request["bbox"], request["crs"], request["resolution"])  # before it is written down
        write_text(record, json.dumps(request, indent=2) + "\n")
        return request["crs"]
    earlier = json.loads(record.read_text(encoding="utf-8"))
    request["crs"] = request["crs"] or earlier.get("crs")
    for key, value in request.items():
        if earlier.get(key) != value:
            raise DataError(
                f"{out} was downloaded with --{key.replace('_', '-')} {_text(earlier.get(key))}, not {_text(value)}:"
                " choose another --out, or give the same options to resume"
            )
    for leftover in (out / "images").glob(".*.partial-*"):  # of a run that was killed; no other one is at work here
        leftover.unlink()
    return request["crs"]


def _text(value: object) -> str:
    return " ".join(f"{number:g}" for number in value) if isinstance(value, list) else str(value)


def _common_crs(days: Mapping[date, list[Item]]) -> str | None:
    """The CRS of most items, if they tell it: their pixels are then copied, not resampled."""
    codes = Counter()
    for item in chain.from_iterable(days.values()):
        epsg = item.properties.get("proj:epsg")
        codes[item.properties.get("proj:code") or (f"EPSG:{epsg}" if epsg else None)] += 1
    del codes[None]
    return min(codes, key=lambda code: (-codes[code], code), default=None)


def _labels(
    catalogue: Client, url: str, bbox: tuple[float, float, float, float], year: int, out: Path, reader: Reader
) -> tuple[list[Path], dict[str, str]]:
    """The label rasters that are there, and what failed."""
    if not has_collection(catalogue, url, LABELS):
        print(f"no labels: {url} has no collection {LABELS}")
        return [], {}
    items = find_labels(catalogue, url, bbox, year)
    if not items:
        print(f"no labels: {LABELS} has nothing of {year} in this place")
        return [], {}
    return write_labels(items, bbox, out, reader)


def _report(out: Path, year: int, season_start: str, labels: list[Path], failed: Mapping[str, str]) -> int:
    """Say what is there, what to do with it, and what failed."""
    images = out / "images"
    count = sum(1 for _ in images.glob("[!.]*.tif"))
    print(f"{images}: {count} days" + "".join(f"; {path}" for path in labels))
    options = f"--images {images} --year {year}"
    if season_start != "01-01":
        options += f" --season-start {season_start}"
    if len(labels) == 2:
        options = f"labelled {options} --labels {labels[0]} --confidence {labels[1]}"
    elif labels:
        options = f"labelled {options} --labels {labels[0]}"
    else:
        options = f"unlabelled {options}"
    print(f"use it with python -m datasets.prepare {options} --site NAME --out ROOT")
    for name, reason in failed.items():
        print(f"failed: {name} {reason}")
    if failed:
        print(f"{len(failed)} items failed and were left out: run the same command again to try them again")
    return 1 if failed else 0


def _positive(text: str) -> float:
    return _within(float(text), text, 0 < float(text) < float("inf"), "a number above 0")


def _percentage(text: str) -> float:
    return _within(float(text), text, 0 <= float(text) <= 100, "a number from 0 to 100")


def _count(text: str) -> int:
    return _within(int(text), text, int(text) >= 1, "a whole number from 1 on")


def _within(value, text: str, holds: bool, expected: str):
    if not holds:
        raise ArgumentTypeError(f"{text}: expected {expected}")
    return value


def _crs(text: str) -> str:
    return f"EPSG:{text}" if text.isdigit() else text.upper()
