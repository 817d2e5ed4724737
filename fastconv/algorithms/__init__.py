"""The registry: every convolution algorithm, in the order in which ties are broken.

An algorithm gives one pass object per direction (see `base`). The registry is also the test matrix and the benchmark
matrix: adding an algorithm means one module and one entry here.
"""

from __future__ import annotations

from fastconv.algorithms import amx, depthwise, direct, few_channels, fft, grouped, im2col, winograd
from fastconv.algorithms.base import PASSES, Algorithm

ALGORITHMS: tuple[Algorithm, ...] = (
    direct.ALGORITHM, im2col.ALGORITHM, few_channels.ALGORITHM, depthwise.ALGORITHM, grouped.ALGORITHM,
    *winograd.ALGORITHMS, fft.ALGORITHM, *amx.ALGORITHMS,
)  # fmt: skip

__all__ = ["ALGORITHMS", "PASSES", "Algorithm"]
