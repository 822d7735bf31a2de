"""The kinds of files that we read: how small ones are made, and how they are read as our programs read them."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import torch

from datasets.classmap import CDL20, ClassMap, read_classmap, write_classmap
from datasets.errors import DataError
from datasets.readers.published import folder_store, npy_store, table_store
from datasets.readers.table import Columns, Dates, open_table
from datasets.readers.table_rows import series as table_series
from datasets.store import Store
from models import build_model
from tests.support import layout, tables
from tests.support.classifiers import small_classifier
from tscls.classifier import Classifier, load_classifier
from utils.checkpoint import load_checkpoint, save_checkpoint


class Kind(NamedTuple):
    """`build` fills a folder with files, by a seed; `read` gives what our programs take from them.

    is_verified: the files have checksums, so that no change stays unseen; needs: libraries beyond the core; damaged:
    the end of the names of the files that are damaged.
    """

    name: str
    build: Callable[[Path, int], None]
    read: Callable[[Path], object]
    is_verified: bool
    needs: tuple[str, ...] = ()
    damaged: str = ""


# ---- stores


def _build_store(folder: Path, seed: int) -> None:
    layout.write_store(folder / "store", [0, 1, 5, 20, 3, 2, 7, 7], seed=seed)


def _build_old_store(folder: Path, seed: int) -> None:
    _build_store(folder, seed)
    layout.without_checksums(folder / "store")


def _read_store(folder: Path) -> object:
    store = Store.open(folder / "store")
    store.validate(21)
    meta = {name: value for name, value in store.meta.items() if name != "checksums"}
    return store.bands, store.doy, store.offsets, store.index, meta


# ---- checkpoints


def _checkpoint(seed: int) -> dict:
    torch.manual_seed(seed)
    state = {f"encoder_q.layer{i}.weight": torch.randn(3, 4 + i) for i in range(4)}
    training = {"optimizer": {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.randn(5)}}, "lr": 1e-3 + seed}}
    return {"model_state": state, "epoch": seed, "val_loss_min": 0.5, "not_improved_count": 0, "training": training}


def _build_checkpoint(folder: Path, seed: int) -> None:
    folder.mkdir()
    save_checkpoint(folder / "model.pth", _checkpoint(seed))


def _build_old_checkpoint(folder: Path, seed: int) -> None:
    folder.mkdir()
    torch.save(_checkpoint(seed), folder / "model.pth")


def _read_checkpoint(folder: Path) -> object:
    return load_checkpoint(folder / "model.pth")


def _build_classifier(folder: Path, seed: int) -> None:
    folder.mkdir()
    torch.manual_seed(seed)
    network = build_model("lstm", hidden_dims=4, num_layers=2)
    Classifier(network, CDL20, 12, "rc", draws=0, seed=seed).save(folder / "model_best.pth")


def _build_skops(folder: Path, seed: int) -> None:
    folder.mkdir()
    classifier = small_classifier("rf", seed=seed)
    classifier.model.classifier.set_params(n_estimators=2)
    generator = np.random.default_rng(seed)
    classifier.model.fit(generator.normal(size=(40, 12, 10)).astype(np.float32), np.repeat([0, 3, 7, 20], 10))
    classifier.save(folder / "model_best.skops")


def _read_classifier(folder: Path) -> object:
    loaded = load_classifier(folder, "cpu")
    if loaded.is_network:
        weights = loaded.model.state_dict()
    else:
        x = np.random.default_rng(9).normal(size=(20, 12, 10)).astype(np.float32)
        weights = loaded.model.predict_proba(x, 21)
    return weights, loaded.way, loaded.draws, loaded.seed, loaded.classmap


# ---- the published layout


def _series(seed: int, labels: int = 9) -> tuple[list[np.ndarray], list[int]]:
    generator = np.random.default_rng(seed)
    return [layout.make_series(generator) for _ in range(labels)], generator.integers(0, 21, labels).tolist()


def _build_npy(folder: Path, seed: int) -> None:
    layout.save_labelled(folder / "2019/npy/Train_All.npy", *_series(seed))
    if seed % 2:
        return
    series, _ = _series(seed + 10)
    layout.save_unlabelled(folder / "2019/npy/Unsupervised_All.npy", [array.astype(np.float32) for array in series])


def _read_npy(folder: Path) -> object:
    stores = [npy_store(folder / f"2019/npy/{name}_All.npy") for name in ("Train", "Unsupervised")]
    if stores[0].labels is None:
        raise DataError("no labels, as datasets.catalog says")
    stores[0].check_labels(21)
    return [(store.bands, store.doy, store.offsets, store.labels) for store in stores]


def _build_csv(folder: Path, seed: int) -> None:
    series, labels = _series(seed, 2)
    rows = layout.save_table(folder / "2019/train.csv", series, labels)
    for array, path in zip(series, rows["path"][1:], strict=True):
        layout.save_series_csv(folder / "2019" / "/".join(path.split("\\")[-2:]), array)
    for i, array in enumerate(series[:1]):
        layout.save_series_csv(folder / f"2019/Unsupervised/{i}.csv", array)


def _read_csv(folder: Path) -> object:
    stores = [table_store(folder / "2019/train.csv", 20), folder_store(folder / "2019/Unsupervised")]
    return [store and (store.bands, store.doy, store.offsets, store.index) for store in stores]


def _build_classmap(folder: Path, seed: int) -> None:
    folder.mkdir()
    entries = [(f"Class {i + seed}", 7 * i + 1 + seed, (i, 2 * i, 250 - i)) for i in range(12)]
    write_classmap(folder / "classmapping12.csv", ClassMap.of(entries))


def _read_classmap(folder: Path) -> object:
    return read_classmap(folder / "classmapping12.csv").as_dict()


# ---- results


def _build_run(folder: Path, seed: int) -> None:
    folder.mkdir()
    arguments = {"model": "stnet", "seed": seed, "num": 300, "years": [2019], "pretrained": None}
    (folder / "args.json").write_text(json.dumps(arguments, indent=2))
    scores = "0.8,0.7,0.6,0.75,0.5,10.0,100.0,5000"
    (folder / "testlog.csv").write_text(
        "year,regions,oa,kappa,macro_f1,weighted_f1,loss,train_seconds,series_per_s,parameters\n" + f"2019,,{scores}\n"
    )
    matrix = np.random.default_rng(seed).integers(0, 9, (3, 3))
    np.save(folder / "test_conf_mat.npy", matrix)
    (folder / "classes.json").write_text(json.dumps(["a", "b", "c"]))


def _read_run(folder: Path) -> object:
    from utils import report
    from utils.results.runs import read_run

    run = read_run(folder)
    with mock.patch.object(report, "_pictures", lambda: False):
        written = [path.read_text() for path in report.write_run_report(folder)]
    return run.arguments, run.tests, written


def _build_parts(folder: Path, seed: int) -> None:
    from mapping.parts import Parts
    from mapping.windows import Part

    folder.mkdir()
    parts = Parts(folder / "map.tif")
    parts.start({"model": {"sha256": str(seed)}})
    values = np.random.default_rng(seed).integers(0, 9, (2, 4, 5)).astype(np.uint16)
    parts.write(0, Part(values, None, {"outside": seed, "few": 2, "classified": 17}))


def _read_parts(folder: Path) -> object:
    from mapping.parts import Parts

    parts = Parts(folder / "map.tif")
    parts.start({"model": {"sha256": "0"}})
    part = parts.read(0)
    if part is None:
        raise DataError("a part that is missing, and computed again")
    return tuple(part)


# ---- tables


def _observed(seed: int) -> list[tables.Observed]:
    return tables.some_observed(5, [date(2019, 3, 1), date(2019, 5, 3), date(2019, 9, 30)], seed)


def _build_table(name: str) -> Callable[[Path, int], None]:
    def build(folder: Path, seed: int) -> None:
        folder.mkdir()
        tables.save(tables.long_table(_observed(seed)), folder / name)

    return build


def _read_table(name: str) -> Callable[[Path], object]:
    def read(folder: Path) -> object:
        columns = Columns("id", "crop", None, None, None, None, None)
        table = open_table(folder / name, columns, Dates(None, None, None))
        return [tuple(piece) for piece in table_series(table)]

    return read


# ---- images and polygons


def _build_tif(driver: str, name: str) -> Callable[[Path, int], None]:
    def build(folder: Path, seed: int) -> None:
        from tests.support.image_files import CODES, make_scene, write_tif

        scene = make_scene(seed, days=1, height=16, width=16)
        options = {"QUALITY": "100", "REVERSIBLE": "YES"} if driver == "JP2OpenJPEG" else {"compress": "deflate"}
        options = {} if name == "plain.tif" else options
        write_tif(folder / name, scene.values[0], scene.transform, names=CODES, driver=driver, **options)

    return build


def _read_tif(name: str) -> Callable[[Path], object]:
    def read(folder: Path) -> object:
        from datasets.imagery.raster import opened, read_header

        header = read_header(folder / name, folder)
        with opened(folder / name) as file:
            values = file.read() if file.height * file.width * file.count < 1 << 20 else None
        return values, header.grid.crs.to_wkt(), tuple(header.grid.transform), header[2:6]

    return read


def _build_vrt(folder: Path, seed: int) -> None:
    from rasterio.shutil import copy

    _build_tif("GTiff", "image.tif")(folder, seed)
    copy(folder / "image.tif", folder / "image.vrt", driver="VRT")


def _build_cube(folder: Path, seed: int) -> None:
    from tests.support.image_files import cube, make_scene

    folder.mkdir()
    cube(make_scene(seed, days=2), by_band=True).to_netcdf(folder / "cube.nc", engine="h5netcdf")


def _read_cube(folder: Path) -> object:
    from rasterio.windows import Window

    from datasets.images import open_images
    from datasets.season import Season

    images = open_images(folder / "cube.nc", season=Season.of(2019))
    return tuple(images.read(Window(0, 0, min(images.grid.width, 64), min(images.grid.height, 64))))


def _build_vector(name: str) -> Callable[[Path, int], None]:
    def build(folder: Path, seed: int) -> None:
        import geopandas
        from shapely.geometry import box

        folder.mkdir()
        shapes = [box(i, seed, i + 0.5, seed + 1) for i in range(5)]
        frame = geopandas.GeoDataFrame({"crop": [3, 4, 5, 6, 7]}, geometry=shapes, crs="EPSG:32614")
        frame.to_parquet(folder / name) if name.endswith("parquet") else frame.to_file(folder / name)

    return build


def _read_vector(name: str) -> Callable[[Path], object]:
    def read(folder: Path) -> object:
        from datasets.preparation.vectors import read_features

        features, left_out = read_features(folder / name, "crop")
        return features.shapes.to_wkt(), features.labels, left_out

    return read


def _build_item(folder: Path, seed: int) -> None:
    from tests.support.image_files import write_item

    _build_tif("GTiff", "S2_2019-05-03.tif")(folder, seed)
    properties = {"datetime": "2019-05-03T10:00:00Z", "s2:processing_baseline": "04.00"}
    assets = {"all": {"href": "S2_2019-05-03.tif", "raster:bands": [{"scale": 0.0001, "offset": -0.1}]}}
    write_item(folder, properties, assets)


def _read_item(folder: Path) -> object:
    from rasterio.windows import Window

    from datasets.imagery import metadata
    from datasets.images import open_images
    from datasets.season import Season

    metadata._items_in.cache_clear()
    images = open_images(folder, season=Season.of(2019))
    return tuple(images.read(Window(0, 0, 16, 16)))


RASTERIO, GEO, ARROW = ("rasterio",), ("geopandas", "pyogrio"), ("pyarrow",)
KINDS = {
    kind.name: kind
    for kind in (
        Kind("store", _build_store, _read_store, True),
        Kind("store without checksums", _build_old_store, _read_store, False),
        Kind("checkpoint", _build_checkpoint, _read_checkpoint, True),
        Kind("checkpoint without digests", _build_old_checkpoint, _read_checkpoint, False),
        Kind("classifier .pth", _build_classifier, _read_classifier, True),
        Kind("classifier .skops", _build_skops, _read_classifier, True, ("skops",)),
        Kind("published .npy", _build_npy, _read_npy, False),
        Kind("published CSV", _build_csv, _read_csv, False),
        Kind("class map", _build_classmap, _read_classmap, False),
        Kind("run folder", _build_run, _read_run, False),
        Kind("map part", _build_parts, _read_parts, True),
        Kind("table .csv", _build_table("t.csv"), _read_table("t.csv"), False),
        Kind("table .csv.gz", _build_table("t.csv.gz"), _read_table("t.csv.gz"), True),
        Kind("table .parquet", _build_table("t.parquet"), _read_table("t.parquet"), False, ARROW),
        Kind("GeoTIFF", _build_tif("GTiff", "plain.tif"), _read_tif("plain.tif"), False, RASTERIO),
        Kind("GeoTIFF, compressed", _build_tif("GTiff", "image.tif"), _read_tif("image.tif"), False, RASTERIO),
        Kind("JPEG 2000", _build_tif("JP2OpenJPEG", "image.jp2"), _read_tif("image.jp2"), False, RASTERIO),
        Kind("virtual raster", _build_vrt, _read_tif("image.vrt"), False, RASTERIO, ".vrt"),
        Kind("NetCDF", _build_cube, _read_cube, False, (*RASTERIO, "xarray", "h5netcdf")),
        Kind("STAC item", _build_item, _read_item, False, RASTERIO, ".json"),
        Kind("GeoPackage", _build_vector("a.gpkg"), _read_vector("a.gpkg"), False, GEO),
        Kind("GeoJSON", _build_vector("a.geojson"), _read_vector("a.geojson"), False, GEO),
        Kind("Shapefile", _build_vector("a.shp"), _read_vector("a.shp"), False, GEO),
        Kind("GeoParquet", _build_vector("a.parquet"), _read_vector("a.parquet"), False, (*GEO, *ARROW)),
    )
}
