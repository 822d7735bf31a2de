"""`python -m datasets.download stac` against a STAC API on the loopback."""

import json
import os
import signal
import time
from datetime import datetime

import numpy as np
import pystac
import pytest
import rasterio
from rasterio.transform import from_origin
from rasterio.warp import reproject, transform_bounds

from datasets import stac
from datasets.download import main
from datasets.images import open_images
from datasets.stac import mosaic
from datasets.stac.items import BANDS
from tests.support.stac_server import WORLD, serve

LEFT, TOP = 499_800, 4_200_300  # of the tile, UTM zone 14 north, near its central meridian
SIZE = 64  # pixels of 10 m
TWENTY = ("B5", "B6", "B7", "B8A", "B11", "B12")  # bands of 20 m
BBOX = transform_bounds("EPSG:32614", "EPSG:4326", LEFT + 95, TOP - 495, LEFT + 495, TOP - 95)
KEYS = {
    "planetary-computer": ["B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"],
    "earth-search": "blue green red rededge1 rededge2 rededge3 nir nir08 swir16 swir22".split(),
    "copernicus": "B02_10m B03_10m B04_10m B05_20m B06_20m B07_20m B08_10m B8A_20m B11_20m B12_20m".split(),
}


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.01")
    monkeypatch.setattr(mosaic, "BACKOFF", 0.01)
    with serve(tmp_path / "served") as server:
        yield server


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def add_image(server, name, when="2021-05-03T17:20:00Z", keys="planetary-computer", left=LEFT, **properties):
    """Serve an item and return what its ten bands are on the 10 m grid: (10, SIZE, SIZE)."""
    rng = np.random.default_rng(sum(name.encode()))
    item = pystac.Item(name, WORLD, [-180, -90, 180, 90], datetime.fromisoformat(when), {"proj:epsg": 32614})
    item.properties |= {"s2:processing_baseline": "03.01", "eo:cloud_cover": 10.0} | properties
    tile = np.zeros((len(BANDS), SIZE, SIZE), np.uint16)
    for index, (band, key) in enumerate(zip(BANDS, KEYS[keys], strict=True)):
        step = 2 if band in TWENTY else 1
        values = rng.integers(1, 10_000, (SIZE // step, SIZE // step), np.uint16)
        href = server.write(f"{name}/{key}.tif", values, left, TOP, 10 * step)
        item.add_asset(key, pystac.Asset(href, media_type=pystac.MediaType.COG, roles=["data"]))
        tile[index] = values.repeat(step, 0).repeat(step, 1)
    server.add("sentinel-2-l2a", item)
    return tile


def cut(tile, file, left=LEFT):
    """The part of a tile that lies on the grid of a file."""
    column, row = round((file.transform.c - left) / 10), round((TOP - file.transform.f) / 10)
    return tile[:, row : row + file.height, column : column + file.width]


def fetch(server, out, *options):
    """Run the command and return its exit code."""
    arguments = ["stac", "--catalog", server.url, "--year", "2021", "--out", str(out), "--workers", "1", *options]
    if "--bbox" not in options:
        arguments += ["--bbox", *map(str, BBOX)]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code


def asked(server, name):
    """Requests for files of an item."""
    return sum(count for path, count in server.asked.items() if path.startswith(f"/files/{name}/"))


def stamp(path):
    """Changes when a file is written again; requests do not tell, as GDAL remembers what it has read."""
    return path.stat().st_ino, path.stat().st_mtime_ns


def assert_holds(path, tile, left=LEFT):
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(range(1, 11)), cut(tile, file, left))


@pytest.mark.parametrize("keys", KEYS)
def test_a_day_has_the_pixels_of_its_item(server, out, keys):
    tile = add_image(server, "a", keys=keys)
    assert fetch(server, out) == 0
    assert [path.name for path in (out / "images").iterdir()] == ["2021-05-03.tif"]
    with rasterio.open(out / "images" / "2021-05-03.tif") as file:
        assert file.crs == "EPSG:32614" and file.dtypes == ("uint16",) * 10 and file.nodata == 0
        assert file.descriptions == ("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12")
        assert file.is_tiled and file.compression.name == "deflate"
        # 400 m from x = 95 to 495: pixels from 90 to 500, and at most one more where the meridians converge
        assert file.transform.c - LEFT == 90 and TOP - file.transform.f == 90
        assert file.res == (10, 10) and 41 <= file.width <= 42 and 41 <= file.height <= 42
        np.testing.assert_array_equal(file.read(), cut(tile, file))
        tags = file.tags()
    assert tags["PROCESSING_BASELINE"] == "03.01" and tags["BOA_ADD_OFFSET"] == "0" and tags["STAC_ITEMS"] == "a"


def test_bands_are_found_by_common_name(server, out):
    tile = add_image(server, "a", keys="earth-search")
    (item,) = server.items["sentinel-2-l2a"]
    blue = item["assets"]["blue"]
    item["assets"] = {f"asset{i}": asset | {"eo:bands": [{"name": f"x{i}", "common_name": key}]}
                      for i, (key, asset) in enumerate(item["assets"].items())}  # fmt: skip
    item["assets"]["asset3"]["eo:bands"] = [{"name": "B05", "common_name": "rededge"}]
    item["assets"]["asset4"]["eo:bands"] = [{"name": "B06", "common_name": "rededge"}]
    item["assets"]["asset5"]["eo:bands"] = [{"name": "B07", "common_name": "rededge"}]
    picture = {"eo:bands": [{"name": "B02", "common_name": "blue"}], "roles": ["visual"], "href": blue["href"] + "no"}
    item["assets"] = {"picture": picture} | item["assets"]
    assert fetch(server, out) == 0
    assert_holds(out / "images" / "2021-05-03.tif", tile)


def test_all_pages_are_read(server, out):
    server.page = 2
    tiles = {day: add_image(server, f"d{day}", f"2021-06-{day:02}T17:20:00Z") for day in range(1, 6)}
    assert fetch(server, out, "--workers", "3") == 0
    assert server.asked["/search"] == 3
    for day, tile in tiles.items():
        assert_holds(out / "images" / f"2021-06-{day:02}.tif", tile)
    assert len(list((out / "images").iterdir())) == 5


def test_an_item_that_is_on_two_pages_counts_once(server, out, capsys):
    server.page = 1
    tile = add_image(server, "a")
    server.items["sentinel-2-l2a"] *= 2
    assert fetch(server, out) == 0
    assert "1 items on 1 days" in capsys.readouterr().out
    assert_holds(out / "images" / "2021-05-03.tif", tile)


def test_a_search_that_fails_twice_is_repeated(server, out):
    add_image(server, "a")
    server.statuses["/search"] = [503, 500]
    assert fetch(server, out) == 0
    assert server.asked["/search"] == 3


@pytest.mark.parametrize("failures", [2, 8])  # within the retries of GDAL, and beyond them
def test_a_file_that_fails_at_first_is_read_again(server, out, failures, capsys):
    tile = add_image(server, "a")
    server.statuses["/files/a/B06.tif"] = [500] * failures
    assert fetch(server, out) == 0
    assert_holds(out / "images" / "2021-05-03.tif", tile)
    assert not server.statuses["/files/a/B06.tif"] and "failed" not in capsys.readouterr().out


def test_a_file_that_does_not_answer_in_time_is_read_again(server, out, monkeypatch):
    monkeypatch.setenv("GDAL_HTTP_TIMEOUT", "1")
    tile = add_image(server, "a")
    waits = [1.5]
    server.hooks["/files/a/B8A.tif"] = lambda: time.sleep(waits.pop() if waits else 0)
    assert fetch(server, out) == 0
    assert_holds(out / "images" / "2021-05-03.tif", tile)


def test_a_missing_file_is_not_asked_for_again(server, out, capsys):
    add_image(server, "a")
    (server.folder / "a" / "B02.tif").unlink()
    assert fetch(server, out) == 1
    assert server.asked["/files/a/B02.tif"] <= 2  # HEAD and GET
    assert "failed: a cannot be read: HTTP response code: 404" in capsys.readouterr().out


def test_a_truncated_file_is_set_aside_until_it_is_whole(server, out, capsys):
    tiles = {name: add_image(server, name, f"2021-05-0{i}T17:20:00Z") for i, name in enumerate("abc", 1)}
    server.truncated["/files/b/B11.tif"] = 300
    assert fetch(server, out) == 1
    said = capsys.readouterr().out
    assert "failed: b cannot be read" in said and "1 items failed" in said
    assert sorted(path.name for path in (out / "images").iterdir()) == ["2021-05-01.tif", "2021-05-03.tif"]

    server.truncated.clear()
    stamps = [stamp(path) for path in sorted((out / "images").iterdir())]
    assert fetch(server, out) == 0
    assert [stamp(out / "images" / f"2021-05-0{i}.tif") for i in (1, 3)] == stamps
    assert "2 days are there already" in capsys.readouterr().out
    for i, name in enumerate("abc", 1):
        assert_holds(out / "images" / f"2021-05-0{i}.tif", tiles[name])


def test_a_day_that_lacks_an_item_is_completed_by_the_next_run(server, out):
    newer = add_image(server, "newer", **{"s2:processing_baseline": "03.01"})
    older = add_image(server, "older", **{"s2:processing_baseline": "02.14"})
    path = out / "images" / "2021-05-03.tif"
    server.truncated["/files/newer/B02.tif"] = 300
    assert fetch(server, out) == 1
    assert_holds(path, older)
    with rasterio.open(path) as file:
        assert file.tags()["STAC_ITEMS"] == "older" and file.tags()["STAC_FAILED"] == "newer"
    server.truncated.clear()
    assert fetch(server, out) == 0
    assert_holds(path, newer)


def test_an_interrupted_run_is_resumed(server, out, monkeypatch):
    monkeypatch.setattr(mosaic, "WINDOW", 16)  # so that the day is not finished at once
    tiles = {name: add_image(server, name, f"2021-05-0{i}T17:20:00Z") for i, name in enumerate("abc", 1)}

    def interrupt():
        del server.hooks["/files/b/B03.tif"]
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)

    server.hooks["/files/b/B03.tif"] = interrupt
    assert fetch(server, out) == 130
    assert [path.name for path in (out / "images").iterdir()] == ["2021-05-01.tif"]
    assert asked(server, "c") == 0

    leftover = out / "images" / ".2021-05-02.partial-0123.tif"  # of a run that was killed
    leftover.write_bytes(b"half")
    before = stamp(out / "images" / "2021-05-01.tif")
    assert fetch(server, out) == 0
    assert stamp(out / "images" / "2021-05-01.tif") == before and not leftover.exists()
    for i, name in enumerate("abc", 1):
        assert_holds(out / "images" / f"2021-05-0{i}.tif", tiles[name])


