"""Finding data below a data root, in either layout.

Stores:     ROOT/classmapping20.csv, ROOT/<year>/{train,valid,eval,unlabelled}/, each a store.
Published:  ROOT/classmapping20.csv, ROOT/<year>/npy/*.npy or ROOT/<year>/*.csv (datasets/readers/published.py).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from datasets import budget, sites
from datasets.classmap import ClassMap, read_classmap
from datasets.errors import DataError
from datasets.location import locate
from datasets.readers import published
from datasets.screening import screened
from datasets.store import SeriesSet, Store

logger = logging.getLogger(__name__)


SPLITS = ("unlabelled", *budget.LABELLED)


class Splits(NamedTuple):
    """The labelled series of a run."""

    train: SeriesSet
    valid: SeriesSet
    eval: SeriesSet


class Selection(NamedTuple):
    """Which labelled series of a year: a budget of `num`, drawn by `seed`.

    `use_all` lifts the budget. `regions` keeps the series of these sites only. `leave_out` removes a site from train
    and valid and keeps only this site in eval. Both apply before the draw. `nclasses` does not count "Other".
    `skip_bad` leaves out series that cannot be used (datasets/screening.py), which are an error otherwise.
    """

    num: int = 3000
    nclasses: int = 20
    seed: int = 111
    use_all: bool = False
    regions: Sequence[str] | None = None
    leave_out: str | None = None
    skip_bad: bool = False

    @property
    def is_filtered(self) -> bool:
        """Whether some sites are selected."""
        return self.regions is not None or self.leave_out is not None


DEFAULT_SELECTION = Selection()  # the defaults of the scripts


class _Found(NamedTuple):
    """A split's series before the budget; `is_exact` if the file was made for this budget and seed."""

    series: SeriesSet
    is_exact: bool


def open_labelled(datapath: str | Path, year: int | str, selection: Selection = DEFAULT_SELECTION) -> Splits:
    """Train, valid and eval series of a year.

    A published file made for this budget and seed is used as it is. Otherwise train is drawn with a limit for each
    class and valid in natural proportions, by the seed, from the largest pool available. Eval is always whole.

    Raises:
        DataError: a split is missing, or the budget is larger than the pool.
    """
    folder, seed = _year_folder(datapath, year), selection.seed
    counts = None if selection.use_all else budget.split_budget(selection.num)
    train, valid, evaluation = (_find_labelled(folder, split, selection) for split in budget.LABELLED)
    chosen = Splits(train.series, valid.series, evaluation.series)
    if selection.is_filtered:
        chosen = Splits(*sites.restrict(chosen, selection.regions, selection.leave_out))
    if counts is not None and not train.is_exact:
        limit = budget.class_limit(selection.num, selection.nclasses + 1)
        drawn = budget.draw_limited(chosen.train.labels, counts[0], limit, seed, where=f"{folder}: train")
        chosen = chosen._replace(train=chosen.train.take(drawn))
    if counts is not None and not valid.is_exact:
        drawn = budget.draw_natural(len(chosen.valid), counts[1], seed, "valid", where=f"{folder}: valid")
        chosen = chosen._replace(valid=chosen.valid.take(drawn))
    for split, series in zip(budget.LABELLED, chosen, strict=True):
        _log_source(split, series)
    return chosen


def open_eval(datapath: str | Path, year: int | str, selection: Selection = DEFAULT_SELECTION) -> SeriesSet:
    """The whole eval split of a year, as `open_labelled` finds it; train and valid may be missing."""
    series = _find_labelled(_year_folder(datapath, year), "eval", selection).series
    if selection.is_filtered:
        (series,) = sites.restrict([series], selection.regions, selection.leave_out)
    _log_source("eval", series)
    return series


def open_unlabelled(
    datapath: str | Path, year: int | str, *, num: int | None = None, seed: int = 111, skip_bad: bool = False
) -> SeriesSet:
    """The unlabelled series of a year: all of them, or `num` drawn by the seed; `skip_bad` as of a Selection."""
    folder = _year_folder(datapath, year)
    series = screened(SeriesSet.whole(_find_unlabelled(folder, skip_bad, check_days=False)), "unlabelled", skip_bad)
    if num is not None:
        series = series.take(budget.draw_natural(len(series), num, seed, "unlabelled", where=f"{folder}: unlabelled"))
    _log_source("unlabelled", series)
    return series


def open_split(
    datapath: str | Path, year: int | str, split: str, nclasses: int = 20, *, skip_bad: bool = False
) -> SeriesSet:
    """Every series of a split of a year, in the order of the files; labels are not needed.

    `split`: one of SPLITS. `nclasses` tells which of the published files. `skip_bad`: without those that a store cannot
    hold.
    """
    folder = _year_folder(datapath, year)
    if split == "unlabelled":
        store = _find_unlabelled(folder, skip_bad)
    elif (folder / split / "meta.json").is_file():
        store = Store.open(folder / split)
    else:
        store = _published_pool(folder, split, nclasses, skip_bad)
    return SeriesSet.whole(store)


def has_split(datapath: str | Path, year: int | str, split: str, nclasses: int = 20) -> bool:
    """Whether a split of a year can be there: a store of its name, or a file that one may be read from."""
    folder, name = _year_folder(datapath, year), split.capitalize()
    if split == "unlabelled":
        return (
            any(folder.glob("unlabelled/meta.json"))
            or any(folder.glob("npy/Unsupervised*.npy"))
            or any(folder.glob("Unsupervised/*.csv"))
        )
    patterns = (f"{split}/meta.json", f"{split}.csv", f"npy/{name}_All.npy", f"npy/{name}_R*_Class{nclasses}.npy")
    return any(any(folder.glob(pattern)) for pattern in patterns)


