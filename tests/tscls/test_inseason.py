"""--until-doy: classifiers are trained on series up to a day and are given no more than they have seen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import main_tscls
from datasets.catalog import Selection, open_eval, open_labelled
from datasets.classmap import CDL20, write_classmap
from datasets.errors import DataError
from datasets.inseason import until
from datasets.store import SeriesSet, Store
from tests.support.classifiers import small_classifier
from tests.support.layout import store_of, without_checksums
from tests.support.runs import SMALL, calls_of, checkpoint, refused, rows, same, train, weights
from tscls import embed, predict, probe
from tscls import test as test_command
from tscls.classifier import load_classifier
from tscls.evaluation import scores_on
from tscls.inseason import choose_day
from tscls.resume import check_state, state_for, told_series
from utils.checkpoint import CheckpointError
from utils.errors import UsageError
from utils.runtime.distributed import World

pytestmark = pytest.mark.usefixtures("no_pictures")
DAY = 60
KINDS = ("stnet", "tempcnn", "lstm", "transformer of positions, padded", "rf", "svm")
FLAGS = ("--useall", "-lr", 0.01, "-e", 2)


def series_until(store: Store, day: int) -> list[np.ndarray]:
    """The series of a store of one year up to a day, as the readers' arrays; of some nothing is left."""
    each = [store.series(i) for i in range(len(store))]
    found = [np.hstack([bands, np.zeros((len(doy), 1)), doy[:, None]]) for bands, doy in each]
    return [array[array[:, -1] <= day] for array in found]


@pytest.fixture(scope="module")
def cut_root(data_root, tmp_path_factory):
    """The data root as it would be if it had been made after the day."""
    root = tmp_path_factory.mktemp("cut") / "US-tiny"
    for path in sorted(data_root.glob("20*/*")):
        store = Store.open(path)
        found = series_until(store, DAY)
        left = [i for i, array in enumerate(found) if len(array)]
        labels = None if store.labels is None else store.labels[left].tolist()
        store_of(root / path.relative_to(data_root), [found[i] for i in left], labels)
    write_classmap(root / "classmapping20.csv", CDL20)
    return root


@pytest.fixture(scope="module")
def season(data_root, tmp_path_factory):
    """The two folders of runs up to days, as main_tscls.py leaves them; tests must not write to them."""
    logdir = tmp_path_factory.mktemp("results")
    train(data_root, logdir, *FLAGS, "--rc", "--years", 2019, 2020, "--until-doy", 250, DAY)
    return logdir / "T_STNet_RC_2019_Seed111_D250", logdir / f"T_STNet_RC_2019_Seed111_D{DAY}"


def in_season(kind: str, day: int | None = DAY, draws: int = 0):
    classifier = small_classifier(kind, draws=draws)
    classifier.until = day
    return classifier


def opened(root: Path, split: str = "eval") -> SeriesSet:
    return SeriesSet.whole(Store.open(root / "2019" / split))


def all_of(pieces) -> torch.Tensor:
    return torch.cat(list(pieces))


# ---- a classifier at work


def test_some_series_have_nothing_and_some_all_up_to_the_day(data_root):
    lengths = [len(array) for array in series_until(opened(data_root).store, DAY)]
    assert 0 in lengths and 0 < np.mean(lengths) < 0.6 * opened(data_root).lengths.mean()


