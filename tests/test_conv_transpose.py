"""conv_transpose1d, 2d and 3d, forward and backward: plain loops, adjoint identities, options, arguments."""

from __future__ import annotations

import array_forms
import numpy as np
import pytest
from conv_cases import normal
from oracles import convolution_axes as oracle
from tolerances import assert_close

import fastconv
from fastconv.arguments import LAYOUTS

# name: x shape, w shape, options as both take them, pads
CASES = {
    "line": ((2, 3, 5), (3, 4, 3), {}, [(0, 0)]),
    "line, strided, grouped": ((2, 4, 6), (4, 3, 4), {"stride": (3,), "groups": 2}, [(1, 2)]),
    "image": ((2, 3, 4, 5), (3, 4, 3, 2), {}, [(0, 0), (0, 0)]),
    "doubled": ((2, 6, 5, 4), (6, 3, 4, 4), {"stride": (2, 2)}, [(1, 1), (1, 1)]),
    "stride beyond the kernel": ((1, 2, 3, 4), (2, 3, 2, 1), {"stride": (3, 2)}, [(0, 0), (0, 0)]),
    "output padding": ((2, 3, 4, 3), (3, 2, 3, 3), {"stride": (3, 2), "output_padding": (2, 1)}, [(1, 1), (0, 1)]),
    "output padding by dilation": (
        (2, 2, 3, 4), (2, 3, 2, 2), {"dilation": (3, 2), "output_padding": (2, 1)}, [(0, 0), (1, 0)],
    ),
    "padding beyond the kernel": ((1, 2, 6, 7), (2, 2, 2, 2), {}, [(2, 3), (2, 2)]),
    "depthwise": ((2, 4, 5, 5), (4, 1, 3, 3), {"stride": (2, 1), "groups": 4}, [(1, 1), (1, 1)]),
    "dilated, grouped": ((1, 4, 4, 4), (4, 3, 2, 3), {"dilation": (2, 3), "groups": 2}, [(1, 0), (2, 2)]),
    "one pixel": ((3, 5, 1, 1), (5, 4, 4, 4), {"stride": (7, 7)}, [(0, 0), (0, 0)]),
    "volume": ((1, 3, 3, 4, 3), (3, 2, 2, 3, 3), {"stride": (2, 1, 2)}, [(0, 1), (1, 1), (1, 0)]),
    "volume, output padding": (
        (1, 2, 2, 3, 3), (2, 1, 3, 2, 2), {"stride": (2, 2, 2), "output_padding": (1, 0, 1), "groups": 2}, [(1, 1)] * 3,
    ),
}  # fmt: skip


def images(array: np.ndarray, last: bool) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(array, 1, -1)) if last else array


def filters(array: np.ndarray, last: bool) -> np.ndarray:
    return np.ascontiguousarray(array.transpose(*range(2, array.ndim), 1, 0)) if last else array


def functions(axes: int):
    return (getattr(fastconv, f"conv_transpose{axes}d{ending}") for ending in ("", "_forward", "_backward"))


def inner(a, b) -> float:
    return float(np.multiply(a, b, dtype=np.float64).sum())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
@pytest.mark.parametrize("name", CASES)
def test_plain_loops_and_adjoint_identities(name, last, dtype):
    """out is the oracle's; dx, dw and db are its derivatives, because it is linear in x, in w and in b."""
    x_shape, w_shape, options, pads = CASES[name]
    axes, groups = len(x_shape) - 2, options.get("groups", 1)
    zeros, ones = (0,) * axes, (1,) * axes
    known = {"stride": ones, "dilation": ones, "output_padding": zeros, "pads": pads, **options}
    x, w, b = normal(1, x_shape), normal(2, w_shape), normal(3, (w_shape[1] * groups,))
    expected = oracle.transpose(x, w, b, **known)
    function, forward, backward = functions(axes)
    arrays = images(x, last).astype(dtype), filters(w, last).astype(dtype), b.astype(dtype)
    given = {**options, "padding": tuple(pads), "layout": LAYOUTS[axes][last]}
    out, cache = forward(*arrays, **given)
    assert out.dtype == dtype
    assert_close(out, images(expected, last), w[:, 0].size + 1)
    np.testing.assert_array_equal(function(*arrays, **given), out)
    dout = normal(4, expected.shape)
    dx, dw, db = backward(images(dout, last).astype(dtype), cache)
    assert dx.shape == arrays[0].shape and dw.shape == arrays[1].shape
    assert_close(db, dout.sum(axis=(0, *range(2, x.ndim)), dtype=np.float64), dout[:, 0].size)
    tolerance = 1e-9 if dtype == "float64" else 1e-3
    change_x, change_w = normal(5, x.shape), normal(6, w.shape)
    moved = inner(oracle.transpose(change_x, w, **known), dout)
    assert inner(images(change_x, last), dx) == pytest.approx(moved, rel=tolerance, abs=tolerance)
    moved = inner(oracle.transpose(x, change_w, **known), dout)
    assert inner(filters(change_w, last), dw) == pytest.approx(moved, rel=tolerance, abs=tolerance)
    assert backward(images(dout, last), cache, wrt="w")[::2] == (None, None)
    assert forward(*arrays[:2], **given)[1].has_bias is False


