"""The functions of deeplearning.ai's "Convolutional Neural Networks", week 1, "Step by Step", over the fast kernels.

Names, arguments, `hparameters` and caches are the assignment's: images (m, n_H, n_W, n_C), filters (f, f, n_C_prev,
n_C), biases (1, 1, 1, n_C), a cache of plain tuples. `hparameters["stride"]` and `["pad"]` also take everything that
`fastconv.conv2d` takes, such as a pair or "same". Results have the arrays' own dtype: float32 stays float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastconv import arguments
from fastconv.conv import ConvCache
from fastconv.conv_2d import conv2d, conv2d_backward
from fastconv.padding import pad2d
from fastconv.pooling import (
    avg_pool2d,
    avg_pool2d_backward,
    avg_pool2d_forward,
    max_pool2d,
    max_pool2d_backward,
    max_pool2d_forward,
)
from fastconv.settled import settle

MODES = ("max", "average")
ConvolutionCache = tuple[np.ndarray, np.ndarray, np.ndarray, Mapping[str, Any]]  # A_prev, W, b, hparameters
PoolingCache = tuple[np.ndarray, Mapping[str, Any]]  # A_prev, hparameters


def zero_pad(X: Any, pad: Any) -> np.ndarray:
    """X (m, n_H, n_W, n_C) with `pad` zeros on each side of its height and width.

    >>> zero_pad(np.ones((4, 3, 3, 2)), 2).shape
    (4, 7, 7, 2)
    """
    return pad2d(X, pad, layout="NHWC")


def conv_single_step(a_slice_prev: Any, W: Any, b: Any) -> np.floating:
    """One number of a convolution: sum of a_slice_prev * W (each (f, f, n_C_prev)) plus the one number in b.

    >>> float(conv_single_step(np.ones((2, 2, 3)), np.full((2, 2, 3), 0.5), np.ones((1, 1, 1))))
    7.0
    """
    bias = np.asarray(b)
    if bias.size != 1:
        raise ValueError(f"conv_single_step: b must hold one number, got shape {bias.shape}")
    return np.sum(np.multiply(a_slice_prev, W)) + bias.reshape(-1)[0]


def conv_forward(A_prev: Any, W: Any, b: Any, hparameters: Mapping[str, Any]) -> tuple[np.ndarray, ConvolutionCache]:
    """The convolution of images with filters.

    Parameters
    ----------
    A_prev : (m, n_H_prev, n_W_prev, n_C_prev).
    W : (f, f, n_C_prev, n_C).
    b : (1, 1, 1, n_C).
    hparameters : with "stride" and "pad".

    Returns
    -------
    Z : (m, n_H, n_W, n_C), n_H = (n_H_prev - f + 2 * pad) // stride + 1, n_W likewise.
    cache : (A_prev, W, b, hparameters) for `conv_backward`.

    Raises
    ------
    ValueError, TypeError : shapes do not fit or `hparameters` lacks a key.

    >>> Z, cache = conv_forward(np.ones((1, 4, 4, 3)), np.ones((2, 2, 3, 8)), np.zeros((1, 1, 1, 8)),
    ...                         {"stride": 2, "pad": 1})
    >>> Z.shape, Z[0, :, :, 0].tolist()
    ((1, 3, 3, 8), [[3.0, 6.0, 3.0], [6.0, 12.0, 6.0], [3.0, 6.0, 3.0]])
    """
    stride, pad = _hyperparameters("conv_forward", hparameters, "stride", "pad")
    Z = conv2d(A_prev, W, np.reshape(b, -1), stride=stride, padding=pad, layout="NHWC")
    return Z, (A_prev, W, b, hparameters)


def conv_backward(dZ: Any, cache: ConvolutionCache) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients (dA_prev, dW, db) of a cost, each of its array's shape, given its gradient by Z.

    Unlike the assignment's slice `[pad:-pad]`, "pad" may be 0.

    >>> Z, cache = conv_forward(np.ones((1, 3, 3, 1)), np.ones((2, 2, 1, 1)), np.zeros((1, 1, 1, 1)),
    ...                         {"stride": 1, "pad": 0})
    >>> dA_prev, dW, db = conv_backward(np.ones_like(Z), cache)
    >>> dA_prev[0, :, :, 0].tolist(), db.tolist()
    ([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]], [[[[4.0]]]])
    """
    function = "conv_backward"
    A_prev, W, b, hparameters = cache
    stride, pad = _hyperparameters(function, hparameters, "stride", "pad")
    x, w = arguments.array(function, "A_prev", A_prev, 4), arguments.array(function, "W", W, 4)
    bias = arguments.array(function, "b", b)
    # The tuple holds no plan, and making one again is a look-up: nothing of the forward pass is computed twice.
    settled = settle(function, x, w, bias.reshape(-1), stride, pad, 1, 1, "zeros", "NHWC", None, "auto")
    dtype = settled.problem.dtype
    kept = ConvCache(settled, arguments.dense(x, dtype), arguments.dense(w, dtype), None, True, None)
    dA_prev, dW, db = conv2d_backward(dZ, kept)
    assert dA_prev is not None and dW is not None and db is not None
    return dA_prev, dW, db.reshape(bias.shape)


