"""Transposed convolution: the gradient of x of a convolution, as an operation of its own.

A convolution of `out` with the same weights, stride, padding and dilation gives an array of x's shape, and its gradient
of x is linear in the gradient by that array: with x in its place, that is `out`. So forward runs the convolution's
gradient of x, backward its forward pass (on dout, for dx) and its gradient of w (of x = dout, by x).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from fastconv import arguments, runtime, workspace
from fastconv._kernels.elementwise import add_per_column, add_per_row
from fastconv.arguments import Pair, times
from fastconv.conv import bias_gradient, check_wrt, checked_gradient
from fastconv.folded import plan_of
from fastconv.plan import check_algorithm
from fastconv.settled import FORMS_KEPT
from fastconv.sizes import Sizes, axis_of, filter_sizes
from fastconv.volume import Problem

_NO_BIAS = {np.dtype(t): np.empty(0, t) for t in (np.float32, np.float64)}


class Transposed(NamedTuple):
    """A transposed convolution without its arrays: the convolution that it transposes, and the caller's shapes."""

    problem: Problem
    algorithm: str
    result_dtype: np.dtype
    x_shape: tuple[int, ...]
    filled_shape: tuple[int, ...]  # of x, with zeros where output_padding reaches a further step of the stride
    w_shape: tuple[int, ...]
    out_shape: tuple[int, ...]

    @property
    def axes(self) -> int:
        return len(self.x_shape) - 2


class TransposedCache(NamedTuple):
    """What the backward function needs of a forward call; treat it as opaque.

    It refers to x and w: changing them in place between forward and backward changes the gradients.
    """

    settled: Transposed
    x: np.ndarray
    w: np.ndarray
    has_bias: bool


def run_forward(
    function: str, axes: int, x: Any, w: Any, b: Any, stride: Any, padding: Any, output_padding: Any, dilation: Any,
    groups: Any, layout: str, algorithm: str,
) -> tuple[np.ndarray, TransposedCache]:  # fmt: skip
    """A forward call along so many axes."""
    x, w = arguments.array(function, "x", x, axes + 2), arguments.array(function, "w", w, axes + 2)
    b = None if b is None else arguments.array(function, "b", b, 1)
    # In these forms equal arguments mean the same: True and 1.0 would be found under the key of 1.
    settled = _settled(
        function, x.shape, x.dtype, w.shape, w.dtype, None if b is None else b.dtype,
        arguments.per_axis(function, "stride", stride, axes, 1),
        arguments.pads_per_axis(function, padding, axes),
        arguments.per_axis(function, "output_padding", output_padding, axes, 0),
        arguments.per_axis(function, "dilation", dilation, axes, 1),
        arguments.integer(function, "groups", groups, 1),
        arguments.choice(function, "layout", layout, arguments.LAYOUTS[axes]),
        check_algorithm(function, algorithm),
    )  # fmt: skip
    problem, dtype = settled.problem, settled.problem.dtype
    filters = settled.out_shape[-1 if problem.channels_last else 1]
    if b is not None and b.shape != (filters,):
        raise ValueError(f"{function}: b must have one number per filter, shape ({filters},), got {b.shape}")
    x, w = arguments.dense(x, dtype), arguments.dense(w, dtype)
    if settled.filled_shape != settled.x_shape:
        x, given = np.zeros(settled.filled_shape, dtype), x
        x[tuple(map(slice, given.shape))] = given
    x, w = x.reshape(problem.out_shape), w.reshape(problem.w_shape)
    out = workspace.empty(settled.out_shape, dtype)
    if problem.empty:
        out[...] = 0
    else:
        plan_of(problem, "gradient_x", settled.algorithm).run(x, w, _NO_BIAS[dtype], out.reshape(problem.x_shape))
    if b is not None and out.size:
        kernel, rows = (add_per_column, -1) if problem.channels_last else (add_per_row, len(out) * filters)
        table = out.reshape(rows, filters if problem.channels_last else -1)
        runtime.launch(kernel, out.size * 8, table, arguments.dense(b, dtype))
    cache = TransposedCache(settled, x, w, b is not None)
    return out.astype(settled.result_dtype, copy=False), cache


