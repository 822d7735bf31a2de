"""Raster files: what their headers say, and reading a part of some of their bands."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.errors import DataError
from datasets.imagery.grid import Grid
from datasets.optional import need
from datasets.xmlfile import parse_xml

SUFFIXES = (".tif", ".tiff", ".jp2", ".vrt", ".img")
DRIVERS = {  # by a file's first bytes; others of GDAL's may fetch from the network or run code
    b"II*\0": "GTiff",
    b"MM\0*": "GTiff",
    b"II+\0": "GTiff",
    b"MM\0+": "GTiff",
    b"\0\0\0\x0cjP  ": "JP2OpenJPEG",
    b"\xff\x4f\xff\x51": "JP2OpenJPEG",
    b"EHFA_HEADER_TAG": "HFA",
    b"<VRTDataset": "VRT",
}
SUBCLASSES = ("", "VRTSourcedRasterBand", "VRTDerivedRasterBand", "VRTWarpedDataset", "VRTWarpedRasterBand")
PLAIN = "a virtual raster of bands of other rasters"
MOST_OPEN = 400  # files kept open; a process may have 1,024
WHAT = "reading images"


class BadFile(DataError):
    """A file that cannot be opened or read: corrupt, truncated."""


class Header(NamedTuple):
    """What a raster says of itself, without its values. Bands are counted from 0 here.

    nodata: a value or `None` a band; scales, offsets: of value x scale + offset, (1, 0) where the file has none;
    masked: whether a mask or an alpha band says what is valid; block: rows and columns of a block.
    """

    path: str
    grid: Grid
    dtypes: tuple[str, ...]
    descriptions: tuple[str | None, ...]
    nodata: tuple[float | None, ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    tags: dict[str, str]
    masked: bool
    block: tuple[int, int]
    cube: object = None  # how to find the bands of a NetCDF or Zarr cube

    @property
    def name(self) -> str:
        return Path(self.path).name


def raster_files(path: Path) -> list[Path]:
    """The raster files at a path (a file, or a folder with all below it), sorted; hidden and partial ones left out."""
    if path.is_file():
        return [path]
    return sorted(
        file
        for file in path.rglob("*")
        if file.suffix.lower() in SUFFIXES
        and file.is_file()
        and not any(part.startswith(".") or ".partial" in part for part in file.relative_to(path).parts)
    )


def read_header(path: Path, root: Path) -> Header:
    """Open a raster; DataError when it has no CRS or points outside the folder `root`, BadFile when it is no raster."""
    rasterio = need("rasterio", WHAT)
    check_virtual(path, root)
    with opened(path) as file:
        if file.crs is None:
            raise DataError(f"{path}: has no coordinate reference system; set it, as with gdal_edit.py -a_srs EPSG:…")
        flags = file.mask_flag_enums[0] if file.count else []
        per_dataset = rasterio.enums.MaskFlags.per_dataset
        return Header(
            str(path),
            Grid(file.crs, file.transform, file.height, file.width),
            tuple(file.dtypes),
            tuple(file.descriptions),
            tuple(file.nodatavals),
            tuple(file.scales),
            tuple(file.offsets),
            {key.lower(): value for key, value in file.tags().items()},
            per_dataset in flags,
            tuple(file.block_shapes[0]) if file.count else (1, 1),
        )


@contextmanager
def opened(path: Path | str) -> Iterator:
    """Open a raster with rasterio; what cannot be opened or read is a BadFile that names it."""
    rasterio = need("rasterio", WHAT)
    try:
        with local_only(), rasterio.open(path, driver=driver_of(path)) as file:
            yield file
    except DataError:
        raise
    except (rasterio.errors.RasterioError, ValueError) as error:  # ValueError: bands of several types, read together
        raise bad_file(path, error) from None


@contextmanager
def open_alone(path: Path) -> Iterator:
    """Open a raster that belongs to no series of images, such as a map or labels; DataError if it cannot be read."""
    rasterio = need("rasterio", WHAT)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        check_virtual(path, path.parent)
        driver = driver_of(path)
    except BadFile:
        raise DataError(f"{path}: cannot be read as a raster: it is no GeoTIFF, JPEG 2000, Imagine or VRT") from None
    with local_only():
        try:
            file = rasterio.open(path, driver=driver)
        except rasterio.errors.RasterioError as error:
            raise DataError(f"{path}: cannot be read as a raster ({' '.join(str(error).split())})") from None
        with file:
            yield file


def local_only():
    """A rasterio.Env in which GDAL reaches no server and runs no code, whatever a file or one beside it says.

    An .aux.xml, for one, can name overviews that are fetched when they are counted.
    """
    return need("rasterio", WHAT).Env(CPL_VSIL_CURL_ALLOWED_FILENAME="none", GDAL_VRT_ENABLE_PYTHON=False)


def bad_file(path: Path | str, error: Exception | str) -> BadFile:
    """The error for a file that cannot be opened or read."""
    cause = error if isinstance(error, str) else error.__cause__ or error
    reason = " ".join(str(cause).replace(f"{path}", "").split()).strip(" :'")
    return BadFile(
        f"{path}: cannot be read, it is corrupt or truncated ({reason}); get it again, or leave its date out with"
        " --skip-bad-images"
    )


def check_virtual(path: Path, root: Path) -> None:
    """A virtual raster may only point to rasters in the folder; DataError names the first file that lies elsewhere."""
    root = root.resolve()
    waiting, seen = [path], set()
    while waiting:
        file = waiting.pop()
        if file in seen or driver_of(file) != "VRT":
            continue
        seen.add(file)
        for source in _sources(file):
            target = (file.parent / source).resolve()
            if not target.is_relative_to(root) or not target.is_file():
                raise DataError(
                    f"{file}: points to {source}, which is no file in {root}; copy the images into the folder"
                )
            waiting.append(target)


def driver_of(path: Path | str) -> str:
    """GDAL's driver for a file, by its first bytes; BadFile for any other file."""
    with open(path, "rb") as file:
        start = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith(b"<?xml"):
        return "VRT"
    for magic, driver in DRIVERS.items():
        if start.startswith(magic):
            return driver
    raise bad_file(path, "it does not begin as a GeoTIFF, JPEG 2000, Imagine or virtual raster does")


