"""Convolution along any number of axes: arguments -> problem -> plan -> kernel -> result, forward and backward.

The public functions are in conv1d.py, conv2d.py and conv3d.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np

from fastconv import arguments, padding, runtime, workspace
from fastconv._kernels import reduce
from fastconv._kernels.elementwise import relu_mask
from fastconv.folded import plan_of
from fastconv.settled import Settled, settle
from fastconv.volume import Problem

_NO_BIAS = {np.dtype(t): np.empty(0, t) for t in (np.float32, np.float64)}


class ConvCache(NamedTuple):
    """What `conv2d_backward` (or `conv1d_backward`, `conv3d_backward`) needs of a forward call; treat it as opaque.

    It keeps references to x, w and, for ReLU, the output (copies only where they had to be converted): changing them
    in place between forward and backward changes the gradients.
    """

    settled: Settled
    x: np.ndarray  # in the problem's shape, as w
    w: np.ndarray
    out: np.ndarray | None  # kept for ReLU only
    has_bias: bool
    pad_cache: Any

    @property
    def problem(self) -> Problem:
        return self.settled.problem


def run_forward(
    function: str, x: Any, w: Any, b: Any, stride: Any, pads: Any, dilation: Any, groups: Any, padding_mode: str,
    layout: str, activation: str | None, algorithm: str, out: Any, keep: bool,
    prepared: Callable[..., Any] | None = None, axes: int = 2,
) -> tuple[np.ndarray, ConvCache | None]:  # fmt: skip
    """A forward call; `prepared(pass, w)` gives what the pass made of the weights beforehand."""
    if type(x) is not np.ndarray:
        x = arguments.array(function, "x", x)
    if type(w) is not np.ndarray:
        w = arguments.array(function, "w", w)
    if b is not None and type(b) is not np.ndarray:
        b = arguments.array(function, "b", b)
    settled = settle(
        function, x, w, b, stride, pads, dilation, groups, padding_mode, layout, activation, algorithm, axes
    )
    problem, dtype, relu, given = settled.problem, settled.problem.dtype, settled.relu, x
    x, w = arguments.dense(x, dtype), arguments.dense(w, dtype)
    bias = _NO_BIAS[dtype] if b is None else arguments.dense(b, dtype)
    pad_cache = None
    if settled.copied_pads is not None:
        x, pad_cache = padding.pad_axes_forward(
            function, x, settled.copied_pads, settled.padding_mode, problem.channels_last
        )

    result = arguments.output_array(function, out, settled.out_shape, settled.result_dtype)
    straight = settled.result_dtype == dtype and (
        out is None
        or (out.flags.carray and not any(np.may_share_memory(out, operand) for operand in (given, x, w, bias)))
    )
    computed = result if straight else workspace.empty(settled.out_shape, dtype)
    target = computed
    if axes != 2:  # views: the problem's arrays have the same numbers in the same order
        x, w, target = x.reshape(problem.x_shape), w.reshape(problem.w_shape), computed.reshape(problem.out_shape)
    if problem.empty:
        per_filter = bias if problem.channels_last else bias.reshape(-1, *(1,) * (target.ndim - 2))
        target[...] = 0 if b is None else per_filter
        if relu:
            np.maximum(target, 0, out=target)
    else:
        work = plan_of(problem, "forward", settled.algorithm, relu=relu)
        weights = None if prepared is None else prepared(work, w)
        work.run(x, w, bias, target, *(() if weights is None else (weights,)))
    if not straight:
        result[...] = computed
    if not keep:
        return result, None
    return result, ConvCache(settled, x, w, computed if relu else None, b is not None, pad_cache)


_WRT = frozenset(names for count in range(4) for names in permutations(("x", "w", "b"), count))


def check_wrt(function: str, wrt: Any) -> tuple[str, ...]:
    """`wrt` as a tuple of "x", "w", "b"."""
    if type(wrt) is tuple and wrt in _WRT:
        return wrt
    names = (wrt,) if isinstance(wrt, str) else tuple(wrt) if isinstance(wrt, Iterable) else None
    if names is None:
        raise TypeError(f'{function}: wrt must be a sequence of "x", "w", "b", got {wrt!r}')
    for name in names:
        arguments.choice(function, "wrt", name, ("x", "w", "b"))
    return names


def run_backward(
    function: str, forward: str, axes: int, dout: Any, cache: Any, wrt: Any
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """A backward call; `forward` names the function that must have made the cache."""
    if not isinstance(cache, ConvCache):
        raise TypeError(f"{function}: cache must come from {forward}, got {type(cache).__name__}")
    settled = cache.settled
    if settled.axes != axes:
        raise TypeError(f"{function}: cache must come from {forward}, got one of conv{settled.axes}d_forward")
    wrt = check_wrt(function, wrt)
    problem, dtype, algorithm = settled.problem, settled.problem.dtype, settled.algorithm
    dout = checked_gradient(function, dout, settled.out_shape, dtype)
    dx = dw = db = None
    if cache.has_bias and "b" in wrt:
        dout, db = bias_gradient(dout, problem.channels_last, cache.out)
    elif cache.out is not None:
        masked = workspace.empty(dout.shape, dtype)
        runtime.launch(relu_mask, dout.size * 8, dout.reshape(-1), cache.out.reshape(-1), masked.reshape(-1))
        dout = masked
    if axes != 2:
        dout = dout.reshape(problem.out_shape)
    if "x" in wrt:
        dx = workspace.empty(settled.x_shape, dtype)
        if not problem.empty:
            plan_of(problem, "gradient_x", algorithm).run(dout, cache.w, _NO_BIAS[dtype], dx.reshape(problem.x_shape))
        else:
            dx[...] = 0
        if cache.pad_cache is not None:
            dx = padding.pad_axes_backward(dx, cache.pad_cache).reshape(settled.given_shape)
    if "w" in wrt:
        dw = workspace.empty(settled.w_shape, dtype)
        if not problem.empty:
            plan_of(problem, "gradient_w", algorithm).run(cache.x, dout, dw.reshape(problem.w_shape))
        else:
            dw[...] = 0
    if settled.result_dtype != dtype:
        dx, dw, db = (None if d is None else d.astype(settled.result_dtype) for d in (dx, dw, db))
    return dx, dw, db


def checked_gradient(function: str, dout: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """The gradient by the output, of the output's shape, dense and in the dtype to compute in."""
    if type(dout) is not np.ndarray or dout.dtype != dtype or dout.shape != shape:
        dout = arguments.array(function, "dout", dout, len(shape))
        if dout.shape != shape:
            raise ValueError(f"{function}: dout must have the output's shape {shape}, got {dout.shape}")
    return arguments.dense(dout, dtype)


