"""`im2col` against windows cut out one by one, `col2im` against the adjoint identity."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastconv


def cut_windows(x, kernel, stride, pads, dilation):
    """(N, C * KH * KW, OH * OW) by plain loops over windows, channels-first."""
    padded = np.pad(x, ((0, 0), (0, 0), *pads))
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    windows = [
        padded[:, :, i : i + reach[0] : dilation[0], j : j + reach[1] : dilation[1]].reshape(len(x), -1)
        for i in range(0, padded.shape[2] - reach[0] + 1, stride[0])
        for j in range(0, padded.shape[3] - reach[1] + 1, stride[1])
    ]
    return np.stack(windows, axis=2)


pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
side = st.tuples(st.integers(0, 3), st.integers(0, 3))


@given(
    size=st.tuples(st.integers(7, 12), st.integers(7, 12)),
    channels=st.integers(1, 3),
    kernel=pair,
    stride=pair,
    dilation=pair,
    pads=st.tuples(side, side),
    layout=st.sampled_from(["NCHW", "NHWC"]),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_windows_and_their_transpose(size, channels, kernel, stride, dilation, pads, layout, dtype):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, channels, *size)).astype(dtype)
    expected = cut_windows(x, kernel, stride, pads, dilation)
    if layout == "NHWC":
        taps = kernel[0] * kernel[1]
        expected = expected.reshape(2, channels, taps, -1).transpose(0, 3, 2, 1).reshape(2, -1, taps * channels)
        x = x.transpose(0, 2, 3, 1)
    options = {"stride": stride, "padding": pads, "dilation": dilation, "layout": layout}
    columns = fastconv.im2col(x, kernel, **options)
    np.testing.assert_array_equal(columns, expected)
    assert columns.dtype == dtype

    # <im2col(x), y> = <x, col2im(y)>
    y = rng.standard_normal(columns.shape).astype(dtype)
    image = fastconv.col2im(y, size, kernel, **options)
    assert image.shape == x.shape and image.dtype == dtype
    np.testing.assert_allclose(np.vdot(x, image), np.vdot(columns, y), rtol=1e-4, atol=1e-3)


def test_product_with_the_weights_is_the_convolution():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 3, 8, 9)), rng.standard_normal((4, 3, 3, 3))
    product = w.reshape(4, -1) @ fastconv.im2col(x, 3, stride=2, padding="same")
    np.testing.assert_allclose(product.reshape(2, 4, 4, 5), fastconv.conv2d(x, w, stride=2, padding="same"))


def test_errors():
    x = np.ones((1, 1, 3, 3))
    with pytest.raises(ValueError, match=r"im2col: the dilated kernel must not be larger .* got kernel \(4, 4\)"):
        fastconv.im2col(x, 4)
    with pytest.raises(ValueError, match=r"columns must hold 2 x 2 = 4 windows .* got shape \(1, 4, 3\)"):
        fastconv.col2im(np.ones((1, 4, 3)), (3, 3), 2)
    with pytest.raises(ValueError, match="stride must be at least 1, got 0"):
        fastconv.im2col(x, 2, stride=0)
    with pytest.raises(TypeError, match="x must hold float16"):
        fastconv.im2col(x.astype(complex), 2)
