"""Form (d): one file with the bands of all days, `B2, B2_1, …` (the days in order) or `20190503…_B2`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from datasets.errors import DataError
from datasets.imagery.image import Draft, Layer
from datasets.imagery.names import BandName
from datasets.imagery.raster import Header
from datasets.readers.earth_engine_parts import name_of


def is_stack(names: Sequence[BandName]) -> bool:
    """Whether bands stand for several days: one of them repeats."""
    return max(Counter(name.band for name in names if name.band).values(), default=0) > 1


def read(header: Header, names: Sequence[BandName]) -> list[Draft]:
    """An image for every number or date in the names of the bands."""
    days: dict[object, dict[str, Layer]] = {}
    for i, name in enumerate(names):
        if name.band is None:
            continue
        layers = days.setdefault(name.date or name.number or 0, {})
        if name.band in layers:
            raise DataError(
                f"{header.path}: band {i + 1} ({header.descriptions[i]}) is {name.band} of the same day as band"
                f" {layers[name.band].band + 1}; expected names such as B2, B2_1 or 20190503_B2, or give --bands"
            )
        layers[name.band] = Layer(header.path, i)
    dated = [day for day in days if not isinstance(day, int)]
    if dated and len(dated) < len(days):
        raise DataError(f"{header.path}: some bands have a date in their name and some have not; expected all or none")
    stem = name_of(Path(header.path).stem)
    return [
        Draft(
            f"{Path(header.path).with_name(stem)}, {f'{day:%Y-%m-%d}' if dated else f'step {day + 1}'}",
            header.path,
            str(day) if dated else day,
            day if dated else None,
            layers,
        )
        for day, layers in sorted(days.items())
    ]
