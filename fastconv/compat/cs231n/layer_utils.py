"""CS231n's `layer_utils.py`: layers that are always used together, in fewer passes over memory where kernels fuse.

Convolution, linear layer and batch normalisation apply ReLU while results are in registers. A backward function returns
the gradients in the order of its forward function's arrays; `wrt`, which the course does not have, leaves out those of
x, w or b that are not needed (None then).
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

import numpy as np

from fastconv import fully_connected
from fastconv.compat.cs231n.layers import (
    EVERY,
    Gradients,
    affine_backward,
    affine_forward,
    batchnorm_backward,
    conv_backward_naive,
    conv_forward_naive,
    conv_options,
    max_pool_backward_naive,
    max_pool_forward_naive,
    normalized,
)
from fastconv.conv_2d import conv2d_forward

__all__ = [
    "affine_bn_relu_backward",
    "affine_bn_relu_forward",
    "affine_relu_backward",
    "affine_relu_forward",
    "conv_bn_relu_backward",
    "conv_bn_relu_forward",
    "conv_bn_relu_pool_backward",
    "conv_bn_relu_pool_forward",
    "conv_relu_backward",
    "conv_relu_forward",
    "conv_relu_pool_backward",
    "conv_relu_pool_forward",
]

Forward = tuple[np.ndarray, Any]
BnGradients = tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None, np.ndarray | None, np.ndarray | None]


def affine_relu_forward(x: Any, w: Any, b: Any) -> Forward:
    """affine - relu.

    >>> affine_relu_forward(np.ones((1, 2)), np.array([[1.0, -1.0], [1.0, -1.0]]), np.zeros(2))[0]
    array([[2., 0.]])
    """
    return fully_connected.linear_forward(x, w, b, activation="relu")


def affine_relu_backward(dout: Any, cache: Any, *, wrt: tuple[str, ...] = EVERY) -> Gradients:
    """(dx, dw, db)."""
    return affine_backward(dout, cache, wrt=wrt)


def affine_bn_relu_forward(
    x: Any, w: Any, b: Any, gamma: Any, beta: Any, bn_param: MutableMapping[str, Any]
) -> Forward:
    """affine - batchnorm - relu."""
    a, affine_cache = affine_forward(x, w, b)
    out, bn_cache = normalized("affine_bn_relu_forward", a, 2, gamma, beta, bn_param, "relu")
    return out, (affine_cache, bn_cache)


def affine_bn_relu_backward(dout: Any, cache: Any, *, wrt: tuple[str, ...] = EVERY) -> BnGradients:
    """(dx, dw, db, dgamma, dbeta)."""
    affine_cache, bn_cache = cache
    da, dgamma, dbeta = batchnorm_backward(dout, bn_cache)
    return *affine_backward(da, affine_cache, wrt=wrt), dgamma, dbeta


def conv_relu_forward(x: Any, w: Any, b: Any, conv_param: Mapping[str, Any]) -> Forward:
    """conv - relu."""
    return conv2d_forward(x, w, b, activation="relu", **conv_options("conv_relu_forward", conv_param))


def conv_relu_backward(dout: Any, cache: Any, *, wrt: tuple[str, ...] = EVERY) -> Gradients:
    """(dx, dw, db)."""
    return conv_backward_naive(dout, cache, wrt=wrt)


def conv_relu_pool_forward(
    x: Any, w: Any, b: Any, conv_param: Mapping[str, Any], pool_param: Mapping[str, Any]
) -> Forward:
    """conv - relu - max pool.

    >>> x, w = np.ones((1, 3, 8, 8)), np.ones((4, 3, 3, 3))
    >>> pool_param = {"pool_height": 2, "pool_width": 2, "stride": 2}
    >>> conv_relu_pool_forward(x, w, np.zeros(4), {"stride": 1, "pad": 1}, pool_param)[0].shape
    (1, 4, 4, 4)
    """
    a, conv_cache = conv_relu_forward(x, w, b, conv_param)
    out, pool_cache = max_pool_forward_naive(a, pool_param)
    return out, (conv_cache, pool_cache)


def conv_relu_pool_backward(dout: Any, cache: Any, *, wrt: tuple[str, ...] = EVERY) -> Gradients:
    """(dx, dw, db)."""
    conv_cache, pool_cache = cache
    return conv_relu_backward(max_pool_backward_naive(dout, pool_cache), conv_cache, wrt=wrt)


def conv_bn_relu_forward(
    x: Any, w: Any, b: Any, gamma: Any, beta: Any, conv_param: Mapping[str, Any], bn_param: MutableMapping[str, Any]
) -> Forward:
    """conv - spatial batchnorm - relu."""
    a, conv_cache = conv_forward_naive(x, w, b, conv_param)
    out, bn_cache = normalized("conv_bn_relu_forward", a, 4, gamma, beta, bn_param, "relu")
    return out, (conv_cache, bn_cache)


def conv_bn_relu_backward(dout: Any, cache: Any, *, wrt: tuple[str, ...] = EVERY) -> BnGradients:
    """(dx, dw, db, dgamma, dbeta)."""
    conv_cache, bn_cache = cache
    da, dgamma, dbeta = batchnorm_backward(dout, bn_cache)
    return *conv_backward_naive(da, conv_cache, wrt=wrt), dgamma, dbeta


def conv_bn_relu_pool_forward(
    x: Any, w: Any, b: Any, gamma: Any, beta: Any, conv_param: Mapping[str, Any], bn_param: MutableMapping[str, Any],
    pool_param: Mapping[str, Any],
) -> Forward:  # fmt: skip
    """conv - spatial batchnorm - relu - max pool."""
    a, cache = conv_bn_relu_forward(x, w, b, gamma, beta, conv_param, bn_param)
    out, pool_cache = max_pool_forward_naive(a, pool_param)
    return out, (cache, pool_cache)


def conv_bn_relu_pool_backward(dout: Any, cache: Any, *, wrt: tuple[str, ...] = EVERY) -> BnGradients:
    """(dx, dw, db, dgamma, dbeta)."""
    inner, pool_cache = cache
    return conv_bn_relu_backward(max_pool_backward_naive(dout, pool_cache), inner, wrt=wrt)
