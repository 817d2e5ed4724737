"""Normalisation with the statistics of one example: layer and group normalisation, in plain NumPy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastconv import arguments

LAYOUTS = ("NCHW", "NHWC", "NCW", "NWC", "NCDHW", "NDHWC")


@dataclass(frozen=True)
class NormCache:
    """What the backward functions need of a forward call; treat it as opaque."""

    function: str
    xhat: np.ndarray  # x normalised, channels first
    inv_std: np.ndarray  # of each row of numbers that share their statistics, (rows, 1)
    gamma: np.ndarray | None  # shaped to multiply xhat
    has_beta: bool
    summed: tuple[int, ...]  # axes of xhat that gamma and beta do not have
    channels_last: bool
    result_dtype: np.dtype

    def result(self, out: np.ndarray) -> np.ndarray:
        """An array like xhat in the layout and dtype to return."""
        if self.channels_last:
            out = np.ascontiguousarray(np.moveaxis(out, 1, -1))
        return out.astype(self.result_dtype, copy=False)


def _forward(
    function: str, x: np.ndarray, rows: int, eps: float, gamma: np.ndarray | None, beta: np.ndarray | None,
    summed: tuple[int, ...], channels_last: bool, result_dtype: np.dtype,
) -> tuple[np.ndarray, NormCache]:  # fmt: skip
    """(x - mean) / sqrt(var + eps) for each of `rows` equal parts of x, in two passes summed in float64; then gamma
    and beta."""
    xhat, inv_std = x.copy(), np.ones((rows, 1), x.dtype)
    with np.errstate(all="ignore"):
        if x.size:
            parts = xhat.reshape(rows, -1)
            parts -= parts.mean(axis=1, keepdims=True, dtype=np.float64)
            var = np.square(parts, dtype=np.float64).mean(axis=1, keepdims=True)
            inv_std[...] = 1 / np.sqrt(var + eps)
            parts *= inv_std
        out = xhat.copy() if gamma is None else xhat * gamma
        if beta is not None:
            out += beta
    cache = NormCache(function, xhat, inv_std, gamma, beta is not None, summed, channels_last, result_dtype)
    return cache.result(out), cache


def _backward(function: str, dout: Any, cache: NormCache) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """With g = dout * gamma and means over the numbers that share their statistics,
    dx = inv_std * (g - mean(g) - xhat * mean(g * xhat))."""
    if not isinstance(cache, NormCache) or cache.function != function:
        found = f"{cache.function}_forward's" if isinstance(cache, NormCache) else type(cache).__name__
        raise TypeError(f"{function}_backward: cache must come from {function}_forward, got {found}")
    dout = arguments.array(f"{function}_backward", "dout", dout)
    xhat, last = cache.xhat, cache.channels_last
    shape = (xhat.shape[0], *xhat.shape[2:], xhat.shape[1]) if last else xhat.shape
    if dout.shape != shape:
        raise ValueError(f"{function}_backward: dout must have the output's shape {shape}, got {dout.shape}")
    dout = arguments.dense(np.moveaxis(dout, -1, 1) if last else dout, xhat.dtype)
    dgamma = dbeta = None
    with np.errstate(all="ignore"):
        if cache.gamma is not None:
            dgamma = (dout * xhat).sum(axis=cache.summed, dtype=np.float64).astype(cache.result_dtype)
        if cache.has_beta:
            dbeta = dout.sum(axis=cache.summed, dtype=np.float64).astype(cache.result_dtype)
        dx = dout.copy() if cache.gamma is None else dout * cache.gamma
        if dx.size:
            rows = len(cache.inv_std)
            parts, standard = dx.reshape(rows, -1), xhat.reshape(rows, -1)
            mean = parts.mean(axis=1, keepdims=True, dtype=np.float64)
            slope = (parts * standard).mean(axis=1, keepdims=True, dtype=np.float64).astype(dx.dtype)
            parts -= mean
            parts -= standard * slope
            parts *= cache.inv_std
    return cache.result(dx), dgamma, dbeta


def _check_eps(function: str, eps: Any) -> float:
    eps = arguments.real(function, "eps", eps)
    if eps < 0:
        raise ValueError(f"{function}: eps must be at least 0, got {eps}")
    return eps


def layer_norm_forward(
    x: Any, gamma: Any = None, beta: Any = None, *, normalized_shape: Any = None, eps: float = 1e-5
) -> tuple[np.ndarray, NormCache]:
    """`layer_norm` that also returns what `layer_norm_backward` needs: (out, cache); arguments as for `layer_norm`."""
    function = "layer_norm"
    x = arguments.array(function, "x", x)
    optional = (("gamma", gamma), ("beta", beta))
    given = {name: arguments.array(function, name, value) for name, value in optional if value is not None}
    if normalized_shape is None:
        trailing = next((value.shape for value in given.values()), x.shape[-1:])
    else:
        sizes = (normalized_shape,) if np.ndim(normalized_shape) == 0 else tuple(normalized_shape)
        trailing = tuple(arguments.integer(function, "normalized_shape", size, 0) for size in sizes)
    for name, value in given.items():
        if value.shape != trailing:
            raise ValueError(f"{function}: {name} must have the normalized shape {trailing}, got {value.shape}")
    lead = x.ndim - len(trailing)
    if not trailing or lead < 0 or x.shape[lead:] != trailing:
        raise ValueError(f"{function}: x must end with the normalized shape {trailing}, got shape {x.shape}")
    eps = _check_eps(function, eps)
    dtype, result_dtype = arguments.dtypes(x, *given.values())
    scale, shift = (given[name].astype(dtype) if name in given else None for name in ("gamma", "beta"))
    rows, summed = math.prod(x.shape[:lead]), tuple(range(lead))
    return _forward(function, arguments.dense(x, dtype), rows, eps, scale, shift, summed, False, result_dtype)


def layer_norm(
    x: Any, gamma: Any = None, beta: Any = None, *, normalized_shape: Any = None, eps: float = 1e-5
) -> np.ndarray:
    """Layer normalisation: each example's trailing axes get mean 0 and variance 1, then gamma and beta elementwise.

    Parameters
    ----------
    x : (..., *normalized_shape).
    gamma, beta : arrays of the normalized shape, or None for 1 and 0.
    normalized_shape : int or sequence; by default gamma's or beta's shape, or x's last axis without both.

    Raises
    ------
    ValueError : shapes that do not fit, or a negative eps. TypeError : wrong type.

    Source: J. L. Ba, J. R. Kiros & G. E. Hinton, "Layer normalization", 2016.

    Examples
    --------
    >>> import numpy as np
    >>> layer_norm(np.array([[1.0, 3.0], [20.0, 10.0]])).round(3)
    array([[-1.,  1.],
           [ 1., -1.]])
    """
    return layer_norm_forward(x, gamma, beta, normalized_shape=normalized_shape, eps=eps)[0]


def layer_norm_backward(dout: Any, cache: NormCache) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Gradients by x, gamma and beta; None for a gamma or beta that was None.

    Raises
    ------
    ValueError : dout has another shape than the output. TypeError : cache does not come from `layer_norm_forward`.
    """
    return _backward("layer_norm", dout, cache)


