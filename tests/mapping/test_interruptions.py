"""A map that is interrupted is continued, and is the map that it would have been; none is mixed of two."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import threading
import time

import numpy as np
import pytest
import rasterio

from mapping import running
from mapping.parts import Parts
from mapping.windows import Plan
from tests.support.image_files import make_scene, write_dated
from tests.support.map_runs import die_at, in_child, make_map, read_map, save_model
from utils.files import PARTIAL

OPTIONS = ("--window", 16, "--smooth", 3)
WINDOWS = 4


@pytest.fixture(scope="module")
def scene():
    return make_scene(4, days=5, height=20, width=20, gaps=0.3)


@pytest.fixture(scope="module")
def images(scene, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scene") / "images"
    write_dated(folder, scene, compress="deflate")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("models") / "model_best.pth")


@pytest.fixture(scope="module")
def whole(images, model, tmp_path_factory):
    """The files of a run that was never interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    make_map(model, images, folder / "map.tif", *OPTIONS, "--probabilities", folder / "p.tif")
    return files_in(folder)


def files_in(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def counted(monkeypatch) -> list[int]:
    """Numbers of the windows that are computed from now on."""
    numbers, classify = [], Plan.classify

    def counting(self, number, *rest):
        numbers.append(number)
        return classify(self, number, *rest)

    monkeypatch.setattr(Plan, "classify", counting)
    return numbers


def test_a_whole_run_leaves_its_files_alone(whole):
    assert sorted(whole) == ["map.png", "map.qml", "map.tif", "map.tif.aux.xml", "p.tif"]


def test_a_run_killed_time_and_again_makes_the_same_files(whole, images, model, tmp_path):
    out, kills = tmp_path / "map.tif", 0

    def run(count):
        die_at(count)
        make_map(model, images, out, *OPTIONS, "--probabilities", tmp_path / "p.tif")

    for count in (1, 2, 2, 1, 2, 3, 4, 3, 3, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13):
        code = in_child(lambda count=count: run(count))
        if code == 0:
            break
        assert code == -signal.SIGKILL
        kills += 1
        if kills < 10:
            assert not out.exists()
    assert code == 0 and kills >= 10
    assert files_in(tmp_path) == whole


def test_a_run_killed_after_the_map_has_its_name_is_finished_by_the_same_command(whole, images, model, tmp_path):
    def killed_at_the_end():
        Parts.remove = lambda self: os.kill(os.getpid(), signal.SIGKILL)
        make_map(model, images, tmp_path / "map.tif", *OPTIONS, "--probabilities", tmp_path / "p.tif")

    assert in_child(killed_at_the_end) == -signal.SIGKILL
    assert (tmp_path / "map.tif").exists() and (tmp_path / "map.tif.parts").exists()
    make_map(model, images, tmp_path / "map.tif", *OPTIONS, "--probabilities", tmp_path / "p.tif")
    assert files_in(tmp_path) == whole


def test_a_run_killed_ten_times_at_random_makes_the_same_files(whole, images, model, tmp_path):
    folder = tmp_path / "results"
    command = (model, images, folder / "map.tif", *OPTIONS, "--probabilities", folder / "p.tif")
    start = time.monotonic()
    make_map(*command)
    longest, random, kills = time.monotonic() - start, np.random.default_rng(7), 0
    while True:
        if (folder / "map.tif").exists() and not Parts(folder / "map.tif").folder.exists():  # it is done
            for path in folder.glob(f".*{PARTIAL}*"):  # what the killed ones could not remove
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            assert files_in(folder) == whole
            if kills >= 10:
                break
            shutil.rmtree(folder)
        wait = random.uniform(0, longest) if kills < 10 else None
        code = in_child(lambda: make_map(*command), killed_after=wait)
        assert code in (0, -signal.SIGKILL)
        kills += code != 0


def test_a_process_of_several_that_is_killed_interrupts_the_run_which_is_continued(model, tmp_path, capfd, monkeypatch):
    """The same command makes the same file then, of the parts that the others had finished."""
    folder, out = tmp_path / "images", tmp_path / "map.tif"
    write_dated(folder, make_scene(4, days=12, height=64, width=64))
    command = (model, folder, out, "--window", 16, "--workers", 2)

    def kill():
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not list(Parts(out).folder.glob("0*.part")):
            time.sleep(0.002)
        *others, killed = (child.pid for child in multiprocessing.active_children())
        for number, pids in ((signal.SIGSTOP, others), (signal.SIGKILL, [killed]), (signal.SIGCONT, others)):
            for pid in pids:  # while they wait, nobody finishes the map before the death is noticed
                os.kill(pid, number)
            time.sleep(0.5 * (number == signal.SIGKILL))

    thread = threading.Thread(target=kill)
    thread.start()
    line = failed(capfd, 1, *command)
    thread.join()
    assert "a worker process was killed, maybe for want of memory; finished windows are kept in" in line
    assert "the same command continues" in line and not out.exists()
    kept = set(range(16)) - set(Parts(out).missing(16))
    assert kept
    monkeypatch.setattr(running, "get_context", lambda method: multiprocessing.get_context("fork"))  # starts faster
    make_map(*command)
    expected = make_map(model, folder, tmp_path / "expected.tif", "--window", 16)
    assert out.read_bytes() == expected.read_bytes()
    assert sorted(path.name for path in tmp_path.glob("*map.tif*")) == ["map.tif", "map.tif.aux.xml"]


@pytest.fixture
def unfinished(images, model, tmp_path):
    """A map of which the first two windows are there."""
    assert in_child(lambda: (die_at(3), make_map(model, images, tmp_path / "map.tif", *OPTIONS))) == -signal.SIGKILL
    assert Parts(tmp_path / "map.tif").missing(WINDOWS) == [2, 3]
    return tmp_path / "map.tif"


@pytest.fixture(scope="module")
def plain(images, model, tmp_path_factory):
    """The bytes of a map that was never interrupted."""
    return make_map(model, images, tmp_path_factory.mktemp("plain") / "map.tif", *OPTIONS).read_bytes()


def test_only_what_is_missing_is_computed(unfinished, plain, images, model, monkeypatch, capsys):
    numbers = counted(monkeypatch)
    make_map(model, images, unfinished, *OPTIONS)
    assert numbers == [2, 3] and "2 of 4 windows are there already" in capsys.readouterr().out
    assert unfinished.read_bytes() == plain


@pytest.mark.parametrize("place", [0, 40, -1])
def test_a_part_whose_bytes_have_changed_is_made_anew(place, unfinished, plain, images, model, monkeypatch):
    part = Parts(unfinished).path(1)
    data = bytearray(part.read_bytes())
    data[place] ^= 1
    part.write_bytes(data)
    numbers = counted(monkeypatch)
    make_map(model, images, unfinished, *OPTIONS)
    assert numbers == [1, 2, 3] and unfinished.read_bytes() == plain


def test_a_part_cut_short_is_made_anew(unfinished, plain, images, model):
    part = Parts(unfinished).path(0)
    part.write_bytes(part.read_bytes()[:50])
    make_map(model, images, unfinished, *OPTIONS)
    assert unfinished.read_bytes() == plain


def failed(capsys, code: int, *arguments) -> str:
    """The one line with which the command ends."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        make_map(*arguments)
    assert end.value.code == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


def test_parts_of_another_model_are_not_mixed_in(unfinished, images, tmp_path, capsys):
    other = save_model(tmp_path / "other" / "model_best.pth", seed=1)
    line = failed(capsys, 2, other, images, unfinished, *OPTIONS)
    assert "map.tif.parts: holds parts of another map, which differs in model: sha256" in line and "--overwrite" in line
    assert Parts(unfinished).missing(WINDOWS) == [2, 3]


@pytest.mark.parametrize(
    "more, section",
    [
        (("--window", 17, "--smooth", 3), "options: window (16, now 17)"),
        (("--window", 16), "options: smooth (3, now 1)"),
        ((*OPTIONS, "--min-observations", 2), "options: min_observations (1, now 2)"),
        ((*OPTIONS, "--offset", -1000), "offsets: "),
        ((*OPTIONS, "--bbox", 500_000, 4_199_900, 500_100, 4_200_000, "--bbox-crs", "EPSG:32614"), "grid: height"),
    ],
)
def test_parts_made_with_other_options_are_not_mixed_in(more, section, unfinished, images, model, capsys):
    assert f"differs in {section}" in failed(capsys, 2, model, images, unfinished, *more)


def test_parts_of_changed_images_are_not_mixed_in(scene, unfinished, images, model, tmp_path, capsys):
    copy = tmp_path / "images"
    shutil.copytree(images, copy)
    out = tmp_path / "other.tif"
    assert in_child(lambda: (die_at(3), make_map(model, copy, out, *OPTIONS))) == -signal.SIGKILL
    first = sorted(copy.iterdir())[0]
    os.utime(first, ns=(0, 1_000_000_000))
    line = failed(capsys, 2, model, copy, out, *OPTIONS)
    assert f"differs in images: {first.name} (" in line and "1000000000" in line
    first.unlink()
    assert f"differs in images: {first.name} (" in failed(capsys, 2, model, copy, out, *OPTIONS)


def test_overwriting_begins_anew_where_parts_are_of_another_map(unfinished, plain, images, tmp_path, monkeypatch):
    other = save_model(tmp_path / "other" / "model_best.pth", seed=1)
    numbers = counted(monkeypatch)
    make_map(other, images, unfinished, *OPTIONS, "--overwrite")
    assert numbers == [0, 1, 2, 3] and unfinished.read_bytes() != plain


def test_overwriting_continues_where_parts_are_of_this_map(unfinished, plain, images, model, monkeypatch):
    numbers = counted(monkeypatch)
    make_map(model, images, unfinished, *OPTIONS, "--overwrite")
    assert numbers == [2, 3] and unfinished.read_bytes() == plain


def test_a_map_is_not_replaced_unless_told_so(images, model, tmp_path, plain, capsys):
    (tmp_path / "map.tif").write_bytes(b"precious")
    assert "--out" in (line := failed(capsys, 2, model, images, tmp_path / "map.tif")) and "--overwrite" in line
    assert files_in(tmp_path) == {"map.tif": b"precious"}
    make_map(model, images, tmp_path / "map.tif", *OPTIONS, "--overwrite")
    assert (tmp_path / "map.tif").read_bytes() == plain


def test_probabilities_are_not_replaced_unless_told_so(images, model, tmp_path, capsys):
    (tmp_path / "p.tif").write_bytes(b"precious")
    line = failed(capsys, 2, model, images, tmp_path / "map.tif", "--probabilities", tmp_path / "p.tif")
    assert "p.tif: exists" in line and files_in(tmp_path) == {"p.tif": b"precious"}


# ---- shards


def test_shards_are_merged_into_the_same_map(plain, images, model, tmp_path, capsys, monkeypatch):
    out, numbers = tmp_path / "map.tif", counted(monkeypatch)
    make_map(model, images, out, *OPTIONS, "--part", "3/3")
    make_map(model, images, out, *OPTIONS, "--part", "1/3")
    assert numbers == [2, 0, 3] and not out.exists()
    line = failed(capsys, 2, model, images, tmp_path / "none.tif", *OPTIONS, "--merge")
    assert f"{tmp_path / 'none.tif.parts'}: no such folder" in line and not (tmp_path / "none.tif.parts").exists()
    line = failed(capsys, 2, model, images, out, *OPTIONS, "--merge")
    assert "1 of 4 windows are missing (the first is number 1)" in line and not out.exists()
    make_map(model, images, out, *OPTIONS, "--part", "2/3")
    make_map(model, images, out, *OPTIONS, "--merge")
    assert numbers == [2, 0, 3, 1] and out.read_bytes() == plain


# ---- disks and damaged images


def limited(limit: int, *arguments) -> int:
    """The exit code of the command where no file can be larger than this, as on a full disk."""

    def run():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        make_map(*arguments)

    return in_child(run)


@pytest.mark.parametrize("full_at", ["the manifest", "a part", "the map"])
def test_a_full_disk_is_one_line_and_the_parts_are_kept(full_at, images, model, tmp_path, capfd):
    out = tmp_path / "map.tif"
    parts, command = Parts(out), (model, images, out, "--probabilities", tmp_path / "p.tif")
    make_map(*command, "--part", "1/1")
    part, manifest = parts.path(0).stat().st_size, parts.manifest.stat().st_size
    assert manifest < part < 100_000
    limit = {"the manifest": manifest - 1, "a part": part - 1, "the map": 100_000}[full_at]
    if full_at == "the manifest":
        parts.remove()
    elif full_at == "a part":
        parts.path(0).unlink()
    capfd.readouterr()
    assert limited(limit, *command) == 1
    lines = capfd.readouterr().err.strip().splitlines()
    name = {"the manifest": "manifest.json", "a part": "000000.part", "the map": "map.tif"}[full_at]
    kept = f"; finished windows are kept in {parts.folder}, the same command continues"
    assert len(lines) == 1 and lines[0].startswith(f"error: {parts.folder / name}: cannot be written (")
    assert int(re.search(r"it needs ([\d,]+) bytes, [\d,]+ are free", lines[0])[1].replace(",", "")) > 500
    assert lines[0].endswith(kept)
    assert not out.exists() and not (tmp_path / "p.tif").exists()
    assert parts.path(0).exists() == (full_at == "the map")
    make_map(*command)
    assert read_map(out).shape == (2, 20, 20)


def corrupt(images, folder, place: int = 1):
    """A copy of the images, one of which has damaged data; returns that one, which is not among those sampled."""
    shutil.copytree(images, folder)
    path = sorted(folder.iterdir())[place]
    with rasterio.open(path) as file:
        start = int(file.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1))
    data = bytearray(path.read_bytes())
    data[start : start + 20] = bytes(20)
    path.write_bytes(data)
    return path


def test_a_corrupt_image_ends_the_run_with_its_name_and_the_window(images, model, tmp_path, capsys):
    path = corrupt(images, tmp_path / "images")
    line = failed(capsys, 2, model, tmp_path / "images", tmp_path / "map.tif", "--bbox", *BOX, "--window", 256)
    assert str(path) in line and "window 0 (rows 15-19, columns 0-19)" in line and not (tmp_path / "map.tif").exists()


BOX = (500_000, 4_199_800, 500_200, 4_199_850, "--bbox-crs", "EPSG:32614")


def test_the_date_of_a_corrupt_image_is_left_out_and_recorded(scene, images, model, tmp_path):
    path = corrupt(images, tmp_path / "images")
    out = make_map(model, tmp_path / "images", tmp_path / "map.tif", *OPTIONS, "--skip-bad-images")
    path.unlink()
    assert (read_map(out) == read_map(make_map(model, tmp_path / "images", tmp_path / "good.tif", *OPTIONS))).all()
    with rasterio.open(out) as file:
        (skipped,) = json.loads(file.tags()["SKIPPED"])
        assert path.name in skipped
        assert str(scene.dates[1]) not in json.loads(file.tags()["DATES"])
