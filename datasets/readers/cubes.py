"""Form (e): NetCDF and Zarr cubes (time, band or a variable a band, y, x), through xarray."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from pathlib import Path

import numpy as np

from datasets.bands import BANDS
from datasets.errors import DataError
from datasets.imagery.cube import AXES, WHAT, Cube, apart, axis_of, guarded, open_cube
from datasets.imagery.dates import find_date
from datasets.imagery.grid import Grid
from datasets.imagery.image import Draft, Layer
from datasets.imagery.names import read_name
from datasets.imagery.raster import Header
from datasets.optional import need

TAGS = ("s2:processing_baseline", "processing_baseline", "earthsearch:boa_offset_applied", "boa_offset_applied")


def read(file: Path, bands: Sequence[str] | None) -> tuple[Header, list[Draft]]:
    """The header of a cube and its images, one a time; `bands` overrules the names of its bands."""
    return apart(file, _read, file, bands)


def _read(file: Path, bands: Sequence[str] | None) -> tuple[Header, list[Draft]]:
    with guarded(file):
        data = open_cube(file)
        names = [name for name, array in data.data_vars.items() if axis_of(array, "y") and axis_of(array, "x")]
        arrays = [data[name] for name in names]
    if not arrays:
        raise DataError(f"{file}: no variable over y and x; it has {', '.join(map(str, data.data_vars)) or 'none'}")
    axes = {axis: next(filter(None, (axis_of(array, axis) for array in arrays)), None) for axis in AXES}
    layers = _layers(arrays, axes)
    labels = _labels(file, arrays, layers, axes, bands)
    times = data.sizes[axes["time"]] if axes["time"] else 1
    header = _header(file, data, arrays, Cube(tuple(layers), axes, _tags(data, axes, times)), times)
    whens, layers_of = _dates(file, data, axes, times), lambda t: _named(str(file), labels, t)
    if times == 1:
        return header, [Draft(str(file.with_suffix("")), str(file), str(file), whens[0], layers_of(0))]
    return header, [Draft(f"{file}, step {t + 1}", str(file), t, when, layers_of(t)) for t, when in enumerate(whens)]


def _layers(arrays: Iterable, axes: dict[str, str | None]) -> list[tuple[str, int | None]]:
    """Every variable over y and x, and every place on its `band` axis."""
    band = axes["band"]
    return [
        (array.name, place)
        for array in arrays
        for place in (range(array.sizes[band]) if band in array.dims else [None])
    ]


def _labels(file: Path, arrays, layers, axes, bands: Sequence[str] | None) -> list[str | None]:
    """The band of every layer: as --bands, the `band` coordinate or the variable's name says, else ten in our order."""
    if bands is not None:
        if len(bands) != len(layers):
            raise DataError(f"{file}: has {len(layers)} bands; expected the {len(bands)} of --bands")
        return list(bands)
    by_name = {array.name: array for array in arrays}
    labels = []
    for name, place in layers:
        text = name
        if place is not None and axes["band"] in by_name[name].coords:
            text = by_name[name].coords[axes["band"]].values[place]
        labels.append(read_name(str(text)).band if place is None or text is not name else None)
    return list(BANDS) if len(layers) == len(BANDS) and not any(labels) else labels


def _named(file: str, labels: Sequence[str | None], time: int) -> dict[str, Layer]:
    layers: dict[str, Layer] = {}
    for place, label in enumerate(labels):
        if label in layers:
            raise DataError(f"{file}: two of its bands are {label}; name them with --bands")
        if label:
            layers[label] = Layer(file, time * len(labels) + place)
    return layers


def _header(file: Path, data, arrays, cube: Cube, times: int) -> Header:
    by_name = {array.name: array for array in arrays}
    per_layer = [by_name[name] for name, _ in cube.layers] * times
    chunks = arrays[0].encoding.get("preferred_chunks") or {}
    return Header(
        str(file),
        _grid(file, data, arrays[0], cube.axes),
        tuple(str(array.dtype) for array in per_layer),
        tuple(name for name, _ in cube.layers) * times,
        tuple(_nodata(array) for array in per_layer),
        tuple(float(array.attrs.get("scale_factor", 1)) for array in per_layer),
        tuple(float(array.attrs.get("add_offset", 0)) for array in per_layer),
        {str(key).lower(): str(value) for key, value in data.attrs.items()},
        False,
        tuple(int(chunks.get(cube.axes[axis], arrays[0].sizes[cube.axes[axis]])) for axis in ("y", "x")),
        cube,
    )


