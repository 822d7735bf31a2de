"""python -m tscls.predict: the table of predicted classes."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
import torch

from datasets.classmap import CDL20
from datasets.store import SeriesSet, Store
from tests.support.classifiers import small_classifier
from tests.support.runs import refused
from tscls import classifier as classifier_module
from tscls import predict


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Run folders of a network and of a forest."""
    root = tmp_path_factory.mktemp("runs")
    for kind, file in (("stnet", "model_best.pth"), ("rf", "model_best.skops")):
        (root / kind).mkdir()
        small_classifier(kind).save(root / kind / file)
    return root


def command(model, root, out, *more) -> list[str]:
    return [str(word) for word in ("--model", model, "--datapath", root, "--out", out, "-d", "cpu", *more)]


@pytest.mark.parametrize("kind", ["stnet", "rf"])
@pytest.mark.parametrize("split", ["unlabelled", "train", "valid", "eval"])
def test_the_table_holds_the_predictions_in_the_order_of_the_series(runs, data_root, tmp_path, capsys, split, kind):
    out = tmp_path / "predictions.csv"
    predict.main(command(runs / kind, data_root, out, "--split", split))
    series = SeriesSet.whole(Store.open(data_root / "2019" / split))
    log_probability = torch.cat(list(small_classifier(kind).predict(series)))
    table = pd.read_csv(out)
    assert list(table) == ["id", "class", "code", "name", "confidence"]
    assert table["id"].tolist() == list(range(len(series)))
    best, classes = log_probability.max(1)
    assert table["class"].tolist() == classes.tolist()
    assert table["name"].tolist() == [CDL20.names[i] for i in classes]
    assert table["code"].tolist() == [CDL20.codes[i] for i in classes]
    np.testing.assert_allclose(table["confidence"], best.exp(), atol=1e-6)
    assert capsys.readouterr().out.startswith(f"{out}: classes of {len(series)} series, ")
    assert [file.name for file in tmp_path.iterdir()] == [out.name]


def test_another_year_and_draws(runs, data_root, tmp_path):
    flags = ("--split", "eval", "--year", 2020, "--draws", 2)
    predict.main(command(runs / "stnet", data_root, tmp_path / "a.csv", *flags))
    series = SeriesSet.whole(Store.open(data_root / "2020" / "eval"))
    expected = torch.cat(list(small_classifier("stnet").predict(series, draws=2))).amax(1).exp()
    np.testing.assert_allclose(pd.read_csv(tmp_path / "a.csv")["confidence"], expected, atol=1e-6)


def test_ids_are_those_of_the_index_as_they_are_written(runs, published_root, tmp_path, monkeypatch):
    """Also over several pieces."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(classifier_module, "BATCH", 7)
    monkeypatch.setattr(classifier_module, "CHUNK", 7)
    predict.main(command(runs / "rf", published_root, tmp_path / "a.csv", "--split", "eval"))
    assert pd.read_csv(tmp_path / "a.csv")["id"].tolist() == list(range(1000, 1030))


def test_pieces_make_one_table(runs, data_root, tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    names = ["whole.csv", "whole.parquet", "pieces.csv", "pieces.parquet"]
    for name in names:
        if name == "pieces.csv":
            monkeypatch.setattr(classifier_module, "BATCH", 7)
            monkeypatch.setattr(classifier_module, "CHUNK", 14)
        predict.main(command(runs / "stnet", data_root, tmp_path / name))
    tables = [pd.read_csv(tmp_path / n) if n.endswith("csv") else pd.read_parquet(tmp_path / n) for n in names]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0], check_dtype=False, atol=1e-6)
    assert tables[1]["class"].dtype == np.int64 and len(tables[0]) == 60


def test_without_a_class_map_names_are_ids_and_codes_blank(data_root, tmp_path):
    state = small_classifier("stnet").model.state_dict()
    torch.save({"model_state": state}, tmp_path / "published.pth")
    predict.main(command(tmp_path / "published.pth", data_root, tmp_path / "a.csv"))
    table = pd.read_csv(tmp_path / "a.csv")
    assert table["name"].tolist() == table["class"].tolist() and table["code"].isna().all()
    classes = data_root / "classmapping20.csv"
    predict.main(command(tmp_path / "published.pth", data_root, tmp_path / "b.csv", "--classes", classes))
    named = pd.read_csv(tmp_path / "b.csv")
    assert named["name"].tolist() == [CDL20.names[i] for i in table["class"]]


def test_what_fails_half_way_leaves_no_table(runs, data_root, tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_text("as before")

    def broken(classifier, series):
        yield pd.DataFrame({"id": [1]})
        raise RuntimeError("half way")

    monkeypatch.setattr(predict, "tables", broken)
    for name in ("a.csv", "b.parquet"):
        with pytest.raises(RuntimeError):
            predict.main(command(runs / "stnet", data_root, tmp_path / name))
    assert (tmp_path / "a.csv").read_text() == "as before" and len(list(tmp_path.iterdir())) == 1


# ---- mistakes


def test_other_endings_are_refused(runs, data_root, tmp_path, capsys):
    line = refused(predict, command(runs / "stnet", data_root, tmp_path / "a.txt"), capsys)
    assert line.endswith("a.txt: expected a name that ends in .csv or .parquet")


def test_a_folder_that_is_not_there(runs, data_root, tmp_path, capsys):
    line = refused(predict, command(runs / "stnet", data_root, tmp_path / "no" / "a.csv"), capsys)
    assert line == f"--out {tmp_path / 'no' / 'a.csv'}: there is no folder {tmp_path / 'no'}"


def test_parquet_needs_pyarrow(runs, data_root, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    line = refused(predict, command(runs / "stnet", data_root, tmp_path / "a.parquet"), capsys)
    assert line == "a Parquet table needs pyarrow: pip install pyarrow, or give --out a name in .csv"
    assert not list(tmp_path.iterdir())


def test_a_run_or_data_that_is_not_there(runs, data_root, tmp_path, capsys):
    line = refused(predict, command(tmp_path / "T_run", data_root, tmp_path / "a.csv"), capsys)
    assert line.startswith(f"{tmp_path / 'T_run' / 'model_best.pth'}: no such checkpoint")
    line = refused(predict, command(runs / "rf", data_root, tmp_path / "a.csv", "--year", 1999), capsys)
    assert line == f"{data_root / '1999'}: no such year; found 2019, 2020 in {data_root}"


def test_under_torchrun_it_is_refused(runs, data_root, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(predict.distributed, "start", lambda device: predict.distributed.World(0, 2))
    line = refused(predict, command(runs / "rf", data_root, tmp_path / "a.csv"), capsys)
    assert line == "python -m tscls.predict is a single process; start it without torchrun"
