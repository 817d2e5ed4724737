"""Offset tables: where the numbers of one sum lie in memory."""

from __future__ import annotations

import numpy as np


def offsets(*tables: np.ndarray) -> np.ndarray:
    """All sums of one entry of each table, the last table running fastest (int64, 1-D)."""
    total = np.zeros(1, np.int64)
    for table in tables:
        total = (total[:, None] + np.asarray(table, np.int64)).ravel()
    return total
