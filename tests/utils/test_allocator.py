"""Freed memory of tensors is reused, not returned to the system."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from tests.scripts.test_distributed import REPOSITORY
from utils.runtime.memory import SETTINGS

FAULTS = """
import resource, sys, torch
from utils.runtime.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(1 << 24)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[1] != "default":
    assert keep_freed_memory() == (sys.argv[1] == "kept")
print(*[faults() for _ in range(30)])
"""


def pages(case: str) -> list[int]:
    """How many pages the system supplied for one tensor after another."""
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    environment |= {"PYTHONPATH": str(REPOSITORY)} | ({SETTINGS[0]: "131072"} if case == "set by the user" else {})
    argv = [sys.executable, "-c", FAULTS, case]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
    return [int(word) for word in done.stdout.split()]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the switch is glibc's")
def test_large_tensors_reuse_freed_memory():
    for case in ("default", "set by the user"):
        assert min(pages(case)) >= 32  # 64 MiB, in pages of at most 2 MiB
    assert max(pages("kept")[-5:]) < 32