@lru_cache(maxsize=FORMS_KEPT)
def _settled(
    function: str, x_shape: tuple[int, ...], x_dtype: np.dtype, w_shape: tuple[int, ...], w_dtype: np.dtype,
    b_dtype: np.dtype | None, stride: tuple[int, ...], pads: tuple[Pair, ...] | str, output_padding: tuple[int, ...],
    dilation: tuple[int, ...], groups: int, layout: str, algorithm: str,
) -> Transposed:  # fmt: skip
    N, C, size, last = arguments.image_sizes(function, x_shape, layout, len(x_shape) - 2)
    kernel, filters, channels = filter_sizes(function, w_shape, last)
    if channels != C:
        raise ValueError(f"{function}: w has {channels} input channels, expected x's, {C}")
    if C % groups:
        raise ValueError(f"{function}: groups must divide the channels, got {groups} for {C}")
    if min(size) < 1:
        raise ValueError(f"{function}: x must have at least one cell along each axis, got shape {x_shape}")
    for extra, step, gap in zip(output_padding, stride, dilation, strict=True):
        if extra >= max(step, gap):
            raise ValueError(
                f"{function}: output_padding must be smaller than stride or dilation, got {times(output_padding)} for "
                f"stride {times(stride)} and dilation {times(dilation)}"
            )
    if isinstance(pads, str):
        if any(output_padding):
            raise ValueError(f"{function}: output_padding must be 0 with padding {pads!r}, got {times(output_padding)}")
        made = tuple(length * step for length, step in zip(size, stride, strict=True))
        pads = arguments.resolve_pads(pads, made, kernel, stride, dilation)
    else:
        made = tuple(
            (length - 1) * step - sum(sides) + gap * (taps - 1) + 1 + extra
            for length, taps, step, sides, gap, extra in zip(
                size, kernel, stride, pads, dilation, output_padding, strict=True
            )
        )
    if min(made) < 1:
        raise ValueError(
            f"{function}: padding must leave at least one output cell along each axis, got {pads} for an output of "
            f"{times([m + sum(sides) for m, sides in zip(made, pads, strict=True)])} cells without it"
        )
    axes = tuple(map(axis_of, made, kernel, stride, pads, dilation))
    sizes = Sizes(N, filters * groups, C, groups, last, axes)
    dtype, result_dtype = arguments.dtypes(x_dtype, w_dtype, b_dtype)
    return Transposed(sizes.problem(dtype), algorithm, result_dtype, x_shape, sizes.out_shape, w_shape, sizes.x_shape)


def run_backward(
    function: str, forward: str, axes: int, dout: Any, cache: Any, wrt: Any
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """A backward call; `forward` names the function that must have made the cache."""
    if not isinstance(cache, TransposedCache):
        raise TypeError(f"{function}: cache must come from {forward}, got {type(cache).__name__}")
    settled = cache.settled
    if settled.axes != axes:
        raise TypeError(f"{function}: cache must come from {forward}, got one of {settled.axes} axes")
    wrt = check_wrt(function, wrt)
    problem, dtype, algorithm = settled.problem, settled.problem.dtype, settled.algorithm
    dout = checked_gradient(function, dout, settled.out_shape, dtype).reshape(problem.x_shape)
    dx = dw = db = None
    if "x" in wrt:
        dx = workspace.empty(settled.filled_shape, dtype)
        if problem.empty:
            dx[...] = 0
        else:
            plan_of(problem, "forward", algorithm).run(dout, cache.w, _NO_BIAS[dtype], dx.reshape(problem.out_shape))
        dx = np.ascontiguousarray(dx[tuple(map(slice, settled.x_shape))])
    if "w" in wrt:
        dw = workspace.empty(settled.w_shape, dtype)
        if problem.empty:
            dw[...] = 0
        else:
            plan_of(problem, "gradient_w", algorithm).run(dout, cache.x, dw.reshape(problem.w_shape))
    if "b" in wrt and cache.has_bias:
        _, db = bias_gradient(dout, problem.channels_last)
    if settled.result_dtype != dtype:
        dx, dw, db = (None if d is None else d.astype(settled.result_dtype) for d in (dx, dw, db))
    return dx, dw, db
