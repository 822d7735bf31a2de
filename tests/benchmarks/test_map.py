"""The program that measures maps: it runs, and what it compares is right."""

from __future__ import annotations

import os
import re
import time

import pytest
import torch

from benchmarks import map as program
from mapping.running import CACHE
from tests.support.image_files import make_scene, write_dated
from tests.support.map_runs import save_model


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    folder = tmp_path_factory.mktemp("map")
    write_dated(folder / "images", make_scene(3, days=3, height=40, width=20))
    model = save_model(folder / "model_best.pth")
    return ["--model", str(model), "--images", str(folder / "images"), "--window", "16", "-d", "cpu"]


def test_reading_model_and_whole_are_compared(options, capsys, monkeypatch):
    seconds = iter([(2, 3), (5, 4), (8, 8), (4, 2), (6, 7), (10, 6)])  # clock and cores of three works, two rounds
    done = []

    def took(work, device):
        work()
        done.append(device)
        return program.Took(*next(seconds))

    monkeypatch.setattr(program, "took", took)
    program.main([*options, "--rounds", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "tempcnn on cpu, 3 dates, 800 pixels" and done == [torch.device("cpu")] * 6
    rates = [(line.split()[0], *re.findall(r"([\d,.]+) pixels", line)) for line in lines[1:4]]
    assert rates == [("reading", "400", "400"), ("model", "160", "200"), ("whole", "100", "133")]
    assert lines[4] == "the whole has 62% of the speed of the slower one (goal: 85%)"


def test_the_whole_makes_every_window(options, monkeypatch):
    made = []
    monkeypatch.setattr(program.Parts, "write", lambda self, number, part: made.append((number, part.values.shape)))
    program.main([*options, "--rounds", "1"])
    assert made == [(number, (2, *shape)) for number, shape in enumerate([(16, 16), (16, 4)] * 2 + [(8, 16), (8, 4)])]


def test_growing_maps_are_timed_one_by_one(options, capsys, monkeypatch):
    monkeypatch.delenv("GDAL_CACHEMAX", raising=False)
    program.main([*options, "--rows", "16", "40", "99"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["16", "40", "40"] and all("peak memory" in line for line in lines)
    assert os.environ["GDAL_CACHEMAX"] == str(CACHE)  # the memory is that of a map


def test_a_core_that_sleeps_is_not_counted():
    took = program.took(lambda: time.sleep(0.2), torch.device("cpu"))
    assert took.clock >= 0.2 and took.cores < 0.1
