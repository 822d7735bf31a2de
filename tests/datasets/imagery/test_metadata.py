"""The radiometric offset is decided from metadata, the first of several sources that tells."""

from __future__ import annotations

import numpy as np
import pytest

from datasets.errors import DataError
from datasets.imagery import metadata
from datasets.imagery.metadata import Radiometry, radiometry
from datasets.imagery.raster import read_header
from tests.support.image_files import write_item, write_tif


@pytest.fixture(autouse=True)
def nothing_remembered():
    metadata._items_in.cache_clear()
    metadata._read_safe.cache_clear()


def decided(tmp_path, name="2019-05-03.tif", **options) -> Radiometry:
    path = write_tif(tmp_path / name, np.ones((2, 2, 2), np.uint16), **options)
    return radiometry(read_header(path, tmp_path), 1, tmp_path)


def test_nothing_known_means_no_offset(tmp_path):
    assert decided(tmp_path) == (1, 0, "nothing names a processing baseline", "")


def test_neither_the_date_nor_the_name_of_a_product_decides(tmp_path):
    name = "S2A_MSIL2A_20230503T173911_N0509_R098_T14SPH_20230503T215412.tif"
    assert decided(tmp_path, name)[:2] == (1, 0)


@pytest.mark.parametrize(
    ("baseline", "offset"),
    [("02.14", 0), ("03.01", 0), ("04.00", -1000), ("05.10", -1000), ("N0500", -1000), (5, -1000)],
)
def test_the_baseline_in_the_tags_decides(tmp_path, baseline, offset):
    found = decided(tmp_path, tags={"PROCESSING_BASELINE": baseline})
    assert found[:2] == (1, offset)
    assert found.why.startswith("processing baseline 0") and found.why.endswith("in the tags")


def test_a_baseline_in_every_writing_sorts(tmp_path):
    assert decided(tmp_path, tags={"PROCESSING_BASELINE": "5.9"}).baseline == "05.90"
    assert decided(tmp_path, tags={"processing_baseline": "N0214"}).baseline == "02.14"
    with pytest.raises(DataError, match="2019-05-03.tif: processing baseline 'new'; expected one such as 05.00"):
        decided(tmp_path, tags={"PROCESSING_BASELINE": "new"})


def test_tags_of_what_was_done_come_first(tmp_path):
    tags = {"PROCESSING_BASELINE": "05.00"}
    assert decided(tmp_path, tags={**tags, "BOA_OFFSET_APPLIED": "true"})[:3] == (
        1,
        0,
        "tag BOA_OFFSET_APPLIED is true",
    )
    assert decided(tmp_path, tags={**tags, "BOA_ADD_OFFSET": "0"}) == (1, 0, "tag BOA_ADD_OFFSET", "05.00")
    assert decided(tmp_path, tags={"BOA_ADD_OFFSET": "-1000"})[:2] == (1, -1000)
    assert decided(tmp_path, tags={**tags, "BOA_OFFSET_APPLIED": "false"})[:2] == (1, -1000)
    with pytest.raises(DataError, match="BOA_ADD_OFFSET is 'x'; expected a number"):
        decided(tmp_path, tags={"BOA_ADD_OFFSET": "x"})


def test_the_baseline_of_a_stac_item_beside_the_file_decides(tmp_path):
    write_item(tmp_path, {"s2:processing_baseline": "05.00", "datetime": "2019-05-03T17:39:11Z"})
    assert decided(tmp_path) == (1, -1000, "processing baseline 05.00 in the STAC item", "05.00")


@pytest.mark.parametrize(("applied", "offset"), [(True, 0), (False, -1000)])
def test_earth_search_says_whether_the_offset_was_applied_whatever_its_bands_say(tmp_path, applied, offset):
    bands = [{"scale": 0.0001, "offset": -0.1 if applied else 0}]
    assets = {"red": {"href": "https://x/2019-05-03.tif", "raster:bands": bands}}
    properties = {"s2:processing_baseline": "05.00", "earthsearch:boa_offset_applied": applied}
    write_item(tmp_path, properties, assets)
    assert decided(tmp_path)[:2] == (1, offset)


@pytest.mark.parametrize(
    ("bands", "expected"), [((0.0001, -0.1), (1, -1000)), ((0.0001, 0), (1, 0)), ((0.00005, 0), (0.5, 0))]
)
def test_scale_and_offset_of_the_asset_decide(tmp_path, bands, expected):
    asset = {"href": "x/2019-05-03.tif?a=b", "raster:bands": [dict(zip(("scale", "offset"), bands, strict=True))]}
    write_item(tmp_path, {"s2:processing_baseline": "02.00"}, {"red": asset, "blue": {"href": "x/other.tif"}})
    assert decided(tmp_path)[:2] == expected


