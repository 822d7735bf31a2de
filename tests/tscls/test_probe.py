"""Probes of frozen features: values, and that they disturb nothing."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.catalog import Selection, open_labelled
from models import build_model
from tests.support.runs import column, pretrain, rows, same, weights
from tscls import probe
from tscls.classifier import Classifier
from tscls.probe import EpochProbe, accuracies, open_probe, spread
from utils.checkpoint import load_pretrained
from utils.errors import Parser, UsageError


def clusters(seed: int, count: int = 40, width: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Features around three directions, and their labels."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, count)
    return 5 * np.eye(width)[labels] + generator.normal(0, 0.3, (count, width)), labels


def test_separated_classes_are_told_apart_and_random_labels_are_not():
    (train, labels), (test, truth) = clusters(0), clusters(1)
    assert accuracies(train, labels, test, truth) == {"knn": 1, "linear": 1}
    random = np.random.default_rng(2).integers(0, 3, len(test))
    assert all(0.1 < accuracy < 0.6 for accuracy in accuracies(train, labels, test, random).values())


def test_neighbours_are_near_by_angle_and_not_by_distance():
    """The nearest by distance are of the other class, the nearest by angle of the own."""
    train = np.array([[1.0, 0]] * 5 + [[9.0, 9.3]] * 5)
    labels = np.repeat([0, 1], 5)
    assert accuracies(train, labels, np.array([[9.0, 0.5], [0.5, 0.6]]), np.array([0, 1]))["knn"] == 1


def test_fewer_series_than_neighbours_do():
    assert accuracies(np.eye(2), np.array([0, 1]), np.eye(2), np.array([0, 1]))["linear"] == 1


@given(seed=st.integers(0, 999), scale=st.floats(0.1, 10))
@settings(max_examples=20, deadline=None)
def test_spread_features_have_full_rank_at_any_scale(seed, scale):
    features = np.random.default_rng(seed).normal(size=(4000, 8)) * scale
    found = spread(features)
    assert found["std"] == pytest.approx(1, abs=0.05) and found["rank"] == pytest.approx(8, abs=0.1)


def test_collapse_is_seen():
    direction = np.arange(1.0, 5)
    assert spread(np.tile(direction, (50, 1)))["std"] == pytest.approx(0, abs=1e-9)
    line = np.outer(np.random.default_rng(0).normal(size=50), direction)
    assert spread(line)["rank"] == pytest.approx(1, abs=1e-6)
    plane = np.random.default_rng(0).normal(size=(2000, 2)) @ np.eye(4)[:2]
    assert spread(plane)["rank"] == pytest.approx(2, abs=0.01)


def test_the_rank_is_that_of_differences_from_the_mean():
    plane = np.random.default_rng(0).normal(size=(2000, 2)) @ np.eye(4)[:2]
    assert spread(plane + 100 * np.arange(1, 5))["rank"] == pytest.approx(2, abs=0.01)


def test_a_logistic_regression_converges_on_correlated_features():
    features = np.cumsum(np.random.default_rng(0).normal(size=(400, 128)), axis=1)
    labels = features[:, ::7].argmax(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert accuracies(features, labels, features, labels)["linear"] > 0.99  # 128 features separate 400 series


def test_a_table_has_a_row_a_seed_and_of_several_the_mean():
    first = {"std": 0.5, "rank": 3, "linear": 0.25, "knn": 0.75}
    second = {"std": 0.5, "rank": 5, "linear": 0.75, "knn": 0.75}
    assert [line.split() for line in probe.table([first], [7]).splitlines()] == [
        ["OA", "kNN", "OA", "linear", "std", "rank"],
        ["seed"],
        ["7", "0.750", "0.250", "0.500", "3.000"],
    ]
    *_, mean = probe.table([first, second], [7, 9]).splitlines()
    assert mean.split() == "mean 0.750 ± 0.000 0.500 ± 0.354 0.500 ± 0.000 4.000 ± 1.414".split()


def test_options_have_their_defaults_and_limits():
    parser = Parser()
    EpochProbe.add_arguments(parser)
    actions = {action.option_strings[0]: action for action in parser._actions if action.dest != "help"}
    assert {option: (action.default, action.metavar) for option, action in actions.items()} == {
        "--probe": (None, "ROOT"), "--probe-every": (1, "N"), "--probe-num": (300, "N"),
    }  # fmt: skip
    assert all(action.help for action in actions.values())
    least = parser.parse_args(["--probe-every", "1", "--probe-num", "10"])
    assert (least.probe_every, least.probe_num) == (1, 10)
    for option, value in (("--probe-every", "0"), ("--probe-num", "9")):
        with pytest.raises(UsageError, match=option):
            parser.parse_args([option, value])


def test_every_third_epoch_is_probed(data_root):
    made = EpochProbe(data_root, 2019, Selection(40), every=3, rc=False)
    assert made.probe.length_method == "pad"
    assert EpochProbe(data_root, 2019, Selection(40), every=3, rc=True).probe.length_method == "rc"
    made.probe = lambda network: dict.fromkeys(probe.FIGURES, 0.5)
    assert [epoch for epoch in range(7) if made(None, epoch)] == [2, 5]
    assert made(None, 2) == {"probe_knn": 0.5, "probe_linear": 0.5, "probe_std": 0.5, "probe_rank": 0.5}


def test_a_probe_is_fitted_to_the_train_draw_and_tested_on_a_whole_split(data_root):
    selection = Selection(num=40, seed=3)
    found = open_probe(data_root, 2019, selection, length_method="rc", split="eval")
    drawn, whole = (open_labelled(data_root, 2019, part) for part in (selection, Selection(use_all=True)))
    assert found.train.rows.tolist() == drawn.train.rows.tolist() and len(found.train) == 36
    assert found.test.store.path.name == "eval" and len(found.test) == len(whole.eval)
    found = open_probe(data_root, 2019, selection, length_method="rc")
    assert found.test.store.path.name == "valid" and len(found.test) == len(whole.valid)


def test_figures_are_of_the_features_of_all_observations(data_root):
    torch.manual_seed(0)
    network = build_model("transformer", sequencelength=12, use_doy=True, init="torch")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    opened = open_probe(data_root, 2019, Selection(num=40), length_method="rc")
    state = torch.get_rng_state()
    found = opened(network)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    classifier = Classifier(network, None, 12, "rc")
    train, test = (torch.cat(list(classifier.embed(part))).numpy() for part in (opened.train, opened.test))
    assert found == {
        **accuracies(train, opened.train.labels, test, opened.test.labels),
        **spread(np.concatenate((train, test))),
    }


def test_series_of_one_class_are_refused(data_root, monkeypatch):
    splits = open_labelled(data_root, 2019, Selection(use_all=True))
    one = splits.train.take(np.flatnonzero(splits.train.labels == splits.train.labels[0]))
    monkeypatch.setattr(probe, "open_labelled", lambda *_: splits._replace(train=one))
    with pytest.raises(UsageError, match=f"the {len(one)} series to fit a probe to are of one class"):
        open_probe(data_root, 2019, Selection(use_all=True), length_method="rc")


def test_series_of_two_classes_are_enough(data_root, monkeypatch):
    splits = open_labelled(data_root, 2019, Selection(use_all=True))
    two = splits.train.take(np.isin(splits.train.labels, (0, 1)))
    monkeypatch.setattr(probe, "open_labelled", lambda *_: splits._replace(train=two))
    assert len(open_probe(data_root, 2019, Selection(use_all=True), length_method="rc").train) == len(two)


FLAGS = ("--rc", "--use-doy", "-e", 3)


def test_a_pretraining_logs_its_probes_and_is_otherwise_the_same(data_root, tmp_path, capsys):
    plain = pretrain(data_root, tmp_path / "plain", *FLAGS)
    capsys.readouterr()
    more = ("--probe", data_root, "--probe-every", 2, "--probe-num", 40)
    probed = pretrain(data_root, tmp_path / "probed", *FLAGS, *more)
    assert capsys.readouterr().out.count("probe: OA kNN ") == 1
    assert same(weights(plain), weights(probed))
    names = [f"probe_{name}" for name in probe.FIGURES]
    assert [{name: row[name] for name in row if name not in names} for row in rows(probed)] == rows(plain)
    assert [[row[name] != "" for name in names] for row in rows(probed)] == [[False] * 4, [True] * 4, [False] * 4]
    probed = pretrain(data_root, tmp_path / "all", *FLAGS[:2], "-e", 1, "--probe", data_root, "--probe-num", 40)
    expected = EpochProbe(data_root, 2019, Selection(40), every=1, rc=True)(loaded(probed), 0)
    assert {name: column(probed, name) for name in names} == {
        name: [pytest.approx(value, rel=1e-4)] for name, value in expected.items()
    }


def loaded(folder):
    """The encoder of a pre-training."""
    network = build_model("transformer", sequencelength=20, use_doy=True)
    state = {key.removeprefix("encoder_q."): tensor for key, tensor in weights(folder).items() if "encoder_q." in key}
    trunk = {key: tensor for key, tensor in state.items() if not key.startswith("decoder.")}
    assert not network.load_state_dict(trunk, strict=False).unexpected_keys
    return network


def test_the_command_probes_a_checkpoint_for_each_seed(data_root, tmp_path, capsys):
    folder = pretrain(data_root, tmp_path, "--rc", "--use-doy")
    capsys.readouterr()
    argv = ["--pretrained", folder / "model_best.pth", "--datapath", data_root, "-n", 40, "--seeds", 1, 2, "-d", "cpu"]
    probe.main(list(map(str, [*argv, "-seq", 20])))
    said = capsys.readouterr().out
    count = len(open_labelled(data_root, 2019, Selection(use_all=True)).eval)
    assert f"fitted to 36 series, tested on {count} of eval" in said
    rows = {line.split()[0]: line.split()[1:] for line in said.splitlines() if line.split()[0] in ("1", "2", "mean")}
    expected = open_probe(data_root, 2019, Selection(num=40, seed=2), length_method="rc", split="eval")(loaded(folder))
    assert rows["2"] == [f"{expected[name]:.3f}" for name in probe.FIGURES]
    mean = np.mean([float(rows[seed][0]) for seed in ("1", "2")])
    assert float(rows["mean"][0]) == pytest.approx(mean, abs=1e-3) and rows["mean"][1] == "±"


def test_a_probe_of_a_root_without_labels_is_told(data_root, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        pretrain(data_root, tmp_path, "--probe", tmp_path / "nothing")
    assert "nothing" in capsys.readouterr().err


@pytest.mark.parametrize(("trained", "given", "method"), [("--rc", (), "rc"), ("--no-shift", ("--rc",), "rc")])
def test_a_model_of_fixed_length_is_probed_at_that_length(data_root, tmp_path, capsys, trained, given, method):
    folder = pretrain(data_root, tmp_path, trained, model="tempcnn")
    opened = open_probe(data_root, 2019, Selection(num=40), length_method=method, split="eval")
    network = build_model("tempcnn", sequencelength=20)
    load_pretrained(network, folder / "model_best.pth")
    expected = opened(network)
    capsys.readouterr()
    argv = ["--pretrained", folder / "model_best.pth", "--datapath", data_root, "-n", 40, "-d", "cpu", "-seq", 20]
    probe.main(list(map(str, [*argv, *given])))
    last = capsys.readouterr().out.splitlines()[-1].split()
    assert last == ["111", *(f"{expected[name]:.3f}" for name in probe.FIGURES)]
