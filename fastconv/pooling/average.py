"""Average pooling of windows, forward and backward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastconv import arguments, workspace
from fastconv._kernels.pool_vectors import MEAN, SPREAD
from fastconv.pooling.problem import PoolProblem, check_cache, checked_dout, flag, pool_problem

# What window sums are divided by: the number of their cells with or without padding, nothing, or the part of a whole
# window that lies in the padded image.
PADDED, INSIDE, SUM, POWER = "cells and padding", "cells", "one", "part of a window"


@dataclass(frozen=True)
class AveragePoolCache:
    """What the backward pass of an average pooling needs; treat it as opaque."""

    problem: PoolProblem
    counting: str
    divisor: int


def _factors(problem: PoolProblem, number: int, counting: str, divisor: int) -> tuple[np.ndarray, np.ndarray]:
    """(divisors, their reciprocals) of a stage: one for each output row, then one for each of its columns.

    A window has their product. The given divisor takes part in the last stage.
    """
    key = number, counting, divisor
    if key in problem.factors:
        return problem.factors[key]
    stage = problem.stages[number]
    vertical, horizontal = stage.vertical, stage.horizontal
    if counting == SUM:
        rows, cols = np.ones(vertical.count), np.ones(horizontal.count)
    else:
        rows, cols = (axis.divisors(counting != INSIDE).astype(float) for axis in (vertical, horizontal))
        if counting == POWER:
            rows, cols = rows / vertical.kernel, cols / horizontal.kernel
    if stage is problem.stages[-1]:
        rows *= divisor
    divisors = np.concatenate([rows, np.repeat(cols, stage.factors_per_column)])
    result = divisors.astype(problem.dtype), (1 / divisors).astype(problem.dtype)
    return problem.factors.setdefault(key, result)


def averages(problem: PoolProblem, x: np.ndarray, counting: str, divisor: int = 1) -> np.ndarray:
    """Window sums over what `counting` says and over `divisor`, in the dtype to compute in."""
    x = arguments.dense(x, problem.dtype)
    for number, stage in enumerate(problem.stages):
        out = workspace.empty(stage.out_shape, problem.dtype)
        if out.size:
            stage.run(MEAN, x, out, _factors(problem, number, counting, divisor)[0])
        x = out
    return x.reshape(problem.out_shape)


def averages_gradient(problem: PoolProblem, dout: np.ndarray, counting: str, divisor: int = 1) -> np.ndarray:
    """Each cell gets the gradients of the windows that it lies in, over the windows' divisors."""
    for number in reversed(range(len(problem.stages))):
        stage = problem.stages[number]
        dx = workspace.empty(stage.x_shape, problem.dtype)
        if dx.size:
            stage.run(SPREAD, dout, dx, _factors(problem, number, counting, divisor)[1])
        dout = dx
    return dout.reshape(problem.x_shape)


def avg_pool_forward(
    function: str, axes: int, x: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: Any,
    count_include_pad: Any, divisor_override: Any, layout: Any,
) -> tuple[np.ndarray, AveragePoolCache]:  # fmt: skip
    """Any of `avg_pool1d_forward`, `avg_pool2d_forward`, `avg_pool3d_forward`."""
    x = arguments.array(function, "x", x, axes + 2)
    problem = pool_problem(function, axes, x, kernel_size, stride, padding, dilation, ceil_mode, layout)
    counting = PADDED if flag(function, "count_include_pad", count_include_pad) else INSIDE
    divisor = 1
    if divisor_override is not None:
        counting, divisor = SUM, arguments.integer(function, "divisor_override", divisor_override, 1)
    out = averages(problem, x, counting, divisor)
    return out.astype(problem.result_dtype, copy=False), AveragePoolCache(problem, counting, divisor)


def avg_pool_backward(function: str, dout: Any, cache: AveragePoolCache) -> np.ndarray:
    """Any of `avg_pool1d_backward`, `avg_pool2d_backward`, `avg_pool3d_backward`, and of adaptive and global ones."""
    check_cache(function, cache, AveragePoolCache, function.replace("backward", "forward"))
    problem = cache.problem
    dx = averages_gradient(problem, checked_dout(function, dout, problem), cache.counting, cache.divisor)
    return dx.astype(problem.result_dtype, copy=False)


def avg_pool2d(
    x: Any, kernel_size: Any, *, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None, layout: str = "NCHW",
) -> np.ndarray:  # fmt: skip
    """The mean of each window.

    Parameters
    ----------
    x : (N, C, H, W) array, or (N, H, W, C) with layout "NHWC". Any strides, byte order; never changed.
    kernel_size, stride, padding, dilation, ceil_mode : as for `max_pool2d`.
    count_include_pad : whether the zeros of the padding count as cells. What a window of ceil_mode has beyond the
        padded image never counts, as in PyTorch.
    divisor_override : what to divide every window's sum by instead of its number of cells; at least 1.

    Returns
    -------
    (N, C, OH, OW) or (N, OH, OW, C), of x's dtype; float64 for integers and booleans.

    Raises
    ------
    ValueError : wrong shape or value, or a window without any cell of x. TypeError : wrong type.

    Examples
    --------
    >>> import numpy as np
    >>> avg_pool2d(np.arange(16.0).reshape(1, 1, 4, 4), 2)[0, 0].tolist()
    [[2.5, 4.5], [10.5, 12.5]]
    """
    return avg_pool_forward(
        "avg_pool2d", 2, x, kernel_size, stride, padding, dilation, ceil_mode, count_include_pad, divisor_override,
        layout,
    )[0]  # fmt: skip


def avg_pool2d_forward(
    x: Any, kernel_size: Any, *, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None, layout: str = "NCHW",
) -> tuple[np.ndarray, AveragePoolCache]:  # fmt: skip
    """`avg_pool2d` that also returns what `avg_pool2d_backward` needs: (out, cache). Arguments as for `avg_pool2d`.

    Examples
    --------
    >>> import numpy as np
    >>> out, cache = avg_pool2d_forward(np.zeros((1, 1, 2, 4)), 2)
    >>> avg_pool2d_backward([[[[1.0, 2.0]]]], cache)[0, 0].tolist()
    [[0.25, 0.25, 0.5, 0.5], [0.25, 0.25, 0.5, 0.5]]
    """
    return avg_pool_forward(
        "avg_pool2d_forward", 2, x, kernel_size, stride, padding, dilation, ceil_mode, count_include_pad,
        divisor_override, layout,
    )  # fmt: skip


def avg_pool2d_backward(dout: Any, cache: AveragePoolCache) -> np.ndarray:
    """Gradient of a loss by x, given its gradient by the output of `avg_pool2d_forward`.

    Returns
    -------
    dx : of x's shape and the output's dtype; where windows overlap, their shares add up.

    Raises
    ------
    ValueError : dout has another shape than the output. TypeError : cache does not come from `avg_pool2d_forward`.
    """
    return avg_pool_backward("avg_pool2d_backward", dout, cache)
