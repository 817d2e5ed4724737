"""Tables and sizes of a launch: mostly offsets, where the numbers of one sum lie in memory."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeVar

import numpy as np

_Geometry = TypeVar("_Geometry", bound=Any)


def offsets(*tables: np.ndarray) -> np.ndarray:
    """All sums of one entry of each table, the last table running fastest (int64, 1-D)."""
    total = np.zeros(1, np.int64)
    for table in tables:
        total = (total[:, None] + np.asarray(table, np.int64)).ravel()
    return total


@lru_cache(maxsize=1024)
def steps(stride: int, count: int) -> np.ndarray:
    """0, stride, 2 * stride and so on; the same array each time: read only."""
    return np.arange(count) * stride


def changed(geometry: _Geometry, **sizes: int) -> _Geometry:
    """A launch's sizes with some changed; the same object if none is, since making another takes 3 us."""
    for name, size in sizes.items():
        if getattr(geometry, name) != size:
            return geometry._replace(**sizes)
    return geometry


def repeated(table: np.ndarray, multiple: int) -> np.ndarray:
    """The table with its last entry repeated up to a multiple of `multiple` entries: room for whole tiles."""
    return np.pad(table, (0, -table.size % multiple), mode="edge")
