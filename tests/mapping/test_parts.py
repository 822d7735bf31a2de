"""Windows on the disk."""

from __future__ import annotations

import hashlib
import io
import json
import pickle

import numpy as np
import pytest

from datasets.errors import DataError
from mapping import parts as parts_module
from mapping.parts import Parts, place
from mapping.windows import Part

IDENTITY = {"model": {"sha256": "a"}, "grid": {"transform": (10.0, 0.0)}}


@pytest.fixture
def parts(tmp_path) -> Parts:
    parts = Parts(tmp_path / "map.tif")
    parts.start(IDENTITY)
    return parts


def part_of(seed: int = 0, probabilities: bool = False) -> Part:
    random = np.random.default_rng(seed)
    each = random.integers(0, 100, (3, 4, 5)).astype(np.uint8) if probabilities else None
    return Part(random.integers(0, 9, (2, 4, 5)).astype(np.uint16), each, {"outside": 1, "few": 2, "classified": 17})


@pytest.mark.parametrize("probabilities", [False, True])
def test_a_part_is_read_as_it_was_written(probabilities, parts):
    part = part_of(0, probabilities)
    parts.write(12, part)
    found = Parts(parts.out).read(12)
    np.testing.assert_array_equal(found.values, part.values)
    assert found.values.dtype == np.uint16 and found.counts == part.counts
    assert (found.probabilities is None) == (not probabilities)
    if probabilities:
        np.testing.assert_array_equal(found.probabilities, part.probabilities)


def test_parts_lie_beside_the_map_by_number(parts, tmp_path):
    parts.write(17, part_of())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.tif.parts"]
    names = sorted(path.name for path in parts.folder.iterdir())
    assert names == ["000017.part", "manifest.json"]


def test_a_part_that_has_lost_or_changed_a_byte_is_missing(parts):
    parts.write(0, part_of())
    data = parts.path(0).read_bytes()
    assert parts.missing(3) == [1, 2]
    for i in range(0, len(data), 7):
        parts.path(0).write_bytes(data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :])
        assert parts.read(0) is None
        parts.path(0).write_bytes(data[:i])
        assert parts.read(0) is None
    parts.path(0).write_bytes(data + b"x")
    assert parts.missing(3) == [0, 1, 2]
    parts.path(0).write_bytes(data)
    assert parts.missing(3) == [1, 2]


@pytest.mark.parametrize("arrays", [None, {"values": np.zeros((2, 1, 1), np.uint8)}])
def test_what_is_no_part_is_missing_though_its_checksum_is_right(arrays, parts):
    buffer = io.BytesIO(b"no arrays")
    if arrays:
        np.savez_compressed(buffer, **arrays)
    data = buffer.getvalue()
    parts.path(0).write_bytes(parts._digest(0, data) + data)
    assert parts.read(0) is None


def test_a_part_holds_no_objects(parts):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, values=np.array([print], object), counts=np.array("{}"))
    data = buffer.getvalue()
    parts.path(0).write_bytes(parts._digest(0, data) + data)
    assert parts.read(0) is None


def test_other_processes_write_parts_of_the_same_map(parts):
    pickle.loads(pickle.dumps(parts)).write(1, part_of())
    assert parts.missing(2) == [0]


# ---- beginning


def test_the_same_map_is_continued(parts):
    parts.write(0, part_of())
    parts.start({key: dict(value) for key, value in IDENTITY.items()})
    parts.start(IDENTITY, overwrite=True)
    assert parts.missing(1) == []


def test_another_map_is_refused_with_what_differs_and_its_parts_are_kept(parts):
    parts.write(0, part_of())
    with pytest.raises(
        DataError, match=r"map.tif.parts: holds .* differs in model: sha256 \(a, now b\); .*--overwrite"
    ):
        parts.start({**IDENTITY, "model": {"sha256": "b"}})
    assert parts.missing(1) == []


def test_parts_of_another_format_are_not_taken(parts, monkeypatch):
    monkeypatch.setattr(parts_module, "FORMAT", 2)
    with pytest.raises(DataError, match=r"differs in format: version \(1, now 2\)"):
        parts.start(IDENTITY)


def test_overwriting_removes_the_parts_of_another_map(parts, tmp_path):
    parts.write(0, part_of())
    other = {**IDENTITY, "model": {"sha256": "b"}}
    parts.start(other, overwrite=True)
    assert parts.missing(1) == [0] and [path.name for path in tmp_path.iterdir()] == ["map.tif.parts"]
    parts.start(other)


def test_a_damaged_manifest_is_said(parts):
    parts.manifest.write_text("{")
    with pytest.raises(DataError, match=r"manifest.json: damaged; remove .*map.tif.parts and begin anew"):
        parts.start(IDENTITY)


def test_a_folder_without_a_manifest_is_begun(tmp_path):
    """A run was killed between the two."""
    parts = Parts(tmp_path / "map.tif")
    parts.folder.mkdir()
    parts.start(IDENTITY)
    assert json.loads(parts.manifest.read_text())["model"] == {"sha256": "a"}


# ---- ending


def finished(parts: Parts, content: bytes = b"whole") -> None:
    whole = parts.folder / "map.tif"
    whole.write_bytes(content)
    parts.finish(whole)


def test_the_map_gets_its_name_and_the_folder_goes(parts, tmp_path):
    parts.out.write_bytes(b"an earlier one")
    finished(parts)
    assert parts.out.read_bytes() == b"whole" and [path.name for path in tmp_path.iterdir()] == ["map.tif"]


def test_a_map_is_finished_only_if_it_is_the_one_that_was_made_of_the_parts(parts, monkeypatch):
    assert not parts.is_finished()
    monkeypatch.setattr(Parts, "remove", lambda self: None)
    finished(parts)
    assert parts.is_finished()
    parts.out.write_bytes(b"other")
    assert not parts.is_finished()
    parts.out.unlink()
    assert not parts.is_finished()
    (parts.folder / parts_module.FINISHED).unlink()
    parts.out.write_bytes(b"whole")
    assert not parts.is_finished()


def test_what_is_about_to_be_named_is_recorded_before_it_is(parts, monkeypatch):
    def fail(unfinished, path):
        raise KeyboardInterrupt

    monkeypatch.setattr(parts_module, "place", fail)
    with pytest.raises(KeyboardInterrupt):
        finished(parts)
    assert (parts.folder / parts_module.FINISHED).read_text() == hashlib.sha256(b"whole").hexdigest()
    assert not parts.is_finished() and not parts.out.exists()


def test_removing_takes_what_an_earlier_run_could_not_remove_too(parts, tmp_path):
    """A run was killed while it removed the folder, which had another name by then."""
    aside = tmp_path / ".map.tif.parts.partial-old"
    aside.mkdir()
    (aside / "000000.part").write_bytes(b"x")
    parts.remove()
    assert list(tmp_path.iterdir()) == []
    parts.remove()
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_removed_does_not_harm_the_map(parts, monkeypatch):
    """As on a network disk, where another process still has a file open."""

    def fails(folder, ignore_errors=False):
        if not ignore_errors:
            raise OSError("busy")

    monkeypatch.setattr(parts_module.shutil, "rmtree", fails)
    finished(parts)
    assert parts.out.read_bytes() == b"whole" and not parts.folder.exists()


def test_a_name_is_given_to_what_is_on_the_disk_alone(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(parts_module, "sync", lambda path: done.append((path.name, (tmp_path / "b").exists())))
    (tmp_path / "a").write_text("x")
    place(tmp_path / "a", tmp_path / "b")
    assert done == [("a", False), (tmp_path.name, True)]
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
