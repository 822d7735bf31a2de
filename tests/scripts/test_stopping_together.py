"""A request to stop a run of two processes: whichever of them hears it, both stop after the same step."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import multiprocessing

import main_moco
from moco.builder import MoCo
from tests.scripts.test_distributed import REPOSITORY, free_ports, wait_for
from tests.support.runs import SMALL, checkpoint, newest, pretrain, rows, same

FLAGS = ("tempcnn", "--rc", "--useall", "--moco-k", "50", "-e", "2", *SMALL, "-b", "8", "-p", "2")
JOBS = (  # of 60 series 54 are trained on, 8 in a step: 6 steps an epoch. Name, signals, and the ranks that hear them
    ("whole", (), ()),
    ("stopped", (signal.SIGTERM,), (1,)),
    ("resumed", (), ()),
    ("hurried", (signal.SIGINT, signal.SIGINT), (0, 1)),
)
enqueue = MoCo.enqueue
steps: list[int] = []  # of this process and run


# ---- what each of two ranks does


def run(folder: Path, name: str, *flags: str) -> str:
    """Pre-train; returns how it ended."""
    try:
        main_moco.main([*FLAGS, *flags, "--datapath", (folder / "root").read_text(), "-l", str(folder / name)])
    except SystemExit as ended:
        return f"exit {ended.code} after {len(steps)} steps"
    return f"done after {len(steps)} steps"


def signalled(rank: int, numbers: tuple[int, ...], heard_by: tuple[int, ...]) -> None:
    """From now on those ranks get these signals in their third step."""
    steps.clear()

    def enqueue_and_hear(moco, keys):
        enqueue(moco, keys)
        steps.append(1)
        if len(steps) == 3 and rank in heard_by:
            for number in numbers:
                signal.raise_signal(number)

    MoCo.enqueue = enqueue_and_hear


def work(rank: int, folder: Path, ports: list[int]) -> None:
    torch.set_num_threads(1)
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1"}
    os.environ.update({name: str(value) for name, value in place.items()})
    ended = []
    for port, (name, numbers, heard_by) in zip(ports, JOBS, strict=True):
        os.environ["MASTER_PORT"] = str(port)
        signalled(rank, numbers, heard_by)
        going_on = ["--resume", str(last(folder / "stopped"))] if name == "resumed" else []
        ended.append(run(folder, name, *going_on))
        if "exit" in ended[-1] and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    (folder / f"ended-{rank}").write_text("\n".join(ended))


def last(logdir: Path) -> Path:
    (folder,) = logdir.iterdir()
    return folder / "model_last.pth"


# ---- and what is checked of it


@pytest.fixture(scope="module")
def ended(data_root, tmp_path_factory) -> Path:
    """Where two processes have done all jobs."""
    folder = tmp_path_factory.mktemp("stopping")
    (folder / "root").write_text(str(data_root))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        wait_for(multiprocessing.spawn(work, (folder, free_ports(len(JOBS))), nprocs=2, join=False), seconds=120)
    return folder


def test_both_stop_after_the_same_step(ended):
    for rank in range(2):
        assert (ended / f"ended-{rank}").read_text().splitlines() == [
            "done after 12 steps",
            "exit 143 after 4 steps",  # the next look after the third
            "done after 8 steps",
            "exit 130 after 3 steps",  # a second signal ends at once
        ]
    assert torch.load(last(ended / "stopped"), weights_only=True)["training"]["step"] == 4
    assert not last(ended / "hurried").exists()


def test_what_was_saved_goes_on_as_if_never_stopped(ended):
    whole, resumed = (checkpoint(newest(ended / name), "model_last.pth") for name in ("whole", "resumed"))
    assert same(resumed["model_state"], whole["model_state"])
    first, second = (rows(newest(ended / name)) for name in ("whole", "resumed"))
    assert first == second


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_torchrun_is_stopped(data_root, tmp_path, number):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "main_moco.py"]
    argv = [*launch, *FLAGS, "-e", "100000", "--patience", "100000", "--datapath", str(data_root), "-l", str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with open(tmp_path / "said", "w+") as said:
        process = subprocess.Popen(argv, cwd=REPOSITORY, env=environment, stdout=said, stderr=said)
        end = time.monotonic() + 60
        while not list(tmp_path.glob("*/model_last.pth")) and time.monotonic() < end:
            time.sleep(0.1)
        process.send_signal(number)
        try:
            process.wait(40)
        finally:
            process.kill()
    path = next(tmp_path.glob("*/model_last.pth"))
    lines = [line for line in (tmp_path / "said").read_text().splitlines() if line.startswith("stopped ")]
    (told,) = {line.split("; continue with: ")[1] for line in lines}
    assert told.startswith("torchrun --nproc-per-node 2 main_moco.py tempcnn") and told.endswith("--resume auto")
    flags = ("--rc", "--moco-k", 50, "-b", 8, "-e", checkpoint(path.parent, path.name)["epoch"] + 2)
    resumed = pretrain(data_root, tmp_path / "on", *flags, "--resume", path, model="tempcnn")
    assert rows(resumed)