def _sources(path: Path) -> list[str]:
    """What a virtual raster points to. Those that run code, or name files in other ways, are refused."""
    try:
        tree = parse_xml(path)
    except ValueError as error:
        raise BadFile(f"{path}: {error}; expected a plain virtual raster, get it again") from None
    for item in tree.iter():
        kind = item.get("subClass", "")
        if kind not in SUBCLASSES or item.tag in ("PixelFunctionLanguage", "PixelFunctionCode", "ProcessingSteps"):
            raise DataError(f"{path}: has a {kind if kind not in SUBCLASSES else item.tag}; expected {PLAIN}")
    names = [item.text or "" for item in tree.iter() if item.tag in ("SourceFilename", "SourceDataset", "MaskFilename")]
    return [re.sub(r"^file://", "", name.strip()) for name in names]


class RasterFiles:
    """Reads parts of raster files, a number of which it keeps open. One process, one such object."""

    def __init__(self):
        self._open: dict[str, object] = {}

    def read(self, header: Header, bands: Sequence[int], part) -> tuple[np.ndarray, np.ndarray | None]:
        """Values (n, h, w) of some bands (from 0) in `part` (a Nearest), and where a mask says that they are valid.

        BadFile names a file that cannot be read.
        """
        rasterio = need("rasterio", WHAT)
        window = rasterio.windows.Window(part.left, part.top, part.width, part.height)
        try:
            with local_only():
                file = self._open.get(header.path) or rasterio.open(header.path, driver=driver_of(header.path))
                try:
                    values = file.read([band + 1 for band in bands], window=window)
                    valid = file.read_masks(1, window=window) != 0 if header.masked else None
                finally:
                    self._keep(header.path, file)
        except DataError:
            raise
        except (rasterio.errors.RasterioError, ValueError) as error:
            raise bad_file(header.path, error) from None
        return values, valid

    def _keep(self, path: str, file) -> None:
        """Keep the first files open and close the others, as all are used in turn."""
        if path in self._open or len(self._open) < MOST_OPEN:
            self._open[path] = file
        else:
            file.close()
