import json
import sys
from datetime import date, datetime, timezone

import pytest
from rasterio.warp import transform_bounds

from datasets.area import solar_day
from datasets.download import main
from datasets.earth_engine.plan import (
    LABEL_ANCHOR,
    Destination,
    Export,
    Site,
    image_selection,
    plan,
    read_destination,
    read_sites,
)
from datasets.errors import DataError
from datasets.season import Season
from tests.conftest import SHARED, needs_shared

SITE = Site("Harvey", (-97.5, 38.0, -97.49, 38.01))
BUCKET = Destination("gs", "bucket", "data/us")


def test_plan_of_a_site():
    """Golden: one day and the labels."""
    exports = plan([SITE], 2019, Season.of(2019), BUCKET, {"Harvey": [date(2019, 5, 3)]}, cloud_cover=80.0)
    common = {"maxPixels": 10**13, "fileFormat": "GeoTIFF", "formatOptions": {"noData": 0}}
    label_grid = {
        "crs": "EPSG:5070",
        "crsTransform": [30.0, 0.0, -130515.0, 0.0, -30.0, 1665015.0],
        "region": [-130507.5, 1663792.5, -129532.5, 1665007.5],
    }
    assert exports == [
        Export(
            {
                "collection": "COPERNICUS/S2_SR_HARMONIZED",
                "bbox": [-97.5, 38.0, -97.49, 38.01],
                "start": "2019-05-03T06:29:59Z",
                "end": "2019-05-04T06:29:59Z",
                "max": {"CLOUDY_PIXEL_PERCENTAGE": 80.0},
                "bands": ["B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12"],
            },
            {
                "description": "Harvey-2019-05-03",
                "bucket": "bucket",
                "fileNamePrefix": "data/us/Harvey/images/2019-05-03",
                "crs": "EPSG:32614",
                "crsTransform": [10.0, 0.0, 631680.0, 0.0, -10.0, 4208010.0],
                "region": [631682.5, 4206872.5, 632577.5, 4208007.5],
                **common,
            },
        ),
        *(
            Export(
                {"image": "USDA/NASS/CDL/2019", "bands": [band]},
                {
                    "description": f"Harvey-{name}",
                    "bucket": "bucket",
                    "fileNamePrefix": f"data/us/Harvey/{name}",
                    **label_grid,
                    **common,
                },
            )
            for band, name in (("cropland", "cdl"), ("confidence", "confidence"))
        ),
    ]


def test_the_region_lies_in_the_grid_and_covers_the_site():
    (image, label, _) = plan([SITE], 2019, Season.of(2019), BUCKET, {"Harvey": [date(2019, 5, 3)]}, resolution=20.0)
    for export, pixel, margin in ((image, 20, 0), (label, 30, 30)):
        a, _, left, _, e, top = export.parameters["crsTransform"]
        assert (a, e) == (pixel, -pixel)
        west, south, east, north = export.parameters["region"]
        bounds = transform_bounds("EPSG:4326", export.parameters["crs"], *SITE.bbox)
        assert left < west < left + pixel and top - pixel < north < top
        assert west <= bounds[0] - margin + pixel / 4 and east >= bounds[2] + margin - pixel / 4
        assert south <= bounds[1] - margin + pixel / 4 and north >= bounds[3] + margin - pixel / 4


@needs_shared
def test_the_label_grid_is_that_of_the_published_layer():
    import rasterio

    with rasterio.open(SHARED / "rasters" / "cdl" / "2021_30m_cdls.tif") as raster:
        assert (raster.transform.c % 30, raster.transform.f % 30) == LABEL_ANCHOR


def test_files_on_drive_have_a_folder_of_their_own_for_the_images_of_each_site():
    sites = [SITE, SITE._replace(name="Reno")]
    dates = {"Harvey": [date(2019, 5, 3)], "Reno": [date(2019, 5, 3), date(2019, 5, 8)]}
    exports = plan(sites, 2019, Season.of(2019), Destination("drive", "maps"), dates)
    places = [(e.parameters["folder"], e.parameters["fileNamePrefix"], e.parameters["description"]) for e in exports]
    assert places == [
        ("maps-Harvey-images", "2019-05-03", "Harvey-2019-05-03"),
        ("maps-Harvey", "cdl", "Harvey-cdl"),
        ("maps-Harvey", "confidence", "Harvey-confidence"),
        ("maps-Reno-images", "2019-05-03", "Reno-2019-05-03"),
        ("maps-Reno-images", "2019-05-08", "Reno-2019-05-08"),
        ("maps-Reno", "cdl", "Reno-cdl"),
        ("maps-Reno", "confidence", "Reno-confidence"),
    ]
    assert len(plan(sites, 2019, Season.of(2019), BUCKET, dates, labels=False)) == 3


def test_a_date_outside_the_season_is_refused():
    season = Season.of(2019, "10-01")
    assert plan([SITE], 2019, season, BUCKET, {"Harvey": [date(2018, 10, 1)]})
    with pytest.raises(DataError, match="Harvey: 2019-10-01 is not in the season 2018-10-01 to 2019-09-30"):
        plan([SITE], 2019, season, BUCKET, {"Harvey": [date(2019, 10, 1)]})


