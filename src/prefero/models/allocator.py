"""A setting of the C allocator that large temporary tensors on the CPU profit from."""

from __future__ import annotations

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Keep freed memory in the process instead of giving it back to the system; returns whether it was set.

    By default every buffer above some megabytes is a fresh mapping, and faulting its pages in costs as much
    as the arithmetic on it: between 1 and 10 % of a training step on the CPU, by how the system sets up
    pages. The price is that memory, once used, stays with the process until it ends. Only glibc on Linux has
    the setting; call it before the first large tensor.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(M_MMAP_MAX, 0) and libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
