"""NetCDF files and Zarr stores: which they are, opening them with xarray, and reading a part of some of their bands.

HDF5, which is below NetCDF, loops or takes all memory over some damage: such files are only read by `apart`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.errors import DataError
from datasets.imagery.raster import Header, bad_file
from datasets.optional import need
from utils.runtime import limited

SUFFIXES = (".nc", ".nc4", ".cdf", ".h5")
ZARR = (".zgroup", ".zarray", "zarr.json")
AXES = {
    "time": ("t", "time", "date", "datetime"),
    "band": ("band", "bands", "variable", "channel"),
    "y": ("y", "lat", "latitude", "northing"),
    "x": ("x", "lon", "longitude", "easting"),
}
WHAT = "reading a NetCDF or Zarr cube"
SECONDS, RATE = 3, 4 << 20  # of computing that a call may take, and bytes of its file for which it may take 1 s more
LIBRARIES = ("xarray", "h5netcdf", "scipy.io", "rasterio")


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


_kept: dict[Path, tuple] = {}  # the cubes that this process keeps open, each with what its file was then


def open_cube(file: Path, *, anew: bool = True):
    """Open a cube and keep it open; without `anew`, take the one that is open if its file is still the same.

    One that is open is closed first: HDF5 would take what it holds for what is in the file now.
    """
    stat = file.stat()
    version = stat.st_ino, stat.st_size, stat.st_mtime_ns
    if file in _kept and (anew or _kept[file][0] != version):
        _kept.pop(file)[1].close()
    if file not in _kept:
        _kept[file] = version, _open(file)
    return _kept[file][1]


def _open(file: Path):
    xarray = need("xarray", WHAT)
    settings = {"mask_and_scale": False, "decode_coords": "all"}  # values as they are stored
    if file.is_dir():
        need("zarr", WHAT)
        return xarray.open_zarr(file, chunks=None, **settings)
    with open(file, "rb") as start:
        classic = start.read(3) == b"CDF"
    if classic:
        need("scipy", WHAT)
        return xarray.open_dataset(file, engine="scipy", **settings)
    need("h5netcdf", WHAT)
    unlocked = {"locking": False}  # so that another program may replace it while it is kept open
    return xarray.open_dataset(file, engine="h5netcdf", driver_kwds=unlocked, **settings)


def axis_of(array, axis: str) -> str | None:
    return next((dim for dim in array.dims if str(dim).lower() in AXES[axis]), None)


def apart(file: Path, function: Callable, *args):
    """What `function(*args)` gives, which reads `file`; if that is NetCDF, in a process with limits.

    BadFile names a file that exceeds them; the limit of time grows with its size.
    """
    if file.is_dir():
        return function(*args)
    try:
        return limited.call(function, *args, seconds=SECONDS + file.stat().st_size / RATE, modules=LIBRARIES)
    except limited.Exceeded as error:
        raise bad_file(file, f"reading it {error}") from None


def read_part(header: Header, bands: Sequence[int], part) -> np.ndarray:
    """Values (n, h, w) of some bands (layers at times) in `part` (a Nearest). BadFile names what cannot be read."""
    cube, file = header.cube, Path(header.path)
    time, layer = np.divmod(np.asarray(bands), len(cube.layers))
    dtype = np.result_type(*(header.dtypes[band] for band in bands))
    layers, box = [cube.layers[i] for i in layer], Box(part.top, part.left, part.height, part.width)
    return apart(file, _read, file, cube.axes, time, layers, dtype, box)


class Box(NamedTuple):
    """A part of a plane, in pixels."""

    top: int
    left: int
    height: int
    width: int


def _read(file: Path, axes: dict[str, str | None], time: np.ndarray, layers: Sequence, dtype, box: Box) -> np.ndarray:
    """Values (n, h, w) of n layers, each at its time."""
    values = np.empty((len(layers), box.height, box.width), dtype)
    names, places = [name for name, _ in layers], np.array([place or 0 for _, place in layers])
    with guarded(file):
        data = open_cube(file, anew=False)
        for name in dict.fromkeys(names):
            mine = np.flatnonzero([one == name for one in names])
            values[mine] = _block(data[name], axes, time[mine], places[mine], box)
    return values


def _block(array, axes: dict[str, str | None], times: np.ndarray, places: np.ndarray, box: Box) -> np.ndarray:
    """(n, h, w) of a variable at n pairs of time and place; read as one block of all times and places."""
    some_times, some_places = np.unique(times), np.unique(places)
    chosen = {
        axes["time"]: _as_slice(some_times),
        axes["band"]: _as_slice(some_places),
        axes["y"]: slice(box.top, box.top + box.height),
        axes["x"]: slice(box.left, box.left + box.width),
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
