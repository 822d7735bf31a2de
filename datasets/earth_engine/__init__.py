"""Images and labels of sites as export tasks of Google Earth Engine.

    python -m datasets.download earth-engine --sites sites.geojson --year 2019 --out gs://BUCKET/PREFIX
    python -m datasets.download earth-engine --sites sites.geojson --year 2019 --out drive://FOLDER --dry-run

For each feature of the GeoJSON file, named by its property `name`: a mosaic of each day with images of
COPERNICUS/S2_SR_HARMONIZED, ten bands on one UTM grid, SITE/images/2019-05-03.tif; and the Cropland Data Layer of the
year on its own grid, SITE/cdl.tif and SITE/confidence.tif. On Drive, which has no nested folders, FOLDER-SITE-images
and FOLDER-SITE. Fetched to a disk, a site is a folder that `datasets.prepare` takes with --offset 0, as the values of
this collection are shifted back to the scale before processing baseline 04.00.

--dry-run prints the tasks as JSON, one a line, and needs neither the service nor its package. It has the days of
--dates; without them the lines of each site stand for all the days that the service finds when the tasks are started.

This has not been run against the service.
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from datasets.earth_engine.plan import Destination, Export, Site, image_selection, plan, read_destination, read_sites
from datasets.errors import DataError
from datasets.season import Season

HELP = "images and labels of sites as export tasks of Earth Engine"


def add_arguments(parser: ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--sites", type=Path, required=True, metavar="FILE", help="GeoJSON, a feature a site")
    parser.add_argument("--year", type=int, required=True, help="the year of the images and the labels")
    parser.add_argument("--out", required=True, metavar="URL", help="gs://BUCKET/PREFIX or drive://FOLDER")
    parser.add_argument(
        "--season-start", default="01-01", metavar="MM-DD", help="first day of the twelve months (default: %(default)s)"
    )
    parser.add_argument("--dates", type=_date, nargs="+", metavar="DATE", help="only these days (default: all)")
    parser.add_argument(
        "--cloud-cover", type=_number(0, 100), default=100.0, metavar="PCT",
        help="leave out images that are cloudier than this percentage (default: none)",
    )  # fmt: skip
    parser.add_argument(
        "--resolution", type=_number(1, 1000), default=10.0, help="pixel size in metres (default: %(default)g)"
    )
    parser.add_argument("--no-labels", action="store_true", help="no Cropland Data Layer (it covers the US)")
    parser.add_argument("--project", help="Google Cloud project of the tasks (default: that of the login)")
    parser.add_argument("--dry-run", action="store_true", help="print the tasks and start none")


def run(args: Namespace) -> int:
    """Run the command; the exit code is 1 where a task could not be started."""
    sites, destination = read_sites(args.sites), read_destination(args.out)
    season = Season.of(args.year, args.season_start)
    options = {"cloud_cover": args.cloud_cover, "resolution": args.resolution, "labels": not args.no_labels}
    if args.dry_run:
        return _dry_run(sites, args.year, season, destination, args.dates, options)
    from datasets.earth_engine import service

    ee = service.connect(args.project)
    dates = {
        site.name: args.dates
        or service.days_with_images(ee, site, image_selection(site, season.start, season.end, args.cloud_cover))
        for site in sites
    }
    failed = 0
    for export in plan(sites, args.year, season, destination, dates, **options):
        name = export.parameters["description"]
        try:
            print(f"{name}: task {service.start(ee, export, destination)}")
        except DataError as error:
            failed += 1
            print(f"failed: {name}: {error}")
    return 1 if failed else 0


def _dry_run(
    sites: Sequence[Site],
    year: int,
    season: Season,
    destination: Destination,
    dates: Sequence[date] | None,
    options: dict,
) -> int:
    exports = plan(sites, year, season, destination, {site.name: dates or [season.start] for site in sites}, **options)
    for export in exports:
        print(describe(export))
    if not dates:
        print(f"the lines of {season.start} stand for each day of {season} that has images", file=sys.stderr)
    return 0


def describe(export: Export) -> str:
    """A task as one line of JSON."""
    return json.dumps(export._asdict())


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ArgumentTypeError(f"{text}: expected a date such as 2019-05-03") from None


def _number(low: float, high: float):
    def number(text: str) -> float:
        if not low <= float(text) <= high:
            raise ArgumentTypeError(f"{text}: expected a number from {low} to {high}")
        return float(text)

    return number
