"""What a map holds beside its pixels, and the files beside it, as other programs read them."""

from __future__ import annotations

import hashlib
import json
import struct
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
from matplotlib.image import imread
from rasterio.enums import ColorInterp

from datasets.classmap import CDL20, ClassMap, write_classmap
from mapping.legend import Entry, read_legend
from tests.support.image_files import ORIGIN, UTM, make_scene, write_dated
from tests.support.map_runs import make_map, read_map, save_model, undecided

HEIGHT, WIDTH = 16, 520  # so wide that there is an overview


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a map, of which a square has no observation and another one a single one."""
    folder = tmp_path_factory.mktemp("map")
    scene = make_scene(2, days=2, height=HEIGHT, width=WIDTH, gaps=0.0)
    scene.values[:, :, :8, :10] = 0
    scene.values[1, :, 8:, :10] = 0
    write_dated(folder / "images", scene)
    model = save_model(folder / "run" / "model_best.pth", "stnet")
    options = ("--probabilities", folder / "p.tif", "--min-observations", 2)
    make_map(model.parent, folder / "images", folder / "map.tif", *options)
    return folder


@pytest.fixture
def file(made):
    with rasterio.open(made / "map.tif") as file:
        yield file


def directories(path) -> list[dict[int, tuple]]:
    """Offset and tags {tag: (type, count, value or offset)} of the directories of a little-endian classic TIFF."""
    data = path.read_bytes()
    assert data[:4] == b"II*\0"
    (place,), found = struct.unpack_from("<I", data, 4), []
    while place:
        (count,) = struct.unpack_from("<H", data, place)
        entries = [struct.unpack_from("<HHII", data, place + 2 + 12 * i) for i in range(count)]
        found.append({"at": place, **{tag: rest for tag, *rest in entries}})
        (place,) = struct.unpack_from("<I", data, place + 2 + 12 * count)
    return found


@pytest.mark.parametrize("name", ["map.tif", "p.tif"])
def test_it_is_a_valid_cog(name, made):
    """The rules of GDAL's validation: tiled, overviews, directories first and in order, then data, small ones first."""
    with rasterio.open(made / name) as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.block_shapes[0] == (512, 512) and file.overviews(1) == [2] and file.compression.name == "deflate"
        count = file.count
        offsets = [int(file.get_tag_item(f"BLOCK_OFFSET_{i}_0", "TIFF", bidx=1)) for i in (0, 1)]
        overview = int(file.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1, ovr=0))
    places = [one["at"] for one in directories(made / name)]
    assert len(places) == 2 and places[0] < places[1] < overview < min(offsets) and offsets == sorted(offsets)
    assert count == (2 if name == "map.tif" else 21)


@pytest.mark.parametrize("name", ["map.tif", "p.tif"])
def test_rio_cogeo_finds_nothing_wrong_with_it(name, made):
    validate = pytest.importorskip("rio_cogeo.cogeo").cog_validate
    assert validate(made / name, strict=True) == (True, [], [])


def test_overviews_take_the_class_that_most_pixels_have(made):
    whole = read_map(made / "map.tif")[0]
    with rasterio.open(made / "map.tif", overview_level=0) as file:
        small = file.read(1)
    assert set(np.unique(small)) <= set(np.unique(whole))
    blocks = whole.reshape(8, 2, 260, 2).transpose(0, 2, 1, 3).reshape(8, 260, 4)
    blocks = np.where(blocks == 255, blocks[..., :1], blocks)
    votes = (blocks[..., None] == blocks[..., None, :]).sum(-1)
    clear = (votes.max(-1) >= 3) & (blocks != 255).all(-1)
    expected = np.take_along_axis(blocks, votes.argmax(-1)[..., None], -1)[..., 0]
    assert clear.sum() > 100
    np.testing.assert_array_equal(small[clear], expected[clear])


