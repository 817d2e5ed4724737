"""Gradients without the gradient oracle: central differences on small shapes, adjoint identities on real layers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conv_cases import BY_NAME, DTYPES, LAYOUTS, declines, filters, images, lengths
from oracles import convolution as oracle
from tolerances import allowed, assert_close

from fastconv import conv2d, conv2d_algorithms, conv2d_backward, conv2d_forward, runtime
from fastconv._kernels import reduce
from fastconv._kernels.launch import launcher
from fastconv.algorithms import ALGORITHMS
from fastconv.catalogue import LAYERS
from fastconv.conv import bias_gradient
from fastconv.plan import CLASSES

PLAIN = {a.name for a in ALGORITHMS if a.exact} | {"auto"}
NAMES = (*CLASSES, *conv2d_algorithms())
STEP = 1e-5


def central_differences(f, array: np.ndarray) -> np.ndarray:
    """Gradient of the number f() by every entry of `array`, which f reads."""
    gradient = np.zeros_like(array)
    for place in np.ndindex(*array.shape):
        kept = array[place]
        array[place] = kept + STEP
        above = f()
        array[place] = kept - STEP
        gradient[place] = (above - f()) / (2 * STEP)
        array[place] = kept
    return gradient


SMALL = {
    "plain": ((2, 2, 4, 5), (3, 2, 3, 2), {}),
    "strided, padded": ((1, 2, 5, 6), (2, 2, 3, 3), {"stride": (2, 3), "padding": ((1, 0), (2, 1))}),
    "dilated groups": ((1, 4, 6, 6), (4, 2, 2, 2), {"dilation": (2, 3), "groups": 2}),
    "depthwise same": ((1, 3, 5, 4), (6, 1, 3, 4), {"padding": "same", "groups": 3}),
    "stride beyond the kernel": ((1, 1, 7, 7), (2, 1, 2, 2), {"stride": 3}),
    "relu": ((2, 2, 4, 4), (3, 2, 3, 3), {"padding": 1, "activation": "relu"}),
    "reflect": ((1, 2, 4, 5), (2, 2, 3, 3), {"padding": ((1, 2), (0, 1)), "padding_mode": "reflect"}),
    "replicate": ((1, 2, 4, 5), (2, 2, 3, 3), {"padding": 2, "padding_mode": "replicate"}),
    "circular": ((1, 2, 4, 5), (2, 2, 3, 3), {"padding": ((2, 1), (3, 0)), "padding_mode": "circular"}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", SMALL)
def test_central_differences(name, layout):
    x_shape, w_shape, options = SMALL[name]
    rng = np.random.default_rng(7)
    x, w = images(rng.standard_normal(x_shape), layout), filters(rng.standard_normal(w_shape), layout)
    b = rng.standard_normal(w_shape[0])
    options = {"layout": layout, **options}
    out, cache = conv2d_forward(x, w, b, **options)
    dout = rng.standard_normal(out.shape)
    gradients = conv2d_backward(dout, cache)
    for got, array in zip(gradients, (x, w, b), strict=True):
        expected = central_differences(lambda: float((conv2d(x, w, b, **options) * dout).sum()), array)
        np.testing.assert_allclose(got, expected, rtol=1e-7, atol=1e-8)


# Planes and bands of pixels are added in blocks of 256 and 4096 numbers.
BLOCKS = ((0, 3, 4, 4), (2, 3, 0, 4), (2, 3, 1, 1), (3, 1, 64, 64), (3, 5, 63, 65), (2, 2, 70, 131), (40, 7, 9, 9),
          (1, 5000, 2, 3), (1, 300, 17, 16))  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", BLOCKS, ids=str)
def test_gradient_of_the_bias_behind_a_relu(shape, dtype, layout):
    rng = np.random.default_rng(3)
    dout, out = (images(rng.standard_normal(shape).astype(dtype), layout) for _ in range(2))
    out.reshape(-1)[::5], out.reshape(-1)[1::7] = 0, np.nan
    expected = np.where(out <= 0, 0, dout)  # behind NaN the gradient passes
    total = expected.astype(np.float64).sum(axis=(0, 1, 2) if layout == "NHWC" else (0, 2, 3))
    masked, db = bias_gradient(dout, layout == "NHWC", out)
    np.testing.assert_array_equal(masked, expected)
    assert_close(db, total, dout.size // len(db))
    unmasked, same = bias_gradient(expected, layout == "NHWC")
    assert unmasked is expected
    np.testing.assert_array_equal(same, db)
    with runtime.num_threads(1):
        for serial, parallel in zip(bias_gradient(dout, layout == "NHWC", out), (masked, db), strict=True):
            np.testing.assert_array_equal(serial, parallel)


@pytest.mark.parametrize("channels_last", [0, 1])
def test_no_slot_adds_up_what_others_may_still_sum(channels_last):
    """One of two slots leaves the gradient of the bias alone; the call adds up after both."""
    dout = np.ones(4 * 3 * 2, np.float32)
    partial, db = np.zeros((4, 3)), np.full(3, 7, np.float32)
    arguments = channels_last, dout, dout, dout, 0, partial, db
    for slot in range(2):
        reduce.bias_gradient.compiled(slot, 2, *arguments)
        assert (db == 7).all()
    assert partial.sum() == dout.size
    partial[...] = np.nan
    reduce.bias_gradient.compiled(launcher(), 2, *arguments)
    assert (db == 8).all()


REAL = (
    *(replace(case, N=min(case.N, 2)) for case in LAYERS),
    replace(BY_NAME["depthwise"], N=2, C=96, F=96, H=57, W=56, groups=96),
    replace(BY_NAME["resnet 64-256 1x1 56"], N=2, H=56, W=57, stride=2),
    replace(BY_NAME["resnet 64 3x3 56"], N=2, H=57, W=56, stride=2, groups=2),
)


@pytest.mark.parametrize("algorithm", NAMES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", REAL, ids=lambda case: case.name)
def test_adjoint_identities(case, dtype, layout, algorithm):
    """<conv(x, w), dout> = <x, dx> = <w, dw>, because the convolution is linear in x and in w."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal(case.x_shape(layout), np.float32).astype(dtype)
    w = rng.standard_normal(case.w_shape(layout), np.float32).astype(dtype)
    if declines(algorithm, x.shape, w.shape, layout=layout, dtype=dtype, **case.options):
        pytest.skip(f"{algorithm} declines")
    out, cache = conv2d_forward(x, w, layout=layout, algorithm=algorithm, **case.options)
    dout = rng.standard_normal(out.shape, np.float32).astype(dtype)
    dx, dw, _ = conv2d_backward(dout, cache)

    def inner(a, b):
        return float(np.multiply(a, b, dtype=np.float64).sum())  # pairwise: error far below sqrt(a.size) roundings

    def limit_of(array, length):
        """Errors of the `length` products in each number of `array`, and of the inner product, as random walks."""
        return (allowed(dtype, length, accuracy) + allowed("float64", 1) * length**0.5) * array.size**0.5

    accuracy = "auto" if algorithm in PLAIN else "fast"
    forward, gradient_x, gradient_w, _ = lengths(case)
    expected = inner(out, dout)
    for value, array, length in [(inner(x, dx), x, gradient_x), (inner(w, dw), w, gradient_w)]:
        limit = limit_of(out, forward) + limit_of(array, length)
        assert abs(value - expected) <= limit, f"{value}, expected {expected}, difference allowed {limit}"


