"""Convolution: arguments -> problem -> plan -> kernel -> result, forward and backward.

`run_forward` and `run_backward` serve every number of axes; the public functions here are the 2-D ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np

from fastconv import arguments, padding, runtime, workspace
from fastconv._kernels.elementwise import relu_mask
from fastconv._kernels.reduce import sum_pixels, sum_planes
from fastconv.folded import plan_of
from fastconv.plan import Explanation, check_algorithm, explain
from fastconv.problem import LAYOUTS, ConvProblem
from fastconv.settled import Settled, settle
from fastconv.sizes import sizes_of
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


def conv2d(
    x: Any, w: Any, b: Any = None, *, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
    padding_mode: str = "zeros", layout: str = "NCHW", activation: str | None = None, algorithm: str = "auto",
    out: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """2-D convolution (cross-correlation, as in every deep-learning library).

    out[n, f, oh, ow] = b[f] + sum over c, kh, kw of w[f, c, kh, kw] * x[n, c, oh * stride + kh * dilation - pad, ...]

    Parameters
    ----------
    x : (N, C, H, W) array, or (N, H, W, C) with layout "NHWC". Any strides, byte order; never changed.
    w : (F, C / groups, KH, KW), or (KH, KW, C / groups, F) with layout "NHWC".
    b : (F,) or None.
    stride, dilation : int or (vertical, horizontal), at least 1.
    padding : int, (vertical, horizontal), ((top, bottom), (left, right)), "valid", "same" (TensorFlow's rule at any
        stride: ceil(H / stride) outputs, the odd cell at the end) or "same_lower" (the odd cell at the start).
    groups : filters and channels fall into this many independent groups.
    padding_mode : "zeros", "reflect", "replicate" or "circular".
    activation : None, or "relu" (applied while results are in registers).
    algorithm : "auto" (the fastest of direct-class accuracy), "fast" (also algorithms with larger rounding errors), or
        a name from `conv2d_algorithms()`.
    out : array to write into, of the result's shape and dtype.

    Returns
    -------
    (N, F, OH, OW) or (N, OH, OW, F), of the arrays' common dtype: float32 and float64 are computed as such, float16
    in float32, integers and booleans become float64. OH = (H + top + bottom - dilation * (KH - 1) - 1) // stride + 1.

    Raises
    ------
    ValueError : wrong shape or value. TypeError : wrong type. Both name the argument and show the values.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.ones((1, 1, 4, 4), np.float32)
    >>> conv2d(x, np.ones((1, 1, 3, 3), np.float32), padding=1)[0, 0]
    array([[4., 6., 6., 4.],
           [6., 9., 9., 6.],
           [6., 9., 9., 6.],
           [4., 6., 6., 4.]], dtype=float32)
    """
    return run_forward(
        "conv2d", x, w, b, stride, padding, dilation, groups, padding_mode, layout, activation, algorithm, out, False
    )[0]


def conv2d_forward(
    x: Any, w: Any, b: Any = None, *, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
    padding_mode: str = "zeros", layout: str = "NCHW", activation: str | None = None, algorithm: str = "auto",
    out: np.ndarray | None = None,
) -> tuple[np.ndarray, ConvCache]:  # fmt: skip
    """`conv2d` that also returns what `conv2d_backward` needs: (out, cache). Arguments and errors as for `conv2d`.

    Examples
    --------
    >>> import numpy as np
    >>> out, cache = conv2d_forward(np.ones((1, 2, 5, 5)), np.ones((3, 2, 3, 3)), np.zeros(3))
    >>> dx, dw, db = conv2d_backward(np.ones_like(out), cache)
    >>> dx.shape, dw.shape, db
    ((1, 2, 5, 5), (3, 2, 3, 3), array([9., 9., 9.]))
    """
    result, cache = run_forward(
        "conv2d_forward", x, w, b, stride, padding, dilation, groups, padding_mode, layout, activation, algorithm, out,
        True,
    )  # fmt: skip
    assert cache is not None
    return result, cache


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


def conv2d_backward(
    dout: Any, cache: ConvCache, *, wrt: Any = ("x", "w", "b")
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Gradients of a loss by x, w and b, given its gradient by the output of `conv2d_forward`.

    Parameters
    ----------
    dout : array of the output's shape.
    cache : from `conv2d_forward`. Gradients are computed in the accuracy class that forward was given.
    wrt : which gradients to compute; the others are None. A first layer needs no "x".

    Returns
    -------
    (dx, dw, db), each of the shape of its array and of the forward result's dtype; db is None without b.

    Raises
    ------
    ValueError : dout has another shape than the output, or wrt another name than x, w, b.
    TypeError : cache does not come from `conv2d_forward`.
    """
    return run_backward("conv2d_backward", "conv2d_forward", 2, dout, cache, wrt)


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
    if cache.out is not None:
        masked = workspace.empty(dout.shape, dtype)
        runtime.launch(relu_mask, dout.size * 8, dout.reshape(-1), cache.out.reshape(-1), masked.reshape(-1))
        dout = masked
    if axes != 2:
        dout = dout.reshape(problem.out_shape)
    dx = dw = db = None
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
    if "b" in wrt and cache.has_bias:
        db = bias_gradient(dout, problem.channels_last)
    if settled.result_dtype != dtype:
        dx, dw, db = (None if d is None else d.astype(settled.result_dtype) for d in (dx, dw, db))
    return dx, dw, db


