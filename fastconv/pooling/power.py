"""Power-average (Lp) pooling, forward and backward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastconv import arguments
from fastconv.pooling.average import POWER, averages, averages_gradient
from fastconv.pooling.problem import PoolProblem, check_cache, checked_dout, pool_problem


@dataclass(frozen=True)
class PowerPoolCache:
    """What the backward pass of an Lp pooling needs; treat it as opaque. It keeps references to x and the output."""

    problem: PoolProblem
    norm_type: float
    x: np.ndarray
    out: np.ndarray


def lp_pool_forward(
    function: str, axes: int, x: Any, kernel_size: Any, norm_type: Any, stride: Any, padding: Any, dilation: Any,
    ceil_mode: Any, layout: Any,
) -> tuple[np.ndarray, PowerPoolCache]:  # fmt: skip
    """Any of `lp_pool1d_forward`, `lp_pool2d_forward`, `lp_pool3d_forward`."""
    x = arguments.array(function, "x", x, axes + 2)
    p = arguments.real(function, "norm_type", norm_type)
    if p <= 0:
        raise ValueError(f"{function}: norm_type must be greater than 0, got {norm_type!r}")
    problem = pool_problem(function, axes, x, kernel_size, stride, padding, dilation, ceil_mode, layout)
    x = arguments.dense(x, problem.dtype)
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        sums = averages(problem, x if p == 1 else x**p, POWER)
        out = sums if p == 1 else np.sqrt(sums) if p == 2 else sums ** (1 / p)
    return out.astype(problem.result_dtype, copy=False), PowerPoolCache(problem, p, x, out)


def lp_pool_backward(function: str, dout: Any, cache: PowerPoolCache) -> np.ndarray:
    """Any of `lp_pool1d_backward`, `lp_pool2d_backward`, `lp_pool3d_backward`.

    out = (sum x^p)^(1/p), so d out / dx = (x / out)^(p - 1), which is 0 where out is 0 (for p > 1).
    """
    check_cache(function, cache, PowerPoolCache, function.replace("backward", "forward"))
    problem, p = cache.problem, cache.norm_type
    dout = checked_dout(function, dout, problem)
    if p != 1:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
            dout = np.where(cache.out == 0, 0, dout * cache.out ** (1 - p))
    dx = averages_gradient(problem, dout.astype(problem.dtype, copy=False), POWER)
    if p != 1:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
            dx = np.where(dx == 0, 0, dx * cache.x ** (p - 1))
    return dx.astype(problem.result_dtype, copy=False)


def lp_pool2d(
    x: Any, kernel_size: Any, *, norm_type: float = 2, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, layout: str = "NCHW",
) -> np.ndarray:  # fmt: skip
    """(sum of x^p over each window)^(1 / p), with p = `norm_type`.

    As in PyTorch powers are taken of x itself, not of its absolute value, so with an odd p the sum may be negative and
    the result NaN; and the sum of a window that ceil_mode lets reach beyond the padded image is scaled up to a whole
    window's size.

    Parameters
    ----------
    x : (N, C, H, W) array, or (N, H, W, C) with layout "NHWC". Any strides, byte order; never changed.
    norm_type : finite number above 0: 1 gives sums, 2 Euclidean norms; the larger, the closer to max pooling.
    kernel_size, stride, padding, dilation, ceil_mode : as for `max_pool2d`; the padding is zeros.

    Returns
    -------
    (N, C, OH, OW) or (N, OH, OW, C), of x's dtype; float64 for integers and booleans.

    Raises
    ------
    ValueError : wrong shape or value, or a window without any cell of x. TypeError : wrong type.

    Examples
    --------
    >>> import numpy as np
    >>> lp_pool2d(np.array([[[[3.0, 0.0], [0.0, 4.0]]]]), 2).item()
    5.0
    """
    return lp_pool_forward(
        "lp_pool2d", 2, x, kernel_size, norm_type, stride, padding, dilation, ceil_mode, layout
    )[0]  # fmt: skip


def lp_pool2d_forward(
    x: Any, kernel_size: Any, *, norm_type: float = 2, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, layout: str = "NCHW",
) -> tuple[np.ndarray, PowerPoolCache]:  # fmt: skip
    """`lp_pool2d` that also returns what `lp_pool2d_backward` needs: (out, cache). Arguments as for `lp_pool2d`."""
    return lp_pool_forward(
        "lp_pool2d_forward", 2, x, kernel_size, norm_type, stride, padding, dilation, ceil_mode, layout
    )


def lp_pool2d_backward(dout: Any, cache: PowerPoolCache) -> np.ndarray:
    """Gradient by x from the gradient by the output of `lp_pool2d_forward`; windows whose result is 0 send none.

    Raises
    ------
    ValueError : dout has another shape than the output. TypeError : cache does not come from `lp_pool2d_forward`.
    """
    return lp_pool_backward("lp_pool2d_backward", dout, cache)
