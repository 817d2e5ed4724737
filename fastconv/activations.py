"""Activations: each as a function, a `_forward` that returns (out, cache) and a `_backward` that takes the cache."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastconv import arguments, runtime, workspace
from fastconv._kernels import elementwise as kernels
from fastconv._kernels.gelu import GRADIENT, VALUE, gelu_function
from fastconv._kernels.gelu import gelu as gelu_kernel

GELU_FORMS = ("none", "tanh")


@dataclass(frozen=True)
class ActivationCache:
    """What a backward function needs of its forward call; treat it as opaque. Arrays are references, not copies."""

    function: str
    kept: tuple[np.ndarray, ...]  # of the dtype the work is done in, each of x's shape
    option: Any
    result_dtype: np.dtype

    def result(self, out: np.ndarray) -> np.ndarray:
        return out.astype(self.result_dtype, copy=False)


def _operand(function: str, x: Any) -> tuple[np.ndarray, np.dtype]:
    """x as a dense array of the dtype to compute in, and the dtype to return."""
    x = arguments.array(function, "x", x)
    dtype, result_dtype = arguments.dtypes(x)
    return arguments.dense(x, dtype), result_dtype


def _gradient_operand(function: str, dout: Any, cache: ActivationCache) -> np.ndarray:
    if not isinstance(cache, ActivationCache) or f"{cache.function}_backward" != function:
        forward = function.removesuffix("_backward") + "_forward"
        found = f"{cache.function}_forward's" if isinstance(cache, ActivationCache) else type(cache).__name__
        raise TypeError(f"{function}: cache must come from {forward}, got {found}")
    dout = arguments.array(function, "dout", dout)
    shape = cache.kept[0].shape
    if dout.shape != shape:
        raise ValueError(f"{function}: dout must have the output's shape {shape}, got {dout.shape}")
    return arguments.dense(dout, cache.kept[0].dtype)


def relu_forward(x: Any) -> tuple[np.ndarray, ActivationCache]:
    """(`relu(x)`, cache for `relu_backward`)."""
    x, result_dtype = _operand("relu", x)
    out = workspace.empty(x.shape, x.dtype)
    runtime.launch(kernels.relu, x.size * 8, x.reshape(-1), out.reshape(-1))
    cache = ActivationCache("relu", (out,), None, result_dtype)
    return cache.result(out), cache


def relu(x: Any) -> np.ndarray:
    """max(x, 0), elementwise; NaN stays NaN.

    >>> relu([-1.0, 0.0, 2.0])
    array([0., 0., 2.])
    """
    return relu_forward(x)[0]


def relu_backward(dout: Any, cache: ActivationCache) -> np.ndarray:
    """Gradient by x: dout where x > 0 (or NaN), 0 elsewhere.

    Raises
    ------
    ValueError : dout has another shape than the output. TypeError : cache does not come from `relu_forward`.
    """
    dout = _gradient_operand("relu_backward", dout, cache)
    dx = workspace.empty(dout.shape, dout.dtype)
    runtime.launch(kernels.relu_mask, dout.size * 8, dout.reshape(-1), cache.kept[0].reshape(-1), dx.reshape(-1))
    return cache.result(dx)


def leaky_relu_forward(x: Any, alpha: float = 0.01) -> tuple[np.ndarray, ActivationCache]:
    """(`leaky_relu(x, alpha)`, cache for `leaky_relu_backward`)."""
    x, result_dtype = _operand("leaky_relu", x)
    alpha = arguments.real("leaky_relu", "alpha", alpha)
    cache = ActivationCache("leaky_relu", (x,), alpha, result_dtype)
    return cache.result(_leak(x, x, alpha)), cache


def _leak(values: np.ndarray, x: np.ndarray, alpha: float) -> np.ndarray:
    """values where x > 0, alpha * values elsewhere."""
    with np.errstate(all="ignore"):
        out = np.asarray(values * values.dtype.type(alpha))
    np.copyto(out, values, where=x > 0)
    return out


def leaky_relu(x: Any, alpha: float = 0.01) -> np.ndarray:
    """x where x > 0, alpha * x elsewhere.

    >>> leaky_relu([-100.0, 2.0])
    array([-1.,  2.])
    """
    return leaky_relu_forward(x, alpha)[0]


def leaky_relu_backward(dout: Any, cache: ActivationCache) -> np.ndarray:
    """Gradient by x: dout where x > 0, alpha * dout elsewhere.

    Raises
    ------
    ValueError : dout has another shape than the output. TypeError : cache does not come from `leaky_relu_forward`.
    """
    dout = _gradient_operand("leaky_relu_backward", dout, cache)
    return cache.result(_leak(dout, cache.kept[0], cache.option))


def sigmoid_forward(x: Any) -> tuple[np.ndarray, ActivationCache]:
    """(`sigmoid(x)`, cache for `sigmoid_backward`)."""
    x, result_dtype = _operand("sigmoid", x)
    cache = ActivationCache("sigmoid", (_logistic(x),), None, result_dtype)
    return cache.result(cache.kept[0]), cache


def _logistic(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) as exp(x) / (1 + exp(x)) where x < 0: no exponential is above 1."""
    with np.errstate(under="ignore"):
        small = np.exp(-np.abs(x))
        out = np.where(x >= 0, x.dtype.type(1), small)
        out /= 1 + small
    return out