def test_bands_say_what_they_are_and_confidence_is_not_opacity(file, made):
    assert file.dtypes == ("uint8", "uint8") and file.nodatavals == (255, 255)
    assert file.descriptions == ("class code", "confidence, per cent")
    assert file.colorinterp == (ColorInterp.palette, ColorInterp.gray)
    assert file.crs == UTM and file.transform == ORIGIN and file.shape == (HEIGHT, WIDTH)
    alone = made / "alone" / "map.tif"
    alone.parent.mkdir(exist_ok=True)
    alone.write_bytes((made / "map.tif").read_bytes())
    with rasterio.open(alone) as without_aux:
        assert without_aux.colorinterp == (ColorInterp.palette, ColorInterp.undefined)
    assert [one[338] for one in directories(alone)] == [[3, 1, 0]] * 2


def test_every_class_has_its_colour_and_no_data_is_transparent(file):
    palette = file.colormap(1)
    assert {code: palette[code] for code in CDL20.codes} == {
        code: (*colour, 255) for code, colour in zip(CDL20.codes, CDL20.colours, strict=True)
    }
    assert palette[255][3] == 0


def test_the_legend_is_in_the_file(made):
    columns = zip(CDL20.codes, CDL20.names, CDL20.colours, strict=True)
    assert read_legend(made / "map.tif") == [Entry(*values, i) for i, values in enumerate(columns)]


def test_category_names_and_attribute_table_are_beside_it(made):
    root = ElementTree.parse(made / "map.tif.aux.xml").getroot()
    band, second = root.findall("PAMRasterBand")
    names = [one.text or "" for one in band.find("CategoryNames")]
    assert {code: name for code, name in enumerate(names) if name} == dict(zip(CDL20.codes, CDL20.names, strict=True))
    rows = [[cell.text for cell in row] for row in band.iter("Row")]
    assert rows[0] == ["0", "Other", "128", "128", "128"] and rows[1] == ["1", "Corn", "255", "212", "0"]
    assert len(rows) == 21
    fields = [[one.find(tag).text for tag in ("Name", "Type", "Usage")] for one in band.iter("FieldDefn")]
    assert fields == [list(text.split()) for text in ("Value 0 5", "Class 2 2", "Red 0 6", "Green 0 7", "Blue 0 8")]
    assert second.get("band") == "2" and second.find("ColorInterp").text == "Gray"


def test_the_qgis_style_names_every_class(made):
    root = ElementTree.parse(made / "map.qml").getroot()
    renderer = root.find("pipe/rasterrenderer")
    assert renderer.get("type") == "paletted" and renderer.get("band") == "1"
    entries = [dict(one.attrib) for one in renderer.find("colorPalette")]
    assert {"value": "5", "color": "#267300", "label": "Soybeans", "alpha": "255"} in entries and len(entries) == 21


def test_tags_say_how_it_was_made(file, made):
    tags, scene = file.tags(), make_scene(2, days=2, height=HEIGHT, width=WIDTH, gaps=0.0)
    model = made / "run" / "model_best.pth"
    assert json.loads(tags["MODEL"]) == {
        "file": "model_best.pth",
        "sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
    }
    images = sorted((made / "images").iterdir())
    assert json.loads(tags["IMAGES"]) == {path.name: path.stat().st_size for path in images}
    assert json.loads(tags["DATES"]) == [str(day) for day in scene.dates]
    assert json.loads(tags["OFFSETS"]) == {path.stem: 0 for path in images}
    assert any("offset 0 for 2 of 2 images" in note for note in json.loads(tags["NOTES"]))
    assert json.loads(tags["VERSIONS"])["gdal"] == rasterio.__gdal_version__
    how = json.loads(tags["OPTIONS"])
    assert (how["min_observations"], how["smooth"], how["window"], how["mask"]) == (2, 1, 256, None)


def test_tags_count_the_pixels(file):
    codes, counts = np.unique(file.read(1), return_counts=True)
    told = json.loads(file.tags()["PIXELS"])
    assert (told["outside"], told["few"], told["classified"]) == (0, 160, HEIGHT * WIDTH - 160)
    found = dict(zip(codes.tolist(), counts.tolist(), strict=True))
    assert told["classes"] == {str(code): found.get(code, 0) for code in CDL20.codes}


