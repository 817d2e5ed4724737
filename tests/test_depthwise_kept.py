"""Depthwise convolution over kept planes, whether or not it is predicted to be the fastest."""

from __future__ import annotations

import numpy as np
import pytest
from conv_cases import DTYPES, normal, use_tiny_blocks
from oracles import convolution as oracle
from tolerances import assert_close

from fastconv import explain_conv2d
from fastconv._kernels.isa import MACHINE
from fastconv.algorithms.depthwise_kept import KeptGradientPass, KeptPass

pytestmark = pytest.mark.skipif(MACHINE.vector_bits != 512, reason="masks are no registers of this vector unit")

# (images, channels, height, width), kernel, options: rows of which four, two and one fit a vector and that need
# several, rows around a tile's, both strides in both axes, padding on one side and beyond the kernel.
CASES = [
    ((2, 1, 3, 2), (3, 3), {"padding": 1}),
    ((5, 9, 4, 3), (3, 3), {"padding": 1}),
    ((3, 17, 7, 7), (3, 3), {"padding": 1}),
    ((2, 3, 15, 7), (3, 3), {"padding": 1}),
    ((1, 5, 8, 6), (5, 5), {"padding": 2}),
    ((1, 33, 14, 13), (3, 3), {"padding": ((2, 0), (0, 2))}),
    ((2, 3, 40, 31), (3, 5), {"padding": ((1, 1), (2, 2))}),
    ((2, 2, 29, 70), (3, 3), {"padding": 1}),
    ((1, 4, 9, 9), (7, 7), {"padding": 3}),
    ((3, 6, 6, 5), (1, 1), {}),
    ((1, 2, 3, 3), (1, 1), {"padding": 2}),
    ((2, 3, 5, 4), (2, 4), {"padding": ((2, 1), (0, 5))}),
    ((3, 9, 14, 14), (3, 3), {"padding": 1, "stride": 2}),
    ((2, 4, 13, 15), (3, 3), {"padding": ((0, 1), (1, 0)), "stride": 2}),
    ((2, 3, 28, 67), (5, 5), {"padding": 2, "stride": 2}),
    ((2, 3, 11, 12), (3, 2), {"padding": 1, "stride": (2, 1)}),
    ((2, 3, 9, 33), (2, 3), {"padding": (0, 1), "stride": (1, 2)}),
    ((1, 3, 4, 4), (1, 1), {"padding": 3, "stride": 2}),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tiny", (False, True))
@pytest.mark.parametrize(("shape", "kernel", "options"), CASES)
def test_all_passes(shape, kernel, options, tiny, dtype, monkeypatch):
    if tiny:
        use_tiny_blocks(monkeypatch.setattr)
    channels = shape[1]
    x, w, b = normal(1, shape), normal(2, (channels, 1, *kernel)), normal(3, (channels,))
    out = oracle.conv2d(x, w, b, groups=channels, **options)
    dout = normal(4, out.shape)
    dx, dw, _ = oracle.conv2d_gradients(x, w, dout, groups=channels, **options)
    p = explain_conv2d(x.shape, w.shape, dtype=dtype, groups=channels, **options).problem
    given = [array.astype(dtype) for array in (x, w, b, dout)]
    none, taps = np.empty(0, dtype), w[0].size
    assert not KeptPass.declines(p, gradient=False)
    check(KeptPass(p, 2, gradient=False), (given[0], given[1], given[2]), out, taps)
    check(KeptPass(p, 2, gradient=False, relu=True), (given[0], given[1], none), np.maximum(out - bias_of(b), 0), taps)
    if not KeptPass.declines(p, gradient=True):
        check(KeptPass(p, 2, gradient=True), (given[3], given[1], none), dx, taps)
    if not KeptGradientPass.declines(p):
        check(KeptGradientPass(p, 2), (given[0], given[3]), dw, dout[:, 0].size)


def bias_of(b):
    return b[:, None, None]


def check(work, operands, expected, terms):
    given = [operand.copy() for operand in operands]
    result = np.full(expected.shape, np.nan, operands[0].dtype)
    work.run(*operands, result)
    assert_close(result, expected, terms)
    for operand, before in zip(operands, given, strict=True):
        assert np.array_equal(operand, before)


@pytest.mark.parametrize("width", [7, 14, 18])
@pytest.mark.parametrize("stride", [1, 2])
def test_what_is_infinite_stays_where_it_is_met(width, stride):
    options = {"padding": 1, "stride": stride, "groups": 4}
    x, w = normal(1, (2, 4, 9, width)), normal(2, (4, 1, 3, 3))
    x[0, 1, 3, width - 1], x[1, 2, 8, 0] = np.inf, np.nan
    with np.errstate(invalid="ignore"):
        out = oracle.conv2d(x, w, **options)
        dout = normal(3, out.shape)
        dw = oracle.conv2d_gradients(x, w, dout, **options)[1]
    p = explain_conv2d(x.shape, w.shape, dtype="float32", **options).problem
    x, w, dout = (array.astype(np.float32) for array in (x, w, dout))
    for work, operands, expected in (
        (KeptPass(p, 2, gradient=False), (x, w, np.empty(0, np.float32)), out),
        (KeptGradientPass(p, 2), (x, dout), dw),
    ):
        result = np.empty(expected.shape, np.float32)
        work.run(*operands, result)
        assert 0 < np.count_nonzero(np.isfinite(expected)) < expected.size
        assert np.array_equal(np.isfinite(result), np.isfinite(expected))
