from datetime import date, datetime, timezone

import pystac
import pytest

from datasets.season import Season
from datasets.stac.days import plan_day
from datasets.stac.items import BANDS, ItemFailed, baseline_of, find_assets, newest_first, radiometry_of, time_of
from datasets.stac.search import select, utc_days

SHIFTED = {"raster:bands": [{"scale": 0.0001, "offset": -0.1}]}
UNSHIFTED = {"raster:bands": [{"scale": 0.0001, "offset": 0}]}


def item(name="a", when="2021-05-03T17:20:00Z", fields=None, keys=(), **properties):
    item = pystac.Item(name, None, None, datetime.fromisoformat(when), properties)
    for key in keys:
        item.add_asset(key, pystac.Asset(f"{key}.tif", extra_fields=dict(fields or {})))
    return item


def radiometry(fields=None, **properties):
    one = item(fields=fields, keys=["red"], **properties)
    return radiometry_of(one, one.assets.values())


@pytest.mark.parametrize(
    ("properties", "fields", "offset"),
    [
        ({"s2:processing_baseline": "03.99"}, {}, 0),
        ({"s2:processing_baseline": "04.00"}, {}, -1000),
        ({"s2:processing_baseline": "05.11"}, {}, -1000),
        ({"processing:version": "05.11"}, {}, -1000),  # Copernicus Data Space
        ({"s2:product_uri": "S2A_MSIL2A_20190101T101411_N0500_R022_T32TPT_20230101T000000.SAFE"}, {}, -1000),
        ({"s2:product_uri": "S2A_MSIL2A_20190101T101411_N0211_R022_T32TPT_20190101T000000.SAFE"}, {}, 0),
        ({"s2:processing_baseline": "05.00", "earthsearch:boa_offset_applied": True}, SHIFTED, 0),
        ({"s2:processing_baseline": "05.00", "earthsearch:boa_offset_applied": False}, SHIFTED, -1000),
        ({"s2:processing_baseline": "02.14", "earthsearch:boa_offset_applied": False}, SHIFTED, 0),
        ({"s2:processing_baseline": "05.00"}, UNSHIFTED, 0),
        ({"s2:processing_baseline": "05.00"}, {"raster:bands": [{"scale": 0.0002, "offset": -0.1}]}, -500),
        ({"s2:processing_baseline": "05.00"}, {"raster:bands": [{"nodata": 0}]}, -1000),
        ({}, {"raster:scale": 0.0001, "raster:offset": -0.1}, -1000),  # STAC 1.1
        ({}, {"bands": [{"raster:scale": 0.0001, "raster:offset": -0.1}]}, -1000),
        ({}, {"raster:offset": -0.1}, -1000),
        ({}, {}, None),
    ],
)
def test_offset_that_metadata_tell(properties, fields, offset):
    assert radiometry(fields, **properties).offset == offset


def test_baseline_and_reason_are_kept():
    decided = radiometry(**{"s2:processing_baseline": "04.00"})
    assert decided.baseline == "04.00" and decided.reason == "processing baseline 04.00 is 04.00 or later"
    assert radiometry().baseline is None


def test_bands_of_different_offsets_are_refused():
    one = item(keys=["red", "green"])
    one.assets["red"].extra_fields, one.assets["green"].extra_fields = SHIFTED, UNSHIFTED
    with pytest.raises(ItemFailed, match="different offsets for its bands: -1000, 0 DN"):
        radiometry_of(one, one.assets.values())


@pytest.mark.parametrize(("text", "baseline"), [("05.09", (5, 9)), ("5.9", (5, 9)), ("x", None), (None, None)])
def test_baseline(text, baseline):
    assert baseline_of(item(**{"s2:processing_baseline": text})) == baseline


def test_an_asset_is_found_by_key_before_band_name_before_common_name():
    one = item(keys=["x", "y", "B02"])
    names = {"B2": BANDS["B2"]}
    one.assets["x"].extra_fields = {"eo:bands": [{"name": "other", "common_name": "blue"}]}
    one.assets["y"].extra_fields = {"bands": [{"name": "B02", "eo:common_name": "coastal"}]}
    assert find_assets(one, names)["B2"] is one.assets["B02"]
    del one.assets["B02"]
    assert find_assets(one, names)["B2"] is one.assets["y"]
    del one.assets["y"]
    assert find_assets(one, names)["B2"] is one.assets["x"]
    one.assets["x"].extra_fields = {"bands": [{"name": "other", "eo:common_name": "blue"}]}
    assert find_assets(one, names)["B2"] is one.assets["x"]


