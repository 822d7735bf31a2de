"""US-sim: stores that are valid, reproducible and whole, with series that look like the crops of their labels."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from datasets import location
from datasets import simulate as module
from datasets.bands import CLOUD_BRIGHTNESS, DN_SCALE, NIR, RED, SWIR1
from datasets.catalog import open_unlabelled
from datasets.classmap import CDL20, read_classmap
from datasets.errors import DataError
from datasets.simulate import ensure_default, plan_blocks, simulate
from datasets.simulation.blocks import BLOCK, BlockPlan, simulate_block
from datasets.simulation.canopy import ground_state, reflectance
from datasets.simulation.crops import CROPS, NUMBER
from datasets.simulation.fields import draw_fields
from datasets.simulation.sites import ADAMS, COAHOMA, GARFIELD, HARVEY, HASKELL, RANDOLPH, SITES
from datasets.simulation.weather import days_in_year, tile_year
from datasets.store import Store

SMALL = dict(unlabelled=900, train=260, valid=40, evaluation=130, progress=False)
WANTED = {  # covers that each real study site is known to have
    ADAMS: "spring wheat,sunflower,durum wheat,grass,canola,peas,other hay,shrubland,corn,alfalfa",
    COAHOMA: "woody wetlands,cotton,rice,soybeans,other hay,fallow,corn",
    GARFIELD: "evergreen forest,winter wheat,fallow,grass,peas,spring wheat,canola",
    HARVEY: "double crop,corn,alfalfa,soybeans,sorghum,winter wheat,grass,deciduous forest",
    HASKELL: "shrubland,sorghum,winter wheat,cotton,fallow",
    RANDOLPH: "deciduous forest,soybeans,corn,fallow",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return simulate(tmp_path_factory.mktemp("simulated") / "US-sim", **SMALL)


@pytest.fixture(scope="module")
def unlabelled(root) -> Store:
    return Store.open(root / "2019" / "unlabelled")


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def peak_day(site, crop: str, seed: int = 3, fields: int = 60) -> np.ndarray:
    """(F,) day of the highest cloud-free NDVI of fields of one crop, over daily surface reflectance."""
    return np.argmax(clean_ndvi(site, crop, seed, fields), axis=1) + 1


def clean_surface(site, crop: str, seed: int = 3, fields: int = 60) -> tuple[np.ndarray, object]:
    """Surface reflectance (10, F, 365) of dry, snow-free fields on every day of the year, and the fields."""
    from dataclasses import replace

    days = np.arange(1, 366)
    tile = replace(
        tile_year(seed, SITES.index(site), 0, 2020), days=days, moisture=np.zeros(365), snow=np.zeros(365),
        grain=np.zeros(365), sun=np.ones(365), shift=0.0, vigour=1.0,
    )
    drawn = draw_fields(np.random.default_rng(seed), site, tile, np.full(fields, NUMBER[crop]))
    return reflectance(drawn, ground_state(drawn, days), tile), drawn


def clean_ndvi(site, crop: str, seed: int = 3, fields: int = 60) -> np.ndarray:
    surface, _ = clean_surface(site, crop, seed, fields)
    return (surface[NIR] - surface[RED]) / (surface[NIR] + surface[RED])


def test_stores_are_valid_and_where_they_belong(root):
    assert read_classmap(root / "classmapping20.csv") == CDL20
    sizes = {"train": 260, "valid": 40, "eval": 130}
    expected = {"2019/unlabelled"} | {f"{year}/{pool}" for year in (2019, 2020, 2021) for pool in sizes}
    assert {str(path.parent.relative_to(root)) for path in root.rglob("meta.json")} == expected
    for year in (2019, 2020, 2021):
        for pool, size in sizes.items():
            store = Store.open(root / str(year) / pool)
            store.validate(CDL20.num_classes)
            assert len(store) == size
            assert (store.index["year"] == year).all()
            np.testing.assert_array_equal(store.labels, CDL20.label_of(store.index["code"].to_numpy()))
    store = Store.open(root / "2019" / "unlabelled")
    store.validate()
    assert len(store) == 900 and store.labels is None
    assert store.bands.min() >= 1 and store.bands.max() <= 16000


def test_same_seed_gives_the_same_bytes(root, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "APPEND", 3)  # pieces of another size
    again = simulate(tmp_path / "again", workers=2, **SMALL)
    assert files(root) == files(again)


def test_another_seed_gives_other_series(root, tmp_path):
    other = simulate(tmp_path / "other", seed=1, **SMALL)
    name = "2019/unlabelled/bands.npy"
    assert files(root)[name] != files(other)[name]


def test_a_larger_pool_begins_with_the_same_blocks():
    few, many = (list(plan_blocks("train", 2019, size, seed=5)) for size in (6 * BLOCK, 60 * BLOCK))
    series_of = {(p.site, p.number): p for p in many}
    small = few[0]
    large = series_of[(small.site, small.number)]
    first, second = simulate_block(small), simulate_block(large)
    count = int(first.lengths.sum())
    np.testing.assert_array_equal(first.bands, second.bands[:count])


@pytest.mark.parametrize("size", [1, 7, 1000, 12345])
def test_plans_make_exactly_the_series_asked_for(size):
    plans = list(plan_blocks("valid", 2021, size, seed=0))
    assert sum(plan.size for plan in plans) == size
    assert max(plan.size for plan in plans) <= BLOCK
    assert len({(plan.site, plan.number) for plan in plans}) == len(plans)


def test_every_site_grows_what_it_is_known_for():
    for site, names in WANTED.items():
        wanted = set(names.split(","))
        assert wanted <= set(site.land)
        assert sum(site.land[name] for name in wanted) > 0.85 * sum(site.land.values())
        assert set(site.calendar) >= set(site.land)
        assert all(CDL20.label_of(CROPS[NUMBER[name]].codes[0]) < 20 for name in wanted)
    grown = {code for site in SITES for name in site.land for code in CROPS[NUMBER[name]].codes}
    assert set(CDL20.codes[:-1]) <= grown  # each of the 20 classes, and "Other"
    assert any(code not in CDL20.codes for code in grown)


def test_sites_come_in_proportion_to_their_weights(root):
    regions = Store.open(root / "2019" / "train").index["region"].value_counts()
    for site in SITES:
        assert regions[site.name] == pytest.approx(260 * site.weight, abs=1.5)


def test_few_labels_are_wrong():
    codes, truth = [], []
    for number in range(40):
        block = simulate_block(BlockPlan(seed=1, pool=1, site=0, year=2019, number=number, size=BLOCK))
        codes.extend(block.codes)
        truth.extend(block.truth)
    wrong = np.mean([code not in CROPS[crop].codes for code, crop in zip(codes, truth, strict=True)])
    assert 0.01 < wrong < 0.06


def test_pools_have_streams_of_their_own():
    blocks = [simulate_block(BlockPlan(1, pool, site=2, year=2019, number=0, size=8)) for pool in range(4)]
    for first in range(4):
        for second in range(first):
            a, b = blocks[first].bands, blocks[second].bands
            assert a.shape != b.shape or (a != b).mean() > 0.5


def test_clouds_and_gaps_are_like_those_of_real_data(unlabelled):
    visible = unlabelled.bands[:, :3].sum(axis=1) * DN_SCALE
    assert 0.35 < (visible > CLOUD_BRIGHTNESS).mean() < 0.55
    inside = np.ones(len(unlabelled.doy) - 1, dtype=bool)
    inside[unlabelled.offsets[1:-1] - 1] = False
    gaps = np.diff(unlabelled.doy.astype(int))[inside]
    assert gaps.min() >= 2
    assert set(np.unique(gaps % 5)) <= {0, 2, 3}  # two orbits, two or three days apart, each every fifth day
    assert np.isin(gaps, (2, 3, 5, 7, 8, 10)).mean() > 0.8
    assert 50 < unlabelled.lengths.mean() < 70 and unlabelled.lengths.min() >= 20


def test_pixels_of_a_tile_share_their_dates():
    plan = BlockPlan(seed=4, pool=1, site=0, year=2019, number=0, size=BLOCK)
    block = simulate_block(plan)
    scenes = tile_year(4, 0, block.tile, 2019).days
    assert set(block.doy) <= set(scenes)


def test_orbits_repeat_every_five_days_over_the_years():
    for year in (2020, 2021):
        before, after = tile_year(9, 0, 0, year - 1), tile_year(9, 0, 0, year)
        moved = (before.days - 1) % 5, (after.days - 1 + days_in_year(year - 1)) % 5
        assert set(moved[0]) == set(moved[1])


def test_crops_peak_in_their_season():
    wheat, corn = np.median(peak_day(HARVEY, "winter wheat")), np.median(peak_day(HARVEY, "corn"))
    assert 95 < wheat < 155 < corn
    assert 175 < corn < 235
    assert 165 < np.median(peak_day(ADAMS, "spring wheat")) < 215
    assert 200 < np.median(peak_day(COAHOMA, "cotton")) < 265


def test_double_crop_has_two_seasons():
    ndvi = np.median(clean_ndvi(HARVEY, "double crop"), axis=0)
    assert ndvi[100:150].max() > 0.6 and ndvi[215:265].max() > 0.6
    assert ndvi[165:200].min() < 0.4


def test_evergreen_is_steady_and_dark_and_deciduous_is_not():
    evergreen, _ = clean_surface(GARFIELD, "evergreen forest")
    assert np.median(evergreen[SWIR1]) < 0.12
    steady, seasonal = clean_ndvi(GARFIELD, "evergreen forest"), clean_ndvi(RANDOLPH, "deciduous forest")
    assert np.median(np.ptp(steady, axis=1)) < 0.25 < np.median(np.ptp(seasonal, axis=1))


def test_flooded_rice_is_darker_and_less_green_than_dry_fields():
    surface, fields = clean_surface(COAHOMA, "rice")
    day = (fields.flood[:, 1] + 8).astype(int)
    rows = np.arange(len(day))
    flooded, before = surface[:, rows, day], surface[:, rows, (fields.flood[:, 1] - 8).astype(int)]
    assert np.median(flooded[SWIR1] / before[SWIR1]) < 0.6
    ratio = (flooded[NIR] - flooded[SWIR1]) / (flooded[NIR] + flooded[SWIR1])
    assert np.median(ratio) > np.median((before[NIR] - before[SWIR1]) / (before[NIR] + before[SWIR1])) + 0.1


def test_mown_alfalfa_has_several_dips():
    ndvi = clean_ndvi(HARVEY, "alfalfa")
    falls = ((ndvi[:, 10:] - ndvi[:, :-10]) < -0.2).astype(int)
    dips = (np.diff(falls, axis=1) == 1).sum(axis=1)
    assert np.median(dips) >= 2


def test_canola_flowers_yellow():
    surface, fields = clean_surface(ADAMS, "canola")
    bloom = np.clip(np.rint(fields.flower[:, 1]).astype(int) - 1, 0, 364)
    rows = np.arange(len(bloom))
    yellow = surface[1] / surface[0]  # green over blue
    assert np.median(yellow[rows, bloom] / yellow[rows, bloom - 20]) > 1.15


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    calls = []

    def interrupted(plan):
        calls.append(plan)
        if len(calls) > 4:
            raise KeyboardInterrupt
        return simulate_block(plan)

    monkeypatch.setattr(module, "simulate_block", interrupted)
    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path / "data" / "US-sim", **SMALL)
    assert list((tmp_path / "data").iterdir()) == []


@pytest.fixture
def default(tmp_path, monkeypatch) -> Path:
    """Where small default data belong; the working directory is another one."""
    monkeypatch.setattr(location, "REPOSITORY", tmp_path / "repository")
    monkeypatch.setattr(module, "simulate", partial(simulate, **SMALL))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "repository" / "data" / "US-sim"


def test_default_data_are_made_once_beside_the_scripts(default, tmp_path, capsys, monkeypatch):
    assert ensure_default("data/US-sim") == default
    assert len(Store.open(default / "2021" / "eval")) == 130 and capsys.readouterr().out.count("\n") == 1
    made = (default / "classmapping20.csv").stat().st_mtime_ns
    monkeypatch.setattr(module, "one_at_a_time", None)  # a lock is not needed any more, nor a folder to write to
    assert ensure_default("data/US-sim") == ensure_default(default) == default
    assert (default / "classmapping20.csv").stat().st_mtime_ns == made and capsys.readouterr().out == ""
    assert len(open_unlabelled("data/US-sim", 2019)) == 900
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert [path.name for path in default.parent.iterdir()] == ["US-sim"]


def test_default_data_of_a_read_only_checkout_are_in_the_cache_of_the_user(default, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "repository").mkdir(mode=0o555)
    found = ensure_default("data/US-sim")
    assert found == tmp_path / "cache" / "sits-moco" / "data" / "US-sim" == ensure_default("data/US-sim")
    assert len(open_unlabelled("data/US-sim", 2019)) == 900 and not default.exists()
    (tmp_path / "repository").chmod(0o755)
    default.mkdir(parents=True)
    (tmp_path / "repository").chmod(0o555)
    assert location.locate("data/US-sim") == default  # once they are there


def test_an_empty_folder_does_not_count_as_default_data(default):
    default.mkdir(parents=True)
    assert len(Store.open(ensure_default("data/US-sim") / "2019" / "train")) == 260


def test_nothing_is_simulated_for_another_path(default, tmp_path):
    assert ensure_default("data/mine") == Path("data/mine") and not default.exists()
    (tmp_path / "elsewhere" / "data" / "US-sim").mkdir(parents=True)
    assert ensure_default("data/US-sim") == Path("data/US-sim") and not default.exists()  # there is one right here
    assert list((tmp_path / "elsewhere" / "data" / "US-sim").iterdir()) == []


def _ensure_after(barrier, results):
    barrier.wait()
    results.put(str(ensure_default("data/US-sim")))
    results.put(len(open_unlabelled("data/US-sim", 2019)))


def test_processes_that_need_the_default_data_at_once_simulate_them_once(default, capfd):
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(3), context.Queue()
    workers = [context.Process(target=_ensure_after, args=(barrier, results)) for _ in range(3)]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=60) for _ in range(6)]
    for worker in workers:
        worker.join(timeout=30)
        assert worker.exitcode == 0
    assert sorted(map(str, found)) == sorted(["900"] * 3 + [str(default)] * 3)
    assert capfd.readouterr().out.count("simulating the default data once") == 1
    assert [path.name for path in default.parent.iterdir()] == ["US-sim"]


def test_a_root_that_appears_meanwhile_is_kept(tmp_path, monkeypatch):
    def slow(plan):
        (tmp_path / "x").mkdir(exist_ok=True)
        return simulate_block(plan)

    monkeypatch.setattr(module, "simulate_block", slow)
    with pytest.raises(DataError, match="x: another process has made it meanwhile"):
        simulate(tmp_path / "x", **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["x"] and list((tmp_path / "x").iterdir()) == []


@pytest.mark.parametrize(
    "wrong, text",
    [
        (dict(train=-1), "-1 train series"),
        (dict(unlabelled=0, train=0, valid=0, evaluation=0), "size 0"),
        (dict(years=()), "years none"),
        (dict(years=(2019, 2019)), "years 2019 2019"),
        (dict(years=(1999,)), "2019 to 2100"),
        (dict(seed=-3), "seed -3"),
        (dict(workers=0), "0 workers"),
    ],
)
def test_wrong_sizes_are_one_clear_line(tmp_path, wrong, text):
    with pytest.raises(DataError, match=text) as error:
        simulate(tmp_path / "x", **{**SMALL, **wrong})
    assert "\n" not in str(error.value)
    assert not (tmp_path / "x").exists()


def test_the_command_makes_a_root_once(tmp_path):
    command = [sys.executable, "-m", "datasets.simulate", "--out", str(tmp_path / "tiny"), "--unlabelled", "30"]
    command += ["--train", "20", "--valid", "5", "--eval", "10", "--years", "2020", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(Store.open(tmp_path / "tiny" / "2020" / "train")) == 20
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 2
    assert again.stderr.startswith("error: ") and again.stderr.count("\n") == 1
