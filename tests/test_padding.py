"""`pad2d` against `np.pad`, its gradient against the adjoint identity."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastconv

NUMPY_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def numpy_pad(x, pads, mode, layout, value=0.0):
    widths = [(0, 0)] * 4
    widths[1 if layout == "NHWC" else 2], widths[2 if layout == "NHWC" else 3] = pads
    options = {"constant_values": value} if mode == "constant" else {}
    return np.pad(x, widths, mode=NUMPY_MODES[mode], **options)


@settings(max_examples=60, deadline=None)
@given(
    mode=st.sampled_from(sorted(NUMPY_MODES)),
    layout=st.sampled_from(["NCHW", "NHWC"]),
    dtype=st.sampled_from([np.float32, np.float64]),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    pads=st.tuples(*[st.tuples(st.integers(0, 18), st.integers(0, 18))] * 2),
    channels=st.integers(1, 4),
    images=st.integers(0, 3),
)
def test_forward_and_gradient(mode, layout, dtype, size, pads, channels, images):
    most = [s - 1 if mode == "reflect" else s if mode == "circular" else 18 for s in size]
    pads = tuple((min(a, m), min(b, m)) for (a, b), m in zip(pads, most, strict=True))
    shape = (images, *size, channels) if layout == "NHWC" else (images, channels, *size)
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape).astype(dtype)
    out, cache = fastconv.pad2d_forward(x, pads, mode=mode, layout=layout)
    np.testing.assert_array_equal(out, numpy_pad(x, pads, mode, layout))
    assert out.dtype == dtype

    dout = rng.standard_normal(out.shape).astype(dtype)
    dx = fastconv.pad2d_backward(dout, cache)
    assert dx.shape == x.shape and dx.dtype == dtype
    # <pad(v), dout> = <v, dx> for every v
    v = rng.standard_normal(shape)
    left = np.vdot(numpy_pad(v, pads, mode, layout), dout.astype(np.float64))
    np.testing.assert_allclose(np.vdot(v, dx.astype(np.float64)), left, rtol=1e-5, atol=1e-4)


def test_constant_value_and_argument_forms():
    x = np.ones((1, 1, 2, 2))
    expected = numpy_pad(x, ((1, 1), (2, 2)), "constant", "NCHW", value=-3.0)
    np.testing.assert_array_equal(fastconv.pad2d(x, (1, 2), value=-3.0), expected)
    np.testing.assert_array_equal(fastconv.pad2d(x, ((1, 1), (2, 2)), value=-3), expected)
    assert fastconv.pad2d(x, 0).shape == x.shape


@pytest.mark.parametrize("dtype, result", [(np.float16, np.float16), (np.int32, np.float64), (">f4", np.float32)])
def test_dtypes(dtype, result):
    x = np.arange(12).reshape(1, 2, 2, 3).astype(dtype)
    out = fastconv.pad2d(x, 1)
    assert out.dtype == result
    np.testing.assert_array_equal(out, numpy_pad(x.astype(np.float64), ((1, 1), (1, 1)), "constant", "NCHW"))


def test_strided_and_read_only_input_is_left_alone():
    base = np.arange(240.0).reshape(2, 3, 5, 8)
    x = base[:, ::-1, ::2, 1::2]
    x.flags.writeable = False
    before = x.copy()
    out = fastconv.pad2d(x, 1, mode="reflect")
    np.testing.assert_array_equal(out, numpy_pad(before, ((1, 1), (1, 1)), "reflect", "NCHW"))
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize(
    "arguments, options, error, message",
    [
        ((np.ones((2, 2)), 1), {}, ValueError, r"pad2d: x must have 4 dimensions, got shape \(2, 2\)"),
        ((np.ones((1, 1, 2, 2)), -1), {}, ValueError, "padding must be at least 0, got -1"),
        ((np.ones((1, 1, 2, 2)), 1.5), {}, TypeError, "padding must be an integer, got 1.5"),
        ((np.ones((1, 1, 2, 2)), "same"), {}, ValueError, "padding must be given in numbers, got 'same'"),
        ((np.ones((1, 1, 2, 2)), (1, 2, 3)), {}, ValueError, r"padding must be an integer, .*got \(1, 2, 3\)"),
        ((np.ones((1, 1, 2, 2)), 1), {"mode": "mirror"}, ValueError, "mode must be one of 'constant'.*got 'mirror'"),
        ((np.ones((1, 1, 2, 2)), 1), {"value": np.nan}, ValueError, "value must be finite, got nan"),
        ((np.ones((1, 1, 2, 2)), 2), {"mode": "reflect"}, ValueError, r"smaller than the height, got \(2, 2\) for 2"),
        ((np.ones((1, 1, 2, 2)), 3), {"mode": "circular"}, ValueError, r"not exceed the height, got \(3, 3\) for 2"),
    ],
)
def test_errors(arguments, options, error, message):
    with pytest.raises(error, match=message):
        fastconv.pad2d(*arguments, **options)


def test_backward_errors():
    _, cache = fastconv.pad2d_forward(np.ones((1, 1, 2, 2)), 1)
    with pytest.raises(ValueError, match=r"dout must have the output's shape \(1, 1, 4, 4\), got \(1, 1, 2, 2\)"):
        fastconv.pad2d_backward(np.ones((1, 1, 2, 2)), cache)
    with pytest.raises(TypeError, match="cache must come from pad2d_forward, got dict"):
        fastconv.pad2d_backward(np.ones((1, 1, 4, 4)), {})
