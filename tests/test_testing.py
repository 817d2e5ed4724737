"""The gradient checks themselves: on functions with known gradients, and on wrong ones."""

from __future__ import annotations

import numpy as np
import pytest
from array_forms import read_only, spread

from fastconv.testing import check_gradients, numerical_gradient, rel_error


@pytest.mark.parametrize(
    ("x", "y", "error"),
    [
        (1.0, 1.0, 0.0),
        ([1, 2], [1, 6], 0.5),
        ([1.0], [-1.0], 1.0),
        ([0.0], [1e-9], 0.1),
        ([], [], 0.0),
        (np.float32([[3]]), [[1]], 0.5),
        (0.0, 0.0, 0.0),
    ],
)
def test_rel_error(x, y, error):
    assert rel_error(x, y) == pytest.approx(error, abs=0)


def test_rel_error_of_nan_and_infinity_is_nan():
    assert np.isnan(rel_error([1.0, np.nan], [1.0, 2.0]))
    assert np.isnan(rel_error([np.inf], [np.inf]))


def test_numerical_gradient_of_a_scalar_function():
    x = np.random.default_rng(0).standard_normal((3, 4))
    np.testing.assert_allclose(numerical_gradient(lambda v: (v**3).sum(), x), 3 * x**2, atol=1e-8)
    np.testing.assert_allclose(numerical_gradient(lambda v: float((v**2).sum()), [1, 2]), [2, 4], atol=1e-8)
    np.testing.assert_allclose(numerical_gradient(lambda v: v**2, np.array(3.0)), 6, atol=1e-8)
    assert numerical_gradient(np.sum, np.ones((2, 0))).shape == (2, 0)


def test_numerical_gradient_contracts_with_df():
    rng = np.random.default_rng(0)
    a, x, df = rng.standard_normal((5, 3)), rng.standard_normal((3, 2)), rng.standard_normal((5, 2))
    np.testing.assert_allclose(numerical_gradient(lambda v: a @ v, x, df), a.T @ df, atol=1e-8)
    np.testing.assert_allclose(numerical_gradient(lambda v: v, x, df[:3]), df[:3], atol=1e-8)  # a view of x


def test_numerical_gradient_changes_x_where_the_caller_has_it():
    x = spread(np.array([1.0, 2.0, 3.0]))
    before = x.copy()
    np.testing.assert_allclose(numerical_gradient(lambda _: (x**2).sum(), x), 2 * before, atol=1e-8)
    np.testing.assert_array_equal(x, before)


def test_numerical_gradient_restores_x_after_an_exception():
    x = np.array([0.1, 0.2])
    with pytest.raises(ZeroDivisionError):
        numerical_gradient(lambda v: 1 // 0, x)
    np.testing.assert_array_equal(x, [0.1, 0.2])


def test_numerical_gradient_of_arrays_it_cannot_change():
    for x in (read_only(np.array([1.0, 2.0])), [1, 2], np.array([1, 2], np.uint8)):
        np.testing.assert_allclose(numerical_gradient(lambda v: (v**2).sum(), x), [2, 4], atol=1e-8)


@pytest.mark.parametrize("dtype", ["float32", ">f8"])
def test_numerical_gradient_divides_by_the_step_that_was_made(dtype):
    x = np.array([1.1, -7.3], dtype)
    got = numerical_gradient(lambda v: float(v.astype(float).sum()), x, h=1e-3)
    np.testing.assert_allclose(got, 1, rtol=1e-12)
    assert got.dtype == np.float64


def product(a, b):
    return a * b, (a, b)


def product_backward(dout, cache):
    return dout * cache[1], dout * cache[0]


A, B = np.random.default_rng(0).standard_normal((2, 3, 4))


def test_check_gradients_of_a_right_pair():
    errors = check_gradients(product, product_backward, {"a": A, "b": B})
    assert list(errors) == ["a", "b"] and max(errors.values()) < 1e-8
    assert list(check_gradients(product, product_backward, [read_only(A), B], dout=np.ones((3, 4)))) == ["0", "1"]
    assert list(check_gradients(product, lambda d, c: (None, d * c[0]), {"a": A, "b": B})) == ["b"]
    assert check_gradients(lambda x: (2 * x, None), lambda d, _: 2 * d, [np.ones((0, 2))]) == {"0": 0.0}


def test_check_gradients_leaves_its_inputs_alone():
    a, b = A.copy(), B.copy()
    check_gradients(product, product_backward, {"a": a, "b": b})
    np.testing.assert_array_equal(a, A)
    np.testing.assert_array_equal(b, B)


@pytest.mark.parametrize(
    ("backward", "error", "parts"),
    [
        (lambda d, c: (d * c[1], d * c[1]), AssertionError, ["gradient of b is", "central differences give", "1e-06"]),
        (lambda d, c: (d * c[1], d.sum()), AssertionError, ["gradient of b has shape ()", "(3, 4)"]),
        (lambda d, c: (d * np.nan, d * c[0]), AssertionError, ["gradient of a is nan"]),
        (lambda d, c: d, ValueError, ["backward must return 2 gradients", "got 1"]),
    ],
)
def test_check_gradients_of_a_wrong_pair(backward, error, parts):
    with pytest.raises(error) as caught:
        check_gradients(product, backward, {"a": A, "b": B})
    for part in ("check_gradients: ", *parts):
        assert part in str(caught.value)


def test_check_gradients_names_the_worst_place():
    def backward(dout, cache):
        da, db = product_backward(dout, cache)
        da[2, 1] += 0.5
        return da, db

    with pytest.raises(AssertionError, match=r"gradient of a is .* at \(2, 1\)"):
        check_gradients(product, backward, {"a": A, "b": B})
    assert check_gradients(product, backward, {"a": A, "b": B}, tolerance=1)["a"] > 0.1


@pytest.mark.parametrize(
    ("call", "error", "parts"),
    [
        (lambda: rel_error([1, 2], [1]), ValueError, ["rel_error: y must have x's shape (2,)", "(1,)"]),
        (lambda: rel_error([1j], [1]), TypeError, ["rel_error: x must hold", "complex128"]),
        (lambda: numerical_gradient(np.sum, A, h=0), ValueError, ["h must be above 0", "0"]),
        (lambda: numerical_gradient(np.sum, "a"), TypeError, ["numerical_gradient: x must hold", "<U1"]),
        (lambda: numerical_gradient(lambda v: v, A), ValueError, ["f must return a scalar", "(3, 4)"]),
        (
            lambda: numerical_gradient(lambda v: v, A, A[0]),
            ValueError,
            ["df must have the shape of f(x), (3, 4)", "(4,)"],
        ),
        (lambda: numerical_gradient(np.sum, np.float32([1e6])), ValueError, ["h must change x", "1e-05", "float32"]),
        (lambda: check_gradients(product, None, [A.astype("f4"), B]), TypeError, ["0 must hold float64", "float32"]),
        (lambda: check_gradients(product, None, A), TypeError, ["inputs must be a mapping or a sequence"]),
    ],
)
def test_errors(call, error, parts):
    with pytest.raises(error) as caught:
        call()
    for part in parts:
        assert part in str(caught.value)
