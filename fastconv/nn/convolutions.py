"""Convolutions along one and three axes, and transposed ones: layers beside `Conv2d`, with the same arguments."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastconv import arguments, transposed
from fastconv.nn.initial import Seed
from fastconv.nn.layers import Convolution, wrt_of


class Conv1d(Convolution):
    """`Conv2d` along one axis: x (N, C, W) or (N, W, C), weight (F, C / groups, KW) or (KW, C / groups, F).

    >>> Conv1d(3, 8, 5, padding="same", rng=0)(np.ones((2, 3, 20), np.float32)).shape
    (2, 8, 20)
    """

    axes = 1

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int | tuple[int], *,
        stride: int | tuple[int] = 1, padding: Any = 0, dilation: int | tuple[int] = 1, groups: int = 1,
        padding_mode: str = "zeros", bias: bool = True, activation: str | None = None, algorithm: str = "fast",
        init: str = "he", layout: str = "NCW", dtype: str = "float32", rng: Seed = None,
    ):  # fmt: skip
        self._set_up(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, algorithm, init, layout, dtype
        )
        self._set_up_forward(padding_mode, activation, bias, rng)


class Conv3d(Convolution):
    """`Conv2d` along three axes: x (N, C, D, H, W) or (N, D, H, W, C), weight (F, C / groups, KD, KH, KW).

    With layout "NDHWC" the weight is (KD, KH, KW, C / groups, F).

    >>> Conv3d(3, 8, 3, padding=1, rng=0)(np.ones((2, 3, 4, 6, 6), np.float32)).shape
    (2, 8, 4, 6, 6)
    """

    axes = 3

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int, int], *,
        stride: int | tuple[int, int, int] = 1, padding: Any = 0, dilation: int | tuple[int, int, int] = 1,
        groups: int = 1, padding_mode: str = "zeros", bias: bool = True, activation: str | None = None,
        algorithm: str = "fast", init: str = "he", layout: str = "NCDHW", dtype: str = "float32", rng: Seed = None,
    ):  # fmt: skip
        self._set_up(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, algorithm, init, layout, dtype
        )
        self._set_up_forward(padding_mode, activation, bias, rng)


class _Transposed(Convolution):
    """What transposed convolutions share."""

    def _set_up_transposed(self, output_padding: Any, bias: bool, rng: Seed) -> None:
        name = type(self).__name__
        self.output_padding = arguments.per_axis(name, "output_padding", output_padding, self.axes, 0)
        filters, taps = self.out_channels // self.groups, math.prod(self.kernel_size)
        # An output sums the taps that the stride brings to it.
        met = max(taps // math.prod(self.stride), 1)
        shape = self._weight_shape(self.in_channels, filters)
        self._draw(shape, self.in_channels // self.groups * met, filters * taps, self.out_channels, bias, rng)

    def forward(self, x: np.ndarray, *, training: bool = False) -> np.ndarray:
        out, cache = transposed.run_forward(
            f"conv_transpose{self.axes}d_forward", self.axes, x, self.weight.value, self._bias_value(), self.stride,
            self.padding, self.output_padding, self.dilation, self.groups, self.layout, self.algorithm,
        )  # fmt: skip
        self._remember(cache, training)
        return out

    def backward(self, dout: np.ndarray, *, input_gradient: bool = True) -> np.ndarray | None:
        name = f"conv_transpose{self.axes}d"
        dx, dw, db = transposed.run_backward(
            f"{name}_backward", f"{name}_forward", self.axes, dout, self._recall(), wrt_of(input_gradient)
        )
        self._store(dw, db)
        return dx


class ConvTranspose2d(_Transposed):
    """Transposed convolution (`fastconv.conv_transpose2d`): enlarges images by the stride, as in decoders.

    The weight is (C, F / groups, KH, KW), channels-last (KH, KW, F / groups, C). Arguments and initial values are as
    for `Conv2d`; `output_padding` adds rows and columns at the end.

    >>> layer = ConvTranspose2d(8, 3, 4, stride=2, padding=1, rng=0)
    >>> layer(np.ones((2, 8, 7, 7), np.float32)).shape
    (2, 3, 14, 14)
    """

    axes = 2

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int], *,
        stride: int | tuple[int, int] = 1, padding: Any = 0, output_padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1, groups: int = 1, bias: bool = True, algorithm: str = "fast",
        init: str = "he", layout: str = "NCHW", dtype: str = "float32", rng: Seed = None,
    ):  # fmt: skip
        self._set_up(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, algorithm, init, layout, dtype
        )
        self._set_up_transposed(output_padding, bias, rng)


class ConvTranspose1d(_Transposed):
    """`ConvTranspose2d` along one axis.

    >>> ConvTranspose1d(8, 3, 4, stride=2, padding=1, rng=0)(np.ones((2, 8, 7), np.float32)).shape
    (2, 3, 14)
    """

    axes = 1

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int | tuple[int], *,
        stride: int | tuple[int] = 1, padding: Any = 0, output_padding: int | tuple[int] = 0,
        dilation: int | tuple[int] = 1, groups: int = 1, bias: bool = True, algorithm: str = "fast", init: str = "he",
        layout: str = "NCW", dtype: str = "float32", rng: Seed = None,
    ):  # fmt: skip
        self._set_up(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, algorithm, init, layout, dtype
        )
        self._set_up_transposed(output_padding, bias, rng)


class ConvTranspose3d(_Transposed):
    """`ConvTranspose2d` along three axes.

    >>> ConvTranspose3d(8, 3, 2, stride=2, rng=0)(np.ones((2, 8, 3, 4, 5), np.float32)).shape
    (2, 3, 6, 8, 10)
    """

    axes = 3

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int, int], *,
        stride: int | tuple[int, int, int] = 1, padding: Any = 0, output_padding: int | tuple[int, int, int] = 0,
        dilation: int | tuple[int, int, int] = 1, groups: int = 1, bias: bool = True, algorithm: str = "fast",
        init: str = "he", layout: str = "NCDHW", dtype: str = "float32", rng: Seed = None,
    ):  # fmt: skip
        self._set_up(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, algorithm, init, layout, dtype
        )
        self._set_up_transposed(output_padding, bias, rng)
