"""Form (c): a folder a date with a file a band: products (R10m/…_B02_10m.jp2), downloads from catalogues (B02.tif)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from datasets.imagery.dates import date_in_path
from datasets.imagery.image import Draft, Layer
from datasets.imagery.names import read_name
from datasets.imagery.raster import Header

RESOLUTION_FOLDER = re.compile(r"R\d{2}m", re.IGNORECASE)


def band_of(header: Header) -> str | None:
    """The band that a file of one band holds, by its name or its description; `None`: none of ours."""
    if len(header.dtypes) != 1:
        return None
    return read_name(Path(header.path).stem).band or (header.descriptions[0] and read_name(header.descriptions[0]).band)


def read(headers: Sequence[Header], root: Path) -> list[Draft]:
    """The images of files of one band each; of a band in several resolutions the finest is taken."""
    groups: dict[str, dict[str, Header]] = {}
    for header in headers:
        layers, band = groups.setdefault(image_of(Path(header.path)), {}), band_of(header)
        known = layers.get(band)
        if known is None or header.grid.metres() < known.grid.metres() * 0.99:
            layers[band] = header
    return [_draft(name, layers, root) for name, layers in sorted(groups.items())]


def image_of(path: Path) -> str:
    """The path that all bands of an image share: without the name of the band, its resolution and its folder."""
    folder = path.parent.parent if RESOLUTION_FOLDER.fullmatch(path.parent.name) else path.parent
    tokens = re.split(r"([_\-. ])", path.stem)
    kept = [t for t in tokens if not re.fullmatch(r"\d0m", t) and not (t.isalnum() and read_name(t).band)]
    return str(folder / re.sub(r"[_\-. ]{2,}", "_", "".join(kept)).strip("_-. "))


def _draft(name: str, headers: dict[str, Header], root: Path) -> Draft:
    layers = {band: Layer(header.path, 0) for band, header in headers.items()}
    return Draft(name, name, name, date_in_path(Path(name), root), layers)
