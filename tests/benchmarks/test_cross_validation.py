"""Cross-validation on blocks: who is in which fold, what is trained on, and what is compared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import cross_validation
from benchmarks.cross_validation import deal, main, variants
from benchmarks.evidence.arms import Arm
from benchmarks.evidence.command import blocks_of
from datasets.catalog import Selection, open_labelled
from datasets.classmap import CDL20, write_classmap
from datasets.writer import StoreWriter
from tests.support.layout import long_series
from utils.errors import UsageError

pytestmark = pytest.mark.usefixtures("no_pictures")
SIZES = {"train": 54, "valid": 18}  # six series a block
LINE = ["--model", "svm", "--budgets", "20", "--seeds", "4", "--folds", "2", "--variant", "svm=", "grid=--interp"]


def write(path: Path, number: int, count: int) -> None:
    labels = np.arange(count) % 3
    series = long_series(list(labels), seed=number)
    with StoreWriter(path) as writer:
        writer.append(
            np.concatenate([array[:, :10] for array in series]),
            np.concatenate([array[:, -1] for array in series]),
            [len(array) for array in series],
            {"label": labels, "id": (50 * number + np.arange(count) // 6) * 100_000 + np.arange(count)},
        )


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("blocks") / "root"
    for number, (split, count) in enumerate({**SIZES, "eval": 6}.items()):
        write(root / "2019" / split, number, count)
    write_classmap(root / "classmapping20.csv", CDL20)
    return root


@given(sizes=st.lists(st.integers(1, 9), min_size=2, max_size=30), folds=st.integers(2, 8))
def test_a_block_is_in_one_fold_and_folds_have_as_many_blocks(sizes, folds):
    blocks = np.repeat([f"block {number}" for number in range(len(sizes))], sizes)
    if len(sizes) < folds:
        with pytest.raises(UsageError, match=f"--folds {folds}: there are only {len(sizes)} blocks"):
            deal(blocks, folds)
        return
    table = pd.DataFrame({"block": blocks, "fold": deal(blocks, folds)}).drop_duplicates()
    assert table["block"].is_unique
    counts = table["fold"].value_counts()
    assert sorted(counts.index) == [*range(folds)] and counts.max() - counts.min() <= 1


def test_variants_are_arms_with_options():
    arms = variants(["a=", "b c=-lr 1e-3 --freeze"], "stnet", "x.pth")
    assert arms == {
        "a": Arm("stnet", checkpoint="x.pth"),
        "b c": Arm("stnet", checkpoint="x.pth", options=("-lr", "1e-3", "--freeze")),
    }


@pytest.mark.parametrize("given", [["a"], ["=x"], ["a=", "a=-b 8"]])
def test_a_variant_without_a_name_of_its_own_is_refused(given):
    with pytest.raises(UsageError, match="expected NAME=OPTIONS, each name once"):
        variants(given, "stnet", None)


def test_every_series_is_predicted_once_by_a_model_that_has_not_seen_its_block(root, tmp_path, monkeypatch, capsys):
    seen, compared = [], []
    monkeypatch.setattr(cross_validation, "run_all", spied(cross_validation.run_all, seen))
    gains = cross_validation.report.gains
    monkeypatch.setattr(cross_validation.report, "gains", lambda *given: (compared.append(given), gains(*given))[1])
    results = main(["--datapath", str(root), "--logdir", str(tmp_path / "out"), *LINE])
    splits = open_labelled(root, 2019, Selection(use_all=True))
    values = {split: [series_of(part, i) for i in range(len(part))] for split, part in splits._asdict().items()}
    known, held_out = set(values["train"] + values["valid"]), []
    assert len(seen) == 2
    for target in seen:
        parts = open_labelled(target.datapath, 2019, Selection(use_all=True))
        fold, rest = (
            {series_of(part, i) for part in some for i in range(len(part))} for some in (parts[2:], parts[:2])
        )
        assert fold | rest == known and not fold & rest
        assert len(parts.valid) == len(rest) // 10 and len(fold) % 6 == 0
        held_out += fold
    assert len(held_out) == len(set(held_out)) == sum(SIZES.values())
    labels = np.concatenate([open_labelled(one.datapath, 2019, Selection(use_all=True)).eval.labels for one in seen])
    blocks = blocks_of([splits.train, splits.valid])
    fold = deal(blocks, 2)
    assert [*compared[0][2]] == [*blocks[fold == 0], *blocks[fold == 1]] and compared[0][1] == ["svm"]
    one, other = (results[name][20][4] for name in ("svm", "grid"))
    for found in (one, other):
        assert (found.truth == labels).all() and found.log_probability.shape == (72, 21)
    for name in ("svm", "grid"):
        (folder,) = (tmp_path / "out" / "fold1" / "runs" / name).glob("T_*")
        assert json.loads((folder / "args.json").read_text())["interp"] == (name == "grid")
    printed, rows = capsys.readouterr().out, pd.read_csv(tmp_path / "out" / "scores.csv")
    accuracy = (other.log_probability.argmax(1) == labels).mean()
    assert rows.set_index(["arm", "labels", "seed"]).loc[("grid", 20, 4), "oa"] == pytest.approx(accuracy, abs=1e-4)
    assert "72 series in 2 folds" in printed and "gain over svm, points of OA" in printed
    monkeypatch.setattr("benchmarks.evidence.runs.train", lambda *_: pytest.fail("trained again"))
    again = main(["--datapath", str(root), "--logdir", str(tmp_path / "out"), *LINE])
    assert np.array_equal(again["svm"][20][4].log_probability, one.log_probability)


def test_series_of_unknown_blocks_are_refused(data_root, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["--datapath", str(data_root), "--logdir", str(tmp_path), *LINE])
    assert (
        end.value.code == 2 and "no block of its series is known, neither by field nor by id" in capsys.readouterr().err
    )


def series_of(part, position: int) -> bytes:
    bands, days = part.series(position)
    return bands.tobytes() + days.tobytes() + bytes([part.labels[position]])


def spied(run_all, seen: list):
    def run(args, arms, checkpoints, target, logdir):
        seen.append(target)
        return run_all(args, arms, checkpoints, target, logdir)

    return run
