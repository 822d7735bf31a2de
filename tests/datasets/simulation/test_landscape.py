"""The ground plan: sections without gaps or overlaps, in their site's shares, true north up."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from affine import Affine
from rasterio.enums import MergeAlg
from rasterio.features import rasterize
from rasterio.warp import transform

from datasets.simulation.blocks import WRONG_LABELS
from datasets.simulation.crops import CROPS
from datasets.simulation.landscape import SECTION, ScenePlan, frame, grown, section, sections_in
from datasets.simulation.legend import COVERS
from datasets.simulation.sites import HARVEY, RANDOLPH, SITES

PLAN = ScenePlan(seed=7, site=SITES.index(HARVEY), year=2019, size=400)
NUMBERS = range(len(SITES))


def sections(plan: ScenePlan, side: int = 4) -> list:
    return [section(plan, i, j) for i in range(side) for j in range(-side, 0)]


@pytest.mark.parametrize("site", NUMBERS, ids=lambda n: SITES[n].name)
def test_every_pixel_lies_in_exactly_one_polygon(site):
    plan, at = ScenePlan(3, site, 2019, 400), frame(SITES[site])
    bounds = (at.left, at.top - 5_000, at.left + 5_000, at.top)
    polygons = [p for place in sections_in(plan, bounds) for p in section(plan, *place).polygons]
    assert all(p.is_valid and p.geom_type in ("Polygon", "MultiPolygon") for p in polygons)
    times = rasterize(
        [(p, 1) for p in polygons], (500, 500), transform=Affine(10, 0, at.left, 0, -10, at.top),
        merge_alg=MergeAlg.add, dtype="int32",
    )  # fmt: skip
    assert (times != 1).sum() <= 2  # a centre in the centimetre that rounding leaves between two polygons


def test_the_ground_plan_stays_and_the_crops_change_with_the_year():
    now, then = section(PLAN, 2, -3), section(ScenePlan(7, PLAN.site, 2020, 400), 2, -3)
    assert now.polygons == then.polygons and now.kinds == then.kinds
    assert (now.crop != then.crop).any()


def test_a_larger_scene_has_the_same_ground_plan():
    large = ScenePlan(PLAN.seed, PLAN.site, PLAN.year, 9_000)
    assert section(PLAN, 1, -1).polygons == section(large, 1, -1).polygons


@pytest.mark.parametrize("site", NUMBERS, ids=lambda n: SITES[n].name)
def test_covers_have_about_the_shares_of_the_site(site):
    area = Counter()
    for part in sections(ScenePlan(5, site, 2019, 400), side=6):
        for crop, polygon in zip(part.crop, part.polygons, strict=True):
            area[CROPS[crop].name] += polygon.area
    total = sum(area.values())
    assert total == pytest.approx(36 * SECTION**2, rel=1e-3)
    land = SITES[site].land
    for name in land:
        share = land[name] / sum(land.values())
        assert area[name] / total == pytest.approx(share, abs=0.03 + 0.4 * share), name


def test_what_is_not_a_field_has_its_own_cover():
    for part in sections(PLAN):
        names = [CROPS[crop].name for crop in part.crop]
        of = dict(road="developed", farmstead="developed", water="open water", wild="deciduous forest")
        for kind, name in zip(part.kinds, names, strict=True):
            assert name == of[kind] if kind in of else name not in of.values()


def test_centre_pivots_are_where_the_site_has_them():
    def circles(site) -> int:
        plan = ScenePlan(5, SITES.index(site), 2019, 400)
        polygons = [p for s in sections(plan, side=4) for k, p in zip(s.kinds, s.polygons, strict=True) if k == "field"]
        return sum(4 * np.pi * p.area / p.length**2 > 0.99 for p in polygons)

    assert circles(HARVEY) > 5 and circles(RANDOLPH) == 0


def test_few_whole_fields_are_labelled_wrong_and_nothing_else():
    parts = sections(PLAN, side=8)
    pairs = [pair for s in parts for pair in zip(s.claimed, s.crop, strict=True)]
    wrong = np.array([code not in CROPS[crop].codes for code, crop in pairs])
    field = np.concatenate([np.array(s.kinds) == "field" for s in parts])
    assert not wrong[~field].any()
    error = np.sqrt(WRONG_LABELS / field.sum())  # of the mean of so many fields
    assert abs(wrong[field].mean() - WRONG_LABELS) < 3 * error


def test_codes_are_those_of_the_cover_and_have_a_name():
    for part in sections(PLAN):
        assert all(code in CROPS[crop].codes for code, crop in zip(part.code, part.crop, strict=True))
    assert {code for crop in CROPS for code in crop.codes} <= set(COVERS)


def test_fields_grow_what_the_section_says():
    np.testing.assert_array_equal(grown(PLAN, 0, -1).crop, section(PLAN, 0, -1).crop)


@pytest.mark.parametrize("site", SITES, ids=lambda s: s.name)
def test_section_lines_point_to_true_north(site):
    at = frame(site)
    a, b, d, e, left, top = at.to_zone()
    x, y = [left, left + 5_000 * b], [top, top + 5_000 * e]  # 5 km along the local northing
    longitude, latitude = transform(f"EPSG:{at.epsg}", "EPSG:4326", x, y)
    assert latitude[0] == pytest.approx(site.latitude, abs=1e-3)
    assert longitude[1] == pytest.approx(longitude[0], abs=3e-5)
    assert latitude[1] - latitude[0] == pytest.approx(5_000 / 111_100, rel=0.01)


def test_local_coordinates_are_the_inverse_of_the_way_to_the_zone():
    at = frame(HARVEY)
    a, b, d, e, left, top = at.to_zone()
    u, v = at.to_local(np.array([left + 30 * a + 70 * b]), np.array([top + 30 * d + 70 * e]))
    assert (u[0], v[0]) == (pytest.approx(30), pytest.approx(70))
    assert at.left % 60 == at.top % 60 == 0


def test_nine_sections_and_what_grows_in_one_are_known():
    """Values of a run whose pictures were looked at: areas by kind (square metres), codes, and the fields of one."""
    parts = sections(PLAN, side=3)
    kinds = [kind for part in parts for kind in part.kinds]
    assert Counter(kinds) == dict(field=97, road=9, wild=8, water=7, farmstead=5)
    area = Counter()
    for kind, polygon in zip(kinds, (polygon for part in parts for polygon in part.polygons), strict=True):
        area[kind] += polygon.area
    expected = dict(road=490_039, wild=1_190_613, field=21_297_376, water=285_617, farmstead=60_713)
    assert area == pytest.approx(expected, rel=1e-3)
    one = section(PLAN, 2, -3)
    assert one.code.tolist() == [121, 111, 121, 141, 4, 1, 24, 176, 26, 5]
    assert one.certainty.sum() == pytest.approx(5.0549, abs=1e-3)
    assert one.polygons[-1].bounds == pytest.approx((644_516, 4_203_494, 645_320, 4_203_880), abs=1)
    assert sum(int(part.code.sum()) for part in parts) == 6734
    assert grown(PLAN, 0, -1).up[:3, 0] == pytest.approx([67.874, 79.121, -44.394], abs=1e-3)
    assert grown(PLAN, 0, -1).soil.sum() == pytest.approx(-108.888, abs=1e-3)
