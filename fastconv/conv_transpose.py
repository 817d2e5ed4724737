"""Transposed convolution along one, two and three axes; `fastconv.transposed` does the work."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.transposed import TransposedCache, run_backward, run_forward


def conv_transpose2d(
    x: Any, w: Any, b: Any = None, *, stride: Any = 1, padding: Any = 0, output_padding: Any = 0, dilation: Any = 1,
    groups: int = 1, layout: str = "NCHW", algorithm: str = "auto",
) -> np.ndarray:  # fmt: skip
    """2-D transposed convolution (as in PyTorch): every number of x spreads its multiple of the kernel over the output.

    out[n, f, ih * stride + kh * dilation - pad, ...] += w[c, f, kh, kw] * x[n, c, ih, iw], starting from b[f]

    It is the gradient of x of the `conv2d` with these weights and options, and enlarges images by the stride.

    Parameters
    ----------
    x : (N, C, H, W) array, or (N, H, W, C) with layout "NHWC". Any strides, byte order; never changed.
    w : (C, F / groups, KH, KW), or (KH, KW, F / groups, C) with layout "NHWC".
    b : (F,) or None.
    stride, dilation : int or (vertical, horizontal), at least 1.
    padding : int, (vertical, horizontal) or ((top, bottom), (left, right)): cells that are cut off the output; or
        "valid" (none), "same" or "same_lower" (OH = H * stride, as in TensorFlow).
    output_padding : int or (vertical, horizontal): cells more at the bottom and right, less than stride or dilation.
        It tells apart the sizes that a convolution of that stride maps to the same one.
    groups : filters and channels fall into this many independent groups.
    algorithm : as for `conv2d`; a named one serves the passes that it supports.

    Returns
    -------
    (N, F, OH, OW) or (N, OH, OW, F), of the arrays' common dtype as for `conv2d`.
    OH = (H - 1) * stride - top - bottom + dilation * (KH - 1) + output_padding + 1.

    Raises
    ------
    ValueError : wrong shape or value. TypeError : wrong type. Both name the argument and show the values.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 1, 2, 2)
    >>> conv_transpose2d(x, np.ones((1, 1, 2, 2)), stride=2)[0, 0]
    array([[1., 1., 2., 2.],
           [1., 1., 2., 2.],
           [3., 3., 4., 4.],
           [3., 3., 4., 4.]])
    """
    return run_forward(
        "conv_transpose2d", 2, x, w, b, stride, padding, output_padding, dilation, groups, layout, algorithm
    )[0]  # fmt: skip


def conv_transpose2d_forward(
    x: Any, w: Any, b: Any = None, *, stride: Any = 1, padding: Any = 0, output_padding: Any = 0, dilation: Any = 1,
    groups: int = 1, layout: str = "NCHW", algorithm: str = "auto",
) -> tuple[np.ndarray, TransposedCache]:  # fmt: skip
    """`conv_transpose2d` that also returns what `conv_transpose2d_backward` needs: (out, cache).

    Examples
    --------
    >>> import numpy as np
    >>> out, cache = conv_transpose2d_forward(np.ones((1, 2, 3, 3)), np.ones((2, 4, 2, 2)), np.zeros(4), stride=2)
    >>> dx, dw, db = conv_transpose2d_backward(np.ones_like(out), cache)
    >>> dx.shape, dw.shape, db
    ((1, 2, 3, 3), (2, 4, 2, 2), array([36., 36., 36., 36.]))
    """
    return run_forward(
        "conv_transpose2d_forward", 2, x, w, b, stride, padding, output_padding, dilation, groups, layout, algorithm
    )  # fmt: skip


def conv_transpose2d_backward(
    dout: Any, cache: TransposedCache, *, wrt: Any = ("x", "w", "b")
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """(dx, dw, db), given the gradient by the output of `conv_transpose2d_forward`; see `conv2d_backward`."""
    return run_backward("conv_transpose2d_backward", "conv_transpose2d_forward", 2, dout, cache, wrt)


def conv_transpose1d(
    x: Any, w: Any, b: Any = None, *, stride: Any = 1, padding: Any = 0, output_padding: Any = 0, dilation: Any = 1,
    groups: int = 1, layout: str = "NCW", algorithm: str = "auto",
) -> np.ndarray:  # fmt: skip
    """1-D transposed convolution: `conv_transpose2d` along one axis.

    x is (N, C, W), or (N, W, C) with layout "NWC"; w is (C, F / groups, KW), or (KW, F / groups, C). `padding` may be
    (left, right); `stride`, `dilation` and `output_padding` are an int or a sequence of one.

    Examples
    --------
    >>> import numpy as np
    >>> conv_transpose1d(np.array([[[1.0, 2.0, 3.0]]]), np.array([[[1.0, 10.0]]]), stride=2)
    array([[[ 1., 10.,  2., 20.,  3., 30.]]])
    """
    return run_forward(
        "conv_transpose1d", 1, x, w, b, stride, padding, output_padding, dilation, groups, layout, algorithm
    )[0]  # fmt: skip


def conv_transpose1d_forward(
    x: Any, w: Any, b: Any = None, *, stride: Any = 1, padding: Any = 0, output_padding: Any = 0, dilation: Any = 1,
    groups: int = 1, layout: str = "NCW", algorithm: str = "auto",
) -> tuple[np.ndarray, TransposedCache]:  # fmt: skip
    """`conv_transpose1d` that also returns what `conv_transpose1d_backward` needs: (out, cache)."""
    return run_forward(
        "conv_transpose1d_forward", 1, x, w, b, stride, padding, output_padding, dilation, groups, layout, algorithm
    )  # fmt: skip


def conv_transpose1d_backward(
    dout: Any, cache: TransposedCache, *, wrt: Any = ("x", "w", "b")
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """(dx, dw, db), given the gradient by the output of `conv_transpose1d_forward`; see `conv2d_backward`."""
    return run_backward("conv_transpose1d_backward", "conv_transpose1d_forward", 1, dout, cache, wrt)


def conv_transpose3d(
    x: Any, w: Any, b: Any = None, *, stride: Any = 1, padding: Any = 0, output_padding: Any = 0, dilation: Any = 1,
    groups: int = 1, layout: str = "NCDHW", algorithm: str = "auto",
) -> np.ndarray:  # fmt: skip
    """3-D transposed convolution: `conv_transpose2d` along three axes.

    x is (N, C, D, H, W), or (N, D, H, W, C) with layout "NDHWC"; w is (C, F / groups, KD, KH, KW), or
    (KD, KH, KW, F / groups, C). Options are an int or one entry for each of (depth, vertical, horizontal).

    Examples
    --------
    >>> import numpy as np
    >>> conv_transpose3d(np.ones((1, 2, 3, 4, 5)), np.ones((2, 6, 2, 2, 2)), stride=2).shape
    (1, 6, 6, 8, 10)
    """
    return run_forward(
        "conv_transpose3d", 3, x, w, b, stride, padding, output_padding, dilation, groups, layout, algorithm
    )[0]  # fmt: skip


def conv_transpose3d_forward(
    x: Any, w: Any, b: Any = None, *, stride: Any = 1, padding: Any = 0, output_padding: Any = 0, dilation: Any = 1,
    groups: int = 1, layout: str = "NCDHW", algorithm: str = "auto",
) -> tuple[np.ndarray, TransposedCache]:  # fmt: skip
    """`conv_transpose3d` that also returns what `conv_transpose3d_backward` needs: (out, cache)."""
    return run_forward(
        "conv_transpose3d_forward", 3, x, w, b, stride, padding, output_padding, dilation, groups, layout, algorithm
    )  # fmt: skip


def conv_transpose3d_backward(
    dout: Any, cache: TransposedCache, *, wrt: Any = ("x", "w", "b")
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """(dx, dw, db), given the gradient by the output of `conv_transpose3d_forward`; see `conv2d_backward`."""
    return run_backward("conv_transpose3d_backward", "conv_transpose3d_forward", 3, dout, cache, wrt)
