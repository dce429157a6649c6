"""What a process holds from malloc, which is steadier than the pages it resides in."""

import ctypes
import gc


class _MallocInfo(ctypes.Structure):
    """glibc's `struct mallinfo2`, over all arenas."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    ]


def allocated_bytes() -> int:
    """Bytes that this process has from malloc and not freed: with PYTHONMALLOC=malloc those of Python objects too.

    Garbage is collected and freed memory given back first.
    """
    libc = ctypes.CDLL(None)
    libc.mallinfo2.restype = _MallocInfo
    gc.collect()
    libc.malloc_trim(0)
    info = libc.mallinfo2()
    return info.uordblks + info.hblkhd