def test_probabilities_have_a_band_a_class(made):
    with rasterio.open(made / "p.tif") as file:
        assert file.count == 21 and set(file.dtypes) == {"uint8"} and set(file.nodatavals) == {255}
        assert file.descriptions[:2] == ("Grass/Pasture, per cent", "Soybeans, per cent")
        assert ColorInterp.alpha not in file.colorinterp
        each = file.read()
    codes, confidence = read_map(made / "map.tif")
    assert ((each == 255).all(0) == (codes == 255)).all()
    valid = codes != 255
    assert (each.max(0)[valid] == confidence[valid]).all()


def test_the_picture_shows_the_map_in_its_colours(made):
    picture = (imread(made / "map.png")[..., :3] * 255).round().astype(int).reshape(-1, 3)
    shown, codes = {tuple(colour) for colour in np.unique(picture, axis=0)}, read_map(made / "map.tif")[0]
    counts = zip(*np.unique(codes, return_counts=True), strict=True)
    common = [code for code, count in counts if code < 255 and count > 400]
    colours = dict(zip(CDL20.codes, CDL20.colours, strict=True))
    assert len(common) > 3 and all(colours[code] in shown for code in common)


# ---- codes


def save_with_codes(path, codes) -> None:
    classifier = undecided()
    classifier.classmap = ClassMap(CDL20.names, (*codes, *CDL20.codes[len(codes) :]), CDL20.colours)
    classifier.save(path)


@pytest.mark.parametrize(
    "code, dtype, no_data", [(254, "uint8", 255), (255, "uint16", 65535), (65534, "uint16", 65535)]
)
def test_large_codes_make_a_map_of_16_bits(code, dtype, no_data, tmp_path, no_figures):
    scene = make_scene(2, days=4, height=16, width=16, gaps=0.0)
    scene.values[:, :, 0, 0] = 0
    write_dated(tmp_path / "images", scene)
    save_with_codes(tmp_path / "model.pth", (code,))
    with rasterio.open(make_map(tmp_path / "model.pth", tmp_path / "images", tmp_path / "map.tif")) as file:
        assert file.dtypes == (dtype, dtype) and file.nodata == no_data
        codes, confidence = file.read()
        assert codes[0, 0] == confidence[0, 0] == no_data and (codes == no_data).sum() == 1
        assert (codes == code).any() and confidence[codes != no_data].max() <= 100
        assert file.colormap(1)[code] == (*CDL20.colours[0], 255)
        assert file.colorinterp == (ColorInterp.palette, ColorInterp.gray)


def test_codes_that_no_map_can_hold_are_refused(tmp_path, no_figures, capsys):
    write_dated(tmp_path / "images", make_scene(2, days=4, height=16, width=16))
    save_with_codes(tmp_path / "model.pth", (65535,))
    with pytest.raises(SystemExit) as end:
        make_map(tmp_path / "model.pth", tmp_path / "images", tmp_path / "map.tif")
    assert end.value.code == 2
    assert "code 65535 of Grass/Pasture: a map holds codes of at most 65534" in capsys.readouterr().err


def test_a_checkpoint_without_a_class_map_needs_one(tmp_path, no_figures, capsys):
    write_dated(tmp_path / "images", make_scene(2, days=4, height=16, width=16))
    classifier = undecided()
    classifier.classmap = None
    classifier.save(tmp_path / "model.pth")
    with pytest.raises(SystemExit) as end:
        make_map(tmp_path / "model.pth", tmp_path / "images", tmp_path / "map.tif")
    assert end.value.code == 2 and "has no class map; give one with --classes FILE" in capsys.readouterr().err
    write_classmap(tmp_path / "classes.csv", CDL20)
    options = ("--classes", tmp_path / "classes.csv")
    out = make_map(tmp_path / "model.pth", tmp_path / "images", tmp_path / "map.tif", *options)
    save_model(tmp_path / "with.pth")
    expected = make_map(tmp_path / "with.pth", tmp_path / "images", tmp_path / "expected.tif")
    assert (read_map(out) == read_map(expected)).all()