@pytest.mark.parametrize("draws", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_predictions_are_those_of_series_that_end_with_the_day(kind, draws, data_root, cut_root):
    found = all_of(in_season(kind, draws=draws).predict(until(opened(data_root), DAY)))
    expected = all_of(in_season(kind, None, draws).predict(opened(cut_root)))
    assert torch.equal(found, expected) and len(found) < len(opened(data_root))
    if in_season(kind).is_network:
        found = all_of(in_season(kind, draws=draws).embed(until(opened(data_root), DAY)))
        assert torch.equal(found, all_of(in_season(kind, None, draws).embed(opened(cut_root))))


@pytest.mark.parametrize("kind", ["stnet", "tempcnn", "rf"])
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_the_future_changes_nothing(kind, data):
    """Its observations, their number and their days."""
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    sizes = data.draw(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 30), st.integers(0, 30)), min_size=1))
    past = [(random.integers(1, 9000, (n, 10)), np.sort(random.integers(1, DAY + 1, n))) for n, *_ in sizes]
    predicted = []
    for which in (1, 2):
        bands, doy, lengths = [], [], []
        for (values, days), size in zip(past, sizes, strict=True):
            later = size[which]
            bands += [values, random.integers(-2000, 16000, (later, 10))]
            doy += [days, np.sort(random.integers(DAY + 1, 367, later))]
            lengths.append(len(values) + later)
        arrays = np.concatenate(bands).astype(np.int16), np.concatenate(doy).astype(np.int16)
        store = Store(Path("x"), "x", {}, *arrays, np.cumsum([0, *lengths]))
        predicted.append(all_of(in_season(kind).predict(SeriesSet.whole(store))))
    assert torch.equal(*predicted)


def test_a_series_that_begins_later_is_not_predicted_from_nothing(data_root):
    lengths = [len(array) for array in series_until(opened(data_root).store, DAY)]
    told = f"eval: series {lengths.index(0)} has no observation until day {DAY}, its first is of day "
    with pytest.raises(DataError, match=told):
        next(in_season("stnet").predict(opened(data_root)))


def test_the_day_is_in_a_checkpoint_and_only_where_there_is_one(tmp_path):
    for kind, file in (("stnet", "model_best.pth"), ("svm", "model_best.skops")):
        in_season(kind).save(tmp_path / file)
        assert load_classifier(tmp_path / file, "cpu").until == DAY
        assert in_season(kind).settings()["until_doy"] == DAY
        assert "until_doy" not in in_season(kind, None).settings()
    in_season("stnet", None).save(tmp_path / "model_best.pth")
    assert load_classifier(tmp_path / "model_best.pth", "cpu").until is None


@pytest.mark.parametrize("day", [0, 733, "may", 1.5, torch.arange(3)])
def test_a_damaged_day_is_told(day, tmp_path):
    in_season("stnet", day).save(tmp_path / "model_best.pth")
    with pytest.raises(CheckpointError, match=r"its settings are damaged \(until_doy\); train it again"):
        load_classifier(tmp_path, "cpu")


def test_the_first_and_the_last_day_are_read(tmp_path):
    for day in (1, 732):
        in_season("stnet", day).save(tmp_path / "model_best.pth")
        assert load_classifier(tmp_path, "cpu").until == day


# ---- runs


@pytest.mark.parametrize(
    ("model", "flags"), [("stnet", ("--rc", "--calibrate")), ("tempcnn", ("--interp",)), ("svm", ("--interp",))]
)
def test_a_run_is_that_on_series_that_end_with_the_day(model, flags, data_root, cut_root, tmp_path):
    found = train(data_root, tmp_path / "found", *FLAGS, *flags, "--until-doy", DAY, model=model)
    expected = train(cut_root, tmp_path / "expected", *FLAGS, *flags, model=model)
    assert found.name == f"{expected.name}_D{DAY}"
    (row,), (other,) = rows(found, "testlog.csv"), rows(expected, "testlog.csv")
    assert row.pop("until_doy") == str(DAY) and "until_doy" not in other and row == other
    if model == "svm":
        predicted = [load_classifier(folder).model.predict_proba for folder in (found, expected)]
        x = np.random.default_rng(0).normal(size=(30, 20, 10)).astype(np.float32)
        np.testing.assert_array_equal(*(predict(x, 21) for predict in predicted))
        assert load_classifier(found).until == DAY
        return
    assert same(weights(found), weights(expected)) and rows(found) == rows(expected)
    assert checkpoint(found).get("temperature") == checkpoint(expected).get("temperature")
    for name in ("model_best.pth", "model_last.pth"):
        assert checkpoint(found, name)["until_doy"] == DAY and "until_doy" not in checkpoint(expected, name)


