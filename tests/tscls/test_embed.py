"""python -m tscls.embed: features of series and of pixels, as files and as a picture."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
import torch

from datasets.classmap import CDL20
from datasets.images import open_images
from datasets.store import SeriesSet, Store
from models import build_model
from tests.support.classifiers import small_classifier
from tests.support.runs import refused
from tscls import embed, embedding_files, projection
from tscls import predict as predict_module
from tscls.embedding_files import Quantisation, npz_writer
from utils.checkpoint import save_checkpoint
from utils.results import figures


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder of a network."""
    folder = tmp_path_factory.mktemp("run")
    small_classifier("stnet").save(folder / "model_best.pth")
    return folder


def command(model, out, *more) -> list[str]:
    return [str(word) for word in ("--model", model, "--out", out, "-d", "cpu", *more)]


def features_of(root, split: str) -> tuple[SeriesSet, np.ndarray]:
    series = SeriesSet.whole(Store.open(root / "2019" / split))
    return series, torch.cat(list(small_classifier("stnet").embed(series))).numpy()


@pytest.mark.parametrize("suffix", [".csv", ".npz"])
@pytest.mark.parametrize("split", ["unlabelled", "eval"])
def test_series_are_embedded_in_their_order(run, data_root, tmp_path, capsys, split, suffix, monkeypatch):
    monkeypatch.setattr("tscls.classifier.CHUNK", 16)  # several pieces
    monkeypatch.setattr("tscls.classifier.BATCH", 8)
    out = tmp_path / f"embeddings{suffix}"
    embed.main(command(run, out, "--datapath", data_root, "--split", split))
    series, expected = features_of(data_root, split)
    if suffix == ".npz":
        with np.load(out) as file:
            found = dict(file)
        features = found.pop("features")
    else:
        table = pd.read_csv(out)
        features = table.pop("f0").to_frame().join(table.filter(regex=r"^f\d+$")).to_numpy()
        found = {name: table[name].to_numpy() for name in ("id", "label") if name in table}
        assert list(table.columns)[-1] == f"f{expected.shape[1] - 1}"
    np.testing.assert_allclose(features, expected, atol=1e-6)
    assert found["id"].tolist() == list(range(len(series)))
    assert ("label" in found) == (split == "eval")
    if split == "eval":
        assert found["label"].tolist() == series.labels.tolist()
    assert f"{out}: 128 features of {len(series)} series, " in capsys.readouterr().out
    assert [file.name for file in tmp_path.iterdir()] == [out.name]


def test_another_year(run, data_root, tmp_path):
    embed.main(command(run, tmp_path / "e.npz", "--datapath", data_root, "--split", "eval", "--year", 2020))
    series = SeriesSet.whole(Store.open(data_root / "2020" / "eval"))
    with np.load(tmp_path / "e.npz") as file:
        np.testing.assert_allclose(
            file["features"], torch.cat(list(small_classifier("stnet").embed(series))), atol=1e-6
        )


def test_a_pretraining_is_embedded_by_its_query_encoder(data_root, tmp_path):
    torch.manual_seed(3)
    network = build_model("transformer", sequencelength=12, use_doy=True, init="torch")
    state = {f"encoder_q.{name}": tensor for name, tensor in network.state_dict().items()}
    told = {"model": network.arguments, "length_method": "rc"}
    save_checkpoint(tmp_path / "p.pth", {"model_state": state, **told})
    save_checkpoint(tmp_path / "published.pth", {"model_state": {f"module.{name}": t for name, t in state.items()}})
    save_checkpoint(tmp_path / "labels.pth", {"model_state": state, "classmap": CDL20.as_dict(), **told})
    files = ("p.pth", None), ("published.pth", "transformer"), ("p.pth", "stnet"), ("labels.pth", "stnet")
    for file, name in files:
        more = ("--network", name) if name else ()
        embed.main(command(tmp_path / file, tmp_path / "e.npz", "--datapath", data_root, *more))
        own = build_model(name or "transformer", sequencelength=12, use_doy=file != "published.pth")
        own.load_state_dict({k: t for k, t in network.state_dict().items() if "position_enc" not in k}, strict=False)
        series = SeriesSet.whole(Store.open(data_root / "2019" / "unlabelled"))
        classifier = small_classifier("transformer of days")
        classifier.model = own
        with np.load(tmp_path / "e.npz") as found:
            np.testing.assert_allclose(found["features"], torch.cat(list(classifier.embed(series))), atol=1e-5)


