"""Errors of a user: each ends with one clear line and exit code 2, and leaves no files."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import main_moco
import main_tscls
from datasets.storefiles import write_checksums
from datasets.writer import StoreWriter
from moco.builder import MoCo
from models import ESTIMATORS, NETWORKS, build_model
from tests.support.layout import long_series, save_labelled, save_series_csv, save_unlabelled
from tests.support.runs import BOTH, pretrain, refused, train

MODEL = {main_moco: "transformer", main_tscls: "stnet"}
USUAL = {main_moco: ["--useall", "--moco-k", 64, "-b", 16, "-e", 1], main_tscls: ["-n", 50, "-b", 16, "-e", 1]}


@pytest.fixture(autouse=True)
def user_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def refuse(script, logdir: Path, capsys, *flags: object, root: Path | None = None, model: str | None = None) -> str:
    """The error line of a run, which leaves no files in its log folder."""
    data = [] if root is None else ["--datapath", root]
    given = [model or MODEL[script], *USUAL[script], "--sequencelength", 20, "-d", "cpu", "-l", logdir, *data, *flags]
    line = refused(script, given, capsys)
    assert not logdir.exists() or not [file for file in logdir.rglob("*") if file.is_file()]
    return line


@BOTH
def test_a_missing_data_path_is_refused(script, tmp_path, capsys):
    line = refuse(script, tmp_path / "out", capsys, root=tmp_path / "nowhere")
    assert line == f"{tmp_path / 'nowhere'}: no such data folder; give one with --datapath"


@BOTH
@pytest.mark.parametrize("suffix", ["a b/c", "..", "a\\b", "x*"])
def test_a_suffix_that_no_folder_can_have_is_refused(script, tmp_path, data_root, capsys, suffix):
    line = refuse(script, tmp_path / "out", capsys, "-s", suffix, root=data_root)
    assert line.startswith(f"argument -s/--suffix: {suffix!r} cannot be in a folder name; use letters, digits and _ -")


@BOTH
def test_a_data_path_that_is_a_file_or_empty_is_refused(script, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    line = refuse(script, tmp_path / "out", capsys, root=tmp_path / "file")
    assert line == f"{tmp_path / 'file'}: a file; give the data folder, which holds <year>/, with --datapath"
    (tmp_path / "empty").mkdir()
    line = refuse(script, tmp_path / "out", capsys, root=tmp_path / "empty")
    assert line.startswith(f"{tmp_path / 'empty'}: an empty folder, no data; fill it")


@BOTH
def test_a_missing_year_is_refused(script, tmp_path, data_root, capsys):
    line = refuse(script, tmp_path / "out", capsys, "--year", 1999, root=data_root)
    assert line == f"{data_root / '1999'}: no such year; found 2019, 2020 in {data_root}"


def test_a_missing_year_to_test_on_is_refused(tmp_path, data_root, capsys):
    assert "2021: no such year" in refuse(
        main_tscls, tmp_path / "out", capsys, "--years", 2019, 2021, root=data_root
    )


@BOTH
def test_an_unknown_model_is_refused(script, tmp_path, data_root, capsys):
    line = refuse(script, tmp_path / "out", capsys, root=data_root, model="resnet")
    assert line == f"unknown model 'resnet': choose one of {', '.join(NETWORKS + ESTIMATORS)}"


def test_estimators_are_not_pretrained(tmp_path, data_root, capsys):
    line = refuse(main_moco, tmp_path / "out", capsys, root=data_root, model="RF")
    assert line.startswith("rf is no network: main_tscls.py trains it, here choose one of stnet, transformer")


def copied(published_root: Path, tmp_path: Path) -> Path:
    """A copy of the root to damage, without its cache."""
    return shutil.copytree(published_root, tmp_path / "root", ignore=shutil.ignore_patterns(".sits-store"))


def series_with(value: float, column: int) -> np.ndarray:
    (array,) = long_series([3], seed=1)
    array[-1, column] = value
    return array


BROKEN = {
    "width 9": (np.ones((6, 9)), r"series 7 has width 9; expected at least 11 columns"),
    "NaN": (series_with(np.nan, 4), r"series 7, observation \d+: red2 is nan; expected a digital number"),
    "DOY 400": (series_with(400, -1), r"series 7, observation \d+: day of year is 400.0; expected a whole number"),
    "DN": (series_with(70_000, 0), r"series 7, observation \d+: blue is 70000.0; expected a digital number"),
    "no array": (np.ones(6), r"series 7 is an array of shape \(6,\); expected observations x columns"),
}


@BOTH
@pytest.mark.parametrize("defect", BROKEN)
def test_broken_series_are_refused(script, defect, tmp_path, published_root, capsys):
    root, (array, expected) = copied(published_root, tmp_path), BROKEN[defect]
    name = "Unsupervised_mini_All" if script is main_moco else "Train_R45_Seed111_Class20"
    file, series = root / "2019" / "npy" / f"{name}.npy", long_series([0] * 45, seed=0)
    series[7] = array
    save_unlabelled(file, series) if script is main_moco else save_labelled(file, series, [0] * 45)
    line = refuse(script, tmp_path / "out", capsys, root=root)
    assert line.startswith(f"{file}: ") and re.search(expected, line)
    assert not [path for path in root.rglob(".sits-store/*") if path.name.startswith(name)]


def test_a_class_map_without_a_column_is_refused(tmp_path, published_root, capsys):
    root = copied(published_root, tmp_path)
    path = root / "classmapping20.csv"
    path.write_text(path.read_text().replace("code", "kode"))
    line = refuse(main_tscls, tmp_path / "out", capsys, root=root)
    assert line.startswith(f"{root / 'classmapping20.csv'}: no column 'code'; expected id, classname, code")


def test_labels_beyond_the_class_map_are_refused(tmp_path, published_root, capsys):
    root = copied(published_root, tmp_path)
    file = root / "2019" / "npy" / "Valid_R5_Seed111_Class20.npy"
    save_labelled(file, long_series([0] * 5, seed=0), [0, 1, 21, 2, 3])
    line = refuse(main_tscls, tmp_path / "out", capsys, root=root)
    assert line == f"{file}: series 2 has label 21; expected a class id from 0 to 20"


def test_a_hostile_array_runs_nothing(tmp_path, published_root, capsys):
    root, evidence = copied(published_root, tmp_path), tmp_path / "it-ran"
    hostile = np.empty(2, dtype=object)
    hostile[:] = [RunsCode(evidence), 1]
    np.save(root / "2019" / "npy" / "Unsupervised_mini_All.npy", hostile, allow_pickle=True)
    line = refuse(main_moco, tmp_path / "out", capsys, root=root)
    assert "Unsupervised_mini_All.npy" in line and "system" in line and not evidence.exists()


class RunsCode:
    """Makes a file if it is unpickled by pickle itself."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@BOTH
