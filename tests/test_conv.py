"""conv2d and its gradients against the oracle: the whole catalogue with every algorithm, layout and dtype."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from conv_cases import (
    BY_NAME,
    CASES,
    DTYPES,
    LAYOUTS,
    answers,
    declines,
    filters,
    images,
    lengths,
    normal,
    use_tiny_blocks,
)
from oracles import convolution as oracle
from tolerances import assert_close

from fastconv import (
    conv2d,
    conv2d_algorithms,
    conv2d_backward,
    conv2d_forward,
    depthwise_conv2d,
    depthwise_conv2d_backward,
    depthwise_conv2d_forward,
    explain_conv2d,
    plan,
    runtime,
)
from fastconv._kernels.isa import MACHINE
from fastconv.algorithms import ALGORITHMS, costs
from fastconv.algorithms.channel_dots import ChannelDotsPass
from fastconv.algorithms.mirrored_sweeps import MirroredSweepsPass
from fastconv.algorithms.over_filters import OverFiltersPass
from fastconv.algorithms.sweeps import SweepsPass
from fastconv.plan import CLASSES

NAMES = (*CLASSES, *conv2d_algorithms())
ACCURACY = {algorithm.name: "auto" if algorithm.exact else "fast" for algorithm in ALGORITHMS} | {
    "auto": "auto",
    "fast": "fast",
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("algorithm", NAMES)
@pytest.mark.parametrize("name", BY_NAME)  # the slowest to vary: the oracle answers a case once
def test_catalogue(name, algorithm, layout, dtype):
    case, known = BY_NAME[name], answers(name)
    x, w = images(known.x, layout).astype(dtype), filters(known.w, layout).astype(dtype)
    b, dout = known.b.astype(dtype), images(known.dout, layout).astype(dtype)
    options = {"layout": layout, "algorithm": algorithm, **case.options}
    if declines(algorithm, x.shape, w.shape, layout=layout, dtype=dtype, **case.options):
        with pytest.raises(ValueError, match=f"algorithm '{algorithm}' cannot run this problem: "):
            conv2d(x, w, b, **options)
        return
    length, accuracy = lengths(case), ACCURACY[algorithm]
    for bias in (b, None):
        for activation in (None, "relu"):
            result = np.full(images(known.out, layout).shape, np.nan, dtype)
            out, cache = conv2d_forward(x, w, bias, activation=activation, out=result, **options)
            assert out is result
            assert_close(out, images(known.forward(bias is not None, activation), layout), length[0] + 1, accuracy)
            dx, dw, db = conv2d_backward(dout, cache)
            expected = known.backward(bias is not None, activation)
            assert_close(dx, images(expected[0], layout), length[1], accuracy)
            assert_close(dw, filters(expected[1], layout), length[2], accuracy)
            assert (db is None) == (bias is None)
            if db is not None:
                assert_close(db, expected[2], length[3])
            assert {array.dtype for array in (out, dx, dw)} == {np.dtype(dtype)}


@cache
def deep_problem():
    """x, w, dout of long sums, and the right result and gradients of x and w."""
    x, w, dout = normal(1, (1, 512, 9, 9)), normal(2, (64, 512, 3, 3)), normal(3, (1, 64, 9, 9))
    return x, w, dout, oracle.conv2d(x, w, padding=1), *oracle.conv2d_gradients(x, w, dout, padding=1)[:2]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("algorithm", NAMES)
def test_accuracy_classes(algorithm, layout):
    """Root mean square of the errors, relative to the results': plain sums 2e-7 to 6e-7, two bfloat16 parts 5e-6."""
    limit = {"auto": 1e-6, "fast": 5e-6}[ACCURACY[algorithm]]
    x, w, dout, *known = deep_problem()
    options = {"padding": 1, "layout": layout, "algorithm": algorithm}
    if declines(algorithm, images(x, layout).shape, filters(w, layout).shape, padding=1, layout=layout):
        pytest.skip(f"{algorithm} declines")
    out, cache = conv2d_forward(images(x, layout), filters(w, layout), **options)
    dx, dw, _ = conv2d_backward(images(dout, layout), cache)
    for got, right in zip((out, dx, dw), known, strict=True):
        right = filters(right, layout) if got is dw else images(right, layout)
        assert np.sqrt(np.mean((got - right) ** 2) / np.mean(right**2)) < limit


