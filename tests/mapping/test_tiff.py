"""Corrections of TIFF files."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from mapping.tiff import unmark_alpha
from tests.support.image_files import ORIGIN, UTM
from tests.support.map_runs import read_map


@pytest.mark.parametrize("big", ["NO", "YES"])
@pytest.mark.parametrize("order", ["LITTLE", "BIG"])
def test_alpha_is_unmarked_in_every_kind_of_tiff(big, order, tmp_path):
    options = {"BIGTIFF": big, "ENDIANNESS": order}
    values = np.random.default_rng(0).integers(0, 9, (2, 64, 64), np.uint8)
    profile = {"width": 64, "height": 64, "count": 2, "dtype": "uint8", "crs": UTM, "transform": ORIGIN}
    path = tmp_path / "a.tif"
    with rasterio.open(path, "w", driver="GTiff", alpha="YES", photometric="MINISBLACK", **profile, **options) as file:
        file.write(values)
        file.build_overviews([2, 4])
    for level in (None, 0, 1):
        with rasterio.open(path, **({} if level is None else {"overview_level": level})) as file:
            assert file.colorinterp[1] == ColorInterp.alpha
    unmark_alpha(path)
    for level in (None, 0, 1):
        with rasterio.open(path, **({} if level is None else {"overview_level": level})) as file:
            assert file.colorinterp[1] == ColorInterp.undefined
    np.testing.assert_array_equal(read_map(path), values)
