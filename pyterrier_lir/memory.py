"""The C library's allocator on Linux, told to keep what is freed.

glibc gives freed blocks above a threshold back to the system at once, so activations of a few megabytes are mapped and
faulted in anew by every operation; half the time can go there.
"""

from __future__ import annotations

import ctypes
import platform
from functools import cache

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


@cache
def keep_freed_memory(megabytes: int = 256) -> bool:
    """Serve blocks up to `megabytes` from the heap and trim the heap only beyond that; once in a process.

    Returns:
        Whether the allocator is glibc's and took the setting.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    size = megabytes << 20
    return bool(libc.mallopt(_M_MMAP_THRESHOLD, min(size, 1 << 30)) and libc.mallopt(_M_TRIM_THRESHOLD, 2 * size))
