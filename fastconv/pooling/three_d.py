"""Pooling in three dimensions: what `max_pool2d` and its kin do, on x of shape (N, C, D, H, W) or (N, D, H, W, C).

`kernel_size`, `stride`, `dilation`, `padding` and `output_size` are an integer or three, (depth, vertical, horizontal).
Indices are (id * H + ih) * W + iw.
Everything else is as in two dimensions, errors included.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.pooling.adaptive import adaptive_avg, adaptive_max, adaptive_max_forward
from fastconv.pooling.average import AveragePoolCache, avg_pool_backward, avg_pool_forward
from fastconv.pooling.inverse import UnpoolCache, max_unpool_backward, max_unpool_forward
from fastconv.pooling.maximum import MaxPoolCache, max_pool, max_pool_backward, max_pool_forward
from fastconv.pooling.power import PowerPoolCache, lp_pool_backward, lp_pool_forward


def max_pool3d(
    x: Any,
    kernel_size: Any,
    *,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    layout: str = "NCDHW",
    return_indices: bool = False,
) -> Any:
    """The largest number of each window, see `max_pool2d`."""
    return max_pool("max_pool3d", 3, x, kernel_size, stride, padding, dilation, ceil_mode, layout, return_indices)


def max_pool3d_forward(
    x: Any,
    kernel_size: Any,
    *,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    layout: str = "NCDHW",
    ties: str = "first",
) -> tuple[np.ndarray, MaxPoolCache]:
    """`max_pool3d` and what its backward pass needs, see `max_pool2d_forward`."""
    return max_pool_forward("max_pool3d_forward", 3, x, kernel_size, stride, padding, dilation, ceil_mode, layout, ties)


def max_pool3d_backward(dout: Any, cache: MaxPoolCache) -> np.ndarray:
    """Gradient by x, see `max_pool2d_backward`."""
    return max_pool_backward("max_pool3d_backward", dout, cache)


def avg_pool3d(
    x: Any,
    kernel_size: Any,
    *,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    layout: str = "NCDHW",
) -> np.ndarray:
    """The mean of each window, see `avg_pool2d`."""
    return avg_pool_forward(
        "avg_pool3d",
        3,
        x,
        kernel_size,
        stride,
        padding,
        dilation,
        ceil_mode,
        count_include_pad,
        divisor_override,
        layout,
    )[0]


def avg_pool3d_forward(
    x: Any,
    kernel_size: Any,
    *,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    layout: str = "NCDHW",
) -> tuple[np.ndarray, AveragePoolCache]:
    """`avg_pool3d` and what its backward pass needs, see `avg_pool2d_forward`."""
    return avg_pool_forward(
        "avg_pool3d_forward",
        3,
        x,
        kernel_size,
        stride,
        padding,
        dilation,
        ceil_mode,
        count_include_pad,
        divisor_override,
        layout,
    )


def avg_pool3d_backward(dout: Any, cache: AveragePoolCache) -> np.ndarray:
    """Gradient by x, see `avg_pool2d_backward`."""
    return avg_pool_backward("avg_pool3d_backward", dout, cache)


def lp_pool3d(
    x: Any,
    kernel_size: Any,
    *,
    norm_type: float = 2,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    layout: str = "NCDHW",
) -> np.ndarray:
    """(sum of x^p over each window)^(1 / p), see `lp_pool2d`."""
    return lp_pool_forward("lp_pool3d", 3, x, kernel_size, norm_type, stride, padding, dilation, ceil_mode, layout)[0]


def lp_pool3d_forward(
    x: Any,
    kernel_size: Any,
    *,
    norm_type: float = 2,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    layout: str = "NCDHW",
) -> tuple[np.ndarray, PowerPoolCache]:
    """`lp_pool3d` and what its backward pass needs, see `lp_pool2d_forward`."""
    return lp_pool_forward(
        "lp_pool3d_forward", 3, x, kernel_size, norm_type, stride, padding, dilation, ceil_mode, layout
    )


def lp_pool3d_backward(dout: Any, cache: PowerPoolCache) -> np.ndarray:
    """Gradient by x, see `lp_pool2d_backward`."""
    return lp_pool_backward("lp_pool3d_backward", dout, cache)


def adaptive_avg_pool3d(x: Any, output_size: Any, *, layout: str = "NCDHW") -> np.ndarray:
    """Means, see `adaptive_avg_pool2d`."""
    return adaptive_avg("adaptive_avg_pool3d", 3, x, output_size, layout)[0]


def adaptive_avg_pool3d_forward(
    x: Any, output_size: Any, *, layout: str = "NCDHW"
) -> tuple[np.ndarray, AveragePoolCache]:
    """`adaptive_avg_pool3d` and what its backward pass needs, see `adaptive_avg_pool2d_forward`."""
    return adaptive_avg("adaptive_avg_pool3d_forward", 3, x, output_size, layout)


def adaptive_avg_pool3d_backward(dout: Any, cache: AveragePoolCache) -> np.ndarray:
    """Gradient by x, see `adaptive_avg_pool2d_backward`."""
    return avg_pool_backward("adaptive_avg_pool3d_backward", dout, cache)


def adaptive_max_pool3d(x: Any, output_size: Any, *, layout: str = "NCDHW", return_indices: bool = False) -> Any:
    """The largest numbers, see `adaptive_max_pool2d`."""
    return adaptive_max("adaptive_max_pool3d", 3, x, output_size, layout, return_indices)


def adaptive_max_pool3d_forward(x: Any, output_size: Any, *, layout: str = "NCDHW") -> tuple[np.ndarray, MaxPoolCache]:
    """`adaptive_max_pool3d` and what its backward pass needs, see `adaptive_max_pool2d_forward`."""
    return adaptive_max_forward("adaptive_max_pool3d_forward", 3, x, output_size, layout)


def adaptive_max_pool3d_backward(dout: Any, cache: MaxPoolCache) -> np.ndarray:
    """Gradient by x, see `adaptive_max_pool2d_backward`."""
    return max_pool_backward("adaptive_max_pool3d_backward", dout, cache)


def global_avg_pool3d(x: Any, *, layout: str = "NCDHW") -> np.ndarray:
    """Means, see `global_avg_pool2d`."""
    return adaptive_avg("global_avg_pool3d", 3, x, 1, layout)[0]


def global_avg_pool3d_forward(x: Any, *, layout: str = "NCDHW") -> tuple[np.ndarray, AveragePoolCache]:
    """`global_avg_pool3d` and what its backward pass needs, see `global_avg_pool2d_forward`."""
    return adaptive_avg("global_avg_pool3d_forward", 3, x, 1, layout)


def global_avg_pool3d_backward(dout: Any, cache: AveragePoolCache) -> np.ndarray:
    """Gradient by x, see `global_avg_pool2d_backward`."""
    return avg_pool_backward("global_avg_pool3d_backward", dout, cache)


def global_max_pool3d(x: Any, *, layout: str = "NCDHW") -> np.ndarray:
    """The largest numbers, see `global_max_pool2d`."""
    return adaptive_max("global_max_pool3d", 3, x, 1, layout)


def global_max_pool3d_forward(x: Any, *, layout: str = "NCDHW") -> tuple[np.ndarray, MaxPoolCache]:
    """`global_max_pool3d` and what its backward pass needs, see `global_max_pool2d_forward`."""
    return adaptive_max_forward("global_max_pool3d_forward", 3, x, 1, layout)


def global_max_pool3d_backward(dout: Any, cache: MaxPoolCache) -> np.ndarray:
    """Gradient by x, see `global_max_pool2d_backward`."""
    return max_pool_backward("global_max_pool3d_backward", dout, cache)


def max_unpool3d(
    x: Any,
    indices: Any,
    kernel_size: Any,
    *,
    stride: Any = None,
    padding: Any = 0,
    output_size: Any = None,
    layout: str = "NCDHW",
) -> np.ndarray:
    """Numbers back to where they came from, see `max_unpool2d`."""
    return max_unpool_forward("max_unpool3d", 3, x, indices, kernel_size, stride, padding, output_size, layout)[0]


def max_unpool3d_forward(
    x: Any,
    indices: Any,
    kernel_size: Any,
    *,
    stride: Any = None,
    padding: Any = 0,
    output_size: Any = None,
    layout: str = "NCDHW",
) -> tuple[np.ndarray, UnpoolCache]:
    """`max_unpool3d` and what its backward pass needs, see `max_unpool2d_forward`."""
    return max_unpool_forward("max_unpool3d_forward", 3, x, indices, kernel_size, stride, padding, output_size, layout)


def max_unpool3d_backward(dout: Any, cache: UnpoolCache) -> np.ndarray:
    """Gradient by x, see `max_unpool2d_backward`."""
    return max_unpool_backward("max_unpool3d_backward", dout, cache)
