"""Form (e): NetCDF and Zarr cubes (time, band or a variable a band, y, x), through xarray."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from datasets.imagery.image import Draft
from datasets.imagery.raster import Header

SUFFIXES = (".nc", ".nc4", ".cdf", ".h5", ".zarr")
ZARR = (".zgroup", ".zarray", "zarr.json")
X, Y = ("x", "lon", "longitude", "easting"), ("y", "lat", "latitude", "northing")
TIME, BAND = ("t", "time", "date", "datetime"), ("band", "bands", "variable", "channel")
WHAT = "reading a NetCDF or Zarr cube"


class Cube(NamedTuple):
    """How to find a layer: number t * len(layers) + b is time t of layer b = (variable, place along `band` or None)."""

    layers: tuple[tuple[str, int | None], ...]
    dims: tuple[str | None, str | None, str, str]  # time, band, y, x
    flipped: tuple[bool, bool]  # unused axes of the grid are never flipped: the transform has the sign


def is_cube(path: Path) -> bool:
    """Whether a path is a NetCDF file or a Zarr store (a folder)."""
    if path.is_dir():
        return path.suffix.lower() == ".zarr" or any((path / name).exists() for name in ZARR)
    return path.suffix.lower() in SUFFIXES


def cube_files(path: Path) -> list[Path]:
    """The cubes at a path, sorted."""
    if is_cube(path) or path.is_file():
        return [path] if is_cube(path) else []
    cubes = [file for file in path.rglob("*") if is_cube(file)]
    return sorted(file for file in cubes if not any(parent in cubes for parent in file.parents))


def inside_cube(file: Path, root: Path) -> bool:
    """Whether a file belongs to a Zarr store below `root`."""
    return any(is_cube(parent) for parent in file.parents if parent.is_relative_to(root) and parent != root)


def read(file: Path, bands: Sequence[str] | None) -> tuple[Header, list[Draft]]:
    raise NotImplementedError