def test_a_budget_larger_than_the_data_is_refused(script, tmp_path, data_root, capsys):
    words = f"{MODEL[script]} -n 5000 -b 16 -l {tmp_path / 'out'} -d cpu --datapath {data_root}"
    line = refused(script, words.split() + (["--moco-k", "64"] if script is main_moco else []), capsys)
    name, needed, there = ("unlabelled", "5,000", 60) if script is main_moco else ("train", "4,500", 90)
    expected = f"2019: {name}: the budget needs {needed} series, there are {there}; give a smaller -n or --useall"
    assert line.endswith(expected) and not (tmp_path / "out").exists()


def test_a_queue_below_the_batch_is_refused(tmp_path, data_root, capsys):
    line = refuse(main_moco, tmp_path / "out", capsys, "--moco-k", 15, root=data_root)
    assert line.startswith("--moco-k 15 is below the batch of 16: the queue must hold a batch of keys; raise --moco-k")


@pytest.mark.parametrize("splits", [3, 16, 32])
def test_a_batch_that_cannot_be_split_is_refused(tmp_path, data_root, capsys, splits):
    line = refuse(main_moco, tmp_path / "out", capsys, "--bn-splits", splits, root=data_root)
    cannot = "a batch of 16 cannot be divided into that many equal parts of at least 2 series"
    assert line == f"--bn-splits {splits}: {cannot}"


def test_a_batch_of_one_series_is_refused(tmp_path, data_root, capsys):
    line = refuse(main_tscls, tmp_path / "out", capsys, "-b", 1, root=data_root)
    assert line == "-b 1: batch normalisation needs at least 2 series in a batch"


def test_freeze_without_a_trunk_is_refused(tmp_path, data_root, capsys):
    line = refuse(main_tscls, tmp_path / "out", capsys, "--freeze", root=data_root)
    assert line == "--freeze trains the decoder alone and needs a trunk: give one with --pretrained"


