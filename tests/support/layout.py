"""Small data roots for tests, in the published layout and in ours."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from datasets.bands import BANDS
from datasets.classmap import CDL20, write_classmap
from datasets.store import Store, StoreWriter

SITES = ("Adams", "Harvey", "Haskell")


def make_series(generator: np.random.Generator, length: int | None = None, width: int = 12) -> np.ndarray:
    """A (T, width) array as published: bands, what is ignored, day of year last."""
    length = length or int(generator.integers(3, 12))
    array = generator.uniform(0, 1, (length, width))
    array[:, : len(BANDS)] = generator.integers(0, 16000, (length, len(BANDS)))[:, : array.shape[1]]
    array[:, -1] = np.sort(generator.integers(1, 367, length))
    return array


def object_array(items: list) -> np.ndarray:
    """(N,) object array, also where all items have one shape."""
    array = np.empty(len(items), dtype=object)
    for i, item in enumerate(items):
        array[i] = item
    return array


def save_labelled(path: Path, series: list[np.ndarray], labels: list[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.stack([object_array(series), object_array(labels)]), allow_pickle=True)


def save_unlabelled(path: Path, series: list[np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, object_array(series), allow_pickle=True)


def save_table(path: Path, series: list[np.ndarray], labels: list[int], *, empty_first: bool = True) -> pd.DataFrame:
    """A split's table as published, with a row without observations that readers must skip."""
    count = len(series)
    regions = [SITES[i % len(SITES)] for i in range(count)]
    table = pd.DataFrame(
        {
            "id": np.arange(1000, 1000 + count),
            "code": np.arange(count) % 7 + 1,
            "path": [f"data\\US\\2019\\{regions[i]}\\{1000 + i}.csv" for i in range(count)],
            "sequencelength": [len(array) for array in series],
            "classid": labels,
            "classname": [" Grass/Pasture"] * count,
            "region": regions,
            "mode": [path.stem] * count,
        }
    )
    if empty_first:
        skipped = table.iloc[:1].assign(id=999, path="data\\US\\2019\\Adams\\999.csv", sequencelength=0)
        table = pd.concat([skipped, table], ignore_index=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False)
    return table


def save_series_csv(path: Path, array: np.ndarray, *, weight: bool = False) -> None:
    columns = {name: array[:, i].astype(int) for i, name in enumerate(BANDS)}
    if weight:
        columns["weight"] = array[:, 10]
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(columns | {"doy": array[:, -1].astype(int)}).to_csv(path, index=False)


def write_store(path: Path, labels: list[int] | None, count: int = 0, seed: int = 0) -> Store:
    """A store of series with these labels and the sites in turn, or of `count` unlabelled series."""
    generator = np.random.default_rng(seed)
    count = count if labels is None else len(labels)
    series = [make_series(generator) for _ in range(count)]
    return store_of(path, series, labels)


def store_of(path: Path, series: list[np.ndarray], labels: list[int] | None) -> Store:
    """A store of these arrays; with labels, it has the sites in turn."""
    index = None if labels is None else {"label": labels, "region": [SITES[i % len(SITES)] for i in range(len(series))]}
    with StoreWriter(path) as writer:
        writer.append(
            np.concatenate([array[:, :10] for array in series]),
            np.concatenate([array[:, -1] for array in series]),
            [len(array) for array in series],
            index,
        )
    return Store.open(path)


def without_checksums(path: Path) -> Path:
    """The store at a path as an older version wrote it, or another program."""
    meta = json.loads((path / "meta.json").read_text())
    del meta["checksums"], meta["absurd"]
    (path / "meta.json").write_text(json.dumps(meta))
    return path


def same_series(store: Store, series: list[np.ndarray]) -> bool:
    """Whether the store holds these arrays' bands and days of year, in this order."""
    return len(store) == len(series) and all(
        np.array_equal(bands, array[:, :10]) and np.array_equal(doy, array[:, -1])
        for (bands, doy), array in zip(map(store.series, range(len(store))), series, strict=True)
    )


# ---- whole data roots, with series shorter and longer than the 20 observations that the scripts' tests ask for

COUNTS = {"train": 90, "valid": 20, "eval": 30}
CLASSES = 15  # of the 21 that the class map has


def long_series(labels: list[int], seed: int) -> list[np.ndarray]:
    """Series whose spectra tell their class."""
    generator = np.random.default_rng(seed)
    spectra = np.random.default_rng(0).integers(500, 9000, (CLASSES, len(BANDS)))
    series = [make_series(generator, int(generator.integers(5, 36))) for _ in labels]
    for array, label in zip(series, labels, strict=True):
        array[:, : len(BANDS)] = spectra[label] + generator.integers(0, 1000, (len(array), len(BANDS)))
    return series


def write_long_store(path: Path, count: int, seed: int, *, labelled: bool = True) -> None:
    labels = [i % CLASSES for i in range(count)]
    store_of(path, long_series(labels, seed), labels if labelled else None)


def write_root(root: Path) -> Path:
    """A root of stores: all splits of 2019 and the eval split of 2020."""
    write_long_store(root / "2019" / "unlabelled", 60, seed=0, labelled=False)
    for year in (2019, 2020):
        for split, count in COUNTS.items():
            if year == 2019 or split == "eval":
                write_long_store(root / str(year) / split, count, seed=year + count)
    write_classmap(root / "classmapping20.csv", CDL20)
    return root


def write_published_root(root: Path) -> Path:
    """A root as published, its files drawn for -n 50 and seed 111."""
    folder = root / "2019"
    for split, count, drawn in (("train", 45, 45), ("valid", 5, 5), ("eval", 30, 5)):
        labels = [i % CLASSES for i in range(count)]
        series = long_series(labels, seed=count)
        save_labelled(folder / "npy" / f"{split.capitalize()}_R{drawn}_Seed111_Class20.npy", series, labels)
        save_table(folder / f"{split}.csv", series, labels)
    save_unlabelled(folder / "npy" / "Unsupervised_mini_All.npy", long_series([0] * 60, seed=0))
    write_classmap(root / "classmapping20.csv", CDL20)
    return root
