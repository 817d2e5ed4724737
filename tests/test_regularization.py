"""Dropout: what is kept, how often, how it is scaled, and what the arguments may be."""

from __future__ import annotations

import numpy as np
import pytest
from array_forms import FORMS
from hypothesis import given
from hypothesis import strategies as st

from fastconv.regularization import dropout, dropout_backward, dropout_forward
from fastconv.testing import check_gradients

DTYPES = ("float32", "float64")


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_share_and_scale(p):
    out = dropout(np.ones(100_000, np.float32), p, rng=0)
    kept = out != 0
    assert abs(kept.mean() - (1 - p)) < 5 * np.sqrt(p * (1 - p) / out.size)
    np.testing.assert_array_equal(out[kept], np.float32(1 / (1 - p)))


@given(st.floats(0, 1), st.lists(st.integers(0, 5), max_size=4), st.sampled_from((*DTYPES, "float16")))
def test_forward_and_backward_share_the_mask(p, shape, dtype):
    x = np.full(shape, 2, dtype)
    out, cache = dropout_forward(x, p, rng=1)
    assert isinstance(out, np.ndarray) and out.dtype == dtype and out.shape == x.shape
    np.testing.assert_array_equal(dropout_backward(x, cache), out)
    np.testing.assert_array_equal(dropout(x, p, rng=1), out)
    with np.errstate(over="ignore"):
        scaled = np.float64(2 / (1 - p) if p < 1 else 0).astype(dtype)
    np.testing.assert_allclose(out[out != 0], scaled, rtol=2e-3 if dtype == "float16" else 2e-7)


def test_generators_and_seeds():
    x, rng = np.ones(50), np.random.default_rng(3)
    first, second = dropout(x, rng=rng), dropout(x, rng=rng)
    assert (first != second).any()
    np.testing.assert_array_equal(dropout(x, rng=3), first)
    np.testing.assert_array_equal(dropout(x.astype(np.float32), rng=np.int64(3)), first)  # for any dtype
    assert (dropout(np.ones(200)) != dropout(np.ones(200))).any()


@pytest.mark.parametrize("options", [{"p": 0}, {"p": 0.5, "training": False}, {"p": 1, "training": False}])
def test_nothing_dropped_gives_a_copy(options):
    x, rng = np.ones(5), np.random.default_rng(0)
    state = rng.bit_generator.state
    out, cache = dropout_forward(x, **options, rng=rng)
    dx = dropout_backward(x, cache)
    for array in (out, dx):
        np.testing.assert_array_equal(array, x)
        assert not np.shares_memory(array, x)
    assert rng.bit_generator.state == state


def test_everything_dropped():
    out, cache = dropout_forward(np.ones(5), 1, rng=0)
    assert not out.any() and not dropout_backward(np.ones(5), cache).any()


def test_nan_stays():
    out, cache = dropout_forward(np.full(50, np.nan), 0.5, rng=0)
    assert np.isnan(out).all() and np.isnan(dropout_backward(np.full(50, np.nan), cache)).all()


def test_gradients_are_those_of_central_differences():
    check_gradients(lambda x: dropout_forward(x, 0.4, rng=7), dropout_backward, {"x": np.ones((4, 5))})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
def test_any_memory_layout(form, dtype):
    numbers = np.arange(1, 21).reshape(4, 5).astype(dtype)
    x = FORMS[form](numbers)
    out, cache = dropout_forward(x, 0.5, rng=5)
    np.testing.assert_array_equal(out, dropout(numbers, 0.5, rng=5))
    np.testing.assert_array_equal(dropout_backward(x, cache), out)
    assert out.dtype == ("float64" if form == "list" else dtype) and out.dtype.isnative
    np.testing.assert_array_equal(x, numbers)


def test_integers_become_float64():
    assert dropout([1, 2, 3], rng=0).dtype == dropout([1, 2], training=False).dtype == np.float64


@pytest.mark.parametrize(
    ("call", "error", "parts"),
    [
        (lambda: dropout([1.0], 1.1), ValueError, ["dropout: p must be from 0 to 1", "1.1"]),
        (lambda: dropout([1.0], -0.1), ValueError, ["p must be from 0 to 1", "-0.1"]),
        (lambda: dropout([1.0], np.nan), ValueError, ["p must be finite", "nan"]),
        (lambda: dropout([1.0], "0.5"), TypeError, ["p must be a number", "'0.5'"]),
        (lambda: dropout([1j]), TypeError, ["x must hold", "complex128"]),
        (
            lambda: dropout([1.0], rng="seed"),
            TypeError,
            ["rng must be a numpy.random.Generator, a seed or None", "str"],
        ),
        (lambda: dropout([1.0], rng=-1), ValueError, ["rng must be at least 0", "-1"]),
        (lambda: dropout_backward([1.0], None), TypeError, ["cache must come from dropout_forward", "NoneType"]),
        (
            lambda: dropout_backward([1.0], dropout_forward([1.0, 2.0])[1]),
            ValueError,
            ["dropout_backward: dout must have the output's shape (2,)", "(1,)"],
        ),
    ],
)
def test_errors(call, error, parts):
    with pytest.raises(error) as caught:
        call()
    for part in parts:
        assert part in str(caught.value)
