"""Layers that are no convolution, forward and backward: linear, activations, normalisation of examples, dropout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import fastconv

from .common import Timed, normal

PLANES, ROWS = (8, 64, 56, 56), (64, 1024)
SCALE = tuple(normal((64,), "float32", seed=seed) for seed in (1, 2))
WIDE_SCALE = tuple(normal((1024,), "float32", seed=seed) for seed in (1, 2))

# name -> (function, shape of x, the other arguments, options)
LAYERS: dict[str, tuple[str, tuple[int, ...], tuple[Any, ...], dict[str, Any]]] = {
    "linear 64x1024x1024": ("linear", ROWS, (normal((1024, 1024), "float32", seed=3), WIDE_SCALE[1]), {}),
    "linear 1x4096x1000": ("linear", (1, 4096), (normal((4096, 1000), "float32", seed=3),), {}),
    "linear 64x400x10 relu": ("linear", (64, 400), (normal((400, 10), "float32", seed=3),), {"activation": "relu"}),
    **{name: (name, PLANES, (), {}) for name in ("relu", "leaky_relu", "sigmoid", "tanh", "gelu")},
    "softmax": ("softmax", ROWS, (), {}),
    "layer_norm": ("layer_norm", ROWS, WIDE_SCALE, {}),
    "group_norm": ("group_norm", PLANES, (*SCALE, 8), {}),
    "dropout": ("dropout", PLANES, (0.5,), {"training": True, "rng": np.random.default_rng(4)}),
}


class _Layer(Timed):
    params = (list(LAYERS),)
    param_names = ("layer",)

    def forward(self, layer: str) -> tuple[str, Callable[[], Any]]:
        name, x_shape, arguments, options = LAYERS[layer]
        x, function = normal(x_shape, "float32"), getattr(fastconv, f"{name}_forward")
        return name, lambda: function(x, *arguments, **options)

    def time_layer(self, layer: str) -> None:
        self.call()


class Forward(_Layer):
    def prepare(self, layer: str) -> Callable[[], Any]:
        return self.forward(layer)[1]


class Backward(_Layer):
    def prepare(self, layer: str) -> Callable[[], Any]:
        name, forward = self.forward(layer)
        out, cache = forward()
        backward, dout = getattr(fastconv, f"{name}_backward"), normal(out.shape, "float32", seed=5)
        return lambda: backward(dout, cache)
