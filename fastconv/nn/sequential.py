"""`Sequential`: layers one after another, as one layer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastconv import arguments
from fastconv.nn.base import Layer


class Sequential(Layer):
    """Layers applied in order. Names of parameters start with the layer's position: "0.weight".

    Parameters
    ----------
    layers : each layer object at most once.
    input_shape : one input's shape, such as (1, 28, 28), where known: `summary` and `fastconv predict` read it.

    Raises
    ------
    TypeError, ValueError : an argument is no layer; a layer comes twice.

    >>> from fastconv.nn import Linear, ReLU
    >>> model = Sequential(Linear(4, 8, rng=0), ReLU(), Linear(8, 3, rng=1))
    >>> [parameter.name for parameter in model.parameters()]
    ['0.weight', '0.bias', '2.weight', '2.bias']
    >>> model.predict(np.ones((5, 4))).shape
    (5, 3)
    """

    def __init__(self, *layers: Layer, input_shape: tuple[int, ...] | None = None):
        for index, layer in enumerate(layers):
            if not isinstance(layer, Layer):
                raise TypeError(f"Sequential: argument {index} must be a layer, got {type(layer).__name__}")
        if len({id(layer) for layer in layers}) != len(layers):
            raise ValueError("Sequential: each layer object may come once, since it keeps its own gradients")
        self.layers = layers
        self.input_shape = (
            None
            if input_shape is None
            else tuple(arguments.integer("Sequential", "input_shape", size, 1) for size in input_shape)
        )
        self.set_names()

    @property
    def dtype(self) -> np.dtype:
        """The parameters' dtype (float32 without parameters): what `predict` and `Trainer` convert inputs to."""
        return next((parameter.value.dtype for parameter in self.parameters()), np.dtype(np.float32))

    @property
    def layout(self) -> str:
        """The axes of the images that the first layer with a layout takes, "NCHW" without such a layer."""
        return next((vars(layer)["layout"] for layer in self.all_layers() if "layout" in vars(layer)), "NCHW")

    def children(self) -> tuple[Layer, ...]:
        return self.layers

    def config(self) -> dict[str, Any]:
        layers = [layer.config() for layer in self.layers]
        return {"layer": type(self).__name__, "layers": layers, "input_shape": self.input_shape}

    def __repr__(self) -> str:
        return f"Sequential({', '.join(map(repr, self.layers))})"

    def forward(self, x: np.ndarray, *, training: bool = False) -> np.ndarray:
        for layer in self.layers:
            x = layer.forward(x, training=training)
        return x

    def backward(self, dout: np.ndarray, *, input_gradient: bool = True) -> np.ndarray | None:
        """As for every layer; without `input_gradient` it ends at the first layer that has parameters."""
        first = 0
        if not input_gradient:
            trained = (i for i, layer in enumerate(self.layers) if any(True for _ in layer.parameters()))
            first = next(trained, len(self.layers))
        gradient: np.ndarray | None = dout
        for index in reversed(range(first, len(self.layers))):
            assert gradient is not None
            gradient = self.layers[index].backward(gradient, input_gradient=input_gradient or index > first)
        for layer in self.layers[:first]:
            layer.forget()
        return gradient if input_gradient else None

    def predict(self, x: np.ndarray, *, batch_size: int = 256, mirror: bool = False, shift: int = 0) -> np.ndarray:
        """The outputs (N, ...) for inputs x (N, ...), computed in batches without training.

        Parameters
        ----------
        mirror : average the outputs of each image and of its mirror image, left and right exchanged.
        shift : average over three views, each mirrored too with `mirror`: the image, with half of the weight, and
            the image moved by so many pixels up and left, and down and right, a quarter each; mirrored pixels move in
            (K. Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024, section 3.5).

        Raises
        ------
        ValueError, TypeError : `batch_size` is below 1, or `shift` below 0; x is no array of numbers, or with `mirror`
            or `shift` no images.
        """
        function = "Sequential.predict"
        x = arguments.array(function, "x", x, 4 if mirror or shift else None)
        batch_size = arguments.integer(function, "batch_size", batch_size, 1)
        shift = arguments.integer(function, "shift", shift, 0)
        parts = []
        for start in range(0, max(len(x), 1), batch_size):
            batch = np.asarray(x[start : start + batch_size], self.dtype)
            out = self._averaged(batch, mirror)
            if shift:
                moved = [self._averaged(view, mirror) for view in _moved(batch, shift, self.layout)]
                out = out / 2 + sum(moved) / 4
            parts.append(out)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _averaged(self, x: np.ndarray, mirrored: bool) -> np.ndarray:
        out = self.forward(x)
        return (out + self.forward(mirror(x, self.layout))) / 2 if mirrored else out

    def summary(self, input_shape: tuple[int, ...] | None = None) -> str:
        """A table of layers, output shapes and numbers of parameters, found by running one input of zeros.

        Raises
        ------
        ValueError : neither here nor in the constructor was an input shape given.
        """
        shape = self.input_shape if input_shape is None else tuple(input_shape)
        if shape is None:
            raise ValueError("Sequential.summary: input_shape must be given, the model does not know it")
        rows = [("layer", "output shape", "parameters"), *self._rows(np.zeros((1, *shape), self.dtype))]
        total = sum(parameter.value.size for parameter in self.parameters())
        rows.append(("total", "", f"{total:,}"))
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [f"{row[0]:{widths[0]}}  {row[1]:{widths[1]}}  {row[2]:>{widths[2]}}".rstrip() for row in rows]
        rule = "-" * (sum(widths) + 4)
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])

    def _rows(self, x: np.ndarray) -> Iterator[tuple[str, str, str]]:
        for index, layer in enumerate(self.layers):
            x = layer.forward(x)
            count = sum(math.prod(parameter.value.shape) for parameter in layer.parameters())
            shape = " x ".join(map(str, x.shape[1:])) or "scalar"
            yield f"{index}  {layer!r}", shape, f"{count:,}" if count else ""


def mirror(images: np.ndarray, layout: str) -> np.ndarray:
    """Images (N, C, H, W) or (N, H, W, C) with left and right exchanged."""
    return np.flip(images, 3 if layout == "NCHW" else 2)


def _moved(images: np.ndarray, pixels: int, layout: str) -> Iterator[np.ndarray]:
    """The images moved up and left, and down and right."""
    axes = (2, 3) if layout == "NCHW" else (1, 2)
    padded = np.pad(images, [(pixels, pixels) if axis in axes else (0, 0) for axis in range(4)], mode="reflect")
    for start in (2 * pixels, 0):
        inside = [slice(None)] * 4
        for axis in axes:
            inside[axis] = slice(start, start + images.shape[axis])
        yield padded[tuple(inside)]
