"""python -m datasets.prepare table, from the file to the data root."""

from __future__ import annotations

import json
import tracemalloc
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.bands import BANDS
from datasets.catalog import Selection, open_classmap, open_labelled, open_unlabelled
from datasets.classmap import ClassMap, read_classmap, write_classmap
from datasets.preparation import pictures
from datasets.preparation.split import SPLITS
from datasets.preparation.table import on_sphere
from datasets.prepare import main
from datasets.readers import table_files
from datasets.store import Store
from tests.conftest import SHARED, needs_shared
from tests.support.tables import CODES, long_table, save, some_observed, wide_table

DRAW = pictures.draw
DAYS = [date(2019, 4, 3), date(2019, 5, 3), date(2019, 7, 18)]


@pytest.fixture(autouse=True, scope="module")
def quick():
    """Pictures take most of the time of a small table; one test draws them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "draw", lambda *_: [])
        yield


def prepare(file, out, *options: str, label: str | None = "crop") -> None:
    labels = [] if label is None else ["--label", label]
    main(["table", str(file), "--id", "id", *labels, "--out", str(out), *options])


def contents(root, year=2019) -> dict[str, tuple]:
    """id -> (split, bands, doy, row of the index) of all series of a year."""
    found = {}
    for split in ("train", "valid", "eval", "unlabelled"):
        if (root / str(year) / split).exists():
            store = Store.open(root / str(year) / split)
            store.validate()
            for i, row in enumerate(store.index.to_dict("records")):
                bands, doy = store.series(i)
                found[str(row["id"])] = (split, bands.tolist(), doy.tolist(), row)
    return found


def test_a_table_becomes_a_data_root_that_the_scripts_open(tmp_path, capsys):
    series = some_observed(30, DAYS)
    prepare(save(long_table(series), tmp_path / "fields.csv"), tmp_path / "root")
    found = contents(tmp_path / "root")
    for one in series:
        split, bands, doy, row = found[one.id]
        assert bands == one.bands.tolist() and doy == [93, 123, 199]
        assert row["code"] == one.label and row["label"] == {"corn": 0, "rice": 1}[one.label]
        assert row["region"] == "fields"
    assert [sum(entry[0] == split for entry in found.values()) for split in SPLITS] == [20, 5, 5]
    classmap = open_classmap(tmp_path / "root", 2)
    assert classmap.names == ("corn", "rice", "Other") and classmap.codes == (1, 2, 0)
    splits = open_labelled(tmp_path / "root", 2019, Selection(nclasses=2, use_all=True))
    assert [len(split) for split in splits] == [20, 5, 5]
    said = capsys.readouterr().out
    assert "dealt at random, so neighbours may be in two splits" in said
    assert "30 series read, 90 observations kept; nothing left out" in said
    assert "-c 2 --datapath" in said


def test_long_and_wide_tables_of_any_kind_give_the_same_stores(tmp_path):
    series = some_observed(9, DAYS, seed=3)
    series[4].bands[1, 3] = np.nan
    for days in (series[2].days, series[7].days):
        assert days == DAYS
    tables = {
        "long.csv": long_table(series),
        "long.parquet": long_table(series, CODES),
        "shuffled.csv.gz": long_table(series).sample(frac=1, random_state=1),
        "wide.csv": wide_table(series, lambda b, s: f"B{CODES[b][1:]}_{DAYS[s]:%Y%m%d}"),
        "wide.parquet": wide_table(series, lambda b, s: f"{DAYS[s]}_{BANDS[b]}"),
    }
    found = []
    for name, table in tables.items():
        prepare(save(table, tmp_path / name), tmp_path / f"root-{name}", "--site", "one")
        found.append(contents(tmp_path / f"root-{name}"))
    assert all(other == found[0] for other in found[1:])
    assert found[0]["p4"][2] == [93, 199] and len(found[0]) == 9


@given(data=st.data())
@settings(max_examples=5, deadline=None)
def test_what_is_in_the_stores_is_what_was_in_the_table(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("roots")
    days = sorted(data.draw(st.sets(st.dates(date(2019, 1, 1), date(2019, 12, 31)), min_size=1, max_size=4)))
    series = some_observed(data.draw(st.integers(3, 6)), days, seed=data.draw(st.integers(0, 99)))
    lost = {one.id: data.draw(st.sets(st.sampled_from(range(len(days))), max_size=1)) for one in series[1:]}
    for one in series[1:]:
        for step in lost[one.id]:
            one.bands[step, data.draw(st.integers(0, 9))] = np.nan
    left = [one for one in series if len(lost.get(one.id, ())) < len(days)]
    if len(left) < 3:
        return
    wide = wide_table(series, lambda b, s: f"{BANDS[b]}_{days[s]}")
    for name, table in (("long.csv", long_table(series)), ("wide.parquet", wide)):
        prepare(save(table, folder / name), folder / name[:4])
        found = contents(folder / name[:4])
        assert set(found) == {one.id for one in left}
        for one in left:
            keep = [step for step in range(len(days)) if step not in lost.get(one.id, ())]
            assert found[one.id][1] == one.bands[keep].tolist()
            assert found[one.id][2] == [days[step].timetuple().tm_yday for step in keep]


# ---- which series are in which split


def test_blocks_are_dealt_whole_by_x_and_y(tmp_path):
    table = long_table(some_observed(60, DAYS))
    place = table["id"].str[1:].astype(int)
    table = table.assign(east=500_000 + (place % 20) * 1000.0, north=4_000_000 + (place // 20) * 1000.0)
    file = save(table, tmp_path / "t.csv")
    prepare(file, tmp_path / "root", "--x", "east", "--y", "north", "--block-size", "2000", "--crs", "EPSG:32614")
    of_block = {}
    for split, _, _, row in contents(tmp_path / "root").values():
        block = f"{int(row['x'] // 2000)}_{int(row['y'] // 2000)}"
        assert row["block"] == block and of_block.setdefault(block, split) == split
    assert set(of_block.values()) == set(SPLITS) and len(of_block) == 20


def test_blocks_of_degrees_are_about_as_wide_as_they_are_high():
    for latitude in (0.0, 36.0, 51.0, 66.0):
        (x, _), (y, north) = on_sphere(np.array([5.0, 5.01]), np.array([latitude, latitude + 0.01]), 3000.0)
        assert north - y == pytest.approx(1111.9, abs=0.2)
        east = on_sphere(5.01, latitude, 3000.0)[0] - x
        assert east == pytest.approx(1111.9 * np.cos(np.radians(latitude)), rel=0.001)


def test_a_column_may_say_the_split(tmp_path):
    table = long_table(some_observed(4, DAYS)).assign(part=np.repeat(["Train", "val", "test", "training"], 3))
    prepare(save(table, tmp_path / "t.csv"), tmp_path / "root", "--split-column", "part")
    found = contents(tmp_path / "root")
    assert [found[f"p{i}"][0] for i in range(4)] == ["train", "valid", "eval", "train"]
    assert "split" not in found["p0"][3]


def test_the_seed_decides_the_deal(tmp_path):
    file = save(long_table(some_observed(40, DAYS)), tmp_path / "t.csv")
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        prepare(file, tmp_path / name, "--seed", seed)
    a, b, c = ({key: entry[0] for key, entry in contents(tmp_path / name).items()} for name in "abc")
    assert a == b != c


# ---- years, classes, sites


def test_several_years_go_each_to_its_own(tmp_path):
    series = some_observed(6, DAYS)
    late = [one._replace(id=f"q{one.id}", days=[day.replace(year=2020) for day in DAYS]) for one in series]
    prepare(save(long_table(series + late), tmp_path / "t.csv"), tmp_path / "root")
    assert set(contents(tmp_path / "root", 2019)) == {one.id for one in series}
    assert set(contents(tmp_path / "root", 2020)) == {one.id for one in late}


def test_a_class_map_of_the_users_own_by_code_and_by_name(tmp_path, capsys):
    classmap = ClassMap.of([("Rice", 3, (0, 0, 255)), ("Corn", 1, (255, 255, 0))])
    write_classmap(tmp_path / "map.csv", classmap)
    table = long_table(some_observed(6, DAYS))
    codes = table.assign(crop=np.repeat([3, 1, 8, 3, 1, 3], 3))
    for name, labels in (("names", table), ("codes", codes)):
        prepare(save(labels, tmp_path / f"{name}.csv"), tmp_path / name, "--classes", str(tmp_path / "map.csv"))
        assert read_classmap(tmp_path / name / "classmapping2.csv") == classmap
    found = contents(tmp_path / "names")
    assert [found[f"p{i}"][3]["label"] for i in range(2)] == [1, 0]
    found = contents(tmp_path / "codes")
    assert [found[f"p{i}"][3]["label"] for i in range(4)] == [0, 1, 2, 0]
    assert [found[f"p{i}"][3]["code"] for i in range(4)] == [3, 1, 8, 3]
    assert "1 series have labels that are not in the class map: they are Other" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        prepare(tmp_path / "codes.csv", tmp_path / "s", "--classes", str(tmp_path / "map.csv"), "--strict")
    assert "labels that are not in the class map: 8 (1)" in capsys.readouterr().err
    assert not (tmp_path / "s" / "2019").exists()


def test_codes_become_a_class_map_of_the_same_codes(tmp_path):
    table = long_table(some_observed(6, DAYS)).assign(crop=np.repeat([1101070000, 24, 24, 5, 24, 5], 3))
    prepare(save(table, tmp_path / "t.csv"), tmp_path / "root")
    classmap = open_classmap(tmp_path / "root", 3)
    assert classmap.codes == (24, 5, 1101070000, 0)
    for _, _, _, row in contents(tmp_path / "root").values():
        assert classmap.codes[row["label"]] == row["code"]


def test_a_second_table_is_added_with_the_same_classes_and_a_second_time_refused(tmp_path, capsys):
    first, second = some_observed(6, DAYS), [one._replace(id=f"q{one.id}") for one in some_observed(4, DAYS, seed=1)]
    prepare(save(long_table(first), tmp_path / "a.csv"), tmp_path / "root")
    prepare(save(long_table(second), tmp_path / "b.csv"), tmp_path / "root")
    assert len(contents(tmp_path / "root")) == 10
    assert {entry[3]["region"] for entry in contents(tmp_path / "root").values()} == {"a", "b"}
    with pytest.raises(SystemExit):
        prepare(tmp_path / "b.csv", tmp_path / "root")
    assert "series of the site 'b' already" in capsys.readouterr().err


def test_a_table_is_replaced_with_overwrite(tmp_path):
    first, second = some_observed(6, DAYS), some_observed(4, DAYS, seed=1)
    later = [one._replace(id=f"q{one.id}", days=[day.replace(year=2020) for day in DAYS]) for one in first]
    other = [one._replace(id=f"r{one.id}") for one in some_observed(3, DAYS, seed=2)]
    regions = {"county": np.repeat(["Adams", "Harvey"], 18)}
    prepare(save(long_table(first + later).assign(**regions), tmp_path / "a.csv"), tmp_path / "root", *COUNTY)
    prepare(save(long_table(other), tmp_path / "b.csv"), tmp_path / "root")
    changed = long_table(second).assign(county="Reno")
    prepare(save(changed, tmp_path / "a.csv"), tmp_path / "root", *COUNTY, "--overwrite")
    found = contents(tmp_path / "root")
    assert set(found) == {one.id for one in second} | {one.id for one in other}
    assert all(found[one.id][1] == one.bands.tolist() and found[one.id][3]["region"] == "Reno" for one in second)
    assert set(contents(tmp_path / "root", 2020)) == {one.id for one in later}  # a year that the new table lacks


COUNTY = ("--region", "county")


def test_regions_of_the_table(tmp_path):
    table = long_table(some_observed(6, DAYS)).assign(county=np.repeat(["Adams", "Harvey", "Adams"] * 2, 3))
    prepare(save(table, tmp_path / "t.csv"), tmp_path / "root", "--region", "county")
    found = contents(tmp_path / "root")
    assert [found[f"p{i}"][3]["region"] for i in range(3)] == ["Adams", "Harvey", "Adams"]


def test_without_labels_the_series_are_unlabelled(tmp_path):
    prepare(save(long_table(some_observed(5, DAYS)), tmp_path / "t.csv"), tmp_path / "root", label=None)
    assert len(open_unlabelled(tmp_path / "root", 2019)) == 5
    assert not list((tmp_path / "root").glob("classmapping*"))


def test_meta_tells_where_the_series_came_from(tmp_path):
    table = long_table(some_observed(6, DAYS)).drop(columns="red4")
    file = save(table, tmp_path / "t.csv")
    prepare(file, tmp_path / "root", "--seed", "5")
    meta = json.loads((tmp_path / "root" / "2019" / "train" / "meta.json").read_text())["provenance"]["sites"]["t"]
    assert meta["files"][0]["name"] == "t.csv" and meta["files"][0]["bytes"] == file.stat().st_size
    assert meta["stands in"] == {"red4": "nir"} and meta["seed"] == 5 and meta["dealt by"] == "id"
    assert meta["bands"]["red4"] == ["nir"] and meta["counts"]["series"] == 6


def test_pictures_are_drawn_also_of_series_without_a_place_and_of_several_regions(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pictures, "draw", DRAW)
    table = long_table(some_observed(6, DAYS)).assign(county=np.repeat(["Adams", "Harvey", "Adams"] * 2, 3))
    file = save(table, tmp_path / "t.csv")
    prepare(file, tmp_path / "one")
    prepare(file, tmp_path / "two", "--region", "county")
    for root in ("one", "two"):
        assert (tmp_path / root / "t-2019-ndvi.png").stat().st_size > 5000
        assert not (tmp_path / root / "t-2019-blocks.png").exists()
    assert capsys.readouterr().out.count("no picture of blocks: the series have no x and y") == 2
    one, two = ((tmp_path / root / "t-2019-classes.png").read_bytes() for root in ("one", "two"))
    assert one == two  # the bars are of the series of all regions


def test_a_dry_run_says_what_would_be_written_and_writes_nothing(tmp_path, capsys):
    file = save(long_table(some_observed(6, DAYS)), tmp_path / "t.csv")
    prepare(file, tmp_path / "root", "--dry-run")
    said = capsys.readouterr().out
    assert "2019:" in said and "corn" in said and "dates from 2019-04-03 to 2019-07-18" in said
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--x", "id"), "--y is missing; --x and --y go together"),
        (("--split-column", "crop"), "line 2: crop is 'corn'; expected train, valid"),
        (("--x", "place", "--y", "crop"), "line 2: crop is 'corn'; expected a coordinate"),
        (("--x", "place", "--y", "place", "--crs", "EPSG:0"), "--crs EPSG:0: unknown"),
        (("--x", "place", "--y", "place", "--block-size", "1e6"), "the series lie in 1 block(s)"),
        (("--x", "gap", "--y", "place"), "line 5: gap is blank; expected a coordinate"),
        (("--block-size", "0", "--x", "place", "--y", "place"), "block size 0.0; expected more than 0"),
        (("--year", "2023"), "none of its 6 series is left (6 series outside the year"),
        (("--classes", "none.csv"), "none.csv: no such file"),
    ],
)
def test_mistakes_end_with_one_line(tmp_path, options, words, capsys):
    table = long_table(some_observed(6, DAYS)).assign(place=1000.0, gap=["1", "2", "3", *[""] * 15])
    file = save(table, tmp_path / "t.csv")
    with pytest.raises(SystemExit) as ended:
        prepare(file, tmp_path / "root", *options)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and words in said and said.count("\n") == 1
    assert not (tmp_path / "root" / "2019").exists() and not list(tmp_path.glob("*partial*"))


# ---- memory


def test_memory_does_not_grow_with_the_number_of_series(tmp_path, monkeypatch):
    monkeypatch.setattr(table_files, "CELLS", 20_000)
    days = [date(2019, 1, 5) + timedelta(days=9 * k) for k in range(30)]
    small = long_table(some_observed(50, days))
    peaks = []
    for name, copies in (("warm", 1), ("one", 2), ("many", 12)):
        table = pd.concat([small.assign(id=small["id"] + f"-{k}") for k in range(copies)])
        file = save(table, tmp_path / f"{name}.csv")
        del table
        tracemalloc.start()
        prepare(file, tmp_path / name)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.5 * peaks[1]


# ---- real tables


@needs_shared
def test_the_wide_table_of_worldcereal(tmp_path, capsys):
    file = SHARED / "rasters" / "tables" / "worldcereal_wide.parquet"
    options = ["--label", "ewoc_code", "--x", "lon", "--y", "lat", "--start", "start_date", "--step", "month"]
    main(["table", str(file), "--id", "sample_id", *options, "--out", str(tmp_path / "root")])
    said = capsys.readouterr().out
    assert "500 series read, 5,581 observations kept; 419 observations with a missing band\n" in said
    found, table = contents(tmp_path / "root", 2017), pd.read_parquet(file)
    assert list(table["sample_id"].sort_values()) == sorted(found)
    middles = [351, 16, 46, 75, 106, 136, 167, 197, 228, 259, 289, 320]  # December 2016 to November 2017
    names = [[f"OPTICAL-{code}-ts{k}-{10 if code in ('B02', 'B03', 'B04', 'B08') else 20}m" for code in CODES]
             for k in range(12)]  # fmt: skip
    for row in table.to_dict("records"):
        _, bands, doy, index = found[row["sample_id"]]
        values = np.array([[row[name] for name in step] for step in names])
        there = (values != 65535).all(axis=1)
        assert bands == values[there].tolist() and doy == np.array(middles)[there].tolist()
        assert index["code"] == row["ewoc_code"] and index["x"] == pytest.approx(row["lon"])
    assert open_classmap(tmp_path / "root", 15).codes[:3] == (1101070000, 1101060000, 1106000050)


@needs_shared
def test_the_long_table_of_worldcereal(tmp_path, capsys):
    file = SHARED / "rasters" / "tables" / "worldcereal_long.parquet"
    main(["table", str(file), "--id", "sample_id", "--label", "ewoc_code", "--out", str(tmp_path / "root")])
    said = capsys.readouterr().out
    assert "B8A (red4) is missing: B08 (nir) stands in for it" in said
    assert "100 series read, 1,024 observations kept; 100 series cut to twelve months, 400 observations outside" in said
    assert "176 observations with a missing band, 10 band values clipped to 32,767" in said
    found, table = contents(tmp_path / "root", 2021), pd.read_parquet(file)
    assert set(found) == set(table["sample_id"]) and len(found) == 100
    columns = [f"S2-L2A-{code if code != 'B8A' else 'B08'}" for code in CODES]
    table = table[table["timestamp"] >= "2020-12-01"]
    table = table[(table[columns] != 65535).all(axis=1)]
    for id, rows in table.groupby("sample_id"):
        _, bands, doy, index = found[id]
        assert bands == np.minimum(rows[columns].to_numpy(), 32767).tolist()
        assert doy == rows["timestamp"].dt.dayofyear.tolist() and index["code"] == rows["ewoc_code"].iloc[0]
    assert len(set(entry[3]["code"] for entry in found.values())) == 16
