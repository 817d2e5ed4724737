"""Fully connected layers: a 1x1 convolution of 1x1 images, so they run on the same register tile and thread pool.

NumPy's BLAS would run them in a thread pool of its own, whose idle threads spin beside ours: a convolution
alternating with a matrix product took 2 to 7 times as long.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastconv import arguments
from fastconv.conv import ConvCache, run_forward
from fastconv.conv_2d import conv2d_backward


class LinearCache(tuple[ConvCache, tuple[int, ...]]):
    """What `linear_backward` needs of a forward call; treat it as opaque."""


def linear_forward(x: Any, w: Any, b: Any = None, *, activation: str | None = None) -> tuple[np.ndarray, LinearCache]:
    """x @ w + b with x (N, ...) flattened to (N, D), w (D, M), b (M,) or None; also returns the cache for backward.

    Raises
    ------
    ValueError : x's sizes after the first do not multiply to D, or b is not (M,).

    Examples
    --------
    >>> import numpy as np
    >>> out, cache = linear_forward(np.ones((2, 3, 4)), np.ones((12, 5)), np.zeros(5))
    >>> out[0]
    array([12., 12., 12., 12., 12.])
    """
    out, cache, x_shape = _forward(x, w, b, activation, keep=True)
    assert cache is not None
    return out, LinearCache((cache, x_shape))


def linear(x: Any, w: Any, b: Any = None, *, activation: str | None = None) -> np.ndarray:
    """x @ w + b; arguments as for `linear_forward`, without keeping a cache."""
    return _forward(x, w, b, activation, keep=False)[0]


def _forward(
    x: Any, w: Any, b: Any, activation: str | None, *, keep: bool
) -> tuple[np.ndarray, ConvCache | None, tuple[int, ...]]:
    x, w = _checked("linear", x, w, b)
    (D, M), x_shape, N = w.shape, x.shape, len(x)
    out, cache = run_forward(
        "linear", x.reshape(N, 1, 1, D), w.reshape(1, 1, D, M), b, 1, 0, 1, 1, "zeros", "NHWC", activation, "auto",
        None, keep,
    )  # fmt: skip
    return out.reshape(N, M), cache, x_shape


def _checked(function: str, x: Any, w: Any, b: Any) -> tuple[np.ndarray, np.ndarray]:
    """x and w as arrays whose shapes match; what they hold is checked by `run_forward`."""
    if type(x) is not np.ndarray:
        x = arguments.array(function, "x", x)
    if type(w) is not np.ndarray or w.ndim != 2:
        w = arguments.array(function, "w", w, 2)
    if x.ndim < 1:
        raise ValueError(f"{function}: x must have a batch axis, got shape {x.shape}")
    D, M = w.shape
    features = x.shape[1] if x.ndim == 2 else math.prod(x.shape[1:])
    if features != D:
        raise ValueError(f"{function}: x has {features} features (shape {x.shape}), expected w's rows, {D}")
    if b is not None and (b.shape if type(b) is np.ndarray else np.shape(b)) != (M,):
        raise ValueError(f"{function}: b must have shape ({M},), got {np.shape(b)}")
    return x, w


def linear_backward(
    dout: Any, cache: LinearCache, *, wrt: Any = ("x", "w", "b")
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """(dx, dw, db) for dout (N, M); those that `wrt` leaves out are None.

    Raises
    ------
    ValueError : dout has another shape than the output.
    TypeError : cache does not come from `linear_forward`.
    """
    function = "linear_backward"
    if not isinstance(cache, LinearCache):
        raise TypeError(f"{function}: cache must come from linear_forward, got {type(cache).__name__}")
    conv_cache, x_shape = cache
    N, M = expected = (x_shape[0], conv_cache.problem.F)
    if type(dout) is not np.ndarray or dout.shape != expected:
        dout = arguments.array(function, "dout", dout, 2)
        if dout.shape != expected:
            raise ValueError(f"{function}: dout must have the output's shape {expected}, got {dout.shape}")
    dx, dw, db = conv2d_backward(dout.reshape(N, 1, 1, M), conv_cache, wrt=wrt)
    return (
        None if dx is None else dx.reshape(x_shape),
        None if dw is None else dw.reshape(dw.shape[2:]),
        db,
    )
