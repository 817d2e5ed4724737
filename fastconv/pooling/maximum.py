"""Max pooling of windows, forward and backward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastconv import arguments, workspace
from fastconv._kernels.pool_vectors import CHOSEN, FIRST_LARGEST, LARGEST
from fastconv.pooling.problem import PoolProblem, check_cache, checked_dout, flag, pool_problem

TIES = ("first", "split", "all")


@dataclass(frozen=True)
class MaxPoolCache:
    """What the backward pass of a max pooling needs; treat it as opaque.

    With ties "first" it keeps, for each stage, a code per window: kh * KW + kw of its maximum, in a byte where windows
    have at most 256 cells. Otherwise it keeps x and the output, to be compared again.
    """

    problem: PoolProblem
    ties: str
    masks: tuple[np.ndarray, ...] = ()
    x: np.ndarray | None = None
    out: np.ndarray | None = None


def largest_values(problem: PoolProblem, x: np.ndarray) -> np.ndarray:
    """The largest number of each window, in the dtype to compute in."""
    x = arguments.dense(x, problem.dtype)
    for stage in problem.stages:
        out = workspace.empty(stage.out_shape, problem.dtype)
        if out.size:
            stage.run(LARGEST, x, out)
        x = out
    return x.reshape(problem.out_shape)


def first_maxima(problem: PoolProblem, x: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """(out, masks): also which cell of each window is the first with its maximum, a `Stage.new_mask` for each stage.

    The first slice with the maximum, and in it the first cell: the stages together keep row-major order.
    """
    x = arguments.dense(x, problem.dtype)
    masks = []
    for stage in problem.stages:
        out, mask = workspace.empty(stage.out_shape, problem.dtype), stage.new_mask()
        if out.size:
            stage.run(FIRST_LARGEST, x, out, mask)
        masks.append(mask)
        x = out
    return x.reshape(problem.out_shape), tuple(masks)


def flat_indices(problem: PoolProblem, masks: tuple[np.ndarray, ...]) -> np.ndarray:
    """The place of each window's maximum in its unpadded plane (row-major), of the output's shape, int64."""
    result = None
    for stage, mask in zip(problem.stages, masks, strict=True):
        rows, cols = np.divmod(stage.codes(mask), stage.horizontal.kernel)
        oh = np.arange(stage.vertical.count)[:, None]
        ow = np.arange(stage.out_shape[2]) // stage.lanes
        rows, cols = stage.vertical.places[oh, rows], stage.horizontal.places[ow, cols]
        if result is None:
            result = rows * stage.horizontal.size + cols
        else:  # rows are slices: the index within the chosen slice, and the slices before it
            slices = result.reshape(stage.x_shape)
            plane = problem.axes[-2].size * problem.axes[-1].size
            result = np.take_along_axis(slices, rows, axis=1) + rows * plane
    assert result is not None
    return result.reshape(problem.out_shape).astype(np.int64, copy=False)


def max_gradient(problem: PoolProblem, dout: np.ndarray, masks: tuple[np.ndarray, ...]) -> np.ndarray:
    """Every window's gradient goes to its first maximum."""
    for stage, mask in zip(reversed(problem.stages), reversed(masks), strict=True):
        dx = workspace.empty(stage.x_shape, problem.dtype)
        if dx.size:
            stage.run(CHOSEN, dout, dx, mask)
        dout = dx
    return dout.reshape(problem.x_shape)


def tied_gradient(problem: PoolProblem, dout: np.ndarray, x: np.ndarray, out: np.ndarray, ties: str) -> np.ndarray:
    """Every window's gradient goes to all its maxima: shared equally ("split") or in full ("all").

    Cells are compared with the window's maximum again, tap by tap; where the maximum is NaN, all NaN count as equal.
    """
    inner: Any = () if problem.channels_last else (slice(None),)
    pairs: list[tuple[Any, Any]] = []
    for taps in np.ndindex(*(axis.kernel for axis in problem.axes)):
        of_x, of_out = [slice(None), *inner], [slice(None), *inner]
        for axis, tap in zip(problem.axes, taps, strict=True):
            windows = np.flatnonzero(axis.inside[:, tap])
            first, last = (windows[0], windows[-1]) if windows.size else (0, -1)
            start, end = (axis.places[first, tap], axis.places[last, tap] + 1) if windows.size else (0, 0)
            of_out.append(slice(first, last + 1))
            of_x.append(slice(start, end, axis.stride))
        pairs.append((tuple(of_x), tuple(of_out)))

    def tied(of_x: Any, of_out: Any) -> np.ndarray:
        cells, best = x[of_x], out[of_out]
        return (cells == best) | ((cells != cells) & (best != best))

    if ties == "split":
        count = np.zeros(problem.out_shape, problem.dtype)
        for of_x, of_out in pairs:
            count[of_out] += tied(of_x, of_out)
        dout = dout / count
    dx = np.zeros(problem.x_shape, problem.dtype)
    for of_x, of_out in pairs:
        dx[of_x] += np.where(tied(of_x, of_out), dout[of_out], 0)
    return dx


