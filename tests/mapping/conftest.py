"""What the tests of maps share."""

from __future__ import annotations

import pytest

from tests.support.image_files import write_dated
from tests.support.map_runs import save_model
from utils.results import figures


@pytest.fixture
def no_figures(monkeypatch):
    """Pictures take most of the time of a small map."""
    monkeypatch.setattr(figures, "available", lambda: False)


@pytest.fixture(scope="module")
def images(scene, tmp_path_factory):
    """The folder of the images of a module's own `scene`."""
    folder = tmp_path_factory.mktemp("scene") / "images"
    write_dated(folder, scene)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The checkpoint of `undecided`."""
    return save_model(tmp_path_factory.mktemp("models") / "model_best.pth")
