"""Two runs of one name: neither's result is lost or mixed with the other's, and who repeats a run finds its result."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import main_moco
import main_tscls
from datasets.storefiles import write_checksums
from tests.support.ranks import REPOSITORY
from tests.support.runs import BOTH, SMALL, calls_of, checkpoint, column, pretrain, refused, rows, train
from tests.utils.test_locks import another_process
from utils.files import lock_beside

pytestmark = pytest.mark.usefixtures("no_pictures")
RUN = {main_moco: pretrain, main_tscls: train}
NAME = {main_moco: "P_MoCoV1TransformerModel_Pad_2019", main_tscls: "T_STNet_R50_Pad_2019_Seed111"}


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def command(script, root: Path, logdir: Path, *flags: object) -> list:
    own = ["stnet", "-n", 50] if script is main_tscls else ["transformer", "--useall", "--moco-k", 64]
    return [*own, "-e", 1, *SMALL, "--datapath", root, "-l", logdir, *flags]


@BOTH
def test_a_finished_run_stays_until_it_is_overwritten(script, data_root, tmp_path, capsys):
    run = RUN[script]
    first = content(run(data_root, tmp_path))
    assert "finished" in first and "overwrite" not in json.loads(first["args.json"])
    capsys.readouterr()
    folder = run(data_root, tmp_path)  # the same again
    assert folder == tmp_path / NAME[script] and content(folder) == first
    assert f"{folder}: this run is there and finished; --overwrite repeats it\n" in capsys.readouterr().out
    line = refused(script, command(script, data_root, tmp_path, "-lr", 0.002), capsys)
    assert line == (
        f"{folder}: holds another run: -lr 0.002 here, 0.001 there;"
        " give --suffix X or auto, or --overwrite to replace it"
    )
    assert content(folder) == first
    other = run(data_root, tmp_path, "-lr", 0.002, "--suffix", "auto")
    assert other.name == f"{NAME[script]}_2" and content(folder) == first
    assert rows(other) != rows(folder)
    same = rows(other)
    run(data_root, tmp_path, "-lr", 0.002, "--overwrite")
    assert rows(folder) == same
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == [NAME[script], f"{NAME[script]}_2"]
    assert json.loads((folder / "args.json").read_text())["learning_rate"] == 0.002
    assert not list(tmp_path.glob(".*"))


@BOTH
def test_a_run_in_progress_is_refused_by_the_name_of_its_process(script, data_root, tmp_path, capsys):
    with another_process(lock_beside(tmp_path / NAME[script])) as (process, _):
        line = refused(script, command(script, data_root, tmp_path), capsys)
        assert (
            line.startswith(f"{tmp_path / NAME[script]}: process {process.pid} on ") and "is writing it; wait" in line
        )
        assert not (tmp_path / NAME[script]).exists()
        assert RUN[script](data_root, tmp_path, "--suffix", "auto").name == f"{NAME[script]}_2"
    assert RUN[script](data_root, tmp_path).name == NAME[script]  # the process was killed


@BOTH
def test_flags_of_the_folder_that_contradict_each_other(script, data_root, tmp_path, capsys):
    line = refused(script, command(script, data_root, tmp_path, "--suffix", "auto", "--overwrite"), capsys)
    assert line.startswith("--suffix auto keeps the run that is there, --overwrite replaces it; give one")
    line = refused(script, command(script, data_root, tmp_path, "--resume", "auto", "--overwrite"), capsys)
    assert line == "--resume continues a run, --overwrite starts afresh; give one of them"
    flag = "--evaluate" if script is main_moco else "--eval"
    line = refused(script, command(script, data_root, tmp_path, "--suffix", "auto", flag), capsys)
    assert line.startswith("--suffix auto is for a new run; give the suffix of the run to test, or none")


def test_a_test_of_a_run_that_is_being_written_is_refused(data_root, tmp_path, capsys):
    folder = train(data_root, tmp_path)
    with another_process(lock_beside(folder)) as (process, _):
        line = refused(main_tscls, command(main_tscls, data_root, tmp_path, "--eval"), capsys)
    assert line.startswith(f"{folder}: process {process.pid} on ")


def test_the_run_that_is_refused_is_found_before_any_is_trained(data_root, tmp_path, capsys, monkeypatch):
    train(data_root, tmp_path, "--seeds", 2)
    trained = calls_of(main_tscls, "train", monkeypatch)
    line = refused(main_tscls, command(main_tscls, data_root, tmp_path, "--seeds", 1, 2, "-b", 20), capsys)
    assert "Seed2: holds another run: -b 20 here, 16 there" in line and not trained
    main_tscls.main(list(map(str, command(main_tscls, data_root, tmp_path, "--seeds", 1, 2))))
    assert [run.identity["seed"] for run, *_ in trained] == [1]


def test_a_finished_run_is_tested_on_further_years(data_root, tmp_path, capsys):
    folder = train(data_root, tmp_path)
    before, tested = content(folder), rows(folder, "testlog.csv")
    train(data_root, tmp_path, "--years", 2020, 2019)
    told = capsys.readouterr().out
    assert (
        "this run is there and finished; --overwrite repeats it\n" in told and "2019: OA" in told and "2020: OA" in told
    )
    assert rows(folder, "testlog.csv")[0] == tested[0] and rows(folder, "testlog.csv")[1]["year"] == "2020"
    after = content(folder)
    assert {name: after[name] for name in before if name != "testlog.csv"} == {
        name: text for name, text in before.items() if name != "testlog.csv"
    }
    assert np.load(folder / "test_conf_mat_2020.npy").sum() == 30


def test_other_test_series_at_the_same_place_are_not_taken_for_the_same(data_root, tmp_path, capsys):
    root = tmp_path / "root"
    root.mkdir()
    (root / "classmapping20.csv").write_bytes((data_root / "classmapping20.csv").read_bytes())
    (root / "2019").symlink_to(data_root / "2019")
    folder = train(root, tmp_path / "results")
    moved = root.rename(tmp_path / "moved")
    assert train(moved, tmp_path / "results") == folder
    (moved / "2019").unlink()
    (moved / "2019").mkdir()
    for split in ("train", "valid", "eval"):
        target = moved / "2019" / split
        target.mkdir()
        for file in (data_root / "2019" / split).iterdir():
            text = file.read_bytes()
            if split == "eval" and file.name == "index.csv":  # the label of one series
                lines = text.decode().splitlines()
                column_of_labels = lines[0].split(",").index("label")
                cells = lines[1].split(",")
                cells[column_of_labels] = str((int(cells[column_of_labels]) + 1) % 21)
                text = "\n".join([lines[0], ",".join(cells), *lines[2:], ""]).encode()
            (target / file.name).write_bytes(text)
    write_checksums(moved / "2019" / "eval")
    capsys.readouterr()
    line = refused(main_tscls, command(main_tscls, moved, tmp_path / "results"), capsys)
    here, there = re.search(
        r"was tested on other series of 2019: of 30 series, (\w+) here, of 30 series, (\w+) there", line
    ).groups()
    assert here != there and line.endswith("; --eval replaces the test, --suffix X keeps it")


def test_another_checkpoint_of_the_same_name_is_another_run(data_root, tmp_path, capsys):
    flags = ("--pretrained", pretrain(data_root, tmp_path, "--use-doy") / "model_best.pth")
    train(data_root, tmp_path, *flags)
    pretrain(data_root, tmp_path, "--use-doy", "-e", 2, "--overwrite")
    capsys.readouterr()
    line = refused(main_tscls, command(main_tscls, data_root, tmp_path, *flags), capsys)
    name = "P_MoCoV1TransformerModel_Pad_2019_doy/model_best.pth"
    assert re.search(rf"holds another run: --pretrained {name} \(\w{{8}}\) here, {name} \(\w{{8}}\) there;", line)


def test_a_resumed_run_is_finished_again(data_root, tmp_path):
    folder = pretrain(data_root, tmp_path)
    (folder / "finished").unlink()
    pretrain(data_root, tmp_path, "-e", 2, "--resume", folder / "model_last.pth")
    assert (folder / "finished").exists() and len(rows(folder)) == 2
    assert json.loads((folder / "args.json").read_text())["epochs"] == 2
    pretrain(data_root, tmp_path, "-e", 3, "--resume", folder / "model_last.prev.pth")  # from the epoch before
    assert [row["epoch"] for row in rows(folder)] == ["0", "1", "2"]


@BOTH
def test_processes_that_start_together_do_not_mix_their_runs(script, data_root, tmp_path):
    """The first one is trained in its folder, the second is refused, the third takes another name."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    flags = {"0.001": (), "0.002": (), "0.003": ("--suffix", "auto")}
    started = {
        rate: subprocess.Popen(
            [sys.executable, str(REPOSITORY / f"{script.__name__}.py")]
            + list(map(str, command(script, data_root, tmp_path, "-e", 12, "-lr", rate, *more))),
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rate, more in flags.items()
    }  # fmt: skip
    ended = {rate: (*process.communicate(timeout=300), process.returncode) for rate, process in started.items()}
    assert ended["0.003"][2] == 0, ended["0.003"]
    held, others = ({rate for rate in ended if (ended[rate][2] == 0) is is_good} for is_good in (True, False))
    for rate in others:
        assert ended[rate][2] == 2 and ended[rate][1].count("error: ") == 1, ended[rate]
        assert "is writing it; wait" in ended[rate][1] or "holds another run: -lr" in ended[rate][1]
    folders = [path for path in tmp_path.iterdir() if path.is_dir()]
    rates = {json.loads((folder / "args.json").read_text())["learning_rate"] for folder in folders}
    assert rates == set(map(float, held)) and len(folders) == len(held)
    for folder in folders:
        assert len(rows(folder)) == 12 and (folder / "finished").exists()
        best = checkpoint(folder)
        if script is main_moco:
            assert best["val_loss_min"] == pytest.approx(min(column(folder, "valid_loss")), rel=1e-5)
        else:
            assert len(rows(folder, "testlog.csv")) == 1
    assert not list(tmp_path.glob(".*"))


def test_of_several_ranks_one_holds_the_lock_and_all_end_when_it_is_refused(data_root, tmp_path):
    """Each in one line: rank 0 says who holds it, rank 1 that rank 0 has ended."""
    argv = list(map(str, command(main_tscls, data_root, tmp_path)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    with another_process(lock_beside(tmp_path / NAME[main_tscls])) as (holder, _):
        ranks = [
            subprocess.Popen(
                [sys.executable, "main_tscls.py", *argv], cwd=REPOSITORY, stderr=subprocess.PIPE, text=True,
                env=os.environ | world | {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            )
            for rank in range(2)
        ]  # fmt: skip
        told = [rank.communicate(timeout=120)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [2, 1], told
    lines = [[line for line in text.splitlines() if "error: " in line] for text in told]
    assert len(lines[0]) == 1 and f"process {holder.pid} on " in lines[0][0] and "is writing it; wait" in lines[0][0]
    assert len(lines[1]) == 1 and lines[1][0].startswith("[rank 1] error: ") and "ended too early" in lines[1][0]
    assert "Traceback" not in "".join(told)