def test_it_is_the_gradient_of_the_convolution():
    """<conv(out), x> = <out, conv_transpose(x)> for the same weights and options."""
    options = {"stride": (2, 3), "padding": ((1, 0), (2, 1)), "dilation": (1, 2), "groups": 2}
    y, w = normal(1, (2, 4, 12, 15)), normal(2, (6, 2, 3, 2))
    seen = fastconv.conv2d(y, w, **options)
    x = normal(3, seen.shape)
    extra = [n - m for n, m in zip(y.shape[2:], fastconv.conv_transpose2d(x, w, **options).shape[2:], strict=True)]
    spread = fastconv.conv_transpose2d(x, w, output_padding=extra, **options)
    assert spread.shape == y.shape
    assert inner(seen, x) == pytest.approx(inner(y, spread), rel=1e-4)


@pytest.mark.parametrize("padding", ["same", "same_lower"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 4, 5])
def test_same_multiplies_the_size_by_the_stride(kernel, stride, padding):
    x, w = normal(1, (1, 2, 4, 5)), normal(2, (2, 3, kernel, kernel))
    out = fastconv.conv_transpose2d(x, w, stride=stride, padding=padding)
    assert out.shape == (1, 3, 4 * stride, 5 * stride)
    back = fastconv.conv2d(out, w, stride=stride, padding=padding)  # the convolution that it transposes
    assert inner(back, x) == pytest.approx(inner(out, out), rel=1e-4)


def test_valid_and_forms_of_arguments():
    x, w = normal(1, (1, 2, 4, 5)), normal(2, (2, 3, 3, 3))
    expected = fastconv.conv_transpose2d(x, w, stride=2, padding=1, output_padding=1)
    forms = {"stride": [2, 2], "padding": [[1, 1], [1, 1]], "output_padding": np.array([1, 1])}
    np.testing.assert_array_equal(fastconv.conv_transpose2d(x, w, **forms), expected)
    valid = fastconv.conv_transpose2d(x, w, padding="valid")
    np.testing.assert_array_equal(valid, fastconv.conv_transpose2d(x, w))


@pytest.mark.parametrize("form", array_forms.FORMS)
def test_any_memory_layout(form):
    make = array_forms.FORMS[form]
    x, w, b = normal(1, (2, 4, 5, 6)), normal(2, (4, 3, 3, 2)), normal(3, (6,))
    out, cache = fastconv.conv_transpose2d_forward(x, w, b, stride=2, groups=2)
    got, made = fastconv.conv_transpose2d_forward(make(x), make(w), make(b), stride=2, groups=2)
    assert_close(got.astype(np.float32), out.astype(np.float64), 40)
    dout = normal(4, out.shape)
    known = fastconv.conv_transpose2d_backward(dout, cache)
    for mine, expected in zip(fastconv.conv_transpose2d_backward(make(dout), made), known, strict=True):
        assert_close(mine.astype(np.float32), expected.astype(np.float64), 300)


