"""The layers without parameters: pooling, activations, constants, dropout and flattening."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastconv import activations, arguments, pooling, regularization
from fastconv.nn.base import LAYOUTS, Layer
from fastconv.nn.initial import Seed


class _Plain(Layer):
    """A layer that is one pair of functions: forward gives (out, cache), backward takes the cache back."""

    def _apply(self, x: np.ndarray) -> tuple[np.ndarray, Any]:
        raise NotImplementedError

    def _gradient(self, dout: np.ndarray, cache: Any) -> np.ndarray:
        raise NotImplementedError

    def forward(self, x: np.ndarray, *, training: bool = False) -> np.ndarray:
        out, cache = self._apply(x)
        self._remember(cache, training)
        return out

    def backward(self, dout: np.ndarray, *, input_gradient: bool = True) -> np.ndarray | None:
        cache = self._recall()
        return self._gradient(dout, cache) if input_gradient else None


class _Pool2d(_Plain):
    """The arguments that the poolings share; `stride=None` means the window's size."""

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        *,
        stride: int | tuple[int, int] | None = None,
        padding: Any = 0,
        dilation: int | tuple[int, int] = 1,
        ceil_mode: bool = False,
        layout: str = "NCHW",
    ):
        name = type(self).__name__
        self.kernel_size = arguments.pair(name, "kernel_size", kernel_size, 1)
        self.stride = None if stride is None else arguments.pair(name, "stride", stride, 1)
        self.padding = arguments.pads(name, padding)
        self.dilation = arguments.pair(name, "dilation", dilation, 1)
        self.ceil_mode = bool(ceil_mode)
        self.layout = arguments.choice(name, "layout", layout, LAYOUTS)

    def _options(self) -> dict[str, Any]:
        names = ("stride", "padding", "dilation", "ceil_mode", "layout")
        return {name: getattr(self, name) for name in names}


class MaxPool2d(_Pool2d):
    """The largest value of each window; its gradient goes to the first of equal values.

    >>> MaxPool2d(2)(np.arange(16.0).reshape(1, 1, 4, 4)).ravel().tolist()
    [5.0, 7.0, 13.0, 15.0]
    """

    def _apply(self, x: np.ndarray) -> tuple[np.ndarray, Any]:
        return pooling.max_pool2d_forward(x, self.kernel_size, **self._options())

    def _gradient(self, dout: np.ndarray, cache: Any) -> np.ndarray:
        return pooling.max_pool2d_backward(dout, cache)


class AvgPool2d(_Pool2d):
    """The mean of each window, zeros of the padding included.

    >>> AvgPool2d(2)(np.arange(16.0).reshape(1, 1, 4, 4)).ravel().tolist()
    [2.5, 4.5, 10.5, 12.5]
    """

    def _apply(self, x: np.ndarray) -> tuple[np.ndarray, Any]:
        return pooling.avg_pool2d_forward(x, self.kernel_size, **self._options())

    def _gradient(self, dout: np.ndarray, cache: Any) -> np.ndarray:
        return pooling.avg_pool2d_backward(dout, cache)


class _GlobalPool2d(_Plain):
    """One window per plane: (N, C, H, W) -> (N, C, 1, 1), channels-last (N, H, W, C) -> (N, 1, 1, C)."""

    def __init__(self, *, layout: str = "NCHW"):
        self.layout = arguments.choice(type(self).__name__, "layout", layout, LAYOUTS)


class GlobalAvgPool2d(_GlobalPool2d):
    """The mean of each plane.

    >>> GlobalAvgPool2d()(np.arange(8.0).reshape(1, 2, 2, 2)).ravel().tolist()
    [1.5, 5.5]
    """

    def _apply(self, x: np.ndarray) -> tuple[np.ndarray, Any]:
        return pooling.global_avg_pool2d_forward(x, layout=self.layout)

    def _gradient(self, dout: np.ndarray, cache: Any) -> np.ndarray:
        return pooling.global_avg_pool2d_backward(dout, cache)


class GlobalMaxPool2d(_GlobalPool2d):
    """The largest value of each plane; its gradient goes to the first of equal values.

    >>> GlobalMaxPool2d()(np.arange(8.0).reshape(1, 2, 2, 2)).ravel().tolist()
    [3.0, 7.0]
    """

    def _apply(self, x: np.ndarray) -> tuple[np.ndarray, Any]:
        return pooling.global_max_pool2d_forward(x, layout=self.layout)

    def _gradient(self, dout: np.ndarray, cache: Any) -> np.ndarray:
        return pooling.global_max_pool2d_backward(dout, cache)


class _Elementwise(_Plain):
    """A function without arguments, of each value or (softmax) of each row."""

    _pair: tuple[Callable[[np.ndarray], tuple[np.ndarray, Any]], Callable[[np.ndarray, Any], np.ndarray]]

    def _apply(self, x: np.ndarray) -> tuple[np.ndarray, Any]:
        return self._pair[0](x)

    def _gradient(self, dout: np.ndarray, cache: Any) -> np.ndarray:
        return self._pair[1](dout, cache)


class ReLU(_Elementwise):
    """max(x, 0)."""

    _pair = (activations.relu_forward, activations.relu_backward)


class Sigmoid(_Elementwise):
    """1 / (1 + exp(-x))."""

    _pair = (activations.sigmoid_forward, activations.sigmoid_backward)


class Tanh(_Elementwise):
    """tanh(x)."""

    _pair = (activations.tanh_forward, activations.tanh_backward)