def test_every_day_has_a_run_that_says_it(season, data_root):
    splits = open_labelled(data_root, 2019, Selection(use_all=True))
    for folder, day in zip(season, (250, DAY), strict=True):
        arguments = json.loads((folder / "args.json").read_text())
        assert arguments["until_doy"] == arguments["identity"]["until_doy"] == day
        assert arguments["identity"]["data"] == told_series([until(part, day) for part in splits[:2]])
        assert load_classifier(folder, "cpu").until == day
        assert [(row["year"], row["until_doy"]) for row in rows(folder, "testlog.csv")] == [
            ("2019", str(day)),
            ("2020", str(day)),
        ]
        for row in rows(folder, "testlog.csv"):
            series = until(open_eval(data_root, int(row["year"]), Selection()), day)
            scores = scores_on(load_classifier(folder, "cpu"), series, World())
            assert float(row["oa"]) == pytest.approx(scores["oa"], abs=1e-6) and row["series"] == str(len(series))
    first, second = ([row["series"] for row in rows(folder, "testlog.csv")] for folder in season)
    assert first != second
    known = [json.loads((folder / "args.json").read_text())["recipe_used"] for folder in season]
    assert known[0] == known[1]


def test_without_the_option_a_run_says_nothing_of_it(data_root, tmp_path):
    folder = train(data_root, tmp_path, "--rc")
    assert folder.name == "T_STNet_R50_RC_2019_Seed111" and "until_doy" not in checkpoint(folder)
    assert json.loads((folder / "args.json").read_text())["until_doy"] is None
    assert not list(tmp_path.glob("dates*"))


def command_of(data_root, season, *more) -> list[str]:
    flags = ("stnet", "--rc", "--datapath", data_root, "-l", season[0].parent, "--years", 2019, 2020, *SMALL, *FLAGS)
    return [str(word) for word in (*flags, *more)]


def test_finished_days_are_kept_and_their_scores_told(season, data_root, capsys, monkeypatch):
    trained = calls_of(main_tscls, "train", monkeypatch)
    folders = main_tscls.main(command_of(data_root, season, "--until-doy", DAY, 250, DAY))
    assert folders == [season[1], season[0]] and not trained
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.endswith("(finished before)") for line in lines) == 4
    splits, lost = open_labelled(data_root, 2019, Selection(use_all=True)), {}
    sets = {"train": splits.train, "eval": splits.eval, "2020": open_eval(data_root, 2020, Selection())}
    for name, series in sets.items():
        lost[name] = len(series) - len(until(series, DAY))
        told = f"{name}: {lost[name]} of {len(series)} series have no observation up to day {DAY}; left out"
        assert told in lines
    assert min(lost.values()) > 0
    table = [line.split() for line in lines if line.startswith("stnet  ")]
    assert [row[1] for row in table] == [str(DAY), "250"]


def test_a_saved_run_is_tested_with_its_day(season, data_root, capsys):
    before = [rows(folder, "testlog.csv") for folder in season]
    main_tscls.main(command_of(data_root, season, "--until-doy", 250, DAY, "--eval"))
    assert [rows(folder, "testlog.csv") for folder in season] == before
    line = refused(main_tscls, command_of(data_root, season, "--until-doy", 251, "--eval"), capsys)
    assert "T_STNet_RC_2019_Seed111_D251" in line and "train this run first" in line


def test_a_state_of_another_day_is_not_resumed(season, data_root, capsys):
    state = season[1] / "model_last.pth"
    line = refused(main_tscls, command_of(data_root, season, "--until-doy", 200, "--resume", state), capsys)
    assert line == f"{state}: is of stnet --seeds 111 --until-doy {DAY}, which is none of the runs asked for"
    assert "which is none of" in refused(main_tscls, command_of(data_root, season, "--resume", state), capsys)
    assert state_for(str(state), "stnet", 111, DAY) == str(state)
    assert state_for(str(state), "stnet", 111, 250) == state_for(str(state), "stnet", 111) == "auto"
    check_state(str(state), ["stnet"], [111], [250, DAY])


