"""Satellite images of one place as pixel time series, whatever form they have on the disk.

    images = open_images("harvey/", season=Season.of(2019))
    for window in images.grid.windows(256):
        bands, doy, lengths, row, col, counts = images.read(window)

The forms: a GeoTIFF a date, parts as Earth Engine exports them, a file a band, a stack of all dates in one file, NetCDF
and Zarr cubes (`datasets.readers`). All are brought to one grid by nearest neighbour.
"""

from __future__ import annotations

import argparse
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from functools import cached_property
from itertools import islice, tee
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.bands import BANDS
from datasets.errors import DataError
from datasets.imagery import check, drafts, find
from datasets.imagery.dates import given_dates
from datasets.imagery.grid import Grid, finest, share
from datasets.imagery.image import Image
from datasets.imagery.raster import Header, read_header
from datasets.imagery.sources import Sources, WindowReader
from datasets.imagery.values import digital_numbers, missing, parse_mask
from datasets.imagery.window import Window
from datasets.inseason import day_of
from datasets.optional import need
from datasets.season import Season
from utils.runtime.ahead import read_ahead

__all__ = ["Grid", "Images", "Pixels", "add_arguments", "open_from", "open_images"]

OFFSETS = ("auto", "0", "-1000")
HASHED = 16 << 20  # bytes of a file that are hashed
AHEAD = 8  # images of which a window is read ahead, so that the reader is busy while series are put together


class Pixels(NamedTuple):
    """The series of a window, row by row; only pixels with an observation.

    bands (M, 10) int16 DN, doy (M,) int16, lengths (P,) int64 >= 1, row and col (P,) int64 in the grid; counts: of
    `missing` and `masked` observations and `clipped` values.
    """

    bands: np.ndarray
    doy: np.ndarray
    lengths: np.ndarray
    row: np.ndarray
    col: np.ndarray
    counts: dict[str, int]