def test_case_names_are_unique():
    assert len(BY_NAME) == len(CASES)


# Operands of one odd problem, for everything that is not a matter of sizes.
OPTIONS = {"stride": (2, 1), "padding": ((1, 0), (2, 1)), "dilation": (1, 2), "groups": 2}
X, W, B = normal(10, (2, 4, 11, 13)), normal(11, (6, 2, 3, 2)), normal(12, (6,))
OUT = oracle.conv2d(X, W, B, **OPTIONS)
DOUT = normal(13, OUT.shape)
GRADIENTS = oracle.conv2d_gradients(X, W, DOUT, **OPTIONS)
LENGTHS = (2 * 6 + 1, 3 * 6, OUT[:, 0].size, OUT[:, 0].size)


def test_padding_forms_agree():
    expected = conv2d(X, W, padding=((2, 2), (1, 1)), groups=2)
    for padding in ((2, 1), [2, 1], np.array([2, 1]), [[2, 2], [1, 1]], np.array([[2, 2], [1, 1]]), (np.int64(2), 1)):
        np.testing.assert_array_equal(conv2d(X, W, padding=padding, groups=2), expected)
    np.testing.assert_array_equal(conv2d(X, W, groups=2), conv2d(X, W, padding="valid", groups=2))
    np.testing.assert_array_equal(conv2d(X, W, padding=np.int8(2), groups=2), conv2d(X, W, padding=(2, 2), groups=2))
    np.testing.assert_array_equal(conv2d(X, W, stride=np.array(2), groups=2), conv2d(X, W, stride=(2, 2), groups=2))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_numbers_that_reach_past_everything(layout):
    """A stride beyond the input and the dilation of a single row or column of taps change nothing, however large."""
    x, w = normal(1, (2, 3, 6, 7)), normal(2, (5, 3, 3, 1))
    expected = oracle.conv2d(x, w, stride=(100, 2), padding=1)
    dout = normal(3, expected.shape)
    options = {"stride": (10**30, 2), "dilation": (1, 10**30), "padding": 1, "layout": layout}
    out, cache = conv2d_forward(images(x, layout), filters(w, layout), **options)
    assert_close(out, images(expected, layout), 9)
    dx, dw, _ = conv2d_backward(images(dout, layout), cache)
    known = oracle.conv2d_gradients(x, w, dout, stride=(100, 2), padding=1)
    assert_close(dx, images(known[0], layout), 15)
    assert_close(dw, filters(known[1], layout), 8)


