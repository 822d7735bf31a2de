"""How the process holds on to memory that tensors have left."""

from __future__ import annotations

import ctypes
import os
import platform

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of glibc's malloc.h
SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES")  # of the user


def keep_freed_memory() -> bool:
    """Reuse the memory of large tensors in place of handing it back; returns whether that could be arranged.

    By default glibc maps every block of more than 32 MiB anew and gives it back when it is freed: each step of training
    on a CPU then has all its activations cleared by the kernel, page after page, before it may write them. With this
    the process never becomes smaller, and as blocks of different sizes leave gaps, somewhat larger than before. Only
    glibc has the switch. Whoever sets one of SETTINGS in the environment has decided otherwise, and nothing changes.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in SETTINGS):
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(TRIM_THRESHOLD, -1) and libc.mallopt(MMAP_MAX, 0))  # never trim, never map
