"""Fully connected layers against matrix products in float64."""

from __future__ import annotations

import numpy as np
import pytest
from conv_cases import normal
from tolerances import assert_close

from fastconv.fully_connected import linear, linear_backward, linear_forward


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(
    ("x_shape", "M"),
    [((7, 30), 11), ((3, 2, 4, 5), 1), ((1, 700), 300), ((5,), 3), ((0, 6), 4), ((4, 0), 3), ((4, 6), 0)],
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