def test_a_new_decoder_without_a_checkpoint_is_refused(tmp_path, data_root, capsys):
    line = refuse(main_tscls, tmp_path / "out", capsys, "--new-decoder", root=data_root)
    assert line == "--new-decoder takes the trunk alone of a checkpoint: give one with --pretrained"


@pytest.mark.parametrize("flag", ["--regions", "--leave-out"])
def test_an_unknown_site_is_refused(tmp_path, data_root, capsys, flag):
    line = refuse(main_tscls, tmp_path / "out", capsys, flag, "Paris", root=data_root)
    assert line == "unknown site 'Paris'; the data has Adams, Harvey, Haskell"


@BOTH
def test_a_device_that_is_not_there_is_refused(script, tmp_path, data_root, capsys):
    line = refuse(script, tmp_path / "out", capsys, "-d", "abacus", root=data_root)
    assert line.startswith("--device abacus: cannot be used") and line.endswith("give cpu, cuda or cuda:N")


@BOTH
def test_half_precision_on_a_cpu_is_refused(script, tmp_path, data_root, capsys):
    line = refuse(script, tmp_path / "out", capsys, "--amp", "fp16", root=data_root)
    assert line == "--amp fp16 is for a GPU; give bf16 or off"


@BOTH
def test_a_logdir_that_cannot_be_made_is_refused(script, tmp_path, data_root, capsys):
    (tmp_path / "file").write_text("")
    line = refuse(script, tmp_path / "file" / "out", capsys, root=data_root)
    assert "cannot be written" in line and line.endswith("give another --logdir")


def test_a_sequence_longer_than_the_table_of_positions_is_refused(tmp_path, data_root, capsys):
    line = refuse(main_moco, tmp_path / "out", capsys, "--sequencelength", 500, root=data_root)
    assert "use --use-doy" in line


@BOTH
@pytest.mark.parametrize(
    "flags",
    ["-e 0", "-b 0", "-lr -1", "-lr nan", "-n 0", "--amp fp8", "-seq 0", "--weight-decay -1", "--warmup-epochs -1"],
)
def test_values_out_of_range_are_usage_errors(script, tmp_path, data_root, capsys, flags):
    with pytest.raises(SystemExit) as ended:
        script.main([MODEL[script], "--datapath", str(data_root), "-l", str(tmp_path / "out"), *flags.split()])
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert line.startswith(f"error: argument {flags.split()[0]}") and line.endswith("; see --help")
    assert not (tmp_path / "out").exists()


def test_a_class_map_of_another_number_is_refused(tmp_path, data_root, capsys):
    line = refuse(main_tscls, tmp_path / "out", capsys, "-c", 5, root=data_root)
    assert line == (
        f"{data_root / 'classmapping5.csv'}: no such class map; give -c 20, for which there is one,"
        " or write it with datasets.classmap.write_classmap"
    )


@pytest.mark.parametrize("flag", ["--momentum", "--moco-m"])
def test_momentum_out_of_range_is_refused(tmp_path, data_root, capsys, flag):
    with pytest.raises(SystemExit) as ended:
        main_moco.main(["transformer", "--datapath", str(data_root), "--optimizer", "sgd", flag, "-1"])
    assert ended.value.code == 2 and f"error: argument {flag}" in capsys.readouterr().err


# ---- checkpoints that do not fit


def write(path: Path, **content) -> Path:
    torch.save({"epoch": 0, "val_loss_min": 1.0, "not_improved_count": 0} | content, path)
    return path


def test_pretrained_checkpoints_that_do_not_fit_are_refused(tmp_path, data_root, capsys):
    encoder = build_model("transformer", sequencelength=20).state_dict()
    wide = {f"encoder_q.{n}": t for n, t in encoder.items()} | {"encoder_q.mlp1.2.lin.weight": torch.ones(256, 64)}
    other = build_model("tempcnn", sequencelength=20, hidden_dims=8).state_dict()
    evidence = tmp_path / "it-ran"
    cases = {
        tmp_path / "none.pth": "holds criterion.pth, empty.pth, hostile.pth, other.pth, text.pth …); give the model_",
        write(tmp_path / "wide.pth", model_state=wide): "mlp1.2.lin.weight is (256, 64), STNet expects (128, 64)",
        write(tmp_path / "other.pth", model_state=other): "none of its tensors (conv_bn_relu1.block.0.weight",
        write(tmp_path / "empty.pth"): "no 'model_state' in it; expected a checkpoint of main_moco.py",
        write(tmp_path / "criterion.pth", model_state=encoder, criterion=nn.MSELoss()): "it holds torch.nn.modules",
        write(tmp_path / "hostile.pth", model_state=encoder, criterion=RunsCode(evidence)): "system, which is never",
    }
    (tmp_path / "text.pth").write_text("hello")
    cases[tmp_path / "text.pth"] = "not a checkpoint of tensors and numbers"
    for path, expected in cases.items():
        line = refuse(main_tscls, tmp_path / "out", capsys, "--pretrained", path, root=data_root)
        assert line.startswith(f"{path}: ") and expected in line
    assert not evidence.exists()


