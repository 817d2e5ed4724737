"""Max unpooling: numbers go back to where a max pooling took them from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastconv import arguments
from fastconv.pooling.problem import check_cache, image_sizes, pads_per_axis, per_axis


@dataclass(frozen=True)
class UnpoolCache:
    """What the backward pass of a max unpooling needs; treat it as opaque. It keeps a reference to the indices."""

    indices: np.ndarray
    out_shape: tuple[int, ...]
    channels_last: bool
    dtype: np.dtype
    result_dtype: np.dtype

    def planes(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Images of that shape as (planes, cells, lanes)."""
        if self.channels_last:
            return shape[0], math.prod(shape[1:-1]), shape[-1]
        return shape[0] * shape[1], math.prod(shape[2:]), 1


def _output_lengths(
    function: str, axes: int, sizes: tuple[int, ...], kernel_size: Any, stride: Any, padding: Any, output_size: Any,
    outer: tuple[tuple[int, ...], tuple[int, ...]],
) -> tuple[int, ...]:  # fmt: skip
    """The lengths of the unpooled image: by default the smallest that pools to `sizes`, less than a stride from it."""
    kernel = per_axis(function, "kernel_size", kernel_size, axes, 1)
    steps = kernel if stride is None else per_axis(function, "stride", stride, axes, 1)
    pads = pads_per_axis(function, padding, axes)
    if isinstance(pads, str):
        raise ValueError(f"{function}: padding must be given in numbers, got {padding!r}")
    usual = tuple(
        (size - 1) * step - sum(sides) + taps
        for size, step, sides, taps in zip(sizes, steps, pads, kernel, strict=True)
    )
    if output_size is None:
        if min(usual) < 1:
            raise ValueError(f"{function}: x must have at least one cell along each axis, got {sizes} -> {usual}")
        return usual
    if isinstance(output_size, (tuple, list)) and len(output_size) == axes + 2:  # a whole shape
        before, after = len(outer[0]), len(output_size) - len(outer[1])
        if (tuple(output_size[:before]), tuple(output_size[after:])) != outer:
            raise ValueError(
                f"{function}: output_size must have x's images and channels, got {tuple(output_size)} for {outer}"
            )
        output_size = output_size[before:after]
    lengths = per_axis(function, "output_size", output_size, axes, 1)
    if any(abs(length - expected) >= step for length, expected, step in zip(lengths, usual, steps, strict=True)):
        raise ValueError(
            f"{function}: output_size must be less than one stride {steps} away from {usual}, got {lengths}"
        )
    return lengths


def max_unpool_forward(
    function: str, axes: int, x: Any, indices: Any, kernel_size: Any, stride: Any, padding: Any, output_size: Any,
    layout: Any,
) -> tuple[np.ndarray, UnpoolCache]:  # fmt: skip
    """Any of `max_unpool1d_forward`, `max_unpool2d_forward`, `max_unpool3d_forward`."""
    x = arguments.array(function, "x", x, axes + 2)
    indices = np.asarray(indices)
    if indices.dtype.kind not in "iu":
        raise TypeError(f"{function}: indices must be an array of integers, got dtype {indices.dtype}")
    if indices.shape != x.shape:
        raise ValueError(f"{function}: indices must have x's shape {x.shape}, got {indices.shape}")
    N, C, sizes, channels_last = image_sizes(function, x.shape, layout, axes)
    outer = ((N,), (C,)) if channels_last else ((N, C), ())
    lengths = _output_lengths(function, axes, sizes, kernel_size, stride, padding, output_size, outer)
    cells = math.prod(lengths)
    if indices.size and not (0 <= indices.min() and indices.max() < cells):
        raise ValueError(
            f"{function}: indices must be from 0 to {cells - 1} ({'x'.join(map(str, lengths))} cells), got "
            f"{indices.min()} to {indices.max()}"
        )
    dtype, result_dtype = arguments.dtypes(x)
    indices = arguments.dense(indices, np.dtype(np.intp))
    cache = UnpoolCache(indices, (*outer[0], *lengths, *outer[1]), channels_last, dtype, result_dtype)
    out = np.zeros(cache.out_shape, dtype)
    if x.size:
        windows = cache.planes(x.shape)
        source = arguments.dense(x, dtype).reshape(windows)
        np.put_along_axis(out.reshape(cache.planes(out.shape)), indices.reshape(windows), source, axis=1)
    return out.astype(result_dtype, copy=False), cache