def test_a_forest_has_no_features(data_root, tmp_path, capsys):
    small_classifier("rf").save(tmp_path / "model_best.skops")
    line = refused(embed, command(tmp_path, tmp_path / "e.npz", "--datapath", data_root), capsys)
    assert "rf has no features" in line and str(tmp_path) in line


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ((), "give either --datapath, for series, or --images"),
        (("--datapath", "a", "--images", "b"), "give either --datapath, for series, or --images"),
        (("--images", "b"), "of images, expected a name that ends in .tif or .tiff"),
        (("--datapath", "a", "--out", "e.tif"), "of series, expected a name that ends in .parquet or .csv or .npz"),
        (("--datapath", "a", "--out", "none/e.npz"), "there is no folder none"),
        (("--images", "a", "--out", "e.tif", "--picture", "p.png"), "--picture is for series"),
        (("--datapath", "a", "--picture", "p.jpg"), "expected a name in .png"),
        (("--datapath", "a", "--picture", "none/p.png"), "in a folder that exists"),
    ],
)
def test_a_command_that_makes_no_sense_is_refused(tmp_path, monkeypatch, capsys, flags, told):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(figures, "available", lambda: True)
    assert told in refused(embed, command("run", "e.npz", *flags), capsys)


# -- files -------------------------------------------------------------------------------------------------------------


def test_ids_that_are_text_are_kept(tmp_path):
    with npz_writer(tmp_path / "e.npz", 3, 2) as write:
        write(np.array(["a", "bcd"], object), None, np.array([[1, 2], [3, 4]], np.float32))
        write(np.array(["e"], object), None, np.array([[5, 6]], np.float32))
    with np.load(tmp_path / "e.npz", allow_pickle=False) as file:
        assert set(file) == {"id", "features"} and file["id"].tolist() == ["a", "bcd", "e"]
        assert file["features"].tolist() == [[1, 2], [3, 4], [5, 6]]


def test_quantised_features_are_near_and_the_rest_is_counted():
    sample = np.random.default_rng(0).normal(2, (0.5, 3), size=(1000, 2))
    quantise = Quantisation(sample)
    numbers = quantise(sample)
    assert numbers.dtype == np.int8 and quantise.clipped == 0 and quantise.total == 2000
    assert np.abs(numbers * quantise.scale + quantise.offset - sample).max(0) == pytest.approx(
        quantise.scale / 2, rel=0.1
    )
    widest = np.ptp(sample, axis=0) / 2 * embedding_files.MARGIN
    assert quantise.scale * 127 == pytest.approx(widest)
    beyond = quantise(np.stack([quantise.offset + 2 * widest, quantise.offset - 2 * widest]))
    assert beyond.tolist() == [[127, 127], [-127, -127]] and quantise.clipped == 4


def test_a_feature_that_is_constant_is_kept():
    quantise = Quantisation(np.full((5, 1), 3.25))
    assert (quantise(np.full((2, 1), 3.25)) * quantise.scale + quantise.offset).tolist() == [[3.25], [3.25]]


def test_images_become_a_band_a_feature(run, tmp_path, capsys, monkeypatch):
    rasterio = pytest.importorskip("rasterio")
    from tests.support.imagery import days_of, write_images

    folder = tmp_path / "images"
    corner = np.zeros((20, 30), bool)
    corner[:3, :4] = True
    write_images(folder, 20, 30, days_of(5), lost=lambda number: corner)
    monkeypatch.setattr(embedding_files, "WINDOW", 16)
    monkeypatch.setattr(embedding_files, "SAMPLE_WINDOW", 8)
    embed.main(command(run, tmp_path / "e.tif", "--images", folder))
    images = open_images(folder)
    pixels = images.read(next(iter(images.grid.windows(4096))))
    expected = embedding_files.embed_pixels(small_classifier("stnet"), pixels)
    with rasterio.open(tmp_path / "e.tif") as file:
        assert (file.count, file.dtypes[0], file.nodata) == (128, "int8", -128)
        assert (file.crs, file.transform, file.shape) == (
            images.grid.crs,
            images.grid.transform,
            (images.grid.height, images.grid.width),
        )
        assert file.descriptions[:2] == ("f0", "f1") and file.tags()["MODEL"] == str(run)
        assert "UNTIL_DOY" not in file.tags()
        numbers, scale, offset = file.read(), np.array(file.scales), np.array(file.offsets)
    values = numbers[:, pixels.row, pixels.col].T * scale + offset
    is_within = np.abs((expected - offset) / scale) <= 127
    assert (np.abs(values - expected)[is_within] <= np.broadcast_to(scale * 0.51, expected.shape)[is_within]).all()
    seen = np.zeros(numbers.shape[1:], bool)
    seen[pixels.row, pixels.col] = True
    assert (numbers[:, ~seen] == -128).all() and (numbers[:, seen] > -128).all()
    assert f"128 features of {len(pixels.lengths):,} pixels on " in capsys.readouterr().out


