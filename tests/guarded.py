"""Arrays against an unreadable page: one element too far ends the process instead of reading a neighbour's memory.

`Guard` also takes the place of every kernel's arguments: each array that reaches a kernel, scratch and tables
included, is swapped for a copy that ends at (or begins after) a guard page, and copied back afterwards.
"""

from __future__ import annotations

import ctypes
import mmap
from collections import defaultdict
from functools import cache
from itertools import pairwise
from types import ModuleType

import numpy as np

SIDES = ("end", "start")
PAGE = mmap.PAGESIZE
NO_ACCESS = 0
KEPT_BYTES = 2**20  # larger arrays are few


@cache
def _protect():
    return ctypes.CDLL(None, use_errno=True).mprotect


def _between_guards(pages: int) -> mmap.mmap:
    """Zeroed pages after an unreadable one and before another."""
    memory = mmap.mmap(-1, (pages + 2) * PAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for page in (address, address + (pages + 1) * PAGE):
        if _protect()(ctypes.c_void_p(page), ctypes.c_size_t(PAGE), NO_ACCESS) != 0:
            raise OSError(ctypes.get_errno(), "mprotect")
    return memory


def allocate(
    shape: tuple[int, ...], dtype: np.dtype, side: str, kept: dict[int, list[mmap.mmap]] | None = None
) -> np.ndarray:
    """An array whose last byte lies before an unreadable page, or whose first byte lies after one.

    It lies in memory `kept`, by pages, where there is some, and else in zeros.
    """
    dtype = np.dtype(dtype)
    nbytes = dtype.itemsize
    for length in shape:
        nbytes *= length
    pages = -(-nbytes // PAGE)
    memory = kept[pages].pop() if kept and kept.get(pages) else _between_guards(pages)
    offset = PAGE + (pages * PAGE - nbytes if side == "end" else 0)
    return np.ndarray(shape, dtype, memory, offset)


def copy(array: np.ndarray, side: str, kept: dict[int, list[mmap.mmap]] | None = None) -> np.ndarray:
    """The same numbers in C order beside a guard page; read-only if `array` is."""
    result = allocate(array.shape, array.dtype, side, kept)
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
        self._kept: dict[int, list[mmap.mmap]] = defaultdict(list)  # by pages; mapping them anew takes longer

    def wrap(self, function):
        def call(*arguments):
            if self.side is None:
                return function(*arguments)
            self.launches += 1
            arrays = {i: a for i, a in enumerate(arguments) if isinstance(a, np.ndarray)}
            keys = {i: (a.ctypes.data, a.shape, a.dtype) for i, a in arrays.items()}
            twins: dict[tuple, np.ndarray] = {}
            spans = set()
            for i, array in arrays.items():
                assert array.flags.c_contiguous, f"{function} was given an array that is not contiguous"
                if keys[i] not in twins:
                    twins[keys[i]] = copy(array, self.side, self._kept)
                if array.size:
                    spans.add((keys[i][0], keys[i][0] + array.nbytes, *keys[i][1:]))
            for (_, end, *_), (start, *_) in pairwise(sorted(spans, key=lambda span: span[:2])):
                assert end <= start, f"{function} was given overlapping arrays"
            result = function(*(twins[keys[i]] if i in keys else a for i, a in enumerate(arguments)))
            for i, array in arrays.items():
                if array.flags.writeable:
                    array[...] = twins[keys[i]]
            for twin in twins.values():
                if twin.nbytes <= KEPT_BYTES:
                    self._kept[len(twin.base) // PAGE - 2].append(twin.base)
            return result

        return call