@pytest.mark.parametrize("west", [-179.5, -97.5, 0.0, 100.0, 179.0])
def test_the_selection_of_a_day_is_the_solar_day(west):
    site = Site("x", (west, 38.0, west + 0.5, 38.5))
    selection = image_selection(site, date(2019, 5, 3), date(2019, 5, 4), 100.0)
    start, end = (datetime.fromisoformat(selection[key]).timestamp() for key in ("start", "end"))
    for seconds, day in ((start - 1, 2), (start + 1, 3), (end - 1, 3), (end + 1, 4)):
        assert solar_day(datetime.fromtimestamp(seconds, timezone.utc), west + 0.25) == date(2019, 5, day)


@pytest.mark.parametrize(
    ("text", "destination"),
    [
        ("gs://bucket", Destination("gs", "bucket", "")),
        ("gs://bucket/", Destination("gs", "bucket", "")),
        ("gs://bucket/a/b/", Destination("gs", "bucket", "a/b")),
        ("drive://folder", Destination("drive", "folder")),
    ],
)
def test_destination(text, destination):
    assert read_destination(text) == destination


@pytest.mark.parametrize("text", ["gs://", "s3://bucket", "folder", "drive://a/b", "drive://"])
def test_a_destination_that_is_none(text):
    with pytest.raises(DataError, match="expected gs://BUCKET/PREFIX or drive://FOLDER"):
        read_destination(text)


def test_a_bucket_without_prefix():
    assert Destination("gs", "b").of("Harvey", "", "cdl") == {"bucket": "b", "fileNamePrefix": "Harvey/cdl"}


def feature(name="Harvey", coordinates=None, **more):
    ring = [[-97.5, 38.0], [-97.49, 38.002], [-97.492, 38.01], [-97.5, 38.0]]
    geometry = {"type": "Polygon", "coordinates": coordinates or [ring]}
    return {"type": "Feature", "properties": {"name": name}, "geometry": geometry} | more


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "sites.geojson"
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return write


def test_sites_of_a_file(write):
    parts = [[[[1, 2, 9], [3, 4, 9], [1, 4, 9]]], [[[5, 6, 9], [7, 8, 9], [5, 8, 9]]]]
    other = feature(coordinates=parts, properties={"site": "two"})
    third = feature(properties=None, id="three")
    assert read_sites(write({"type": "FeatureCollection", "features": [feature(), other, third]})) == [
        SITE,
        Site("two", (1, 2, 7, 8)),
        Site("three", SITE.bbox),
    ]
    assert read_sites(write(feature())) == [SITE]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not GeoJSON"),
        ([], "no features"),
        ({"features": []}, "no features"),
        ({"features": [feature(), feature()]}, "two features Harvey"),
        ({"features": [feature(""), feature()]}, "feature 1: name ''"),
        ({"features": [feature("a/b")]}, "feature 1: name 'a/b'"),
        ({"features": [feature(), feature("x", geometry=None)]}, "feature 2: expected a GeoJSON feature"),
        ({"features": [feature(coordinates=[[]])]}, "feature 1: expected"),
        ({"features": [feature(coordinates=[[6e5, 4e6], [7e5, 5e6]])]}, r"feature 1 \(Harvey\): bounding box"),
    ],
)
def test_a_file_without_usable_sites(write, content, message):
    with pytest.raises(DataError, match=message):
        read_sites(write(content))


def run(write, *options):
    with pytest.raises(SystemExit) as ended:
        sites = str(write(feature()))
        main(["earth-engine", "--sites", sites, "--year", "2019", "--out", "gs://bucket/data/us", *options])
    return ended.value.code


def test_a_dry_run_prints_the_tasks_without_the_package(write, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ee", None)
    assert run(write, "--dry-run", "--dates", "2019-05-03", "2019-05-08", "--cloud-cover", "80") == 0
    tasks = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    dates = {"Harvey": [date(2019, 5, 3), date(2019, 5, 8)]}
    assert tasks == [e._asdict() for e in plan([SITE], 2019, Season.of(2019), BUCKET, dates, cloud_cover=80.0)]
    assert run(write, "--dry-run", "--no-labels", "--season-start", "10-01", "--resolution", "20") == 0
    said = capsys.readouterr()
    (task,) = [json.loads(line) for line in said.out.splitlines()]
    assert task["parameters"]["description"] == "Harvey-2018-10-01" and task["parameters"]["crsTransform"][0] == 20
    assert "stand for each day of 2018-10-01 to 2019-09-30 that has images" in said.err


def test_without_the_package_one_line_says_what_to_install(write, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ee", None)
    assert run(write) == 2
    assert capsys.readouterr().err == "error: Earth Engine needs its package: pip install earthengine-api\n"


@pytest.mark.parametrize("options", [["--dates", "03.05.2019"], ["--cloud-cover", "-1"], ["--resolution", "0"]])
def test_options_that_cannot_be_used(write, capsys, options):
    assert run(write, *options) == 2
    message = capsys.readouterr().err
    assert "expected" in message and message.count("\n") == 1
