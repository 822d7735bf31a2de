"""What the command does with its options, and what it says."""

from __future__ import annotations

import errno
import json
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import rasterio
import torch

from datasets.classmap import CDL20, ClassMap, write_classmap
from mapping import predict
from mapping.arguments import get_args
from mapping.legend import Entry
from mapping.parts import Parts
from mapping.running import MapInterrupted
from tests.support.image_files import make_scene, write_dated, write_tif
from tests.support.map_runs import make_map, read_map, save_model

pytestmark = pytest.mark.usefixtures("no_figures")
OTHER = ClassMap(CDL20.names, (200, *CDL20.codes[1:]), CDL20.colours)


class World(NamedTuple):
    """As distributed.start gives it."""

    size: int = 1
    device: torch.device = torch.device("cpu")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("place")
    write_dated(place / "images", make_scene(4, days=3, height=32, width=40, gaps=0.3))
    save_model(place / "model.pth")
    write_classmap(place / "classes.csv", OTHER)
    write_tif(place / "crop.tif", np.tri(32, 40, dtype=np.uint8)[None])
    return place


@pytest.fixture
def prepared(place, tmp_path, monkeypatch):
    """The job and the classifier of a command line, and the devices that were asked for."""
    asked = []
    monkeypatch.setattr(predict.distributed, "start", lambda device: asked.append(device) or World())

    def prepared(*words):
        given = ["--model", place / "model.pth", "--images", place / "images", "--out", tmp_path / "map.tif", *words]
        return (*predict._prepare(get_args("", [str(word) for word in given])), asked[-1])

    return prepared


def test_a_process_that_only_hands_out_work_takes_no_gpu(prepared):
    for words in (["--merge"], ["--workers", 2], ["--scheduler", "tcp://a:1"]):
        job, classifier, device = prepared(*words, "--device", "cuda")
        assert device == "cpu" and job.device == "cuda" and classifier.device == torch.device("cpu")
    assert prepared()[2] is None and prepared("--device", "cuda:1")[2] == "cuda:1"
    assert prepared("--part", "1/2")[2] is None


def test_the_options_are_those_of_the_plan(prepared, place):
    job, _, _ = prepared()
    assert job.plan.options == (1, 1, False, None) and job.plan.size == 256 and job.plan.within is None
    assert (job.model, job.device, job.classmap) == (str(place / "model.pth"), None, None)
    box = ("--bbox", 500_050, 4_199_700, 500_300, 4_199_960, "--bbox-crs", "EPSG:32614")
    more = ("--min-observations", 2, "--smooth", 5, "--probabilities", place / "p.tif", "--window", 17)
    job, _, _ = prepared(*box, *more, "--within", place / "crop.tif", "--until-doy", 366)
    assert job.plan.options == (2, 5, True, 366) and job.plan.size == 17
    assert (job.plan.box.row, job.plan.box.col) == (4, 5)
    assert (job.plan.box.grid.height, job.plan.box.grid.width) == (26, 25)
    assert job.plan.within.path == place / "crop.tif" and job.plan.within.grid == job.plan.images.grid


def test_a_class_map_that_is_given_counts_before_that_of_the_checkpoint(prepared, place):
    job, classifier, _ = prepared("--classes", place / "classes.csv")
    assert job.classmap == classifier.classmap == OTHER
    assert job.plan.classes[0] == Entry(200, "Grass/Pasture", CDL20.colours[0], 0)
    assert [one.id for one in job.plan.classes] == list(range(21)) and job.plan.classes[1].code == CDL20.codes[1]


# ---- which windows are made, and how


def made(place, out, monkeypatch, *words) -> list[tuple]:
    """How the missing windows of a command line are made, and what is given for it."""
    calls = []

    def recorded(name):
        def run(*given):
            given[-1](3)
            calls.append((name, *given[:-1]))

        return run

    for name in ("run_here", "run_processes", "run_cluster"):
        monkeypatch.setattr(predict, name, recorded(name))
    given = ["--model", place / "model.pth", "--images", place / "images", "--out", out, "--window", 16, *words]
    args = get_args("", [str(word) for word in given])
    parts = Parts(out)
    parts.folder.mkdir(exist_ok=True)
    job, classifier = predict._prepare(args)
    calls.append(("missing", predict._make(args, job, classifier, parts, "key")))
    names = {id(job): "job", id(classifier): "classifier", id(parts): "parts"}
    return [tuple(names.get(id(one), one) for one in call) for call in calls]