def max_unpool_backward(function: str, dout: Any, cache: UnpoolCache) -> np.ndarray:
    """Any of `max_unpool1d_backward`, `max_unpool2d_backward`, `max_unpool3d_backward`."""
    check_cache(function, cache, UnpoolCache, function.replace("backward", "forward"))
    dout = arguments.array(function, "dout", dout, len(cache.out_shape))
    if dout.shape != cache.out_shape:
        raise ValueError(f"{function}: dout must have the output's shape {cache.out_shape}, got {dout.shape}")
    shape = cache.indices.shape
    if not cache.indices.size:
        return np.zeros(shape, cache.result_dtype)
    planes = arguments.dense(dout, cache.dtype).reshape(cache.planes(cache.out_shape))
    dx = np.take_along_axis(planes, cache.indices.reshape(cache.planes(shape)), axis=1)
    return dx.reshape(shape).astype(cache.result_dtype, copy=False)


def max_unpool2d(
    x: Any, indices: Any, kernel_size: Any, *, stride: Any = None, padding: Any = 0, output_size: Any = None,
    layout: str = "NCHW",
) -> np.ndarray:  # fmt: skip
    """Put the numbers of a max pooling's output back to where they came from; all other cells are zero.

    Parameters
    ----------
    x : (N, C, OH, OW) array, or (N, OH, OW, C) with layout "NHWC".
    indices : integers of x's shape, from `max_pool2d(..., return_indices=True)`. Where two are equal in a plane, the
        later number stays.
    kernel_size, stride, padding : of the pooling; padding in numbers.
    output_size : (H, W) or the whole shape of the result, less than a stride away from the default, which is
        (OH - 1) * stride - top - bottom + KH.

    Returns
    -------
    (N, C, H, W) or (N, H, W, C), of x's dtype; float64 for integers and booleans.

    Raises
    ------
    ValueError : wrong shape or value, or an index outside the plane. TypeError : wrong type.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.pooling import max_pool2d
    >>> out, indices = max_pool2d(np.arange(8.0).reshape(1, 1, 2, 4), 2, return_indices=True)
    >>> max_unpool2d(out, indices, 2)[0, 0].tolist()
    [[0.0, 0.0, 0.0, 0.0], [0.0, 5.0, 0.0, 7.0]]
    """
    return max_unpool_forward(
        "max_unpool2d", 2, x, indices, kernel_size, stride, padding, output_size, layout
    )[0]  # fmt: skip


def max_unpool2d_forward(
    x: Any, indices: Any, kernel_size: Any, *, stride: Any = None, padding: Any = 0, output_size: Any = None,
    layout: str = "NCHW",
) -> tuple[np.ndarray, UnpoolCache]:  # fmt: skip
    """`max_unpool2d` that also returns what `max_unpool2d_backward` needs: (out, cache)."""
    return max_unpool_forward("max_unpool2d_forward", 2, x, indices, kernel_size, stride, padding, output_size, layout)


def max_unpool2d_backward(dout: Any, cache: UnpoolCache) -> np.ndarray:
    """Gradient by x: the output's gradient at the indices, as in PyTorch also where a later number stayed.

    Raises
    ------
    ValueError : dout has another shape than the output. TypeError : cache does not come from `max_unpool2d_forward`.
    """
    return max_unpool_backward("max_unpool2d_backward", dout, cache)
