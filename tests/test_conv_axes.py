"""conv1d and conv3d, forward and backward: plain loops, adjoint identities, options, arguments."""

from __future__ import annotations

import math

import array_forms
import numpy as np
import pytest
from conv_cases import normal
from oracles import convolution_axes as oracle
from tolerances import assert_close

import fastconv
from fastconv import folded, runtime
from fastconv.arguments import LAYOUTS

# name: x shape, w shape, options that the oracle and the library share (per axis), the oracle's pads
CASES = {
    "line": ((2, 3, 9), (4, 3, 3), {}, [(0, 0)]),
    "line, strided, dilated": ((2, 4, 17), (6, 2, 3), {"stride": (2,), "dilation": (3,), "groups": 2}, [(2, 1)]),
    "line, padding beyond the kernel": ((1, 2, 4), (3, 2, 2), {}, [(3, 4)]),
    "line, depthwise": ((2, 5, 21), (10, 1, 5), {"groups": 5}, [(2, 2)]),
    "volume": ((2, 3, 5, 6, 7), (4, 3, 3, 3, 3), {}, [(1, 1)] * 3),
    "volume, strided": ((2, 2, 7, 8, 6), (3, 2, 2, 3, 3), {"stride": (2, 1, 3)}, [(1, 0), (0, 2), (1, 1)]),
    "volume, dilated": ((1, 2, 7, 5, 6), (3, 2, 3, 2, 2), {"dilation": (2, 1, 3)}, [(2, 3), (0, 0), (1, 1)]),
    "volume, groups": ((2, 4, 4, 5, 5), (6, 2, 2, 3, 2), {"groups": 2}, [(1, 0), (1, 1), (0, 1)]),
    "volume, depthwise": ((2, 3, 5, 6, 5), (3, 1, 3, 3, 3), {"groups": 3}, [(1, 1)] * 3),
    "volume, two filters each": ((1, 3, 5, 5, 5), (6, 1, 2, 3, 3), {"groups": 3, "stride": (2, 1, 1)}, [(1, 1)] * 3),
    "1x1x1": ((2, 5, 3, 4, 5), (7, 5, 1, 1, 1), {}, [(0, 0)] * 3),
    "1x1x1 strided": ((2, 3, 5, 4, 5), (4, 3, 1, 1, 1), {"stride": (2, 2, 2)}, [(0, 0)] * 3),
    "depth only": ((1, 3, 6, 4, 5), (4, 3, 3, 1, 1), {"stride": (2, 1, 1)}, [(1, 1), (0, 0), (0, 0)]),
    "width only": ((2, 3, 3, 4, 9), (4, 3, 1, 1, 5), {}, [(0, 0), (0, 0), (2, 2)]),
    "planes alone": ((2, 3, 4, 5, 6), (4, 3, 1, 3, 3), {}, [(0, 0), (1, 1), (1, 1)]),
    "planes alone, grouped": ((2, 4, 4, 5, 6), (4, 2, 1, 3, 3), {"groups": 2}, [(0, 0), (1, 1), (1, 1)]),
    "one plane of one": ((2, 3, 1, 5, 6), (4, 3, 1, 3, 3), {}, [(0, 0), (1, 1), (1, 1)]),
    "one plane of all": ((2, 4, 3, 5, 6), (4, 2, 3, 3, 3), {"groups": 2}, [(0, 0), (1, 1), (1, 1)]),
    "depth that is mostly padding": ((1, 2, 1, 4, 4), (3, 2, 3, 3, 3), {}, [(2, 3), (1, 1), (1, 1)]),
}  # fmt: skip


def images(array: np.ndarray, last: bool) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(array, 1, -1)) if last else array


def filters(array: np.ndarray, last: bool) -> np.ndarray:
    return np.ascontiguousarray(array.transpose(*range(2, array.ndim), 1, 0)) if last else array


def functions(axes: int):
    return (getattr(fastconv, f"conv{axes}d{ending}") for ending in ("", "_forward", "_backward"))


def settled(name: str) -> dict:
    """All options of a case, for the oracle."""
    x_shape, _, options, pads = CASES[name]
    ones = (1,) * (len(x_shape) - 2)
    return {"stride": ones, "dilation": ones, "groups": 1, "pads": pads, **options}


