"""Errors of who maps: each ends with one clear line and exit code 2, before anything is computed or replaced."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest

from datasets.classmap import CDL20, ClassMap, write_classmap
from mapping import predict
from mapping.arguments import Shard, get_args, odd
from mapping.windows import Plan
from tests.support.image_files import CODES, make_scene, write_dated, write_stack, write_tif
from tests.support.map_runs import save_model, undecided
from tests.support.maps import refused
from utils.errors import UsageError

SCENE = make_scene(4, days=2, height=16, width=16)
pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with images and a model, as one who makes no mistake has them, and with others."""
    place = tmp_path_factory.mktemp("place")
    write_dated(place / "images", SCENE)
    save_model(place / "model.pth")
    write_stack(place / "stack", SCENE)
    (place / "stack" / "98-togo_2019-02-06_2020-02-01.tif").rename(place / "stack.tif")
    write_tif(place / "no crs" / "S2_2019-05-01.tif", SCENE.values[0], crs=None, names=CODES)
    write_tif(place / "radar" / "S2_2019-05-01.tif", SCENE.values[0][:2], names=("VV", "VH"))
    write_tif(place / "few" / "S2_2019-05-01.tif", SCENE.values[0][:3], names=("B4", "B3", "B2"))
    (place / "empty").mkdir()
    for name in ("crop.tif", "grid.tif"):
        write_tif(place / name, np.ones((1, 16, 16), np.uint8))
    (place / "cut.pth").write_bytes((place / "model.pth").read_bytes()[:500])
    classifier = undecided()
    classifier.classmap = None
    classifier.save(place / "bare.pth")
    classifier.classmap = ClassMap(CDL20.names, (70_000, *CDL20.codes[1:]), CDL20.colours)
    classifier.save(place / "large.pth")
    short = ClassMap((*CDL20.names[:2], "Other"), (*CDL20.codes[:2], 0), CDL20.colours[:3])
    write_classmap(place / "short.csv", short)
    return place


@pytest.fixture
def refuse(place, tmp_path, capsys, monkeypatch):
    """The line with which the command ends that leaves everything as it was."""
    monkeypatch.chdir(place)

    def refuse(*words, out: Path = tmp_path / "map.tif", model: str = "model.pth", images: str = "images") -> str:
        def state():
            files = [file for folder in (place, tmp_path) for file in folder.rglob("*") if file.is_file()]
            return {file: file.read_bytes() for file in files}

        before = state()
        arguments = ["--model", model, "--images", images, "--out", out, "-d", "cpu", *words]
        with monkeypatch.context() as patch:
            patch.setattr(Plan, "read", None)  # nothing may be computed
            line = refused(predict.main, arguments, capsys)
        assert state() == before
        return line

    return refuse


@pytest.mark.parametrize(
    "images, message",
    [
        ("radar", "S2_2019-05-01.tif: band B02 (blue), B03 (green)"),
        ("few", "B12 (swir2) is missing (it has B02 (blue), B03 (green), B04 (red)); expected all ten of B02"),
        ("no crs", "no crs/S2_2019-05-01.tif: has no coordinate reference system; set it"),
        ("empty", "empty: no images found"),
        ("nothing", "nothing: no such file or folder"),
    ],
)
def test_images_that_cannot_be_used(images, message, refuse):
    assert message in refuse(images=images)


@pytest.mark.parametrize(
    "model, message",
    [
        ("bare.pth", "bare.pth: has no class map; give one with --classes FILE"),
        ("large.pth", "code 70000 of Grass/Pasture: a map holds codes of at most 65534"),
        ("cut.pth", "cut.pth: not a checkpoint"),
        ("nothing.pth", "nothing.pth: no such checkpoint"),
        ("images", "holds no .pth file"),
    ],
)
def test_models_that_cannot_be_used(model, message, refuse):
    assert message in refuse(model=model)


@pytest.mark.parametrize(
    "words, message",
    [
        (["--merge", "--part", "1/2"], "--merge and --part exclude each other"),
        (["--merge", "--workers", 2], "--merge and --workers exclude each other"),
        (["--merge", "--scheduler", "tcp://a:1"], "--scheduler and --merge exclude each other"),
        (["--scheduler", "tcp://a:1", "--workers", 2], "--scheduler and --workers exclude each other"),
        (["--scheduler", "tcp://a:1", "--part", "1/2"], "--scheduler and --part exclude each other"),
        (["--part", "0/2"], "--part: 0/2: expected i/n with i from 1 to n"),
        (["--part", "3/2"], "--part: 3/2: expected i/n with i from 1 to n"),
        (["--part", "one"], "--part: one: expected i/n with i from 1 to n"),
        (["--smooth", 4], "--smooth: 4: expected an odd number of pixels, as 3 or 5"),
        (["--window", 15], "--window: 15 is below 16"),
        (["--workers", 0], "--workers: 0 is below 1"),
        (["--min-observations", 0], "--min-observations: 0 is below 1"),
        (["--bbox-crs", "EPSG:4326"], "--bbox-crs is of --bbox, which is not given"),
        (["--bbox", 10, 50, 11, 51], "--bbox 10 50 11 51: lies outside the images, which cover -99 "),
        (["--within", "nothing.gpkg"], "--within nothing.gpkg: no such file"),
        (["--classes", "nothing.csv"], "nothing.csv: no such file"),
        (["--classes", "short.csv"], "model.pth: has 21 outputs, the class map 3 classes"),
        (["--device", "gpu"], "--device gpu: cannot be used"),
        (["--mask", "scl:3"], "no SCL band or file, which --mask needs"),
        (["--year", 2018], "are outside 2018-01-01 to 2018-12-31; check --year"),
        (["--probabilities", "p.npy"], "--probabilities p.npy: expected a name that ends in .tif or .tiff"),
        (["--probabilities", "images/p.tif"], "--probabilities images/p.tif: lies among the images"),
        (["--probabilities", "no/p.tif"], "--probabilities no/p.tif: there is no folder no"),
        (["--probabilities", "crop.tif"], "--probabilities crop.tif: exists; give --overwrite to replace it"),
    ],
)
def test_options_that_cannot_be(words, message, refuse):
    assert message in refuse(*words)


