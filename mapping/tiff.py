"""A correction of TIFF files that GDAL offers no option for."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

EXTRA_SAMPLES, UNSPECIFIED = 338, 0  # TIFF 6.0, page 31
BIG = 43  # the version of BigTIFF


def unmark_alpha(path: str | Path) -> None:
    """Say of the second band of a TIFF with a palette that it is not opacity, in the image and all its overviews.

    GDAL (3.10) marks it as such whatever its colour interpretation, when it copies a file. One value in place is
    changed, so a cloud-optimised file remains one.
    """
    with open(path, "r+b") as file:
        order = "<" if file.read(2) == b"II" else ">"
        big = _read(file, f"{order}H")[0] == BIG
        counts, entry, pointer = ("Q", "HHQ", "Q") if big else ("H", "HHI", "I")
        if big:
            file.seek(8)
        (directory,) = _read(file, order + pointer)
        while directory:
            file.seek(directory)
            (count,) = _read(file, order + counts)
            for _ in range(count):
                tag, _, values = _read(file, order + entry)
                place = file.tell()
                if (tag, values) == (EXTRA_SAMPLES, 1):  # a short, which stands in the entry itself
                    file.write(struct.pack(f"{order}H", UNSPECIFIED))
                file.seek(place + struct.calcsize(order + pointer))
            (directory,) = _read(file, order + pointer)


def _read(file: BinaryIO, layout: str) -> tuple:
    return struct.unpack(layout, file.read(struct.calcsize(layout)))