def _nodata(array) -> float | None:
    for key in ("_FillValue", "missing_value", "nodata"):
        if key in array.attrs:
            return float(np.ravel(array.attrs[key])[0])
    return None


def _grid(file: Path, data, array, axes: dict[str, str | None]) -> Grid:
    mapping = _mapping(data, array)
    steps = [_steps(file, data, axes[axis]) for axis in ("x", "y")]
    affine = need("affine", WHAT).Affine
    if all(steps):
        (left, width), (top, height) = steps
        transform = affine(width, 0, left, 0, height, top)
    elif "GeoTransform" in mapping:
        transform = affine.from_gdal(*map(float, str(mapping["GeoTransform"]).split()))
    else:
        raise DataError(f"{file}: no coordinates along {axes['x']} and {axes['y']}; expected the centres of its pixels")
    return Grid(_crs(file, data, array, axes, mapping), transform, array.sizes[axes["y"]], array.sizes[axes["x"]])


def _steps(file: Path, data, dim: str) -> tuple[float, float] | None:
    """The outer edge of the first pixel and the signed size of a pixel; `None` without two coordinates."""
    if dim not in data.coords or data.sizes[dim] < 2:
        return None
    centres = np.asarray(data.coords[dim].values, np.float64)
    size = (centres[-1] - centres[0]) / (len(centres) - 1)
    if not np.allclose(np.diff(centres), size, rtol=0, atol=abs(size) * 0.01):
        raise DataError(f"{file}: coordinates along {dim} are not evenly spaced; expected a regular grid")
    return float(centres[0] - size / 2), float(size)


def _mapping(data, array) -> dict:
    """Attributes of the variable that describes the coordinate system."""
    names = [array.attrs.get("grid_mapping"), array.encoding.get("grid_mapping"), "spatial_ref", "crs"]
    return next((dict(data[name].attrs) for name in names if name and name in data.variables), {})


def _crs(file: Path, data, array, axes: dict[str, str | None], mapping: dict):
    rasterio = need("rasterio", WHAT)
    known = [mapping.get("crs_wkt"), mapping.get("spatial_ref"), array.attrs.get("crs"), data.attrs.get("crs")]
    for name in ("proj:code", "proj:epsg", "epsg"):
        if name in data.coords and data.coords[name].size == 1:
            known.append(data.coords[name].item())
    if str(axes["x"]).lower().startswith("lon"):
        known.append("EPSG:4326")
    text = next((one for one in known if one), None)
    if text is None:
        raise DataError(f"{file}: has no coordinate reference system; expected spatial_ref or crs, as rioxarray writes")
    try:
        return rasterio.crs.CRS.from_user_input(int(text) if str(text).isdigit() else str(text))
    except rasterio.errors.CRSError:
        raise DataError(
            f"{file}: unknown coordinate reference system {str(text)[:60]!r}; expected WKT or EPSG:…"
        ) from None


def _tags(data, axes: dict[str, str | None], times: int) -> tuple[dict[str, str], ...]:
    """Baselines and applied offsets that are coordinates along time, as catalogues' tools write them."""
    tags: list[dict[str, str]] = [{} for _ in range(times)]
    for name, values in data.coords.items():
        if str(name).lower() in TAGS and values.dims in ((), (axes["time"],)):
            for tag, value in zip(tags, np.broadcast_to(values.values, times), strict=True):
                tag[str(name).lower()] = str(value)
    return tuple(tags)


def _dates(file: Path, data, axes: dict[str, str | None], times: int) -> list[date | None]:
    """The date of every time, with its time of day unless that is midnight; of a cube without, that of its name."""
    found = find_date(file.stem)
    name = axes["time"] or next((name for name in data.coords if str(name).lower() in AXES["time"]), None)
    if name is None or name not in data.coords:
        return [found.date if found and times == 1 else None] * times
    values = np.ravel(data.coords[name].values)
    if values.dtype.kind == "M":
        stamps = [None if np.isnat(value) else value.astype("datetime64[s]").item() for value in values]
    else:  # other calendars, and texts
        stamps = [(found := find_date(str(value))) and found.date for value in values]
    return [_without_midnight(stamp) for stamp in stamps]


def _without_midnight(stamp: date | None) -> date | None:
    if isinstance(stamp, datetime) and (stamp.hour, stamp.minute, stamp.second) == (0, 0, 0):
        return stamp.date()
    return stamp
