"""The two scripts, run in this process on small data, and what they leave behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import main_moco
import main_tscls
from utils.results.logs import read_rows

SMALL = ("--sequencelength", "20", "-b", "16", "-d", "cpu")
BOTH = pytest.mark.parametrize("script", [main_moco, main_tscls], ids=["moco", "tscls"])
TIMES = ("seconds", "series_per_s", "train_seconds")  # columns that no seed can fix


def pretrain(root: Path, logdir: Path, *flags: object, model: str = "transformer") -> Path:
    """Run main_moco.py for an epoch, unless told otherwise; returns the folder of the run."""
    given = ("--useall", "--moco-k", "64", "-e", "1", *SMALL, "--datapath", root, "-l", logdir, *flags)
    main_moco.main([model, *map(str, given)])
    return newest(logdir)


def train(root: Path, logdir: Path, *flags: object, model: str = "stnet") -> Path:
    """Run main_tscls.py for an epoch, unless told otherwise; returns the folder of the (last) run."""
    given = ("-n", "50", "-e", "1", *SMALL, "--datapath", root, "-l", logdir, *flags)
    main_tscls.main([model, *map(str, given)])
    return newest(logdir)


def newest(logdir: Path) -> Path:
    return max((path for path in logdir.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime_ns)


def rows(folder: Path, name: str = "trainlog.csv") -> list[dict]:
    """The rows of a log, less what depends on the machine's speed."""
    return [{k: v for k, v in row.items() if k not in TIMES} for row in read_rows(folder / name)]


def column(folder: Path, name: str, log: str = "trainlog.csv") -> list[float]:
    return [float(row[name]) for row in read_rows(folder / log)]


def checkpoint(folder: Path, name: str = "model_best.pth") -> dict:
    """What is in a checkpoint, without its digests: changed and saved, it is as an older version would have it."""
    content = torch.load(folder / name, weights_only=True)
    del content["digests"]
    return content


def weights(folder: Path, name: str = "model_last.pth") -> dict:
    return checkpoint(folder, name)["model_state"]


def same(state: dict, other: dict) -> bool:
    return state.keys() == other.keys() and all(torch.equal(state[name], other[name]) for name in state)


def refused(script, argv: list, capsys: pytest.CaptureFixture) -> str:
    """Run a script's main() that must end with exit code 2 and one line on stderr; returns the line."""
    with pytest.raises(SystemExit) as ended:
        script.main(list(map(str, argv)))
    error = capsys.readouterr().err
    assert ended.value.code == 2, error
    assert error.startswith("error: ") and error.count("\n") == 1, error
    return error.removeprefix("error: ").rstrip("\n")


def calls_of(script, name: str, monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """The arguments of every call that a script will make of one of its functions."""
    calls, function = [], getattr(script, name)

    def spy(*args, **options):
        calls.append((*args, *options.values()))
        return function(*args, **options)

    monkeypatch.setattr(script, name, spy)
    return calls
