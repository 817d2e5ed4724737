"""Memory that outlives its use: fresh pages cost up to 5 ms for 26 MB, so buffers of scratch and results are kept."""

from __future__ import annotations

import math
import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import numpy as np

INDEX = np.dtype(np.int64)  # of offset tables
_BYTE = np.dtype(np.uint8)
ALIGNMENT = 64  # one cache line, one AVX-512 register
KEEP_BYTES = 64 * 2**20  # buffers beyond this are given back to the system
# Meanwhile a network trains: what one step frees the next one needs. 500 images of CIFAR-10 and airbench's activations,
# two Zen 3 cores: 10,000 page faults and 1.79 s a step with 64 MiB, none and 1.42 s with this.
KEEP_BYTES_TRAINING = 2 * 2**30
_MOST_ARRAYS = 8  # of one pass: each is rounded up to a cache line
RECYCLED_BYTES = 64 * 1024  # a result's memory costs 3 us to recycle, and 0.3 to 0.7 us per fresh page of 4 KB


class _Memory(np.ndarray):
    """Bytes of a type of their own: NumPy looks for the base of a view no further than where types differ."""


class Buffer:
    """Memory that is lent: how much it is (asking an array takes longer), and since when it is free."""

    __slots__ = ("memory", "nbytes", "since")

    def __init__(self, nbytes: int) -> None:
        raw = np.empty(nbytes + ALIGNMENT, _BYTE)
        start = -raw.ctypes.data % ALIGNMENT
        self.memory = raw.view(_Memory)[start : start + nbytes]
        self.nbytes = nbytes
        self.since = 0


_lock = threading.Lock()
_free: dict[int, list[Buffer]] = {}  # by size, the longest unused first: calls of one form ask for the same sizes
_free_bytes = 0
_clock = 0  # buffers that ever became free
_limits: list[int] = []  # of those that keep more meanwhile
# Memory that came back. A result's last reference may go at any moment, inside a locked section too, and an append
# needs no lock.
_returned: deque[Buffer] = deque()


def _forget_after_fork() -> None:
    """A forked child starts with an empty pool: another thread of its parent may have been changing it."""
    global _lock, _free_bytes
    _lock = threading.Lock()
    _free.clear()
    _returned.clear()
    _free_bytes = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)


def _borrow(nbytes: int, most: int) -> Buffer:
    """A kept buffer of `nbytes` to `most` bytes, the latest used of its size (caches may hold it), or a new one."""
    with _lock:
        if _returned:
            _collect()
        if nbytes in _free:
            return _taken(nbytes)
        for size in _free:
            if nbytes <= size <= most:
                return _taken(size)
    return Buffer(nbytes)


def _taken(size: int, place: int = -1) -> Buffer:
    """One of the free buffers of a size; the lock is held."""
    global _free_bytes
    buffers = _free[size]
    buffer = buffers.pop(place)
    if not buffers:
        del _free[size]
    _free_bytes -= size
    return buffer


def _limit() -> int:
    return max(KEEP_BYTES, *_limits) if _limits else KEEP_BYTES


def _give_up_to(nbytes: int) -> None:
    """Give the longest unused buffers back to the system until `nbytes` are left; the lock is held."""
    while _free_bytes > nbytes:
        _taken(min(_free, key=lambda size: _free[size][0].since), 0)


@contextmanager
def keeping(nbytes: int) -> Iterator[None]:
    """Keep up to `nbytes` of unused buffers meanwhile, in all threads."""
    with _lock:
        _limits.append(nbytes)
    try:
        yield
    finally:
        with _lock:
            _limits.remove(nbytes)
            _give_up_to(_limit())


def _collect() -> None:
    """Keep what came back, within the limit; the lock is held."""
    global _free_bytes, _clock
    limit = _limit()
    while _returned:
        buffer = _returned.popleft()
        size = buffer.nbytes
        if size > limit:
            continue
        if _free_bytes > limit - size:
            _give_up_to(limit - size)
        _clock += 1
        buffer.since = _clock
        if size in _free:
            _free[size].append(buffer)
        else:
            _free[size] = [buffer]
        _free_bytes += size


def _give_back(buffer: Buffer) -> None:
    """Take memory back, at once unless the lock is held, perhaps further up in this very thread."""
    _returned.append(buffer)
    if _lock.acquire(False):
        try:
            _collect()
        finally:
            _lock.release()


def held_bytes() -> int:
    """Bytes of memory kept for the next calls."""
    with _lock:
        _collect()
    return _free_bytes


class _Lease(np.ndarray):
    """A result's memory, until the last array that shares it is gone: NumPy keeps this one as the base of all."""

    __slots__ = ("buffer",)
    buffer: Buffer

    def __del__(self, give_back: Any = _give_back) -> None:
        give_back(self.buffer)


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An uninitialised array for a result, as `np.empty` gives it; memory of a large one is used again afterwards.

    A training step of LeNet-5 with 64 images met 980 page faults in its results, 0.5 of 2.5 ms.
    """
    size = math.prod(shape) * dtype.itemsize
    if size < RECYCLED_BYTES:
        return np.empty(shape, dtype)
    buffer = _borrow(size, size + size // 8)
    lease = _Lease(buffer.nbytes, _BYTE, buffer.memory)
    lease.buffer = buffer
    return np.ndarray(shape, dtype, lease)


class Scratch:
    """The scratch arrays of one call, given back at the end of its `with` block; those taken in an inner one, after it.

    Arrays of `expected` bytes together share one buffer: borrowing one costs 4 us, cutting an array from it 0.7.

    >>> with Scratch() as scratch:
    ...     scratch.take((2, 3), np.dtype(np.float32)).shape
    (2, 3)
    """

    __slots__ = ("_buffers", "_expected", "_marks", "_room", "_used")

    def __init__(self, expected: int = 0) -> None:
        self._expected = expected + _MOST_ARRAYS * ALIGNMENT if expected else 0
        self._buffers: list[Buffer] = []  # arrays are cut from the last one
        self._used = self._room = 0  # bytes of it
        self._marks: list[tuple[int, int, int]] = []

    def __enter__(self) -> Scratch:
        self._marks.append((len(self._buffers), self._used, self._room))
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        count, self._used, self._room = self._marks.pop()
        while len(self._buffers) > count:
            _give_back(self._buffers.pop())

    def take(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An uninitialised array whose first element is aligned to a cache line."""
        size = dtype.itemsize
        for length in shape:
            size *= length
        if not size:
            return np.empty(shape, dtype)
        if size > self._room - self._used:
            least = max(size, self._expected)
            self._buffers.append(_borrow(least, 2 * least + 4096))
            self._used, self._room = 0, self._buffers[-1].nbytes
            self._expected = 0
        start = self._used
        self._used += size + -size % ALIGNMENT
        return np.ndarray(shape, dtype, self._buffers[-1].memory, start)
