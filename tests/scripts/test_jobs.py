"""main_tscls.py --jobs: what runs compute and print at a time is what they do one after another."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch

import main_tscls
from tests.support.jobs import SECONDS, wait_until
from tests.support.ranks import REPOSITORY
from tests.support.runs import SMALL, checkpoint, refused, rows, same, train
from tscls.parallel import check_jobs
from utils.errors import UsageError
from utils.runtime.distributed import World

SEEDS = ("--seeds", 1, 2)
EPOCHS = 12
FOLDERS = [f"T_STNet_R50_RC_2019_Seed{seed}" for seed in (1, 2)]


@pytest.fixture(scope="module")
def alone(data_root, tmp_path_factory, no_pictures) -> Path:
    """Where the runs have been done one after another; what they have printed is in the file "printed"."""
    logdir = tmp_path_factory.mktemp("alone")
    with redirect_stdout(io.StringIO()) as printed:
        train(data_root, logdir, "--rc", *SEEDS, "-e", EPOCHS)
    (logdir / "printed").write_text(printed.getvalue())
    return logdir


def assert_same_runs(logdir: Path, other: Path) -> None:
    for name in FOLDERS:
        one, two = logdir / name, other / name
        assert rows(one) == rows(two) and rows(one, "testlog.csv") == rows(two, "testlog.csv")
        for file in ("model_best.pth", "model_last.pth"):
            assert same(checkpoint(one, file)["model_state"], checkpoint(two, file)["model_state"])
        first, second = (json.loads((folder / "args.json").read_text()) for folder in (one, two))
        assert first | {"logdir": ""} == second | {"logdir": ""}
    assert table(logdir) == table(other)


def table(logdir: Path) -> list[dict]:
    with open(logdir / "comparison.csv", newline="") as file:
        return [{k: v for k, v in row.items() if not re.search("seconds|per_s", k)} for row in csv.DictReader(file)]


def lines(text: str) -> list[str]:
    """Less what depends on the machine's speed, or on the folder."""
    return [re.sub(r"[\d,]+ series/s", "", line) for line in text.split("\n\n")[0].splitlines()]


def test_runs_at_a_time_equal_runs_alone(data_root, alone, tmp_path, capfd):
    train(data_root, tmp_path, "--rc", *SEEDS, "-e", EPOCHS, "--jobs", 2)
    out, err = capfd.readouterr()
    assert lines(out) == lines((alone / "printed").read_text()) and len(lines(out)) == 6 and not err
    assert_same_runs(tmp_path, alone)


def test_an_error_of_a_run_is_one_line(data_root, tmp_path, capsys):
    given = ["stnet", "-n", 50, "-e", 2, *SMALL, "--datapath", data_root, "-l", tmp_path, "-lr", 1e38]
    line = refused(main_tscls, [*given, *SEEDS, "--jobs", 2], capsys)
    assert line.startswith("the loss became") and "bad_batch.json" in line
    assert not list(tmp_path.glob("comparison*"))


def test_stopped_runs_are_resumed_to_the_bit(data_root, alone, tmp_path, no_pictures):
    flags = ["--rc", *SEEDS, "-e", EPOCHS, "--jobs", 2, "-n", 50, *SMALL, "--datapath", data_root, "-l", tmp_path]
    command = ["main_tscls.py", "stnet", *map(str, flags)]
    run = subprocess.Popen(
        [sys.executable, *command],
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: any((tmp_path / name / "model_last.pth").exists() for name in FOLDERS))
    run.send_signal(signal.SIGTERM)
    error = run.communicate(timeout=SECONDS)[1]
    assert run.returncode == 143
    assert error == f"stopped; continue with: python {' '.join(command)} --resume auto\n"
    assert not all((tmp_path / name / "finished").exists() for name in FOLDERS)
    train(data_root, tmp_path, *flags, "--resume", "auto")
    assert_same_runs(tmp_path, alone)


@pytest.mark.parametrize(
    ("world", "where"), [(World(1, 2), "with 2 ranks"), (World(0, 1, torch.device("cuda")), "on cuda")]
)
def test_jobs_are_for_a_cpu(world, where):
    with pytest.raises(UsageError, match=f"^--jobs 2: not {where}, for it shares the cores of a CPU; leave it out"):
        check_jobs(2, world)
    check_jobs(1, world)