@pytest.mark.parametrize(("dtype", "result"), [("float16", "float16"), ("int8", "float64"), ("bool", "float64")])
def test_dtypes(dtype, result):
    x, w = (3 * normal(1, (1, 2, 4, 5))).astype(dtype), (2 * normal(2, (2, 3, 3, 3))).astype(dtype)
    out, cache = fastconv.conv_transpose2d_forward(x, w, stride=2)
    plain = {"pads": [(0, 0)] * 2, "output_padding": (0, 0), "dilation": (1, 1)}
    assert_close(out / 10, oracle.transpose(x, w, stride=(2, 2), **plain) / 10, 18)
    gradients = fastconv.conv_transpose2d_backward(out, cache, wrt=("x", "w"))[:2]
    assert {array.dtype for array in (out, *gradients)} == {np.dtype(result)}


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("N", "C", "F"), [(0, 3, 4), (2, 0, 4), (2, 3, 0)])
def test_empty_arrays(N, C, F, last):
    x, w = images(np.ones((N, C, 3, 4)), last), filters(np.ones((C, F, 2, 2)), last)
    b = np.arange(F, dtype=np.float64)
    out, cache = fastconv.conv_transpose2d_forward(x, w, b, stride=2, layout=LAYOUTS[2][last])
    assert out.shape == images(np.empty((N, F, 6, 8)), last).shape
    np.testing.assert_array_equal(out, images(np.broadcast_to(b[:, None, None], (N, F, 6, 8)), last))
    dx, dw, db = fastconv.conv_transpose2d_backward(np.ones_like(out), cache)
    assert dx.shape == x.shape and dw.shape == w.shape and not dx.any() and not dw.any()
    np.testing.assert_array_equal(db, np.full(F, N * 48.0))


X, W = np.ones((2, 4, 5, 6), np.float32), np.ones((4, 3, 3, 3), np.float32)
ERRORS = [
    ((X[0], W), {}, ValueError, ["x must have 4 dimensions", "(4, 5, 6)"]),
    ((X, W[0]), {}, ValueError, ["w must have 4 dimensions"]),
    ((X, W[:3]), {}, ValueError, ["w has 3 input channels, expected x's, 4"]),
    ((X, W), {"groups": 3}, ValueError, ["groups must divide the channels, got 3 for 4"]),
    ((X, W), {"output_padding": 1}, ValueError, ["output_padding must be smaller than stride or dilation", "1x1"]),
    ((X, W), {"output_padding": -1}, ValueError, ["output_padding must be at least 0", "-1"]),
    ((X, W), {"stride": 2, "padding": "same", "output_padding": 1}, ValueError, ["must be 0 with padding 'same'"]),
    ((X, W), {"padding": 4}, ValueError, ["padding must leave at least one output cell", "7x8"]),
    ((X, W), {"padding": "full"}, ValueError, ["padding must be one of", "'full'"]),
    ((X, W), {"stride": 0}, ValueError, ["stride must be at least 1"]),
    ((X, W), {"stride": True}, TypeError, ["stride must be an integer", "True"]),
    ((X, W), {"dilation": (1, 2, 3)}, ValueError, ["dilation must be an integer or a pair"]),
    ((X, W), {"layout": "NCW"}, ValueError, ["layout must be one of 'NCHW', 'NHWC'"]),
    ((X, W), {"algorithm": "magic"}, ValueError, ["algorithm must be one of"]),
    ((X[:, :, :0], W), {}, ValueError, ["x must have at least one cell along each axis"]),
    ((X, W[:, :, :0]), {}, ValueError, ["w must have a kernel of at least 1x1", "0x3"]),
    ((X, W, np.ones(4)), {}, ValueError, ["b must have one number per filter, shape (3,)", "(4,)"]),
    ((X, W * 1j), {}, TypeError, ["w must hold", "complex"]),
]  # fmt: skip


@pytest.mark.parametrize("case", ERRORS, ids=lambda case: " ".join(case[3])[:50])
def test_errors(case):
    arrays, options, kind, parts = case
    for function in (fastconv.conv_transpose2d, fastconv.conv_transpose2d_forward):
        with pytest.raises(kind) as error:
            function(*arrays, **options)
        assert str(error.value).startswith(f"{function.__name__}: ")
        for part in parts:
            assert part in str(error.value)


def test_errors_of_backward():
    cache = fastconv.conv_transpose2d_forward(X, W)[1]
    with pytest.raises(ValueError, match=r"dout must have the output's shape \(2, 3, 7, 8\), got"):
        fastconv.conv_transpose2d_backward(np.ones((2, 3, 7, 7)), cache)
    with pytest.raises(TypeError, match="cache must come from conv_transpose1d_forward, got one of 2 axes"):
        fastconv.conv_transpose1d_backward(np.ones((2, 3, 7)), cache)
    with pytest.raises(TypeError, match="cache must come from conv_transpose2d_forward, got ConvCache"):
        fastconv.conv_transpose2d_backward(np.ones((2, 4, 5, 6)), fastconv.conv2d_forward(X, W.swapaxes(0, 1))[1])
