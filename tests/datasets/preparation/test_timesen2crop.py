"""TimeSen2Crop from its published folders to a data root."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from datasets.catalog import open_classmap
from datasets.preparation import pictures
from datasets.prepare import main
from datasets.store import Store

DATES = ["20170905", "20171210", "20180103", "20180620", "20180828"]
NAMES = ",".join([*(f"B{k}" for k in range(1, 10)), "Flag"])


@pytest.fixture(autouse=True, scope="module")
def quick():
    """Pictures take most of the time of a small table; one test draws them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "draw", lambda *_: [])
        yield


def values_of(seed: int) -> np.ndarray:
    """(5, 9) digital numbers."""
    return np.random.default_rng(seed).integers(1, 9000, (len(DATES), 9))


def write_pixel(path: Path, values: np.ndarray, flags=(0, 1, 2, 3, 0)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [",".join(map(str, [*row, flag])) for row, flag in zip(values.tolist(), flags, strict=True)]
    path.write_text("\n".join([NAMES, *rows]) + "\n")


def write_tile(root: Path, name: str, dates=DATES, classes=(0, 10, 2), pixels: int = 2, seed: int = 0) -> None:
    (root / name).mkdir(parents=True)
    (root / name / "dates.csv").write_text("\n".join(["acquisition_date", *dates]) + "\n")
    for kind in classes:
        for pixel in range(pixels):
            write_pixel(root / name / str(kind) / f"{pixel}.csv", values_of(seed + 10 * kind + pixel))


@pytest.fixture
def published(tmp_path) -> Path:
    for number, name in enumerate(("33UVP", "33TVN", "33TWM")):
        write_tile(tmp_path / "ts2c", name, seed=1000 * number)
    return tmp_path / "ts2c"


def prepare(folder: Path, out: Path, *options: str) -> None:
    main(["timesen2crop", str(folder), "--out", str(out), "--quiet", *options])


def series_of(root: Path, year: int = 2018) -> dict[str, tuple]:
    found = {}
    for split in ("train", "valid", "eval"):
        if (root / str(year) / split).exists():
            store = Store.open(root / str(year) / split)
            store.validate()
            for i, row in enumerate(store.index.to_dict("records")):
                found[row["id"]] = (split, *store.series(i), row)
    return found


def test_bands_dates_labels_and_tiles(published, tmp_path, capsys):
    prepare(published, tmp_path / "root")
    found = series_of(tmp_path / "root")
    assert len(found) == 18
    split, bands, doy, row = found["33TVN/10/1"]
    values = values_of(1000 + 100 + 1)
    assert bands.tolist() == values[:, [0, 1, 2, 3, 4, 5, 6, 6, 7, 8]].tolist()  # B8A stands in for B8
    assert doy.tolist() == [248, 344, 3, 171, 240]
    assert row["code"] == 10 and row["region"] == "33TVN"
    classmap = open_classmap(tmp_path / "root", 3)
    assert sorted(classmap.names[:-1]) == ["0", "10", "2"] and classmap.names[row["label"]] == "10"
    assert "B8 (nir) is missing: B8A (red4) stands in for it" in capsys.readouterr().out


def test_a_second_time_is_refused_unless_it_replaces(published, tmp_path, capsys):
    prepare(published, tmp_path / "root")
    with pytest.raises(SystemExit):
        prepare(published, tmp_path / "root")
    assert "replace them with --overwrite" in capsys.readouterr().err
    write_pixel(published / "33TVN" / "10" / "1.csv", values_of(5))
    prepare(published, tmp_path / "root", "--overwrite")
    found = series_of(tmp_path / "root")
    assert len(found) == 18 and found["33TVN/10/1"][1][:, 0].tolist() == values_of(5)[:, 0].tolist()


def test_whole_tiles_are_dealt(published, tmp_path):
    prepare(published, tmp_path / "root")
    splits = {(entry[3]["region"], entry[0]) for entry in series_of(tmp_path / "root").values()}
    assert len(splits) == 3 and {split for _, split in splits} == {"train", "valid", "eval"}
    prepare(published, tmp_path / "pixels", "--deal-by", "pixel")
    assert len({(e[3]["region"], e[0]) for e in series_of(tmp_path / "pixels").values()}) > 3


def test_a_tile_of_another_year_is_a_year_of_its_own_with_the_same_region(published, tmp_path, capsys):
    later = [str(int(date) + 10000) for date in DATES]
    write_tile(published, "2019_33UVP", dates=later, pixels=4)
    prepare(published, tmp_path / "root")
    found = series_of(tmp_path / "root", 2019)
    assert len(found) == 12 and {entry[3]["region"] for entry in found.values()} == {"33UVP"}
    assert {entry[0] for entry in found.values()} == {"train", "valid", "eval"}  # one tile is dealt by pixels
    assert "2019: fewer than three tiles, so its series are dealt at random" in capsys.readouterr().out
    assert len(series_of(tmp_path / "root", 2018)) == 18


@pytest.mark.parametrize(
    ("drop", "left"),
    [((), [0, 1, 2, 3, 4]), (["cloud"], [0, 2, 3, 4]), (["cloud", "shadow", "snow"], [0, 4]), (["snow"], [0, 1, 2, 4])],
)
def test_flagged_observations_stay_unless_dropped(published, tmp_path, drop, left):
    prepare(published, tmp_path / "root", *(("--drop-flags", *drop) if drop else ()))
    _, bands, _, _ = series_of(tmp_path / "root")["33UVP/0/0"]
    assert bands[:, 0].tolist() == values_of(0)[left, 0].tolist()
    meta = json.loads((tmp_path / "root" / "2018" / "train" / "meta.json").read_text())
    record = meta["provenance"]["sites"]["TimeSen2Crop"]
    assert record["dropped flags"] == list(drop) and record["stands in"] == {"nir": "red4"}


def test_missing_observations_are_dropped(published, tmp_path, capsys):
    values = values_of(0).astype(object)
    values[1, 4], values[2] = "", 0
    write_pixel(published / "33UVP" / "0" / "0.csv", values)
    prepare(published, tmp_path / "root")
    assert series_of(tmp_path / "root")["33UVP/0/0"][2].tolist() == [248, 171, 240]
    assert "2 observations with a missing band" in capsys.readouterr().out


def test_one_tile_alone(published, tmp_path):
    prepare(published / "33TWM", tmp_path / "root")
    assert {entry[3]["region"] for entry in series_of(tmp_path / "root").values()} == {"33TWM"}


def broken(text: str):
    return lambda root: (root / "33UVP" / "0" / "0.csv").write_text(text)


ROW = ",".join("123456789") + ","


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (broken(f"{NAMES}\n{ROW}0\n"), "0.csv: 1 rows; expected 5, one for each date of"),
        (broken("\n".join([NAMES, *[f"{ROW}0"] * 4, f"{ROW}7"])), "0.csv: line 6: Flag is '7'; expected 0 (clear)"),
        (broken("\n".join([NAMES, *[f"{ROW}0"] * 4, f"x{ROW[1:]}0"])), "0.csv: line 6: B1 is 'x'; expected a number"),
        (broken("B1,B2\n1,2"), "0.csv: no column 'B3'; expected B1, B2"),
        (broken(""), "0.csv: no column 'B1'"),
        (lambda root: (root / "33UVP" / "dates.csv").write_text("date\n20180101"), "no column 'acquisition_date'"),
        (lambda root: (root / "33UVP" / "dates.csv").write_text("acquisition_date\n2018"), "line 2: acqu"),
    ],
)
def test_mistakes_in_the_files_are_named(published, tmp_path, harm, words, capsys):
    harm(published)
    with pytest.raises(SystemExit) as ended:
        prepare(published, tmp_path / "root")
    said = capsys.readouterr().err
    assert ended.value.code == 2 and words in said and said.count("\n") == 1


def test_a_folder_without_tiles(tmp_path, capsys):
    for folder, words in (("none", "no such folder"), (".", "no folder with a dates.csv")):
        with pytest.raises(SystemExit):
            prepare(tmp_path / folder, tmp_path / "root")
        assert words in capsys.readouterr().err
