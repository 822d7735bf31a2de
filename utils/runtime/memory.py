"""Keeping freed memory in the process instead of returning it to the system."""

from __future__ import annotations

import ctypes
import os
import platform

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of glibc's malloc.h
SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES")  # of the user


def keep_freed_memory() -> bool:
    """Have malloc reuse the memory of large tensors instead of returning it; returns whether this was set.

    By default glibc maps every block of more than 32 MiB anew and unmaps it when it is freed, so that in each training
    step on a CPU the kernel zeroes the pages of all activations again. With this setting the process never shrinks
    and, because of fragmentation, is somewhat larger. Only glibc has it. If the user has set one of SETTINGS in the
    environment, nothing changes.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in SETTINGS):
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(TRIM_THRESHOLD, -1) and libc.mallopt(MMAP_MAX, 0))  # never trim, never map