@pytest.mark.parametrize("stride", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [5, 6, 7, 8])
def test_same_padding_gives_ceil_of_size_over_stride(size, stride):
    x = normal(20, (1, 1, size, size + 1))
    for padding in ("same", "same_lower"):
        shape = conv2d(x, np.ones((1, 1, 3, 4), np.float32), stride=stride, padding=padding).shape
        assert shape == (1, 1, -(-size // stride), -(-(size + 1) // stride))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("mode", "numpy_mode"), [("reflect", "reflect"), ("replicate", "edge"), ("circular", "wrap")])
def test_padding_modes_are_numpy_pad_and_a_valid_convolution(mode, numpy_mode, layout):
    sides = [(0, 0), (0, 0), (2, 1), (0, 3)]
    padded = np.pad(X.astype(np.float64), sides, mode=numpy_mode)
    options = {"stride": (1, 2), "groups": 2}
    x, w = images(X.astype(np.float64), layout), filters(W.astype(np.float64), layout)
    out, cache = conv2d_forward(x, w, B, padding=sides[2:], padding_mode=mode, layout=layout, **options)
    expected = oracle.conv2d(padded, W, B, **options)
    assert_close(out, images(expected, layout), 13)
    dout = np.random.default_rng(0).standard_normal(expected.shape)
    dpadded, dw, db = oracle.conv2d_gradients(padded, W, dout, **options)
    dx = np.zeros(X.size)  # every padded cell sends its gradient to the cell that it was copied from
    np.add.at(dx, np.pad(np.arange(X.size).reshape(X.shape), sides, mode=numpy_mode), dpadded)
    got = conv2d_backward(images(dout, layout), cache)
    assert_close(got[0], images(dx.reshape(X.shape), layout), 100)
    assert_close(got[1], filters(dw, layout), dout[:, 0].size)
    assert_close(got[2], db, dout[:, 0].size)


def test_padding_mode_without_padding_changes_nothing():
    np.testing.assert_array_equal(conv2d(X, W, groups=2, padding_mode="circular"), conv2d(X, W, groups=2))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_input_that_is_all_padding(layout):
    x, w = images(np.zeros((2, 3, 0, 4), np.float32), layout), filters(normal(1, (5, 3, 3, 3)), layout)
    b = normal(2, (5,))
    out, cache = conv2d_forward(x, w, b, padding=((2, 1), (1, 1)), layout=layout)
    np.testing.assert_array_equal(out, np.broadcast_to(images(b.reshape(1, 5, 1, 1), layout), out.shape))
    dx, dw, db = conv2d_backward(np.ones_like(out), cache)
    assert dx.shape == x.shape and not dw.any()
    np.testing.assert_array_equal(db, np.full(5, out.size / 5, np.float32))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["no images", "no filters", "no channels"])
def test_empty_sums_with_every_argument(name, layout):
    case = BY_NAME[name]
    x, w = np.ones(case.x_shape(layout), np.float16), np.ones(case.w_shape(layout), np.float16)
    b = np.linspace(-1, 1, case.F, dtype=np.float16)
    out, cache = conv2d_forward(x, w, b, layout=layout, activation="relu", **case.options)
    assert out.dtype == np.float16
    if out.size:
        per_filter = np.maximum(b, 0).reshape((1, 1, 1, -1) if layout == "NHWC" else (1, -1, 1, 1))
        np.testing.assert_array_equal(out, np.broadcast_to(per_filter, out.shape))
    dx, dw, db = conv2d_backward(np.ones_like(out), cache)
    assert not dx.any() and not dw.any()
    assert (dx.shape, dw.shape, db.shape) == (x.shape, w.shape, b.shape)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("algorithm", NAMES)
@pytest.mark.parametrize("name", ["first layer", "groups", "small planes, many filters", "large plane", "depthwise"])
def test_results_do_not_depend_on_the_number_of_threads(name, algorithm, layout, monkeypatch):
    if runtime.get_num_threads() < 2:
        pytest.skip("needs two threads")
    case, known = BY_NAME[name], answers(name)
    monkeypatch.setattr(runtime, "SERIAL_BELOW", 0)
    x, w, dout = images(known.x, layout), filters(known.w, layout), images(known.dout, layout)
    if declines(algorithm, x.shape, w.shape, layout=layout, **case.options):
        pytest.skip(f"{algorithm} declines")
    results = []
    for threads in (1, 2, 2):
        with runtime.num_threads(threads):
            out, cache = conv2d_forward(x, w, known.b, layout=layout, algorithm=algorithm, **case.options)
            results.append((out, *conv2d_backward(dout, cache)))
    for name, one, two, again in zip(("out", "dx", "dw", "db"), *results, strict=True):
        np.testing.assert_array_equal(two, again, err_msg=name)
        # The sum over all pixels in dw is split among threads; "auto" may choose otherwise for another number of them.
        if name != "dw" and algorithm not in CLASSES:
            np.testing.assert_array_equal(one, two, err_msg=name)
        assert_close(two, one.astype(np.float64), lengths(case)[2], ACCURACY[algorithm])


@pytest.fixture
def tiny_blocks(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(runtime, "SERIAL_BELOW", 0)
        use_tiny_blocks(patch.setattr)
        yield
    plan._cached.cache_clear()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("algorithm", conv2d_algorithms())
def test_sizes_of_blocks_steer_speed_only(algorithm, layout, dtype, tiny_blocks):
    """The catalogue in many pieces: of the batch, the pixels, the filters and the sums."""
    for name, case in BY_NAME.items():
        shapes = case.x_shape(layout), case.w_shape(layout)
        if case.C * case.F > 5000 or declines(algorithm, *shapes, layout=layout, dtype=dtype, **case.options):
            continue
        known, length, accuracy = answers(name), lengths(case), ACCURACY[algorithm]
        x, w = images(known.x, layout).astype(dtype), filters(known.w, layout).astype(dtype)
        options = {"layout": layout, "algorithm": algorithm, "activation": "relu", **case.options}
        out, cache = conv2d_forward(x, w, known.b.astype(dtype), **options)
        dx, dw, db = conv2d_backward(images(known.dout, layout).astype(dtype), cache)
        expected = known.backward(True, "relu")
        assert_close(out, images(known.forward(True, "relu"), layout), length[0] + 1, accuracy)
        assert_close(dx, images(expected[0], layout), length[1], accuracy)
        assert_close(dw, filters(expected[1], layout), length[2], accuracy)
        assert_close(db, expected[2], length[3])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_pixels_that_leave_out_taps_outside_the_image(layout, dtype, monkeypatch):
    """Vectors over filters, read from pixels, with every row and column that meets other taps by itself."""
    monkeypatch.setattr(OverFiltersPass, "_grid_cycles", lambda self, grid: -1.0)  # the more grids, the better
    for name, case in BY_NAME.items():
        if case.C * case.F > 5000:
            continue
        known, length = answers(name), lengths(case)
        x, w = images(known.x, layout).astype(dtype), filters(known.w, layout).astype(dtype)
        problem = explain_conv2d(x.shape, w.shape, layout=layout, dtype=dtype, **case.options).problem
        if problem.empty:
            continue
        for gradient in (False, True):
            work = OverFiltersPass(problem, 2, packed=False, gradient=gradient, pixels=True)
            operand, expected = (known.dout, known.backward(False, None)[0]) if gradient else (known.x, known.out)
            result = np.full(images(expected, layout).shape, np.nan, dtype)
            again = np.full_like(result, np.nan)
            given = images(operand, layout).astype(dtype), w, np.empty(0, dtype)
            work.run(*given, result)
            assert_close(result, images(expected, layout), length[gradient])
            work.run(*given, again, work.prepare(w))
            np.testing.assert_array_equal(again, result, err_msg=name)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("height", "width", "taps", "options"),
    [
        (1, 19, 5, {"padding": ((7, 9), (4, 4))}),
        (3, 19, 3, {"padding": ((9, 4), (2, 3)), "dilation": (4, 1)}),
        (9, 19, 4, {"padding": ((6, 7), (3, 3)), "stride": (2, 1)}),
        (40, 19, 7, {"padding": 3}),
        (20, 90, 5, {"padding": 2}),
        (11, 70, 4, {"padding": ((5, 0), (9, 30)), "stride": (2, 1)}),
        (12, 64, 3, {"padding": (2, 4), "dilation": (2, 4)}),
        (5, 90, 15, {"padding": 7}),
    ],
)
def test_taps_outside_the_image_are_left_out(height, width, taps, options, layout):
    """Output rows and columns that meet the whole kernel, some of it, or nothing."""
    x, w, b = normal(1, (3, 2, height, width)), normal(2, (11, 2, taps, taps)), normal(3, (11,))
    expected = oracle.conv2d(x, w, b, **options)
    for images_at_once in (3, 1):
        given = images(x[:images_at_once], layout), filters(w, layout), b
        out = conv2d(*given, layout=layout, algorithm="few_channels", **options)
        assert_close(out, images(expected[:images_at_once], layout), 2 * taps * taps)


@pytest.mark.parametrize(
    ("x_shape", "w_shape", "options"),
    [((2, 40, 60, 3), (3, 3, 3, 16), {"stride": 2, "padding": 1}), ((1, 50, 70, 4), (7, 7, 4, 32), {"padding": 3})],
)
def test_wide_channels_last_images_are_not_padded(x_shape, w_shape, options):
    problem = explain_conv2d(x_shape, w_shape, layout="NHWC", **options).problem
    assert SweepsPass(problem, 2).workspace == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("way", "layout"), [(MirroredSweepsPass, "NCHW"), (MirroredSweepsPass, "NHWC"), (ChannelDotsPass, "NHWC")]
)
def test_gradient_of_x_of_few_channels(way, layout, dtype, monkeypatch):
    """As a sweep over dout, or as dot products along filters, wherever that is possible."""
    monkeypatch.setattr(runtime, "SERIAL_BELOW", 0)
    met = 0
    for name, case in BY_NAME.items():
        known = answers(name)
        x, w = images(known.x, layout).astype(dtype), filters(known.w, layout).astype(dtype)
        problem = explain_conv2d(x.shape, w.shape, layout=layout, dtype=dtype, **case.options).problem
        if problem.empty or way.declines(problem):
            continue
        for threads in (1, runtime.get_num_threads()):
            dx = np.full(x.shape, np.nan, dtype)
            work = way(problem, threads)
            work.run(images(known.dout, layout).astype(dtype), w, np.empty(0, dtype), dx)
            assert_close(dx, images(known.backward(False, None)[0], layout), lengths(case)[1])
        met += 1
    assert met >= 3


