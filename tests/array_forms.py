"""The same numbers in every form of array that a caller may hand over."""

from __future__ import annotations

import numpy as np


def spread(array):
    """The same numbers, each three apart along every axis, in a larger array that holds NaN (or -1) elsewhere."""
    base = np.full([3 * n for n in array.shape], np.nan if array.dtype.kind == "f" else -1, array.dtype)
    view = base[tuple(slice(1, None, 3) for _ in array.shape)]
    view[...] = array
    return view


def unaligned(array):
    raw = np.zeros(array.nbytes + 1, np.uint8)
    view = raw[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def backwards(array):
    return np.ascontiguousarray(np.flip(array))[(slice(None, None, -1),) * array.ndim]


FORMS = {
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "fortran order": np.asfortranarray,
    "strided": spread,
    "negative strides": backwards,
    "read-only": read_only,
    "unaligned": unaligned,
    "list": lambda a: a.tolist(),
}