def test_all_models_are_checked_before_the_first_is_trained(tmp_path, data_root, capsys):
    path = train(data_root, tmp_path / "in") / "model_best.pth"
    argv = ["stnet", "tempcnn", "-n", 50, "--sequencelength", 20, "-d", "cpu", "--datapath", data_root]
    line = refused(main_tscls, [*argv, "-l", tmp_path / "out", "--pretrained", path], capsys)
    assert line == f"{path}: is of stnet; expected a checkpoint of tempcnn" and not (tmp_path / "out").exists()


def test_pretrained_is_for_networks(tmp_path, data_root, capsys):
    line = refuse(main_tscls, tmp_path / "out", capsys, "--pretrained", "x.pth", root=data_root, model="rf")
    assert line.startswith("--pretrained is for the networks")


def test_published_classifiers_are_fine_tuned(tmp_path, data_root, capsys):
    """Their files hold a pickled loss module."""
    state = build_model("stnet", sequencelength=20).state_dict()
    path = write(tmp_path / "STNet_x_model.pth", model_state=state, criterion=nn.CrossEntropyLoss())
    train(data_root, tmp_path / "out", "--pretrained", path)
    assert "took 37 tensors" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--pretrained", "no.pth"], "no.pth: no such checkpoint"),
        (["--eval"], "no such checkpoint"),
        (["--amp", "fp16"], "--amp fp16 is for a GPU"),
        (["-seq", 500], "use --use-doy"),
        (["--rc", "--pad"], "--rc and --pad are two ways to length S"),
    ],
)
def test_arguments_are_checked_before_default_data_are_made(tmp_path, capsys, monkeypatch, flags, told):
    monkeypatch.setattr(main_tscls, "ensure_default", lambda path: pytest.fail("data were simulated"))
    monkeypatch.chdir(tmp_path)
    line = refused(main_tscls, ["transformer", "-d", "cpu", "-l", tmp_path / "out", *flags], capsys)
    assert told in line and not list(tmp_path.iterdir())


def test_testing_again_with_other_classes(tmp_path, data_root, capsys):
    train(data_root, tmp_path / "out")
    root = shutil.copytree(data_root, tmp_path / "root")
    lines = (root / "classmapping20.csv").read_text().splitlines()
    (root / "classmapping15.csv").write_text("\n".join(lines[:16]) + "\n")
    argv = ["stnet", "-n", 50, "--eval", "-c", 15, "-d", "cpu", "--datapath", root, "-l", tmp_path / "out"]
    line = refused(main_tscls, argv, capsys)
    assert line.endswith(f": its classes are not those of {root}; give the -c that it was trained with")


def test_eval_without_a_trained_run_is_refused(tmp_path, data_root, capsys):
    line = refuse(main_tscls, tmp_path / "out", capsys, "--eval", root=data_root)
    folder = tmp_path / "out" / "T_STNet_R50_Pad_2019_Seed111"
    assert line == (
        f"{folder / 'model_best.pth'}: no such checkpoint (there is no folder {folder});"
        " train this run first (leave out --eval), or give the flags it had"
    )