class Images:
    """Images on one grid. Picklable: another process opens the files itself.

    grid: of all pixels; dates: the solar days, sorted; notes: lines that a user is told; skipped: bad files that were
    left out, a line each.
    """

    def __init__(
        self, grid: Grid, images: Sequence[Image], headers: dict[str, Header], classes: Sequence[int], about: dict
    ):
        self.grid, self.images, self.headers, self.classes = grid, list(images), headers, tuple(classes)
        self.dates: list[date] = sorted({image.day for image in images})
        self.notes: list[str] = about["notes"]
        self.skipped: list[str] = about["skipped"]
        self.decided = {key: value for key, value in about.items() if key not in ("notes", "skipped")}
        self._sources = Sources()

    def __repr__(self) -> str:
        return f"Images({len(self.dates)} dates, {self.dates[0]} to {self.dates[-1]}; {self.grid})"

    def until(self, day: int | None) -> Images:
        """The images up to a day (None: all), which counts as in ``datasets.inseason``, from the first one's year on.

        The grid, and what was decided about the images, stay those of all.

        Raises:
            DataError: there is none.
        """
        if day is None:
            return self
        first = min(self.images, key=lambda image: image.day)
        year = first.day.year
        kept = [image for image in self.images if day_of(image.day, year) <= day]
        if not kept:
            raise DataError(
                f"{first.name}: is the first image, of {first.day} (day {day_of(first.day, year)}), so there is none"
                f" until day {day}; give a later --until-doy"
            )
        headers = {file: self.headers[file] for image in kept for file in image.files()}
        about = {**self.decided, "notes": self.notes, "skipped": self.skipped}
        return Images(self.grid, kept, headers, self.classes, about)

    def read(self, window, pixels: np.ndarray | None = None) -> Pixels:
        """The series of a window (rasterio's) of the grid; `pixels` (h, w) bool: of some pixels alone.

        Memory: 50 bytes a pixel and date, and what AHEAD files store of the window. 256 x 256 pixels are read fastest.
        BadFile names a file that cannot be read.
        """
        return next(self.read_each([(window, pixels)]))

    def read_each(self, wanted: Iterable[tuple[object, np.ndarray | None]]) -> Iterator[Pixels]:
        """What `read` gives for one (window, pixels) after another; a thread reads ahead, into the next windows too."""
        ahead, wanted = tee(wanted)
        readers = (WindowReader(self._sources, self.images, self.headers, self.grid, window) for window, _ in ahead)
        steps = ((reader, image) for reader in readers for image in self.images)
        found = read_ahead(steps, lambda step: step[0].read(step[1]), AHEAD)
        for window, pixels in wanted:
            yield self._series(window, pixels, ((image, part) for (_, image), part in islice(found, len(self.images))))

    def _series(self, window, pixels: np.ndarray | None, parts: Iterable[tuple[Image, tuple]]) -> Pixels:
        """The series of a window, from what was read of every image."""
        height, width = int(window.height), int(window.width)
        chosen = slice(None) if pixels is None else np.flatnonzero(pixels)
        collected = Window(len(self.dates), height * width if pixels is None else len(chosen))
        counts = Counter(missing=0, masked=0, clipped=0)
        place = {day: i for i, day in enumerate(self.dates)}
        for image, part in parts:
            found = self._observations(image, part, chosen, counts)
            if found is not None:
                collected.add(place[image.day], *found)
        doy = np.array([day.timetuple().tm_yday for day in self.dates], np.int16)
        bands, doy, lengths = collected.observations(doy)
        kept = np.flatnonzero(lengths)
        flat = kept if pixels is None else chosen[kept]
        rows, cols = int(window.row_off) + flat // width, int(window.col_off) + flat % width
        return Pixels(bands, doy, lengths[kept], rows, cols, dict(counts))

    def _observations(self, image: Image, part: tuple, chosen, counts: Counter):
        """DN (10, n) int16 of the chosen pixels of a window, and which are observations (n,); `None`: all outside."""
        stored, inside, scl = part
        if not inside.any():
            counts["missing"] += inside.ravel()[chosen].size
            return None
        nodata = [self.headers[layer.file].nodata[layer.band] for layer in image.bands]
        stored, inside = stored.reshape(len(BANDS), -1)[:, chosen], inside.ravel()[chosen]
        good = inside & ~missing(stored, nodata)
        counts["missing"] += good.size - int(np.count_nonzero(good))
        if self.classes:
            masked = good & np.isin(scl.ravel()[chosen], self.classes)
            counts["masked"] += int(np.count_nonzero(masked))
            good &= ~masked
        numbers, clipped = digital_numbers(stored, image.scale, image.offset, good)
        counts["clipped"] += clipped
        return numbers, good

    @cached_property
    def provenance(self) -> dict:
        """Plain values for meta.json: files with size and hash, grid, dates, offsets, stand-in bands, versions."""
        rasterio = need("rasterio", "reading images")
        return {
            "files": [_fingerprint(Path(file)) for file in sorted(self.headers)],
            "crs": self.grid.crs.to_wkt(),
            "transform": list(self.grid.transform)[:6],
            "height": self.grid.height,
            "width": self.grid.width,
            "dates": [day.isoformat() for day in self.dates],
            **self.decided,
            "notes": self.notes,
            "skipped": self.skipped,
            "versions": {"rasterio": rasterio.__version__, "gdal": rasterio.__gdal_version__, "numpy": np.__version__},
        }


def open_images(
    path: str | Path,
    *,
    season: Season | None = None,
    bands: str | Sequence[str] | None = None,
    dates: str | None = None,
    start: str | None = None,
    step: str | None = None,
    offset: str = "auto",
    mask: str | None = None,
    grid: str | Path | None = None,
    skip_bad: bool = False,
) -> Images:
    """Find out what is at `path` (a file or a folder) and open it.

    season: images of other days are left out and counted; bands: names in the order of a file; dates: of the time
    steps, separated by commas, or a file; start, step: of composites, each dated at the middle of its period; offset:
    "auto" (from metadata), "0" or "-1000"; mask: "scl:3,8,9"; grid: a raster whose grid is taken; skip_bad: leave out
    the dates of files that cannot be read, which are all read once for it. DataError says what cannot be used and why.
    """
    path, classes = Path(path), parse_mask(mask)
    if str(offset) not in OFFSETS:
        raise DataError(f"--offset {offset}: expected one of {', '.join(OFFSETS)}")
    found, sources = find.find_images(path, find.parse_bands(bands), skip_bad), Sources()
    if skip_bad:
        found.bad.update(check.unreadable(found.headers, sources))
    dated, date_notes = drafts.dated(
        found.drafts,
        lambda count: given_dates(dates, start, step, count, "time steps"),
        season,
        found.headers,
        lambda undated: check.days_of_year(undated, found.headers, sources),
    )
    dated, season_notes = drafts.in_season(dated, season, path)
    dated, skipped = drafts.without_bad(dated, found.bad, path)
    images, value_notes = drafts.complete(dated, found.headers, find.root_of(path), str(offset))
    headers = {file: found.headers[file] for image in images for file in image.files()}
    grids = share([header.grid for header in headers.values()])
    headers = {file: headers[file]._replace(grid=grid) for file, grid in zip(headers, grids, strict=True)}
    if classes:
        drafts.check_masks(images)
    images, warnings = check.check_values(images, headers, sources)
    common, grid_notes = _common_grid(images, headers, grid)
    return Images(
        common,
        images,
        headers,
        classes,
        {
            "notes": [*found.notes, *date_notes, *season_notes, *grid_notes, *value_notes, *warnings],
            "skipped": skipped,
            "mask": mask,
            "offsets": {image.name: image.offset for image in images},
            "scales": {image.name: image.scale for image in images},
            "stand_in": sorted({image.stand_in for image in images if image.stand_in}),
        },
    )


