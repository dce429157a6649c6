"""The format in which numpy keeps an array."""

import io

import numpy as np


def array_head(shape: tuple[int, ...], descr: str = "|u1") -> bytes:
    """What numpy writes before the values of an array, of uint8 unless said otherwise."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": descr, "fortran_order": False, "shape": shape})
    return head.getvalue()
