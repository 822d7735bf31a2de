"""--prior: class shares recorded in training, and predictions corrected for those of the place."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import main_tscls
from datasets.catalog import open_eval, open_unlabelled
from datasets.classmap import CDL20
from tests.support.classifiers import series_of, small_classifier
from tests.support.runs import calls_of, checkpoint, refused, rows, train
from tscls import evaluation, predict, prior, runs
from tscls import test as test_command
from tscls.classifier import load_classifier
from tscls.evaluation import predict_all, prior_tag, told_prior
from tscls.resume import told_file
from utils.checkpoint import CheckpointError, save_checkpoint
from utils.metrics import score
from utils.report import write_comparison
from utils.runtime.distributed import World

pytestmark = pytest.mark.usefixtures("no_pictures")
FLAGS = ("--rc", "-e", 3, "-lr", 0.01)


@pytest.fixture(scope="module")
def run(data_root, tmp_path_factory):
    """A run of a network; tests must not write to it."""
    return train(data_root, tmp_path_factory.mktemp("results"), *FLAGS, "--years", 2019, 2020, "--prior", "estimate")


@pytest.fixture(scope="module")
def statistics(tmp_path_factory):
    """Half of it is class 3, and a fourth class 1."""
    path = tmp_path_factory.mktemp("statistics") / "my shares.csv"
    path.write_text(f"class,share\n{CDL20.names[3]},50\n{CDL20.codes[1]},25\nOther,25\n")
    return path


def raw(folder, root, year: int = 2019):
    """Predictions as they are, labels and the classifier."""
    classifier, series = load_classifier(folder, "cpu"), open_eval(root, year)
    return predict_all(classifier, series, World()), series.labels, classifier


# ---- recorded in training


def test_a_network_and_an_estimator_keep_the_shares_of_their_training(run, data_root, tmp_path, monkeypatch):
    opened = calls_of(runs, "fit_estimator", monkeypatch)
    forest = train(data_root, tmp_path, model="gbt")
    splits = opened[0][1]
    labels = np.concatenate([splits.train.labels, splits.valid.labels])  # the few-label recipe trains on both
    expected = prior.training_shares(labels, 21)
    assert load_classifier(forest).shares == pytest.approx(expected)
    assert load_classifier(run).shares == pytest.approx(expected)  # the same seed and number
    assert checkpoint(run, "model_last.pth")["shares"] == pytest.approx(expected.tolist())


def test_a_recipe_that_watches_valid_is_not_trained_on_its_labels(data_root, tmp_path, monkeypatch):
    opened = calls_of(runs, "fit", monkeypatch)
    folder = train(data_root, tmp_path, "--recipe", "published")
    assert load_classifier(folder).shares == pytest.approx(prior.training_shares(opened[0][1].train.labels, 21))


def test_older_checkpoints_have_none(tmp_path):
    small_classifier("stnet").save(tmp_path / "model.pth")
    assert load_classifier(tmp_path / "model.pth", "cpu").shares is None


@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.0] + [0.05] * 20, "all"])
def test_damaged_shares_are_refused(shares, tmp_path):
    classifier = small_classifier("stnet")
    save_checkpoint(
        tmp_path / "a.pth",
        {"model_state": classifier.model.state_dict(), **classifier.settings(), "shares": shares},
    )
    with pytest.raises(CheckpointError, match="its settings are damaged"):
        load_classifier(tmp_path / "a.pth", "cpu")


# ---- predictions


@pytest.mark.parametrize("draws", [0, 3])
def test_predictions_are_corrected_after_the_mean_over_draws(draws, tmp_path):
    series = series_of(tmp_path / "store", [5, 12, 30, 9])
    classifier = small_classifier("stnet", draws=draws)
    plain = predict_all(classifier, series, World())
    generator = np.random.default_rng(0)
    classifier.shares, classifier.there = generator.dirichlet(np.ones(21)), generator.dirichlet(np.ones(21))
    found = predict_all(classifier, series, World())
    weighted = plain.exp().double() * torch.from_numpy(classifier.there / classifier.shares)
    torch.testing.assert_close(found, (weighted / weighted.sum(1, keepdim=True)).log().float(), atol=1e-5, rtol=1e-5)
    assert found.dtype == torch.float32 and (found - plain).abs().max() > 0.1
    classifier.there = classifier.shares
    torch.testing.assert_close(predict_all(classifier, series, World()), plain, atol=1e-5, rtol=1e-5)


@given(st.integers(0, 10_000), st.integers(1, 300))
def test_a_sample_is_evenly_spaced(count, size):
    places = prior.spread(count, size)
    assert len(places) == min(count, size) == len(set(places.tolist()))
    assert ((places >= 0) & (places < max(count, 1))).all()
    if len(places) > 1:
        assert set(np.diff(places).tolist()) <= {count // len(places), count // len(places) + 1}
        assert abs(places[0] - (count - 1 - places[-1])) <= 1


# ---- main_tscls.py


def test_a_run_is_tested_as_it_is_and_with_the_shares_of_each_test_set(run, data_root):
    tested = rows(run, "testlog.csv")
    assert [(row["year"], row["prior"]) for row in tested] == [
        ("2019", "none"), ("2019", "estimate"), ("2020", "none"), ("2020", "estimate"),
    ]  # fmt: skip
    for year, plain, other in ((2019, *tested[:2]), (2020, *tested[2:])):
        log_probability, labels, classifier = raw(run, data_root, year)
        there = prior.estimated(log_probability.double().numpy(), classifier.shares)
        corrected = torch.from_numpy(prior.corrected(log_probability.double().numpy(), classifier.shares, there))
        assert float(plain["loss"]) == pytest.approx(score(log_probability, labels)["loss"], rel=1e-4)
        expected = score(corrected.float(), labels)
        assert float(other["loss"]) == pytest.approx(expected["loss"], rel=1e-4) and plain["loss"] != other["loss"]
        tag = "" if year == 2019 else "_2020"
        matrix = np.load(run / f"test_conf_mat{tag}_prior-estimate.npy")
        np.testing.assert_array_equal(matrix, expected["confusion_matrix"])
        np.testing.assert_allclose(np.load(run / f"test_class_f1{tag}_prior-estimate.npy"), expected["class_f1"])
        table = pd.read_csv(run / f"class_shares{tag}.csv")
        assert list(table) == ["class", "name", "training", "there"]
        assert list(table["name"]) == list(CDL20.names) and list(table["class"]) == list(range(21))
        np.testing.assert_allclose(table["there"], there, rtol=1e-3)
        np.testing.assert_allclose(table["training"], classifier.shares)
    assert pd.read_csv(run / "test_class_f1_prior-estimate.csv")["support"].sum() == 30


def test_a_finished_run_is_tested_with_another_prior_and_keeps_its_rows(data_root, statistics, tmp_path, capsys):
    folder = train(data_root, tmp_path, *FLAGS)
    first = (folder / "testlog.csv").read_text().splitlines()[1]
    weights = (folder / "model_best.pth").read_bytes()
    train(data_root, tmp_path, *FLAGS, "--prior", statistics)
    printed = capsys.readouterr().out
    assert "this run is there and finished" in printed and "(finished before)" not in printed
    told = told_file(statistics)
    assert f"{folder.name}, 2019, prior {told}: OA " in printed and not (folder / "class_shares.csv").exists()
    assert [row["prior"] for row in rows(folder, "testlog.csv")] == ["none", told]
    assert (folder / "model_best.pth").read_bytes() == weights
    log_probability, labels, classifier = raw(folder, data_root)
    there = prior.read_shares(statistics, classifier.classmap)
    assert there[3] == pytest.approx(0.5, abs=0.01)
    expected = score(classifier.corrected(log_probability, there), labels)["loss"]
    assert float(rows(folder, "testlog.csv")[1]["loss"]) == pytest.approx(expected, rel=1e-4)
    assert (folder / f"test_conf_mat{prior_tag(told)}.npy").exists()

    train(data_root, tmp_path, *FLAGS, "--prior", statistics)  # all is there
    printed = capsys.readouterr().out
    assert "(finished before)" in printed and "prior" not in printed.split("model")[0]
    train(data_root, tmp_path, *FLAGS, "--eval", "--prior", "estimate")
    assert [row["prior"] for row in rows(folder, "testlog.csv")] == ["none", told, "estimate"]
    assert "class shares of 2019, estimated\nclass " in capsys.readouterr().out
    line = (folder / "testlog.csv").read_text().splitlines()[1]
    assert line.split(",")[:6] == first.split(",")[:6]


def test_the_headline_is_the_test_without_a_prior(run, tmp_path):
    text = write_comparison(run, tmp_path)
    tested = rows(run, "testlog.csv")
    (row,) = pd.read_csv(tmp_path / "comparison.csv").to_dict("records")
    assert row["oa_mean"] == pytest.approx(float(tested[0]["oa"])) and row["prior"] == "none"
    years = pd.read_csv(tmp_path / "years.csv")
    assert sorted(zip(years["year"], years["prior"], strict=True)) == [
        (2019, "estimate"), (2019, "none"), (2020, "estimate"), (2020, "none"),
    ]  # fmt: skip
    assert "  2019 prior estimate  " in text and "  2020  " in text


def test_a_prior_makes_no_other_experiment(data_root, tmp_path):
    one = train(data_root, tmp_path, "--rc", "--prior", "estimate")
    assert json.loads((one / "args.json").read_text())["prior"] == "estimate"
    train(data_root, tmp_path, "--rc", "--seeds", 222)
    write_comparison(tmp_path, tmp_path)
    assert pd.read_csv(tmp_path / "comparison.csv")["runs"].tolist() == [2]


def test_what_names_of_files_have_of_a_prior(statistics):
    assert told_prior("none") == "none" and told_prior("estimate") == "estimate"
    told = told_prior(str(statistics))
    assert told == told_file(statistics) and told.startswith(f"{statistics.parent.name}/my shares.csv (")
    assert prior_tag("none") == "" and prior_tag("estimate") == "_prior-estimate"
    assert prior_tag("a/my shares.csv (12ab34cd)") == "_prior-a-my-shares.csv-12ab34cd"


def test_a_bad_file_is_refused_before_anything_is_trained(data_root, tmp_path, capsys):
    (tmp_path / "shares.csv").write_text("class,share\nbarley,1\n")
    flags = ["stnet", "--datapath", data_root, "-l", tmp_path / "results", "-d", "cpu", "-n", 50]
    line = refused(main_tscls, [*flags, "--prior", tmp_path / "shares.csv"], capsys)
    assert line.startswith(f"{tmp_path / 'shares.csv'}: line 2: 'barley' is no class")
    line = refused(main_tscls, [*flags, "--prior", tmp_path / "none.csv"], capsys)
    assert line == f"{tmp_path / 'none.csv'}: no such file"
    assert not list((tmp_path / "results").glob("T_*/*"))


def test_a_checkpoint_without_shares_is_refused_in_one_line(data_root, statistics, tmp_path, capsys):
    small_classifier("stnet").save(tmp_path / "model.pth")
    told = (
        f"{tmp_path / 'model.pth'}: does not say the class shares of its training, which --prior needs; train it again"
        " with main_tscls.py, or leave out --prior"
    )
    common = ["--model", tmp_path / "model.pth", "--datapath", data_root, "-d", "cpu", "--prior"]
    assert refused(predict, [*common, "estimate", "--out", tmp_path / "a.csv"], capsys) == told
    assert refused(test_command, [*common, statistics, "--out", tmp_path / "test"], capsys) == told
    assert not (tmp_path / "test").exists()
    folder = train(data_root, tmp_path / "results")
    for name in ("model_best.pth", "model_last.pth"):
        content = checkpoint(folder, name)
        del content["shares"]
        torch.save(content, folder / name)
    flags = ["stnet", "--datapath", data_root, "-l", tmp_path / "results", "-d", "cpu", "-n", 50, "--sequencelength"]
    line = refused(main_tscls, [*flags, 20, "-b", 16, "-e", 1, "--prior", "estimate"], capsys)
    assert line.startswith(f"{folder}: does not say the class shares")


# ---- tscls.test and tscls.predict


def test_tscls_test_has_both_rows_and_the_prior_decides_its_folder(run, data_root, tmp_path, capsys):
    common = ["--model", run, "--datapath", data_root, "-d", "cpu", "--out", tmp_path / "a"]
    test_command.main(list(map(str, [*common, "--prior", "estimate"])))
    found = {(row["year"], row["prior"]): row["loss"] for row in rows(tmp_path / "a", "testlog.csv")}
    assert found == {(row["year"], row["prior"]): row["loss"] for row in rows(run, "testlog.csv")[:2]}
    capsys.readouterr()
    assert "prior none here, estimate there" in refused(test_command, common, capsys).replace("--prior", "prior")


def test_tscls_predict_estimates_from_the_series_that_it_predicts(run, data_root, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evaluation, "SAMPLE", 20)
    monkeypatch.setattr(prior.spread, "__defaults__", (20,))
    predict.main(list(map(str, ["--model", run, "--datapath", data_root, "-d", "cpu", "--prior", "estimate",
                                "--out", tmp_path / "a.csv"])))  # fmt: skip
    classifier, series = load_classifier(run, "cpu"), open_unlabelled(data_root, 2019)
    plain = predict_all(classifier, series, World())
    there = prior.estimated(plain[prior.spread(len(series), 20)].double().numpy(), classifier.shares)
    best, classes = classifier.corrected(plain, there).max(1)
    table = pd.read_csv(tmp_path / "a.csv")
    assert table["class"].tolist() == classes.tolist()
    np.testing.assert_allclose(table["confidence"], best.exp(), atol=1e-4)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "class shares, estimated from 20 series"
    assert printed[1].split() == ["class", "in", "training", "there"]
    assert printed[2].startswith(CDL20.names[there.argmax()]) and printed[2].endswith(f"  {there.max():.3f}")


def test_tscls_predict_takes_statistics(run, data_root, statistics, tmp_path, capsys):
    predict.main(list(map(str, ["--model", run, "--datapath", data_root, "-d", "cpu", "--prior", statistics,
                                "--out", tmp_path / "a.csv"])))  # fmt: skip
    classifier, series = load_classifier(run, "cpu"), open_unlabelled(data_root, 2019)
    classifier.there = prior.read_shares(statistics, classifier.classmap)
    best = predict_all(classifier, series, World()).amax(1).exp()
    np.testing.assert_allclose(pd.read_csv(tmp_path / "a.csv")["confidence"], best, atol=1e-5)
    assert "class shares" not in capsys.readouterr().out