def _common_grid(
    images: Sequence[Image], headers: dict[str, Header], grid: str | Path | None
) -> tuple[Grid, list[str]]:
    """The grid that all are brought to, and what a user is told of it."""
    if grid is None:
        common = finest([headers[layer.file].grid for image in images for layer in image.bands])
    else:
        common = read_header(Path(grid), Path(grid).parent).grid
    warped = sum(not all(headers[layer.file].grid.same_lattice(common) for layer in image.bands) for image in images)
    notes = [f"grid: {common}, {'the finest of the images' if grid is None else f'that of {grid}'}"]
    if warped:
        notes.append(f"{warped} of {len(images)} images have bands on another grid, brought to it by nearest neighbour")
    return common, notes


def _fingerprint(path: Path) -> dict:
    """Name, size and hash of a file: SHA-256 of its whole, or of 16 MiB spread evenly over a larger one; of a folder
    (Zarr) that of the names and sizes of what is in it."""
    if path.is_dir():
        inside = [file for file in sorted(path.rglob("*")) if file.is_file()]
        files = [(file.relative_to(path).as_posix(), file.stat().st_size) for file in inside]
        digest = hashlib.sha256(repr(files).encode()).hexdigest()
        return {"file": str(path), "size": sum(size for _, size in files), "sha256_of_names_and_sizes": digest}
    size, digest = path.stat().st_size, hashlib.sha256()
    with open(path, "rb") as file:
        if size <= HASHED:
            return {"file": str(path), "size": size, "sha256": hashlib.sha256(file.read()).hexdigest()}
        piece = HASHED // 16
        for i in range(16):
            file.seek((size - piece) * i // 15)
            digest.update(file.read(piece))
    return {"file": str(path), "size": size, "sha256_of_16_pieces": digest.hexdigest()}


def add_arguments(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """The options that say which images are read, and how; the same for every command."""
    add = parser.add_argument_group("images").add_argument
    add("--images", required=required, type=Path, metavar="PATH", help="file or folder with the images")
    add("--bands", metavar="NAMES", help="names of the bands in the order of a file, such as B2,B3,B4")
    add("--dates", metavar="DATES", help="dates of the time steps in their order, or a file of them")
    add("--start", metavar="DATE", help="first day of composites, each dated at the middle of its period")
    add("--step", metavar="STEP", help="length of the periods: month, or days such as 10D")
    add("--offset", choices=OFFSETS, default="auto", help="added to the digital numbers (default: auto)")
    add("--mask", metavar="scl:CLASSES", help="drop observations of these scene classes: scl:3,8,9,10,11")
    add("--grid", type=Path, metavar="FILE", help="raster whose grid is used (default: the finest)")
    add("--year", type=int, help="year of the season (default: all dates, within twelve months)")
    add("--season-start", default="01-01", metavar="MM-DD", help="first day of the season (default: 01-01)")
    add(
        "--skip-bad-images",
        action="store_true",
        help="leave out the dates of files that cannot be read (reads all files once more before the work begins)",
    )


def open_from(args) -> Images:
    """Open the images that the options of `add_arguments` say."""
    return open_images(
        args.images,
        season=None if args.year is None else Season.of(args.year, args.season_start),
        bands=args.bands,
        dates=args.dates,
        start=args.start,
        step=args.step,
        offset=args.offset,
        mask=args.mask,
        grid=args.grid,
        skip_bad=args.skip_bad_images,
    )
