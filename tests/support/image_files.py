"""Small scenes with known series, written in every form in which images are read."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
import xarray
from affine import Affine
from rasterio.transform import from_origin

from datasets.images import Pixels

CODES = ("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12")
LONG_CODES = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
STAC_NAMES = ("blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08", "swir16", "swir22")
COARSE = (3, 4, 5, 7, 8, 9)  # the bands of 20 m
UTM = "EPSG:32614"
ORIGIN = from_origin(500_000, 4_200_000, 10, 10)


class Scene(NamedTuple):
    """values (T, 10, h, w) uint16, an observation of 0 in all bands being missing; dates: T, in order."""

    values: np.ndarray
    dates: tuple[date, ...]
    transform: Affine = ORIGIN

    def pixels(self, offset: int = 0) -> Pixels:
        """The series, pixel by pixel in plain loops."""
        bands, doy, lengths, rows, cols, missing = [], [], [], [], [], 0
        for row in range(self.values.shape[2]):
            for col in range(self.values.shape[3]):
                series = [
                    (np.maximum(self.values[t, :, row, col].astype(int) + offset, 1), day.timetuple().tm_yday)
                    for t, day in enumerate(self.dates)
                    if self.values[t, :, row, col].any()
                ]
                missing += len(self.dates) - len(series)
                if series:
                    bands += [values for values, _ in series]
                    doy += [day for _, day in series]
                    lengths.append(len(series))
                    rows.append(row)
                    cols.append(col)
        return Pixels(
            np.array(bands, np.int16).reshape(-1, 10),
            np.array(doy, np.int16),
            np.array(lengths, np.int64),
            np.array(rows, np.int64),
            np.array(cols, np.int64),
            {"missing": missing, "masked": 0, "clipped": 0},
        )


def make_scene(seed: int = 0, days: int = 4, height: int = 6, width: int = 8, gaps: float = 0.3) -> Scene:
    """A scene of 2019 with gaps; the bands of 20 m are alike in every 2 x 2 pixels. Height and width are even."""
    random = np.random.default_rng(seed)
    values = random.integers(1, 9000, (days, 10, height, width)).astype(np.uint16)
    for band in COARSE:
        values[:, band] = np.kron(values[:, band, ::2, ::2], np.ones((2, 2), np.uint16))
    missing = np.kron(random.random((days, height // 2, width // 2)) < gaps, np.ones((2, 2))) > 0
    values[np.broadcast_to(missing[:, None], values.shape)] = 0
    numbers = np.sort(random.choice(np.arange(1, 365), days, replace=False))
    return Scene(values, tuple(date.fromordinal(date(2018, 12, 31).toordinal() + int(n)) for n in numbers))


def write_tif(path: Path, values: np.ndarray, transform: Affine = ORIGIN, crs=UTM, names=None, tags=None, **profile):
    """A GeoTIFF (or another raster) of values (n, h, w)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scales, offsets = profile.pop("scales", None), profile.pop("offsets", None)
    count, height, width = values.shape
    profile = {"driver": "GTiff", "dtype": values.dtype, "crs": crs, "transform": transform, **profile}
    with rasterio.open(path, "w", count=count, height=height, width=width, **profile) as file:
        file.write(values)
        if names:
            file.descriptions = names
        if tags:
            file.update_tags(**tags)
        if scales:
            file.scales, file.offsets = scales, offsets
    return path


def write_dated(folder: Path, scene: Scene, names=CODES, **options) -> dict:
    """Form (a): a GeoTIFF a date."""
    for day, values in zip(scene.dates, scene.values, strict=True):
        write_tif(folder / f"S2_{day}.tif", values, scene.transform, names=names, **options)
    return {}


def write_parts(folder: Path, scene: Scene) -> dict:
    """Form (b): every date in parts of 4 columns and 3 rows, those without a valid pixel left out."""
    height, width = scene.values.shape[2:]
    for day, values in zip(scene.dates, scene.values, strict=True):
        for row in range(0, height, 3):
            for col in range(0, width, 4):
                part = values[:, row : row + 3, col : col + 4]
                if part.any() or (row, col) == (0, 0) or row + 3 >= height and col + 4 >= width:
                    place = scene.transform @ Affine.translation(col, row)
                    write_tif(folder / f"x_{day:%Y%m%d}-{row:010d}-{col:010d}.tif", part, place, names=CODES)
    return {}


def write_safe(folder: Path, scene: Scene) -> dict:
    """Form (c), as a product: JPEG 2000, R10m and R20m, the 10 m bands in 20 m as well, and a preview."""
    for day, values in zip(scene.dates, scene.values, strict=True):
        images = (
            folder / f"S2A_MSIL2A_{day:%Y%m%d}T173911_N0212_R098_T14SPH_20230101T000000.SAFE/GRANULE/L2A_X/IMG_DATA"
        )
        start = f"T14SPH_{day:%Y%m%d}T173911"
        for band, code in enumerate(LONG_CODES):
            for size in (10, 20):
                if size == 10 and band in COARSE:
                    continue
                plane = values[band : band + 1] if size == 10 else values[band : band + 1, ::2, ::2]
                write_tif(
                    images / f"R{size}m" / f"{start}_{code}_{size}m.jp2",
                    np.ascontiguousarray(plane),
                    scene.transform @ Affine.scale(size / 10),
                    driver="JP2OpenJPEG",
                    QUALITY="100",
                    REVERSIBLE="YES",
                )
        write_tif(images / "R10m" / f"{start}_TCI_10m.jp2", values[:3], scene.transform, driver="JP2OpenJPEG")
    return {}


