"""im2col and col2im as operations of their own, for teaching and for callers' own algorithms.

Convolution here does not use them: its im2col copies one cache-sized block at a time (see `fastconv.algorithms`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv import arguments
from fastconv.arguments import Pads, Pair
from fastconv.padding import pad2d

LAYOUTS = ("NCHW", "NHWC")


def _geometry(
    function: str, size: Pair, kernel_size: Any, stride: Any, pads: Any, dilation: Any
) -> tuple[Pair, Pair, Pads, Pair, Pair]:
    """(kernel, stride, pads, dilation, output size), normalised and checked."""
    kernel = arguments.pair(function, "kernel_size", kernel_size, 1)
    stride = arguments.pair(function, "stride", stride, 1)
    dilation = arguments.pair(function, "dilation", dilation, 1)
    pads = arguments.resolve_pads(arguments.pads(function, pads), size, kernel, stride, dilation)
    out = tuple(
        arguments.output_length(length + sum(sides), taps, step, gap)
        for length, sides, taps, step, gap in zip(size, pads, kernel, stride, dilation, strict=True)
    )
    if min(out) < 1:
        raise ValueError(
            f"{function}: the dilated kernel must not be larger than the padded input, got kernel {kernel}, dilation "
            f"{dilation} for input {size} with padding {pads}"
        )
    return kernel, stride, pads, dilation, (out[0], out[1])


def _tap(start: Pair, stride: Pair, out: Pair, layout: str) -> tuple[slice, ...]:
    """The cells of the padded input that one tap of every window reads."""
    cells = tuple(slice(a, a + s * (n - 1) + 1, s) for a, s, n in zip(start, stride, out, strict=True))
    return (slice(None), *cells) if layout == "NHWC" else (slice(None), slice(None), *cells)


def im2col(
    x: Any, kernel_size: Any, *, stride: Any = 1, padding: Any = 0, dilation: Any = 1, layout: str = "NCHW"
) -> np.ndarray:
    """Every window of x as one column (as `torch.nn.functional.unfold`).

    Parameters
    ----------
    x : (N, C, H, W), or (N, H, W, C) with layout "NHWC".
    kernel_size, stride, dilation : int or (vertical, horizontal).
    padding : as for `conv2d`.

    Returns
    -------
    (N, C * KH * KW, OH * OW), or (N, OH * OW, KH * KW * C) with layout "NHWC": a product with the flattened weights
    is the convolution.

    Raises
    ------
    ValueError : a wrong shape or amount. TypeError : a wrong type.

    Examples
    --------
    >>> import numpy as np
    >>> im2col(np.arange(9.0).reshape(1, 1, 3, 3), 2)[0]
    array([[0., 1., 3., 4.],
           [1., 2., 4., 5.],
           [3., 4., 6., 7.],
           [4., 5., 7., 8.]])
    """
    function = "im2col"
    x = arguments.array(function, "x", x, 4)
    arguments.choice(function, "layout", layout, LAYOUTS)
    size = (x.shape[1], x.shape[2]) if layout == "NHWC" else (x.shape[2], x.shape[3])
    kernel, stride, pads, dilation, out = _geometry(function, size, kernel_size, stride, padding, dilation)
    padded = pad2d(x, pads, layout=layout)
    (KH, KW), (OH, OW) = kernel, out
    if layout == "NHWC":
        N, C = x.shape[0], x.shape[3]
        columns = np.empty((N, OH, OW, KH, KW, C), padded.dtype)
    else:
        N, C = x.shape[:2]
        columns = np.empty((N, C, KH, KW, OH, OW), padded.dtype)
    for kh in range(KH):
        for kw in range(KW):
            cells = padded[_tap((kh * dilation[0], kw * dilation[1]), stride, out, layout)]
            if layout == "NHWC":
                columns[:, :, :, kh, kw] = cells
            else:
                columns[:, :, kh, kw] = cells
    return columns.reshape((N, OH * OW, KH * KW * C) if layout == "NHWC" else (N, C * KH * KW, OH * OW))


def col2im(
    columns: Any, size: Any, kernel_size: Any, *, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    layout: str = "NCHW",
) -> np.ndarray:  # fmt: skip
    """The transpose of `im2col`: add every column's numbers to the cells its window read (as `torch` `fold`).

    Parameters
    ----------
    columns : (N, C * KH * KW, OH * OW), or (N, OH * OW, KH * KW * C) with layout "NHWC".
    size : (H, W) of the images to make.
    kernel_size, stride, padding, dilation : as given to `im2col`.

    Returns
    -------
    (N, C, H, W), or (N, H, W, C). Overlapping windows add up.

    Raises
    ------
    ValueError : columns do not have the shape that `im2col` gives for this size. TypeError : a wrong type.

    Examples
    --------
    >>> import numpy as np
    >>> col2im(np.ones((1, 4, 4)), (3, 3), 2)[0, 0]
    array([[1., 2., 1.],
           [2., 4., 2.],
           [1., 2., 1.]])
    """
    function = "col2im"
    columns = arguments.array(function, "columns", columns, 3)
    arguments.choice(function, "layout", layout, LAYOUTS)
    H, W = arguments.pair(function, "size", size, 1)
    kernel, stride, pads, dilation, out = _geometry(function, (H, W), kernel_size, stride, padding, dilation)
    (KH, KW), (OH, OW), taps = kernel, out, kernel[0] * kernel[1]
    N, rows, windows = columns.shape if layout == "NCHW" else (columns.shape[0], columns.shape[2], columns.shape[1])
    if windows != OH * OW or rows % taps:
        raise ValueError(
            f"{function}: columns must hold {OH} x {OW} = {OH * OW} windows of a multiple of {KH} x {KW} = {taps} "
            f"numbers, got shape {columns.shape}"
        )
    C = rows // taps
    dtype, result_dtype = arguments.dtypes(columns)
    (top, bottom), (left, right) = pads
    if layout == "NHWC":
        columns = columns.reshape(N, OH, OW, KH, KW, C)
        image = np.zeros((N, H + top + bottom, W + left + right, C), dtype)
    else:
        columns = columns.reshape(N, C, KH, KW, OH, OW)
        image = np.zeros((N, C, H + top + bottom, W + left + right), dtype)
    for kh in range(KH):
        for kw in range(KW):
            cells = columns[:, :, :, kh, kw] if layout == "NHWC" else columns[:, :, kh, kw]
            image[_tap((kh * dilation[0], kw * dilation[1]), stride, out, layout)] += cells
    inside = _tap((top, left), (1, 1), (H, W), layout)
    return np.ascontiguousarray(image[inside], dtype=result_dtype)
