"""Damaged files of every kind: refused in one line, or read right. 300 mutations a kind, always the same ones."""

from __future__ import annotations

import importlib.util
import os
import signal
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.fuzzing.kinds import KINDS, Kind
from tests.fuzzing.mutations import BYTES, mutate, rezip
from tests.fuzzing.runner import DIED, FOREIGN, HANG, MEMORY_HIT, REFUSED, RIGHT, SILENT, digest, run
from utils.errors import UsageError

COUNT = 300


@pytest.mark.parametrize("name", KINDS)
def test_damage_is_found_or_does_no_harm(name):
    kind = KINDS[name]
    if missing := [library for library in kind.needs if importlib.util.find_spec(library) is None]:
        pytest.skip(f"{', '.join(missing)} is not installed")
    report = run(kind, COUNT)
    faults = report.of(FOREIGN, DIED, HANG, MEMORY_HIT, *((SILENT,) if kind.is_verified else ()))
    assert not faults, "\n".join(f"--kind {name!r} --only {v.number}: {v.what}: {v.word} {v.said}" for v in faults)
    noticed = 0 if name == "STAC item" else COUNT / (4 if kind.is_verified else 8)  # JPEG 2000 conceals most damage
    assert report.counts()[REFUSED] > noticed and len(report.verdicts) == COUNT


# ---- the fuzzer itself


def faulty(read) -> Kind:
    def build(folder: Path, seed: int) -> None:
        folder.mkdir()
        (folder / "a.txt").write_text(f"{seed} some text of a file")
        (folder / "b.txt").write_text("another")

    return Kind("faulty", build, read, True)


def words_of(read, count: int = 12) -> set[str]:
    return {verdict.word for verdict in run(faulty(read), count).verdicts}


def changed(folder: Path) -> bool:
    return (folder / "a.txt").read_bytes() != b"0 some text of a file" or (folder / "b.txt").read_bytes() != b"another"


def refuse(folder: Path, error: BaseException) -> str:
    if changed(folder):
        raise error
    return "as it was"


def test_verdicts():
    assert words_of(lambda folder: (folder / "a.txt").read_bytes(), 30) == {SILENT, RIGHT}  # of b.txt nothing is read
    assert words_of(lambda folder: refuse(folder, UsageError("one line"))) <= {REFUSED, RIGHT}
    assert FOREIGN in words_of(lambda folder: refuse(folder, UsageError("two\nlines")))
    assert FOREIGN in words_of(lambda folder: refuse(folder, KeyError("x")))
    assert FOREIGN in words_of(lambda folder: refuse(folder, SystemExit(3)))


def test_a_process_that_dies_or_hangs_or_takes_memory_is_noticed(monkeypatch):
    def die(folder: Path) -> str:
        if changed(folder):
            os.kill(os.getpid(), signal.SIGKILL)
        return "as it was"

    def hang(folder: Path) -> str:
        while changed(folder):
            ...
        return "as it was"

    def swell(folder: Path) -> int:
        return len(b"x" * (600 << 20)) if changed(folder) else 0  # above the peak of the tests before

    assert DIED in words_of(die, 3)
    monkeypatch.setattr("tests.fuzzing.runner.SECONDS", 0.05)
    assert HANG in words_of(hang, 3)
    monkeypatch.setattr("tests.fuzzing.runner.SECONDS", 5)
    monkeypatch.setattr("tests.fuzzing.runner.MEMORY", 32 << 20)
    assert MEMORY_HIT in words_of(swell, 3)
    monkeypatch.setattr("tests.fuzzing.runner.PATIENCE", 0.1)
    assert HANG in words_of(lambda folder: time.sleep(30 if changed(folder) else 0), 2)


def test_mutations_are_drawn_by_the_seed_and_all_kinds_occur():
    pair, other, done = {"b": b"1 2 3" * 9, "c": b"x" * 40}, {"b": b"9"}, []
    for i in range(200):
        first, again = (mutate(pair, other, "", np.random.default_rng([0, i])) for _ in range(2))
        assert first == again
        done.append(first)
    tricks = {what.split()[0] for what, _ in done}
    assert tricks == {trick.__name__ for trick in BYTES} | {"swap"}
    assert all(
        what.endswith("c") for what, _ in (mutate(pair, other, "c", np.random.default_rng(i)) for i in range(20))
    )


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archives_are_put_together_again(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("one", b"1" * 50)
        archive.writestr("two", b"2" * 50)
    data = (tmp_path / "a.zip").read_bytes()
    made = {rezip(data, np.random.default_rng(i)) for i in range(40)}
    assert len(made) > 10
    for content in made:
        (tmp_path / "b.zip").write_bytes(content)
        assert zipfile.ZipFile(tmp_path / "b.zip").testzip() is None  # checksums are right


def test_digests_are_of_the_values():
    values = {"a": np.arange(3), "b": ["x", None, 1.5]}
    assert digest(values) == digest({"a": np.arange(3), "b": ["x", None, 1.5]})
    for other in ({"a": np.arange(3), "b": ["x", None, 1.6]}, {"a": np.arange(1, 4), "b": values["b"]}, {"a": 1}):
        assert digest(other) != digest(values)
    assert digest(np.array([[1], [2]], object)) != digest(np.array([[1], [3]], object))
