"""Ask a STAC API for the items of a place and a season."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from typing import TYPE_CHECKING, NamedTuple

from datasets.area import solar_day
from datasets.errors import DataError
from datasets.optional import need
from datasets.season import Season
from datasets.stac.items import ItemFailed, newest_first, time_of

if TYPE_CHECKING:
    from pystac import Item
    from pystac_client import Client

WHAT = "a STAC catalogue"
RETRIES, BACKOFF = 5, 0.5  # of a request; seconds before the second retry, doubled each time (urllib3)
RETRIED = (429, 500, 502, 503, 504)
TIMEOUT = 60  # seconds without an answer
PAGE = 100  # items


class Selection(NamedTuple):
    """The items of each solar day, newest first; how many were left out for clouds; those that cannot be used."""

    days: dict[date, list[Item]]
    cloudy: int
    failed: dict[str, str]


def open_catalogue(url: str) -> Client:
    """Open a STAC API. Its requests are repeated where the server is busy; DataError: there is none at `url`."""
    client, api_io = need("pystac_client", WHAT), need("pystac_client.stac_api_io", WHAT)
    retry = need("urllib3", WHAT).Retry(
        total=RETRIES, backoff_factor=BACKOFF, status_forcelist=RETRIED, allowed_methods=None, raise_on_status=False
    )
    with answers(url), warnings.catch_warnings():
        warnings.simplefilter("ignore", need("pystac_client.warnings", WHAT).PystacClientWarning)  # errors say more
        catalogue = client.Client.open(url, stac_io=api_io.StacApiIO(timeout=TIMEOUT, max_retries=retry))
    if not catalogue.conforms_to("ITEM_SEARCH"):
        raise DataError(f"{url} is a catalogue without a search: expected the root of a STAC API")
    return catalogue


@contextmanager
def answers(url: str) -> Iterator[None]:
    """Turn what can go wrong between us and a catalogue into one DataError."""
    errors = need("pystac_client.exceptions", WHAT)
    pystac, requests = need("pystac", WHAT), need("requests", WHAT)
    try:
        yield
    except (errors.APIError, requests.RequestException, pystac.STACError, pystac.STACTypeError, ValueError) as error:
        text = " ".join(str(error).split())[:300]
        raise DataError(f"{url} does not answer as a STAC API: {text}; check --catalog and run it again") from error


def has_collection(catalogue: Client, url: str, name: str) -> bool:
    """Whether the catalogue has the collection."""
    with answers(url):
        return catalogue.get_collection(name) is not None


def search(
    catalogue: Client, url: str, collection: str, bbox: tuple[float, float, float, float], first: date, last: date
) -> Iterator[Item]:
    """Items of a collection that touch `bbox` (degrees), from `first` to `last` (UTC days); each id once."""
    seen = set()
    with answers(url):
        found = catalogue.search(collections=[collection], bbox=bbox, datetime=f"{first}/{last}", limit=PAGE)
        for item in found.items():
            if item.id not in seen:
                seen.add(item.id)
                yield item


def select(
    items: Iterator[Item], season: Season, longitude: float, cloud_cover: float, max_items: int | None
) -> Selection:
    """Group items by solar day at `longitude`; leave out other seasons and those with more than `cloud_cover` %.

    An item that does not tell its cloud cover is kept. At most `max_items` are kept, in the order of the catalogue.
    """
    days: dict[date, list[Item]] = {}
    cloudy, kept, failed = 0, 0, {}
    for item in items:
        if max_items is not None and kept == max_items:
            break
        try:
            day = solar_day(time_of(item), longitude)
        except ItemFailed as error:
            failed[item.id] = str(error)
            continue
        if not season.holds(day):
            continue
        if float(item.properties.get("eo:cloud_cover") or 0) > cloud_cover:
            cloudy += 1
            continue
        kept += 1
        days.setdefault(day, []).append(item)
    return Selection({day: newest_first(days[day]) for day in sorted(days)}, cloudy, failed)


def utc_days(season: Season) -> tuple[date, date]:
    """First and last UTC day that a solar day of the season can lie in."""
    return season.start - timedelta(days=1), season.end