def pool_forward(A_prev: Any, hparameters: Mapping[str, Any], mode: str = "max") -> tuple[np.ndarray, PoolingCache]:
    """The maximum or the average of each window of A_prev (m, n_H_prev, n_W_prev, n_C).

    Parameters
    ----------
    hparameters : with "f", the window's size, and "stride"; there is no padding, "pad" is not read.
    mode : "max" or "average".

    Returns
    -------
    A : (m, n_H, n_W, n_C), n_H = (n_H_prev - f) // stride + 1, n_W likewise.
    cache : (A_prev, hparameters) for `pool_backward`.

    Raises
    ------
    ValueError, TypeError : another mode, a window larger than the image, or `hparameters` lacks a key.

    >>> A, cache = pool_forward(np.arange(16.0).reshape(1, 4, 4, 1), {"f": 2, "stride": 2})
    >>> A[0, :, :, 0].tolist()
    [[5.0, 7.0], [13.0, 15.0]]
    """
    arguments.choice("pool_forward", "mode", mode, MODES)
    f, stride = _hyperparameters("pool_forward", hparameters, "f", "stride")
    pool = max_pool2d if mode == "max" else avg_pool2d
    return pool(A_prev, f, stride=stride, layout="NHWC"), (A_prev, hparameters)


def pool_backward(dA: Any, cache: PoolingCache, mode: str = "max") -> np.ndarray:
    """dA_prev, the gradient of a cost by the pooling's input, given its gradient by the output.

    As with `create_mask_from_window`, each of several equal maxima of a window gets the whole gradient.

    >>> A, cache = pool_forward(np.array([[1.0, 3.0], [3.0, 2.0]]).reshape(1, 2, 2, 1), {"f": 2, "stride": 2})
    >>> pool_backward(np.ones_like(A), cache)[0, :, :, 0].tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    >>> pool_backward(np.ones_like(A), cache, mode="average")[0, :, :, 0].tolist()
    [[0.25, 0.25], [0.25, 0.25]]
    """
    arguments.choice("pool_backward", "mode", mode, MODES)
    A_prev, hparameters = cache
    f, stride = _hyperparameters("pool_backward", hparameters, "f", "stride")
    if mode == "max":
        return max_pool2d_backward(dA, max_pool2d_forward(A_prev, f, stride=stride, layout="NHWC", ties="all")[1])
    return avg_pool2d_backward(dA, avg_pool2d_forward(A_prev, f, stride=stride, layout="NHWC")[1])


def create_mask_from_window(x: Any) -> np.ndarray:
    """True where x has its largest value, False elsewhere.

    >>> create_mask_from_window(np.array([[1, 3], [4, 2]])).tolist()
    [[False, False], [True, False]]
    """
    return np.equal(x, np.max(x))


def distribute_value(dz: float, shape: tuple[int, int]) -> np.ndarray:
    """An array of that shape whose equal numbers add up to dz.

    >>> distribute_value(2, (2, 2)).tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """
    n_H, n_W = shape
    return np.full(shape, dz / (n_H * n_W))


def _hyperparameters(function: str, hparameters: Any, *names: str) -> list[Any]:
    if not isinstance(hparameters, Mapping):
        raise TypeError(f"{function}: hparameters must be a dictionary, got {type(hparameters).__name__}")
    missing = [name for name in names if name not in hparameters]
    if missing:
        raise ValueError(f"{function}: hparameters must have {', '.join(names)}, got {dict(hparameters)}")
    return [hparameters[name] for name in names]
