"""The layers with parameters: thin objects that own arrays and call the functional layer (`fastconv.conv`, ...).

Images are (N, C, H, W), or (N, H, W, C) with `layout="NHWC"`; features are (N, D).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastconv import arguments, conv, fully_connected, normalization, settled
from fastconv.nn.base import DTYPES, LAYOUTS, Buffer, Layer, Parameter
from fastconv.nn.initial import INITIALIZERS, Seed


class Weighted(Layer):
    """What convolutions and `Linear` share: a drawn weight, a zero bias or none."""

    weight: Parameter
    bias: Parameter | None
    init: str
    dtype: str

    def _draw(self, shape: tuple[int, ...], fan_in: int, fan_out: int, outputs: int, bias: bool, rng: Seed) -> None:
        name = type(self).__name__
        arguments.choice(name, "init", self.init, tuple(INITIALIZERS))
        weight = INITIALIZERS[self.init](np.random.default_rng(rng), shape, fan_in, fan_out)
        self.weight = Parameter(weight.astype(self.dtype))
        self.bias = Parameter(np.zeros(outputs, self.dtype)) if bias else None
        self.set_names()

    def _bias_value(self) -> np.ndarray | None:
        return None if self.bias is None else self.bias.value

    def _store(self, dw: np.ndarray | None, db: np.ndarray | None) -> None:
        self.weight.grad = dw
        if self.bias is not None:
            self.bias.grad = db

    def config(self) -> dict[str, Any]:
        return {**super().config(), "bias": self.bias is not None}


def dtype_name(layer: str, dtype: Any) -> str:
    return arguments.choice(layer, "dtype", np.dtype(dtype).name, DTYPES)


def wrt_of(input_gradient: bool) -> tuple[str, ...]:
    return ("x", "w", "b") if input_gradient else ("w", "b")


class Convolution(Weighted):
    """What convolutions along any number of axes share; see `Conv2d` for the arguments."""

    axes: int
    layout: str

    def _set_up(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any, padding: Any, dilation: Any,
        groups: int, algorithm: str, init: str, layout: str, dtype: str,
    ) -> None:  # fmt: skip
        name, axes = type(self).__name__, self.axes
        self.in_channels = arguments.integer(name, "in_channels", in_channels, 1)
        self.out_channels = arguments.integer(name, "out_channels", out_channels, 1)
        self.kernel_size = arguments.per_axis(name, "kernel_size", kernel_size, axes, 1)
        self.stride = arguments.per_axis(name, "stride", stride, axes, 1)
        self.padding = arguments.pads_per_axis(name, padding, axes)
        self.dilation = arguments.per_axis(name, "dilation", dilation, axes, 1)
        self.groups = arguments.integer(name, "groups", groups, 1)
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ValueError(
                f"{name}: groups must divide in_channels and out_channels, "
                f"got {self.groups}, {self.in_channels} and {self.out_channels}"
            )
        self.algorithm = algorithm
        self.init = init
        self.layout = arguments.choice(name, "layout", layout, arguments.LAYOUTS[axes])
        self.dtype = dtype_name(name, dtype)

    def _weight_shape(self, outer: int, inner: int) -> tuple[int, ...]:
        last = self.layout == arguments.LAYOUTS[self.axes][1]
        return (*self.kernel_size, inner, outer) if last else (outer, inner, *self.kernel_size)

    def _set_up_forward(self, padding_mode: str, activation: str | None, bias: bool, rng: Seed) -> None:
        """What `Conv1d`, `Conv2d` and `Conv3d` share beyond the others."""
        name = type(self).__name__
        self.padding_mode = arguments.choice(name, "padding_mode", padding_mode, settled.PADDING_MODES)
        self.activation = arguments.choice(name, "activation", activation, settled.ACTIVATIONS)
        channels, taps = self.in_channels // self.groups, math.prod(self.kernel_size)
        shape = self._weight_shape(self.out_channels, channels)
        self._draw(shape, channels * taps, self.out_channels // self.groups * taps, self.out_channels, bias, rng)

    def forward(self, x: np.ndarray, *, training: bool = False) -> np.ndarray:
        function = f"conv{self.axes}d_forward"
        out, cache = conv.run_forward(
            function, x, self.weight.value, self._bias_value(), self.stride, self.padding, self.dilation, self.groups,
            self.padding_mode, self.layout, self.activation, self.algorithm, None, True, axes=self.axes,
        )  # fmt: skip
        self._remember(cache, training)
        return out

    def backward(self, dout: np.ndarray, *, input_gradient: bool = True) -> np.ndarray | None:
        function, forward = f"conv{self.axes}d_backward", f"conv{self.axes}d_forward"
        dx, dw, db = conv.run_backward(function, forward, self.axes, dout, self._recall(), wrt_of(input_gradient))
        self._store(dw, db)
        return dx


class Conv2d(Convolution):
    """Convolution with weight (F, C / groups, KH, KW), channels-last (KH, KW, C / groups, F), and bias (F,).

    Weights are drawn from `rng` (a seed or generator) by `init` ("he" or "xavier" uniform); the bias starts at zero.
    `activation="relu"` is applied in the same pass. `algorithm="fast"` admits the algorithms whose rounding error
    training does not notice (see `fastconv.conv2d`).

    Raises
    ------
    ValueError, TypeError : an argument breaks its rule (groups must divide both channel counts).

    >>> layer = Conv2d(3, 8, 3, padding=1, activation="relu", rng=0)
    >>> layer(np.ones((2, 3, 6, 6), np.float32)).shape
    (2, 8, 6, 6)
    """

    axes = 2

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int], *,
        stride: int | tuple[int, int] = 1, padding: Any = 0, dilation: int | tuple[int, int] = 1, groups: int = 1,
        padding_mode: str = "zeros", bias: bool = True, activation: str | None = None, algorithm: str = "fast",
        init: str = "he", layout: str = "NCHW", dtype: str = "float32", rng: Seed = None,
    ):  # fmt: skip
        self._set_up(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, algorithm, init, layout, dtype
        )
        self._set_up_forward(padding_mode, activation, bias, rng)


class Linear(Weighted):
    """x (N, ...) flattened to (N, in_features), times weight (in_features, out_features), plus bias (out_features,).

    Initial values and `activation` are as for `Conv2d`.

    >>> Linear(12, 5, rng=0)(np.ones((2, 3, 2, 2), np.float32)).shape
    (2, 5)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        activation: str | None = None,
        init: str = "he",
        dtype: str = "float32",
        rng: Seed = None,
    ):
        self.in_features = arguments.integer("Linear", "in_features", in_features, 1)
        self.out_features = arguments.integer("Linear", "out_features", out_features, 1)
        self.activation = arguments.choice("Linear", "activation", activation, settled.ACTIVATIONS)
        self.init = init
        self.dtype = dtype_name("Linear", dtype)
        shape = (self.in_features, self.out_features)
        self._draw(shape, self.in_features, self.out_features, self.out_features, bias, rng)

    def forward(self, x: np.ndarray, *, training: bool = False) -> np.ndarray:
        out, cache = fully_connected.linear_forward(
            x, self.weight.value, self._bias_value(), activation=self.activation
        )
        self._remember(cache, training)
        return out

    def backward(self, dout: np.ndarray, *, input_gradient: bool = True) -> np.ndarray | None:
        dx, dw, db = fully_connected.linear_backward(dout, self._recall(), wrt=wrt_of(input_gradient))
        self._store(dw, db)
        return dx


