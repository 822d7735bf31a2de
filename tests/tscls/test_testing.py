"""python -m tscls.test: a classifier is tested as it is."""

from __future__ import annotations

import json

import pytest

from datasets.catalog import Selection, open_eval
from datasets.classmap import ClassMap, write_classmap
from tests.support.classifiers import small_classifier
from tests.support.runs import pretrain, refused, rows, train
from tscls import test as command
from tscls.classifier import load_classifier
from tscls.evaluation import scores_on
from utils.report import write_comparison
from utils.results.runs import read_run
from utils.runtime.distributed import World

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture(scope="module")
def learned(data_root, tmp_path_factory):
    logdir = tmp_path_factory.mktemp("results")
    return pretrain(data_root, logdir, "--pretext", "labels", "--rc", "-lr", "0.003", "-e", 2, model="stnet")


def argv(model, root, out, *more) -> list[str]:
    return [str(word) for word in ("--model", model, "--datapath", root, "--out", out, "-d", "cpu", *more)]


def expected(model, root, year: int, draws: int | None = None, **selection) -> float:
    classifier = load_classifier(model, "cpu")
    return scores_on(classifier, open_eval(root, year, Selection(**selection)), World(), draws=draws)


def test_a_pre_training_on_labels_is_tested_without_a_real_label(learned, data_root, tmp_path, capsys):
    out = tmp_path / "untuned"
    command.main(argv(learned, data_root, out, "--years", 2019, 2020))
    first, second = rows(out, "testlog.csv")
    for row, year in ((first, 2019), (second, 2020)):
        scores = expected(learned, data_root, year)
        assert (row["year"], row["regions"]) == (str(year), "")
        assert float(row["oa"]) == pytest.approx(scores["oa"], abs=1e-4) and scores["oa"] > 0.5
        assert float(row["loss"]) == pytest.approx(scores["loss"], rel=1e-4)
    assert {"test_conf_mat.npy", "test_conf_mat_2020.npy", "classes.json"} <= {file.name for file in out.iterdir()}
    assert f"untuned, 2019: OA {expected(learned, data_root, 2019)['oa']:.4f}" in capsys.readouterr().out


def test_its_folder_is_a_run_in_the_tables(learned, data_root, tmp_path):
    command.main(argv(learned, data_root, tmp_path / "untuned"))
    train(data_root, tmp_path, "--rc")
    arguments = read_run(tmp_path / "untuned").arguments
    assert arguments == json.loads((tmp_path / "untuned" / "args.json").read_text())
    given = {"model": "stnet", "pretrained": str(learned / "model_best.pth"), "num": 0, "year": 2019, "seed": 111}
    assert given.items() <= arguments.items()
    text = write_comparison(tmp_path, tmp_path)
    assert f"stnet (pretrained: {learned.name}, 0 labels)" in text and "stnet (50 labels)" in text


def test_sites_and_draws_are_chosen(learned, data_root, tmp_path):
    command.main(argv(learned / "model_best.pth", data_root, tmp_path / "out", "--regions", "Adams", "--draws", 2))
    (row,) = rows(tmp_path / "out", "testlog.csv")
    scores = expected(learned, data_root, 2019, draws=2, regions=["Adams"])
    assert row["regions"] == "Adams" and int(row["series"]) == scores["series"] < 30
    assert float(row["loss"]) == pytest.approx(scores["loss"], rel=1e-4)


def test_a_classifier_of_other_classes_is_refused(data_root, tmp_path, capsys):
    classifier = small_classifier("stnet")
    names = ClassMap.of([(f"class {i}", i + 1, (0, 0, 0)) for i in range(20)])
    classifier.classmap = names
    classifier.save(tmp_path / "model.pth")
    line = refused(command, argv(tmp_path / "model.pth", data_root, tmp_path / "out"), capsys)
    assert line == (
        f"{tmp_path / 'model.pth'}: its classes are not those of {data_root}; give data of the same class map"
    )
    assert not (tmp_path / "out").exists()
    write_classmap(tmp_path / "classmapping20.csv", names)
    line = refused(command, argv(tmp_path / "model.pth", tmp_path, tmp_path / "out"), capsys)
    assert "no such year" in line


def test_a_pre_training_without_classes_and_a_name_of_one_are_refused(data_root, tmp_path, capsys):
    line = refused(command, argv(tmp_path / "none", data_root, tmp_path / "out"), capsys)
    assert "no such checkpoint" in line and "main_moco.py --pretext labels" in line
    line = refused(command, argv(tmp_path, data_root, tmp_path / "P_x"), capsys)
    assert line == f"--out {tmp_path / 'P_x'}: names in P_ are those of pre-trainings; give another"