def test_the_item_in_a_folder_above_counts_and_that_of_another_day_does_not(tmp_path):
    write_item(tmp_path / "a", {"s2:processing_baseline": "05.00"})
    assert decided(tmp_path, "a/b/B02.tif")[:2] == (1, -1000)
    write_item(tmp_path / "c", {"s2:processing_baseline": "05.00", "datetime": "2019-05-08T17:39:11Z"})
    assert decided(tmp_path, "c/2019-05-03.tif")[:2] == (1, 0)
    (tmp_path / "c" / "other.json").write_text("[1]")
    (tmp_path / "c" / "broken.json").write_text("{")
    assert decided(tmp_path, "c/2019-05-08.tif")[:2] == (1, -1000)


def test_of_several_items_the_one_that_names_the_file_counts(tmp_path):
    write_item(tmp_path, {"s2:processing_baseline": "05.00"}, {"x": {"href": "./one.tif"}}, "a.json")
    write_item(tmp_path, {"s2:processing_baseline": "02.00"}, {"x": {"href": "./two.tif"}}, "b.json")
    write_item(tmp_path, {"s2:processing_baseline": "04.00"}, {}, "three.json")
    assert [decided(tmp_path, f"{name}.tif").baseline for name in ("one", "two", "three_B02")] == [
        "05.00",
        "02.00",
        "04.00",
    ]
    assert decided(tmp_path, "four.tif").baseline == ""


@pytest.mark.parametrize("offset", [None, -1000])
def test_the_metadata_of_a_product_decide(tmp_path, offset):
    values = "" if offset is None else f'<BOA_ADD_OFFSET band_id="1">{offset}</BOA_ADD_OFFSET>' * 13
    folder = tmp_path / "S2A_MSIL2A_20190503T173911.SAFE"
    folder.mkdir()
    text = f"<x><PROCESSING_BASELINE>04.00</PROCESSING_BASELINE><L>{values}</L></x>"
    (folder / "MTD_MSIL2A.xml").write_text(text)
    found = decided(folder.parent, "S2A_MSIL2A_20190503T173911.SAFE/GRANULE/x/IMG_DATA/R10m/B02.tif")
    why = "BOA_ADD_OFFSET in MTD_MSIL2A.xml" if offset else "no BOA_ADD_OFFSET in MTD_MSIL2A.xml"
    assert found == (1, offset or 0, why, "04.00")


def test_scale_and_offset_in_the_file_decide_before_the_baseline(tmp_path):
    found = decided(tmp_path, scales=(0.0001, 0.0001), offsets=(-0.1, -0.1), tags={"PROCESSING_BASELINE": "02.00"})
    assert found == (1, -1000, "scale and offset in the file", "02.00")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "item.json: cannot be read as JSON"),
        ("[" * 100_000, "item.json: cannot be read as JSON"),
        ('{"type": "Feature", "properties": [1]}', "item.json: is no STAC item"),
        ('{"type": "Feature", "properties": {}, "assets": [1]}', "item.json: is no STAC item"),
        ('{"type": "Feature", "properties": {}, "assets": {"a": "b"}}', "item.json: is no STAC item"),
    ],
)
def test_a_damaged_item_is_not_left_out(tmp_path, text, words):
    """Without it the offset of an image would not be known."""
    (tmp_path / "item.json").write_text(text)
    with pytest.raises(DataError, match=words):
        metadata._items_in(tmp_path)


def test_other_json_is_left_alone(tmp_path):
    for name, text in {"a": "[1]", "b": '{"type": "Catalog"}', "c": '{"type": "Feature"}'}.items():
        (tmp_path / f"{name}.json").write_text(text)
    assert metadata._items_in(tmp_path) == ()


def test_numbers_of_a_file_are_bounded(tmp_path):
    for number in ("nan", "inf", "1e9"):
        with pytest.raises(DataError, match=f"BOA_ADD_OFFSET is '{number}'; expected a number such as -1000"):
            decided(tmp_path, tags={"BOA_ADD_OFFSET": number})
    for scales, offsets in (((1e9, 1e9), (0, 0)), ((0.5, 0.5), (1e9, 1e9)), ((-1.0, -1.0), (0, 0))):
        with pytest.raises(DataError, match="2019-05-03.tif: scale .* and offset .* cannot be; get it again"):
            decided(tmp_path, scales=scales, offsets=offsets)


@pytest.mark.parametrize(
    "entry", [{"scale": "x"}, {"scale": 0}, {"scale": -1}, {"offset": [1]}, {"scale": float("nan")}, {"offset": 1e999}]
)
def test_scale_and_offset_of_an_asset_are_numbers(tmp_path, entry):
    item = metadata.Item(tmp_path / "item.json", {}, {"a": {"href": "x.tif", "raster:bands": [entry]}})
    with pytest.raises(DataError, match="item.json: scale and offset of a are no numbers that can be; get it again"):
        metadata._asset_scale(item, "x.tif")
    for odd in ({"raster:bands": 3}, {"raster:bands": [3]}, {"raster:bands": {"a": 1}}):
        with pytest.raises(DataError, match="scale and offset of a are no numbers"):
            metadata._asset_scale(item._replace(assets={"a": {"href": "x.tif", **odd}}), "x.tif")