def write_stac(folder: Path, scene: Scene) -> dict:
    """Form (c), as downloaded: a folder a date, a GeoTIFF a band with the names of earth-search."""
    for day, values in zip(scene.dates, scene.values, strict=True):
        for band, name in enumerate(STAC_NAMES):
            coarse = 2 if band in COARSE else 1
            write_tif(
                folder / f"{day}" / f"{name}.tif",
                values[band : band + 1, ::coarse, ::coarse],
                scene.transform @ Affine.scale(coarse),
                nodata=0,
            )
    return {}


def write_flat(folder: Path, scene: Scene) -> dict:
    """Form (c), all in one folder."""
    for day, values in zip(scene.dates, scene.values, strict=True):
        for band, code in enumerate(LONG_CODES):
            write_tif(folder / f"S2A_14SPH_{day:%Y%m%d}_{code}.tif", values[band : band + 1], scene.transform)
    return {}


def write_stack(folder: Path, scene: Scene) -> dict:
    """Form (d): B2, B2_1, …, with bands of others between, and dates given."""
    extra = np.ones((1, *scene.values.shape[2:]), np.uint16)
    values = np.concatenate([np.concatenate([extra, image, extra]) for image in scene.values] + [extra])
    names = [
        name + (f"_{t}" if t else "") for t in range(len(scene.dates)) for name in ("VV", *CODES, "temperature_2m")
    ] + ["slope"]
    write_tif(folder / "98-togo_2019-02-06_2020-02-01.tif", values, scene.transform, names=names)
    return {"dates": ",".join(map(str, scene.dates))}


def write_dated_stack(folder: Path, scene: Scene) -> dict:
    """Form (d): the dates in the names of the bands."""
    names = [f"{day:%Y%m%d}T003911_20190101T174522_T14SPH_{code}" for day in scene.dates for code in CODES]
    names = [name.replace("T003911", "") for name in names]
    write_tif(folder / "stack.tif", scene.values.reshape(-1, *scene.values.shape[2:]), scene.transform, names=names)
    return {}


def cube(scene: Scene, by_band: bool) -> xarray.Dataset:
    """Form (e): a variable a band, or one variable with a band axis."""
    t, (_, _, height, width) = scene.transform, scene.values.shape
    coords = {
        "time": np.array(scene.dates, "datetime64[ns]"),
        "y": t.f + t.e * (np.arange(height) + 0.5),
        "x": t.c + t.a * (np.arange(width) + 0.5),
        "spatial_ref": ((), 0, {"crs_wkt": rasterio.crs.CRS.from_user_input(UTM).to_wkt()}),
    }
    if by_band:
        coords["band"] = list(LONG_CODES)
        return xarray.Dataset({"reflectance": (("time", "band", "y", "x"), scene.values)}, coords)
    planes = {code: (("time", "y", "x"), scene.values[:, band]) for band, code in enumerate(LONG_CODES)}
    planes["elevation"] = (("y", "x"), np.ones((height, width), np.float32))
    return xarray.Dataset(planes, coords)


def write_netcdf(folder: Path, scene: Scene) -> dict:
    folder.mkdir(parents=True, exist_ok=True)
    cube(scene, by_band=False).to_netcdf(folder / "cube.nc", engine="h5netcdf")
    return {}


def write_netcdf_with_band_axis(folder: Path, scene: Scene) -> dict:
    folder.mkdir(parents=True, exist_ok=True)
    cube(scene, by_band=True).transpose("band", "y", "x", "time").to_netcdf(folder / "cube.nc", engine="h5netcdf")
    return {}


def write_zarr(folder: Path, scene: Scene) -> dict:
    folder.mkdir(parents=True, exist_ok=True)
    cube(scene, by_band=False).to_zarr(folder / "cube.zarr")
    return {}


FORMS: dict[str, Callable[[Path, Scene], dict]] = {
    "a GeoTIFF a date": write_dated,
    "Earth Engine parts": write_parts,
    "a SAFE product a date": write_safe,
    "a STAC download a date": write_stac,
    "a file a band in one folder": write_flat,
    "a stack with numbers": write_stack,
    "a stack with dates": write_dated_stack,
    "NetCDF with a variable a band": write_netcdf,
    "NetCDF with a band axis": write_netcdf_with_band_axis,
    "Zarr": write_zarr,
}


def write_item(folder: Path, properties: dict, assets: dict | None = None, name: str = "item.json") -> None:
    """A STAC item beside the files."""
    folder.mkdir(parents=True, exist_ok=True)
    item = {"type": "Feature", "id": "x", "properties": properties, "assets": assets or {}}
    (folder / name).write_text(json.dumps(item))


def same(found: Pixels, expected: Pixels) -> None:
    """Assert that all is equal, the types too."""
    for name in Pixels._fields[:-1]:
        mine, theirs = getattr(found, name), getattr(expected, name)
        assert mine.dtype == theirs.dtype, name
        np.testing.assert_array_equal(mine, theirs, err_msg=name)
