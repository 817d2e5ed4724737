"""Pooling, forward and backward, on the planes that follow the first layers of common networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fastconv

from .common import LAYOUTS, Timed, image_shape, normal

# name -> (function, N, C, H, W, window or output size, options)
POOLS: dict[str, tuple[str, int, int, int, int, int, dict[str, Any]]] = {
    "max 2x2 lenet": ("max_pool2d", 64, 6, 28, 28, 2, {}),
    "max 2x2": ("max_pool2d", 8, 64, 112, 112, 2, {}),
    "max 3x3 s2 resnet": ("max_pool2d", 8, 64, 112, 112, 3, {"stride": 2, "padding": 1}),
    "avg 2x2": ("avg_pool2d", 8, 64, 112, 112, 2, {}),
    "avg 3x3 s1": ("avg_pool2d", 8, 64, 56, 56, 3, {"stride": 1, "padding": 1}),
    "avg 7x7 whole plane": ("avg_pool2d", 8, 512, 7, 7, 7, {}),
    "max 3x3 s2 dilated": ("max_pool2d", 8, 64, 56, 56, 3, {"stride": 2, "padding": 2, "dilation": 2}),
    "lp 2x2": ("lp_pool2d", 8, 64, 56, 56, 2, {}),
    "adaptive max to 5x5": ("adaptive_max_pool2d", 8, 64, 56, 56, 5, {}),
    "adaptive avg to 7x7": ("adaptive_avg_pool2d", 8, 64, 56, 56, 7, {}),
}


class _Pool(Timed):
    params = (list(POOLS), LAYOUTS)
    param_names = ("pool", "layout")

    def forward(self, pool: str, layout: str) -> tuple[str, Callable[[], Any]]:
        name, N, C, H, W, size, options = POOLS[pool]
        x = normal(image_shape(N, C, H, W, layout), "float32")
        function = getattr(fastconv, f"{name}_forward")
        return name, lambda: function(x, size, layout=layout, **options)

    def time_pool(self, pool: str, layout: str) -> None:
        self.call()


class Forward(_Pool):
    def prepare(self, pool: str, layout: str) -> Callable[[], Any]:
        return self.forward(pool, layout)[1]


class Backward(_Pool):
    def prepare(self, pool: str, layout: str) -> Callable[[], Any]:
        name, forward = self.forward(pool, layout)
        out, cache = forward()
        backward, dout = getattr(fastconv, f"{name}_backward"), normal(out.shape, "float32", seed=1)
        return lambda: backward(dout, cache)
