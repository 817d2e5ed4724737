"""Batch normalisation in training: spatial in both layouts, and of features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv import batch_norm_backward, batch_norm_forward

from .common import Timed, normal

SHAPES = {
    "NCHW 8x64x56x56": ((8, 64, 56, 56), 64, "NCHW"),
    "NHWC 8x56x56x64": ((8, 56, 56, 64), 64, "NHWC"),
    "features 256x1024": ((256, 1024), 1024, "NCHW"),
}


def _forward(shape: str) -> Callable[[], Any]:
    sizes, channels, layout = SHAPES[shape]
    x = normal(sizes, "float32")
    gamma, beta = normal((channels,), "float32", seed=1), normal((channels,), "float32", seed=2)
    mean, variance = np.zeros(channels, np.float32), np.ones(channels, np.float32)
    return lambda: batch_norm_forward(x, gamma, beta, mean, variance, training=True, layout=layout)


class _BatchNorm(Timed):
    params = (list(SHAPES),)
    param_names = ("shape",)

    def time_batch_norm(self, shape: str) -> None:
        self.call()


class Forward(_BatchNorm):
    def prepare(self, shape: str) -> Callable[[], Any]:
        return _forward(shape)


class Backward(_BatchNorm):
    def prepare(self, shape: str) -> Callable[[], Any]:
        out, cache = _forward(shape)()
        dout = normal(out.shape, "float32", seed=3)
        return lambda: batch_norm_backward(dout, cache)