def test_images_after_the_day_of_the_training_are_not_seen(tmp_path, capsys):
    rasterio = pytest.importorskip("rasterio")
    from tests.support.imagery import days_of, write_images

    (tmp_path / "run").mkdir()
    classifier = small_classifier("stnet")
    classifier.until = days_of(5)[2].timetuple().tm_yday
    classifier.save(tmp_path / "run" / "model_best.pth")
    write_images(tmp_path / "whole", 20, 30, days_of(5))
    write_images(tmp_path / "short", 20, 30, days_of(5)[:3])
    found = []
    for name in ("whole", "short"):
        embed.main(command(tmp_path / "run", tmp_path / f"{name}.tif", "--images", tmp_path / name))
        with rasterio.open(tmp_path / f"{name}.tif") as file:
            assert file.tags()["UNTIL_DOY"] == str(classifier.until)
            found.append((file.read(), file.scales, file.offsets))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert found[0][1:] == found[1][1:]
    assert f"series up to day {classifier.until}, as in training" in capsys.readouterr().out


# -- pictures ----------------------------------------------------------------------------------------------------------


def test_the_sample_is_spread_over_all_pieces(monkeypatch):
    monkeypatch.setattr(projection, "SAMPLE", 4)
    sample = projection.Sample(10)
    features = np.arange(20.0).reshape(10, 2)
    sample.add(np.arange(7), features[:7])
    sample.add(np.arange(7, 10), features[7:])
    assert np.concatenate(sample.labels).tolist() == [0, 3, 6, 9]
    assert np.concatenate(sample.features)[:, 0].tolist() == [0, 6, 12, 18]
    unlabelled = projection.Sample(2)
    unlabelled.add(None, features[:2])
    assert unlabelled.labels[0].tolist() == [-1, -1]


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_a_projection_keeps_groups_apart_and_is_the_same_every_time(method):
    generator = np.random.default_rng(0)
    features = np.concatenate([generator.normal(center, 0.3, (30, 8)) for center in (0, 4)]).astype(np.float32)
    points = projection.project(features, method)
    first, second = points[:30], points[30:]
    apart = np.linalg.norm(first.mean(0) - second.mean(0))
    assert points.shape == (60, 2) and apart > 2 * max(first.std(0).max(), second.std(0).max())
    assert np.array_equal(points, projection.project(features, method))


def test_classes_have_their_names_and_colours():
    assert projection._looks(-1, CDL20) == ("no label", "#888888")
    name, colour = projection._looks(2, CDL20)
    assert name == CDL20.names[2] and (colour * 255).round().tolist() == list(CDL20.colours[2])
    assert projection._looks(2, None) == ("class 2", "C2") and projection._looks(99, CDL20)[0] == "class 99"


@pytest.mark.skipif(not figures.available(), reason="matplotlib is an optional extra")
def test_a_picture_is_drawn_beside_the_table(run, data_root, tmp_path):
    embed.main(
        command(run, tmp_path / "e.csv", "--datapath", data_root, "--split", "eval", "--picture", tmp_path / "p.png")
    )
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_umap_is_optional(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    monkeypatch.setattr(figures, "available", lambda: True)
    with pytest.raises(ValueError, match="pip install umap-learn"):
        projection.check("umap", tmp_path / "p.png")


def test_ids_are_those_of_the_index():
    assert embed.ids_of is predict_module.ids_of