def group_norm_forward(
    x: Any, gamma: Any, beta: Any, groups: int, *, eps: float = 1e-5, layout: str = "NCHW"
) -> tuple[np.ndarray, NormCache]:
    """`group_norm` that also returns what `group_norm_backward` needs: (out, cache). Arguments as for `group_norm`."""
    function = "group_norm"
    x = arguments.array(function, "x", x)
    arguments.choice(function, "layout", layout, LAYOUTS)
    if x.ndim not in (2, len(layout)):
        raise ValueError(
            f"{function}: x must have 2 dimensions, or {len(layout)} with layout {layout!r}, got shape {x.shape}"
        )
    groups = arguments.integer(function, "groups", groups, 1)
    last = layout.endswith("C")
    if last:
        x = np.moveaxis(x, -1, 1)
    C = x.shape[1]
    if C % groups:
        raise ValueError(f"{function}: groups must divide the channels, got {groups} for {C}")
    parameters = []
    for name, value in (("gamma", gamma), ("beta", beta)):
        parameter = None if value is None else arguments.array(function, name, value, 1)
        if parameter is not None and parameter.shape != (C,):
            rule = f"one number per channel, shape ({C},)"
            raise ValueError(f"{function}: {name} must have {rule}, got {parameter.shape}")
        parameters.append(parameter)
    eps = _check_eps(function, eps)
    dtype, result_dtype = arguments.dtypes(x, *parameters)
    column = (C,) + (1,) * (x.ndim - 2)
    scale, shift = (None if p is None else p.astype(dtype).reshape(column) for p in parameters)
    rows, summed = len(x) * groups, (0, *range(2, x.ndim))
    return _forward(function, arguments.dense(x, dtype), rows, eps, scale, shift, summed, last, result_dtype)


def group_norm(x: Any, gamma: Any, beta: Any, groups: int, *, eps: float = 1e-5, layout: str = "NCHW") -> np.ndarray:
    """Group normalisation: each example's `groups` groups of channels get mean 0 and variance 1, then gamma and beta.

    Parameters
    ----------
    x : (N, C), or (N, C, H, W), or with layout "NHWC" (N, H, W, C); "NCW", "NWC", "NCDHW" and "NDHWC" likewise.
    gamma, beta : (C,) scale and shift of each channel, or None for 1 and 0.
    groups : divides C; C groups are instance normalisation.

    Raises
    ------
    ValueError : wrong shape or value. TypeError : wrong type.

    Source: Y. Wu & K. He, "Group normalization", 2018.

    Examples
    --------
    >>> import numpy as np
    >>> group_norm(np.array([[1.0, 3.0, 20.0, 10.0]]), None, None, 2).round(3)
    array([[-1.,  1.,  1., -1.]])
    """
    return group_norm_forward(x, gamma, beta, groups, eps=eps, layout=layout)[0]


def group_norm_backward(dout: Any, cache: NormCache) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Gradients by x, gamma and beta; None for a gamma or beta that was None.

    Raises
    ------
    ValueError : dout has another shape than the output. TypeError : cache does not come from `group_norm_forward`.
    """
    return _backward("group_norm", dout, cache)
