"""Memory that tensors leave is used again, not handed back to the system."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from utils.allocator import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(1 << 24)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[1] == "kept":
    assert keep_freed_memory()
print(*[faults() for _ in range(30)])
"""


def pages(case: str) -> list[int]:
    """How many pages the system supplied for one tensor after another."""
    argv = [sys.executable, "-c", FAULTS, case]
    return [int(word) for word in subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the switch is glibc's")
def test_large_tensors_come_from_memory_that_is_there():
    assert min(pages("as it comes")) >= 32  # 64 MiB, in pages of at most 2 MiB
    assert max(pages("kept")[-5:]) < 32
