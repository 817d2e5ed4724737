"""The problem object of pooling in one, two or three dimensions, and the normalisation of its loose arguments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from fastconv import arguments
from fastconv.arguments import image_sizes, pads_per_axis, per_axis, times
from fastconv.pooling.stages import Stage
from fastconv.pooling.windows import Axis, adaptive_axis, all_see_a_cell, window_count

_ONE = Axis(1, 1, 1)


@dataclass(frozen=True)
class PoolProblem:
    """Sizes of one pooling: N images of C channels, and the windows along each axis (W, (H, W) or (D, H, W))."""

    N: int
    C: int
    axes: tuple[Axis, ...]
    channels_last: bool
    dtype: np.dtype  # to compute in
    result_dtype: np.dtype

    def _shape(self, lengths: Sequence[int]) -> tuple[int, ...]:
        return (self.N, *lengths, self.C) if self.channels_last else (self.N, self.C, *lengths)

    @cached_property
    def x_shape(self) -> tuple[int, ...]:
        return self._shape([axis.size for axis in self.axes])

    @cached_property
    def out_shape(self) -> tuple[int, ...]:
        return self._shape([axis.count for axis in self.axes])

    @property
    def cells(self) -> int:
        """How many cells the largest window has."""
        return math.prod(axis.kernel for axis in self.axes)

    @cached_property
    def factors(self) -> dict[tuple[int, str, int], tuple[np.ndarray, np.ndarray]]:
        """What `average` keeps for its next call."""
        return {}

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """What the kernels do one after the other: rows and columns, then depth.

        Depth is pooled as rows of single columns: there (h, w, c) or (h, w) are lanes.
        """
        planes, lanes = (self.N, self.C) if self.channels_last else (self.N * self.C, 1)
        if len(self.axes) == 1:
            return (Stage(planes, _ONE, self.axes[0], lanes, self.dtype),)
        *depth, vertical, horizontal = self.axes
        if not depth:
            return (Stage(planes, vertical, horizontal, lanes, self.dtype),)
        flat = Stage(planes * depth[0].size, vertical, horizontal, lanes, self.dtype)
        return flat, Stage(planes, depth[0], _ONE, vertical.count * horizontal.count * lanes, self.dtype)


def flag(function: str, name: str, value: Any) -> bool:
    """`value` if it is True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{function}: {name} must be True or False, got {value!r}")
    return bool(value)


def _plain(value: Any) -> bool:
    """Whether equal values of this kind mean the same: True and 1.0 are equal to 1."""
    return type(value) in (int, str, type(None)) or (type(value) is tuple and all(map(_plain, value)))


def pool_problem(
    function: str, axes: int, x: np.ndarray, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: Any,
    layout: Any,
) -> PoolProblem:  # fmt: skip
    """Check the arguments of a pooling against each other and normalise every loose form.

    Raises
    ------
    ValueError : padding of more than half a window (except "same"), a window that does not fit or sees no cell.
    TypeError : an argument of the wrong type.
    """
    loose = (function, axes, x.shape, x.dtype, kernel_size, stride, padding, dilation, ceil_mode, layout)
    windows = (kernel_size, stride, padding, dilation, layout)
    known = type(ceil_mode) is bool and _plain(windows)
    return _known_problem(*loose) if known else _shared(_new_problem(*loose))


@lru_cache(maxsize=256)
def _shared(problem: PoolProblem) -> PoolProblem:
    """One object for all equal problems: it holds the tables of its kernels."""
    return problem


@lru_cache(maxsize=256)
def _known_problem(*loose: Any) -> PoolProblem:
    return _shared(_new_problem(*loose))


def _new_problem(
    function: str, axes: int, shape: tuple[int, ...], x_dtype: np.dtype, kernel_size: Any, stride: Any, padding: Any,
    dilation: Any, ceil_mode: Any, layout: Any,
) -> PoolProblem:  # fmt: skip
    N, C, sizes, channels_last = image_sizes(function, shape, layout, axes)
    kernel = per_axis(function, "kernel_size", kernel_size, axes, 1)
    steps = kernel if stride is None else per_axis(function, "stride", stride, axes, 1)
    gaps = per_axis(function, "dilation", dilation, axes, 1)
    ceil_mode = flag(function, "ceil_mode", ceil_mode)
    named = pads_per_axis(function, padding, axes)
    reach = tuple(gap * (taps - 1) + 1 for taps, gap in zip(kernel, gaps, strict=True))
    if isinstance(named, str):
        pads = arguments.resolve_pads(named, sizes, kernel, steps, gaps)
    else:
        pads = named
        if any(2 * max(sides) > length for sides, length in zip(pads, reach, strict=True)):
            raise ValueError(
                f"{function}: padding must be at most half the dilated kernel, got {padding!r} for {times(reach)}"
            )
    result = []
    for size, taps, step, sides, gap in zip(sizes, kernel, steps, pads, gaps, strict=True):
        count = window_count(size, taps, step, sides, gap, ceil_mode)
        if count < 1:
            padded = [length + sum(both) for length, both in zip(sizes, pads, strict=True)]
            raise ValueError(
                f"{function}: kernel_size must not exceed the padded input, got {times(reach)} (dilated) for "
                f"{times(padded)}"
            )
        axis = Axis(size, count, taps, step, sides, gap)
        if not all_see_a_cell(axis):
            raise ValueError(
                f"{function}: every window must contain a cell of x, got {times(sizes)} cells, kernel_size {kernel}, "
                f"stride {steps}, padding {pads}, dilation {gaps}"
            )
        result.append(axis)
    return PoolProblem(N, C, tuple(result), channels_last, *arguments.dtypes(np.empty(0, x_dtype)))


def adaptive_problem(function: str, axes: int, x: np.ndarray, output_size: Any, layout: Any) -> PoolProblem:
    """The windows of adaptive pooling: output_size is an integer or one for each axis, None for the size of x."""
    N, C, sizes, channels_last = image_sizes(function, x.shape, layout, axes)
    if min(sizes) < 1:
        raise ValueError(f"{function}: x must have at least one cell along each axis, got shape {x.shape}")
    if output_size is None:
        output_size = sizes
    elif arguments.is_sequence(output_size) and len(output_size) == axes:
        output_size = [size if asked is None else asked for asked, size in zip(output_size, sizes, strict=True)]
    counts = per_axis(function, "output_size", output_size, axes, 1)
    windows = tuple(adaptive_axis(size, count) for size, count in zip(sizes, counts, strict=True))
    return _shared(PoolProblem(N, C, windows, channels_last, *arguments.dtypes(x)))


def checked_dout(function: str, dout: Any, problem: PoolProblem) -> np.ndarray:
    """The output's gradient, of the output's shape, dense and in the dtype to compute in."""
    dout = arguments.array(function, "dout", dout, len(problem.out_shape))
    if dout.shape != problem.out_shape:
        raise ValueError(f"{function}: dout must have the output's shape {problem.out_shape}, got {dout.shape}")
    return arguments.dense(dout, problem.dtype)


def check_cache(function: str, cache: Any, kind: type, forward: str) -> None:
    """Refuse a cache that another function made."""
    if not isinstance(cache, kind):
        raise TypeError(f"{function}: cache must come from {forward}, got {type(cache).__name__}")
