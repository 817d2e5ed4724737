"""What the timing benchmarks share: inputs made once, an untimed call, and blocks of calls as samples."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv.catalogue import LAYERS, Case

# Beside the catalogue's layers, those that other kernels than a full 3x3 convolution's serve.
MORE_LAYERS = (
    Case("depthwise 128 3x3 56", 8, 128, 56, 56, 128, 3, 3, 1, 1, 1, 128),
    Case("depthwise 512 3x3 14", 8, 512, 14, 14, 512, 3, 3, 1, 1, 1, 512),
    Case("resnext 256 3x3 g32 28", 8, 256, 28, 28, 256, 3, 3, 1, 1, 1, 32),
    Case("resnet 128 3x3 s2 56", 8, 128, 56, 56, 128, 3, 3, 2, 1),
    Case("dilated 64 3x3 d2 56", 4, 64, 56, 56, 64, 3, 3, 1, 2, 2),
    Case("photograph 31x31", 1, 3, 256, 256, 4, 31, 31, 1, 15),
    Case("inception 192 1x7 17", 8, 192, 17, 17, 192, 1, 7, 1, (0, 3)),
    Case("wavenet 32-64 1x2 d16", 4, 32, 1, 16016, 64, 1, 2, 1, 0, (1, 16)),
)
CASES = {case.name: case for case in (*LAYERS, *MORE_LAYERS)}
LAYER_NAMES = list(CASES)
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
