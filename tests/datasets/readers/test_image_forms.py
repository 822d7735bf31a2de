"""Every form of images yields the same series."""

from __future__ import annotations

import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.windows import Window

from datasets.images import open_images
from datasets.season import Season
from tests.support.image_files import FORMS, make_scene, same

EVEN = st.integers(1, 5).map(lambda n: 2 * n)


@pytest.mark.parametrize("form", FORMS)
@given(seed=st.integers(0, 10**6), days=st.integers(2, 4), height=EVEN, width=EVEN, gaps=st.sampled_from([0, 0.3, 0.8]))
@settings(max_examples=6, deadline=None)
def test_a_form_yields_the_series_of_the_scene(form, seed, days, height, width, gaps):
    scene = make_scene(seed, days, height, width, gaps)
    with tempfile.TemporaryDirectory() as folder:
        options = FORMS[form](Path(folder) / "images", scene)
        images = open_images(Path(folder) / "images", season=Season.of(2019), offset="0", **options)
        assert (images.grid.height, images.grid.width) == (height, width)
        assert images.grid.transform.almost_equals(scene.transform)
        assert images.grid.crs.to_epsg() == 32614
        assert images.dates == list(scene.dates)
        same(images.read(Window(0, 0, width, height)), scene.pixels())


@pytest.mark.parametrize("form", FORMS)
def test_windows_and_copies_in_other_processes_read_parts_of_the_same(form, tmp_path):
    scene = make_scene(3, height=10, width=12)
    images = open_images(tmp_path, offset="0", **FORMS[form](tmp_path, scene))
    whole = images.read(Window(0, 0, 12, 10))
    copy = pickle.loads(pickle.dumps(images))
    found = {}
    for window in copy.grid.windows((4, 5)):
        part = copy.read(window)
        ends = np.cumsum(part.lengths)
        for row, col, end, length in zip(part.row, part.col, ends, part.lengths, strict=True):
            rows = slice(end - length, end)
            found[int(row), int(col)] = (part.bands[rows].tolist(), part.doy[rows].tolist())
    ends = np.cumsum(whole.lengths)
    for row, col, end, length in zip(whole.row, whole.col, ends, whole.lengths, strict=True):
        rows = slice(end - length, end)
        assert found.pop((int(row), int(col))) == (whole.bands[rows].tolist(), whole.doy[rows].tolist())
    assert not found
