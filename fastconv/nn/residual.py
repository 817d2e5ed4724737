"""`Residual`: the sum of two branches that start at the same input, as one layer."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.nn.base import Layer
from fastconv.nn.stateless import Identity


class Residual(Layer):
    """body(x) + shortcut(x), by default body(x) + x (He et al. 2016, "Deep residual learning", figure 2).

    Parameters
    ----------
    body : a layer, usually a `Sequential`; its parameters are named "0...", the shortcut's "1...".
    shortcut : a layer whose output has the body's shape, such as a 1x1 `Conv2d` where the body changes the channels.

    Raises
    ------
    TypeError : an argument is no layer.
    ValueError : both are the same object; in `forward`, the branches' outputs differ in shape.

    >>> from fastconv.nn import Conv2d, ReLU, Sequential
    >>> block = Residual(Sequential(Conv2d(4, 4, 3, padding=1, rng=0), ReLU()))
    >>> block(np.ones((2, 4, 8, 8), np.float32)).shape
    (2, 4, 8, 8)
    """

    def __init__(self, body: Layer, shortcut: Layer | None = None):
        self.body = body
        self.shortcut = Identity() if shortcut is None else shortcut
        for name, layer in (("body", self.body), ("shortcut", self.shortcut)):
            if not isinstance(layer, Layer):
                raise TypeError(f"Residual: {name} must be a layer, got {type(layer).__name__}")
        if self.body is self.shortcut:
            raise ValueError(
                "Residual: body and shortcut must be two layer objects, since each keeps its own gradients"
            )
        self.set_names()

    def children(self) -> tuple[Layer, ...]:
        return self.body, self.shortcut

    def config(self) -> dict[str, Any]:
        return {"layer": "Residual", "layers": [layer.config() for layer in self.children()]}

    def __repr__(self) -> str:
        shown = (self.body,) if isinstance(self.shortcut, Identity) else self.children()
        return f"Residual({', '.join(map(repr, shown))})"

    def forward(self, x: np.ndarray, *, training: bool = False) -> np.ndarray:
        out, passed = self.body.forward(x, training=training), self.shortcut.forward(x, training=training)
        if out.shape != passed.shape:
            raise ValueError(f"Residual: body and shortcut must give one shape, got {out.shape} and {passed.shape}")
        return out + passed

    def backward(self, dout: np.ndarray, *, input_gradient: bool = True) -> np.ndarray | None:
        """The input reaches the sum on two ways, so its gradients add up: dx = body's + shortcut's."""
        through_body = self.body.backward(dout, input_gradient=input_gradient)
        passed = self.shortcut.backward(dout, input_gradient=input_gradient)
        return None if through_body is None or passed is None else through_body + passed