def max_pool(
    function: str, axes: int, x: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: Any,
    layout: Any, return_indices: Any,
) -> Any:  # fmt: skip
    """Any of `max_pool1d`, `max_pool2d`, `max_pool3d`."""
    x = arguments.array(function, "x", x, axes + 2)
    problem = pool_problem(function, axes, x, kernel_size, stride, padding, dilation, ceil_mode, layout)
    if not flag(function, "return_indices", return_indices):
        return largest_values(problem, x).astype(problem.result_dtype, copy=False)
    out, masks = first_maxima(problem, x)
    return out.astype(problem.result_dtype, copy=False), flat_indices(problem, masks)


def max_pool_forward(
    function: str, axes: int, x: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: Any,
    layout: Any, ties: Any,
) -> tuple[np.ndarray, MaxPoolCache]:  # fmt: skip
    """Any of `max_pool1d_forward`, `max_pool2d_forward`, `max_pool3d_forward`."""
    x = arguments.array(function, "x", x, axes + 2)
    arguments.choice(function, "ties", ties, TIES)
    problem = pool_problem(function, axes, x, kernel_size, stride, padding, dilation, ceil_mode, layout)
    if ties == "first":
        out, masks = first_maxima(problem, x)
        cache = MaxPoolCache(problem, ties, masks)
    else:
        x = arguments.dense(x, problem.dtype)
        out = largest_values(problem, x)
        cache = MaxPoolCache(problem, ties, x=x, out=out)
    return out.astype(problem.result_dtype, copy=False), cache


def max_pool_backward(function: str, dout: Any, cache: MaxPoolCache) -> np.ndarray:
    """Any of `max_pool1d_backward`, `max_pool2d_backward`, `max_pool3d_backward`."""
    check_cache(function, cache, MaxPoolCache, function.replace("backward", "forward"))
    problem = cache.problem
    dout = checked_dout(function, dout, problem)
    if cache.x is None or cache.out is None:
        dx = max_gradient(problem, dout, cache.masks)
    else:
        dx = tied_gradient(problem, dout, cache.x, cache.out, cache.ties)
    return dx.astype(problem.result_dtype, copy=False)


def max_pool2d(
    x: Any, kernel_size: Any, *, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    layout: str = "NCHW", return_indices: bool = False,
) -> Any:  # fmt: skip
    """The largest number of each window; NaN is larger than every number, padding never counts.

    Parameters
    ----------
    x : (N, C, H, W) array, or (N, H, W, C) with layout "NHWC". Any strides, byte order; never changed.
    kernel_size : int or (vertical, horizontal), the size of a window in cells.
    stride : int or (vertical, horizontal), distance of the windows; None for kernel_size.
    padding : int, (vertical, horizontal), ((top, bottom), (left, right)), "valid", "same" (TensorFlow's rule) or
        "same_lower". In numbers at most half the dilated kernel per side, as in PyTorch.
    dilation : int or (vertical, horizontal), distance of the cells of a window.
    ceil_mode : also return the last windows that reach beyond the padded image, if they start in it or before it.
    return_indices : also return where the (first) maxima are.

    Returns
    -------
    out : (N, C, OH, OW) or (N, OH, OW, C), of x's dtype; float64 for integers and booleans.
        OH = (H + top + bottom - dilation * (KH - 1) - 1) // stride + 1, rounded up with ceil_mode.
    indices : with return_indices, ih * W + iw of each maximum in its plane without padding, int64, shape of `out`.

    Raises
    ------
    ValueError : wrong shape or value, or a window without any cell of x. TypeError : wrong type.

    Examples
    --------
    >>> import numpy as np
    >>> out, indices = max_pool2d(np.arange(16.0).reshape(1, 1, 4, 4), 2, return_indices=True)
    >>> out[0, 0].tolist(), indices[0, 0].tolist()
    ([[5.0, 7.0], [13.0, 15.0]], [[5, 7], [13, 15]])
    """
    return max_pool(
        "max_pool2d", 2, x, kernel_size, stride, padding, dilation, ceil_mode, layout, return_indices
    )  # fmt: skip


def max_pool2d_forward(
    x: Any, kernel_size: Any, *, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    layout: str = "NCHW", ties: str = "first",
) -> tuple[np.ndarray, MaxPoolCache]:  # fmt: skip
    """`max_pool2d` that also returns what `max_pool2d_backward` needs: (out, cache).

    `ties` says which of several equal maxima of a window gets its gradient: "first" (row-major), "split" (all, in
    equal shares) or "all" (each the whole). Other arguments and errors as for `max_pool2d`.

    Examples
    --------
    >>> import numpy as np
    >>> out, cache = max_pool2d_forward(np.zeros((1, 1, 2, 4)), 2, ties="split")
    >>> max_pool2d_backward(np.ones_like(out), cache)[0, 0].tolist()
    [[0.25, 0.25, 0.25, 0.25], [0.25, 0.25, 0.25, 0.25]]
    """
    return max_pool_forward(
        "max_pool2d_forward", 2, x, kernel_size, stride, padding, dilation, ceil_mode, layout, ties
    )  # fmt: skip


def max_pool2d_backward(dout: Any, cache: MaxPoolCache) -> np.ndarray:
    """Gradient of a loss by x, given its gradient by the output of `max_pool2d_forward`.

    Parameters
    ----------
    dout : array of the output's shape.
    cache : from `max_pool2d_forward`.

    Returns
    -------
    dx : of x's shape and the output's dtype; where windows overlap, their gradients add up.

    Raises
    ------
    ValueError : dout has another shape than the output. TypeError : cache does not come from `max_pool2d_forward`.
    """
    return max_pool_backward("max_pool2d_backward", dout, cache)