@pytest.mark.parametrize(("filters_of_a_lane", "declined"), [(2, False), (3, True)])
def test_long_sums_are_not_made_in_one_go(filters_of_a_lane, declined):
    """Dot products of 31x31 taps: a lane adds up 961 products for each of its filters."""
    shapes = (1, 40, 40, 1), (31, 31, 1, filters_of_a_lane * MACHINE.lanes(4))
    problem = explain_conv2d(*shapes, padding=15, layout="NHWC").problem
    assert ChannelDotsPass.declines(problem) is declined


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("algorithm", conv2d_algorithms())
def test_last_images_of_a_batch(algorithm, layout, monkeypatch):
    """Three images at a time in scratch memory, and two at the end: fewer tasks than for the others."""
    monkeypatch.setattr(runtime, "SERIAL_BELOW", 0)
    monkeypatch.setattr(costs, "CHUNK_BYTES", 20_000)
    plan._cached.cache_clear()
    x, w = normal(1, (5, 4, 20, 20)), normal(2, (4, 4, 3, 3))
    dout = normal(3, (5, 4, 20, 20))
    options = {"padding": 1, "layout": layout}
    if declines(algorithm, images(x, layout).shape, filters(w, layout).shape, **options):
        pytest.skip(f"{algorithm} declines")
    out, cache = conv2d_forward(images(x, layout), filters(w, layout), algorithm=algorithm, **options)
    dx, dw, _ = conv2d_backward(images(dout, layout), cache)
    known = oracle.conv2d_gradients(x, w, dout, padding=1)
    accuracy = ACCURACY[algorithm]
    assert_close(out, images(oracle.conv2d(x, w, padding=1), layout), 36, accuracy)
    assert_close(dx, images(known[0], layout), 36, accuracy)
    assert_close(dw, filters(known[1], layout), 2000, accuracy)
    plan._cached.cache_clear()