def sigmoid(x: Any) -> np.ndarray:
    """1 / (1 + exp(-x)), without overflow and with full relative precision for negative x.

    >>> sigmoid([-1e4, 0.0, 1e4])
    array([0. , 0.5, 1. ])
    """
    return sigmoid_forward(x)[0]


def sigmoid_backward(dout: Any, cache: ActivationCache) -> np.ndarray:
    """Gradient by x: dout * out * (1 - out).

    Raises
    ------
    ValueError : dout has another shape than the output. TypeError : cache does not come from `sigmoid_forward`.
    """
    dout = _gradient_operand("sigmoid_backward", dout, cache)
    (out,) = cache.kept
    with np.errstate(all="ignore"):
        return cache.result(dout * (out * (1 - out)))


def tanh_forward(x: Any) -> tuple[np.ndarray, ActivationCache]:
    """(`tanh(x)`, cache for `tanh_backward`)."""
    x, result_dtype = _operand("tanh", x)
    out = np.asarray(np.tanh(x))
    cache = ActivationCache("tanh", (out,), None, result_dtype)
    return cache.result(out), cache


def tanh(x: Any) -> np.ndarray:
    """Hyperbolic tangent.

    >>> tanh([0.0, 100.0])
    array([0., 1.])
    """
    return tanh_forward(x)[0]


def tanh_backward(dout: Any, cache: ActivationCache) -> np.ndarray:
    """Gradient by x: dout * (1 - out^2).

    Raises
    ------
    ValueError : dout has another shape than the output. TypeError : cache does not come from `tanh_forward`.
    """
    dout = _gradient_operand("tanh_backward", dout, cache)
    (out,) = cache.kept
    with np.errstate(all="ignore"):
        return cache.result(dout * ((1 - out) * (1 + out)))


def gelu_forward(x: Any, *, approximate: str = "none") -> tuple[np.ndarray, ActivationCache]:
    """(`gelu(x)`, cache for `gelu_backward`)."""
    x, result_dtype = _operand("gelu", x)
    arguments.choice("gelu", "approximate", approximate, GELU_FORMS)
    kept: tuple[np.ndarray, ...] = (x,)
    if approximate == "tanh":
        cdf = _logistic(np.asarray(2 * _tanh_argument(x)[0]))  # = (1 + tanh) / 2, without its cancellation
        kept = x, cdf
        with np.errstate(invalid="ignore", under="ignore"):
            out = np.asarray(x * cdf)
    else:
        out = _exact_gelu(VALUE, x, x)
    cache = ActivationCache("gelu", kept, approximate, result_dtype)
    return cache.result(out), cache


