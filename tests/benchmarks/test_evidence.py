"""The comparison of pre-trainings: intervals, gains, what is trained on what, and that it continues."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks import ablations, label_efficiency
from benchmarks.evidence import arms, command, pretrain, report, runs
from benchmarks.evidence.arms import Arm, Pretraining
from benchmarks.evidence.intervals import Interval, bootstrap
from benchmarks.evidence.runs import Predictions
from datasets.catalog import Selection, open_eval, open_labelled
from datasets.classmap import CDL20, ClassMap, write_classmap
from datasets.store import SeriesSet, join
from tests.support.layout import SITES, make_series, store_of
from tscls.pretrained import open_encoder
from utils.errors import UsageError
from utils.results import figures

CLASSES = 3


def predictions(classes: list[int], truth: list[int]) -> Predictions:
    return Predictions(np.log(np.eye(CLASSES, dtype=np.float32)[classes] * 0.9 + 0.05), np.array(truth))


# -- intervals ---------------------------------------------------------------------------------------------------------


def test_the_interval_of_crossed_draws_has_the_variance_of_seeds_and_series():
    """Of independent values v the variance is about v/S N + 1/S (between seeds) + 1/N (between series)."""
    rng = np.random.default_rng(1)
    seeds, series = rng.normal(size=(40, 1)), rng.normal(size=(1, 60))
    found = bootstrap(seeds + series)
    expected = 1.96 * np.sqrt(seeds.var() / 40 + series.var() / 60)
    assert found.mean == pytest.approx(seeds.mean() + series.mean())
    assert (found.high - found.low) / 2 == pytest.approx(expected, rel=0.06)
    assert found.low < found.mean < found.high


def test_series_of_a_block_are_drawn_together():
    """Sixty blocks of twenty equal series are sixty observations; taken for 1,200, the interval is too narrow."""
    blocks = np.repeat(np.arange(60), 20)
    values = np.random.default_rng(2).normal(size=60)[blocks][None]
    wide, narrow = bootstrap(values, blocks), bootstrap(values)
    assert (wide.high - wide.low) / 2 == pytest.approx(1.96 * values.std() / np.sqrt(60), rel=0.06)
    assert (wide.high - wide.low) / (narrow.high - narrow.low) == pytest.approx(np.sqrt(20), rel=0.08)


def test_blocks_of_different_size_count_by_their_series():
    values, blocks = np.array([[1.0, 1, 1, 0]]), np.array(["a", "a", "a", "b"])
    found = bootstrap(values, blocks)
    assert found == Interval(0.75, 0.0, 1.0)


@pytest.mark.parametrize(
    ("limits", "excludes"), [((0.1, 2), True), ((-2, -0.1), True), ((-0.1, 2), False), ((0, 1), False)]
)
def test_a_gain_is_certain_where_the_interval_excludes_zero(limits, excludes):
    assert Interval(1, *limits).excludes_zero is excludes


# -- scores and gains --------------------------------------------------------------------------------------------------


@pytest.fixture
def results() -> report.Results:
    truth = [0, 1, 2, 2]
    of = lambda *classes: predictions(list(classes), truth)  # noqa: E731
    return {
        "scratch": {10: {1: of(0, 0, 0, 0), 2: of(0, 1, 0, 0)}, 20: {1: of(0, 1, 2, 0), 2: of(0, 1, 2, 0)}},
        "moco": {10: {1: of(0, 1, 0, 2), 2: of(0, 1, 2, 0)}, 20: {1: of(0, 1, 2, 2), 2: of(0, 1, 0, 2)}},
        "moco, frozen": {10: {1: of(0, 0, 0, 0), 2: of(0, 0, 0, 0)}},
    }


def test_scores_are_of_each_run(results):
    rows = report.scores(results).set_index(["arm", "labels", "seed"])["oa"]
    assert rows[("scratch", 10, 1)] == 0.25 and rows[("scratch", 10, 2)] == 0.5
    assert rows[("moco", 20, 1)] == 1 and len(rows) == 10


def test_gains_are_paired_by_seed_and_series(results):
    found = report.gains(results, ["scratch"]).set_index(["arm", "labels"])
    difference = 100 * np.array([[0, 1, 0, 1], [0, 0, 1, 0]])
    expected = bootstrap(difference)
    assert tuple(found.loc[("moco", 10), ["gain", "low", "high"]]) == (expected.mean, expected.low, expected.high)
    assert found.loc[("moco", 10), "gain"] == 37.5 and found.loc[("moco, frozen", 10), "gain"] == -12.5
    assert set(found.index) == {("moco", 10), ("moco", 20), ("moco, frozen", 10)}


def test_gains_know_the_blocks(results):
    blocks, difference = np.array([0, 0, 1, 1]), 100 * np.array([[0.0, 1, 0, 1], [0, 0, 1, 0]])
    found = report.gains(results, ["scratch"], blocks).set_index(["arm", "labels"])
    assert found.loc[("moco", 10), "high"] == bootstrap(difference, blocks).high != bootstrap(difference).high


def test_frozen_arms_are_compared_with_a_frozen_baseline_where_there_is_one():
    both = ["moco", "moco, frozen"]
    assert report.is_compared("no shift", "moco", both) and report.is_compared("no shift, frozen", "moco, frozen", both)
    assert not report.is_compared("no shift", "moco, frozen", both)
    assert not report.is_compared("no shift, frozen", "moco", both)
    assert report.is_compared("moco, frozen", "scratch", ["scratch"])
    assert not report.is_compared("scratch", "scratch", ["scratch"])


def test_tables_show_means_and_intervals(results):
    rows = report.scores(results)
    assert report.table(rows).splitlines()[2:] == [
        "| scratch | 0.375 ± 0.177 | 0.750 ± 0.000 |",
        "| moco | 0.750 ± 0.000 | 0.875 ± 0.177 |",
        "| moco, frozen | 0.250 ± 0.000 | – |",
    ]
    frame = pd.DataFrame(
        [("scratch", "moco", 10, 1.25, 0.5, 2.0), ("scratch", "bert", 20, -1.0, -2.0, 0.5)],
        columns=["baseline", "arm", "labels", "gain", "low", "high"],
    )
    assert report.gain_table(frame).splitlines()[2:] == [
        "| moco | **+1.2 [0.5, 2.0]** | – |",
        "| bert | – | -1.0 [-2.0, 0.5] |",
    ]


def test_an_ensemble_averages_probabilities():
    first, second = (Predictions(np.log(np.array([p])), np.array([0])) for p in ([0.8, 0.2], [0.1, 0.9]))
    mean = runs.averaged([first, second])
    assert np.exp(mean.log_probability) == pytest.approx(np.array([[0.45, 0.55]]))
    assert mean.truth is first.truth


# -- arms --------------------------------------------------------------------------------------------------------------


def test_members_of_an_ensemble_are_run_before_it():
    known = {"a": Arm(), "b": Arm("rf"), "both": Arm(members=("b", "a")), "c": Arm("lstm")}
    assert list(arms.chosen(["both", "c"], known)) == ["b", "a", "both", "c"]
    with pytest.raises(UsageError, match=r"--arms: no 'd'; expected of: a; b; both; c"):
        arms.chosen(["d"], known)


def test_checkpoints_become_arms(tmp_path):
    file = tmp_path / "best=.pth"
    file.touch()
    assert arms.from_files([f"mine={file}"]) == {
        "mine": Arm(checkpoint=str(file)),
        "mine, frozen": Arm(checkpoint=str(file), is_frozen=True),
    }
    for wrong in ("mine", f"mine={tmp_path / 'none.pth'}"):
        with pytest.raises(UsageError, match="expected NAME=PATH"):
            arms.from_files([wrong])


def test_every_pretraining_of_an_arm_is_known():
    for known, pretrainings in ((label_efficiency.ARMS, arms.PRETEXTS), (ablations.ARMS, ablations.PRETRAININGS)):
        assert {arm.pretraining for arm in known.values()} - {None} == set(pretrainings)
        assert all(member in known for arm in known.values() for member in arm.members)


# -- from options to files ---------------------------------------------------------------------------------------------


class Calls(list):
    """What the two scripts were asked to do; the pre-training pretends, as its checkpoint is not used."""

    def pretrain(self, options: list[str]) -> None:
        self.append(options)
        given = dict(zip(options, options[1:], strict=False))
        folder = Path(given["--logdir"]) / "P_Fake"
        folder.mkdir(parents=True)
        probed = {"0.1": 0.5, "0.2": 0.7, "0.3": 0.6}[given["-lr"]] + int(given["-e"]) / 100
        pd.DataFrame({"probe_linear": [0.1, probed]}).to_csv(folder / "trainlog.csv")


@pytest.fixture
def budget(tmp_path) -> pretrain.Budget:
    return pretrain.Budget("source", 5, (0.1, 0.2, 0.3), 2, "probe", 16, 64)


def test_the_rate_that_the_probe_prefers_is_trained_to_the_end(tmp_path, monkeypatch, budget):
    calls = Calls()
    monkeypatch.setattr(pretrain.main_moco, "main", calls.pretrain)
    found = pretrain.pretrain("moco, x", Pretraining(("--pretext", "moco")), budget, tmp_path)
    tried = [dict(zip(options, options[1:], strict=False)) for options in calls]
    always = {"--moco-k": "64", "-b": "16", "--datapath": "source", "--probe": "probe", "--pretext": "moco"}
    assert [(one["-lr"], one["-e"], one["--probe-every"]) for one in tried] == [
        ("0.1", "2", "2"), ("0.2", "2", "2"), ("0.3", "2", "2"), ("0.2", "5", "5"),
    ]  # fmt: skip
    assert all(one["--patience"] == one["-e"] and always.items() <= one.items() for one in tried)
    assert found.rate == 0.2 and found.probed == 0.75 and found.trials == {"0.1": 0.52, "0.2": 0.72, "0.3": 0.62}
    assert found.checkpoint == str(tmp_path / "pretraining" / "moco-x" / "P_Fake" / "model_best.pth")
    again = pretrain.pretrain("moco, x", Pretraining(("--pretext", "moco")), budget, tmp_path)
    assert again == found and len(calls) == 4
    pretrain.pretrain("moco, x", Pretraining(("--pretext", "moco")), budget._replace(rates=(0.1,)), tmp_path)
    assert [options[options.index("-e") + 1] for options in calls[4:]] == ["5"]


def test_a_run_is_kept_and_not_repeated(data_root, tmp_path, monkeypatch):
    cell, target = (
        runs.Cell("rf", Arm("rf", options=("--interp",)), None, 40, 7),
        runs.Target(str(data_root), 2019, (2019,)),
    )
    first = runs.run_cell(cell, target, tmp_path)
    assert first.log_probability.shape == (len(first.truth), 21)
    (folder,) = (tmp_path / "runs" / "rf").glob("T_*")
    asked = json.loads((folder / "args.json").read_text())
    assert (asked["num"], asked["seed"], asked["interp"], asked["years"]) == (40, 7, True, [2019])
    monkeypatch.setattr(runs, "train", lambda *_: pytest.fail("trained again"))
    again = runs.run_cell(cell, target, tmp_path)
    assert np.array_equal(again.log_probability, first.log_probability) and np.array_equal(again.truth, first.truth)
    monkeypatch.setattr(runs, "train", lambda *_: folder)
    other = runs.run_cell(cell, target._replace(years=(2019, 2019)), tmp_path)
    assert len(other.truth) == 2 * len(first.truth)


def test_the_options_of_an_arm_reach_the_training(tmp_path, monkeypatch):
    calls, target = Calls(), runs.Target("root", 2020, (2020, 2021), "Adams")
    monkeypatch.setattr(runs.main_tscls, "main", lambda options: (calls.append(options), [tmp_path])[1])
    frozen = Arm("transformer", options=("--freeze",))
    assert runs.train(runs.Cell("t", frozen, "file.pth", 50, 3), target, tmp_path) == tmp_path
    assert calls[0] == [
        *("transformer", "--rc", "-n", "50", "--seeds", "3", "--logdir", str(tmp_path), "--freeze", "--overwrite"),
        *("--datapath", "root", "-c", "20", "--year", "2020", "--years", "2020", "2021", "--leave-out", "Adams"),
        *("--pretrained", "file.pth", "--use-doy"),
    ]
    runs.train(runs.Cell("s", Arm(), None, 50, 3), target._replace(leave_out=None), tmp_path)
    assert not {"--pretrained", "--leave-out", "--use-doy"} & set(calls[1])


def test_a_frozen_arm_is_a_logistic_regression_of_features(data_root, tmp_path):
    checkpoint = Path(__file__).parents[2] / label_efficiency.CHECKPOINT
    cell = runs.Cell("x", Arm(is_frozen=True), str(checkpoint), 40, 7)
    found = runs.run_cell(cell, runs.Target(str(data_root), 2019, (2019, 2020)), tmp_path)
    encoder = open_encoder(checkpoint, torch.device("cpu"), name="stnet")
    splits = open_labelled(data_root, 2019, Selection(40, seed=7))
    evaluation = [splits.eval, open_eval(data_root, 2020)]
    labelled, *tests = (
        (torch.cat(list(encoder.embed(part))).numpy(), part.labels) for part in (join(splits[:2]), *evaluation)
    )
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(*labelled)
    expected = np.concatenate([model.predict(features) for features, _ in tests])
    assert (found.log_probability.argmax(1) == expected).all() and found.log_probability.shape == (len(expected), 21)
    assert found.truth.tolist() == [label for _, labels in tests for label in labels]
    assert np.exp(found.log_probability).sum(1) == pytest.approx(np.ones(len(expected)), abs=1e-4)
    assert [file.name for file in (tmp_path / "runs" / "x").iterdir()] == ["n40_seed7.npz"]  # nothing was trained


def test_the_site_left_out_is_what_is_predicted(data_root, tmp_path):
    target = runs.Target(str(data_root), 2019, (2019, 2020), SITES[1])
    cell = runs.Cell("rf", Arm("rf", options=("--interp",)), None, 40, 7)
    assert len(runs.run_cell(cell, target, tmp_path).truth) == 20  # ten of each year


@pytest.fixture
def root_of_15_classes(data_root, tmp_path) -> str:
    root = shutil.copytree(data_root, tmp_path / "root")
    (root / "classmapping20.csv").unlink()
    parts = (CDL20.names, CDL20.codes, CDL20.colours)
    write_classmap(root / "classmapping15.csv", ClassMap(*((*part[:15], part[-1]) for part in parts)))
    return str(root)


def test_a_frozen_arm_may_have_another_number_of_classes(root_of_15_classes, tmp_path):
    target = runs.Target(root_of_15_classes, 2019, (2019,), nclasses=15)
    checkpoint = str(Path(__file__).parents[2] / label_efficiency.CHECKPOINT)
    found = runs.run_cell(runs.Cell("x", Arm(is_frozen=True), checkpoint, 40, 7), target, tmp_path / "out")
    assert found.log_probability.shape == (30, 16) and (found.truth == [i % 15 for i in range(30)]).all()


def test_a_comparison_may_have_another_number_of_classes(root_of_15_classes, tmp_path):
    root = root_of_15_classes
    argv = ["--datapath", root, "-c", "15", "--probe", root, "--budgets", "40", "--seeds", "1", "--logdir"]
    args = command.get_args("", [*argv, str(tmp_path / "out")], against=["rf"])
    results = command.compare(args, {"rf": Arm("rf", options=("--interp",))}, {})
    assert results["rf"][40][1].log_probability.shape == (30, 16)


def test_a_comparison_writes_scores_gains_and_a_picture(data_root, tmp_path, capsys, monkeypatch):
    known = {
        "rf": Arm("rf", options=("--interp",)),
        "svm": Arm("svm", options=("--interp",)),
        "both": Arm(members=("rf", "svm")),
        "without": Arm(pretraining="moco", is_trained=False),
    }
    argv = f"--datapath {data_root} --probe {data_root} --source {data_root} --budgets 40 --seeds 1 2".split()
    args = command.get_args("", [*argv, "--logdir", str(tmp_path)], against=["rf"])
    found = pretrain.Found("file.pth", 0.001, {"0.001": 0.5}, 0.6, 120)
    monkeypatch.setattr(command, "pretrain", lambda name, *_: {"moco": found}[name])
    predict = runs.predict
    monkeypatch.setattr(
        runs, "predict", lambda trained, *rest: predict(last if trained == "file.pth" else trained, *rest)
    )
    last = runs.train(runs.Cell("x", known["rf"], None, 40, 1), runs.Target(str(data_root), 2019, (2019,)), tmp_path)
    results = command.compare(args, known, {"moco": Pretraining()})
    rows = pd.read_csv(tmp_path / "summary.csv").set_index(["arm", "labels", "seed"])
    assert list(rows.index.get_level_values("arm").unique()) == ["rf", "svm", "both", "without"]
    assert rows.loc[("without", 0, 1), "oa"] == rows.loc[("rf", 40, 1), "oa"] and len(rows) == 7
    mean = np.exp(results["rf"][40][2].log_probability) / 2 + np.exp(results["svm"][40][2].log_probability) / 2
    assert np.allclose(np.exp(results["both"][40][2].log_probability), mean)
    gains = pd.read_csv(tmp_path / "summary-gains.csv")
    assert list(gains["arm"]) == ["svm", "both"] and set(gains["baseline"]) == {"rf"}
    written = (tmp_path / "summary.md").read_text()
    assert written.strip() in capsys.readouterr().out and "| moco | 0.001 | 0.600 | 0.001: 0.500 | 2 |" in written
    assert (tmp_path / "summary.png").exists() == figures.available()


def test_a_baseline_has_to_be_compared(data_root, tmp_path):
    args = command.get_args("", ["--arms", "rf", "--logdir", str(tmp_path)], against=["svm"])
    with pytest.raises(UsageError, match="--against svm: not among the arms compared"):
        command.compare(args, {"rf": Arm("rf"), "svm": Arm("svm")}, {})


def test_blocks_are_those_of_the_published_ids_or_fields(tmp_path):
    generator, index = np.random.default_rng(0), {"id": [100_001, 199_999, 200_000]}
    series = [make_series(generator) for _ in range(3)]

    def open_with(name: str, columns: dict) -> SeriesSet:
        store = store_of(tmp_path / name, series, [0, 1, 2])
        store.__dict__["index"] = pd.DataFrame({"label": [0, 1, 2]} | columns)
        return SeriesSet.whole(store)

    of_ids, of_fields = open_with("ids", index), open_with("fields", {"field": [7, 8, 8]})
    assert list(command.blocks_of([of_ids])) == ["0 1", "0 1", "0 2"]
    assert list(command.blocks_of([of_ids.take([2, 0]), of_fields])) == ["0 2", "0 1", "1 7", "1 8", "1 8"]
    assert command.blocks_of([of_ids, open_with("none", {})]) is None
    assert command.blocks_of([open_with("names", {"id": ["p 1", "p 2", "p 3"]})]) is None