class Softmax(_Elementwise):
    """exp(x) / sum of exp(x) along the last axis: scores (N, classes) as probabilities, for `CrossEntropy`.

    >>> Softmax()(np.zeros((1, 4))).tolist()
    [[0.25, 0.25, 0.25, 0.25]]
    """

    _pair = (activations.softmax_forward, activations.softmax_backward)


class LeakyReLU(_Plain):
    """x where x > 0, alpha * x elsewhere."""

    def __init__(self, alpha: float = 0.01):
        self.alpha = arguments.real("LeakyReLU", "alpha", alpha)

    def _apply(self, x: np.ndarray) -> tuple[np.ndarray, Any]:
        return activations.leaky_relu_forward(x, self.alpha)

    def _gradient(self, dout: np.ndarray, cache: Any) -> np.ndarray:
        return activations.leaky_relu_backward(dout, cache)


class GELU(_Plain):
    """x times the probability that a standard normal number is below x; `approximate` as for `fastconv.gelu`."""

    def __init__(self, *, approximate: str = "none"):
        self.approximate = arguments.choice("GELU", "approximate", approximate, activations.GELU_FORMS)

    def _apply(self, x: np.ndarray) -> tuple[np.ndarray, Any]:
        return activations.gelu_forward(x, approximate=self.approximate)

    def _gradient(self, dout: np.ndarray, cache: Any) -> np.ndarray:
        return activations.gelu_backward(dout, cache)


class Identity(_Plain):
    """x itself: the shortcut of a `Residual` whose body keeps the shape."""

    def _apply(self, x: np.ndarray) -> tuple[np.ndarray, Any]:
        return x, None

    def _gradient(self, dout: np.ndarray, cache: Any) -> np.ndarray:
        return dout


class Multiply(_Plain):
    """x times a constant, such as the 1/8 or 1/9 that keeps a classifier's first scores small.

    >>> Multiply(0.5)(np.array([2.0, 3.0])).tolist()
    [1.0, 1.5]
    """

    def __init__(self, factor: float):
        self.factor = arguments.real("Multiply", "factor", factor)

    def _apply(self, x: np.ndarray) -> tuple[np.ndarray, Any]:
        return x * x.dtype.type(self.factor), None

    def _gradient(self, dout: np.ndarray, cache: Any) -> np.ndarray:
        return dout * dout.dtype.type(self.factor)


class Normalize(_Plain):
    """(x - mean) / std per channel: the first layer of a network that takes images from 0 to 1 as they are.

    Parameters
    ----------
    mean, std : one number per channel, such as `x_train.mean(axis=(0, 2, 3))`.

    Raises
    ------
    ValueError, TypeError : other lengths, or a std that is not above 0.

    >>> Normalize([0.5], [0.25])(np.array([[[[0.5, 1.0]]]])).ravel().tolist()
    [0.0, 2.0]
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], *, layout: str = "NCHW"):
        self.mean = [arguments.real("Normalize", "mean", value) for value in mean]
        self.std = [arguments.real("Normalize", "std", value) for value in std]
        if not self.mean or len(self.mean) != len(self.std) or min(self.std) <= 0:
            raise ValueError(
                f"Normalize: mean and std must have one number per channel, std above 0, got {self.mean}, {self.std}"
            )
        self.layout = arguments.choice("Normalize", "layout", layout, LAYOUTS)

    def _scale(self, dtype: np.dtype) -> np.ndarray:
        return self._by_channel(1 / np.array(self.std), dtype)

    def _by_channel(self, values: np.ndarray, dtype: np.dtype) -> np.ndarray:
        return values.astype(dtype).reshape(-1, *(1, 1) if self.layout == "NCHW" else ())

    def _apply(self, x: np.ndarray) -> tuple[np.ndarray, Any]:
        channels = x.shape[1 if self.layout == "NCHW" else -1]
        if x.ndim != 4 or channels != len(self.mean):
            raise ValueError(f"Normalize: x must be images of {len(self.mean)} channels, got shape {x.shape}")
        out = x - self._by_channel(np.array(self.mean), x.dtype)
        out *= self._scale(x.dtype)
        return out, None

    def _gradient(self, dout: np.ndarray, cache: Any) -> np.ndarray:
        return dout * self._scale(dout.dtype)


class Flatten(_Plain):
    """(N, ...) as (N, D), in memory order."""

    def _apply(self, x: np.ndarray) -> tuple[np.ndarray, Any]:
        return x.reshape(len(x), math.prod(x.shape[1:])), x.shape

    def _gradient(self, dout: np.ndarray, cache: Any) -> np.ndarray:
        return dout.reshape(cache)


class Dropout(Layer):
    """In training, zero each value with probability p and scale the others by 1 / (1 - p); otherwise nothing.

    Masks come from `rng` (a seed or generator); a `Trainer` replaces it by its own generator.

    Raises
    ------
    ValueError, TypeError : p is no number from 0 to below 1.
    """

    def __init__(self, p: float, *, rng: Seed = None):
        self.p = arguments.real("Dropout", "p", p)
        if not 0 <= self.p < 1:
            raise ValueError(f"Dropout: p must be at least 0 and below 1, got {p}")
        self._rng = np.random.default_rng(rng)

    def seed(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def forward(self, x: np.ndarray, *, training: bool = False) -> np.ndarray:
        if not training:
            self.forget()
            return x
        out, cache = regularization.dropout_forward(x, self.p, training=True, rng=self._rng)
        self._remember(cache, training)
        return out

    def backward(self, dout: np.ndarray, *, input_gradient: bool = True) -> np.ndarray | None:
        cache = self._recall()
        return regularization.dropout_backward(dout, cache) if input_gradient else None
