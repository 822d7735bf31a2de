"""Killed by SIGKILL at random moments and resumed, a run ends as if it had never been killed."""

from __future__ import annotations

import random
import signal
from collections import Counter
from pathlib import Path

import pytest
import torch

from tests.scripts.test_distributed import free_ports
from tests.support.kills import Death, Server
from tests.support.runs import SMALL, rows

# In every step a state is saved. 54 series are pre-trained on: 3 or 2 steps an epoch.
COMMON = (*SMALL, "--save-minutes", "1e-9", "-p", 1)
MOCO = ("stnet", "--rc", "--useall", "--moco-k", 50, "-e", 3, *COMMON)
TSCLS = ("stnet", "svm", "--rc", "-n", 50, "--seeds", 1, 2, "-e", 2, *COMMON)
SCENES = {  # script, its arguments, whether two processes run it, and the least number of kills
    "moco": ("main_moco", (*MOCO, "-j", 0), False, 5),
    "moco, reading ahead": ("main_moco", (*MOCO, "-j", 2, "--clip-grad", 1), False, 5),
    "moco, two ranks": ("main_moco", (*MOCO, "-b", 20, "-j", 2), True, 10),
    "tscls, few labels": ("main_tscls", (*TSCLS, "-j", 0), False, 10),
    "tscls, published": ("main_tscls", (*TSCLS, "-j", 2, "--recipe", "published"), False, 10),
}


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    server.close()


def left_by(logdir: Path) -> dict:
    """All that runs leave which must not depend on when they were killed."""
    left = {}
    for folder in sorted(path for path in logdir.iterdir() if path.is_dir()):
        logs = {name: rows(folder, name) for name in ("trainlog.csv", "testlog.csv")}
        states = {}
        for name in ("model_best.pth", "model_last.pth"):
            if (folder / name).is_file():
                content = torch.load(folder / name, weights_only=True)
                content.pop("digests")  # of the seconds too
                content.get("training", {}).pop("seconds", None)
                states[name] = flat(content)
        left[folder.name] = logs | states
    return left


def flat(content: object, name: str = "") -> dict:
    """The numbers and tensors in nested dicts and lists, tensors as bytes."""
    if isinstance(content, dict | list):
        items = content.items() if isinstance(content, dict) else enumerate(content)
        return {key: value for k, part in items for key, value in flat(part, f"{name}/{k}").items()}
    if isinstance(content, torch.Tensor):
        return {name: (content.dtype, tuple(content.shape), content.contiguous().numpy().tobytes())}
    return {name: content}


@pytest.mark.parametrize("scene", SCENES)
def test_a_run_that_is_killed_again_and_again_ends_as_if_never_killed(server, data_root, tmp_path, scene):
    script, flags, by_two, least = SCENES[scene]
    argv = (*flags, "--datapath", data_root, "--resume", "auto")
    draw, deaths, left_locked = random.Random(scene), Counter(), 0

    def run(name: str, death: Death | None = None) -> int:
        port = free_ports(1)[0] if by_two else 0
        return server.run(script, (*argv, "-l", tmp_path / name / "runs"), tmp_path / name, death, port)

    assert run("whole") == 0, (tmp_path / "whole" / "printed-0").read_text()
    expected, lines = left_by(tmp_path / "whole" / "runs"), int((tmp_path / "whole" / "lines").read_text())
    while deaths.total() < least:
        name = f"killed-{deaths.total()}"
        for _ in range(100):
            kind = draw.choice(["line", "line", "line", "save", "rename"])
            latest = {"line": lines // 3, "save": 5, "rename": 16}[kind]
            death = Death(kind, draw.randint(1, latest), rank=draw.randint(0, 1) if by_two and kind == "line" else 0)
            code = run(name, death)
            assert code in (0, -signal.SIGKILL), (tmp_path / name / "printed-0").read_text()
            if code == 0:
                break
            deaths[kind] += 1
            left_locked += any((tmp_path / name / "runs").glob(".*.lock"))  # of a process that is dead
        assert left_by(tmp_path / name / "runs") == expected
        assert not list((tmp_path / name / "runs").rglob("*partial*"))
        folders = [path for path in (tmp_path / name / "runs").iterdir() if path.is_dir()]
        assert all((folder / "finished").is_file() for folder in folders)
        assert not list((tmp_path / name / "runs").glob(".*.lock"))
    assert left_locked
