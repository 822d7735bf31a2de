"""Band names as they are written in files: our own, Sentinel-2's (B2, B02, B02_10m), and those of STAC catalogues."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from datasets.bands import BANDS
from datasets.errors import DataError
from datasets.imagery.dates import find_date

SENTINEL = dict(zip(BANDS, ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"), strict=True))
STAND_IN = {"red4": "nir", "nir": "red4"}  # B8 and B8A lie at 833 and 865 nm, B8 being the wider
MORE_NAMES = {
    "red1": ("rededge1", "re1"),
    "red2": ("rededge2", "re2"),
    "red3": ("rededge3", "re3"),
    "red4": ("rededge4", "re4", "nir08", "nirnarrow", "narrownir"),
    "swir1": ("swir16",),
    "swir2": ("swir22",),
}
OTHER = ("scl", "doy")  # what else is used: the scene classification, the day of year


def _names() -> tuple[dict[str, str], dict[str, str]]:
    numbers = {code.lower(): band for band, code in SENTINEL.items()}
    numbers |= {code.replace("b0", "b"): band for code, band in numbers.items()}
    words = {name: name for name in (*BANDS, *OTHER)}
    words |= {name: band for band, names in MORE_NAMES.items() for name in names}
    return numbers, words


NUMBERS, WORDS = _names()  # "b2" -> "blue"; "swir16" -> "swir1"


class BandName(NamedTuple):
    """A description, read: the band (`None`: none of ours), its number or its date in a stack."""

    band: str | None
    number: int | None = None
    date: object = None


def read_name(text: str) -> BandName:
    """'B2_1' -> (blue, 1), '20190503T173911_T14SPH_B2' -> (blue, date), '3_B02' -> (blue, 3), 'red_edge_1' -> red1."""
    found = find_date(text)
    rest = text if found is None else text[: found.start] + " " + text[found.end :]
    rest = re.sub(r"red[\s_\-]*edge[\s_\-]*(\d)", r"rededge\1", rest.lower())
    tokens = [token for token in re.split(r"[^a-z0-9]+", rest) if token]
    whole = "".join(tokens)
    place = next((i for names in (NUMBERS, WORDS) for i, token in enumerate(tokens) if token in names), None)
    if place is None:
        return BandName(WORDS.get(whole), None, found and found.date)
    token = tokens[place]
    return BandName(NUMBERS.get(token) or WORDS[token], _number(tokens, place), found and found.date)


def _number(tokens: Sequence[str], place: int) -> int | None:
    """The number of a band in a stack, which follows its name (`B2_1`) or begins the text (`1_B2`)."""
    for candidate in (tokens[place + 1 : place + 2], tokens[:1] if place else []):
        if candidate and re.fullmatch(r"0|[1-9]\d{0,3}", candidate[0]):
            return int(candidate[0])
    return None


def label(band: str) -> str:
    """'B11 (swir1)'."""
    return f"{SENTINEL[band]} ({band})" if band in SENTINEL else band


def choose_bands(found: dict[str, object], where: str) -> tuple[list, str | None]:
    """The ten bands' entries of `found` (name -> anything), and the band that B8 or B8A stands in for, if one does.

    Any other missing band is a DataError that names `where` and the band.
    """
    missing = [band for band in BANDS if band not in found]
    replaced = missing[0] if len(missing) == 1 and missing[0] in STAND_IN else None
    if missing and replaced is None:
        has = ", ".join(label(band) for band in BANDS if band in found) or "none of ours"
        raise DataError(
            f"{where}: band {', '.join(map(label, missing))} is missing (it has {has}); expected all ten of"
            f" {', '.join(SENTINEL.values())}; name the bands in the order of the file with --bands"
        )
    return [found[STAND_IN[band] if band == replaced else band] for band in BANDS], replaced
