"""NetCDF files and Zarr stores: which they are, opening them with xarray, and reading a part of some of their bands."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.errors import DataError
from datasets.imagery.raster import Header, bad_file
from datasets.optional import need

SUFFIXES = (".nc", ".nc4", ".cdf", ".h5")
ZARR = (".zgroup", ".zarray", "zarr.json")
AXES = {
    "time": ("t", "time", "date", "datetime"),
    "band": ("band", "bands", "variable", "channel"),
    "y": ("y", "lat", "latitude", "northing"),
    "x": ("x", "lon", "longitude", "easting"),
}
WHAT = "reading a NetCDF or Zarr cube"


class Cube(NamedTuple):
    """How the bands of a header are found: number t * len(layers) + i is layer i at time t.

    layers: variable, and the place along its `band` axis (`None`: it has none); axes: the dimensions that are time,
    band, y and x (`None`: there is none); tags: what is known of every time.
    """

    layers: tuple[tuple[str, int | None], ...]
    axes: dict[str, str | None]
    tags: tuple[dict[str, str], ...]


def is_cube(path: Path) -> bool:
    """Whether a path is a NetCDF file or a Zarr store (a folder)."""
    if path.is_dir():
        return path.suffix.lower() == ".zarr" or any((path / name).exists() for name in ZARR)
    return path.suffix.lower() in SUFFIXES


def cube_files(path: Path) -> list[Path]:
    """The cubes at a path (itself, or in a folder with all below it), sorted."""
    if is_cube(path):
        return [path]
    return sorted(file for file in path.rglob("*") if is_cube(file) and not inside_cube(file, path))


def inside_cube(file: Path, root: Path) -> bool:
    """Whether a path is a part of a Zarr store below `root`."""
    return any(is_cube(parent) for parent in file.parents if parent != root and parent.is_relative_to(root))


@contextmanager
def guarded(file: Path | str):
    """What xarray and the libraries below it raise for a corrupt file becomes a BadFile."""
    try:
        yield
    except DataError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise bad_file(file, error) from None


def open_cube(file: Path):
    xarray = need("xarray", WHAT)
    settings = {"mask_and_scale": False, "decode_coords": "all"}  # values as they are stored
    if file.is_dir():
        need("zarr", WHAT)
        return xarray.open_zarr(file, chunks=None, **settings)
    with open(file, "rb") as start:
        classic = start.read(3) == b"CDF"
    need("scipy" if classic else "h5netcdf", WHAT)
    return xarray.open_dataset(file, engine="scipy" if classic else "h5netcdf", **settings)


def axis_of(array, axis: str) -> str | None:
    return next((dim for dim in array.dims if str(dim).lower() in AXES[axis]), None)


class CubeFiles:
    """Reads parts of cubes, which it keeps open."""

    def __init__(self):
        self._open: dict[str, object] = {}

    def read(self, header: Header, bands: Sequence[int], part) -> tuple[np.ndarray, None]:
        """Values (n, h, w) of some bands (layers at times) in `part` (a Nearest). BadFile names what cannot be read."""
        cube = header.cube
        time, layer = np.divmod(np.asarray(bands), len(cube.layers))
        dtype = np.result_type(*(header.dtypes[band] for band in bands))
        values = np.empty((len(bands), part.height, part.width), dtype)
        with guarded(header.path):
            if header.path not in self._open:
                self._open[header.path] = open_cube(Path(header.path))
            data = self._open[header.path]
            for name in dict.fromkeys(cube.layers[i][0] for i in layer):
                mine = np.flatnonzero([cube.layers[i][0] == name for i in layer])
                places = np.array([cube.layers[i][1] or 0 for i in layer[mine]])
                values[mine] = _block(data[name], cube.axes, time[mine], places, part)
        return values, None


def _block(array, axes: dict[str, str | None], times: np.ndarray, places: np.ndarray, part) -> np.ndarray:
    """(n, h, w) of a variable at n pairs of time and place; read as one block of all times and places."""
    some_times, some_places = np.unique(times), np.unique(places)
    chosen = {
        axes["time"]: _as_slice(some_times),
        axes["band"]: _as_slice(some_places),
        axes["y"]: slice(part.top, part.top + part.height),
        axes["x"]: slice(part.left, part.left + part.width),
    }
    order = [axes[axis] for axis in ("time", "band", "y", "x") if axes[axis] in array.dims]
    chosen = {dim: index for dim, index in chosen.items() if dim in array.dims}
    extra = {dim: 0 for dim in array.dims if dim not in order}
    block = array.isel({**chosen, **extra}).transpose(*order).values
    for axis, name in enumerate(("time", "band")):
        if axes[name] not in array.dims:
            block = np.expand_dims(block, axis)
    t, b = np.searchsorted(some_times, times), np.searchsorted(some_places, places)
    return block[t if block.shape[0] > 1 else 0 * t, b if block.shape[1] > 1 else 0 * b]


def _as_slice(numbers: np.ndarray) -> slice | np.ndarray:
    """A slice where numbers follow one another, which libraries read faster."""
    first, last = int(numbers[0]), int(numbers[-1])
    return slice(first, last + 1) if last - first + 1 == len(numbers) else numbers
