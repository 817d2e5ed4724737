"""What the timing benchmarks share: inputs made once, an untimed call, and blocks of calls as samples."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv.catalogue import LAYERS

LAYER_NAMES = [case.name for case in LAYERS]
LAYOUTS = ["NCHW", "NHWC"]
DTYPES = ["float32", "float64"]
_SAMPLE_SECONDS = 0.04


def normal(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    """Normally distributed numbers, the same in every run."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def image_shape(N: int, C: int, H: int, W: int, layout: str) -> tuple[int, ...]:
    return (N, H, W, C) if layout == "NHWC" else (N, C, H, W)


class Timed:
    """A benchmark of the callable that `prepare(*params)` returns.

    asv calls `setup` before every timed call, and a calibration that contains a compiling call would settle on
    samples of one call. So the first `setup` compiles, warms up and chooses how many calls make one sample; later
    ones do nothing.
    """

    timeout = 300
    call: Callable[[], Any] | None = None
    number = 0

    def prepare(self, *params: Any) -> Callable[[], Any]:
        raise NotImplementedError

    def setup(self, *params: Any) -> None:
        if self.call is not None:
            return
        call = self.prepare(*params)
        call()
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        self.number = max(round(_SAMPLE_SECONDS / min(seconds)), 1)
        self.call = call
