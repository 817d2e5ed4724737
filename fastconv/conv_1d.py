"""1-D convolution: `conv2d` of images of height 1, on views of the same numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.conv import ConvCache, channels_of, run_backward, run_forward


def conv1d(
    x: Any, w: Any, b: Any = None, *, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
    padding_mode: str = "zeros", layout: str = "NCW", activation: str | None = None, algorithm: str = "auto",
    out: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """1-D convolution (cross-correlation): `conv2d` along one axis, with all its options.

    out[n, f, ow] = b[f] + sum over c, kw of w[f, c, kw] * x[n, c, ow * stride + kw * dilation - pad]

    Parameters
    ----------
    x : (N, C, W) array, or (N, W, C) with layout "NWC". Any strides, byte order; never changed.
    w : (F, C / groups, KW), or (KW, C / groups, F) with layout "NWC".
    b : (F,) or None.
    stride, dilation : int or a sequence of one, at least 1.
    padding : int, (left, right), "valid", "same" or "same_lower".

    The others are as for `conv2d`.

    Returns
    -------
    (N, F, OW) or (N, OW, F), of the arrays' common dtype as for `conv2d`.

    Raises
    ------
    ValueError : wrong shape or value. TypeError : wrong type. Both name the argument and show the values.

    Examples
    --------
    >>> import numpy as np
    >>> conv1d(np.arange(5.0).reshape(1, 1, 5), np.ones((1, 1, 3)), padding=(2, 0))[0, 0]
    array([0., 1., 3., 6., 9.])
    """
    return run_forward(
        "conv1d", x, w, b, stride, padding, dilation, groups, padding_mode, layout, activation, algorithm, out, False,
        axes=1,
    )[0]  # fmt: skip


def conv1d_forward(
    x: Any, w: Any, b: Any = None, *, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
    padding_mode: str = "zeros", layout: str = "NCW", activation: str | None = None, algorithm: str = "auto",
    out: np.ndarray | None = None,
) -> tuple[np.ndarray, ConvCache]:  # fmt: skip
    """`conv1d` that also returns what `conv1d_backward` needs: (out, cache). Arguments and errors as for `conv1d`.

    Examples
    --------
    >>> import numpy as np
    >>> out, cache = conv1d_forward(np.ones((1, 2, 6)), np.ones((4, 2, 3)), np.zeros(4))
    >>> dx, dw, db = conv1d_backward(np.ones_like(out), cache)
    >>> dx.shape, dw.shape, db
    ((1, 2, 6), (4, 2, 3), array([4., 4., 4., 4.]))
    """
    result, cache = run_forward(
        "conv1d_forward", x, w, b, stride, padding, dilation, groups, padding_mode, layout, activation, algorithm, out,
        True, axes=1,
    )  # fmt: skip
    assert cache is not None
    return result, cache


def conv1d_backward(
    dout: Any, cache: ConvCache, *, wrt: Any = ("x", "w", "b")
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Gradients by x, w and b, given that by the output of `conv1d_forward`; see `conv2d_backward`."""
    return run_backward("conv1d_backward", "conv1d_forward", 1, dout, cache, wrt)


def depthwise_conv1d(x: Any, w: Any, b: Any = None, *, layout: str = "NCW", **options: Any) -> np.ndarray:
    """`conv1d` with one group per channel of x: w is (C * multiplier, 1, KW), or (KW, 1, C * multiplier).

    Takes the options of `conv1d` except `groups`.

    Examples
    --------
    >>> import numpy as np
    >>> depthwise_conv1d(np.ones((1, 8, 6)), np.ones((8, 1, 3))).shape
    (1, 8, 4)
    """
    return conv1d(x, w, b, layout=layout, groups=channels_of("depthwise_conv1d", 1, x, layout, options), **options)


def depthwise_conv1d_forward(
    x: Any, w: Any, b: Any = None, *, layout: str = "NCW", **options: Any
) -> tuple[np.ndarray, ConvCache]:
    """`conv1d_forward` with one group per channel of x; see `depthwise_conv1d`."""
    groups = channels_of("depthwise_conv1d_forward", 1, x, layout, options)
    return conv1d_forward(x, w, b, layout=layout, groups=groups, **options)


def depthwise_conv1d_backward(
    dout: Any, cache: ConvCache, *, wrt: Any = ("x", "w", "b")
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Gradients of `depthwise_conv1d_forward`; the same as `conv1d_backward`."""
    return conv1d_backward(dout, cache, wrt=wrt)
