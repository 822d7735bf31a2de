from __future__ import annotations

from datetime import date, datetime

import pytest

from datasets.bands import BANDS
from datasets.errors import DataError
from datasets.imagery.names import choose_bands, read_name


@pytest.mark.parametrize(
    ("text", "band", "number"),
    [
        *[(name, name, None) for name in BANDS],
        ("B2", "blue", None),
        ("B02", "blue", None),
        ("b8a", "red4", None),
        ("B8", "nir", None),
        ("B12_10m", "swir2", None),
        ("S2-L2A-B11", "swir1", None),
        ("B2_1", "blue", 1),
        ("B2_11", "blue", 11),
        ("3_B12", "swir2", 3),
        ("0_B4", "red", 0),
        ("blue_1", "blue", 1),
        ("red_1", "red", 1),
        ("red1", "red1", None),
        ("red_edge_1", "red1", None),
        ("rededge3", "red3", None),
        ("Red Edge 2", "red2", None),
        ("B5 red edge 1", "red1", None),
        ("nir08", "red4", None),
        ("swir16", "swir1", None),
        ("swir22", "swir2", None),
        ("SCL_20m", "scl", None),
        ("doy", "doy", None),
        ("T14SPH_B02", "blue", None),
        ("B1", None, None),
        ("B9", None, None),
        ("B10", None, None),
        ("TCI_10m", None, None),
        ("AOT_20m", None, None),
        ("visual", None, None),
        ("temperature_2m_3", None, None),
        ("slope", None, None),
        ("Band 1", None, None),
    ],
)
def test_names_of_bands_are_known(text, band, number):
    assert read_name(text)[:2] == (band, number)


def test_dates_in_names_of_bands_are_known():
    first = datetime(2019, 5, 3, 17, 39, 11)
    assert read_name("20190503T173911_20190503T174522_T14SPH_B8A") == ("red4", None, first)
    assert read_name("B2_20190503") == ("blue", None, date(2019, 5, 3))
    assert read_name("2019-05-03_B11") == ("swir1", None, date(2019, 5, 3))


@pytest.mark.parametrize(("missing", "other"), [("red4", "nir"), ("nir", "red4")])
def test_b8_and_b8a_stand_in_for_each_other(missing, other):
    found = {band: band for band in BANDS if band != missing}
    chosen, replaced = choose_bands(found, "x.tif")
    assert replaced == missing
    assert chosen == [other if band == missing else band for band in BANDS]


def test_other_missing_bands_are_named():
    found = {band: band for band in BANDS if band not in ("swir1", "red4")}
    with pytest.raises(
        DataError, match=r"x.tif: band B8A \(red4\), B11 \(swir1\) is missing \(it has B02 \(blue\), B03"
    ):
        choose_bands(found, "x.tif")
    with pytest.raises(DataError, match="band B08 .* B8A .* is missing"):
        choose_bands({band: band for band in BANDS if band not in ("nir", "red4")}, "x.tif")
