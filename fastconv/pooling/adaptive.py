"""Pooling to a given output size, adaptive and global: windows that cover the image as evenly as integers allow.

Window o of an axis is [floor(o * H / OH), ceil((o + 1) * H / OH)), as in PyTorch; a global pooling has one window.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv import arguments
from fastconv.pooling.average import INSIDE, AveragePoolCache, averages, avg_pool_backward
from fastconv.pooling.maximum import MaxPoolCache, first_maxima, flat_indices, largest_values, max_pool_backward
from fastconv.pooling.problem import adaptive_problem, flag


def adaptive_avg(
    function: str, axes: int, x: Any, output_size: Any, layout: Any
) -> tuple[np.ndarray, AveragePoolCache]:  # fmt: skip
    """(out, cache) of any adaptive or global average pooling."""
    x = arguments.array(function, "x", x, axes + 2)
    problem = adaptive_problem(function, axes, x, output_size, layout)
    out = averages(problem, x, INSIDE)
    return out.astype(problem.result_dtype, copy=False), AveragePoolCache(problem, INSIDE, 1)


def adaptive_max(
    function: str, axes: int, x: Any, output_size: Any, layout: Any, return_indices: Any = False
) -> Any:  # fmt: skip
    """out, or (out, indices), of any adaptive or global max pooling."""
    x = arguments.array(function, "x", x, axes + 2)
    problem = adaptive_problem(function, axes, x, output_size, layout)
    if not flag(function, "return_indices", return_indices):
        return largest_values(problem, x).astype(problem.result_dtype, copy=False)
    out, masks = first_maxima(problem, x)
    return out.astype(problem.result_dtype, copy=False), flat_indices(problem, masks)


def adaptive_max_forward(
    function: str, axes: int, x: Any, output_size: Any, layout: Any
) -> tuple[np.ndarray, MaxPoolCache]:  # fmt: skip
    """(out, cache) of any adaptive or global max pooling."""
    x = arguments.array(function, "x", x, axes + 2)
    problem = adaptive_problem(function, axes, x, output_size, layout)
    out, masks = first_maxima(problem, x)
    return out.astype(problem.result_dtype, copy=False), MaxPoolCache(problem, "first", masks)


def adaptive_avg_pool2d(x: Any, output_size: Any, *, layout: str = "NCHW") -> np.ndarray:
    """The mean of each of OH x OW windows that cover the image.

    Parameters
    ----------
    x : (N, C, H, W) array, or (N, H, W, C) with layout "NHWC". Any strides, byte order; never changed.
    output_size : int or (OH, OW); None, also as an entry, for the size of x. May exceed the size of x.

    Returns
    -------
    (N, C, OH, OW) or (N, OH, OW, C), of x's dtype; float64 for integers and booleans.

    Raises
    ------
    ValueError : wrong shape or value. TypeError : wrong type.

    Examples
    --------
    >>> import numpy as np
    >>> adaptive_avg_pool2d(np.arange(5.0).reshape(1, 1, 1, 5), (1, 2))[0, 0].tolist()
    [[1.0, 3.0]]
    """
    return adaptive_avg("adaptive_avg_pool2d", 2, x, output_size, layout)[0]


def adaptive_avg_pool2d_forward(
    x: Any, output_size: Any, *, layout: str = "NCHW"
) -> tuple[np.ndarray, AveragePoolCache]:  # fmt: skip
    """`adaptive_avg_pool2d` that also returns what `adaptive_avg_pool2d_backward` needs: (out, cache)."""
    return adaptive_avg("adaptive_avg_pool2d_forward", 2, x, output_size, layout)


def adaptive_avg_pool2d_backward(dout: Any, cache: AveragePoolCache) -> np.ndarray:
    """Gradient by x: each window's is shared by its cells; errors as `avg_pool2d_backward`."""
    return avg_pool_backward("adaptive_avg_pool2d_backward", dout, cache)


