"""The three passes of `conv2d` on the catalogue's layers: chosen by "auto", and by each algorithm of the registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastconv import conv2d, conv2d_algorithms, conv2d_backward, conv2d_forward, explain_conv2d

from .common import CASES, DTYPES, LAYER_NAMES, LAYOUTS, Timed, normal


class _Pass(Timed):
    wrt: str | None = None  # the gradient to time; None is the forward pass

    def prepare_layer(self, layer: str, layout: str, dtype: str, algorithm: str) -> Callable[[], Any]:
        case = CASES[layer]
        x = normal(case.x_shape(layout), dtype)
        w = normal(case.w_shape(layout), dtype, seed=1)
        b = normal((case.F,), dtype, seed=2)
        options = {"layout": layout, "algorithm": algorithm, **case.options}
        if self.wrt is None:
            return lambda: conv2d(x, w, b, **options)
        out, cache = conv2d_forward(x, w, b, **options)
        dout = normal(out.shape, dtype, seed=3)
        return lambda: conv2d_backward(dout, cache, wrt=self.wrt)


class _Auto(_Pass):
    params = (LAYER_NAMES, LAYOUTS, DTYPES)
    param_names = ("layer", "layout", "dtype")

    def prepare(self, layer: str, layout: str, dtype: str) -> Callable[[], Any]:
        return self.prepare_layer(layer, layout, dtype, "auto")

    def time_auto(self, layer: str, layout: str, dtype: str) -> None:
        self.call()


class Forward(_Auto):
    wrt = None


class GradientX(_Auto):
    wrt = "x"


class GradientW(_Auto):
    wrt = "w"


class _Named(_Pass):
    """A pass by every algorithm of the registry, float32 channels-first; asv prints n/a where one declines."""

    params = (LAYER_NAMES, conv2d_algorithms())
    param_names = ("layer", "algorithm")

    def prepare(self, layer: str, algorithm: str) -> Callable[[], Any]:
        case = CASES[layer]
        direction = "forward" if self.wrt is None else f"gradient_{self.wrt}"
        offers = explain_conv2d(case.x_shape(), case.w_shape(), **case.options).predictions
        for needed in ("forward", direction):  # a named algorithm that declines a gradient would leave it to another
            offer = offers[needed].get(algorithm, "not in this version")
            if isinstance(offer, str):
                raise NotImplementedError(offer)  # asv's way to skip a combination
        return self.prepare_layer(layer, "NCHW", "float32", algorithm)

    def time_named(self, layer: str, algorithm: str) -> None:
        self.call()


class ForwardBy(_Named):
    wrt = None


class GradientXBy(_Named):
    wrt = "x"


class GradientWBy(_Named):
    wrt = "w"