@pytest.mark.parametrize(
    "out, words, message",
    [
        ("map.png", [], "--out map.png: expected a name that ends in .tif or .tiff"),
        ("no/map.tif", [], "--out no/map.tif: there is no folder no"),
        ("images/map.tif", [], "--out images/map.tif: lies among the images"),
        ("images/sub/../map.tif", [], "--out images/sub/../map.tif"),
        ("crop.tif", [], "--out crop.tif: exists; give --overwrite to replace it, or another name"),
        ("stack.tif", ["--images", "stack.tif"], "--out stack.tif: is --images too, which would be lost"),
        ("stack/../stack.tif", ["--images", "stack.tif"], "is --images too"),
        ("crop.tif", ["--within", "crop.tif"], "--out crop.tif: is --within too"),
        ("grid.tif", ["--grid", "grid.tif"], "--out grid.tif: is --grid too"),
        ("a.tif", ["--probabilities", "a.tif"], "--probabilities a.tif: is --out too"),
        ("a.tif", ["--probabilities", "stack/../a.tif"], "is --out too"),
        ("a.tif", ["--within", "crop.tif", "--probabilities", "crop.tif"], "--probabilities crop.tif: is --within too"),
    ],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_names_that_are_taken(out, words, message, overwrite, refuse):
    if overwrite and "exists" in message:
        return
    assert message in refuse(*words, *(["--overwrite"] if overwrite else []), out=Path(out))


def test_a_folder_is_not_replaced(refuse, tmp_path):
    (tmp_path / "map.tif").mkdir()
    assert "map.tif: is a folder; expected the name of a file" in refuse("--overwrite")


@pytest.mark.parametrize("name", ["map.tif.aux.xml", "map.qml", "map.png"])
def test_what_is_written_beside_the_map_replaces_nothing_either(name, refuse, tmp_path):
    (tmp_path / name).write_text("precious")
    assert f"{name}: exists; give --overwrite" in refuse()


def test_a_file_in_place_of_the_folder_of_parts_is_refused(refuse, tmp_path):
    (tmp_path / "map.tif.parts").write_text("precious")
    assert "map.tif.parts: File exists" in refuse()


def test_several_processes_of_torchrun_are_refused(refuse, monkeypatch):
    class Two:
        size, device = 2, "cpu"

    monkeypatch.setattr(predict.distributed, "start", lambda device: Two)
    assert "is a single process; start it without torchrun, see --workers" in refuse()


# ---- options


def test_a_shard_is_a_part_of_so_many():
    assert Shard.of("2/8") == (2, 8) and Shard.of("1/1") == (1, 1) and Shard.of("8/8") == (8, 8)
    for text in ("0/8", "9/8", "2", "/", "2/", "/2", "-1/2", "1/2/3", "1.0/2", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="expected i/n with i from 1 to n"):
            Shard.of(text)


def test_a_side_is_odd():
    assert [odd(text) for text in ("1", "3", "21")] == [1, 3, 21]
    for text in ("0", "2", "-1", "-3"):
        with pytest.raises(argparse.ArgumentTypeError, match=f"{text}: expected an odd number"):
            odd(text)


def parsed(*words) -> argparse.Namespace:
    return get_args("a", ["--model", "m", "--images", "i", "--out", "map.tif", *map(str, words)])


def test_options_that_go_together():
    assert parsed("--workers", 2, "--part", "1/2").part == (1, 2)
    assert parsed("--merge").workers == 1 and parsed("--scheduler", "a").scheduler == "a"
    assert parsed("--bbox", 1, 2, 3, 4, "--bbox-crs", "EPSG:32614").bbox == [1, 2, 3, 4]
    assert parsed("--probabilities", "p.TIFF").probabilities == Path("p.TIFF")
    with pytest.raises(UsageError, match="is --out too"):
        parsed("--probabilities", "map.tif")


def test_a_mask_is_a_file_of_pixels_or_classes_of_observations():
    args = parsed("--mask", "crop.gpkg")
    assert (args.within, args.mask) == ("crop.gpkg", None)
    for text in ("scl:3,8", "SCL:9"):
        args = parsed("--mask", text, "--within", "crop.tif")
        assert (args.within, args.mask) == ("crop.tif", text)
    assert (parsed().within, parsed().mask) == (None, None)
    with pytest.raises(UsageError, match="--mask a.tif and --within b.tif are both of pixels; give one of them"):
        parsed("--mask", "a.tif", "--within", "b.tif")