def test_a_folder_of_another_day_is_refused(data_root, tmp_path, capsys):
    folder = train(data_root, tmp_path, "--rc", "--until-doy", 300)
    folder.rename(tmp_path / folder.name.replace("D300", "D200"))
    flags = ("stnet", "--rc", "-n", 50, "-e", 1, *SMALL, "--datapath", data_root, "-l", tmp_path, "--until-doy", 200)
    line = refused(main_tscls, flags, capsys)
    assert "_D200: holds another run: " in line and "--until-doy 200 here, 300 there" in line


def test_a_day_before_all_series_is_refused(data_root, tmp_path, capsys):
    for split in ("train", "valid", "eval"):
        store = Store.open(data_root / "2019" / split)
        late = [array for array in series_until(store, 366)]
        for array in late:
            array[:, -1] = 150 + array[:, -1] // 4
        store_of(tmp_path / "late" / "2019" / split, late, store.labels.tolist())
    write_classmap(tmp_path / "late" / "classmapping20.csv", CDL20)
    first = min(array[0, -1] for array in late)
    flags = ("stnet", "--rc", "--useall", *SMALL, "--datapath", tmp_path / "late", "-l", tmp_path / "results")
    line = refused(main_tscls, [*flags, "--until-doy", 200, 149], capsys)
    place = tmp_path / "late" / "2019" / "train"
    told = f"{place}: no series has an observation until day 149, the first is of day {first:.0f}; give a later "
    assert line == f"{told}--until-doy" and not list((tmp_path / "results").glob("*"))


@pytest.mark.parametrize("day", [0, 733, "may"])
def test_days_that_are_none_are_refused(day, data_root, tmp_path, capsys):
    line = refused(main_tscls, ["stnet", "--datapath", data_root, "--until-doy", 150, day], capsys)
    assert line.startswith("argument --until-doy: ") and line.endswith("; see --help")
    if day != "may":
        assert f"{day}: expected a day from 1 to 732, above 366 after New Year" in line


# ---- the other commands


def test_the_day_is_that_of_the_training_unless_another_is_given():
    assert choose_day(None, None, "run") == (None, [])
    assert choose_day(150, None, "run") == (150, ["series up to day 150, as in training"])
    assert choose_day(150, 150, "run") == (150, ["series up to day 150, as in training"])
    told = "series up to day 200, but run was trained on series up to day 150"
    assert choose_day(150, 200, "run") == (200, [told])
    assert choose_day(None, 200, "run") == (200, ["series up to day 200, but run was trained on whole series"])


def with_ids(data_root, root: Path, split: str = "eval") -> Path:
    """A data root whose series have names."""
    store = Store.open(data_root / "2019" / split)
    arrays = series_until(store, 366)
    store_of(root / "2019" / split, arrays, store.labels.tolist())
    index = pd.read_csv(root / "2019" / split / "index.csv")
    index.insert(0, "id", [f"field {i}" for i in range(len(index))])
    index.to_csv(without_checksums(root / "2019" / split) / "index.csv", index=False)
    write_classmap(root / "classmapping20.csv", CDL20)
    return root


