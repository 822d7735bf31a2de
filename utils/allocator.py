"""How the process holds on to memory that tensors have left."""

from __future__ import annotations

import ctypes
import platform

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of glibc's malloc.h
NEVER, NONE = -1, 0


def keep_freed_memory() -> bool:
    """Reuse the memory of large tensors in place of handing it back; returns whether that could be arranged.

    By default glibc maps every block of more than 32 MiB anew and gives it back when it is freed: each step of training
    on a CPU then has all its activations cleared by the kernel, page after page, before it may write them. With this
    the process stays as large as it has ever been. Only glibc has the switch; elsewhere nothing changes.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(TRIM_THRESHOLD, NEVER) and libc.mallopt(MMAP_MAX, NONE))