def test_wrt_selects_gradients():
    cache = conv2d_forward(X, W, B, **OPTIONS)[1]
    dx, dw, db = conv2d_backward(DOUT, cache)
    for wrt, expected in [
        ("x", (dx, None, None)),
        (("w",), (None, dw, None)),
        (["b", "w"], (None, dw, db)),
        ((), (None, None, None)),
        ({"x", "b"}, (dx, None, db)),
    ]:
        for got, known in zip(conv2d_backward(DOUT, cache, wrt=wrt), expected, strict=True):
            assert (got is None) == (known is None)
            if known is not None:
                np.testing.assert_array_equal(got, known)


def test_backward_twice_gives_the_same():
    cache = conv2d_forward(X, W, B, activation="relu", **OPTIONS)[1]
    for first, second in zip(conv2d_backward(DOUT, cache), conv2d_backward(DOUT, cache), strict=True):
        assert first is not second
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("multiplier", [1, 3])
def test_depthwise_is_one_group_per_channel(multiplier, layout):
    x, w, b = normal(1, (2, 5, 8, 9)), normal(2, (5 * multiplier, 1, 3, 3)), normal(3, (5 * multiplier,))
    options = {"stride": 2, "padding": 1}
    out, cache = depthwise_conv2d_forward(images(x, layout), filters(w, layout), b, layout=layout, **options)
    expected = oracle.conv2d(x, w, b, groups=5, **options)
    assert_close(out, images(expected, layout), 10)
    plain = depthwise_conv2d(images(x, layout), filters(w, layout), b, layout=layout, **options)
    np.testing.assert_array_equal(plain, out)
    dout = normal(4, expected.shape)
    dx, dw, db = oracle.conv2d_gradients(x, w, dout, groups=5, **options)
    got = depthwise_conv2d_backward(images(dout, layout), cache)
    for mine, known in zip(got, (images(dx, layout), filters(dw, layout), db), strict=True):
        assert_close(mine, known, 100)