@pytest.mark.parametrize("has_ids", [True, False])
def test_series_of_a_table_keep_their_names(has_ids, season, data_root, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tscls.classifier.CHUNK", 8)  # several pieces
    monkeypatch.setattr("tscls.classifier.BATCH", 8)
    root = with_ids(data_root, tmp_path / "named") if has_ids else data_root
    argv = ["--model", season[1], "--datapath", root, "--split", "eval", "--out", tmp_path / "a.csv", "-d", "cpu"]
    predict.main([str(word) for word in argv])
    series = until(opened(root), DAY)
    table = pd.read_csv(tmp_path / "a.csv")
    assert table["id"].tolist() == [f"field {i}" if has_ids else i for i in series.rows]
    expected = all_of(load_classifier(season[1], "cpu").predict(series))
    assert table["class"].tolist() == expected.argmax(1).tolist()
    lost = len(opened(root)) - len(series)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"series up to day {DAY}, as in training"
    assert lines[1] == f"eval: {lost} of 30 series have no observation up to day {DAY}; left out"
    predict.main([*map(str, argv), "--until-doy", "250"])
    expected = all_of(in_season_run(season[1], 250).predict(until(opened(root), 250)))
    np.testing.assert_allclose(pd.read_csv(tmp_path / "a.csv")["confidence"], expected.amax(1).exp(), atol=1e-6)
    told = f"series up to day 250, but {season[1]} was trained on series up to day {DAY}"
    assert capsys.readouterr().out.splitlines()[0] == told
    embed.main([str(word) for word in (*argv[:-3], tmp_path / "a.npz", *argv[-2:], "--until-doy", 70)])
    with np.load(tmp_path / "a.npz") as file:
        seen = until(opened(root), 70)
        assert file["id"].tolist() == [f"field {i}" if has_ids else i for i in seen.rows]
        assert file["label"].tolist() == seen.labels.tolist()
        np.testing.assert_array_equal(file["features"], all_of(in_season_run(season[1], 70).embed(seen)))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("series up to day 70, but ") and lines[1].startswith(f"eval: {30 - len(seen)} of 30 ")


def in_season_run(folder: Path, day: int):
    classifier = load_classifier(folder, "cpu")
    classifier.until = day
    return classifier


def test_a_test_says_its_day(season, data_root, tmp_path, capsys):
    argv = ["--model", season[1], "--datapath", data_root, "-d", "cpu", "--out"]
    for out, day, more in (("default", DAY, []), ("later", 70, ["--until-doy", 70])):
        test_command.main([str(word) for word in (*argv, tmp_path / out, *more)])
        series = until(open_eval(data_root, 2019, Selection()), day)
        (row,) = rows(tmp_path / out, "testlog.csv")
        scores = scores_on(in_season_run(season[1], day), series, World())
        assert row["until_doy"] == str(day) and float(row["oa"]) == pytest.approx(scores["oa"], abs=1e-6)
        assert json.loads((tmp_path / out / "args.json").read_text())["until_doy"] == day
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith(f"series up to day {day}, {'but' if more else 'as in training'}")
        assert lines[1] == f"2019: {30 - len(series)} of 30 series have no observation up to day {day}; left out"
    line = refused(test_command, [*argv, tmp_path / "default", "--until-doy", 70], capsys)
    assert "--until-doy 70 here, 60 there" in line


def test_a_probe_sees_series_up_to_the_day(season, data_root, cut_root, capsys):
    argv = ["--useall", "--sequencelength", 20, "-d", "cpu", "--pretrained", season[1] / "model_best.pth"]
    told = []
    for root, more in ((data_root, []), (cut_root, ["--until-doy", 366]), (data_root, ["--until-doy", 200])):
        probe.main([str(word) for word in (*argv, "--datapath", root, *more)])
        told.append(capsys.readouterr().out.splitlines())
    assert told[0][-3:] == told[1][-3:] != told[2][-3:]
    assert f"series up to day {DAY}, as in training" in told[0]
    assert any(line.startswith("series up to day 200, but ") for line in told[2])


def test_earlier_states_are_of_whole_series(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "tscls.resume.load_checkpoint", lambda *_: {"training": {}, "identity": {"model": "stnet", "seed": 1}}
    )
    check_state("old.pth", ["stnet"], [1])
    assert state_for("old.pth", "stnet", 1) == "old.pth"
    with pytest.raises(UsageError, match="^old.pth: is of stnet --seeds 1, which is none of the runs asked for$"):
        check_state("old.pth", ["stnet"], [1], [150])
