"""The files of a scene: images, label raster, confidence, truth and polygons, each written window by window.

Every file is one task, or a group of images one, so that tasks may run in any order and in any process: the bytes
are the same. Memory does not grow with the scene: at most a window of `SIDE` x `SIDE` pixels and `GROUP` passes.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

from datasets.optional import need
from datasets.simulation.labels import CELL, CRS, Window, cells_of, label_window
from datasets.simulation.landscape import ScenePlan, frame, section, sections_in
from datasets.simulation.legend import COVERS, palette
from datasets.simulation.render import ground_of, render, transform_of, windows
from datasets.simulation.sites import SITES
from datasets.simulation.sky import PIXEL

BANDS = ("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12", "SCL")
SIDE = 256  # pixels of a window and of a block of the files
GROUP = 8  # passes rendered at once
CACHE = 64  # MB of blocks that GDAL keeps


class Task(NamedTuple):
    """One call of `write`, with the number of files that it makes."""

    write: Callable
    plan: ScenePlan
    folder: Path
    numbers: tuple[int, ...]  # of the passes, for images

    def files(self) -> int:
        return len(self.numbers) or 1


def tasks_of(plan: ScenePlan, folder: Path) -> list[Task]:
    """What makes a scene in `folder`, which exists."""
    passes = range(len(plan.weather.days))
    groups = [tuple(passes[start : start + GROUP]) for start in range(0, len(passes), GROUP)]
    rest = [Task(write, plan, folder, ()) for write in (write_labels, write_truth, write_polygons)]
    return [Task(write_images, plan, folder, group) for group in groups] + rest


def run_task(task: Task) -> int:
    """Do a task; returns the number of files made."""
    with need("rasterio", "a scene").Env(GDAL_CACHEMAX=CACHE):
        task.write(task)
    return task.files()


def image_name(plan: ScenePlan, number: int) -> str:
    """S2_2019-01-03.tif."""
    return f"S2_{date(plan.year, 1, 1) + timedelta(days=int(plan.weather.days[number]) - 1)}.tif"


def write_images(task: Task) -> None:
    """images/S2_*.tif: ten bands as uint16 digital numbers and the scene classes, 0 outside the swath."""
    plan, folder = task.plan, task.folder / "images"
    folder.mkdir(exist_ok=True)
    files = [_open_image(folder, plan, number) for number in task.numbers]
    try:
        for window in windows(plan, SIDE):
            for file, bands in zip(files, render(plan, window, list(task.numbers)), strict=True):
                file.write(bands, window=_rasterio_window(window))
    finally:
        for file in files:
            file.close()


def write_labels(task: Task) -> None:
    """cdl.tif and confidence.tif, on the grid of the CDL."""
    cells = cells_of(task.plan)
    affine = need("affine", "a scene").Affine(CELL, 0, cells.left, 0, -CELL, cells.top)
    grid = dict(crs=CRS, transform=affine, height=cells.height, width=cells.width, dtype="uint8", count=1)
    stored, rasterio = _creation(max(cells.height, cells.width)), need("rasterio", "a scene")
    with (
        rasterio.open(task.folder / "cdl.tif", "w", **stored, **grid, nodata=0) as codes,
        rasterio.open(task.folder / "confidence.tif", "w", **stored, **grid) as confidence,
    ):
        codes.write_colormap(1, palette())
        confidence.set_band_description(1, "confidence, per cent")
        for row in range(0, cells.height, SIDE):
            for column in range(0, cells.width, SIDE):
                window = Window(row, column, min(SIDE, cells.height - row), min(SIDE, cells.width - column))
                for file, values in zip((codes, confidence), label_window(task.plan, window), strict=True):
                    file.write(values, 1, window=_rasterio_window(window))


def write_truth(task: Task) -> None:
    """truth.tif: the code of what grows at the centre of each pixel."""
    plan = task.plan
    with need("rasterio", "a scene").open(
        task.folder / "truth.tif", "w", **_creation(plan.size), **_image_grid(plan), dtype="uint8", count=1, nodata=0
    ) as file:
        file.write_colormap(1, palette())
        for window in windows(plan, SIDE):
            ground = ground_of(plan, window, with_fields=False)
            file.write(ground.code[ground.number], 1, window=_rasterio_window(window))


def write_polygons(task: Task) -> None:
    """fields.gpkg: what covers the scene, with kind, crop and code, a row of sections at a time."""
    plan, path = task.plan, task.folder / "fields.gpkg"
    pyogrio = need("pyogrio", "a scene")
    at, side = frame(SITES[plan.site]), plan.size * PIXEL
    bounds = (at.left, at.top - side, at.left + side, at.top)
    places = sections_in(plan, bounds)
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": f"{plan.year}-12-31T00:00:00.000Z"})  # same bytes every day
    try:
        for lower in sorted({j for _, j in places}):
            table = _polygon_table(plan, [place for place in places if place[1] == lower], bounds)
            if len(table):
                mode = "a" if path.exists() else "w"
                table.to_file(path, layer="fields", driver="GPKG", engine="pyogrio", mode=mode, promote_to_multi=True)
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})


def _polygon_table(plan: ScenePlan, places: list[tuple[int, int]], bounds: tuple[float, float, float, float]):
    """GeoDataFrame of the polygons of these sections within bounds; what covers less than a pixel is left out."""
    shapely, geopandas = need("shapely", "a scene"), need("geopandas", "a scene")
    rows = []
    for i, j in places:
        part = section(plan, i, j)
        for number, (kind, polygon, code) in enumerate(zip(part.kinds, part.polygons, part.code, strict=True)):
            rows.append((f"{i}.{j}.{number}", kind, COVERS[code][0], int(code), polygon))
    columns = ["field", "kind", "crop", "code", "geometry"]
    table = geopandas.GeoDataFrame(rows, columns=columns, crs=frame(SITES[plan.site]).epsg)
    table["geometry"] = shapely.intersection(table.geometry.values, shapely.box(*bounds))
    return table[table.geometry.area >= PIXEL**2]


def _open_image(folder: Path, plan: ScenePlan, number: int):
    file = need("rasterio", "a scene").open(
        folder / image_name(plan, number), "w", **_creation(plan.size), **_image_grid(plan), dtype="uint16",
        count=len(BANDS), nodata=0, predictor=2, interleave="band",
    )  # fmt: skip
    file.descriptions = BANDS
    file.update_tags(SOURCE=f"simulated, {SITES[plan.site].name} {plan.year}, seed {plan.seed}")
    return file


def _creation(side: int) -> dict:
    """How every GeoTIFF is stored; blocks are no larger than a raster of `side` pixels needs, in steps of 16."""
    block = min(SIDE, -(-side // 16) * 16)
    return dict(driver="GTiff", tiled=True, blockxsize=block, blockysize=block, compress="deflate", BIGTIFF="IF_SAFER")


def _image_grid(plan: ScenePlan) -> dict:
    whole = Window(0, 0, plan.size, plan.size)
    crs = f"EPSG:{frame(SITES[plan.site]).epsg}"
    return dict(crs=crs, transform=transform_of(plan, whole), height=plan.size, width=plan.size)


def _rasterio_window(window: Window):
    return need("rasterio.windows", "a scene").Window(window.column, window.row, window.width, window.height)
