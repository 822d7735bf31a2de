"""Earth Engine writes a large export in parts, `name-<first row>-<first column>.tif` with ten digits each.

The parts are put together by their own transforms, as images of one day that lie beside one another; a part that is
missing is a gap.
"""

from __future__ import annotations

import re

PART = re.compile(r"-\d{10}-\d{10}$")


def name_of(stem: str) -> str:
    """The name of the export that a file belongs to: 'harvey-0000000000-0000000512' -> 'harvey'."""
    return PART.sub("", stem)
