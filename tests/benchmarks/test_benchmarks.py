"""The benchmarks of scaling and of the store: they run, and what they compare is what they say."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks import inference, scaling, store, throughput
from benchmarks.scaling import Point
from datasets.readers.published import npy_store
from tests.support.layout import same_series
from utils.results import figures

PROC = Path("/proc/self/status")
needs_proc = pytest.mark.skipif(not PROC.exists(), reason="memory is read from /proc")
TINY = "-d cpu --no-compile --lengths 6 12 --batches 4 8 -seq 12 -b 8 --moco-k 32 --work 8 --rounds 2".split()


@pytest.fixture(scope="module")
def sim_root(tmp_path_factory):
    return tmp_path_factory.mktemp("benchmarks")


def test_scaling_writes_every_point_of_every_sweep(sim_root, tmp_path, capsys):
    scaling.main([*TINY, "--series", "24", "48", "--sim-root", str(sim_root), "--out", str(tmp_path / "new" / "out")])
    table = pd.read_csv(tmp_path / "new" / "out.csv")
    points = [(row.sweep, row.series, row.S, row.batch) for row in table.itertuples()]
    assert points == [
        ("series", 24, 12, 8), ("series", 48, 12, 8), ("S", 48, 6, 8), ("S", 48, 12, 8),
        ("batch", 48, 12, 4), ("batch", 48, 12, 8),
    ]  # fmt: skip
    assert table[(table["series"] == 48) & (table["S"] == 12) & (table["batch"] == 8)]["series_per_s"].nunique() == 1
    printed = capsys.readouterr().out
    assert (tmp_path / "new" / "out.md").read_text(encoding="utf-8").split("\n", 3)[3] in printed
    assert "constant within" in printed and "float32, not compiled" in printed
    if figures.available():
        assert (tmp_path / "new" / "out.png").read_bytes().startswith(b"\x89PNG")


def test_costs_are_relative_to_the_first_point():
    sweeps = {"S": [Point(100, 35, 8), Point(100, 70, 8)]}
    table = scaling.tabulate(sweeps, {sweeps["S"][0]: 50.0, sweeps["S"][1]: 20.0}, keys=64)
    assert table["relative_cost"].tolist() == [1, 2.5]
    assert table["us_per_series"].tolist() == [20_000, 50_000]
    assert table["epoch_s"].tolist() == [2, 5]
    assert table["relative_arithmetic"][1] == throughput.step_flop(70, 64) / throughput.step_flop(35, 64)
    assert "costs 2.50 times as much" in scaling.markdown(table)


def test_linear_growth_is_the_spread_of_the_cost():
    sweeps = {"series": [Point(10, 70, 8), Point(100, 70, 8), Point(1000, 70, 8)]}
    table = scaling.tabulate(sweeps, dict(zip(sweeps["series"], (100.0, 80.0, 90.0), strict=True)), keys=64)
    assert "constant within 25.0% from 10 to 1,000 series" in scaling.markdown(table)


def test_a_batch_above_the_series_or_the_queue_is_refused(capsys):
    for options in (["--series", "7"], ["--series", "24", "--moco-k", "7"]):
        with pytest.raises(SystemExit) as exit_:
            scaling.main([*TINY, *options])
        assert exit_.value.code == 2
        assert "a batch of 8 does not fit" in capsys.readouterr().err


def test_simulated_series_are_made_once(sim_root):
    first = scaling.simulated(sim_root, 24)
    made = (first.store.path / "meta.json").stat().st_mtime_ns
    again = scaling.simulated(sim_root, 24)
    assert len(first) == len(again) == 24 and first.labels is None
    assert (again.store.path / "meta.json").stat().st_mtime_ns == made


def test_every_point_has_as_much_work(monkeypatch):
    monkeypatch.setattr(scaling, "Bench", lambda args, *_: args)
    args = argparse.Namespace(work=96)
    points = [Point(1000, 70, batch) for batch in (8, 32, 96)]
    assert [scaling.build(args, point, None, store.CPU).steps for point in points] == [12, 3, 2]


def test_store_prints_every_figure(sim_root, capsys, monkeypatch):
    monkeypatch.setattr(store, "in_own_process", lambda work, *args: work(*args))  # a fresh process imports for seconds
    store.main(["--series", "24", "48", "--converted", "20", "-b", "16", "--rounds", "1", "--sim-root", str(sim_root)])
    printed = capsys.readouterr().out
    for figure in ("opening, again, 48 series", "bytes an observation", "converting the .npy, once, 20 series"):
        assert figure in printed
    assert ("streaming, file pages, peak, 24 series" in printed) == PROC.exists()
    assert all(" ratio " in line for line in printed.splitlines()[1:] if "not measured" not in line)


def test_the_published_form_holds_the_same_series(sim_root, tmp_path):
    series = scaling.simulated(sim_root, 24)
    file = tmp_path / "2019" / "npy" / "Unsupervised_mini_All.npy"
    store.write_published(file, series)
    arrays = np.load(file, allow_pickle=True)
    assert arrays[0].dtype == np.float64 and arrays[0].shape[1] == 12
    assert same_series(series.store, list(arrays)) and same_series(npy_store(file), list(arrays))
    observations = len(series.store.doy)
    assert 22 <= store.store_size(series.store) / observations < 24.5  # 22, and headers that weigh in few series
    assert 96 <= file.stat().st_size / observations < 98


def test_work_is_done_in_a_process_of_its_own():
    assert store.in_own_process(os.getpid) != os.getpid()


@needs_proc
def test_a_streamed_epoch_reads_the_whole_store(sim_root):
    streamed = store.stream_epoch(scaling.simulated(sim_root, 48).store.path, 16)
    assert 0 < streamed.median.anonymous <= streamed.peak.anonymous
    assert 0 < streamed.start.file <= streamed.peak.file


@needs_proc
def test_memory_is_measured_where_it_is_used():
    assert 60e6 < store.in_own_process(growth, 64_000_000) < 80e6


def growth(size: int) -> int:
    before = store.memory()
    block = np.ones(size, dtype=np.uint8)
    return store.memory().anonymous - before.anonymous + (not block.all())


def test_inference_is_told_as_times_of_the_network(monkeypatch, capsys):
    """With a clock by which each form takes as many seconds as its number, 3, 2 and 1."""
    clock, forms = iter([0.0, 3.0, 3.0, 5.0, 5.0, 6.0] * 3), []
    monkeypatch.setattr(inference.time, "process_time", lambda: next(clock))
    monkeypatch.setattr(inference, "build_model", lambda *_, **__: FakeNetwork(forms))
    inference.main(["-b", "4", "-seq", "5", "--rounds", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[1:]] == [
        [name, f"{seconds / 4 * 1e6:.0f}", *"us of processor time a series".split(), ratio, "times", "as", "fast"]
        for name, seconds, ratio in (("network", 3, "1.00"), ("float32", 2, "1.50"), ("bf16", 1, "3.00"))
    ]
    assert forms == [("network", (4, 5, 10)), (torch.float32, (4, 5, 10)), (torch.bfloat16, (4, 5, 10))] * 3


class FakeNetwork:
    def __init__(self, seen: list, name: object = "network"):
        self.seen, self.name = seen, name

    def eval(self):
        return self

    def for_inference(self, dtype=torch.float32):
        return FakeNetwork(self.seen, dtype)

    def features(self, inputs):
        self.seen.append((self.name, tuple(inputs[0].shape)))
