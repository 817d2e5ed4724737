"""3-D convolution: depth is folded into the channels of 2-D convolutions, see `fastconv.folded`."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.conv import ConvCache, channels_of, run_backward, run_forward


def conv3d(
    x: Any, w: Any, b: Any = None, *, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
    padding_mode: str = "zeros", layout: str = "NCDHW", activation: str | None = None, algorithm: str = "auto",
    out: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """3-D convolution (cross-correlation): `conv2d` along three axes, with all its options.

    Parameters
    ----------
    x : (N, C, D, H, W) array, or (N, D, H, W, C) with layout "NDHWC". Any strides, byte order; never changed.
    w : (F, C / groups, KD, KH, KW), or (KD, KH, KW, C / groups, F) with layout "NDHWC".
    b : (F,) or None.
    stride, dilation : int or (depth, vertical, horizontal), at least 1.
    padding : int, (depth, vertical, horizontal), ((front, back), (top, bottom), (left, right)), "valid", "same" or
        "same_lower".
    algorithm : as for `conv2d`; a name is that of the 2-D convolution of KD planes side by side, which has
        KD * C / groups channels per group.

    The others are as for `conv2d`.

    Returns
    -------
    (N, F, OD, OH, OW) or (N, OD, OH, OW, F), of the arrays' common dtype as for `conv2d`.

    Raises
    ------
    ValueError : wrong shape or value. TypeError : wrong type. Both name the argument and show the values.

    Examples
    --------
    >>> import numpy as np
    >>> video = np.ones((1, 3, 8, 16, 16), np.float32)
    >>> out = conv3d(video, np.ones((4, 3, 3, 3, 3), np.float32), padding=1)
    >>> out.shape, float(out[0, 0, 4, 8, 8])
    ((1, 4, 8, 16, 16), 81.0)
    """
    return run_forward(
        "conv3d", x, w, b, stride, padding, dilation, groups, padding_mode, layout, activation, algorithm, out, False,
        axes=3,
    )[0]  # fmt: skip


def conv3d_forward(
    x: Any, w: Any, b: Any = None, *, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
    padding_mode: str = "zeros", layout: str = "NCDHW", activation: str | None = None, algorithm: str = "auto",
    out: np.ndarray | None = None,
) -> tuple[np.ndarray, ConvCache]:  # fmt: skip
    """`conv3d` that also returns what `conv3d_backward` needs: (out, cache). Arguments and errors as for `conv3d`.

    Examples
    --------
    >>> import numpy as np
    >>> out, cache = conv3d_forward(np.ones((1, 2, 4, 5, 5)), np.ones((2, 2, 3, 3, 3)), np.zeros(2))
    >>> dx, dw, db = conv3d_backward(np.ones_like(out), cache)
    >>> dx.shape, dw.shape, db
    ((1, 2, 4, 5, 5), (2, 2, 3, 3, 3), array([18., 18.]))
    """
    result, cache = run_forward(
        "conv3d_forward", x, w, b, stride, padding, dilation, groups, padding_mode, layout, activation, algorithm, out,
        True, axes=3,
    )  # fmt: skip
    assert cache is not None
    return result, cache


def conv3d_backward(
    dout: Any, cache: ConvCache, *, wrt: Any = ("x", "w", "b")
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Gradients by x, w and b, given that by the output of `conv3d_forward`; see `conv2d_backward`."""
    return run_backward("conv3d_backward", "conv3d_forward", 3, dout, cache, wrt)


def depthwise_conv3d(x: Any, w: Any, b: Any = None, *, layout: str = "NCDHW", **options: Any) -> np.ndarray:
    """`conv3d` with one group per channel of x.

    w is (C * multiplier, 1, KD, KH, KW), or (KD, KH, KW, 1, C * multiplier). Takes the options of `conv3d`
    except `groups`.

    Examples
    --------
    >>> import numpy as np
    >>> depthwise_conv3d(np.ones((1, 8, 6, 6, 6)), np.ones((8, 1, 3, 3, 3))).shape
    (1, 8, 4, 4, 4)
    """
    return conv3d(x, w, b, layout=layout, groups=channels_of("depthwise_conv3d", 3, x, layout, options), **options)


def depthwise_conv3d_forward(
    x: Any, w: Any, b: Any = None, *, layout: str = "NCDHW", **options: Any
) -> tuple[np.ndarray, ConvCache]:
    """`conv3d_forward` with one group per channel of x; see `depthwise_conv3d`."""
    groups = channels_of("depthwise_conv3d_forward", 3, x, layout, options)
    return conv3d_forward(x, w, b, layout=layout, groups=groups, **options)


def depthwise_conv3d_backward(
    dout: Any, cache: ConvCache, *, wrt: Any = ("x", "w", "b")
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Gradients of `depthwise_conv3d_forward`; the same as `conv3d_backward`."""
    return conv3d_backward(dout, cache, wrt=wrt)
