"""Arrays against an unreadable page: one element too far ends the process instead of reading a neighbour's memory.

`Guard` also takes the place of every kernel's arguments: each array that reaches a kernel, scratch and tables
included, is swapped for a copy that ends at (or begins after) a guard page, and copied back afterwards.
"""

from __future__ import annotations

import ctypes
import mmap
from types import ModuleType

import numpy as np

SIDES = ("end", "start")
PAGE = mmap.PAGESIZE
NO_ACCESS = 0


def allocate(shape: tuple[int, ...], dtype: np.dtype, side: str) -> np.ndarray:
    """A zeroed array whose last byte lies before an unreadable page, or whose first byte lies after one."""
    dtype = np.dtype(dtype)
    nbytes = dtype.itemsize
    for length in shape:
        nbytes *= length
    inner = -(-nbytes // PAGE) * PAGE
    memory = mmap.mmap(-1, PAGE + inner + PAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    for page in (address, address + PAGE + inner):
        if protect(ctypes.c_void_p(page), ctypes.c_size_t(PAGE), NO_ACCESS) != 0:
            raise OSError(ctypes.get_errno(), "mprotect")
    offset = PAGE + (inner - nbytes if side == "end" else 0)
    return np.ndarray(shape, dtype, memory, offset)


def copy(array: np.ndarray, side: str) -> np.ndarray:
    """The same numbers in C order beside a guard page; read-only if `array` is."""
    result = allocate(array.shape, array.dtype, side)
    result[...] = array
    result.flags.writeable = array.flags.writeable
    return result


def poison(array: np.ndarray) -> np.ndarray:
    """Fill with what shows up in any result: NaN, or offsets that lead far outside."""
    if array.dtype.kind == "f":
        array.fill(np.nan)
    elif array.dtype.itemsize == 8:
        array.fill(2**45)
    return array


class PoisonedNumpy(ModuleType):
    """numpy for modules that allocate with `np.empty`: what they get is poisoned."""

    def __init__(self):
        super().__init__("numpy")

    def __getattr__(self, name: str):
        return getattr(np, name)

    @staticmethod
    def empty(*arguments, **options) -> np.ndarray:
        return poison(np.empty(*arguments, **options))

    @staticmethod
    def empty_like(*arguments, **options) -> np.ndarray:
        return poison(np.empty_like(*arguments, **options))


class Guard:
    """Wraps compiled functions; `side` says where their arrays are guarded, None leaves them alone."""

    def __init__(self):
        self.side: str | None = None
        self.launches = 0

    def wrap(self, function):
        def call(*arguments):
            if self.side is None:
                return function(*arguments)
            self.launches += 1
            arrays = [a for a in arguments if isinstance(a, np.ndarray)]
            twins: dict[tuple, np.ndarray] = {}
            for array in arrays:
                assert array.flags.c_contiguous, f"{function} was given an array that is not contiguous"
                twins.setdefault(self._key(array), copy(array, self.side))
            for i, array in enumerate(arrays):
                for other in arrays[:i]:
                    same = self._key(array) == self._key(other)
                    assert same or not np.may_share_memory(array, other), f"{function} was given overlapping arrays"
            swapped = [twins[self._key(a)] if isinstance(a, np.ndarray) else a for a in arguments]
            result = function(*swapped)
            for array in arrays:
                if array.flags.writeable:
                    array[...] = twins[self._key(array)]
            return result

        return call

    @staticmethod
    def _key(array: np.ndarray) -> tuple:
        return array.ctypes.data, array.shape, array.dtype
