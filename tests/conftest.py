"""What several test files share: optional real data and reference results, and small data roots to train on."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch

from tests.support.layout import write_published_root, write_root
from utils import report

SHARED = Path(__file__).resolve().parents[2] / "shared"  # not part of the project; tests that use it can be skipped
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU on this machine")
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
DEVICES = [pytest.param(CPU, id="cpu"), pytest.param(GPU, id="gpu", marks=needs_gpu)]
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="there is no optional sample data on this machine")


def pytest_configure() -> None:
    """Ctrl-C acts as in a terminal, also in the background of a shell script, which has its jobs ignore it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)  # the tests' networks are so small that threads would mostly wait for each other


@pytest.fixture(autouse=True)
def fresh_compiler():
    """What one test compiles counts against the limit of torch for all, after which it goes on uncompiled."""
    yield
    torch.compiler.reset()


@pytest.fixture(scope="session")
def data_root(tmp_path_factory) -> Path:
    """A data root of stores, 2019 with unlabelled series and 2020 to test on; tests must not write to it."""
    return write_root(tmp_path_factory.mktemp("stores") / "US-tiny")


@pytest.fixture(scope="session")
def published_root(tmp_path_factory) -> Path:
    """The same in the published layout, for -n 50 and seed 111."""
    return write_published_root(tmp_path_factory.mktemp("published") / "US-tiny")


@pytest.fixture(scope="module")
def no_pictures():
    """Pictures take most of the time of a small run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "_pictures", lambda: False)
        yield
