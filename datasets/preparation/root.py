"""Growing a data root by a site and year: the new series are added behind those that are there.

    ROOT/classmapping<C>.csv                      written by the first labelled site, the same for all that follow
    ROOT/<year>/{train,valid,eval,unlabelled}/    stores; meta.json keeps what is known of each site under "sites"

A site that is there already is refused, or with `replace` its series make way for the new ones.

All stores of a call change together. They are written in ROOT/.adding first, a file "complete" is put beside them, and
only then does each take its place. A process killed before that file changes nothing; the next call removes what it
left. A process killed after it has done its work; the next call, or `settle`, moves the rest.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from datasets.classmap import ClassMap, read_classmap, write_classmap
from datasets.errors import DataError
from datasets.store import Store, StoreWriter
from datasets.tables import OPTIONS
from utils.locks import GRACE_SECONDS, Held, acquire

LABELLED, UNLABELLED = ("train", "valid", "eval"), "unlabelled"
SPLITS = (*LABELLED, UNLABELLED)
COLUMNS = ("id", "label", "code", "region", "block", "row", "col", "x", "y")  # of index.csv, those known; others follow
COPIED = 4096  # series of an old store that are copied at once
ADDING, COMPLETE = ".adding", "complete"
Piece = tuple[str, np.ndarray, np.ndarray, np.ndarray, dict]  # split, bands, doy, lengths, columns of the index


def add_to_root(root: str | Path, year: int, pieces: Iterable[Piece], **options) -> dict[str, int]:
    """`add_years` for one year; returns the series added to each split."""
    return add_years(root, {year: pieces}, **options)[year]


def add_years(
    root: str | Path,
    years: Mapping[int, Iterable[Piece]],
    *,
    site: str,
    classmap: ClassMap | None,
    meta: dict | Callable[[], dict],
    replace: bool = False,
) -> dict[int, dict[str, int]]:
    """Add the series of a site to the stores ROOT/<year>/<split>; returns the series added, by year and split.

    A piece is (split, bands (m, 10) DN, doy (m,), lengths (n,), index: columns of n values). Pieces of the splits may
    come in any order; memory does not depend on their number. Labelled pieces have a column `label` (class ids of
    `classmap`), unlabelled ones have none and `classmap` is None. Where a piece has no column `region`, it is `site`.
    `meta` is kept in meta.json under the site's name, with the names of its regions if they have others; a function is
    called when the last piece of a year has been written. With `replace` the series of this site, with all regions that
    it had, make way in these years, those of all three labelled splits or of the unlabelled one, in the same step.

    Raises:
        DataError: as `check_addition`; a piece with a region that is there already; no series; what StoreWriter says.
    """
    root = Path(root)
    with writing(root):
        folder, counts = root / ADDING, {}
        try:
            for year, pieces in years.items():
                check_addition(root, year, site, classmap, replace=replace)
                counts[year] = _write(root, year, pieces, site, meta, replace)
                if replace:
                    rest = [split for split in _splits_of(classmap) if split not in counts[year]]
                    _write_without(root, year, site, rest)
            if classmap is not None:
                write_classmap(folder / _classmap_name(classmap), classmap)
            (folder / COMPLETE).touch()
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        _settle(root)
    return counts


def check_addition(
    root: str | Path, year: int, site: str, classmap: ClassMap | None, *, replace: bool = False
) -> None:
    """DataError if the map differs, or `site` is in ROOT/<year> already (with labels, or without for no `classmap`).

    With `replace` the site may be there.
    """
    root = Path(root)
    if root.exists() and not root.is_dir():
        raise DataError(f"{root}: a file; expected a folder, or a path that is not there yet")
    for split in () if replace else _splits_of(classmap):
        path = root / str(year) / split
        if path.exists() and site.lower() in _regions(Store.open(path)):
            raise DataError(f"{path}: has series of the site {site!r} already; give another --site, --year or --out,"
                            " or replace them with --overwrite")
    if classmap is not None:
        _check_classmap(root, classmap)


def recorded(root: str | Path, year: int, site: str, classmap: ClassMap | None) -> str | None:
    """The `fingerprint` in what meta.json keeps of a site, as `add_to_root` was given it; None where there is none."""
    for split in _splits_of(classmap):
        path = Path(root) / str(year) / split
        if path.exists() and site in (sites := Store.open(path).meta["provenance"].get("sites", {})):
            return sites[site].get("fingerprint")
    return None


def _splits_of(classmap: ClassMap | None) -> tuple[str, ...]:
    return (UNLABELLED,) if classmap is None else LABELLED


def settle(root: str | Path) -> None:
    """Finish what a killed process had completed but not yet moved to its place, and remove what it had not."""
    if (Path(root) / ADDING).exists():
        with writing(root):
            pass


@contextmanager
def writing(root: str | Path) -> Iterator[None]:
    """Be the one process that writes into the root, which is settled first; DataError if another one does."""
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    try:
        lock = acquire(root / ".lock", timeout=GRACE_SECONDS, is_singleton=True)  # a process may hold it twice
    except Held as held:
        raise DataError(f"{root}: {held} is writing into it; wait until it has finished") from None
    try:
        if lock.lock_counter == 1:
            _settle(root)
        yield
    finally:
        lock.release()


def _write(
    root: Path, year: int, pieces: Iterable[Piece], site: str, meta: dict | Callable[[], dict], replace: bool
) -> dict[str, int]:
    """Write the grown stores into ROOT/.adding/<year>; returns the series added to each split."""
    counts, regions = dict.fromkeys(SPLITS, 0), set()
    with ExitStack() as stack:
        writers, known = {}, {}
        for split, bands, doy, lengths, index in pieces:
            if not len(lengths):
                continue
            index = _ordered({"region": np.full(len(lengths), site, dtype=object)} | index)
            if split not in writers:
                writer = StoreWriter(root / ADDING / str(year) / split, source=str(root / str(year) / split))
                writers[split] = stack.enter_context(writer)
                old = root / str(year) / split
                known[split] = _copy_old(old, writer, list(index), without=_names_of(old, site) if replace else set())
            named = {str(name) for name in index["region"]}
            regions |= named
            again = {name.lower() for name in named} & known[split]
            if again:
                raise DataError(f"{root / str(year) / split}: has series of the site {min(again)!r} already")
            columns = writers[split].columns or list(index)
            writers[split].append(bands, doy, lengths, _in_columns(index, columns, len(lengths)))
            counts[split] += len(lengths)
        if not writers:
            raise DataError(f"{root}: no series of the site {site!r} and year {year} to add")
        found = meta() if callable(meta) else meta
        if regions != {site}:
            found = found | {"regions": sorted(regions)}
        for writer in writers.values():
            writer.provenance.setdefault("sites", {})[site] = found
    return {split: counts[split] for split in writers}


def _write_without(root: Path, year: int, site: str, splits: list[str]) -> None:
    """Write the stores of these splits without the site into ROOT/.adding; an empty folder if no series is left."""
    for split in splits:
        path, new = root / str(year) / split, root / ADDING / str(year) / split
        if not path.exists() or site.lower() not in (names := _regions(Store.open(path))):
            continue
        if names <= (own := _names_of(path, site)):
            new.mkdir(parents=True)
            continue
        with StoreWriter(new, source=str(path)) as writer:
            _copy_old(path, writer, [], without=own)


def _copy_old(path: Path, writer: StoreWriter, new_columns: list[str], *, without: Collection[str]) -> set[str]:
    """Put the series of the store at `path` first, with the columns of old and new, but for some sites and regions.

    `without` are their names in lower case. Returns the names of those that are kept.
    """
    if not path.exists():
        return set()
    store = Store.open(path)
    writer.provenance = dict(store.meta["provenance"])
    sites = writer.provenance.get("sites", {})
    writer.provenance["sites"] = {name: known for name, known in sites.items() if name.lower() not in without}
    first = 0
    for old in _index_pieces(store):
        offsets = store.offsets[first : first + len(old) + 1]
        rows, first, lengths = slice(offsets[0], offsets[-1]), first + len(old), np.diff(offsets)
        bands, doy = store.bands[rows], store.doy[rows]
        if without and "region" in old:
            kept = ~old["region"].str.lower().isin(without).to_numpy()
            of_kept = np.repeat(kept, lengths)
            bands, doy, lengths, old = bands[of_kept], doy[of_kept], lengths[kept], old[kept]
            if not kept.any():
                continue
        columns = list(_ordered(dict.fromkeys([*old, *new_columns])))
        index = _in_columns({name: old[name].to_numpy() for name in old}, columns, len(old))
        writer.append(bands, doy, lengths, index)
    if first != len(store):
        raise DataError(f"{path / 'index.csv'}: {first} rows for {len(store)} series; expected a row a series")
    return _regions(store) - set(without)


def _names_of(path: Path, site: str) -> set[str]:
    """A site and the regions that it has in the store at `path`, in lower case."""
    sites = Store.open(path).meta["provenance"].get("sites", {}) if path.exists() else {}
    regions = [known.get("regions", []) for name, known in sites.items() if name.lower() == site.lower()]
    return {name.lower() for name in (site, *sum(regions, []))}


def _index_pieces(store: Store) -> Iterator[pd.DataFrame]:
    """The index as it stands in the file, some rows at a time (class ids as numbers); empty rows where it has none."""
    file = store.path / "index.csv"
    if not file.exists():
        for first in range(0, len(store), COPIED):
            yield pd.DataFrame(index=range(min(COPIED, len(store) - first)))
        return
    with pd.read_csv(file, dtype=str, chunksize=COPIED, **(OPTIONS | {"low_memory": True})) as pieces:
        for piece in pieces:
            yield piece.assign(label=piece["label"].astype(np.int64)) if "label" in piece else piece


def _regions(store: Store) -> set[str]:
    """Names of the sites of a store in lower case, as they are compared."""
    names = set(store.meta["provenance"].get("sites", {}))
    for piece in _index_pieces(store):
        if "region" not in piece:
            break
        names.update(piece["region"].unique())
    return {name.lower() for name in names}


def _ordered(index: dict) -> dict:
    """The columns in the order of COLUMNS, others behind them."""
    return {name: index[name] for name in (*COLUMNS, *index) if name in index}


def _in_columns(index: dict, columns: list[str], count: int) -> dict:
    """These columns, empty where the series have no such value; columns that are not asked for stay behind them."""
    empty = np.full(count, "", dtype=object)
    return {name: index.get(name, empty) for name in (*columns, *(name for name in index if name not in columns))}


def _classmap_name(classmap: ClassMap) -> str:
    return f"classmapping{classmap.num_classes - 1}.csv"


def _check_classmap(root: Path, classmap: ClassMap) -> None:
    same = root / _classmap_name(classmap)
    there = [same] if same.exists() else sorted(root.glob("classmapping*.csv"))
    for path in there:
        if not re.fullmatch(r"classmapping\d+\.csv", path.name):
            continue
        if read_classmap(path) != classmap:
            raise DataError(
                f"{path}: differs from the {classmap.num_classes - 1} classes of the new series, whose labels would"
                f" mean something else; prepare them with --classes {path}, or choose another --out"
            )


def _settle(root: Path) -> None:
    folder = root / ADDING
    if (folder / COMPLETE).exists():
        for path in sorted(folder.glob("classmapping*.csv")):
            path.replace(root / path.name)
        for new in sorted(folder.glob("[0-9]*/*")):
            if new.name not in SPLITS:
                continue
            target = root / new.parent.name / new.name
            target.parent.mkdir(exist_ok=True)
            if target.exists():
                target.rename(new.with_name(f"replaced-{new.name}"))
            if any(new.iterdir()):  # an empty folder: no series of this split is left
                new.rename(target)
    shutil.rmtree(folder, ignore_errors=True)
