from datetime import date

import numpy as np
import pytest

from datasets.classmap import ClassMap
from datasets.preparation import manifest, pictures
from datasets.preparation.root import add_to_root
from datasets.preparation.summary import NdviByDay, counts_table, table
from tests.datasets.preparation.test_root import piece

TWO = ClassMap.of([("Corn", 1, (255, 212, 0)), ("Rice", 3, (0, 169, 230))])
DATES = [date(2018, 11, 3), date(2019, 2, 1), date(2019, 5, 2)]


def test_the_table_has_a_row_a_class_and_a_column_a_split_of_each_site():
    counts = {(0, "train", "A"): 1200, (2, "eval", "A"): 3, (0, "valid", "B"): 40}
    assert counts_table(counts, TWO).splitlines() == [
        "class  A train  A valid  A eval  B train  B valid  B eval    all",
        "Corn     1,200        0       0        0       40       0  1,240",
        "Other        0        0       3        0        0       0      3",
        "all      1,200        0       3        0       40       0  1,243",
    ]


def test_the_table_is_read_from_the_stores(tmp_path):
    pieces = [piece("train", [1, 2]), piece("eval", [3])]
    add_to_root(tmp_path, 2019, pieces, site="A", classmap=TWO, meta={})
    assert table(tmp_path / "2019", TWO).splitlines()[1].split() == ["Corn", "2", "0", "1", "3"]
    for site, values in (("A", [1]), ("B", [1, 2])):
        add_to_root(tmp_path, 2019, [piece("unlabelled", values)], site=site, classmap=None, meta={})
    assert table(tmp_path / "2019", None) == "unlabelled series: A 1, B 2"


def test_mean_and_spread_of_ndvi_are_those_of_numpy_in_the_order_of_the_season():
    rng = np.random.default_rng(0)
    doy = np.array([307, 32, 122])
    ndvi, seen = NdviByDay(TWO, DATES), {}
    for _ in range(4):
        lengths = rng.integers(1, 4, 6)
        labels = rng.integers(0, 2, 6)
        days = np.concatenate([doy[:n] for n in lengths])
        bands = rng.integers(-50, 9000, (lengths.sum(), 10)).astype(np.int16)
        ndvi.add(labels, lengths, bands, days)
        values = bands[:, [2, 6]].astype(float)
        for label, day, (red, nir) in zip(np.repeat(labels, lengths), days, values, strict=True):
            if red + nir > 0:
                seen.setdefault((label, day), []).append(np.clip((nir - red) / (nir + red), -1, 1))
    for label in ndvi.present():
        dates, mean, deviation = ndvi.of(label)
        assert dates == sorted(dates) and len(dates) == 3
        for day, average, spread in zip(dates, mean, deviation, strict=True):
            values = seen[label, day.timetuple().tm_yday]
            assert average == pytest.approx(np.mean(values)) and spread == pytest.approx(np.std(values))
    assert ndvi.present() == [0, 1]


@pytest.mark.skipif(not pictures.available(), reason="matplotlib is not installed")
def test_three_pictures_are_drawn_and_the_same_series_give_the_same_bytes(tmp_path):
    place = {"x": [0.0, 9.0], "y": [3.0, 4.0], "block": ["0_0", "1_0"], "row": [0, 1], "col": [2, 3]}
    pieces = [piece("train", [500, 700], [3, 3], **place), piece("eval", [900, 800], [2, 2], **place)]
    add_to_root(tmp_path, 2019, pieces, site="A", classmap=TWO, meta={})
    ndvi = NdviByDay(TWO, DATES)
    ndvi.add(np.zeros(2, int), np.array([3, 3]), np.full((6, 10), 7, np.int16), np.array([307, 32, 122] * 2))
    names = [f"A-2019-{name}.png" for name in ("blocks", "classes", "ndvi")]
    drawn = []
    for _ in range(2):
        assert pictures.draw(tmp_path, 2019, "A", TWO, ndvi) == [f"picture: {tmp_path / name}" for name in names]
        drawn.append([(tmp_path / name).read_bytes() for name in names])
    assert drawn[0] == drawn[1] and len(set(drawn[0])) == 3


@pytest.mark.skipif(not pictures.available(), reason="matplotlib is not installed")
def test_only_the_series_of_the_site_or_of_its_regions_are_drawn(tmp_path, monkeypatch):
    place = {"x": [0.0, 9.0, 5.0], "y": [3.0, 4.0, 5.0], "block": ["0_0", "1_0", ""]}
    others = {"x": [1.0, 2.0], "y": [6.0, 7.0], "block": ["2_2", "2_2"]}
    pieces = [piece("train", [1, 2, 3], region=["A", "T1", "T1"], **place)]
    pieces += [piece("eval", [4, 5], region=["t2", "T1"], **others)]
    add_to_root(tmp_path, 2019, pieces, site="A", classmap=TWO, meta={})
    drawn = []
    monkeypatch.setattr(pictures, "_draw_map", lambda figure, title, found, labelled: drawn.append((title, found)))
    monkeypatch.setattr(pictures, "_draw_ndvi", lambda figure, *rest: None)
    bars, draw_counts = [], pictures._draw_counts

    def counted(figure, *rest):
        draw_counts(figure, *rest)
        bars.append([bar.get_width() for bar in figure.axes[0].patches])

    monkeypatch.setattr(pictures, "_draw_counts", counted)
    pictures.draw(tmp_path, 2019, "a", TWO, None)
    pictures.draw(tmp_path, 2019, "tiles", TWO, None, ["T1", "T2"])
    assert [title for title, _ in drawn] == ["a, 2019", "tiles, 2019"]
    places = [{split: index["x"].tolist() for split, index in found.items()} for _, found in drawn]
    assert places == [{"train": ["0.0"]}, {"train": ["9.0"], "eval": ["1.0", "2.0"]}]  # with a block only
    assert bars == [[1, 0, 0], [2, 0, 2]]


def test_without_matplotlib_that_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "available", lambda: False)
    lines = pictures.draw(tmp_path, 2019, "A", TWO, NdviByDay(TWO, DATES))
    assert lines == ["no pictures: they need matplotlib (pip install matplotlib)"] and not list(tmp_path.iterdir())


def test_differences_name_the_places_in_nested_data():
    old = {"a": 1, "b": {"c": [1, 2], "d": "x" * 99}, "same": 0}
    new = {"a": 2, "b": {"c": [1, 3], "d": "y"}, "same": 0, "e": None, "f": 5}
    cut = "x" * 56
    assert manifest.differences(old, new) == f'a was 1, is 2; b.c[1] was 2, is 3; b.d was "{cut}…, is "y" and 1 more'
