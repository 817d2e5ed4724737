"""2-D convolution, plain and depthwise, and the question which algorithm would run."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv import arguments
from fastconv.conv import ConvCache, channels_of, run_backward, run_forward
from fastconv.plan import Explanation, check_algorithm, explain
from fastconv.problem import LAYOUTS, ConvProblem
from fastconv.sizes import sizes_of


def conv2d(
    x: Any, w: Any, b: Any = None, *, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
    padding_mode: str = "zeros", layout: str = "NCHW", activation: str | None = None, algorithm: str = "auto",
    out: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """2-D convolution (cross-correlation, as in every deep-learning library).

    out[n, f, oh, ow] = b[f] + sum over c, kh, kw of w[f, c, kh, kw] * x[n, c, oh * stride + kh * dilation - pad, ...]

    Parameters
    ----------
    x : (N, C, H, W) array, or (N, H, W, C) with layout "NHWC". Any strides, byte order; never changed.
    w : (F, C / groups, KH, KW), or (KH, KW, C / groups, F) with layout "NHWC".
    b : (F,) or None.
    stride, dilation : int or (vertical, horizontal), at least 1.
    padding : int, (vertical, horizontal), ((top, bottom), (left, right)), "valid", "same" (TensorFlow's rule at any
        stride: ceil(H / stride) outputs, the odd cell at the end) or "same_lower" (the odd cell at the start).
    groups : filters and channels fall into this many independent groups.
    padding_mode : "zeros", "reflect", "replicate" or "circular".
    activation : None, or "relu" (applied while results are in registers).
    algorithm : "auto" (the fastest of direct-class accuracy), "fast" (also algorithms with larger rounding errors), or
        a name from `conv2d_algorithms()`.
    out : array to write into, of the result's shape and dtype.

    Returns
    -------
    (N, F, OH, OW) or (N, OH, OW, F), of the arrays' common dtype: float32 and float64 are computed as such, float16
    in float32, integers and booleans become float64. OH = (H + top + bottom - dilation * (KH - 1) - 1) // stride + 1.

    Raises
    ------
    ValueError : wrong shape or value. TypeError : wrong type. Both name the argument and show the values.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.ones((1, 1, 4, 4), np.float32)
    >>> conv2d(x, np.ones((1, 1, 3, 3), np.float32), padding=1)[0, 0]
    array([[4., 6., 6., 4.],
           [6., 9., 9., 6.],
           [6., 9., 9., 6.],
           [4., 6., 6., 4.]], dtype=float32)
    """
    return run_forward(
        "conv2d", x, w, b, stride, padding, dilation, groups, padding_mode, layout, activation, algorithm, out, False
    )[0]


def conv2d_forward(
    x: Any, w: Any, b: Any = None, *, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
    padding_mode: str = "zeros", layout: str = "NCHW", activation: str | None = None, algorithm: str = "auto",
    out: np.ndarray | None = None,
) -> tuple[np.ndarray, ConvCache]:  # fmt: skip
    """`conv2d` that also returns what `conv2d_backward` needs: (out, cache). Arguments and errors as for `conv2d`.

    Examples
    --------
    >>> import numpy as np
    >>> out, cache = conv2d_forward(np.ones((1, 2, 5, 5)), np.ones((3, 2, 3, 3)), np.zeros(3))
    >>> dx, dw, db = conv2d_backward(np.ones_like(out), cache)
    >>> dx.shape, dw.shape, db
    ((1, 2, 5, 5), (3, 2, 3, 3), array([9., 9., 9.]))
    """
    result, cache = run_forward(
        "conv2d_forward", x, w, b, stride, padding, dilation, groups, padding_mode, layout, activation, algorithm, out,
        True,
    )  # fmt: skip
    assert cache is not None
    return result, cache


def conv2d_backward(
    dout: Any, cache: ConvCache, *, wrt: Any = ("x", "w", "b")
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Gradients of a loss by x, w and b, given its gradient by the output of `conv2d_forward`.

    Parameters
    ----------
    dout : array of the output's shape.
    cache : from `conv2d_forward`. Gradients are computed in the accuracy class that forward was given.
    wrt : which gradients to compute; the others are None. A first layer needs no "x".

    Returns
    -------
    (dx, dw, db), each of the shape of its array and of the forward result's dtype; db is None without b.

    Raises
    ------
    ValueError : dout has another shape than the output, or wrt another name than x, w, b.
    TypeError : cache does not come from `conv2d_forward`.
    """
    return run_backward("conv2d_backward", "conv2d_forward", 2, dout, cache, wrt)


def depthwise_conv2d(x: Any, w: Any, b: Any = None, *, layout: str = "NCHW", **options: Any) -> np.ndarray:
    """`conv2d` with one group per channel of x: w is (C * multiplier, 1, KH, KW), or (KH, KW, 1, C * multiplier).

    Takes the options of `conv2d` except `groups`.

    Examples
    --------
    >>> import numpy as np
    >>> depthwise_conv2d(np.ones((1, 8, 6, 6)), np.ones((8, 1, 3, 3))).shape
    (1, 8, 4, 4)
    """
    return conv2d(x, w, b, layout=layout, groups=channels_of("depthwise_conv2d", 2, x, layout, options), **options)


def depthwise_conv2d_forward(
    x: Any, w: Any, b: Any = None, *, layout: str = "NCHW", **options: Any
) -> tuple[np.ndarray, ConvCache]:
    """`conv2d_forward` with one group per channel of x; see `depthwise_conv2d`."""
    groups = channels_of("depthwise_conv2d_forward", 2, x, layout, options)
    return conv2d_forward(x, w, b, layout=layout, groups=groups, **options)


def depthwise_conv2d_backward(
    dout: Any, cache: ConvCache, *, wrt: Any = ("x", "w", "b")
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Gradients of `depthwise_conv2d_forward`; the same as `conv2d_backward`."""
    return conv2d_backward(dout, cache, wrt=wrt)


def explain_conv2d(
    x_shape: tuple[int, ...], w_shape: tuple[int, ...], *, dtype: Any = np.float32, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1, layout: str = "NCHW", algorithm: str = "auto",
    max_workspace: int | None = None,
) -> Explanation:  # fmt: skip
    """Say which algorithm would run each pass and why, the others' predictions, FLOPs and workspace bytes.

    `max_workspace` is a bound in bytes to suppose instead of the setting (`fastconv.runtime.set_max_workspace`).

    Returns an `Explanation`: print it, or read its fields `chosen`, `predictions`, `flops`, `workspace`.

    Examples
    --------
    >>> explain_conv2d((8, 64, 56, 56), (64, 64, 3, 3), padding=1).flops
    1849688064
    """
    function = "explain_conv2d"
    arguments.choice(function, "layout", layout, LAYOUTS)
    check_algorithm(function, algorithm)
    x_shape = arguments.shape(function, "x_shape", x_shape, 4)
    w_shape = arguments.shape(function, "w_shape", w_shape, 4)
    if max_workspace is not None:
        max_workspace = arguments.integer(function, "max_workspace", max_workspace, 0)
    try:
        example = np.empty(0, dtype)
    except TypeError:
        raise TypeError(f"{function}: dtype must be a NumPy dtype, got {dtype!r}") from None
    compute = arguments.dtypes(arguments.array(function, "dtype", example))[0]
    problem = sizes_of(function, x_shape, w_shape, stride, padding, dilation, groups, layout).problem(compute)
    assert isinstance(problem, ConvProblem)
    return explain(problem, algorithm, max_workspace)
