"""`pad2d` in its four modes, forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastconv import pad2d_backward, pad2d_forward

from .common import LAYOUTS, Timed, image_shape, normal


class _Pad(Timed):
    params = (["constant", "reflect", "replicate", "circular"], LAYOUTS)
    param_names = ("mode", "layout")

    def time_pad(self, mode: str, layout: str) -> None:
        self.call()


class Forward(_Pad):
    def prepare(self, mode: str, layout: str) -> Callable[[], Any]:
        x = normal(image_shape(8, 64, 56, 56, layout), "float32")
        return lambda: pad2d_forward(x, 3, mode=mode, layout=layout)


class Backward(_Pad):
    def prepare(self, mode: str, layout: str) -> Callable[[], Any]:
        x = normal(image_shape(8, 64, 56, 56, layout), "float32")
        out, cache = pad2d_forward(x, 3, mode=mode, layout=layout)
        dout = normal(out.shape, "float32", seed=1)
        return lambda: pad2d_backward(dout, cache)