def bias_gradient(
    dout: np.ndarray, channels_last: bool, out: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """dout, where `out` is the result of a ReLU masked by it, and its sum over images and pixels.

    The sum is accumulated in float64 blockwise.
    """
    relu = out is not None
    masked = workspace.empty(dout.shape, dout.dtype) if relu else dout
    channels = dout.shape[-1 if channels_last else 1]
    bands = max(min(math.prod(dout.shape[:-1]) // 1024, 64), 1) if channels_last else len(dout)
    partial, db = np.empty((bands, channels)), np.empty(channels, dout.dtype)
    flat = (array.reshape(-1) for array in (dout, dout if out is None else out, masked))
    runtime.launch(reduce.bias_gradient, dout.size * 8, int(channels_last), *flat, int(relu), partial, db)
    return masked, db


def channels_of(function: str, axes: int, x: Any, layout: str, options: dict[str, Any]) -> int:
    """The groups of a depthwise convolution."""
    if "groups" in options:
        raise TypeError(f"{function}: groups is always the number of channels; leave it out")
    shape = arguments.array(function, "x", x, axes + 2).shape
    channels = arguments.image_sizes(function, shape, layout, axes)[1]
    if channels < 1:
        raise ValueError(f"{function}: x must have at least one channel, got shape {np.shape(x)}")
    return channels
