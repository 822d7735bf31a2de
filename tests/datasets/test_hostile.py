"""Files made to run code, to reach other files or servers, or to fill the memory: refused in one line."""

from __future__ import annotations

import importlib.util
import json
import pickle
import resource
import socket
import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest

from datasets.errors import DataError
from datasets.readers.published import npy_store
from datasets.readers.unpickle import load_object_array
from datasets.vectorfile import format_of, read_frame
from datasets.xmlfile import LARGEST, parse_xml
from tests.support.layout import object_array, save_unlabelled
from utils.errors import UsageError
from utils.results.runs import read_run

needs_rasters = pytest.mark.skipif(importlib.util.find_spec("rasterio") is None, reason="rasterio is not installed")
needs_vectors = pytest.mark.skipif(importlib.util.find_spec("pyogrio") is None, reason="pyogrio is not installed")


@pytest.fixture
def server():
    """An address on this machine, and a function that tells whether anybody has connected to it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)

        def was_reached() -> bool:
            try:
                listening.accept()[0].close()
            except BlockingIOError:
                return False
            return True

        yield f"http://127.0.0.1:{listening.getsockname()[1]}/a.tif", was_reached


# ---- arrays


def npy_of(path: Path, content: bytes, shape: str = "(1,)") -> Path:
    text = f"{{'descr': '|O', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00\x76\x00" + text.encode() + content)
    return path


def test_a_number_in_a_pickle_does_not_decide_how_much_memory_is_taken(tmp_path):
    """The unpickler in C makes a table as long as the largest number of a memo entry, 16 GB here."""
    path = npy_of(tmp_path / "a.npy", b"\x80\x02]r\xff\xff\xff\x3f.")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match="does not hold an object array"):
        load_object_array(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_lists_that_hold_each_other_are_not_written_out(tmp_path):
    label: list = [1]
    for _ in range(60):
        label = [label, label]
    content = object_array([object_array([np.ones((3, 11)), np.ones((3, 11))]), object_array([label, 2])])
    path = tmp_path / "2019" / "npy" / "Train_All.npy"
    path.parent.mkdir(parents=True)
    np.save(path, np.stack(list(content)), allow_pickle=True)
    start = time.monotonic()
    with pytest.raises(DataError, match=r"series 0 has label \[\[\["):
        npy_store(path)
    assert time.monotonic() - start < 5


def test_a_header_that_lies_about_the_shape_is_refused(tmp_path):
    save_unlabelled(tmp_path / "a.npy", [np.ones((3, 11))] * 2)
    content = (tmp_path / "a.npy").read_bytes()
    assert len(load_object_array(tmp_path / "a.npy")) == 2
    (tmp_path / "a.npy").write_bytes(content.replace(b"(2,)", b"(3,)"))
    with pytest.raises(DataError, match=r"a.npy: damaged: its header says shape \(3,\), its content has \(2,\)"):
        load_object_array(tmp_path / "a.npy")


def test_no_class_of_a_pickle_is_made(tmp_path):
    evidence = tmp_path / "it-ran"

    class Runs:
        def __reduce__(self):
            return Path.touch, (evidence,)

    for protocol in range(5):
        path = npy_of(tmp_path / "a.npy", pickle.dumps(Runs(), protocol))
        with pytest.raises(DataError, match="refused, it asks for"):
            load_object_array(path)
    assert not evidence.exists()


# ---- JSON and XML


def test_json_without_end_is_a_line(tmp_path):
    (tmp_path / "args.json").write_text("[" * 100_000)
    (tmp_path / "testlog.csv").write_text("year\n2019\n")
    with pytest.raises(UsageError, match="damaged args.json"):
        read_run(tmp_path)
    (tmp_path / "meta.json").write_text("[" * 100_000)
    from datasets.store import Store

    with pytest.raises(DataError, match="meta.json: cannot be read"):
        Store.open(tmp_path)


LAUGHS = '<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;&b;">]><a>&c;</a>'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (LAUGHS, "declares XML entities"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', "declares XML entities or a document type"),
        ("<a>", "is no XML"),
        ("<a>" * 5000, "is no XML"),
        ("", "is no XML"),
    ],
)
def test_xml_is_plain(tmp_path, text, words):
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(ValueError, match=words):
        parse_xml(tmp_path / "a.xml")


def test_xml_is_small(tmp_path):
    (tmp_path / "a.xml").write_text("<a>" + " " * (LARGEST - 7) + "</a>")
    assert parse_xml(tmp_path / "a.xml").tag == "a"
    (tmp_path / "a.xml").write_text("<a>" + " " * (LARGEST - 6) + "</a>")
    with pytest.raises(ValueError, match="is larger than 16 MiB"):
        parse_xml(tmp_path / "a.xml")
    (tmp_path / "a.xml").write_bytes(b"\xef\xbb\xbf<a/>")
    assert parse_xml(tmp_path / "a.xml").tag == "a"
    (tmp_path / "a.xml").write_bytes(b"<a>\xff</a>")
    with pytest.raises(ValueError, match="is no XML"):
        parse_xml(tmp_path / "a.xml")


# ---- rasters

VIRTUAL = """<VRTDataset rasterXSize="2" rasterYSize="2"{kind}><SRS>EPSG:32614</SRS>
<GeoTransform>500000, 10, 0, 4200000, 0, -10</GeoTransform>{more}
<VRTRasterBand dataType="UInt16" band="1"{band}>{inside}<SimpleSource>
<SourceFilename relativeToVRT="1">{file}</SourceFilename>
<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"""


def virtual(path: Path, file: str, kind: str = "", band: str = "", inside: str = "", more: str = "") -> Path:
    path.write_text(VIRTUAL.format(file=file, kind=kind, band=band, inside=inside, more=more))
    return path


def small_tif(path: Path) -> Path:
    from tests.support.image_files import write_tif

    return write_tif(path, np.full((1, 16, 16), 5, np.uint8))


@needs_rasters
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": ' subClass="VRTProcessedDataset"'}, "has a VRTProcessedDataset; expected a virtual raster of bands"),
        ({"band": ' subClass="VRTRawRasterBand"'}, "has a VRTRawRasterBand"),
        ({"inside": "<PixelFunctionLanguage>Python</PixelFunctionLanguage>"}, "has a PixelFunctionLanguage"),
        ({"inside": "<PixelFunctionCode>import os</PixelFunctionCode>"}, "has a PixelFunctionCode"),
        ({"more": "<ProcessingSteps/>"}, "has a ProcessingSteps"),
        ({"file": "/vsicurl/http://x/y.tif"}, "points to /vsicurl/http://x/y.tif, which is no file"),
        ({"file": "../secret.tif"}, "points to ../secret.tif, which is no file"),
        ({"file": "NETCDF:a.tif"}, "points to NETCDF:a.tif, which is no file"),
        ({"file": "service.xml"}, "cannot be read as a raster: it is no GeoTIFF"),
    ],
)
def test_virtual_rasters_hold_bands_of_rasters_in_their_folder_and_nothing_else(tmp_path, change, words):
    from datasets.imagery.raster import check_virtual, open_alone

    small_tif(tmp_path / "secret.tif")
    folder = tmp_path / "images"
    small_tif(folder / "a.tif")
    (folder / "service.xml").write_text("<GDAL_WMS><Service name='TMS'/></GDAL_WMS>")
    check_virtual(virtual(folder / "a.vrt", "a.tif", band=' subClass="VRTSourcedRasterBand"'), folder)
    with open_alone(folder / "a.vrt") as file:
        assert (file.read() == 5).all()
    virtual(folder / "a.vrt", **{"file": "a.tif", **change})
    with pytest.raises(DataError, match=words):
        with open_alone(folder / "a.vrt"):
            ...


@needs_rasters
def test_a_link_out_of_the_folder_is_no_source(tmp_path):
    from datasets.imagery.raster import read_header

    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "link.tif").symlink_to(small_tif(tmp_path / "secret.tif"))
    with pytest.raises(DataError, match="points to link.tif, which is no file in"):
        read_header(virtual(tmp_path / "images" / "a.vrt", "link.tif"), tmp_path / "images")


@needs_rasters
@pytest.mark.parametrize("way", ["alone", "image"])
def test_what_lies_beside_a_raster_reaches_no_server(tmp_path, server, way):
    """GDAL fetches the overviews that an .aux.xml names when it counts them."""
    import rasterio

    from datasets.imagery.raster import open_alone, opened, read_header

    (address, was_reached), path = server, small_tif(tmp_path / "a.tif")
    entry = f'<MDI key="OVERVIEW_FILE">/vsicurl/{address}</MDI>'
    (tmp_path / "a.tif.aux.xml").write_text(f'<PAMDataset><Metadata domain="OVERVIEWS">{entry}</Metadata></PAMDataset>')
    read_header(path, tmp_path)
    with rasterio.Env(GDAL_HTTP_TIMEOUT=1), open_alone(path) if way == "alone" else opened(path) as file:
        assert file.overviews(1) == [] and file.read(1, out_shape=(4, 4)).tolist() == [[5] * 4] * 4
    assert not was_reached()
    with rasterio.Env(GDAL_HTTP_TIMEOUT=1, CPL_VSIL_CURL_NON_CACHED="/vsicurl/"), rasterio.open(path) as file:
        _ = file.overviews(1)
    assert was_reached()  # so there was something to guard against


@needs_rasters
def test_reading_images_is_guarded_too(tmp_path, monkeypatch):
    import rasterio

    from datasets.imagery.grid import Nearest
    from datasets.imagery.raster import RasterFiles, read_header

    path, seen, real = small_tif(tmp_path / "a.tif"), [], rasterio.open
    monkeypatch.setattr(rasterio, "open", lambda *a, **k: (seen.append(rasterio.env.getenv()), real(*a, **k))[1])
    header = read_header(path, tmp_path)
    part = Nearest(0, 0, 2, 2, None, None, None, True)
    assert (RasterFiles().read(header, [0], part)[0] == 5).all()
    for settings in seen:
        assert settings["CPL_VSIL_CURL_ALLOWED_FILENAME"] == "none" and settings["GDAL_VRT_ENABLE_PYTHON"] is False
    assert len(seen) == 2


@needs_rasters
@pytest.mark.parametrize("content", [b"", b"<GDAL_WMS></GDAL_WMS>", b"\x89PNG\r\n", b"DSAA\n2 2\n"])
def test_rasters_of_other_formats_are_refused(tmp_path, content):
    from mapping.codes import open_raster

    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(
        DataError, match="a.tif: cannot be read as a raster: it is no GeoTIFF, JPEG 2000, Imagine or VRT"
    ):
        with open_raster(tmp_path / "a.tif"):
            ...


@pytest.mark.parametrize("href", ["/etc/passwd", "file:///etc/passwd", "/vsicurl/http://x/a.tif", "../a.tif"])
def test_a_catalogue_names_no_file_of_this_machine(href):
    pytest.importorskip("pystac")
    from datasets.stac.items import ItemFailed
    from datasets.stac.mosaic import address

    class Asset:
        def get_absolute_href(self):
            return href

    with pytest.raises(ItemFailed, match="expected an address that begins with https://, http://, s3://, gs://"):
        address(Asset(), None)


# ---- vectors

OGR_VIRTUAL = (
    """<OGRVRTDataSource><OGRVRTLayer name="a"><SrcDataSource>{}</SrcDataSource></OGRVRTLayer></OGRVRTDataSource>"""
)


@needs_vectors
def test_vector_files_are_known_by_their_content(tmp_path, server):
    address, was_reached = server
    hostile = {
        "a.vrt": OGR_VIRTUAL.format(f"/vsicurl/{address}"),
        "a.gpkg": OGR_VIRTUAL.format("/etc/passwd"),
        "a.csv": "id,x,y\n1,2,3\n",
        "a.gml": '<?xml version="1.0"?><gml:FeatureCollection/>',
        "a.zip": "PK\x03\x04",
        "empty": "",
    }
    for name, content in hostile.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(
            DataError, match=f"{name}: cannot be read as polygons: it is of another format; expected Geo"
        ):
            read_frame(tmp_path / name, "polygons")
    (tmp_path / "a.gdb").mkdir()
    with pytest.raises(DataError, match="it is a folder"):
        read_frame(tmp_path / "a.gdb", "polygons")
    with pytest.raises(DataError, match="nothing: no such file"):
        read_frame(tmp_path / "nothing", "polygons")
    assert not was_reached()


@needs_vectors
@pytest.mark.parametrize("name", ["a.gpkg", "a.shp", "a.fgb", "a.geojson", "a.parquet", "a.kml"])
def test_the_usual_formats_are_read(tmp_path, name):
    geopandas, shapely = pytest.importorskip("geopandas"), pytest.importorskip("shapely")
    frame = geopandas.GeoDataFrame({"crop": ["a", "b"]}, geometry=shapely.box([0, 2], 0, [1, 3], 1), crs=4326)
    if name == "a.parquet":
        frame.to_parquet(tmp_path / name)
    else:
        frame.to_file(tmp_path / name, driver={"a.kml": "KML", "a.fgb": "FlatGeobuf"}.get(name))
    found = read_frame(tmp_path / name, "polygons")
    assert len(found) == 2 and sorted(found.geometry.bounds["maxx"]) == [1, 3]
    if name == "a.gpkg":
        assert len(read_frame(tmp_path / name, "polygons", layer="a", columns=[]).columns) == 1


@needs_vectors
@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("CREATE VIEW v AS SELECT load_extension('x')", "has the view v; expected plain tables"),
        ("create  virtual table v using fts5(a)", "has the virtual table v"),
    ],
)
def test_databases_hold_tables_alone(tmp_path, statement, words):
    geopandas, shapely = pytest.importorskip("geopandas"), pytest.importorskip("shapely")
    path = tmp_path / "a.gpkg"
    geopandas.GeoDataFrame({"crop": ["a"]}, geometry=[shapely.box(0, 0, 1, 1)], crs=4326).to_file(path)
    assert format_of(path, "polygons") == "GeoPackage"  # with the R-tree that they have
    with sqlite3.connect(path) as database:
        database.execute(statement)
    database.close()
    with pytest.raises(DataError, match=words):
        read_frame(path, "polygons")
    path.write_bytes(b"SQLite format 3\0" + b"\1" * 300)
    with pytest.raises(DataError, match="a.gpkg: cannot be read as GeoPackage"):
        read_frame(path, "polygons")


@pytest.mark.parametrize("declared", ['<!DOCTYPE kml [<!ENTITY a SYSTEM "file:///etc/passwd">]>', ""])
def test_kml_has_no_entities(tmp_path, declared):
    (tmp_path / "a.kml").write_text(f'<?xml version="1.0"?>\n<!-- a -->\n<kml xmlns="x">{declared}</kml>')
    if not declared:
        assert format_of(tmp_path / "a.kml", "polygons") == "KML"
        return
    with pytest.raises(DataError, match="a.kml: declares XML entities"):
        format_of(tmp_path / "a.kml", "polygons")


def test_geojson_is_known_after_blanks_and_a_mark(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf \n" + json.dumps({"type": "FeatureCollection"}).encode())
    assert format_of(tmp_path / "a.json", "polygons") == "GeoJSON"


@needs_vectors
@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_coordinates_are_finite(tmp_path, bad):
    geopandas, shapely = pytest.importorskip("geopandas"), pytest.importorskip("shapely")
    shapes = [shapely.box(0, 0, 1, 1), shapely.Polygon([(0, 0), (1, 0), (bad, 1)])]
    geopandas.GeoDataFrame({"crop": [1, 2]}, geometry=shapes, crs=32614).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=f"a.parquet: feature 1 has the coordinates {bad}, 1; expected finite numbers"):
        read_frame(tmp_path / "a.parquet", "polygons")


def test_the_drivers_for_files_of_a_catalogue_are_two():
    from datasets.stac.mosaic import driver_for

    assert driver_for("https://x/a.JP2?sig=1.tif") == "JP2OpenJPEG" and driver_for("s3://x/a.j2k") == "JP2OpenJPEG"
    assert {driver_for(f"https://x/a{end}") for end in (".tif", ".vrt", "", "?a=.jp2")} == {"GTiff"}
