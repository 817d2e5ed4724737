"""The gradient of w of one channel per group, and of few, whether or not a pass is predicted to be the fastest."""

from __future__ import annotations

import numpy as np
import pytest
from conv_cases import DTYPES, filters, images, normal, use_tiny_blocks
from oracles import convolution as oracle
from tolerances import assert_close

from fastconv import explain_conv2d
from fastconv._kernels.isa import MACHINE
from fastconv.algorithms.depthwise_gradient import DepthwiseGradientPass
from fastconv.algorithms.depthwise_plane_gradient import PlaneGradientPass
from fastconv.algorithms.grouped_gradient import GroupedGradient

# (images, channels, height, width), kernel, options: channels around one, two and eight vectors, taps around what
# registers hold, edges that meet no tap.
CASES = [
    ((2, 1, 5, 4), (3, 3), {"padding": 1}),
    ((2, 15, 9, 7), (3, 3), {"padding": 1}),
    ((1, 33, 8, 9), (3, 3), {"padding": ((0, 2), (2, 0)), "stride": 2}),
    ((3, 130, 6, 5), (2, 4), {"stride": (3, 1), "padding": ((1, 0), (2, 1))}),
    ((1, 20, 12, 13), (5, 5), {"padding": 2}),
    ((1, 17, 11, 12), (7, 7), {"padding": 3, "dilation": 2}),
    ((70, 3, 4, 4), (3, 3), {"padding": 1}),
    ((1, 16, 3, 3), (1, 1), {"padding": 2}),
]


# Channels-first planes that keep their size: of less than a vector, of vectors without whole rows between them, of a
# few blocks of sums; padding on one side, dilation, kernels as large as the plane.
SAME_SIZE = [
    ((2, 1, 3, 2), (3, 3), {"padding": 1}),
    ((3, 5, 7, 7), (3, 3), {"padding": 1}),
    ((1, 33, 14, 13), (3, 3), {"padding": ((2, 0), (0, 2))}),
    ((2, 3, 40, 31), (3, 5), {"padding": ((1, 1), (2, 2))}),
    ((1, 4, 9, 80), (2, 3), {"padding": ((0, 1), (2, 2)), "dilation": (1, 2)}),
    ((5, 2, 70, 66), (3, 3), {"padding": 1}),
    ((1, 2, 5, 4), (4, 4), {"padding": ((2, 1), (1, 2))}),
    ((2, 3, 6, 6), (1, 1), {}),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tiny", (False, True))
@pytest.mark.parametrize(("shape", "kernel", "options"), CASES)
def test_channels_last(shape, kernel, options, tiny, dtype, monkeypatch):
    check(DepthwiseGradientPass, "NHWC", shape, kernel, options, tiny, dtype, monkeypatch)


@pytest.mark.skipif(MACHINE.vector_bits != 512, reason="masks are no registers of this vector unit")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tiny", (False, True))
@pytest.mark.parametrize(("shape", "kernel", "options"), SAME_SIZE)
def test_planes_that_keep_their_size(shape, kernel, options, tiny, dtype, monkeypatch):
    check(PlaneGradientPass, "NCHW", shape, kernel, options, tiny, dtype, monkeypatch)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("group", [1, 4, 24])
@pytest.mark.parametrize("width", [4, 5, 6, 8, 11, 13])
def test_last_run_of_taps_may_be_longer_than_the_row(width, group, layout):
    channels = 48
    x, w = normal(1, (2, channels, 4, 15)), normal(2, (channels, group, 2, width))
    options = {"padding": ((1, 0), (width // 2, 1)), "stride": (1, 2), "groups": channels // group}
    out = oracle.conv2d(x, w, **options)
    dout = normal(3, out.shape)
    expected = filters(oracle.conv2d_gradients(x, w, dout, **options)[1], layout)
    x, dout = (images(array, layout).astype(np.float32) for array in (x, dout))
    problem = explain_conv2d(x.shape, expected.shape, layout=layout, dtype="float32", **options).problem
    dw = np.full(expected.shape, np.nan, np.float32)
    GroupedGradient(problem, 2).run(x, dout, dw)
    assert_close(dw, expected, dout[:, 0].size if layout == "NCHW" else dout[..., 0].size)


def check(pass_, layout, shape, kernel, options, tiny, dtype, monkeypatch):
    if tiny:
        use_tiny_blocks(monkeypatch.setattr)
    channels = shape[1]
    x, w = normal(1, shape), normal(2, (channels, 1, *kernel))
    out = oracle.conv2d(x, w, groups=channels, **options)
    dout = normal(3, out.shape)
    expected = filters(oracle.conv2d_gradients(x, w, dout, groups=channels, **options)[1], layout)
    pixels = dout[:, 0].size
    x, dout = (images(array, layout).astype(dtype) for array in (x, dout))
    problem = explain_conv2d(
        x.shape, expected.shape, layout=layout, dtype=dtype, groups=channels, **options
    ).problem  # fmt: skip
    assert not pass_.declines(problem)
    dw = np.full(expected.shape, np.nan, dtype)
    pass_(problem, 2).run(x, dout, dw)
    assert_close(dw, expected, pixels)