class BatchNorm(Layer):
    """Batch normalisation of features (N, D) or, per channel, of images, with learned scale gamma and shift beta.

    Inference uses running statistics: `running = momentum * running + (1 - momentum) * batch`. `activation="relu"` is
    applied in the same pass.

    >>> out = BatchNorm(2).forward(np.array([[1, 5], [3, 9]], np.float32), training=True)
    >>> out.round(3).tolist()
    [[-1.0, -1.0], [1.0, 1.0]]
    """

    def __init__(
        self,
        features: int,
        *,
        momentum: float = 0.9,
        eps: float = 1e-5,
        layout: str = "NCHW",
        activation: str | None = None,
        dtype: str = "float32",
    ):
        self.features = arguments.integer("BatchNorm", "features", features, 1)
        self.momentum = arguments.real("BatchNorm", "momentum", momentum)
        self.eps = arguments.real("BatchNorm", "eps", eps)
        self.layout = arguments.choice("BatchNorm", "layout", layout, LAYOUTS)
        self.activation = arguments.choice("BatchNorm", "activation", activation, settled.ACTIVATIONS)
        self.dtype = dtype_name("BatchNorm", dtype)
        self.gamma = Parameter(np.ones(self.features, self.dtype))
        self.beta = Parameter(np.zeros(self.features, self.dtype))
        self.running_mean = Buffer(np.zeros(self.features, self.dtype))
        self.running_var = Buffer(np.ones(self.features, self.dtype))
        self.set_names()

    def forward(self, x: np.ndarray, *, training: bool = False) -> np.ndarray:
        out, cache = normalization.batch_norm_forward(
            x,
            self.gamma.value,
            self.beta.value,
            self.running_mean.value,
            self.running_var.value,
            training=training,
            momentum=self.momentum,
            eps=self.eps,
            layout=self.layout,
            activation=self.activation,
        )
        self._remember(cache, training)
        return out

    def backward(self, dout: np.ndarray, *, input_gradient: bool = True) -> np.ndarray | None:
        dx, self.gamma.grad, self.beta.grad = normalization.batch_norm_backward(dout, self._recall())
        return dx if input_gradient else None
