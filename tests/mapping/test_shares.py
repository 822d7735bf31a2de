"""A map whose classifier is corrected for the class shares of its area."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio

from datasets.classmap import CDL20
from mapping import predict, shares
from tests.support.image_files import Scene, make_scene
from tests.support.map_runs import alone, make_map, read_map, undecided
from tests.support.maps import refused
from tscls.prior import estimated, read_shares
from tscls.resume import told_file

HEIGHT, WIDTH = 20, 22
pytestmark = pytest.mark.usefixtures("no_figures")
TRAINED = np.random.default_rng(1).dirichlet(np.full(21, 5.0))


@pytest.fixture(scope="module")
def scene() -> Scene:
    return make_scene(3, days=6, height=HEIGHT, width=WIDTH, gaps=0.4)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """That of `undecided`, which says its shares."""
    path = tmp_path_factory.mktemp("models") / "model_best.pth"
    classifier = undecided()
    classifier.shares = TRAINED
    classifier.save(path)
    return path


@pytest.fixture(scope="module")
def plain(scene):
    return alone(undecided(), scene.pixels())


def expected(probability: np.ndarray, there: np.ndarray, scene: Scene) -> np.ndarray:
    weighted = probability * (there / TRAINED)
    weighted /= weighted.sum(1, keepdims=True)
    values, pixels = np.full((2, HEIGHT, WIDTH), 255, np.uint8), scene.pixels()
    values[0, pixels.row, pixels.col] = np.array(undecided().classmap.codes)[weighted.argmax(1)]
    values[1, pixels.row, pixels.col] = np.rint(100 * weighted.max(1))
    return values


def prior_of(path) -> dict:
    with rasterio.open(path) as file:
        return json.loads(file.tags()["PRIOR"])


def test_shares_are_estimated_from_all_pixels_of_a_small_map(scene, images, model, plain, tmp_path, capsys):
    path = make_map(model, images, tmp_path / "map.tif", "--prior", "estimate")
    told, there = prior_of(path), estimated(np.log(plain.astype(np.float64)), TRAINED)
    assert told["prior"] == "estimate"
    np.testing.assert_allclose(told["shares"], there, atol=2e-6)
    found, wanted = read_map(path), expected(plain, there, scene)
    np.testing.assert_array_equal(found[0], wanted[0])
    assert np.abs(found[1].astype(int) - wanted[1]).max() <= 1
    assert (found[0] != read_map(make_map(model, images, tmp_path / "plain.tif"))[0]).any()
    assert "\nclass shares, estimated from pixels of the map\nclass  " in capsys.readouterr().out
    with rasterio.open(tmp_path / "plain.tif") as file:
        assert "PRIOR" not in file.tags()


def test_statistics_are_used_as_they_are(scene, images, model, plain, tmp_path, capsys):
    (tmp_path / "shares.csv").write_text("class,area\nCorn,700\nSoybeans,300\n")
    path = make_map(model, images, tmp_path / "map.tif", "--prior", tmp_path / "shares.csv")
    there = read_shares(tmp_path / "shares.csv", CDL20)
    told = prior_of(path)
    assert told["prior"] == told_file(tmp_path / "shares.csv")
    np.testing.assert_allclose(told["shares"], there, atol=1e-6)
    found, wanted = read_map(path), expected(plain, there, scene)
    assert (found[0] == wanted[0]).mean() > 0.99 and set(np.unique(found[0])) - {255} <= {1, 5} | set(wanted[0].flat)
    assert "class shares" not in capsys.readouterr().out


def test_windows_processes_and_parts_make_the_same_map(images, model, tmp_path, monkeypatch):
    options = ("--prior", "estimate", "--window", 16)
    one = make_map(model, images, tmp_path / "one" / "map.tif", *options)
    two = make_map(model, images, tmp_path / "two" / "map.tif", *options, "--workers", 2)
    asked = []
    sample = shares.sample
    monkeypatch.setattr(shares, "sample", lambda *args: asked.append(1) or sample(*args))
    three = tmp_path / "three" / "map.tif"
    for part in ("2/2", "1/2"):
        make_map(model, images, three, *options, "--part", part)
    make_map(model, images, three, *options, "--merge")
    assert one.read_bytes() == two.read_bytes() == three.read_bytes()
    assert len(asked) == 1  # the other parts read them


def test_a_sample_is_spread_over_windows_and_pixels(images, model, tmp_path, monkeypatch):
    seen = []
    classify = shares.class_probabilities
    monkeypatch.setattr(shares, "WINDOWS", 2)
    monkeypatch.setattr(shares, "SAMPLE", 30)

    def spy(classifier, pixels, chosen, longest):
        seen.append((pixels.row[chosen].min() // 16, int(chosen.sum()), pixels.lengths[chosen].min(), longest))
        return classify(classifier, pixels, chosen, longest)

    monkeypatch.setattr(shares, "class_probabilities", spy)
    make_map(model, images, tmp_path / "map.tif", "--prior", "estimate", "--window", 16, "--min-observations", 3)
    assert [one[:2] for one in seen] == [(0, 15), (1, 15)] and all(one[2] >= 3 and one[3] == 6 for one in seen)


def test_parts_of_another_prior_are_refused(images, model, tmp_path, capsys):
    out = tmp_path / "map.tif"
    make_map(model, images, out, "--window", 16, "--prior", "estimate", "--part", "1/2")
    argv = ["--model", model, "--images", images, "--out", out, "--device", "cpu", "--window", 16, "--part", "2/2"]
    assert "differs in class shares: prior and 1 more (estimate, now none)" in refused(predict.main, argv, capsys)
    (tmp_path / "shares.csv").write_text("class,share\nCorn,1\n")
    line = refused(predict.main, [*argv, "--prior", tmp_path / "shares.csv"], capsys)
    assert "differs in class shares: prior and 1 more (estimate, now " in line


def test_a_model_without_shares_is_refused(images, tmp_path, capsys):
    undecided().save(tmp_path / "model.pth")
    argv = ["--model", tmp_path / "model.pth", "--images", images, "--out", tmp_path / "map.tif", "--device", "cpu"]
    line = refused(predict.main, [*argv, "--prior", "estimate"], capsys)
    assert line.startswith(f"error: {tmp_path / 'model.pth'}: does not say the class shares of its training")
    assert not (tmp_path / "map.tif.parts").exists()
