"""A map made on a Dask cluster, one of whose workers dies."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from mapping.parts import Parts
from tests.support.image_files import make_scene, write_dated
from tests.support.map_runs import make_map, save_model

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.fixture(scope="module")
def cluster():
    options = {"n_workers": 2, "threads_per_worker": 2, "dashboard_address": None, "memory_limit": 0}
    with distributed.LocalCluster(processes=True, **options) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("models") / "model_best.pth", "lstm")


def test_windows_of_a_worker_that_dies_are_taken_up_by_others(cluster, model, tmp_path):
    write_dated(tmp_path / "images", make_scene(4, days=12, height=48, width=48))
    out = tmp_path / "map.tif"
    folder, killed = Parts(out).folder, []

    def kill():
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not list(folder.glob("*.part")):
            time.sleep(0.002)
        os.kill(next(iter(cluster.workers.values())).pid, signal.SIGKILL)
        killed.append(len(list(folder.glob("*.part"))))

    thread = threading.Thread(target=kill)
    thread.start()
    make_map(model, tmp_path / "images", out, "--window", 16, "--scheduler", cluster.scheduler_address)
    thread.join()
    assert 1 <= killed[0] < 9
    expected = make_map(model, tmp_path / "images", tmp_path / "expected.tif", "--window", 16)
    assert out.read_bytes() == expected.read_bytes()


def test_a_corrupt_image_is_named_by_a_cluster_too(cluster, model, tmp_path, capsys):
    write_dated(tmp_path / "images", make_scene(4, days=5, height=16, width=16))
    path = sorted((tmp_path / "images").iterdir())[1]
    path.write_bytes(path.read_bytes()[:-1500])  # headers come first, the last values are gone
    with pytest.raises(SystemExit) as end:
        make_map(model, tmp_path / "images", tmp_path / "map.tif", "--scheduler", cluster.scheduler_address)
    assert end.value.code == 2 and str(path) in capsys.readouterr().err


def test_a_scheduler_that_does_not_answer_is_named(model, tmp_path, capsys, monkeypatch):
    from mapping import cluster

    monkeypatch.setattr(cluster, "TIMEOUT", "0.3s")
    write_dated(tmp_path / "images", make_scene(4, days=2, height=16, width=16))
    with pytest.raises(SystemExit) as end:
        make_map(model, tmp_path / "images", tmp_path / "map.tif", "--scheduler", "tcp://127.0.0.1:9")
    assert end.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and "--scheduler tcp://127.0.0.1:9: no scheduler answers" in lines[0]