def adaptive_max_pool2d(x: Any, output_size: Any, *, layout: str = "NCHW", return_indices: bool = False) -> Any:
    """The largest number of each of OH x OW windows that cover the image; NaN is larger than every number.

    Parameters and errors are those of `adaptive_avg_pool2d`. With `return_indices` it returns (out, indices), ih * W +
    iw of each window's first maximum, int64.

    Examples
    --------
    >>> import numpy as np
    >>> adaptive_max_pool2d(np.arange(5.0).reshape(1, 1, 1, 5), (1, 2))[0, 0].tolist()
    [[2.0, 4.0]]
    """
    return adaptive_max("adaptive_max_pool2d", 2, x, output_size, layout, return_indices)


def adaptive_max_pool2d_forward(x: Any, output_size: Any, *, layout: str = "NCHW") -> tuple[np.ndarray, MaxPoolCache]:
    """`adaptive_max_pool2d` that also returns what `adaptive_max_pool2d_backward` needs: (out, cache)."""
    return adaptive_max_forward("adaptive_max_pool2d_forward", 2, x, output_size, layout)


def adaptive_max_pool2d_backward(dout: Any, cache: MaxPoolCache) -> np.ndarray:
    """Gradient by x: each window's goes to its first maximum; errors as `max_pool2d_backward`."""
    return max_pool_backward("adaptive_max_pool2d_backward", dout, cache)


def global_avg_pool2d(x: Any, *, layout: str = "NCHW") -> np.ndarray:
    """The mean of each plane: (N, C, H, W) -> (N, C, 1, 1), or (N, H, W, C) -> (N, 1, 1, C).

    Raises
    ------
    ValueError : wrong shape or layout. TypeError : wrong type.

    Examples
    --------
    >>> import numpy as np
    >>> global_avg_pool2d(np.arange(8.0).reshape(1, 2, 2, 2)).ravel().tolist()
    [1.5, 5.5]
    """
    return adaptive_avg("global_avg_pool2d", 2, x, 1, layout)[0]


def global_avg_pool2d_forward(x: Any, *, layout: str = "NCHW") -> tuple[np.ndarray, AveragePoolCache]:
    """`global_avg_pool2d` that also returns what `global_avg_pool2d_backward` needs: (out, cache)."""
    return adaptive_avg("global_avg_pool2d_forward", 2, x, 1, layout)


def global_avg_pool2d_backward(dout: Any, cache: AveragePoolCache) -> np.ndarray:
    """Gradient by x: each plane's is shared by its cells; errors as `avg_pool2d_backward`."""
    return avg_pool_backward("global_avg_pool2d_backward", dout, cache)


def global_max_pool2d(x: Any, *, layout: str = "NCHW") -> np.ndarray:
    """The largest number of each plane: (N, C, H, W) -> (N, C, 1, 1), or (N, H, W, C) -> (N, 1, 1, C).

    Raises
    ------
    ValueError : wrong shape or layout. TypeError : wrong type.

    Examples
    --------
    >>> import numpy as np
    >>> global_max_pool2d(np.arange(8.0).reshape(1, 2, 2, 2)).ravel().tolist()
    [3.0, 7.0]
    """
    return adaptive_max("global_max_pool2d", 2, x, 1, layout)


def global_max_pool2d_forward(x: Any, *, layout: str = "NCHW") -> tuple[np.ndarray, MaxPoolCache]:
    """`global_max_pool2d` that also returns what `global_max_pool2d_backward` needs: (out, cache)."""
    return adaptive_max_forward("global_max_pool2d_forward", 2, x, 1, layout)


def global_max_pool2d_backward(dout: Any, cache: MaxPoolCache) -> np.ndarray:
    """Gradient by x: each plane's goes to its first maximum; errors as `max_pool2d_backward`."""
    return max_pool_backward("global_max_pool2d_backward", dout, cache)