ALL = [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "words, expected",
    [
        ([], ("run_here", "job", "classifier", "parts", ALL)),
        (["--workers", 2], ("run_processes", "job", "parts", ALL, 2)),
        (["--workers", 3, "--part", "1/2"], ("run_processes", "job", "parts", [0, 2, 4], 3)),
        (["--scheduler", "tcp://a:1"], ("run_cluster", "job", "tcp://a:1", "key", "parts", ALL)),
        (["--part", "2/4"], ("run_here", "job", "classifier", "parts", [1, 5])),
        (["--part", "4/4"], ("run_here", "job", "classifier", "parts", [3])),
        (["--part", "7/7"], None),
        (["--merge"], None),
    ],
)
def test_windows_are_made_by_the_way_and_in_the_share_that_is_asked_for(words, expected, place, tmp_path, monkeypatch):
    *calls, missing = made(place, tmp_path / "map.tif", monkeypatch, *words)
    assert calls == ([expected] if expected else [])
    assert missing == ("missing", ALL if words == ["--merge"] else [])


def test_how_many_windows_there_are_and_what_was_done_is_said(place, tmp_path, capsys):
    command = (place / "model.pth", place / "images", tmp_path / "map.tif", "--window", 16)
    make_map(*command, "--part", "2/2")
    said = capsys.readouterr().out
    assert re.search(r"^3 windows, 640 pixels, [\d,]+ pixels/s$", said, re.M) and "there already" not in said
    assert "part 2 of 2 is done; when all are, give --merge in place of --part" in said
    make_map(*command)
    said = capsys.readouterr().out
    assert "map.tif.parts: 3 of 6 windows are there already" in said
    assert re.search(r"^3 windows, 640 pixels, [\d,]+ pixels/s$", said, re.M)
    assert re.search(
        r"map.tif: EPSG:32614, 10 m, 32 x 40 pixels, 1,2\d\d pixels classified, \d+ with fewer than 1", said
    )


def test_a_map_of_a_class_map_that_is_given_has_its_codes(place, tmp_path):
    command = (place / "model.pth", place / "images")
    own = read_map(make_map(*command, tmp_path / "own.tif"))
    given = read_map(make_map(*command, tmp_path / "map.tif", "--classes", place / "classes.csv"))
    first = CDL20.codes[0]
    assert (own[0] == first).any()
    np.testing.assert_array_equal(given[0], np.where(own[0] == first, 200, own[0]))


def test_names_with_any_letters_are_in_the_tags(tmp_path):
    write_dated(tmp_path / "images", make_scene(4, days=2, height=16, width=16))
    first = sorted((tmp_path / "images").iterdir())[0]
    first.rename(first.with_name(f"blé_{first.name}"))
    save_model(tmp_path / "modèle.pth")
    with rasterio.open(make_map(tmp_path / "modèle.pth", tmp_path / "images", tmp_path / "map.tif")) as file:
        tags = file.tags()
    assert "blé_S2_" in tags["IMAGES"] and json.loads(tags["MODEL"])["file"] == "modèle.pth"
    assert all("\\u" not in value for value in tags.values())


def test_files_beside_the_map_are_written_without_a_picture_where_there_is_no_matplotlib(place, tmp_path, capsys):
    make_map(place / "model.pth", place / "images", tmp_path / "map.tif", "--probabilities", tmp_path / "p.tif")
    assert "no picture of the map: matplotlib is not installed" in capsys.readouterr().err
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["map.qml", "map.tif", "map.tif.aux.xml", "p.tif"]


# ---- interruptions


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_disk_that_is_full_ends_in_one_line_with_code_1(number, tmp_path, capsys):
    parts = Parts(tmp_path / "map.tif")
    parts.folder.mkdir()
    for name, shown in (("a.part", "a.part"), (None, str(parts.folder))):
        with pytest.raises(SystemExit) as end, predict._interruptions(parts):
            raise OSError(number, "is full", name)
        line = capsys.readouterr().err
        assert end.value.code == 1 and line.count("\n") == 1
        assert line.startswith(f"error: {shown}: is full; finished windows are kept in {parts.folder}, the same")


def test_other_errors_are_not_taken_for_a_full_disk(tmp_path):
    with pytest.raises(PermissionError), predict._interruptions(Parts(tmp_path / "map.tif")):
        raise OSError(errno.EACCES, "no", "x")


def test_parts_are_spoken_of_only_where_there_are_some(tmp_path, capsys):
    with pytest.raises(SystemExit) as end, predict._interruptions(Parts(tmp_path / "map.tif")):
        raise MapInterrupted("a reason")
    assert end.value.code == 1 and capsys.readouterr().err == "error: a reason\n"
