"""conv2d on any array: memory layouts, byte orders, dtypes, `out=`, NaN and infinities."""

from __future__ import annotations

import array_forms
import numpy as np
import pytest
from conv_cases import DTYPES, LAYOUTS, declines, filters, images, normal
from oracles import convolution as oracle
from tolerances import assert_close

from fastconv import conv2d, conv2d_algorithms, conv2d_backward, conv2d_forward
from fastconv.plan import CLASSES

NAMES = (*CLASSES, *conv2d_algorithms())

# Operands of one odd problem, for everything that is not a matter of sizes.
OPTIONS = {"stride": (2, 1), "padding": ((1, 0), (2, 1)), "dilation": (1, 2), "groups": 2}
X, W, B = normal(10, (2, 4, 11, 13)), normal(11, (6, 2, 3, 2)), normal(12, (6,))
OUT = oracle.conv2d(X, W, B, **OPTIONS)
DOUT = normal(13, OUT.shape)
GRADIENTS = oracle.conv2d_gradients(X, W, DOUT, **OPTIONS)
LENGTHS = (2 * 6 + 1, 3 * 6, OUT[:, 0].size, OUT[:, 0].size)


FORMS = {"contiguous": lambda a: a, **array_forms.FORMS}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
def test_any_memory_layout(form, dtype):
    x, w, b, dout = (FORMS[form](a.astype(dtype)) for a in (X, W, B, DOUT))
    before = [np.array(a) for a in (x, w, b, dout)]
    out, cache = conv2d_forward(x, w, b, **OPTIONS)
    gradients = conv2d_backward(dout, cache)
    result = np.dtype("float64" if form == "list" else dtype)
    assert out.dtype == result and out.dtype.isnative
    for got, expected, length in zip((out, *gradients), (OUT, *GRADIENTS), LENGTHS, strict=True):
        assert got.dtype == result
        assert_close(got, expected, length)
    for array, copy in zip((x, w, b, dout), before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_broadcast_views():
    x = np.broadcast_to(X[:1, :1], X.shape)
    assert_close(conv2d(x, W, B, **OPTIONS), oracle.conv2d(x, W, B, **OPTIONS), LENGTHS[0])


@pytest.mark.parametrize(
    ("x_dtype", "w_dtype", "result"),
    [
        ("float16", "float16", "float16"),
        ("float16", "float32", "float32"),
        ("float16", "int8", "float16"),
        ("float32", "float64", "float64"),
        ("float32", "int32", "float64"),
        ("float32", "uint8", "float32"),
        ("int8", "uint8", "float64"),
        ("int64", "bool", "float64"),
        ("bool", "bool", "float64"),
        ("uint8", "float16", "float16"),
    ],
)
def test_result_dtypes(x_dtype, w_dtype, result):
    """numpy.result_type decides; integers and booleans alone become float64."""
    x, w = (3 * X).astype(x_dtype), (2 * W).astype(w_dtype)
    out, cache = conv2d_forward(x, w, **OPTIONS)
    dout = DOUT.astype(np.float16)
    dx, dw, db = conv2d_backward(dout, cache)
    expected = oracle.conv2d(x, w, **OPTIONS), *oracle.conv2d_gradients(x, w, dout, **OPTIONS)[:2]
    assert db is None
    for got, known, length in zip((out, dx, dw), expected, LENGTHS[:3], strict=True):
        assert got.dtype == np.dtype(result)
        assert_close(got / 300, known / 300, length)  # uint8 operands reach 255


def test_bias_takes_part_in_the_dtype():
    assert conv2d(X, W, B.astype(np.float64), **OPTIONS).dtype == np.float64
    assert conv2d(X.astype(np.float16), W.astype(np.float16), B, **OPTIONS).dtype == np.float32


def out_arrays(shape, dtype):
    yield "contiguous", np.full(shape, np.nan, dtype)
    yield "strided", array_forms.spread(np.full(shape, np.nan, dtype))
    yield "negative strides", np.full(shape, np.nan, dtype)[::-1, :, ::-1]
    yield "fortran order", np.full(shape, np.nan, dtype, order="F")
    yield "unaligned", array_forms.unaligned(np.full(shape, np.nan, dtype))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_out_of_any_memory_layout(dtype):
    x, w, b = (a.astype(dtype) for a in (X, W, B))
    expected = conv2d(x, w, b, **OPTIONS)
    for name, out in out_arrays(expected.shape, dtype):
        assert conv2d(x, w, b, out=out, **OPTIONS) is out, name
        np.testing.assert_array_equal(out, expected, err_msg=name)


def test_strided_out_leaves_its_gaps():
    base = np.full((2, 6, 10, 40), np.nan, np.float32)
    view = base[:, :, :5, 1:27:2]
    assert view.shape == (2, 6, 5, 13)
    out = conv2d(X, normal(1, (6, 4, 3, 3)), stride=(2, 1), padding=((0, 1), (1, 1)), out=view)
    assert not np.isnan(out).any() and np.isnan(base).sum() == base.size - view.size


@pytest.mark.parametrize("layout", LAYOUTS)
def test_out_may_overlap_the_inputs(layout):
    w = normal(1, (4, 4, 3, 3))
    expected = conv2d(images(X, layout), filters(w, layout), padding=1, layout=layout)
    x = images(X, layout).copy()
    assert conv2d(x, filters(w, layout), padding=1, layout=layout, out=x) is x
    np.testing.assert_array_equal(x, expected)

    memory = np.zeros(X.size + 5, np.float32)
    x, out = memory[:-5].reshape(X.shape), memory[5:].reshape(X.shape)
    x[...] = X
    conv2d(x, w, padding=1, out=out)
    np.testing.assert_array_equal(out, conv2d(X, w, padding=1))

    kernel = normal(2, (3, 3, 3, 3))
    expected = conv2d(normal(3, (3, 3, 3, 3)), kernel, padding=1)
    conv2d(normal(3, (3, 3, 3, 3)), kernel, padding=1, out=kernel)
    np.testing.assert_array_equal(kernel, expected)


# Algorithms that add exactly the products of the definition; transforms spread a NaN over a whole tile.
PLAIN_SUMS = [name for name in ("direct", "im2col") if name in conv2d_algorithms()]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("algorithm", NAMES)
def test_nan_and_infinities_reach_exactly_their_windows(algorithm, layout, dtype):
    x = normal(1, (2, 5, 12, 21))
    w = normal(2, (19, 5, 3, 3))
    x[0, 1, 3, 4], x[1, 0, 0, 20], x[1, 4, 11, 0] = np.nan, np.inf, -np.inf
    options = {"padding": 1, "layout": layout, "algorithm": algorithm}
    shapes = images(x, layout).shape, filters(w, layout).shape
    if declines(algorithm, *shapes, layout=layout, dtype=dtype, padding=1):
        pytest.skip(f"{algorithm} declines")
    expected = images(oracle.conv2d(x, w, padding=1), layout)
    got = conv2d(images(x, layout).astype(dtype), filters(w, layout).astype(dtype), **options)
    finite = np.isfinite(expected)
    assert not np.isfinite(got[~finite]).any()
    if algorithm in PLAIN_SUMS:
        assert_close(got, expected, 45)
    dout = normal(3, (2, 19, 12, 21))
    dout[0, 7, 5, 6] = np.nan
    with np.errstate(invalid="ignore"):
        known = oracle.conv2d_gradients(x, w, dout, padding=1)
    cache = conv2d_forward(images(x, layout).astype(dtype), filters(w, layout).astype(dtype), **options)[1]
    dx, dw, _ = conv2d_backward(images(dout, layout).astype(dtype), cache)
    assert np.isnan(dx[np.isnan(images(known[0], layout))]).all()
    assert not np.isfinite(dw[~np.isfinite(filters(known[1], layout))]).any()
    if algorithm in PLAIN_SUMS:
        assert_close(dx, images(known[0], layout), 19 * 9)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("algorithm", NAMES)
def test_relu_keeps_nan_and_stops_nothing_else(algorithm, layout):
    x, w = normal(1, (1, 2, 6, 7)), np.ones((3, 2, 1, 1), np.float32)
    x[0, 0, 2, 3] = np.nan
    if not algorithm.startswith("amx"):  # an infinity's parts are no numbers
        x[0, 1, 4, 4] = -np.inf
    options = {"layout": layout, "algorithm": algorithm}
    if declines(algorithm, images(x, layout).shape, filters(w, layout).shape, layout=layout):
        pytest.skip(f"{algorithm} declines")
    b = np.zeros(3, np.float32)
    out, cache = conv2d_forward(images(x, layout), filters(w, layout), b, activation="relu", **options)
    plain = conv2d(images(x, layout), filters(w, layout), b, **options)
    np.testing.assert_array_equal(out, np.where(plain < 0, 0, plain))
    assert np.isnan(out).sum() == 3
    db = conv2d_backward(np.ones_like(out), cache, wrt="b")[2]
    passed = (~(plain <= 0)).sum() / 3
    np.testing.assert_array_equal(db, np.full(3, passed, np.float32))
