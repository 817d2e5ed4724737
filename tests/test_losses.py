"""Losses against loops over examples and classes, their gradients, extremes and errors."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
from array_forms import FORMS
from hypothesis import given
from hypothesis import strategies as st
from oracles import losses as oracle
from tolerances import EPSILON

from fastconv import losses
from fastconv.testing import numerical_gradient, rel_error

DTYPES = ("float32", "float64")
CLASSIFIERS = ("softmax_cross_entropy", "svm_loss")


def operands(seed, N, classes, dtype="float64"):
    rng = np.random.default_rng(seed)
    return (2 * rng.standard_normal((N, classes))).astype(dtype), rng.integers(0, classes, N)


def assert_loss(got, known, dtype):
    loss, dscores = got
    assert type(loss) is float and dscores.dtype == dtype and dscores.dtype.isnative
    assert loss == pytest.approx(known[0], rel=32 * EPSILON[dtype], abs=32 * EPSILON[dtype])
    np.testing.assert_allclose(dscores, known[1], rtol=8 * EPSILON[dtype], atol=8 * EPSILON[dtype])


@given(st.integers(1, 12), st.integers(1, 9), st.sampled_from(DTYPES), st.integers(0, 99))
def test_classifiers(N, classes, dtype, seed):
    scores, y = operands(seed, N, classes, dtype)
    for name in CLASSIFIERS:
        assert_loss(getattr(losses, name)(scores, y), getattr(oracle, name)(scores, y), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("N", [7, 2000])  # the compiled pass, and NumPy's for many scores
@pytest.mark.parametrize("smoothing", [0.2, 1.0])
def test_label_smoothing(smoothing, N, dtype):
    scores, y = operands(2, N, 5, dtype)
    known = oracle.softmax_cross_entropy(scores, y, smoothing)
    assert_loss(losses.softmax_cross_entropy(scores, y, label_smoothing=smoothing), known, dtype)


def test_label_smoothing_gradient_extremes_and_errors():
    scores, y = operands(3, 5, 4)
    smoothed = partial(losses.softmax_cross_entropy, label_smoothing=0.3)
    assert rel_error(smoothed(scores, y)[1], numerical_gradient(lambda s: smoothed(s, y)[0], scores)) < 1e-6
    loss, dscores = smoothed([[0.0, -np.inf]], [0])  # smoothing wants some of a class that is impossible
    assert loss == math.inf and np.isfinite(dscores).all()
    for bad in (-0.1, 1.5):
        with pytest.raises(ValueError, match=f"label_smoothing must be from 0 to 1, got {bad}"):
            losses.softmax_cross_entropy(scores, y, label_smoothing=bad)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (5,), (4, 3), (2, 3, 4, 5)], ids=str)
def test_mse_is_the_mean_over_all_numbers(shape, dtype):
    rng = np.random.default_rng(0)
    scores, target = rng.standard_normal(shape).astype(dtype), rng.standard_normal(shape).astype(dtype)
    assert_loss(losses.mse_loss(scores, target), oracle.mse_loss(scores, target), dtype)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_gradients_are_those_of_central_differences(name):
    scores, y = operands(3, 5, 4)
    loss = getattr(losses, name)
    assert rel_error(loss(scores, y)[1], numerical_gradient(lambda s: loss(s, y)[0], scores)) < 1e-6


def test_mse_gradient_is_that_of_central_differences():
    scores, target = operands(0, 3, 4)[0], operands(1, 3, 4)[0]
    expected = numerical_gradient(lambda s: losses.mse_loss(s, target)[0], scores)
    assert rel_error(losses.mse_loss(scores, target)[1], expected) < 1e-7


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
def test_any_memory_layout(form, dtype):
    scores, y = operands(0, 4, 3, dtype)
    awkward, labels = FORMS[form](scores), FORMS[form](y)
    before = np.array(awkward), np.array(labels)
    result = "float64" if form == "list" else dtype
    for name in CLASSIFIERS:
        assert_loss(getattr(losses, name)(awkward, labels), getattr(oracle, name)(scores, y), result)
    assert_loss(losses.mse_loss(awkward, FORMS[form](-scores)), oracle.mse_loss(scores, -scores), result)
    np.testing.assert_array_equal(awkward, before[0])
    np.testing.assert_array_equal(labels, before[1])


@pytest.mark.parametrize("label_dtype", ["int8", "uint8", "uint64", "int64"])
def test_label_and_score_dtypes(label_dtype):
    scores, y = operands(0, 4, 3, "float16")
    for name in CLASSIFIERS:
        loss, dscores = getattr(losses, name)(scores, y.astype(label_dtype))
        known = getattr(oracle, name)(scores, y)
        assert loss == pytest.approx(known[0], rel=1e-6) and dscores.dtype == np.float16
        np.testing.assert_allclose(dscores, known[1], atol=1e-3)
        assert getattr(losses, name)(np.eye(4, dtype=int), y)[1].dtype == np.float64
    assert losses.mse_loss(np.float32([1]), [2])[1].dtype == np.float64  # as np.result_type says
    assert losses.mse_loss(np.float16([1]), np.float16([2]))[1].dtype == np.float16


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_no_examples(name):
    loss, dscores = getattr(losses, name)(np.ones((0, 3), np.float32), [])
    assert math.isnan(loss) and dscores.shape == (0, 3) and dscores.dtype == np.float32
    loss, dscores = losses.mse_loss(np.ones((2, 0)), np.ones((2, 0)))
    assert math.isnan(loss) and dscores.shape == (2, 0)


def test_softmax_of_large_scores():
    loss, dscores = losses.softmax_cross_entropy(np.float32([[1e38, -1e38], [-1e38, 1e38]]), [0, 0])
    assert loss == pytest.approx(1e38) and np.isfinite(dscores).all()
    np.testing.assert_array_equal(dscores, [[0, 0], [-0.5, 0.5]])
    loss, dscores = losses.softmax_cross_entropy([[0.0, -np.inf]], [1])
    assert loss == math.inf
    np.testing.assert_array_equal(dscores, [[1, -1]])


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_nan_stays_in_its_row(name):
    loss, dscores = getattr(losses, name)([[0.0, np.nan, 0], [1, 2, 3]], [0, 1])
    assert math.isnan(loss)
    assert np.isnan(dscores[0]).any() and np.isfinite(dscores[1]).all()
    loss, dscores = losses.mse_loss([np.nan, 1.0], [0.0, 1.0])
    assert math.isnan(loss) and np.isnan(dscores).tolist() == [True, False]


def test_svm_margin_of_exactly_zero_has_no_gradient():
    loss, dscores = losses.svm_loss([[2.0, 1.0, 0.0]], [0])
    assert loss == 0 and not dscores.any()


S = np.zeros((2, 3))


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize(
    ("scores", "y", "error", "parts"),
    [
        (S[0], [0], ValueError, ["scores must have 2 dimensions", "(3,)"]),
        (S * 1j, [0, 1], TypeError, ["scores must hold", "complex128"]),
        (S, [0], ValueError, ["y must have one label per row of scores, shape (2,)", "(1,)"]),
        (S, [[0], [1]], ValueError, ["(2,)", "(2, 1)"]),
        (S, [0, 3], ValueError, ["y must hold labels from 0 to 2", "0 to 3"]),
        (S, [-1, 0], ValueError, ["y must hold labels from 0 to 2", "-1 to 0"]),
        (S, [0.0, 1.0], TypeError, ["y must hold integer class labels", "float64"]),
        (S, [True, False], TypeError, ["y must hold integer class labels", "bool"]),
        (S, ["a", "b"], TypeError, ["y must hold", "<U1"]),
        (np.zeros((2, 0)), [0, 0], ValueError, ["y must hold labels from 0 to -1"]),
    ],
)
def test_errors_of_classifiers(scores, y, error, parts, name):
    with pytest.raises(error) as caught:
        getattr(losses, name)(scores, y)
    for part in (f"{name}: ", *parts):
        assert part in str(caught.value)


def test_errors_of_mse():
    with pytest.raises(ValueError, match=r"mse_loss: target must have the shape of scores, \(2, 3\), got \(3,\)"):
        losses.mse_loss(S, S[0])
    with pytest.raises(TypeError, match=r"mse_loss: target must hold .* object"):
        losses.mse_loss(S, None)