def test_a_picture_of_several_bands_is_no_band():
    one = item(keys=["visual"], fields={"eo:bands": [{"name": "blue"}, {"name": "green"}, {"name": "red"}]})
    with pytest.raises(ItemFailed, match="no asset for B2; its assets are visual"):
        find_assets(one, {"B2": BANDS["B2"]})


def test_of_several_resolutions_the_finest_is_taken():
    one = item(keys=["B02_60m", "B02_10m", "B02_20m"])
    for key, asset in one.assets.items():
        asset.extra_fields = {"gsd": int(key[4:6])}
    assert find_assets(one, {"B2": BANDS["B2"]})["B2"] is one.assets["B02_10m"]


def test_newest_baseline_then_newest_production_then_last_id():
    items = [
        item("a", **{"s2:processing_baseline": "05.00", "created": "2024"}),
        item("b", **{"s2:processing_baseline": "02.14", "s2:generation_time": "2026"}),
        item("c", **{"s2:processing_baseline": "05.00", "s2:generation_time": "2025"}),
        item("d_0", **{"s2:processing_baseline": "05.10"}),
        item("d_1", **{"s2:processing_baseline": "05.10"}),
        item("e"),
    ]
    assert [one.id for one in newest_first(items)] == ["d_1", "d_0", "c", "a", "b", "e"]


def test_an_item_without_a_time():
    one = item()
    one.datetime = None
    with pytest.raises(ItemFailed, match="no datetime"):
        time_of(one)
    one.properties["start_datetime"] = "2021-01-01T00:00:00Z"
    assert time_of(one) == datetime(2021, 1, 1, tzinfo=timezone.utc)


def test_items_of_a_day_are_grouped_and_others_left_out():
    items = [
        item("cloudy", "2021-05-02T17:20:00Z", **{"eo:cloud_cover": 81}),
        item("late", "2021-05-03T17:20:14Z", **{"s2:processing_baseline": "05.00"}),
        item("early", "2021-05-03T17:20:00Z", **{"s2:processing_baseline": "05.10"}),
        item("first", "2021-05-01T17:20:00Z", **{"eo:cloud_cover": 80}),
        item("next year", "2022-05-01T17:20:00Z"),
    ]
    items.append(item("no time"))
    items[-1].datetime = None
    season = Season.of(2021)
    days, cloudy, failed = select(iter(items), season, -99.0, 80.0, None)
    assert {day: [one.id for one in found] for day, found in days.items()} == {
        date(2021, 5, 1): ["first"],
        date(2021, 5, 3): ["early", "late"],
    }
    assert list(days) == sorted(days) and cloudy == 1 and failed == {"no time": "has no datetime"}
    assert utc_days(season) == (date(2020, 12, 31), date(2022, 1, 1))


def test_plan_of_a_day_shifts_to_the_smallest_offset(tmp_path):
    keys = [names[0] for names in BANDS.values()]
    items = [
        item("new", keys=keys, **{"s2:processing_baseline": "05.00"}),
        item("old", keys=keys, **{"s2:processing_baseline": "02.14"}),
        item("unknown", keys=keys),
        item("broken", keys=keys[1:], **{"s2:processing_baseline": "05.00"}),
    ]
    day, failed = plan_day(tmp_path / "x.tif", items, BANDS)
    assert [(source.name, source.shift) for source in day.sources] == [("new", 0), ("old", 1000), ("unknown", 1000)]
    assert list(failed) == ["broken"]
    assert day.tags["BOA_ADD_OFFSET"] == "-1000" and day.tags["PROCESSING_BASELINE"] == "05.00"
    day, _ = plan_day(tmp_path / "x.tif", items[2:3], BANDS)
    assert day.tags == {"OFFSET_REASON": "no processing baseline and no offset in the catalogue"}