def _exact_gelu(kind: int, x: np.ndarray, dout: np.ndarray) -> np.ndarray:
    """x times the distribution function, or dout times its derivative."""
    out = workspace.empty(x.shape, x.dtype)
    function = gelu_function(kind, x.itemsize).address
    runtime.launch(gelu_kernel, x.size * 32, function, x.reshape(-1), dout.reshape(-1), out.reshape(-1))
    return out


def _tanh_argument(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """sqrt(2 / pi) * (x + 0.044715 x^3) and its derivative; clipped where x^3 might overflow."""
    x = np.clip(x, -100, 100)
    square = x * x
    factor = math.sqrt(2 / math.pi)
    return factor * x * (1 + 0.044715 * square), factor * (1 + 3 * 0.044715 * square)


def gelu(x: Any, *, approximate: str = "none") -> np.ndarray:
    """x times the probability that a standard normal number is below x.

    Parameters
    ----------
    approximate : "none" for the exact function, "tanh" for 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))).

    Source: D. Hendrycks & K. Gimpel, "Gaussian error linear units", 2016.

    >>> gelu([-1.0, 0.0, 1.0]).round(4)
    array([-0.1587,  0.    ,  0.8413])
    """
    return gelu_forward(x, approximate=approximate)[0]


def gelu_backward(dout: Any, cache: ActivationCache) -> np.ndarray:
    """Gradient by x: dout * (cdf + x * cdf'), where out = x * cdf.

    Raises
    ------
    ValueError : dout has another shape than the output. TypeError : cache does not come from `gelu_forward`.
    """
    dout = _gradient_operand("gelu_backward", dout, cache)
    if cache.option == "none":
        return cache.result(_exact_gelu(GRADIENT, cache.kept[0], dout))
    x, cdf = cache.kept
    with np.errstate(all="ignore"):
        slope = 2 * cdf * (1 - cdf) * _tanh_argument(x)[1]
        return cache.result(dout * (cdf + x * slope))


def softmax_forward(x: Any, axis: int = -1) -> tuple[np.ndarray, ActivationCache]:
    """(`softmax(x, axis)`, cache for `softmax_backward`)."""
    x, result_dtype = _operand("softmax", x)
    axis = arguments.integer("softmax", "axis", axis, -x.ndim)
    if axis >= x.ndim:
        raise ValueError(f"softmax: axis must be from {-x.ndim} to {x.ndim - 1} for shape {x.shape}, got {axis}")
    out = np.empty_like(x)
    if x.size:
        with np.errstate(invalid="ignore", under="ignore", over="ignore"):
            np.subtract(x, x.max(axis=axis, keepdims=True), out=out)
            np.exp(out, out=out)
            out /= out.sum(axis=axis, keepdims=True, dtype=np.float64).astype(x.dtype)
    cache = ActivationCache("softmax", (out,), axis, result_dtype)
    return cache.result(out), cache


def softmax(x: Any, axis: int = -1) -> np.ndarray:
    """exp(x) / sum of exp(x) along `axis`, shifted by the maximum so that nothing overflows.

    Raises
    ------
    ValueError : x has no such axis. TypeError : wrong type.

    >>> softmax([0.0, 1000.0, 1000.0])
    array([0. , 0.5, 0.5])
    """
    return softmax_forward(x, axis)[0]


def softmax_backward(dout: Any, cache: ActivationCache) -> np.ndarray:
    """Gradient by x: out * (dout - sum of dout * out along the axis).

    Raises
    ------
    ValueError : dout has another shape than the output. TypeError : cache does not come from `softmax_forward`.
    """
    dout = _gradient_operand("softmax_backward", dout, cache)
    (out,) = cache.kept
    with np.errstate(all="ignore"):
        common = (dout * out).sum(axis=cache.option, keepdims=True, dtype=np.float64).astype(out.dtype)
        return cache.result(out * (dout - common))