def operands(name: str):
    x_shape, w_shape, _, _ = CASES[name]
    return normal(1, x_shape), normal(2, w_shape), normal(3, w_shape[:1])


def inner(a, b) -> float:
    return float(np.multiply(a, b, dtype=np.float64).sum())


@pytest.fixture(params=["whole", "in pieces"])
def pieces(request, monkeypatch):
    """Volumes at once, and a plane or two at a time."""
    folded._folded.cache_clear()
    if request.param == "in pieces":
        monkeypatch.setattr(folded, "PIECE_BYTES", 3000)
        monkeypatch.setattr(runtime, "SERIAL_BELOW", 0)
    yield
    folded._folded.cache_clear()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
@pytest.mark.parametrize("name", CASES)
def test_plain_loops_and_adjoint_identities(name, last, dtype, pieces):
    """out is the oracle's; dx, dw and db are its derivatives, because it is linear in x, in w and in b."""
    x, w, b = operands(name)
    axes, options = x.ndim - 2, settled(name)
    _, forward, backward = functions(axes)
    expected = oracle.convolve(x, w, b, **options)
    arrays = images(x, last).astype(dtype), filters(w, last).astype(dtype), b.astype(dtype)
    given = {**CASES[name][2], "padding": tuple(CASES[name][3]), "layout": LAYOUTS[axes][last]}
    out, cache = forward(*arrays, **given)
    length = math.prod(w.shape[1:]) + 1
    assert out.dtype == dtype
    assert_close(out, images(expected, last), length)
    dout = normal(4, expected.shape)
    dx, dw, db = backward(images(dout, last).astype(dtype), cache)
    assert dx.shape == arrays[0].shape and dw.shape == arrays[1].shape
    assert_close(db, dout.sum(axis=(0, *range(2, x.ndim)), dtype=np.float64), dout[:, 0].size)
    tolerance = 1e-9 if dtype == "float64" else 1e-3
    change_x, change_w = normal(5, x.shape), normal(6, w.shape)
    moved = inner(oracle.convolve(change_x, w, **options), dout)
    assert inner(images(change_x, last), dx) == pytest.approx(moved, rel=tolerance, abs=tolerance)
    moved = inner(oracle.convolve(x, change_w, **options), dout)
    assert inner(filters(change_w, last), dw) == pytest.approx(moved, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("name", ["line, strided, dilated", "volume, strided", "volume, depthwise"])
def test_relu_by_central_differences(name, last):
    x, w, b = (a.astype(np.float64) for a in operands(name))
    x, w = images(x[:1, :, :4], last), filters(w, last)
    axes = x.ndim - 2
    function, forward, backward = functions(axes)
    options = {**CASES[name][2], "padding": tuple(CASES[name][3]), "layout": LAYOUTS[axes][last], "activation": "relu"}
    out, cache = forward(x, w, b, **options)
    assert (out == 0).any() and (out > 0).any()
    dout = np.random.default_rng(7).standard_normal(out.shape)
    for array, gradient in zip((x, w, b), backward(dout, cache), strict=True):
        for place in list(np.ndindex(*array.shape))[::5]:
            kept = array[place]
            values = []
            for moved in (kept + 1e-5, kept - 1e-5):
                array[place] = moved
                values.append(inner(function(x, w, b, **options), dout))
            array[place] = kept
            assert gradient[place] == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("axes", [1, 3])
@pytest.mark.parametrize(("mode", "numpy_mode"), [("reflect", "reflect"), ("replicate", "edge"), ("circular", "wrap")])
def test_padding_modes(mode, numpy_mode, axes, last):
    pads = [(2, 1), (1, 2), (0, 2)][:axes]
    x, w = normal(1, (2, 3, *(4, 5, 6)[:axes])), normal(2, (4, 3, *(3, 2, 2)[:axes]))
    ones = (1,) * axes
    options = {"padding": pads, "padding_mode": mode, "layout": LAYOUTS[axes][last]}
    _, forward, backward = functions(axes)
    out, cache = forward(images(x, last), filters(w, last), **options)
    plain = {"stride": ones, "dilation": ones, "pads": pads, "mode": numpy_mode}
    expected = oracle.convolve(x, w, **plain)
    assert_close(out, images(expected, last), w[0].size)
    dout = normal(3, expected.shape)
    dx = backward(images(dout, last), cache, wrt="x")[0]
    change = normal(4, x.shape)
    moved = inner(oracle.convolve(change, w, **plain), dout)
    assert dx.shape == images(x, last).shape
    assert inner(images(change, last), dx) == pytest.approx(moved, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("axes", [1, 3])
def test_forms_of_arguments_agree(axes):
    x, w = normal(1, (2, 3, *(8, 9, 7)[:axes])), normal(2, (4, 3, *(3, 3, 3)[:axes]))
    function = getattr(fastconv, f"conv{axes}d")
    expected = function(x, w, stride=2, padding=1, dilation=2)
    for wrap in (tuple, list, np.array):
        each = {"stride": wrap([2] * axes), "padding": wrap([1] * axes), "dilation": wrap([2] * axes)}
        np.testing.assert_array_equal(function(x, w, **each), expected)
    np.testing.assert_array_equal(function(x, w, stride=2, padding=((1, 1),) * axes, dilation=2), expected)
    np.testing.assert_array_equal(function(x, w, padding="valid"), function(x, w))
    np.testing.assert_array_equal(function(x, w, padding="same"), function(x, w, padding=1))
    for named in ("same", "same_lower"):
        assert function(x, w, stride=2, padding=named).shape[2:] == tuple(-(-n // 2) for n in x.shape[2:])


def test_same_puts_the_odd_cell_at_the_end():
    x, w = normal(1, (1, 2, 8)), normal(2, (3, 2, 4))
    np.testing.assert_array_equal(fastconv.conv1d(x, w, padding="same"), fastconv.conv1d(x, w, padding=(1, 2)))
    np.testing.assert_array_equal(fastconv.conv1d(x, w, padding="same_lower"), fastconv.conv1d(x, w, padding=(2, 1)))


@pytest.mark.parametrize("axes", [1, 3])
@pytest.mark.parametrize("form", array_forms.FORMS)
def test_any_memory_layout(form, axes):
    make, (_, forward, backward) = array_forms.FORMS[form], functions(axes)
    x, w, b = normal(1, (2, 4, *(5, 6, 7)[:axes])), normal(2, (6, 2, *(3, 2, 3)[:axes])), normal(3, (6,))
    out, cache = forward(x, w, b, groups=2)
    dout = normal(4, out.shape)
    got, made = forward(make(x), make(w), make(b), groups=2)
    assert_close(got.astype(np.float32), out.astype(np.float64), 40)
    for mine, known in zip(backward(make(dout), made), backward(dout, cache), strict=True):
        assert_close(mine.astype(np.float32), known.astype(np.float64), 300)


@pytest.mark.parametrize("axes", [1, 3])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "bool"])
def test_dtypes_and_out(dtype, axes):
    function, forward, backward = functions(axes)
    x, w = (3 * normal(1, (2, 4, *(5, 6, 7)[:axes]))).astype(dtype), normal(2, (6, 4, *(3, 2, 3)[:axes])).astype(dtype)
    out, cache = forward(x, w)
    result = dtype if dtype.startswith("float") else "float64"
    ones = (1,) * axes
    expected = oracle.convolve(x, w, stride=ones, pads=[(0, 0)] * axes, dilation=ones)
    assert out.dtype == result
    assert_close(out / 10, expected / 10, w[0].size)
    assert {g.dtype for g in backward(np.ones_like(out), cache, wrt=("x", "w"))[:2]} == {np.dtype(result)}
    for target in (np.full_like(out, 7), array_forms.spread(np.full_like(out, 7)), np.full_like(out, 7, order="F")):
        assert function(x, w, out=target) is target
        np.testing.assert_array_equal(target, out)


@pytest.mark.parametrize("axes", [1, 3])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("N", "C", "F", "size"), [(0, 3, 4, 5), (2, 0, 4, 5), (2, 3, 0, 5), (2, 3, 4, 0)])
def test_empty_arrays(N, C, F, size, last, axes):
    _, forward, backward = functions(axes)
    x, w = images(np.ones((N, C, *(size,) * axes)), last), filters(np.ones((F, C, *(3,) * axes)), last)
    b = np.linspace(-1, 1, F)
    out, cache = forward(x, w, b, padding=2, layout=LAYOUTS[axes][last], activation="relu")
    assert out.shape == images(np.empty((N, F, *(size + 2,) * axes)), last).shape
    if out.size:
        per_filter = np.moveaxis(out, -1 if last else 1, 0).reshape(F, -1)
        np.testing.assert_array_equal(per_filter, np.broadcast_to(np.maximum(b, 0)[:, None], per_filter.shape))
    dx, dw, db = backward(np.ones_like(out), cache)
    assert dx.shape == x.shape and dw.shape == w.shape and not dx.any() and not dw.any() and db.shape == b.shape


@pytest.mark.parametrize("axes", [1, 3])
@pytest.mark.parametrize("last", [False, True])
def test_depthwise_is_one_group_per_channel(last, axes):
    names = (f"depthwise_conv{axes}d{ending}" for ending in ("", "_forward", "_backward"))
    function, forward, backward = (getattr(fastconv, name) for name in names)
    plain, plain_forward, plain_backward = functions(axes)
    x, w = images(normal(1, (2, 3, *(6,) * axes)), last), filters(normal(2, (6, 1, *(3,) * axes)), last)
    options = {"padding": 1, "layout": LAYOUTS[axes][last]}
    expected, expected_cache = plain_forward(x, w, groups=3, **options)
    out, cache = forward(x, w, **options)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(function(x, w, **options), plain(x, w, groups=3, **options))
    for mine, known in zip(backward(out, cache, wrt=("x", "w")), plain_backward(out, expected_cache), strict=True):
        np.testing.assert_array_equal(mine, known)
    with pytest.raises(TypeError, match=f"depthwise_conv{axes}d: groups is always the number of channels"):
        function(x, w, groups=3, **options)


def test_scratch_memory_stays_within_its_bound(monkeypatch):
    x, w = normal(1, (2, 8, 12, 16, 16)), normal(2, (8, 8, 3, 3, 3))
    expected, cache = fastconv.conv3d_forward(x, w, padding=1)
    gradients = fastconv.conv3d_backward(expected, cache)
    monkeypatch.setattr(runtime, "_max_workspace", 400_000)
    out, cache = fastconv.conv3d_forward(x, w, padding=1)
    for direction in ("forward", "gradient_x", "gradient_w"):
        work = folded.plan_of(cache.problem, direction, "auto")
        assert work.images < cache.problem.images and work.workspace <= 400_000
    assert_close(out, expected.astype(np.float64), 216)
    for mine, known in zip(fastconv.conv3d_backward(expected, cache), gradients, strict=True):
        if known is not None:
            np.testing.assert_allclose(mine, known, rtol=1e-3, atol=2e-2)


def test_nan_stays_in_its_windows():
    for last in (False, True):
        for groups in (1, 3):
            x, w = np.zeros((1, 3, 6, 6, 6), np.float32), np.ones((3, 3 // groups, 3, 3, 3), np.float32)
            x[0, 0, 0, 0, 0] = np.nan
            options = {"padding": 1, "groups": groups, "layout": LAYOUTS[3][last], "algorithm": "direct"}
            out = np.moveaxis(fastconv.conv3d(images(x, last), filters(w, last), **options), -1 if last else 1, 1)
            reached = np.zeros(out.shape, bool)
            reached[:, : 3 // groups if groups == 1 else 1, :2, :2, :2] = True
            np.testing.assert_array_equal(np.isnan(out), reached)


X1, W1 = np.ones((2, 4, 9), np.float32), np.ones((6, 4, 3), np.float32)
X3, W3 = np.ones((2, 4, 5, 6, 7), np.float32), np.ones((6, 4, 3, 3, 3), np.float32)
ERRORS = [
    (1, (X1[0], W1), {}, ValueError, ["x must have 3 dimensions", "(4, 9)"]),
    (1, (X1, W1[0]), {}, ValueError, ["w must have 3 dimensions"]),
    (1, (X1[:, :3], W1), {}, ValueError, ["w has 4 input channels per group", "3 / 1 = 3"]),
    (1, (X1, W1), {"stride": (1, 1)}, ValueError, ["stride must be an integer or a sequence of 1", "(1, 1)"]),
    (1, (X1, W1), {"stride": 0}, ValueError, ["stride must be at least 1", "0"]),
    (1, (X1, W1), {"padding": (1, 2, 3)}, ValueError, ["padding must be an integer or a sequence of 1", "(1, 2, 3)"]),
    (1, (X1, W1), {"padding": "full"}, ValueError, ["padding must be one of 'valid', 'same'", "'full'"]),
    (1, (X1, W1), {"dilation": 5}, ValueError, ["not be larger than the padded input", "11", "9"]),
    (1, (X1, W1), {"layout": "NCHW"}, ValueError, ["layout must be one of 'NCW', 'NWC'", "'NCHW'"]),
    (1, (X1, W1), {"padding": 9, "padding_mode": "reflect"}, ValueError, ["reflect padding must be smaller", "9"]),
    (1, (X1, W1), {"out": np.zeros((2, 6, 7))}, ValueError, ["out must have shape (2, 6, 7) and dtype float32"]),
    (1, (X1, W1, np.ones(5)), {}, ValueError, ["b must have one number per filter, shape (6,)", "(5,)"]),
    (3, (X3[0], W3), {}, ValueError, ["x must have 5 dimensions"]),
    (3, (X3, W3[:, :, :0]), {}, ValueError, ["w must have a kernel of at least 1x1x1", "0x3x3"]),
    (3, (X3, W3), {"stride": (1, 1)}, ValueError, ["stride must be an integer or a sequence of 3", "(1, 1)"]),
    (3, (X3, W3), {"stride": 1.5}, TypeError, ["stride must be an integer", "1.5"]),
    (3, (X3, W3), {"stride": "2"}, TypeError, ["stride must be an integer", "'2'"]),
    (3, (X3, W3), {"padding": (1, -1, 0)}, ValueError, ["padding must be at least 0", "-1"]),
    (3, (X3, W3), {"dilation": 3}, ValueError, ["not be larger than the padded input", "7x7x7", "5x6x7"]),
    (3, (X3, W3), {"groups": 3}, ValueError, ["groups must divide channels and filters", "3 for 4 and 6"]),
    (3, (X3, W3), {"padding": (5, 0, 0), "padding_mode": "reflect"}, ValueError, ["smaller than the depth", "5"]),
    (3, (X3, W3), {"algorithm": "magic"}, ValueError, ["algorithm must be one of", "'magic'"]),
    (3, (X3, W3), {"algorithm": "depthwise"}, ValueError, ["algorithm 'depthwise' cannot run this problem"]),
    (3, (X3.astype(complex), W3), {}, TypeError, ["x must hold", "complex128"]),
]  # fmt: skip


@pytest.mark.parametrize("case", ERRORS, ids=lambda case: " ".join(case[4])[:50])
def test_errors(case):
    axes, arrays, options, kind, parts = case
    for function in list(functions(axes))[:2]:
        with pytest.raises(kind) as error:
            function(*arrays, **options)
        for part in parts:
            assert part in str(error.value)
        if "cannot run" not in parts[0]:
            assert str(error.value).startswith(f"{function.__name__}: ")


def test_errors_of_backward():
    cache = fastconv.conv1d_forward(X1, W1)[1]
    with pytest.raises(ValueError, match=r"conv1d_backward: dout must have the output's shape \(2, 6, 7\), got"):
        fastconv.conv1d_backward(np.ones((2, 6, 8)), cache)
    with pytest.raises(TypeError, match="cache must come from conv3d_forward, got one of conv1d_forward"):
        fastconv.conv3d_backward(np.ones((2, 6, 7)), cache)
    with pytest.raises(TypeError, match="cache must come from conv1d_forward, got tuple"):
        fastconv.conv1d_backward(np.ones((2, 6, 7)), ())
