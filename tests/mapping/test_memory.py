"""GDAL's cache of blocks, by itself a part of the machine's memory, is bounded before a map's images are read."""

from __future__ import annotations

import os

import pytest
import torch

from mapping import cluster
from mapping.running import CACHE, Job
from tests.support.image_files import make_scene, write_dated
from tests.support.map_runs import make_map, save_model

pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    """Model and images; GDAL's cache is as it comes."""
    write_dated(tmp_path / "images", make_scene(3, days=3, height=4, width=4))
    monkeypatch.delenv("GDAL_CACHEMAX", raising=False)
    return save_model(tmp_path / "model_best.pth"), tmp_path / "images"


def test_a_map_bounds_the_cache(inputs, tmp_path):
    make_map(*inputs, tmp_path / "map.tif")
    assert os.environ["GDAL_CACHEMAX"] == str(CACHE)


def test_a_cache_that_the_user_sets_is_kept(inputs, tmp_path, monkeypatch):
    monkeypatch.setenv("GDAL_CACHEMAX", "77")
    make_map(*inputs, tmp_path / "map.tif")
    assert os.environ["GDAL_CACHEMAX"] == "77"


def test_a_worker_of_a_cluster_bounds_its_cache_before_it_reads(inputs, monkeypatch):
    class Plan:
        def read(self, number):
            return os.environ["GDAL_CACHEMAX"], None

        def classify(self, number, classifier, pixels, inside):
            return pixels

    monkeypatch.setattr(cluster, "_loaded", [])
    monkeypatch.setattr(Job, "load", lambda self: torch.nn.Identity())
    assert cluster._window(4, Job(Plan(), "", None, None), "key") == (4, str(CACHE))
