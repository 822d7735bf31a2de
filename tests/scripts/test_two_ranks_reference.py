"""Both scripts on two processes compute what a restatement does that computes one rank after the other.

No number of series is even: the ranks have shards of different sizes, of batches, held-out and tested series.
"""

from __future__ import annotations

import pytest
import torch

from datasets.classmap import CDL20, write_classmap
from tests.support import reference
from tests.support.layout import write_long_store
from tests.support.ranks import run_on_two
from tests.support.runs import SMALL, checkpoint, column, newest, rows

RATE = 1e-3
COUNTS = {"unlabelled": 76, "train": 45, "valid": 11, "eval": 31}  # 7 of 76 are held out, 69 are an odd number
MOCO = {  # flags, and what they mean to the reference
    "held out 4 and 3": (("--rc",), {}),
    "padded, split statistics": (("--bn-splits", 2), {"method": "pad", "splits": 2}),
    "a held-out batch of one": (("--rc", "-b", 6), {"batch_size": 6}),
}
TSCLS = {
    "batches of 15": (("--recipe", "published", "-b", 15), {"batch_size": 15}),
    "batches of 19, 19, 18": (
        ("--recipe", "few-label", "-b", 15, "--schedule", 1, "--warmup-epochs", 0),
        {"batch_size": 15, "is_even": True, "init": "torch", "rate": lambda step: RATE if step < 3 else 0.1 * RATE},
    ),
    "a last batch of three": (("--recipe", "published", "-b", 42, "--rc"), {"batch_size": 42, "method": "rc"}),
    "frozen": (("--recipe", "published", "-b", 15, "--freeze"), {"batch_size": 15, "is_frozen": True}),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("reference")
    for split, count in COUNTS.items():
        write_long_store(root / "2019" / split, count, seed=count, labelled=split != "unlabelled")
    write_classmap(root / "classmapping20.csv", CDL20)
    return root


@pytest.fixture(scope="module")
def start():
    return reference.start_of_pretraining("transformer", use_doy=True)


@pytest.fixture(scope="module")
def folders(root, start, tmp_path_factory) -> dict:
    """The run folder of every variant, after two processes have run them all."""
    where, path = {name: tmp_path_factory.mktemp("run") for name in (*MOCO, *TSCLS)}, root / "start.pth"
    torch.save(start, path)
    common = ("--useall", "-e", 2, *SMALL, "--weight-decay", reference.DECAY, "--use-doy", "--datapath", root)
    jobs = []
    for name, (flags, _) in MOCO.items():
        moco = ("--mlp", "--moco-dim", 16, "--moco-k", 50, "--resume", path)
        jobs.append(("main_moco", ["transformer", *common, *moco, "-l", where[name], *flags]))
    for name, (flags, _) in TSCLS.items():
        jobs.append(("main_tscls", ["transformer", *common, "--pretrained", path, "-l", where[name], *flags]))
    run_on_two(jobs, tmp_path_factory.mktemp("jobs"))
    return {name: newest(folder) for name, folder in where.items()}


@pytest.mark.parametrize("variant", MOCO)
def test_pretraining_is_the_reference(root, start, folders, variant):
    data = reference.Data(root / "2019" / "unlabelled")
    expected = reference.moco(data, start, ranks=2, **MOCO[variant][1])
    reference.assert_same_log(rows(folders[variant]), expected.rows)
    saved = checkpoint(folders[variant], "model_last.pth")
    reference.assert_same_state(saved["model_state"], expected.states[-1])
    batch = MOCO[variant][1].get("batch_size", 16)
    assert series_of(folders[variant]) == pytest.approx([68 // batch * batch] * 2, rel=1e-3)


def series_of(folder) -> list[float]:
    """The series of each epoch, of both ranks together, by what is logged of the speed."""
    times = zip(column(folder, "seconds"), column(folder, "series_per_s"), strict=True)
    return [seconds * rate for seconds, rate in times]


@pytest.mark.parametrize("variant", TSCLS)
def test_training_is_the_reference(root, start, folders, variant):
    flags, options = TSCLS[variant]
    train, valid, tested = (reference.Data(root / "2019" / split) for split in ("train", "valid", "eval"))
    if "few-label" in flags:
        train, valid = reference.Data(root / "2019" / "train", root / "2019" / "valid"), None
    queries = {n.removeprefix("encoder_q."): t for n, t in start["model_state"].items() if n.startswith("encoder_q.")}
    trunk = {name: tensor for name, tensor in queries.items() if not name.startswith("decoder.")}
    network = {"name": "transformer", "use_doy": True}
    expected = reference.tscls(train, valid, ranks=2, trunk=trunk, **network, **options)
    reference.assert_same_log(rows(folders[variant]), expected.rows)
    assert series_of(folders[variant]) == pytest.approx([56 if valid is None else 45] * 2, rel=1e-3)
    saved = checkpoint(folders[variant])
    reference.assert_same_state(saved["model_state"], expected.states[saved["epoch"]])
    if valid is not None:
        best = reference.build_model("transformer", use_doy=True)
        best.load_state_dict(expected.states[saved["epoch"]])
        loss, scores = reference.scores_of(best, tested, options.get("method", "pad"), ranks=2)
        (row,) = rows(folders[variant], "testlog.csv")
        found = {name: float(row[name]) for name in ("loss", *scores)}
        assert found == pytest.approx({"loss": loss, **scores}, rel=1e-4)