def test_resumed_checkpoints_that_do_not_fit_are_refused(tmp_path, data_root, capsys):
    small, state = (
        MoCo(build_model("transformer", sequencelength=20), dim=128, K=size).state_dict() for size in (32, 64)
    )
    classifier = build_model("stnet", sequencelength=20).state_dict()
    encoder = {name: tensor for name, tensor in state.items() if name.startswith("encoder_q.")}
    training = {"step": 3, "steps": 9}
    cases = {
        write(tmp_path / "K.pth", model_state=small): "does not fit MoCo: queue is (128, 32), not (128, 64)",
        write(tmp_path / "classifier.pth", model_state=classifier): "no encoder_q in it, so not a checkpoint of a"
        " pre-training; give a checkpoint of main_moco.py; a run resumes exactly from its model_last.pth",
        write(tmp_path / "slim.pth", model_state=encoder): "holds the encoder alone, which --pretrained takes; give a"
        " checkpoint of main_moco.py; a run resumes exactly",
        write(tmp_path / "steps.pth", model_state=state, training=training): "was trained with 9 steps an epoch, this"
        " run has 3; resume with the data (--datapath, -n, --useall) and the batch size (-b) it had",
        tmp_path / "none.pth": "holds K.pth, bare.pth, classifier.pth, slim.pth, steps.pth); give a checkpoint",
    }
    torch.save({"model_state": state}, tmp_path / "bare.pth")
    cases[tmp_path / "bare.pth"] = "epoch"
    for path, expected in cases.items():
        line = refuse(main_moco, tmp_path / "out", capsys, "--resume", path, root=data_root)
        assert str(path) in line and expected in line
    line = refuse(main_moco, tmp_path / "out", capsys, "--evaluate", root=data_root)
    assert line.endswith(
        "); pre-train this run first (leave out --evaluate), give the flags it had, or a checkpoint with --resume"
    )


def test_resuming_with_other_flags_names_them(tmp_path, data_root, capsys):
    path = pretrain(data_root, tmp_path / "in", "--mlp", "--use-doy", "--moco-t", 0.2) / "model_last.pth"
    flags = ["--use-doy", "--rc", "--moco-k", 128, "--moco-t", 0.2, "--seed", 3, "--resume", path]
    line = refuse(main_moco, tmp_path / "out", capsys, *flags, root=data_root)
    assert line == (
        f"{path}: with --rc here, without --rc in the checkpoint; --seed 3 here, 111 in the checkpoint;"
        " --moco-k 128 here, 64 in the checkpoint; without --mlp here, with --mlp in the checkpoint;"
        " give the flags and the data it had"
    )
    other = ["--mlp", "--use-doy", "--moco-t", 0.2, "-c", 5, "--resume", path]
    line = refuse(main_moco, tmp_path / "out", capsys, *other, root=data_root, model="stnet")
    assert line.startswith(f"{path}: model stnet here, transformer in the checkpoint; with")


# ---- damaged stores


def test_too_few_series_to_pretrain_on_are_refused(tmp_path, capsys):
    with StoreWriter(tmp_path / "root" / "2019" / "unlabelled") as writer:
        writer.append(np.arange(40).reshape(4, 10), np.array([1, 2, 1, 2]), np.array([2, 2]))
    line = refuse(main_moco, tmp_path / "out", capsys, root=tmp_path / "root")
    assert "2 series are too few to pre-train on; expected at least 3" in line


def test_a_cell_of_a_series_file_that_is_no_number_is_refused(tmp_path, capsys):
    file = tmp_path / "root" / "2019" / "Unsupervised" / "7.csv"
    save_series_csv(file, long_series([0], seed=0)[0])
    lines = file.read_text().splitlines()
    lines[3] = ",".join(["1", "2", "3", "abc", *lines[3].split(",")[4:]])
    file.write_text("\n".join(lines))
    line = refuse(main_moco, tmp_path / "out", capsys, root=tmp_path / "root")
    assert line == f"{file}: line 4: red1 is 'abc'; expected a digital number from -32768 to 32767"
    assert not list((tmp_path / "root").rglob(".sits-store/*"))


def test_a_label_that_is_a_name_is_refused(tmp_path, data_root, capsys):
    root = shutil.copytree(data_root, tmp_path / "root")
    file = root / "2019" / "train" / "index.csv"
    lines = file.read_text().splitlines()
    for cell, found in (("corn", "'corn'"), ("", "blank")):
        file.write_text("\n".join([*lines[:5], f"{cell},Adams", *lines[6:]]))
        write_checksums(file.parent)
        line = refuse(main_tscls, tmp_path / "out", capsys, root=root)
        assert line == f"{file}: line 6: label is {found}; expected a class id (a whole number), 0 or more"


@BOTH
def test_a_store_without_all_its_files_is_refused(script, tmp_path, data_root, capsys):
    root = tmp_path / "root"
    shutil.copytree(data_root, root)
    for split in ("unlabelled", "train"):
        (root / "2019" / split / "doy.npy").unlink()
    assert "doy.npy" in refuse(script, tmp_path / "out", capsys, root=root)