def test_the_newest_baseline_counts_and_older_items_fill_what_it_lacks(server, out):
    old = add_image(server, "old", **{"s2:processing_baseline": "02.14"})
    new = add_image(server, "new", left=LEFT + 240, **{"s2:processing_baseline": "05.00"})  # lacks the west
    with rasterio.open(server.folder / "old" / "B04.tif", "r+") as file:
        old[2, 12:15, 12:15], old[2, 20, 20] = 0, 65000
        file.write(old[2], 1)
    assert fetch(server, out) == 0
    with rasterio.open(out / "images" / "2021-05-03.tif") as file:
        tags, values = file.tags(), file.read().astype(int)
        west = round((LEFT + 240 - file.transform.c) / 10)
        expected = cut(old, file)[:, :, :west].astype(int)
        expected = np.where(expected == 0, 0, np.minimum(expected + 1000, 65535))
        np.testing.assert_array_equal(values[:, :, :west], expected)
        np.testing.assert_array_equal(values[:, :, west:], new[:, 9 : 9 + file.height, : file.width - west])
    assert tags["STAC_ITEMS"] == "new old" and tags["BOA_ADD_OFFSET"] == "-1000"
    assert tags["PROCESSING_BASELINE"] == "05.00"


def test_pixels_without_data_are_filled_from_the_next_item(server, out):
    new = add_image(server, "new", **{"s2:generation_time": "2024-01-01T00:00:00Z"})
    old = add_image(server, "old", **{"s2:generation_time": "2022-01-01T00:00:00Z"})
    for key, step in zip(KEYS["planetary-computer"], [1, 1, 1, 2, 2, 2, 1, 2, 2, 2], strict=True):
        with rasterio.open(server.folder / "new" / f"{key}.tif", "r+") as file:
            values = file.read(1)
            values[20 // step : 30 // step, 20 // step : 40 // step] = 0
            if key == "B02":
                values[32, 20] = 0  # the other bands have a value here, so it is one of the image's
            file.write(values, 1)
    new[0, 32, 20] = 0
    new[:, 20:30, 20:40] = old[:, 20:30, 20:40]
    assert fetch(server, out) == 0
    assert_holds(out / "images" / "2021-05-03.tif", new)


def test_the_no_data_value_of_a_file_becomes_0(server, out):
    tile = add_image(server, "a")
    for key, step in zip(KEYS["planetary-computer"], [1, 1, 1, 2, 2, 2, 1, 2, 2, 2], strict=True):
        with rasterio.open(server.folder / "a" / f"{key}.tif", "r+") as file:
            file.nodata = 65535
            values = file.read(1)
            values[20 // step : 30 // step, 20 // step : 40 // step] = 65535
            file.write(values, 1)
    tile[:, 20:30, 20:40] = 0
    assert fetch(server, out) == 0
    assert_holds(out / "images" / "2021-05-03.tif", tile)


def test_reflectances_are_not_taken_for_digital_numbers(server, out, capsys):
    add_image(server, "a")
    server.write("a/B04.tif", np.full((SIZE, SIZE), 0.3, np.float32), LEFT, TOP, 10)
    assert fetch(server, out) == 1
    assert "failed: a holds float32 in B4, expected whole numbers (DN)" in capsys.readouterr().out


def test_windows_do_not_show(server, out, monkeypatch):
    monkeypatch.setattr(mosaic, "WINDOW", 16)
    tile = add_image(server, "a")
    assert fetch(server, out) == 0
    assert_holds(out / "images" / "2021-05-03.tif", tile)


def test_the_days_are_solar_and_of_the_season(server, out):
    """At 99 degrees west, midnight is at 6:36 UTC."""
    times = ["2021-01-01T06:30:00Z", "2021-01-01T06:40:00Z", "2021-07-02T06:30:00Z", "2022-01-01T06:30:00Z"]
    for i, when in enumerate([*times, "2022-01-01T06:40:00Z"]):
        add_image(server, f"i{i}", when)
    assert fetch(server, out) == 0
    days = sorted(path.stem for path in (out / "images").iterdir())
    assert days == ["2021-01-01", "2021-07-01", "2021-12-31"]


def test_a_season_may_lie_across_new_year(server, out, capsys):
    for when in ("2020-09-30", "2020-10-01", "2021-09-30", "2021-10-01"):
        add_image(server, when, f"{when}T17:20:00Z")
    assert fetch(server, out, "--season-start", "10-01") == 0
    assert sorted(path.stem for path in (out / "images").iterdir()) == ["2020-10-01", "2021-09-30"]
    assert f"unlabelled --images {out / 'images'} --year 2021 --season-start 10-01" in capsys.readouterr().out


def test_cloudy_items_are_left_out_and_counted(server, out, capsys):
    add_image(server, "clear", "2021-05-01T17:20:00Z", **{"eo:cloud_cover": 20.0})
    add_image(server, "cloudy", "2021-05-02T17:20:00Z", **{"eo:cloud_cover": 20.1})
    add_image(server, "unknown", "2021-05-03T17:20:00Z", **{"eo:cloud_cover": None})
    assert fetch(server, out, "--cloud-cover", "20") == 0
    assert sorted(path.stem for path in (out / "images").iterdir()) == ["2021-05-01", "2021-05-03"]
    assert "2 items on 2 days" in (said := capsys.readouterr().out) and "1 left out for clouds" in said


def test_at_most_so_many_items(server, out):
    for day in range(1, 5):
        add_image(server, f"d{day}", f"2021-06-{day:02}T17:20:00Z")
    assert fetch(server, out, "--max-items", "2") == 0
    assert sorted(path.stem for path in (out / "images").iterdir()) == ["2021-06-01", "2021-06-02"]


def test_the_scene_classification_is_a_band_of_its_own(server, out):
    """It comes from the item of the pixel, and no offset is added to it."""
    tile = add_image(server, "a", **{"s2:processing_baseline": "02.14"})
    add_image(server, "z", left=LEFT + 10_000, **{"s2:processing_baseline": "05.00"})  # lies elsewhere
    scl = np.random.default_rng(0).integers(0, 12, (SIZE // 2, SIZE // 2), np.uint8)
    for item in server.items["sentinel-2-l2a"]:
        href = server.write(f"{item['id']}/SCL.tif", scl, LEFT, TOP, 20)
        item["assets"]["SCL"] = pystac.Asset(href, media_type=pystac.MediaType.COG).to_dict()
    assert fetch(server, out, "--scl") == 0
    with rasterio.open(out / "images" / "2021-05-03.tif") as file:
        assert file.descriptions[10] == "SCL" and file.count == 11
        np.testing.assert_array_equal(file.read(11), cut(scl.repeat(2, 0).repeat(2, 1)[None], file)[0])
        np.testing.assert_array_equal(file.read(range(1, 11)), cut(tile, file) + 1000)


def test_resolution_and_crs_can_be_chosen(server, out):
    tile = add_image(server, "a")
    assert fetch(server, out, "--resolution", "20", "--crs", "32614") == 0
    with rasterio.open(out / "images" / "2021-05-03.tif") as file:
        assert file.res == (20, 20) and file.transform.c % 20 == 0 and 21 <= file.width <= 22
        column, row = round((file.transform.c - LEFT) / 20), round((TOP - file.transform.f) / 20)
        expected = tile[8, ::2, ::2][row : row + file.height, column : column + file.width]
        np.testing.assert_array_equal(file.read(9), expected)  # swir1, which has 20 m
    other = out.with_name("other")
    assert fetch(server, other, "--crs", "EPSG:32615") == 0
    with rasterio.open(other / "images" / "2021-05-03.tif") as file:
        assert file.crs == "EPSG:32615"
        expected = np.zeros((file.height, file.width), np.uint16)
        source = {"src_transform": from_origin(LEFT, TOP, 10, 10), "src_crs": "EPSG:32614"}
        reproject(tile[0], expected, **source, dst_transform=file.transform, dst_crs="EPSG:32615")
        assert (expected != 0).all()
        # GDAL may take the other one of two pixels whose centres are as near
        assert (file.read(1) == expected).mean() > 0.99


def test_without_a_crs_in_the_items_the_grid_is_in_the_zone_of_the_place(server, out):
    tile = add_image(server, "a")
    del server.items["sentinel-2-l2a"][0]["properties"]["proj:epsg"]
    assert fetch(server, out) == 0
    assert_holds(out / "images" / "2021-05-03.tif", tile)


def test_the_crs_is_that_of_most_items(server, out):
    for name, properties in {"a": {}, "d": {}, "b": {"proj:code": "EPSG:32613"}, "c": {"proj:epsg": 32613}}.items():
        add_image(server, name, **{"proj:epsg": None, **properties})
    assert fetch(server, out) == 0
    with rasterio.open(out / "images" / "2021-05-03.tif") as file:
        assert file.crs == "EPSG:32613"


def test_an_item_without_a_band_is_set_aside(server, out, capsys):
    add_image(server, "a", "2021-05-01T17:20:00Z")
    add_image(server, "b", "2021-05-02T17:20:00Z")
    del server.items["sentinel-2-l2a"][1]["assets"]["B8A"]
    assert fetch(server, out) == 1
    assert "failed: b has no asset for B8A; its assets are B02, B03," in capsys.readouterr().out
    assert [path.stem for path in (out / "images").iterdir()] == ["2021-05-01"]


def test_addresses_are_signed_when_they_are_read(server, out, monkeypatch, capsys):
    tile = add_image(server, "a")
    server.token = "sig=1"
    assert fetch(server, out.with_name("unsigned")) == 1
    monkeypatch.setitem(stac.SIGNERS, "planetary-computer", lambda: lambda url: f"{url}?sig=1")
    (server.folder / "a" / "B03.tif").write_bytes(b"no GeoTIFF")
    assert fetch(server, out, "--sign", "planetary-computer") == 1
    said = capsys.readouterr()
    assert "failed: a cannot be read" in said.out and "/files/a/B03.tif" in said.out
    assert "sig=1" not in said.out + said.err  # a signature opens the files for whoever has it

    add_image(server, "a")
    assert fetch(server, out, "--sign", "planetary-computer") == 0
    assert_holds(out / "images" / "2021-05-03.tif", tile)


def add_labels(server, name, key, values, left, year=2021, **options):
    """Serve a tile of the Cropland Data Layer, whose pixel edges lie at 15 m plus multiples of 30 m."""
    span = {"start_datetime": f"{year}-01-01T00:00:00Z", "end_datetime": f"{year + 1}-01-01T00:00:00Z"}
    known = next((item for item in server.items["usda-cdl"] if item["id"] == name), None)
    href = server.write(f"{name}/{key}.tif", values, left, top_of_labels(), 30, crs="EPSG:5070", **options)
    asset = pystac.Asset(href, media_type=pystac.MediaType.COG)
    if known:
        known["assets"][key] = asset.to_dict()
        return
    item = pystac.Item(name, WORLD, [-180, -90, 180, 90], None, {}, *map(datetime.fromisoformat, span.values()))
    item.properties |= {"usda_cdl:type": "cropland" if key == "cropland" else "cultivated"}
    item.add_asset(key, asset)
    server.add("usda-cdl", item)


def label_bounds():
    return transform_bounds("EPSG:4326", "EPSG:5070", *BBOX, densify_pts=21)


def left_of_labels():
    return (label_bounds()[0] - 200) // 30 * 30 + 15


def top_of_labels():
    return (label_bounds()[3] + 200) // 30 * 30 + 15


def test_labels_are_written_on_their_own_grid(server, out, capsys):
    """From two tiles, with the codes, the confidence and the palette of the source."""
    add_image(server, "a")
    rng = np.random.default_rng(1)
    codes, confidence = rng.integers(1, 200, (2, 40, 40), np.uint8)
    confidence[15, 15] = 0
    palette = {code: (code, 255 - code, 7, 255) for code in range(256)}
    left = left_of_labels()
    for name, columns, at in (("west", slice(0, 12), left), ("east", slice(12, 40), left + 12 * 30)):
        add_labels(server, name, "cropland", codes[:, columns], at, colormap=palette)
        add_labels(server, name, "confidence", confidence[:, columns], at)
    add_labels(server, "last-year", "cropland", codes[::-1], left, 2020)
    add_labels(server, "other", "cultivated", codes[::-1], left)
    assert fetch(server, out) == 0
    west, south, east, north = label_bounds()
    for name, values in (("cdl.tif", codes), ("confidence.tif", confidence)):
        with rasterio.open(out / name) as file:
            assert file.crs == "EPSG:5070" and file.res == (30, 30) and file.dtypes == ("uint8",)
            assert 30 <= west - file.bounds.left < 60 and 30 <= file.bounds.top - north < 60  # one pixel more
            assert 30 <= file.bounds.right - east < 60 and 30 <= south - file.bounds.bottom < 60
            row, column = round((top_of_labels() - file.bounds.top) / 30), round((file.bounds.left - left) / 30)
            expected = values[row : row + file.height, column : column + file.width]
            np.testing.assert_array_equal(file.read(1), expected)
            if name == "cdl.tif":
                assert file.colormap(1) == palette
    options = f"--labels {out / 'cdl.tif'} --confidence {out / 'confidence.tif'}"
    assert options in capsys.readouterr().out
    stamps = [stamp(out / name) for name in ("cdl.tif", "confidence.tif")]
    assert fetch(server, out) == 0
    assert [stamp(out / name) for name in ("cdl.tif", "confidence.tif")] == stamps


def test_labels_without_confidence(server, out, capsys):
    add_image(server, "a")
    add_labels(server, "cdl", "cropland", np.full((40, 40), 5, np.uint8), left_of_labels())
    assert fetch(server, out) == 0
    assert not (out / "confidence.tif").exists()
    assert f"--labels {out / 'cdl.tif'} --site" in capsys.readouterr().out


def test_a_truncated_label_raster_is_a_failure(server, out, capsys):
    add_image(server, "a")
    add_labels(server, "cdl", "cropland", np.full((40, 40), 5, np.uint8), left_of_labels())
    server.truncated["/files/cdl/cropland.tif"] = 100
    assert fetch(server, out) == 1
    assert "failed: cdl cannot be read" in capsys.readouterr().out
    assert not (out / "cdl.tif").exists() and (out / "images" / "2021-05-03.tif").exists()

    left = left_of_labels()
    add_labels(server, "another", "cropland", np.full((40, 30), 6, np.uint8), left + 10 * 30)
    assert fetch(server, out) == 1
    with rasterio.open(out / "cdl.tif") as file:
        column = round((left - file.transform.c) / 30) + 10
        assert (file.read(1)[:, :column] == 0).all() and (file.read(1)[:, column:] == 6).all()
    server.truncated.clear()
    assert fetch(server, out) == 0
    with rasterio.open(out / "cdl.tif") as file:
        assert (file.read(1)[:, :column] == 5).all() and column > 0


def test_no_labels_are_said_to_be_missing(server, out, capsys):
    add_image(server, "a")
    assert fetch(server, out) == 0
    assert f"no labels: {server.url} has no collection usda-cdl" in capsys.readouterr().out
    add_labels(server, "other", "cultivated", np.full((40, 40), 5, np.uint8), left_of_labels())
    assert fetch(server, out) == 0
    assert "no labels: usda-cdl has nothing of 2021" in capsys.readouterr().out


def refused(server, out, capsys, *options):
    assert fetch(server, out, *options) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1
    return message


def test_a_folder_holds_one_download(server, out, capsys):
    add_image(server, "a")
    assert fetch(server, out, "--cloud-cover", "50") == 0
    capsys.readouterr()
    message = refused(server, out, capsys, "--cloud-cover", "20")
    assert f"{out} was downloaded with --cloud-cover 50.0, not 20.0" in message
    assert "--scl False, not True" in refused(server, out, capsys, "--cloud-cover", "50", "--scl")
    assert json.loads((out / "download.json").read_text())["crs"] == "EPSG:32614"


def test_a_folder_with_other_images_is_refused(server, out, capsys):
    add_image(server, "a")
    (out / "images").mkdir(parents=True)
    (out / "images" / "mine.tif").write_bytes(b"")
    assert "holds files that are not of a download" in refused(server, out, capsys)


def test_what_cannot_be_used_is_one_line(server, out, capsys):
    assert "has no collection sentinel-2-l2a" in refused(server, out, capsys)
    add_image(server, "a", "2020-05-03T17:20:00Z")
    assert "check --bbox, --year and --cloud-cover" in refused(server, out, capsys)
    assert "west < east" in refused(server, out, capsys, "--bbox", "10", "0", "-10", "5")
    add_image(server, "b")
    assert "EPSG:4326 is not in metres" in refused(server, out, capsys, "--crs", "4326")
    assert "EPSG:99999" in refused(server, out, capsys, "--crs", "99999")
    assert "expected a number from 0 to 100" in refused(server, out, capsys, "--cloud-cover", "101")
    assert "expected a whole number from 1 on" in refused(server, out, capsys, "--workers", "0")
    assert "season start '13-01'" in refused(server, out, capsys, "--season-start", "13-01")
    assert not (out / "download.json").exists()


def test_an_address_that_is_no_api_is_one_line(server, out, capsys):
    add_image(server, "a")
    message = refused(server, out, capsys, "--catalog", f"{server.url}/nothing")
    assert f"{server.url}/nothing does not answer as a STAC API" in message
    server.searchable = False
    assert "catalogue without a search" in refused(server, out, capsys)


def test_signing_needs_its_package(server, out, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "planetary_computer", None)
    assert "pip install planetary-computer" in refused(server, out, capsys, "--sign", "planetary-computer")


def test_the_command_comes_before_its_options(capsys, out):
    with pytest.raises(SystemExit, match="2"):
        main(["--out", str(out), "stac"])
    assert capsys.readouterr().err == "error: stac comes first, before its options; see --help\n"


def test_the_folder_is_read_as_images(server, out):
    """The reader finds the days, the bands and the offset that were written."""
    tiles = [
        add_image(server, "a", "2021-05-01T17:20:00Z", **{"s2:processing_baseline": "02.14"}),
        add_image(server, "b", "2021-05-06T17:20:00Z", **{"s2:processing_baseline": "05.00"}),
        add_image(
            server, "c", "2021-05-09T17:20:00Z",
            **{"s2:processing_baseline": "05.00", "earthsearch:boa_offset_applied": True},
        ),
    ]  # fmt: skip
    assert fetch(server, out) == 0
    found = open_images(out / "images")
    assert [str(day) for day in found.dates] == ["2021-05-01", "2021-05-06", "2021-05-09"]
    with rasterio.open(out / "images" / "2021-05-01.tif") as file:
        expected = np.stack([cut(tile, file) for tile in tiles]).astype(int)  # (3, 10, height, width)
    expected[1] = np.maximum(expected[1] - 1000, 1)
    pixels = found.read(rasterio.windows.Window(0, 0, found.grid.width, found.grid.height))
    assert (pixels.lengths == 3).all() and pixels.doy[:3].tolist() == [121, 126, 129]
    np.testing.assert_array_equal(pixels.bands, expected.transpose(2, 3, 0, 1).reshape(-1, 10))
