"""Pooling in one to three dimensions against the oracle, window by window."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
from array_forms import FORMS
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import pooling as oracle
from tolerances import assert_close

from fastconv import pooling, runtime
from fastconv.testing import numerical_gradient

LAYOUTS = {1: ("NCW", "NWC"), 2: ("NCHW", "NHWC"), 3: ("NCDHW", "NDHWC")}
DTYPES = ("float32", "float64")


def named(kind: str, axes: int, suffix: str = ""):
    return getattr(pooling, f"{kind}{axes}d{suffix}")


def arranged(array: np.ndarray, layout: str) -> np.ndarray:
    """Channels-first brought into the layout."""
    return np.ascontiguousarray(np.moveaxis(array, 1, -1)) if layout.endswith("C") else array


def normal(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


class Windows(NamedTuple):
    """What decides which kernels are compiled for a problem; one entry per axis."""

    last: bool  # the channels
    dtype: str
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]


def _windows(seed: int) -> Windows:
    rng = np.random.default_rng(seed)
    axes = (1, 2, 2, 3)[seed % 4]
    kernel, stride, dilation = (tuple(map(int, rng.integers(1, most + 1, axes))) for most in (4, 4, 3))
    return Windows(bool(rng.integers(2)), DTYPES[rng.integers(2)], kernel, stride, dilation)


# 24 of the thousands that are possible: of windows without limit, the tests compiled 480 kernels in 100 s.
WINDOWS = [_windows(seed) for seed in range(24)]


@st.composite
def problems(draw, form: Windows):
    """(sizes, options of the library, the oracle's windows), possible or not."""
    axes = len(form.kernel)
    sizes = tuple(draw(st.integers(1, (14, 9, 6)[axes - 1])) for _ in range(axes))
    halves = [(gap * (taps - 1) + 1) // 2 for gap, taps in zip(form.dilation, form.kernel, strict=True)]
    pads = tuple((draw(st.integers(0, half)), draw(st.integers(0, half))) for half in halves)
    ceil_mode = draw(st.booleans())
    options = {
        "kernel_size": form.kernel, "stride": form.stride, "padding": pads, "dilation": form.dilation,
        "ceil_mode": ceil_mode,
    }  # fmt: skip
    each_axis = zip(sizes, form.kernel, form.stride, pads, form.dilation, strict=True)
    return sizes, options, [oracle.axis_windows(*axis, ceil_mode) for axis in each_axis]


def with_ties(seed: int, sizes: tuple[int, ...], special: bool) -> np.ndarray:
    """Few different numbers, so that windows have ties; `special` adds NaN and infinities."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-1, 3, (2, 3, *sizes)).astype(np.float32)
    if special:
        x[rng.random(x.shape) < 0.1] = np.nan
        x[rng.random(x.shape) < 0.3] = -np.inf
    return x


def refuses(call, *arguments, **options) -> None:
    with pytest.raises(ValueError, match=r"kernel_size must not exceed|every window must contain a cell of x"):
        call(*arguments, **options)


SETTINGS = settings(max_examples=120)


@SETTINGS
@given(data=st.data(), form=st.sampled_from(WINDOWS), special=st.booleans(), seed=st.integers(0, 99))
def test_max_pool(data, form, special, seed):
    sizes, options, windows = data.draw(problems(form))
    axes, dtype, layout = len(sizes), form.dtype, LAYOUTS[len(sizes)][form.last]
    x = with_ties(seed, sizes, special)
    given_x = arranged(x, layout).astype(dtype)
    if not oracle.possible(windows):
        return refuses(named("max_pool", axes), given_x, layout=layout, **options)
    expected = arranged(oracle.max_pool(x, windows), layout)
    out, indices = named("max_pool", axes)(given_x, layout=layout, return_indices=True, **options)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(indices, arranged(oracle.max_indices(x, windows), layout))
    assert (out.dtype, indices.dtype) == (np.dtype(dtype), np.dtype(np.int64))
    np.testing.assert_array_equal(named("max_pool", axes)(given_x, layout=layout, **options), expected)
    dout = normal(seed, oracle.max_pool(x, windows).shape)
    for ties in ("first", "split", "all"):
        out, cache = named("max_pool", axes, "_forward")(given_x, layout=layout, ties=ties, **options)
        np.testing.assert_array_equal(out, expected)
        dx = named("max_pool", axes, "_backward")(arranged(dout, layout).astype(dtype), cache)
        assert dx.dtype == dtype
        cells = math.prod(options["kernel_size"])
        assert_close(dx, arranged(oracle.max_gradient(x, windows, dout, ties), layout), cells)


@SETTINGS
@given(
    data=st.data(), form=st.sampled_from(WINDOWS), include_pad=st.booleans(),
    divisor=st.sampled_from([None, None, 1, 5]), seed=st.integers(0, 99),
)  # fmt: skip
def test_avg_pool(data, form, include_pad, divisor, seed):
    sizes, options, windows = data.draw(problems(form))
    axes, dtype, layout = len(sizes), form.dtype, LAYOUTS[len(sizes)][form.last]
    x = normal(seed, (2, 3, *sizes))
    options |= {"layout": layout, "count_include_pad": include_pad, "divisor_override": divisor}
    given_x = arranged(x, layout).astype(dtype)
    if not oracle.possible(windows):
        return refuses(named("avg_pool", axes), given_x, **options)
    expected = oracle.avg_pool(x, windows, include_pad, divisor)
    out, cache = named("avg_pool", axes, "_forward")(given_x, **options)
    cells = math.prod(options["kernel_size"])
    assert_close(out, arranged(expected, layout), cells)
    np.testing.assert_array_equal(named("avg_pool", axes)(given_x, **options), out)
    dout = normal(seed + 1, expected.shape)
    dx = named("avg_pool", axes, "_backward")(arranged(dout, layout).astype(dtype), cache)
    assert_close(dx, arranged(oracle.avg_gradient(x, windows, dout, include_pad, divisor), layout), cells)
    assert out.dtype == dx.dtype == np.dtype(dtype)


@settings(max_examples=30)
@given(data=st.data(), form=st.sampled_from(WINDOWS), p=st.sampled_from([1, 2, 3, 2.5]), seed=st.integers(0, 99))
def test_lp_pool(data, form, p, seed):
    sizes, options, windows = data.draw(problems(form))
    axes, dtype, layout = len(sizes), form.dtype, LAYOUTS[len(sizes)][form.last]
    x = np.abs(normal(seed, (2, 2, *sizes))) + 0.1
    given_x = arranged(x, layout).astype(dtype)
    if not oracle.possible(windows):
        return refuses(named("lp_pool", axes), given_x, layout=layout, **options)
    cells = math.prod(options["kernel_size"])
    expected = oracle.lp_pool(x, windows, p, cells)
    out, cache = named("lp_pool", axes, "_forward")(given_x, norm_type=p, layout=layout, **options)
    assert_close(out, arranged(expected, layout), cells)
    np.testing.assert_array_equal(named("lp_pool", axes)(given_x, norm_type=p, layout=layout, **options), out)
    assert out.dtype == named("lp_pool", axes, "_backward")(np.ones_like(out), cache).dtype == np.dtype(dtype)


# (layout and dtype's index, sizes, counts). The last axis shrinks to a stride-th, for which there are kernels of even
# windows, or to any size, for which there are those of uneven ones.
ADAPTIVE = [
    (0, (6,), (3,)), (3, (7,), (2,)), (2, (1,), (1,)), (1, (4, 6), (2, 2)), (2, (5, 7), (3, 2)), (3, (9, 4), (9, 1)),
    (0, (2, 10), (7, 3)), (1, (3, 5, 4), (1, 2, 2)), (2, (1, 8, 7), (4, 3, 2)),
]  # fmt: skip


@SETTINGS
@given(case=st.sampled_from(ADAPTIVE), special=st.booleans(), seed=st.integers(0, 99))
def test_adaptive_and_global(case, special, seed):
    form, sizes, counts = case
    axes, dtype = len(sizes), DTYPES[form % 2]
    layout = LAYOUTS[axes][form // 2]
    x, ties = normal(seed, (2, 3, *sizes)), with_ties(seed, sizes, special)
    for kind, lengths, arguments in (("adaptive", counts, (counts,)), ("global", (1,) * axes, ())):
        windows = [oracle.adaptive_windows(size, count) for size, count in zip(sizes, lengths, strict=True)]
        dout = normal(seed + 1, (2, 3, *lengths))
        given_dout = arranged(dout, layout).astype(dtype)

        name = f"{kind}_avg_pool"
        out, cache = named(name, axes, "_forward")(arranged(x, layout).astype(dtype), *arguments, layout=layout)
        assert_close(out, arranged(oracle.avg_pool(x, windows), layout), math.prod(sizes))
        dx = named(name, axes, "_backward")(given_dout, cache)
        assert_close(dx, arranged(oracle.avg_gradient(x, windows, dout), layout), math.prod(counts))
        again = named(name, axes)(arranged(x, layout).astype(dtype), *arguments, layout=layout)
        np.testing.assert_array_equal(again, out)

        name = f"{kind}_max_pool"
        given_x = arranged(ties, layout).astype(dtype)
        out, cache = named(name, axes, "_forward")(given_x, *arguments, layout=layout)
        np.testing.assert_array_equal(out, arranged(oracle.max_pool(ties, windows), layout))
        dx = named(name, axes, "_backward")(given_dout, cache)
        assert_close(dx, arranged(oracle.max_gradient(ties, windows, dout, "first"), layout), math.prod(counts))
        np.testing.assert_array_equal(named(name, axes)(given_x, *arguments, layout=layout), out)
        assert {out.dtype, dx.dtype} == {np.dtype(dtype)}
        if kind == "adaptive":
            indices = named(name, axes)(given_x, *arguments, layout=layout, return_indices=True)[1]
            np.testing.assert_array_equal(indices, arranged(oracle.max_indices(ties, windows), layout))


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_adaptive_size_of_x(axes):
    x = normal(0, (1, 2, 4, 6, 5)[: axes + 2])
    np.testing.assert_array_equal(named("adaptive_avg_pool", axes)(x, None), x)
    mixed = (None, *(3,) * (axes - 1))
    assert named("adaptive_max_pool", axes)(x, mixed).shape == (1, 2, 4, 3, 3)[: axes + 2]


@settings(max_examples=40)
@given(data=st.data(), form=st.sampled_from(WINDOWS), seed=st.integers(0, 99))
def test_max_unpool(data, form, seed):
    form = form._replace(dilation=(1,) * len(form.kernel))
    sizes, options, windows = data.draw(problems(form))
    if not oracle.possible(windows):
        return
    axes, dtype, layout = len(sizes), form.dtype, LAYOUTS[len(sizes)][form.last]
    x = normal(seed, (2, 3, *sizes))
    indices = oracle.max_indices(x, windows)
    numbers = normal(seed + 1, indices.shape)
    keep = {name: options[name] for name in ("kernel_size", "stride", "padding")}
    arguments = arranged(numbers, layout).astype(dtype), arranged(indices, layout)
    usual = [
        (count - 1) * step - sum(pads) + taps
        for count, step, pads, taps in zip(indices.shape[2:], keep["stride"], keep["padding"], keep["kernel_size"],
                                           strict=True)
    ]  # fmt: skip
    if any(abs(size - length) >= step for size, length, step in zip(sizes, usual, keep["stride"], strict=True)):
        with pytest.raises(ValueError, match="output_size must be less than one stride"):
            named("max_unpool", axes)(*arguments, layout=layout, output_size=sizes, **keep)
        return
    out, cache = named("max_unpool", axes, "_forward")(*arguments, layout=layout, output_size=sizes, **keep)
    np.testing.assert_array_equal(out, arranged(oracle.unpool(numbers, indices, sizes), layout))
    whole = arranged(x, layout).shape
    again = named("max_unpool", axes)(*arguments, layout=layout, output_size=whole, **keep)
    np.testing.assert_array_equal(again, out)
    dout = normal(seed + 2, x.shape)
    dx = named("max_unpool", axes, "_backward")(arranged(dout, layout).astype(dtype), cache)
    flat = dout.reshape(2, 3, -1)
    expected = np.take_along_axis(flat, indices.reshape(2, 3, -1), axis=2).reshape(indices.shape)
    np.testing.assert_array_equal(dx, arranged(expected, layout))
    assert out.dtype == dx.dtype == np.dtype(dtype)


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("stride", [None, 1, 2, 3])
def test_same_padding(stride, dilation):
    """ "same" gives ceil(size / stride) windows, "same_lower" is its mirror image."""
    steps = stride or 3
    options = {"kernel_size": 3, "stride": stride, "dilation": dilation}
    for height, width in ((5, 8), (6, 7), (9, 1)):
        x = normal(height, (1, 2, height, width))
        pads = [oracle.same_pads(size, 3, steps, dilation) for size in (height, width)]
        windows = [
            oracle.axis_windows(size, 3, steps, both, dilation)
            for size, both in zip((height, width), pads, strict=True)
        ]
        assert [len(w) for w in windows] == [-(-height // steps), -(-width // steps)]
        np.testing.assert_array_equal(pooling.max_pool2d(x, padding="same", **options), oracle.max_pool(x, windows))
        assert_close(pooling.avg_pool2d(x, padding="same", **options), oracle.avg_pool(x, windows), 9)
        mirrored = pooling.max_pool2d(x[..., ::-1, ::-1], padding="same_lower", **options)
        if (height - 1) % steps == 0 and (width - 1) % steps == 0:  # windows start at both ends
            np.testing.assert_array_equal(mirrored[..., ::-1, ::-1], oracle.max_pool(x, windows))


def test_argument_forms_agree():
    x = normal(1, (1, 2, 9, 8))
    expected = pooling.avg_pool2d(x, (3, 3), stride=(2, 2), padding=((1, 1), (1, 1)), dilation=(1, 1))
    for kernel, stride, padding in ((3, 2, 1), ([3, 3], np.int64(2), (1, 1)), (np.array([3, 3]), [2, 2], [[1, 1], 1])):
        np.testing.assert_array_equal(pooling.avg_pool2d(x, kernel, stride=stride, padding=padding), expected)
    np.testing.assert_array_equal(pooling.max_pool2d(x, 2), pooling.max_pool2d(x, 2, stride=2, padding="valid"))
    line = x[:, :, 0]
    expected = pooling.max_pool1d(line, 3, padding=((1, 0),))
    np.testing.assert_array_equal(pooling.max_pool1d(line, (3,), stride=(3,), padding=(1, 0)), expected)
    np.testing.assert_array_equal(pooling.max_pool1d(line, 3, padding=(1,)), pooling.max_pool1d(line, 3, padding=1))


# One odd problem of every kind: (kind, positional arguments, options).
CALLS = {
    "max": ("max_pool", ((3, 2),), {"stride": (2, 1), "padding": ((1, 0), (0, 1)), "ceil_mode": True}),
    "max split": ("max_pool", (2,), {"stride": 1, "ties": "split"}),
    "max all": ("max_pool", (2,), {"stride": 1, "ties": "all"}),
    "avg": ("avg_pool", ((3, 2),), {"stride": (2, 1), "padding": 1, "count_include_pad": False}),
    "lp": ("lp_pool", (3,), {"stride": 2, "norm_type": 3, "padding": 1}),
    "adaptive avg": ("adaptive_avg_pool", ((3, 4),), {}),
    "adaptive max": ("adaptive_max_pool", ((3, 4),), {}),
    "global avg": ("global_avg_pool", (), {}),
    "global max": ("global_max_pool", (), {}),
}
X = np.abs(normal(7, (2, 3, 7, 6))) + 0.5


def run(name: str, x, layout: str = "NCHW"):
    """(out, dx) of a call, dout being cos(0), cos(1), ..."""
    kind, positional, options = CALLS[name]
    out, cache = named(kind, 2, "_forward")(x, *positional, layout=layout, **options)
    dout = np.cos(np.arange(out.size)).reshape(out.shape)
    return out, named(kind, 2, "_backward")(dout, cache)


@pytest.mark.parametrize("layout", LAYOUTS[2])
@pytest.mark.parametrize("name", CALLS)
def test_gradients_by_central_differences(name, layout):
    kind, positional, options = CALLS[name]
    x = arranged(np.random.default_rng(1).permutation(2 * 2 * 7 * 6).reshape(2, 2, 7, 6) / 50 + 0.2, layout)
    out, dx = run(name, x, layout)
    dout = np.cos(np.arange(out.size)).reshape(out.shape)
    forward = named(kind, 2, "_forward")
    expected = numerical_gradient(lambda v: forward(v, *positional, layout=layout, **options)[0], x, dout)
    np.testing.assert_allclose(dx, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CALLS)
def test_any_form_of_array(name, form):
    x = X.astype(np.float64)
    given_x = FORMS[form](x)
    before = np.array(given_x)
    for got, expected in zip(run(name, given_x), run(name, x), strict=True):
        np.testing.assert_array_equal(got, expected)
        assert got.dtype == np.float64 and got.dtype.isnative
    np.testing.assert_array_equal(np.array(given_x), before)
    kind, positional, options = CALLS[name]
    out, cache = named(kind, 2, "_forward")(x, *positional, **options)
    dout = np.cos(np.arange(out.size)).reshape(out.shape)
    np.testing.assert_array_equal(named(kind, 2, "_backward")(FORMS[form](dout), cache), run(name, x)[1])


@pytest.mark.parametrize(
    ("dtype", "result"),
    [("float16", "float16"), ("int8", "float64"), ("uint64", "float64"), ("bool", "float64"), ("float32", "float32")],
)
@pytest.mark.parametrize("name", CALLS)
def test_dtypes(name, dtype, result):
    x = (4 * X).astype(dtype)
    out, dx = run(name, x)
    assert out.dtype == dx.dtype == np.dtype(result)
    compute = np.float32 if dtype == "float16" else result
    for got, expected in zip((out, dx), run(name, x.astype(compute)), strict=True):
        np.testing.assert_array_equal(got, expected.astype(result))


@pytest.mark.parametrize("layout", LAYOUTS[2])
@pytest.mark.parametrize("shape", [(0, 3, 7, 6), (2, 0, 7, 6), (0, 0, 7, 6)])
@pytest.mark.parametrize("name", CALLS)
def test_no_images_or_channels(name, shape, layout):
    x = arranged(np.ones(shape, np.float32), layout)
    out, dx = run(name, x, layout)
    assert not out.size and dx.shape == x.shape and out.shape[0] == shape[0]
    out, indices = pooling.max_pool2d(x, 2, layout=layout, return_indices=True)
    assert out.shape == indices.shape == arranged(np.ones((*shape[:2], 3, 3)), layout).shape
    unpooled = pooling.max_unpool2d(out, indices, 2, layout=layout)
    assert unpooled.shape == arranged(np.ones((*shape[:2], 6, 6)), layout).shape


@pytest.mark.parametrize("layout", LAYOUTS[2])
@pytest.mark.parametrize("name", CALLS)
def test_results_do_not_depend_on_the_number_of_threads(name, layout, monkeypatch):
    monkeypatch.setattr(runtime, "SERIAL_BELOW", 0)
    for images in (1, 2, 3):  # channels-last gradients of max pooling are cut into bands of channels
        x = arranged(with_ties(images, (7, 6), False)[:1].repeat(images, axis=0) + 1.5, layout)
        results = []
        for threads in {1, runtime.get_num_threads()}:
            with runtime.num_threads(threads):
                results.append(run(name, x, layout))
        for one, more in zip(results[0], results[-1], strict=True):
            np.testing.assert_array_equal(one, more)


@pytest.mark.parametrize("layout", LAYOUTS[2])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_rows_of_many_vectors(stride, layout):
    shape = (1, 37, 6, 23) if layout == "NHWC" else (1, 2, 6, 203)
    x = np.random.default_rng(stride).integers(0, 6, shape).astype(np.float32)
    x[np.random.default_rng(0).random(shape) < 0.03] = np.nan
    windows = [oracle.axis_windows(size, 3, stride, (1, 1)) for size in shape[2:]]
    options = {"stride": stride, "padding": 1, "layout": layout}
    given_x = arranged(x, layout)
    out, indices = pooling.max_pool2d(given_x, 3, return_indices=True, **options)
    np.testing.assert_array_equal(out, arranged(oracle.max_pool(x, windows), layout))
    np.testing.assert_array_equal(indices, arranged(oracle.max_indices(x, windows), layout))
    np.testing.assert_array_equal(pooling.max_pool2d(given_x, 3, **options), out)
    mean, cache = pooling.avg_pool2d_forward(given_x, 3, **options)
    assert_close(mean, arranged(oracle.avg_pool(x, windows), layout), 9)
    dout = normal(1, oracle.avg_pool(x, windows).shape)
    dx = pooling.avg_pool2d_backward(arranged(dout, layout), cache)
    assert_close(dx, arranged(oracle.avg_gradient(x, windows, dout), layout), 9)


def test_masks_are_compact():
    x = normal(3, (1, 2, 40, 18))
    for kernel, dtype in (((16, 16), np.uint8), ((17, 16), np.int32), ((1, 18), np.uint8), ((40, 18), np.int32)):
        windows = [oracle.axis_windows(40, kernel[0], 3, (0, 0)), oracle.axis_windows(18, kernel[1], 2, (0, 0))]
        _, cache = pooling.max_pool2d_forward(x, kernel, stride=(3, 2))
        assert [mask.dtype for mask in cache.masks] == [dtype] and cache.x is None
        dout = normal(4, oracle.max_pool(x, windows).shape)
        dx = pooling.max_pool2d_backward(dout, cache)
        assert_close(dx, oracle.max_gradient(x, windows, dout, "first"), dout.size)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_windows_of_equal_lowest_numbers(axes):
    """A window of nothing but -inf has its first cell as its maximum, also where padding cuts the window."""
    x = np.full((1, 1, 5, 5, 5)[: axes + 2], -np.inf)
    out, indices = named("max_pool", axes)(x, 3, stride=2, padding=1, return_indices=True)
    assert np.isneginf(out).all()
    assert indices.ravel()[0] == 0 and indices.ravel()[-1] == sum(3 * 5**a for a in range(axes))


def test_averages_of_equal_numbers_are_exact():
    for kernel in (3, 5, 6, 7):
        x = np.full((1, 3, 42, 42), 3, np.float32)
        np.testing.assert_array_equal(pooling.avg_pool2d(x, kernel), 3)
        np.testing.assert_array_equal(pooling.adaptive_avg_pool2d(x, kernel), 3)


def test_lp_of_zero_and_negative_windows():
    out, cache = pooling.lp_pool2d_forward(np.zeros((1, 1, 4, 4)), 2)
    assert not out.any() and not pooling.lp_pool2d_backward(np.ones_like(out), cache).any()
    assert pooling.lp_pool2d(np.full((1, 1, 2, 2), -1.0), 2).item() == 2
    assert np.isnan(pooling.lp_pool2d(np.full((1, 1, 2, 2), -1.0), 2, norm_type=3)).all()
    assert pooling.lp_pool2d(np.full((1, 1, 2, 2), -1.0), 2, norm_type=1).item() == -4


def test_backward_twice_gives_the_same():
    for name, (kind, positional, options) in CALLS.items():
        out, cache = named(kind, 2, "_forward")(X, *positional, **options)
        first, second = (named(kind, 2, "_backward")(np.ones_like(out), cache) for _ in range(2))
        np.testing.assert_array_equal(first, second, err_msg=name)


ONES = np.ones((1, 2, 5, 6))


@pytest.mark.parametrize(
    ("name", "arguments", "options", "error", "message"),
    [
        (
            "max_pool2d",
            (np.ones((5, 6)), 2),
            {},
            ValueError,
            r"max_pool2d: x must have 4 dimensions, got shape \(5, 6\)",
        ),
        ("avg_pool2d", (ONES * 1j, 2), {}, TypeError, "avg_pool2d: x must hold float16.*got dtype complex128"),
        ("max_pool2d", (ONES, 0), {}, ValueError, "max_pool2d: kernel_size must be at least 1, got 0"),
        ("max_pool2d", (ONES, 2.0), {}, TypeError, "max_pool2d: kernel_size must be an integer, got 2.0"),
        ("max_pool3d", (ONES[None], (2, 2)), {}, ValueError, r"kernel_size must be .* sequence of 3, got \(2, 2\)"),
        ("avg_pool2d", (ONES, 2), {"stride": 0}, ValueError, "avg_pool2d: stride must be at least 1, got 0"),
        ("max_pool2d", (ONES, 2), {"dilation": -1}, ValueError, "dilation must be at least 1, got -1"),
        ("max_pool2d", (ONES, 2), {"padding": "full"}, ValueError, "padding must be one of 'valid'.*got 'full'"),
        ("max_pool2d", (ONES, 2), {"padding": 2}, ValueError, "padding must be at most half .* got 2 for 2x2"),
        ("avg_pool2d", (ONES, 3), {"padding": ((0, 2), 0)}, ValueError, r"got \(\(0, 2\), 0\) for 3x3"),
        ("max_pool1d", (ONES[0], 2), {"padding": (1, 1, 1)}, ValueError, "padding must be .* sequence of 1"),
        ("max_pool2d", (ONES, 7), {}, ValueError, "kernel_size must not exceed the padded input, got 7x7 .* for 5x6"),
        (
            "max_pool2d",
            (ONES[:, :, :0], 2),
            {"padding": 1},
            ValueError,
            "every window must contain a cell of x, got 0x6",
        ),
        ("max_pool2d", (ONES, 2), {"layout": "NCW"}, ValueError, "layout must be one of 'NCHW', 'NHWC', got 'NCW'"),
        ("max_pool2d", (ONES, 2), {"ceil_mode": "no"}, TypeError, "ceil_mode must be True or False, got 'no'"),
        ("max_pool2d", (ONES, 2), {"return_indices": 1}, TypeError, "return_indices must be True or False, got 1"),
        ("max_pool2d_forward", (ONES, 2), {"ties": "last"}, ValueError, "ties must be one of 'first'.*got 'last'"),
        ("avg_pool2d", (ONES, 2), {"count_include_pad": None}, TypeError, "count_include_pad must be True or False"),
        ("avg_pool2d", (ONES, 2), {"divisor_override": 0}, ValueError, "divisor_override must be at least 1, got 0"),
        ("lp_pool2d", (ONES, 2), {"norm_type": 0}, ValueError, "lp_pool2d: norm_type must be greater than 0, got 0"),
        ("lp_pool2d", (ONES, 2), {"norm_type": np.inf}, ValueError, "norm_type must be finite, got inf"),
        ("adaptive_avg_pool2d", (ONES, 0), {}, ValueError, "output_size must be at least 1, got 0"),
        ("adaptive_max_pool2d", (ONES, (2, "3")), {}, TypeError, "output_size must be an integer, got '3'"),
        ("global_avg_pool2d", (ONES[..., :0],), {}, ValueError, "x must have at least one cell along each axis"),
        ("max_unpool2d", (ONES, ONES, 2), {}, TypeError, "indices must be an array of integers, got dtype float64"),
        ("max_unpool2d", (ONES, [[1]], 2), {}, ValueError, r"indices must have x's shape .*, got \(1, 1\)"),
        ("max_unpool2d", (ONES, np.full(ONES.shape, 120), 2), {}, ValueError, "from 0 to 119 .10x12 cells., got 120"),
        ("max_unpool2d", (ONES, np.full(ONES.shape, -1), 2), {}, ValueError, "indices must be from 0 to 119"),
        (
            "max_unpool2d",
            (ONES, ONES.astype(int), 2),
            {"padding": "same"},
            ValueError,
            "padding must be given in numbers",
        ),
        (
            "max_unpool2d",
            (ONES, ONES.astype(int), 2),
            {"output_size": 12},
            ValueError,
            r"one stride \(2, 2\) away from",
        ),
        (
            "max_unpool2d",
            (ONES, ONES.astype(int), 2),
            {"output_size": (1, 3, 10, 12)},
            ValueError,
            "images and channels",
        ),
    ],
)
def test_errors(name, arguments, options, error, message):
    with pytest.raises(error, match=message):
        getattr(pooling, name)(*arguments, **options)


@pytest.mark.parametrize("kind", ["max_pool", "avg_pool", "lp_pool"])
def test_backward_errors(kind):
    cache = named(kind, 2, "_forward")(ONES, 2)[1]
    with pytest.raises(ValueError, match=rf"{kind}2d_backward: dout must have the output's shape \(1, 2, 2, 3\), got"):
        named(kind, 2, "_backward")(ONES, cache)
    with pytest.raises(TypeError, match=f"cache must come from {kind}2d_forward, got tuple"):
        named(kind, 2, "_backward")(ONES, (1, 2))