def open_classmap(datapath: str | Path, nclasses: int = 20) -> ClassMap:
    """The class map of `nclasses` classes, "Other" not counted: ROOT/classmapping<nclasses>.csv."""
    path = _root(datapath) / f"classmapping{nclasses}.csv"
    if not path.exists():
        there = sorted(int(match[1]) for _, match in _matches(path.parent, re.compile(r"classmapping(\d+)\.csv")))
        choice = f"give -c {' or '.join(map(str, there))}, for which there is one" if there else "there is no other"
        raise DataError(f"{path}: no such class map; {choice}, or write it with datasets.classmap.write_classmap")
    classmap = read_classmap(path)
    if classmap.num_classes != nclasses + 1:
        raise DataError(f"{path}: {classmap.num_classes - 1} classes; expected {nclasses}, as its name says")
    return classmap


def _root(datapath: str | Path) -> Path:
    root = locate(datapath)
    if root.is_file():
        raise DataError(f"{root}: a file; give the data folder, which holds <year>/, with --datapath")
    if not root.is_dir():
        raise DataError(f"{root}: no such data folder; give one with --datapath")
    if not any(root.iterdir()):
        raise DataError(f"{root}: an empty folder, no data; fill it (python -m datasets.download, or with your own)")
    return root


def _year_folder(datapath: str | Path, year: int | str) -> Path:
    folder = _root(datapath) / str(year)
    if not folder.is_dir():
        years = sorted(path.name for path in folder.parent.iterdir() if path.is_dir() and path.name.isdecimal())
        raise DataError(f"{folder}: no such year; found {', '.join(years) or 'none'} in {folder.parent}")
    return folder


def _find_labelled(folder: Path, split: str, selection: Selection) -> _Found:
    """A split's series with checked labels; a file made for the selection's budget and seed comes first."""
    wants_exact = not (selection.use_all or selection.is_filtered)
    if (folder / split / "meta.json").is_file():
        found = _Found(SeriesSet.whole(Store.open(folder / split, check_days=False)), is_exact=False)
    elif wants_exact and (file := _exact_file(folder, split, selection)).is_file():
        found = _Found(SeriesSet.whole(published.npy_store(file, skip_bad=selection.skip_bad)), is_exact=True)
    else:
        pool = _published_pool(folder, split, selection.nclasses, selection.skip_bad)
        found = _Found(SeriesSet.whole(pool), is_exact=False)
    store = found.series.store
    if store.labels is None:
        raise DataError(f"{store.source}: no labels; expected a class id for every {split} series")
    store.check_labels(selection.nclasses + 1)
    return found._replace(series=screened(found.series, split, selection.skip_bad))


def _exact_file(folder: Path, split: str, selection: Selection) -> Path:
    """The file made for a budget and seed. The eval file has the count of valid in its name but holds all of eval."""
    from_train, from_valid = budget.split_budget(selection.num)
    count = from_train if split == "train" else from_valid
    return folder / "npy" / f"{split.capitalize()}_R{count}_Seed{selection.seed}_Class{selection.nclasses}.npy"


def _published_pool(folder: Path, split: str, nclasses: int, skip_bad: bool) -> Store:
    """All series of a split: the file of all, else table and series files, else the largest drawn file."""
    name = split.capitalize()
    if (whole := folder / "npy" / f"{name}_All.npy").is_file():
        return published.npy_store(whole, skip_bad=skip_bad)
    table = folder / f"{split}.csv"
    if table.is_file() and (store := published.table_store(table, nclasses, skip_bad=skip_bad)) is not None:
        return store
    pattern = re.compile(rf"{name}_R(\d+)_Seed(\d+)_Class{nclasses}\.npy")
    drawn = [(int(match[1]), -int(match[2]), file) for file, match in _matches(folder / "npy", pattern)]
    if drawn:
        return published.npy_store(max(drawn)[-1], skip_bad=skip_bad)
    raise DataError(
        f"{folder}: no {split} series; expected a store {split}/, npy/{name}_All.npy,"
        f" npy/{name}_R<n>_Seed<seed>_Class{nclasses}.npy, or {split}.csv with its series files"
    )


def _find_unlabelled(folder: Path, skip_bad: bool, *, check_days: bool = True) -> Store:
    if (folder / "unlabelled" / "meta.json").is_file():
        return Store.open(folder / "unlabelled", check_days=check_days)
    preferred = [folder / "npy" / f"Unsupervised_{name}.npy" for name in ("All", "mini_All")]
    for file in (*preferred, *sorted((folder / "npy").glob("Unsupervised*.npy"))):
        if file.is_file():
            return published.npy_store(file, skip_bad=skip_bad)
    if any((folder / "Unsupervised").glob("*.csv")):
        return published.folder_store(folder / "Unsupervised", skip_bad=skip_bad)
    raise DataError(
        f"{folder}: no unlabelled series; expected a store unlabelled/, npy/Unsupervised_All.npy,"
        " npy/Unsupervised_mini_All.npy, or Unsupervised/*.csv"
    )


def _matches(folder: Path, pattern: re.Pattern) -> list[tuple[Path, re.Match]]:
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return [(file, match) for file in files if (match := pattern.fullmatch(file.name))]


def _log_source(split: str, series: SeriesSet) -> None:
    logger.info("%s: %d of %d series of %s", split, len(series), len(series.store), series.store.source)
