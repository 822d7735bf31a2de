"""A rank dies: its peers soon end with one line each, and the run can be resumed on any number of processes."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

import main_moco
import main_tscls
from moco.builder import MoCo
from tests.scripts.test_distributed import REPOSITORY
from tests.support.runs import SMALL, checkpoint, column, newest, pretrain, rows
from tscls import training
from utils.runtime import watchdog

FLAGS = ("--rc", "--useall", "--moco-k", "50", *SMALL, "-b", "12")  # of 60 series 54 are trained on: 4 steps an epoch
SIGKILL_SECONDS = 30  # until torchrun kills a process that does not end


# ---- the ranks, started by torchrun


def be_killed() -> None:
    Path(os.environ["DIED"]).touch()
    os.kill(os.getpid(), signal.SIGKILL)


def hang() -> None:
    """As in a collective of NCCL: no Python code runs, so no Python signal handler either."""
    libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(256)
    libc.pthread_mutex_init(mutex, None)
    for _ in range(2):
        libc.pthread_mutex_lock(mutex)


def compute() -> None:
    time.sleep(2 * SIGKILL_SECONDS)


def raise_a_bug() -> None:
    Path(os.environ["DIED"]).touch()
    raise ValueError("a bug")


SCENES = {  # in which step, and what the ranks do there
    "killed": (10, {1: be_killed}),
    "buggy": (6, {0: hang, 1: raise_a_bug}),
    "computing": (10, {0: be_killed, 1: compute}),
}


def run_scene(script, hooked, name: str, scene: str, argv: list[str]) -> None:
    """Run a script; in a step, which calls ``hooked.name``, the ranks do what the scene says."""
    when, actions = SCENES[scene]
    steps, original = [], getattr(hooked, name)

    def step(*args):
        steps.append(1)
        if len(steps) == when:
            actions.get(int(os.environ["RANK"]), lambda: None)()
        return original(*args)

    setattr(hooked, name, step)
    watchdog.CHECK_SECONDS = watchdog.STUCK_SECONDS = 0.5
    script.main(argv)


class Ended(NamedTuple):
    """A run with a dead rank: its folder, stderr, exit code, and the seconds from the death to its end."""

    folder: Path
    stderr: str
    code: int
    seconds: float

    def lines(self) -> list[str]:
        """The lines of the ranks, without those of torchrun."""
        return [line for line in self.stderr.splitlines() if re.match(r"error: |\[rank", line)]

    def code_of(self, rank: int) -> int:
        """The exit code of a rank, as torchrun reports it."""
        return int(re.search(rf"rank +: {rank} .*\n *exitcode +: (-?\d+)", self.stderr)[1])


def run(scene: str, root: Path, logdir: Path, model: str, *flags: object) -> Ended:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2]
    argv = [*launch, "-m", "tests.scripts.test_dying_ranks", scene, model, *flags, "--datapath", root, "-l", logdir]
    logdir.mkdir()
    died = logdir / "died"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DIED": str(died)}
    done = subprocess.run(
        list(map(str, argv)), cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=120
    )
    assert died.exists(), done.stderr
    return Ended(newest(logdir), done.stderr, done.returncode, time.time() - died.stat().st_mtime)


# ---- the tests


@pytest.fixture(scope="module")
def killed(data_root, tmp_path_factory) -> Ended:
    """Two ranks pre-train; the second is killed in the third epoch, while the first is in a collective."""
    return run("killed", data_root, tmp_path_factory.mktemp("dying") / "killed", "tempcnn", "-e", 9, *FLAGS)


@pytest.fixture(scope="module")
def buggy(killed, data_root, tmp_path_factory) -> Ended:
    """Two ranks resume it; in the fourth epoch the second raises an exception, while the first hangs."""
    resuming = ("-e", 9, *FLAGS, "--resume", killed.folder / "model_last.pth")
    return run("buggy", data_root, tmp_path_factory.mktemp("dying") / "buggy", "tempcnn", *resuming)


def is_about(rank: int, how: str, line: str) -> bool:
    """Whether a line says that this rank has ended, and where to look for the reason."""
    where = "look at its own message, or torchrun's"
    return re.fullmatch(rf"error: rank {rank} of this run ended too early{how}; {where}", line) is not None


def test_a_killed_rank_soon_ends_the_run(killed):
    assert killed.code != 0 and killed.seconds < SIGKILL_SECONDS / 2
    assert killed.code_of(0) == 1 and killed.code_of(1) == -signal.SIGKILL
    assert "rank      : 1 " in killed.stderr[killed.stderr.index("Root Cause") :]


def test_the_peer_of_a_killed_rank_prints_one_line(killed):
    (line,) = killed.lines()
    what, how_to_resume = line.rsplit("; ", 1)
    assert is_about(1, r" \([\w ]+\)", what)
    assert how_to_resume == f"resume with --resume {killed.folder / 'model_last.pth'}"


def test_the_checkpoint_saved_before_is_whole(killed):
    saved = checkpoint(killed.folder, "model_last.pth")
    assert saved["epoch"] == 1 and saved["model_state"]["queue_ptr"].item() == 2 * 48 % 50
    assert not list(killed.folder.glob("*.part*"))


def test_one_process_resumes_the_run(killed, data_root, tmp_path):
    flags = ("-e", 3, *FLAGS, "--resume", killed.folder / "model_last.pth")
    resumed = pretrain(data_root, tmp_path, *flags, model="tempcnn")
    assert [row["epoch"] for row in rows(resumed)] == ["0", "1", "2"] and column(resumed, "lr") == [1e-3] * 3
    assert checkpoint(resumed, "model_last.pth")["model_state"]["queue_ptr"].item() == 3 * 48 % 50


def test_two_processes_resume_the_run(buggy):
    assert [row["epoch"] for row in rows(buggy.folder)] == ["0", "1", "2"] and column(buggy.folder, "lr") == [1e-3] * 3
    assert checkpoint(buggy.folder, "model_last.pth")["model_state"]["queue_ptr"].item() == 3 * 48 % 50


def test_only_the_rank_with_a_bug_prints_a_traceback(buggy):
    assert "[rank1]: ValueError: a bug" in buggy.lines()
    (line,) = (line for line in buggy.lines() if not line.startswith("[rank1]: "))
    assert is_about(1, "", line.rsplit("; ", 1)[0])


def test_a_hung_rank_ends_before_torchrun_kills_it(buggy):
    assert buggy.code != 0 and buggy.seconds < SIGKILL_SECONDS / 2
    assert buggy.code_of(0) == 1


def test_a_rank_that_computes_ends_too(data_root, tmp_path):
    """Of main_tscls.py."""
    flags = ("-n", 50, "-e", 1000, "--interp", "--recipe", "published", *SMALL)
    ended = run("computing", data_root, tmp_path / "computing", "tempcnn", *flags)
    assert ended.code != 0 and ended.seconds < SIGKILL_SECONDS / 2
    assert ended.code_of(0) == -signal.SIGKILL and ended.code_of(1) == 1
    (line,) = ended.lines()
    what, how_to_resume = line.removeprefix("[rank 1] ").rsplit("; ", 1)
    assert line.startswith("[rank 1] ") and is_about(0, r"( \([\w ]+\))?", what)
    assert how_to_resume == f"resume with --resume {ended.folder / 'model_last.pth'}"


if __name__ == "__main__":
    name, *rest = sys.argv[1:]
    if name == "computing":
        run_scene(main_tscls, training, "temporal_shift", name, rest)
    else:
        run_scene(main_moco, MoCo, "enqueue", name, rest)
