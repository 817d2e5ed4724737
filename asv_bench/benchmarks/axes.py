"""Convolution along one and three axes, and transposed: forward, and the gradients of x and w together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fastconv

from .common import Timed, normal

# name -> (function, shape of x, shape of w, options)
CONVOLUTIONS: dict[str, tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "1-D 64x9": ("conv1d", (8, 64, 4000), (64, 64, 9), {"padding": 4}),
    "1-D NWC dilated": ("conv1d", (8, 4000, 64), (3, 64, 64), {"dilation": 8, "layout": "NWC"}),
    "1-D depthwise 9": ("depthwise_conv1d", (8, 128, 4000), (128, 1, 9), {"padding": 4}),
    "3-D 3x3x3": ("conv3d", (1, 32, 16, 28, 28), (32, 32, 3, 3, 3), {"padding": 1}),
    "3-D depthwise 3x3x3": ("depthwise_conv3d", (1, 64, 16, 28, 28), (64, 1, 3, 3, 3), {"padding": 1}),
    "transposed 4x4 s2": ("conv_transpose2d", (8, 64, 28, 28), (64, 32, 4, 4), {"stride": 2, "padding": 1}),
    "transposed NHWC 2x2 s2": ("conv_transpose2d", (8, 28, 28, 64), (2, 2, 32, 64), {"stride": 2, "layout": "NHWC"}),
}


class _Convolution(Timed):
    params = (list(CONVOLUTIONS),)
    param_names = ("convolution",)

    def forward(self, convolution: str) -> tuple[str, Callable[[], Any]]:
        name, x_shape, w_shape, options = CONVOLUTIONS[convolution]
        x, w = normal(x_shape, "float32"), normal(w_shape, "float32", seed=1)
        function = getattr(fastconv, f"{name}_forward")
        return name, lambda: function(x, w, **options)

    def time_convolution(self, convolution: str) -> None:
        self.call()


class Forward(_Convolution):
    def prepare(self, convolution: str) -> Callable[[], Any]:
        return self.forward(convolution)[1]


class Backward(_Convolution):
    def prepare(self, convolution: str) -> Callable[[], Any]:
        name, forward = self.forward(convolution)
        out, cache = forward()
        backward, dout = getattr(fastconv, f"{name}_backward"), normal(out.shape, "float32", seed=2)
        return lambda: backward(dout, cache, wrt=("x", "w"))
