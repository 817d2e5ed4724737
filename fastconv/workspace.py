"""Scratch memory that outlives a call: fresh pages cost up to 5 ms for 26 MB, so buffers are kept and reused."""

from __future__ import annotations

import os
import threading
from types import TracebackType

import numpy as np

ALIGNMENT = 64  # one cache line, one AVX-512 register
KEEP_BYTES = 64 * 2**20  # buffers beyond this are given back to the system

_lock = threading.Lock()
_free: list[np.ndarray] = []  # longest unused first
_free_bytes = 0


def _forget_after_fork() -> None:
    """A forked child starts with an empty pool: another thread of its parent may have been changing it."""
    global _lock, _free_bytes
    _lock = threading.Lock()
    _free.clear()
    _free_bytes = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)


def _borrow(nbytes: int) -> np.ndarray:
    global _free_bytes
    with _lock:
        for i, buffer in enumerate(_free):
            if nbytes <= buffer.nbytes <= 2 * nbytes + 4096:
                _free_bytes -= buffer.nbytes
                return _free.pop(i)
    raw = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + nbytes]


def _give_back(buffers: list[np.ndarray]) -> None:
    global _free_bytes
    with _lock:
        for buffer in buffers:
            if buffer.nbytes > KEEP_BYTES:
                continue
            while _free_bytes + buffer.nbytes > KEEP_BYTES:
                _free_bytes -= _free.pop(0).nbytes
            _free.append(buffer)
            _free_bytes += buffer.nbytes


def held_bytes() -> int:
    """Bytes of scratch memory kept for the next calls."""
    return _free_bytes


class Scratch:
    """The scratch arrays of one call: a context manager that gives them all back at its end.

    >>> with Scratch() as scratch:
    ...     scratch.take((2, 3), np.dtype(np.float32)).shape
    (2, 3)
    """

    def __init__(self) -> None:
        self._buffers: list[np.ndarray] = []

    def __enter__(self) -> Scratch:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        _give_back(self._buffers)

    def take(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An uninitialised array whose first element is aligned to a cache line."""
        size = dtype.itemsize
        for length in shape:
            size *= length
        buffer = _borrow(max(size, ALIGNMENT))
        self._buffers.append(buffer)
        return buffer[:size].view(dtype).reshape(shape)
