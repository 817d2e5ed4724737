"""Activations against the oracle: values, gradients, the ends of the number range, array forms, errors."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from array_forms import FORMS
from hypothesis import given
from hypothesis import strategies as st
from oracles import activations as oracle

from fastconv import activations, runtime
from fastconv.testing import check_gradients

DTYPES = ("float32", "float64")
NAMES = ("relu", "leaky_relu", "sigmoid", "tanh", "gelu", "gelu tanh", "softmax")
SCALAR = NAMES[:-1]
# A function of a few roundings: relative to its value, or to 1 where the value passes zero between them.
RTOL = {"float16": 2e-3, "float32": 2e-6, "float64": 4e-15}


def pair(name):
    """(forward, backward); "gelu tanh" is gelu with an argument."""
    base, _, option = name.partition(" ")
    forward, backward = (getattr(activations, f"{base}_{way}") for way in ("forward", "backward"))
    return (lambda x: forward(x, approximate=option) if option else forward(x)), backward


def plain(name):
    base, _, option = name.partition(" ")
    return lambda x: getattr(activations, base)(x, **({"approximate": option} if option else {}))


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def expected(name, x, dout):
    if name == "softmax":
        return oracle.softmax(x, -1), oracle.softmax_gradient(x, dout, -1)
    function, slope = oracle.SCALAR[name]
    return oracle.apply(function, x), dout * oracle.apply(slope, x)


def assert_matches(got, known, dtype):
    assert got.dtype == dtype and got.dtype.isnative
    np.testing.assert_allclose(got, known, rtol=RTOL[dtype], atol=RTOL[dtype])


@pytest.mark.parametrize("dtype", (*DTYPES, "float16"))
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(), (1,), (17,), (3, 0, 2), (5, 7, 3), (2, 3, 4, 5)], ids=str)
def test_values_and_gradients(shape, name, dtype):
    if name == "softmax" and shape == ():
        pytest.skip("has no axis")
    x, dout = (3 * normal(0, *shape)).astype(dtype), normal(1, *shape).astype(dtype)
    forward, backward = pair(name)
    out, cache = forward(x)
    assert isinstance(out, np.ndarray)
    known = expected(name, x, dout.astype(np.float64))
    assert_matches(out, known[0], dtype)
    assert_matches(backward(dout, cache), known[1], dtype)
    np.testing.assert_array_equal(plain(name)(x), out)


@given(
    st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=40), st.sampled_from(DTYPES), st.sampled_from(SCALAR)
)
def test_any_numbers(numbers, dtype, name):
    x = np.array(numbers, dtype)
    forward, backward = pair(name)
    out, cache = forward(x)
    known = expected(name, x, np.ones(len(x)))
    assert_matches(out, known[0], dtype)
    np.testing.assert_allclose(backward(np.ones_like(x), cache), known[1], rtol=RTOL[dtype], atol=4 * RTOL[dtype])


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_central_differences(name):
    check_gradients(*pair(name), {"x": 2 * np.random.default_rng(0).standard_normal((4, 6))})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SCALAR)
def test_ends_of_the_number_range(name, dtype):
    x = np.array([np.nan, np.inf, -np.inf, np.finfo(dtype).max, np.finfo(dtype).min, 1e4, -1e4, 0.0, -0.0], dtype)
    top = x[3]
    rising = [np.nan, np.inf, *([np.nan] if "gelu" in name else [-0.0]), top, 0, 1e4, 0, 0, 0]  # gelu: -inf * 0
    outs = {
        "relu": rising,
        "leaky_relu": [np.nan, np.inf, -np.inf, top, -top * x.dtype.type(0.01), 1e4, -100, 0, 0],
        "sigmoid": [np.nan, 1, 0, 1, 0, 1, 0, 0.5, 0.5],
        "tanh": [np.nan, 1, -1, 1, -1, 1, -1, 0, 0],
    }
    forward, backward = pair(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out, cache = forward(x)
        dx = backward(np.ones_like(x), cache)
    np.testing.assert_array_equal(out, np.array(outs.get(name, rising), dtype))
    sides = {"sigmoid": [0, 0, 0.25], "tanh": [0, 0, 1], "leaky_relu": [1, 0.01, 0.01], "relu": [1, 0, 0]}
    right, left, zero = sides.get(name, [1, 0, 0.5])
    np.testing.assert_allclose(dx[3:], [right, left, right, left, zero, zero], rtol=2 * np.finfo(dtype).eps)
    if name != "leaky_relu":
        assert np.isnan(dx[0]) or name == "relu"


def test_relu_passes_the_gradient_where_it_passed_nan():
    out, cache = activations.relu_forward([np.nan, -1.0, 2.0])
    np.testing.assert_array_equal(out, [np.nan, 0, 2])
    np.testing.assert_array_equal(activations.relu_backward([5, 6, 7], cache), [5, 0, 7])
    np.testing.assert_array_equal(activations.relu_backward([np.nan, np.nan, np.nan], cache), [np.nan, 0, np.nan])


@pytest.mark.parametrize("dtype", DTYPES)
def test_left_tails_keep_their_relative_precision(dtype):
    x = np.linspace(-9, -4, 50).astype(dtype)
    for name, rtol in (("sigmoid", 1), ("gelu", 100), ("gelu tanh", 300)):  # conditioned by x and x^2
        known = oracle.apply(oracle.SCALAR[name][0] if name != "gelu tanh" else gelu_tanh_tail, x)
        np.testing.assert_allclose(plain(name)(x), known, rtol=rtol * RTOL[dtype])


def gelu_tanh_tail(v):
    """v * sigmoid(2 u), which equals v * (1 + tanh(u)) / 2."""
    u = np.sqrt(2 / np.pi) * (v + 0.044715 * v**3)
    return v / (1 + np.exp(-2 * u))


@pytest.mark.parametrize(("dtype", "least"), [("float32", -13), ("float64", -37)])
def test_gelu_over_all_of_its_range(dtype, least):
    """Against math.erfc: relative to itself, but for the conditioning of exp(-x^2 / 2) here and there; the slope."""
    x = np.concatenate([np.linspace(least, -least, 4001), normal(0, 1000) ** 3]).astype(dtype)
    x = x[np.abs(x) < -least]
    out, cache = activations.gelu_forward(x)
    known = oracle.apply(oracle.SCALAR["gelu"][0], x)
    eps, exponent = np.finfo(dtype).eps, np.where(x < 0, x.astype(float) ** 2 / 2, 0)
    assert (np.abs(out - known) <= (8 + 4 * exponent) * eps * np.abs(known)).all()
    slope = activations.gelu_backward(np.ones_like(x), cache)
    np.testing.assert_allclose(slope, oracle.apply(oracle.SCALAR["gelu"][1], x), rtol=0, atol=8 * eps)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_softmax_axes(axis):
    x, dout = normal(0, 3, 4, 5).astype(float), normal(1, 3, 4, 5).astype(float)
    out, cache = activations.softmax_forward(x, axis)
    np.testing.assert_allclose(out, oracle.softmax(x, axis), rtol=1e-14)
    known = oracle.softmax_gradient(x, dout, axis)
    np.testing.assert_allclose(activations.softmax_backward(dout, cache), known, atol=1e-15)


def test_softmax_of_extremes():
    np.testing.assert_array_equal(activations.softmax([[1e308, -1e308, 1e308]]), [[0.5, 0, 0.5]])
    np.testing.assert_array_equal(activations.softmax([[0, -np.inf], [np.nan, 0]]), [[1, 0], [np.nan, np.nan]])
    assert np.isnan(activations.softmax([-np.inf, -np.inf])).all()
    assert activations.softmax(np.ones((2, 0)), axis=0).shape == (2, 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", FORMS)
def test_any_memory_layout(form, name, dtype):
    numbers = normal(0, 4, 5).astype(dtype), normal(1, 4, 5).astype(dtype)
    x, dout = map(FORMS[form], numbers)
    before = np.array(x), np.array(dout)
    forward, backward = pair(name)
    out, cache = forward(x)
    dx = backward(dout, cache)
    result = "float64" if form == "list" else dtype
    for got, known in zip((out, dx), expected(name, *(n.astype(float) for n in numbers)), strict=True):
        assert_matches(got, known, result)
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(dout, before[1])
    assert not np.shares_memory(out, np.asarray(x))


@pytest.mark.parametrize("dtype", ["int8", "uint64", "bool"])
def test_integers_become_float64(dtype):
    for name in NAMES:
        forward, backward = pair(name)
        out, cache = forward(np.array([0, 1, 1], dtype))
        assert out.dtype == backward([True, False, True], cache).dtype == np.float64


@pytest.mark.parametrize("name", ["relu", "gelu"])
def test_results_do_not_depend_on_the_number_of_threads(name, monkeypatch):
    if runtime.get_num_threads() < 2:
        pytest.skip("needs two threads")
    monkeypatch.setattr(runtime, "SERIAL_BELOW", 0)
    x, dout = normal(0, 1003), normal(1, 1003)
    forward, backward = pair(name)
    results = []
    for threads in (1, 2):
        with runtime.num_threads(threads):
            out, cache = forward(x)
            results.append((out, backward(dout, cache)))
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("alpha", [0, 0.3, -2, 5])
def test_leaky_relu_slopes(alpha):
    x = np.array([-3.0, 0.0, 2.0])
    out, cache = activations.leaky_relu_forward(x, alpha)
    np.testing.assert_array_equal(out, [-3 * alpha, 0, 2])
    np.testing.assert_array_equal(activations.leaky_relu_backward(x, cache), [-3 * alpha, 0, 2])


@pytest.mark.parametrize(
    ("call", "error", "parts"),
    [
        (lambda: activations.relu("a"), TypeError, ["relu: x must hold", "<U1"]),
        (lambda: activations.sigmoid([1j]), TypeError, ["sigmoid: x must hold", "complex128"]),
        (lambda: activations.tanh([[1], [1, 2]]), TypeError, ["tanh: x must be an array of numbers", "list"]),
        (lambda: activations.leaky_relu([1], None), TypeError, ["leaky_relu: alpha must be a number", "None"]),
        (lambda: activations.leaky_relu([1], np.inf), ValueError, ["leaky_relu: alpha must be finite", "inf"]),
        (lambda: activations.gelu([1], approximate="erf"), ValueError, ["approximate must be one of 'none'", "'erf'"]),
        (lambda: activations.gelu([1], approximate=True), TypeError, ["approximate must be one of 'none'", "True"]),
        (lambda: activations.softmax(np.ones((2, 3)), 2), ValueError, ["axis must be from -2 to 1", "(2, 3)", "got 2"]),
        (lambda: activations.softmax(np.ones((2, 3)), -3), ValueError, ["axis must be at least -2", "-3"]),
        (lambda: activations.softmax(np.ones(2), 0.0), TypeError, ["axis must be an integer", "0.0"]),
        (lambda: activations.softmax(1.0, 0), ValueError, ["softmax: axis", "()"]),
        (
            lambda: activations.relu_backward(np.ones(3), activations.relu_forward(np.ones(2))[1]),
            ValueError,
            ["relu_backward: dout must have the output's shape (2,)", "(3,)"],
        ),
        (
            lambda: activations.tanh_backward(1.0, activations.sigmoid_forward(1.0)[1]),
            TypeError,
            ["tanh_backward: cache must come from tanh_forward", "sigmoid_forward's"],
        ),
        (lambda: activations.gelu_backward(1.0, None), TypeError, ["must come from gelu_forward", "NoneType"]),
    ],
)
def test_errors(call, error, parts):
    with pytest.raises(error) as caught:
        call()
    for part in parts:
        assert part in str(caught.value)
