"""An image: the ten bands of one place on one day, wherever its files are."""

from __future__ import annotations

from datetime import date
from typing import NamedTuple


class Layer(NamedTuple):
    """One band in one file, counted from 0."""

    file: str
    band: int


class Image(NamedTuple):
    """The ten bands of one day, in our order, and their scene classification if there is one.

    name: for messages, a file or a folder; day: the solar day; DN = value * scale + offset; baseline: the processing
    baseline ("05.00"; "" unknown), of two images of one day the newer comes first; stand_in: the band that another one
    stands in for.
    """

    name: str
    day: date
    bands: tuple[Layer, ...]
    scl: Layer | None = None
    stand_in: str | None = None
    baseline: str = ""
    scale: float = 1.0
    offset: float = 0.0

    def files(self) -> list[str]:
        """Every file that is read for it, once."""
        layers = self.bands if self.scl is None else (*self.bands, self.scl)
        return list(dict.fromkeys(layer.file for layer in layers))


class Draft(NamedTuple):
    """An image as a reader found it, before its bands are checked and it is dated.

    name: of the image, the same for its parts; file: what errors name; step: the number or the name by which the time
    steps are put in order; date: with a time in UTC if there is one, `None` unknown; layers: by band name.
    """

    name: str
    file: str
    step: int | str
    date: date | None
    layers: dict[str, Layer]