def checked_gradient(function: str, dout: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """The gradient by the output, of the output's shape, dense and in the dtype to compute in."""
    dout = arguments.array(function, "dout", dout, len(shape))
    if dout.shape != shape:
        raise ValueError(f"{function}: dout must have the output's shape {shape}, got {dout.shape}")
    return arguments.dense(dout, dtype)


def bias_gradient(dout: np.ndarray, channels_last: bool) -> np.ndarray:
    """Sum over images and pixels, accumulated in float64 blockwise."""
    if channels_last:
        F = dout.shape[-1]
        pixels = math.prod(dout.shape[:-1])
        sums = np.empty((max(min(pixels // 1024, 64), 1), F))
        runtime.launch(sum_pixels, dout.size * 8, dout.reshape(pixels, F), sums)
    else:
        sums = np.empty(dout.shape[:2])
        runtime.launch(sum_planes, dout.size * 8, dout.reshape(sums.size, math.prod(dout.shape[2:])), sums.reshape(-1))
    return sums.sum(axis=0).astype(dout.dtype)


def depthwise_conv2d(x: Any, w: Any, b: Any = None, *, layout: str = "NCHW", **options: Any) -> np.ndarray:
    """`conv2d` with one group per channel of x: w is (C * multiplier, 1, KH, KW), or (KH, KW, 1, C * multiplier).

    Takes the options of `conv2d` except `groups`.

    Examples
    --------
    >>> import numpy as np
    >>> depthwise_conv2d(np.ones((1, 8, 6, 6)), np.ones((8, 1, 3, 3))).shape
    (1, 8, 4, 4)
    """
    return conv2d(x, w, b, layout=layout, groups=channels_of("depthwise_conv2d", 2, x, layout, options), **options)


def depthwise_conv2d_forward(
    x: Any, w: Any, b: Any = None, *, layout: str = "NCHW", **options: Any
) -> tuple[np.ndarray, ConvCache]:
    """`conv2d_forward` with one group per channel of x; see `depthwise_conv2d`."""
    groups = channels_of("depthwise_conv2d_forward", 2, x, layout, options)
    return conv2d_forward(x, w, b, layout=layout, groups=groups, **options)


def depthwise_conv2d_backward(
    dout: Any, cache: ConvCache, *, wrt: Any = ("x", "w", "b")
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Gradients of `depthwise_conv2d_forward`; the same as `conv2d_backward`."""
    return conv2d_backward(dout, cache, wrt=wrt)


def channels_of(function: str, axes: int, x: Any, layout: str, options: dict[str, Any]) -> int:
    """The groups of a depthwise convolution."""
    if "groups" in options:
        raise TypeError(f"{function}: groups is always the number of channels; leave it out")
    shape = arguments.array(function, "x", x, axes + 2).shape
    channels = arguments.image_sizes(function, shape, layout, axes)[1]
    if channels < 1:
        raise ValueError(f"{function}: x must have at least one channel, got shape {np.shape(x)}")
    return channels


def explain_conv2d(
    x_shape: tuple[int, ...], w_shape: tuple[int, ...], *, dtype: Any = np.float32, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1, layout: str = "NCHW", algorithm: str = "auto",
    max_workspace: int | None = None,
) -> Explanation:  # fmt: skip
    """Say which algorithm would run each pass and why, the others' predictions, FLOPs and workspace bytes.

    `max_workspace` is a bound in bytes to suppose instead of the setting (`fastconv.runtime.set_max_workspace`).

    Returns an `Explanation`: print it, or read its fields `chosen`, `predictions`, `flops`, `workspace`.

    Examples
    --------
    >>> explain_conv2d((8, 64, 56, 56), (64, 64, 3, 3), padding=1).flops
    1849688064
    """
    function = "explain_conv2d"
    arguments.choice(function, "layout", layout, LAYOUTS)
    check_algorithm(function, algorithm)
    x_shape = arguments.shape(function, "x_shape", x_shape, 4)
    w_shape = arguments.shape(function, "w_shape", w_shape, 4)
    if max_workspace is not None:
        max_workspace = arguments.integer(function, "max_workspace", max_workspace, 0)
    try:
        example = np.empty(0, dtype)
    except TypeError:
        raise TypeError(f"{function}: dtype must be a NumPy dtype, got {dtype!r}") from None
    compute = arguments.dtypes(arguments.array(function, "dtype", example))[0]
    problem = sizes_of(function, x_shape, w_shape, stride, padding, dilation, groups, layout).problem(compute)
    assert isinstance(problem, ConvProblem)
    return explain(problem, algorithm, max_workspace)
