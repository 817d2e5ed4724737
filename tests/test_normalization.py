"""Batch, layer and group normalisation against the oracle, and what their arguments may be."""

from __future__ import annotations

import numpy as np
import pytest
from array_forms import FORMS
from hypothesis import given
from hypothesis import strategies as st
from oracles import normalization as oracle
from tolerances import assert_close

from fastconv import runtime
from fastconv.normalization import (
    batch_norm,
    batch_norm_backward,
    batch_norm_forward,
    group_norm,
    group_norm_backward,
    group_norm_forward,
    layer_norm,
    layer_norm_backward,
    layer_norm_forward,
)
from fastconv.testing import check_gradients

DTYPES = ("float32", "float64")
LAYOUTS = ("NCHW", "NHWC")


def normal(seed, *shape):
    """Standard normal float32 numbers, so that both dtypes share one oracle."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def arrange(x, layout):
    """Channels-first x in the layout."""
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)) if layout.endswith("C") else x


def per_channel(values, x):
    return np.asarray(values, np.float64).reshape((1, -1) + (1,) * (x.ndim - 2))


def channel_sums(elementwise):
    return elementwise.sum(axis=(0, *range(2, elementwise.ndim)))


def assert_batch_norm(x, gamma, beta, dout, layout, dtype, running=None, activation=None):
    """Output, gradients and (in training) running statistics of channels-first operands."""
    sets, g, b = oracle.channels(x.shape), per_channel(gamma, x), per_channel(beta, x)
    options = {"training": running is None, "layout": layout, "momentum": 0.8, "activation": activation}
    kept = [np.full(len(gamma), v, dtype) for v in (0.25, 2.0)] if running is None else [*running]
    operands = (arrange(x, layout).astype(dtype), gamma.astype(dtype), beta.astype(dtype), *kept)
    out, cache = batch_norm_forward(*operands, **options)
    gradients = batch_norm_backward(arrange(dout, layout).astype(dtype), cache)
    count = x.size // x.shape[1]
    expected = oracle.forward(x, g, b, sets, given=running)
    if activation == "relu":
        expected, dout = np.maximum(expected, 0), np.where(expected > 0, dout, 0)
    assert_close(out, arrange(expected, layout), 4)  # up to 10 in size
    dx, dgamma, dbeta = oracle.backward(x, g, dout, sets, given=running)
    assert_close(gradients[0], arrange(dx, layout), 4)  # three terms, scaled by gamma / std
    assert_close(gradients[1], channel_sums(dgamma), count)
    assert_close(gradients[2], channel_sums(dbeta), count)
    assert {a.dtype for a in (out, *gradients)} == {np.dtype(dtype)}
    if running is None:
        for array, start, batch in zip(kept, (0.25, 2.0), oracle.statistics(x, sets), strict=True):
            assert_close(array, 0.8 * start + 0.2 * np.array(batch), 1)


# channels-first shapes: planes of one number, tails of every vector width, rows to be joined, blocks and bands
SHAPES = [
    (2, 1), (3, 7), (16, 64), (130, 3), (5, 200), (2300, 5),
    (2, 3, 1, 1), (3, 5, 7, 9), (2, 3, 50, 47), (4, 70, 3, 2), (16, 3, 41, 40), (10, 9, 37, 29),
    (1, 4, 2, 3), (2, 1, 6, 5),
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_batch_norm(shape, layout, dtype):
    x, dout = 2 * normal(1, *shape) + 1, normal(2, *shape)
    gamma, beta = normal(3, shape[1]), normal(4, shape[1])
    running = normal(5, shape[1]), normal(6, shape[1]) ** 2 + 1
    for activation in (None, "relu"):
        assert_batch_norm(x, gamma, beta, dout, layout, dtype, None, activation)
        assert_batch_norm(x, gamma, beta, dout, layout, dtype, running, activation)


@given(st.lists(st.integers(1, 9), min_size=2, max_size=5), st.booleans(), st.sampled_from(DTYPES), st.integers(0, 99))
def test_batch_norm_of_any_shape(shape, last, dtype, seed):
    layout = {3: "NCW", 5: "NCDHW"}.get(len(shape), "NCHW")
    layout = layout.replace("C", "") + "C" if last else layout
    shape[0] += 1  # one number per channel has no variance to divide by
    operands = normal(seed, *shape), normal(seed + 1, shape[1]), normal(seed + 2, shape[1]), normal(seed + 3, *shape)
    assert_close(
        batch_norm(arrange(operands[0], layout).astype(dtype), *operands[1:3], eps=0.1, layout=layout),
        arrange(
            oracle.forward(
                operands[0], *(per_channel(p, operands[0]) for p in operands[1:3]), oracle.channels(shape), 0.1
            ),
            layout,
        ),
        1,
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_statistics_far_from_zero_stay_accurate(layout):
    x = (1000 + normal(0, 6, 3, 40, 50)) + np.float32([0, 1e4, -1e6]).reshape(3, 1, 1)
    mean, var = np.zeros(3), np.ones(3)
    batch_norm(arrange(x, layout), None, None, mean, var, momentum=0, layout=layout)
    known_mean, known_var = oracle.statistics(x, oracle.channels(x.shape))
    np.testing.assert_allclose(mean, known_mean, rtol=1e-9)
    np.testing.assert_allclose(var, known_var, rtol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_far_from_zero_stay_accurate(layout):
    x, dout = 300 + normal(0, 4, 3, 9, 8), normal(1, 4, 3, 9, 8)
    _, cache = batch_norm_forward(arrange(x, layout), layout=layout)
    assert cache.x.dtype == np.float32
    dx, *none = batch_norm_backward(arrange(dout, layout), cache)
    assert none == [None, None]
    expected = oracle.backward(x, np.ones((1, 1, 1, 1)), dout, oracle.channels(x.shape))[0]
    np.testing.assert_allclose(dx, arrange(expected, layout), atol=1e-4)  # x - mean is rounded by 300 * 2^-24


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("training", [True, False])
def test_the_number_of_threads_changes_nothing(training, layout, monkeypatch):
    if runtime.get_num_threads() < 2:
        pytest.skip("needs two threads")
    monkeypatch.setattr(runtime, "SERIAL_BELOW", 0)
    x, dout, gamma = normal(0, 5, 40, 31, 17), normal(1, 5, 40, 31, 17), normal(2, 40)
    results = []
    for threads in (1, 2, 2):
        with runtime.num_threads(threads):
            running = np.zeros(40), np.ones(40)
            arranged = arrange(x, layout)
            out, cache = batch_norm_forward(arranged, gamma, gamma, *running, training=training, layout=layout)
            results.append((out, *batch_norm_backward(arrange(dout, layout), cache), *running))
    for one, two, again in zip(*results, strict=True):
        np.testing.assert_array_equal(two, one)
        np.testing.assert_array_equal(two, again)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
def test_batch_norm_of_any_memory_layout(form, dtype):
    arrays = normal(0, 4, 3, 5, 6), normal(1, 3), normal(2, 3), normal(3, 4, 3, 5, 6)
    x, gamma, beta, dout = (FORMS[form](a.astype(dtype)) for a in arrays)
    before = [np.array(a) for a in (x, gamma, beta, dout)]
    out, cache = batch_norm_forward(x, gamma, beta)
    gradients = batch_norm_backward(dout, cache)
    sets, g, b = oracle.channels(arrays[0].shape), per_channel(arrays[1], arrays[0]), per_channel(arrays[2], arrays[0])
    assert_close(out, oracle.forward(arrays[0], g, b, sets), 1)
    known = oracle.backward(arrays[0], g, arrays[3], sets)
    for got, expected in zip(gradients, (known[0], *map(channel_sums, known[1:])), strict=True):
        assert_close(got, expected, 120)
        assert got.dtype == np.dtype("float64" if form == "list" else dtype) and got.dtype.isnative
    for array, copy in zip((x, gamma, beta, dout), before, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("training", [True, False])
def test_relu_afterwards_passes_the_gradient_where_it_passed_nan(training, layout):
    x = arrange(np.stack([normal(0, 3, 4, 5), np.full((3, 4, 5), np.nan)], 1).astype(float), layout)
    out, cache = batch_norm_forward(
        x, None, None, np.zeros(2), np.ones(2), training=training, layout=layout, activation="relu"
    )
    assert np.isnan(out).sum() == 60 and np.nanmin(out) == 0
    dx, _, _ = batch_norm_backward(np.ones_like(x), cache)
    if training:
        assert np.isnan(dx).sum() == 60
    else:
        np.testing.assert_allclose(dx, ~(out == 0), rtol=1e-4)


def test_running_statistics_keep_their_array_form_and_dtype():
    x = normal(0, 8, 3)
    base = np.zeros((3, 4), ">f4")
    mean, var = base[:, 1], np.ones(6)[::-2]
    out = batch_norm(x.astype(np.float32), None, None, mean, var, momentum=0.5)
    assert out.dtype == np.float32  # running statistics are state: they do not choose the dtype
    np.testing.assert_allclose(base[:, 1], 0.5 * x.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(var, 0.5 + 0.5 * x.var(axis=0), rtol=1e-5)
    assert not base[:, [0, 2, 3]].any()


def test_inference_changes_no_running_statistics():
    mean, var = np.zeros(3), np.ones(3)
    mean.flags.writeable = var.flags.writeable = False
    np.testing.assert_allclose(batch_norm(np.ones((2, 3)), None, None, mean, var, training=False, eps=3), 0.5)


@pytest.mark.parametrize(("given_dtype", "result"), [("float16", "float16"), ("int16", "float64"), ("bool", "float64")])
def test_result_dtypes(given_dtype, result):
    x, ones = np.array([[0, 1], [1, 0], [1, 1]], given_dtype), np.ones(2, given_dtype)
    for forward, backward in (
        (batch_norm_forward, batch_norm_backward),
        (layer_norm_forward, layer_norm_backward),
        (lambda *a: group_norm_forward(*a, 1), group_norm_backward),
    ):
        out, cache = forward(x, ones, ones)
        assert {a.dtype for a in (out, *backward(x, cache))} == {np.dtype(result)}


@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (0, 3, 2, 2), (2, 0, 2, 2), (2, 3, 0, 4)], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_to_normalize(shape, layout):
    x, ones = arrange(np.ones(shape, np.float32), layout), np.ones(shape[1])
    running = np.zeros(shape[1]), np.ones(shape[1])
    for training in (True, False):
        out, cache = batch_norm_forward(x, ones, ones, *running, training=training, layout=layout)
        dx, dgamma, dbeta = batch_norm_backward(out, cache)
        assert out.shape == dx.shape == x.shape and not dgamma.any() and not dbeta.any()
        assert not running[0].any() and (running[1] == 1).all()
    out, cache = group_norm_forward(x, ones, ones, 1, layout=layout)
    dx, dgamma, dbeta = group_norm_backward(out, cache)
    assert out.shape == dx.shape == x.shape and not dgamma.any() and not dbeta.any()
    out, cache = layer_norm_forward(x)
    assert layer_norm_backward(out, cache)[0].shape == out.shape == x.shape


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_reaches_its_channel_and_no_other(bad, layout):
    x = normal(0, 3, 4, 5, 6)
    x[1, 2, 3, 4] = bad
    out, cache = batch_norm_forward(arrange(x, layout), layout=layout)
    dx = batch_norm_backward(arrange(normal(1, *x.shape), layout), cache)[0]
    for result in (out, dx):
        nan = np.isnan(np.moveaxis(result, -1, 1) if layout == "NHWC" else result)
        assert nan[1, 2, 3, 4] and not nan[:, [0, 1, 3]].any()
    out = batch_norm(arrange(x, layout), None, None, np.zeros(4), np.ones(4), training=False, layout=layout)
    assert np.count_nonzero(~np.isfinite(out)) == 1
    out = layer_norm(x)
    assert np.isnan(out[1, 2, 3]).any() and np.count_nonzero(np.isnan(out)) <= 6


@pytest.mark.parametrize("shape", [(6, 4), (3, 4, 2, 3)], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_are_those_of_central_differences(shape, layout):
    operands = [
        arrange(normal(0, *shape).astype(float), layout),
        normal(1, 4).astype(float),
        normal(2, 4).astype(float),
    ]
    running = np.full(4, 0.5), np.full(4, 2.0)
    check_gradients(lambda *a: batch_norm_forward(*a, layout=layout), batch_norm_backward, operands)
    check_gradients(
        lambda *a: batch_norm_forward(*a, *running, training=False, layout=layout), batch_norm_backward, operands
    )
    for groups in (1, 2):
        check_gradients(lambda *a, g=groups: group_norm_forward(*a, g, layout=layout), group_norm_backward, operands)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "trailing"), [((5, 7), 1), ((2, 3, 4, 5), 1), ((2, 3, 4, 5), 3), ((6,), 1)], ids=str)
def test_layer_norm(shape, trailing, dtype):
    x, dout = 2 * normal(0, *shape) + 1, normal(1, *shape)
    lead = len(shape) - trailing
    gamma, beta = normal(2, *shape[lead:]), normal(3, *shape[lead:])
    sets = oracle.examples(shape, lead)
    out, cache = layer_norm_forward(x.astype(dtype), gamma.astype(dtype), beta.astype(dtype))
    gradients = layer_norm_backward(dout.astype(dtype), cache)
    assert_close(out, oracle.forward(x, gamma, beta, sets), 1)
    known = oracle.backward(x, gamma, dout, sets)
    summed = tuple(range(lead))
    for got, expected in zip(gradients, (known[0], *(k.sum(axis=summed) for k in known[1:])), strict=True):
        assert_close(got, expected, 8)
        assert got.dtype == dtype
    plain = layer_norm(x.astype(dtype), normalized_shape=shape[lead:])
    assert_close(plain, oracle.forward(x, 1, 0, sets), 1)
    if trailing == 1:
        np.testing.assert_array_equal(layer_norm(x.astype(dtype)), plain)
        np.testing.assert_array_equal(layer_norm(x.astype(dtype), normalized_shape=np.int64(shape[-1])), plain)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("shape", "groups"), [((3, 6), 2), ((2, 6, 4, 5), 1), ((2, 6, 4, 5), 3), ((2, 6, 4, 5), 6)])
def test_group_norm(shape, groups, layout, dtype):
    x, dout, gamma, beta = 2 * normal(0, *shape) + 1, normal(1, *shape), normal(2, 6), normal(3, 6)
    sets, g, b = oracle.channel_groups(shape, groups), per_channel(gamma, x), per_channel(beta, x)
    parameters = gamma.astype(dtype), beta.astype(dtype)
    out, cache = group_norm_forward(arrange(x, layout).astype(dtype), *parameters, groups, layout=layout)
    gradients = group_norm_backward(arrange(dout, layout).astype(dtype), cache)
    assert_close(out, arrange(oracle.forward(x, g, b, sets), layout), 1)
    known = oracle.backward(x, g, dout, sets)
    assert_close(gradients[0], arrange(known[0], layout), 4)
    for got, expected in zip(gradients[1:], known[1:], strict=True):
        assert_close(got, channel_sums(expected), x.size // 6)
    assert {a.dtype for a in (out, *gradients)} == {np.dtype(dtype)}


@pytest.mark.parametrize("form", FORMS)
def test_layer_and_group_norm_of_any_memory_layout(form):
    x, dout, gamma = normal(0, 3, 4), normal(1, 3, 4), normal(2, 4)
    before = x.copy()
    for forward, backward in (
        (layer_norm_forward, layer_norm_backward),
        (lambda *a: group_norm_forward(*a, 2), group_norm_backward),
    ):
        expected, cache = forward(x.astype(float), gamma.astype(float), gamma.astype(float))
        known = backward(dout.astype(float), cache)
        out, cache = forward(*(FORMS[form](a) for a in (x, gamma, gamma)))
        for got, wanted in zip((out, *backward(FORMS[form](dout), cache)), (expected, *known), strict=True):
            assert_close(got, wanted, 3)
    np.testing.assert_array_equal(x, before)


X, ONES = np.ones((2, 3, 4, 4)), np.ones(3)
READ_ONLY = np.ones(3)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    ("call", "error", "parts"),
    [
        (lambda: batch_norm(X[0]), ValueError, ["batch_norm: x must have 2 dimensions, or 4", "'NCHW'", "(3, 4, 4)"]),
        (lambda: batch_norm(X, layout="NCW"), ValueError, ["or 3 with layout 'NCW'", "(2, 3, 4, 4)"]),
        (lambda: batch_norm(X, layout="HWCN"), ValueError, ["layout must be one of 'NCHW'", "'HWCN'"]),
        (lambda: batch_norm(X * 1j), TypeError, ["x must hold", "complex128"]),
        (lambda: batch_norm(X, ONES[:2]), ValueError, ["gamma must have one number per channel", "(3,)", "(2,)"]),
        (lambda: batch_norm(X, ONES, ONES, layout="NHWC"), ValueError, ["gamma", "(4,)", "(3,)"]),
        (lambda: batch_norm(X, ONES, X), ValueError, ["beta must have 1 dimensions", "(2, 3, 4, 4)"]),
        (lambda: batch_norm(X, momentum=1.5), ValueError, ["momentum must be from 0 to 1", "1.5"]),
        (lambda: batch_norm(X, momentum="a"), TypeError, ["momentum must be a number", "'a'"]),
        (lambda: batch_norm(X, eps=-1), ValueError, ["eps must be at least 0", "-1"]),
        (lambda: batch_norm(X, eps=np.nan), ValueError, ["eps must be finite", "nan"]),
        (lambda: batch_norm(X, training=False), ValueError, ["running_mean and running_var must be given", "False"]),
        (lambda: batch_norm(X, running_mean=ONES), ValueError, ["must be given together", "running_var"]),
        (lambda: batch_norm(X, None, None, [0, 0, 0], ONES), TypeError, ["running_mean must be a NumPy array", "list"]),
        (
            lambda: batch_norm(X, None, None, ONES, np.ones(3, int)),
            TypeError,
            ["running_var must hold floats", "int64"],
        ),
        (lambda: batch_norm(X, None, None, READ_ONLY, ONES), ValueError, ["running_mean must be writeable"]),
        (lambda: batch_norm(X, None, None, np.ones(4), ONES), ValueError, ["running_mean", "(3,)", "(4,)"]),
        (lambda: batch_norm_backward(X, 3), TypeError, ["cache must come from batch_norm_forward", "int"]),
        (
            lambda: batch_norm_backward(X[:1], batch_norm_forward(X)[1]),
            ValueError,
            ["dout must have the output's shape (2, 3, 4, 4)", "(1, 3, 4, 4)"],
        ),
        (lambda: layer_norm(X, np.ones(3)), ValueError, ["x must end with the normalized shape (3,)", "(2, 3, 4, 4)"]),
        (
            lambda: layer_norm(X, np.ones(4), np.ones(3)),
            ValueError,
            ["beta must have the normalized shape (4,)", "(3,)"],
        ),
        (lambda: layer_norm(X, normalized_shape=(4, 5)), ValueError, ["normalized shape (4, 5)"]),
        (lambda: layer_norm(X, normalized_shape=4.0), TypeError, ["normalized_shape must be an integer", "4.0"]),
        (lambda: layer_norm(np.float64(3)), ValueError, ["normalized shape ()"]),
        (lambda: layer_norm(X, eps=-1), ValueError, ["layer_norm: eps must be at least 0", "-1"]),
        (lambda: group_norm(X[0], None, None, 1), ValueError, ["group_norm: x must have 2 dimensions, or 4"]),
        (lambda: group_norm(X, None, None, 2), ValueError, ["groups must divide the channels", "2 for 3"]),
        (lambda: group_norm(X, None, None, 1.0), TypeError, ["groups must be an integer", "1.0"]),
        (lambda: group_norm(X, None, np.ones(4), 1), ValueError, ["beta must have one number per channel", "(3,)"]),
        (
            lambda: group_norm_backward(X, layer_norm_forward(X)[1]),
            TypeError,
            ["cache must come from group_norm_forward", "layer_norm_forward's"],
        ),
        (
            lambda: layer_norm_backward(X[0], layer_norm_forward(X)[1]),
            ValueError,
            ["dout must have the output's shape (2, 3, 4, 4)", "(3, 4, 4)"],
        ),
    ],
)
def test_errors(call, error, parts):
    with pytest.raises(error) as caught:
        call()
    for part in parts:
        assert part in str(caught.value)
