"""Fully connected layers against matrix products in float64."""

from __future__ import annotations

import numpy as np
import pytest
from conv_cases import normal
from tolerances import assert_close

from fastconv import explain_conv2d
from fastconv.algorithms.product import ProductPass
from fastconv.fully_connected import linear, linear_backward, linear_forward


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(
    ("x_shape", "M"),
    [
        ((7, 30), 11),
        ((9, 6000), 9),
        ((3, 2, 4, 5), 1),
        ((1, 700), 300),
        ((5,), 3),
        ((0, 6), 4),
        ((4, 0), 3),
        ((4, 6), 0),
    ],
)
def test_linear(x_shape, M, dtype):
    D = int(np.prod(x_shape[1:]))
    x, w, b = normal(1, x_shape).astype(dtype), normal(2, (D, M)).astype(dtype), normal(3, (M,)).astype(dtype)
    dout = normal(4, (x_shape[0], M)).astype(dtype)
    flat, w64, dout64 = (a.astype(np.float64) for a in (x.reshape(x_shape[0], D), w, dout))
    out, cache = linear_forward(x, w, b)
    assert_close(out, flat @ w64 + b, D + 1)
    np.testing.assert_array_equal(linear(x, w, b), out)
    dx, dw, db = linear_backward(dout, cache)
    assert_close(dx, (dout64 @ w64.T).reshape(x_shape), M)
    assert_close(dw, flat.T @ dout64, x_shape[0])
    assert_close(db, dout64.sum(axis=0), x_shape[0])
    assert {a.dtype for a in (out, dx, dw, db)} == {np.dtype(dtype)}
    assert linear_backward(dout, linear_forward(x, w)[1], wrt="w")[2] is None
    relu = linear_forward(x, w, b, activation="relu")[0]
    np.testing.assert_array_equal(relu, np.maximum(out, 0))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_sums_of_few_columns_are_split(layout, gradient, dtype):
    """Sums along the weights' rows and down their columns; of weights packed beforehand they are not split."""
    N, depth, columns = 6, 2600, 70
    D, M = (columns, depth) if gradient else (depth, columns)
    x_shape, w_shape = ((N, D, 1, 1), (M, D, 1, 1)) if layout == "NCHW" else ((N, 1, 1, D), (1, 1, D, M))
    p = explain_conv2d(x_shape, w_shape, layout=layout, dtype=dtype).problem
    given, w, b = (normal(*of).astype(np.float64) for of in ((1, (N, depth)), (2, (D, M)), (3, (columns,))))
    expected = given @ w.T if gradient else np.maximum(given @ w + b, 0)
    bias = np.empty(0, dtype) if gradient else b.astype(dtype)
    weights = np.ascontiguousarray(w.T if layout == "NCHW" else w, dtype).reshape(p.w_shape)
    work = ProductPass(p, 2, gradient=gradient, relu=not gradient)
    assert work.geometry.splits > 1
    for prepared in (None, work.prepare(weights)):
        result = np.full(expected.shape, np.nan, dtype)
        work.run(given.astype(dtype), weights, bias, result, prepared)
        assert_close(result, expected, depth)