@pytest.mark.parametrize("name", ["3x3", "dilated, strided", "groups", "unequal strides", "3x3 same_lower stride 2"])
def test_the_fast_oracle_is_the_seven_loops(name):
    case = BY_NAME[name]
    rng = np.random.default_rng(3)
    x, w, b = rng.standard_normal(case.x_shape()), rng.standard_normal(case.w_shape()), rng.standard_normal(case.F)
    expected = oracle.conv2d_loops(x, w, b, **case.options)
    np.testing.assert_allclose(oracle.conv2d(x, w, b, **case.options), expected, rtol=1e-12, atol=1e-12)
    dout = rng.standard_normal(expected.shape)
    dx, dw, db = oracle.conv2d_gradients(x, w, dout, **case.options)
    change_x, change_w, change_b = (rng.standard_normal(a.shape) for a in (x, w, b))
    zero = np.zeros_like(b)
    for change, gradient, moved in [
        (change_x, dx, oracle.conv2d_loops(change_x, w, zero, **case.options)),
        (change_w, dw, oracle.conv2d_loops(x, change_w, zero, **case.options)),
        (change_b, db, oracle.conv2d_loops(x, w * 0, change_b, **case.options)),
    ]:
        np.testing.assert_allclose((change * gradient).sum(), (moved * dout).sum(), rtol=1e-9)
