from datetime import date, datetime, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.warp import transform

from datasets.area import area_of, check_bbox, solar_day, utm_of
from datasets.errors import DataError


@pytest.mark.parametrize(
    ("bbox", "zone"),
    [
        ((-97.5, 38.0, -97.0, 38.5), "EPSG:32614"),
        ((3.1, 50.0, 3.2, 51.0), "EPSG:32631"),
        ((30.0, -3.0, 31.0, -2.0), "EPSG:32736"),
        ((-180.0, 10.0, -179.0, 11.0), "EPSG:32601"),
        ((179.0, 10.0, 180.0, 11.0), "EPSG:32660"),
    ],
)
def test_utm_zone_of_a_place(bbox, zone):
    assert utm_of(bbox) == zone


places = st.tuples(
    st.floats(-179, 179), st.floats(-70, 70), st.floats(0.0001, 1), st.floats(0.0001, 1)
)  # west, south, width, height


@settings(max_examples=60, deadline=None)
@given(places, st.sampled_from([10.0, 20.0, 30.0]), st.sampled_from([(0.0, 0.0), (15.0, 5.0)]), st.integers(0, 2))
def test_the_grid_covers_the_place_with_whole_pixels(place, resolution, anchor, margin):
    west, south, width, height = place
    bbox = (west, south, west + width, south + height)
    area = area_of(bbox, utm_of(bbox), resolution, anchor=anchor, margin=margin)
    assert (area.left - anchor[0]) % resolution == (area.top - anchor[1]) % resolution == 0
    edge = np.linspace(0, 1, 21)
    longitudes = [west + width * edge] * 2 + [np.full(21, west), np.full(21, west + width)]
    latitudes = [np.full(21, south), np.full(21, south + height)] + [south + height * edge] * 2
    x, y = transform("EPSG:4326", area.crs, np.concatenate(longitudes), np.concatenate(latitudes))
    spare = [
        min(x) - area.left,
        area.left + area.width * resolution - max(x),
        area.top - max(y),
        min(y) - (area.top - area.height * resolution),
    ]
    # at least the margin, and less than a pixel more (the curved edge may bulge between the points)
    assert all(margin * resolution - 0.5 <= left < (margin + 1) * resolution + 0.5 for left in spare)


def test_the_grid_covers_the_curve_of_a_parallel():
    """In the middle of its zone it lies about 100 m south of its ends."""
    area = area_of((-99.5, 60.0, -98.5, 60.5), "EPSG:32614", 10.0)
    _, (y,) = transform("EPSG:4326", "EPSG:32614", [-99.0], [60.0])
    assert 0 <= y - (area.top - area.height * 10) < 10


def test_transform_of_a_grid():
    area = area_of((-97.5, 38.0, -97.49, 38.01), "EPSG:32614", 10.0)
    assert area.transform == (10.0, 0.0, area.left, 0.0, -10.0, area.top)


@pytest.mark.parametrize(
    "bbox", [(1, 0, 1, 1), (1, 0, 0, 1), (0, 1, 1, 1), (0, 2, 1, 1), (-181, 0, 1, 1), (0, 0, 181, 1), (0, -91, 1, 1),
             (0, 0, 1, 91), (float("nan"), 0, 1, 1)],
)  # fmt: skip
def test_a_bounding_box_that_is_none(bbox):
    with pytest.raises(DataError, match="WEST SOUTH EAST NORTH"):
        check_bbox(bbox)


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:2264", "x"])  # degrees, feet, none
def test_a_crs_that_cannot_be_used(crs):
    with pytest.raises(DataError, match="is not known" if crs == "x" else "not in metres"):
        area_of((-97.5, 38.0, -97.49, 38.01), crs, 10.0)


@pytest.mark.parametrize(
    ("when", "longitude", "day"),
    [
        ("2021-05-03T23:59:00", 0, "2021-05-03"),
        ("2021-05-03T12:00:00", 179.9, "2021-05-03"),
        ("2021-05-03T12:01:00", 179.9, "2021-05-04"),
        ("2021-05-03T06:35:00", -99, "2021-05-02"),
        ("2021-05-03T06:37:00", -99, "2021-05-03"),
    ],
)
def test_solar_day(when, longitude, day):
    assert solar_day(datetime.fromisoformat(when).replace(tzinfo=timezone.utc), longitude) == date.fromisoformat(day)
