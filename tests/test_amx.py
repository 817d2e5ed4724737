"""Products on the matrix unit: numbers in parts, extreme values, threads and forks; the catalogue is in `test_conv`."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conv_cases import normal
from oracles import convolution as oracle
from tolerances import assert_close

from fastconv import conv2d, conv2d_backward, conv2d_forward, explain_conv2d, prepare_conv2d
from fastconv._kernels import bfloat_parts
from fastconv._kernels.isa import matrix_unit_missing
from fastconv._kernels.jit import jit
from fastconv._kernels.simd import call_address
from fastconv.algorithms import amx

NAMES = [algorithm.name for algorithm in amx.ALGORITHMS]
X, W = normal(1, (2, 11, 12, 40)), normal(2, (3, 3, 40, 24))
OPTIONS = {"padding": 1, "layout": "NHWC"}

needs_unit = pytest.mark.skipif(matrix_unit_missing() is not None, reason=str(matrix_unit_missing()))


def test_declines(monkeypatch):
    monkeypatch.setattr(amx, "matrix_unit_missing", lambda: "the processor has no AMX")
    with pytest.raises(ValueError, match="'amx' cannot run this problem: the processor has no AMX"):
        conv2d(X, W, algorithm="amx", **OPTIONS)
    assert conv2d(X, W, algorithm="fast", **OPTIONS).shape == (2, 11, 12, 24)


@needs_unit
def test_reasons():
    found = explain_conv2d((1, 8, 9, 9), (8, 2, 3, 3), groups=4).predictions
    empty = "groups of fewer than 8 channels or filters leave the unit empty"
    assert {found["forward"][name] for name in NAMES} == {empty}
    found = explain_conv2d((1, 8, 9, 9), (8, 8, 3, 3), dtype=np.float64).predictions
    assert {found["forward"][name] for name in NAMES} == {"the unit multiplies parts of float32, not float64"}
    found = explain_conv2d((1, 8, 9, 9), (8, 8, 3, 3)).predictions
    assert {found["gradient_w"][name] for name in NAMES} == {"only forward and the gradient of x are made"}


@jit
def _call(callback, arguments):
    call_address(callback, arguments)


def floats(parts: np.ndarray) -> np.ndarray:
    """bfloat16 numbers, given by their bits, as float64."""
    return (parts.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


@needs_unit
@pytest.mark.parametrize("channels", (1, 3, 16, 31, 33, 70))
def test_three_parts_are_exact(channels):
    pixels, depth = 37, 32
    scales = np.random.default_rng(4).integers(-60, 60, (pixels, channels))
    x = np.ldexp(normal(3, (pixels, channels)), scales)
    assert x.dtype == np.float32
    planes = -(-channels // depth)
    kept = np.full((3, planes, pixels, depth), 7, np.uint16)
    part, plane = kept.strides[:2]
    cut = bfloat_parts.split_planes(3).address
    _call(cut, (kept.ctypes.data, part, plane, x.ctypes.data, pixels, channels, depth, channels, depth))
    sums = floats(kept).sum(axis=0).transpose(1, 0, 2).reshape(pixels, -1)
    np.testing.assert_array_equal(sums[:, :channels], x)
    assert not sums[:, channels:].any()
    lines, cut = planes * depth // 2, bfloat_parts.split_channels(3).address
    for apart in (1, 2, 3):
        planar = np.ascontiguousarray(x.T)
        pairs = np.full((3, lines, pixels + 1, 2), 7, np.uint16)
        part, line = pairs.strides[:2]
        count = -(-pixels // apart)
        _call(cut, (pairs.ctypes.data, part, line, planar.ctypes.data, count, channels, lines, pixels, apart))
        assert (pairs[:, :, count:] == 7).all()
        sums = floats(pairs[:, :, :count]).sum(axis=0).transpose(1, 0, 2).reshape(count, -1)
        np.testing.assert_array_equal(sums[:, :channels], x[::apart])
        assert not sums[:, channels:].any()
    spread = int(channels in bfloat_parts.SPREAD)
    kept = np.full((3, pixels * (channels + spread) + 1), 7, np.uint16)
    cut = bfloat_parts.split_row(3, channels * spread)
    _call(cut.address, (kept.ctypes.data, kept.strides[0], 0, x.ctypes.data, pixels, channels, 0, 0, 0))
    assert (kept[:, -1] == 7).all()
    sums = floats(kept[:, :-1]).sum(axis=0).reshape(pixels, -1)
    np.testing.assert_array_equal(sums[:, :channels], x)
    assert not sums[:, channels:].any()


@needs_unit
@pytest.mark.parametrize("algorithm", NAMES)
def test_large_and_small_numbers(algorithm):
    """Scaled by powers of two, results are the same but for the scale; the largest numbers stay finite."""
    expected = conv2d(X, W, algorithm=algorithm, **OPTIONS)
    for scale in (2.0**60, 2.0**-60):
        np.testing.assert_array_equal(
            conv2d(X * np.float32(scale), W, algorithm=algorithm, **OPTIONS), expected * np.float32(scale)
        )
    if algorithm == "amx":
        most = np.full((1, 4, 4, 2), np.finfo(np.float32).max, np.float32)
        out = conv2d(most, np.full((1, 1, 2, 3), 0.25, np.float32), layout="NHWC", algorithm=algorithm)
        np.testing.assert_allclose(out, most[0, 0, 0, 0] / 2, rtol=1e-6)


@needs_unit
def test_threads_and_a_fork():
    """Each thread sizes the unit's registers for itself; a child may go on using them."""
    shapes = [(5, 5, 16, 20), (3, 3, 40, 24), (1, 1, 64, 70), (7, 7, 3, 9)]
    problems = [(normal(i, (2, 13, 14, shape[2])), normal(9 + i, shape)) for i, shape in enumerate(shapes)]
    options = {"layout": "NHWC", "algorithm": "amx", "padding": 3}
    expected = [conv2d(x, w, **options) for x, w in problems]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            results = list(pool.map(lambda problem: conv2d(*problem, **options), problems * 4))
            for i, result in enumerate(results):
                np.testing.assert_array_equal(result, expected[i % len(problems)])
    child = os.fork()
    if child == 0:
        same = all(
            np.array_equal(conv2d(*problem, **options), e) for problem, e in zip(problems, expected, strict=True)
        )
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0


@needs_unit
def test_backward_and_relu():
    out, _ = conv2d_forward(X, W, activation="relu", algorithm="amx", **OPTIONS)
    known = oracle.conv2d(X.transpose(0, 3, 1, 2), W.transpose(3, 2, 0, 1), padding=1)
    assert_close(out, np.maximum(known, 0).transpose(0, 2, 3, 1), 360)


@needs_unit
@pytest.mark.parametrize("layout", ("NCHW", "NHWC"))
@pytest.mark.parametrize(("stride", "dilation"), ((3, 2), (70, 1), (70, 67), (5, 5)))
def test_strides_beyond_kernels(layout, stride, dilation):
    """Rows and columns of x that no tap meets are not cut, in masks of bits that end before long strides do."""
    x, w, b = normal(5, (2, 5, 150, 155)), normal(6, (18, 5, 2, 2)), normal(7, (18,))
    options = {"stride": stride, "dilation": dilation}
    expected = oracle.conv2d(x, w, b, **options)
    if layout == "NHWC":
        x, w, expected = x.transpose(0, 2, 3, 1), w.transpose(2, 3, 1, 0), expected.transpose(0, 2, 3, 1)
    out = conv2d(np.ascontiguousarray(x), np.ascontiguousarray(w), b, layout=layout, algorithm="amx", **options)
    assert_close(out, expected, 20)


@needs_unit
@pytest.mark.parametrize("layout", ("NCHW", "NHWC"))
@pytest.mark.parametrize(
    ("size", "kernel", "options"),
    (
        # Columns are kept apart by their stride, rows lie in the padding.
        ((1, 24), (1, 5), {"stride": (1, 4), "dilation": (1, 3), "padding": ((1, 3), (4, 1))}),
        # Of dx: 16 places whose first and last are 15 steps apart, in two images.
        ((19, 5), (2, 2), {"stride": (2, 3), "dilation": (1, 3), "padding": ((2, 1), (2, 1))}),
    ),
)
def test_images_numbered_together(size, kernel, options, layout):
    """Pixels of small images in one count."""
    x, w = normal(8, (25, 32, *size)), normal(9, (40, 32, *kernel))
    dout = normal(10, oracle.conv2d(x, w, **options).shape)
    expected = oracle.conv2d(x, w, **options), oracle.conv2d_gradients(x, w, dout, **options)[0]
    if layout == "NHWC":
        x, dout = (np.ascontiguousarray(a.transpose(0, 2, 3, 1)) for a in (x, dout))
        w = np.ascontiguousarray(w.transpose(2, 3, 1, 0))
        expected = tuple(a.transpose(0, 2, 3, 1) for a in expected)
    out, cache = conv2d_forward(x, w, np.zeros(40, x.dtype), layout=layout, algorithm="amx", **options)
    assert_close(out, expected[0], 160)
    assert_close(conv2d_backward(dout, cache)[0], expected[1], 400)


@needs_unit
@pytest.mark.parametrize(
    ("kernel", "options"), ((5, {"stride": 2, "padding": 2}), (3, {"stride": (1, 2), "padding": (1, 2)}))
)
def test_one_column_met_by_some_taps(kernel, options):
    """The gradient of x of one column, strided: neighbouring offsets, but not all taps of a kernel row."""
    x, w = normal(11, (1, 4, 4, 1)), normal(12, (2, 4, kernel, kernel))
    dout = normal(13, oracle.conv2d(x, w, **options).shape)
    expected = oracle.conv2d_gradients(x, w, dout, **options)[0].transpose(0, 2, 3, 1)
    x, dout = (np.ascontiguousarray(a.transpose(0, 2, 3, 1)) for a in (x, dout))
    w = np.ascontiguousarray(w.transpose(2, 3, 1, 0))
    for algorithm in ("amx", "auto"):
        cache = conv2d_forward(x, w, np.zeros(2, x.dtype), layout="NHWC", algorithm=algorithm, **options)[1]
        assert_close(conv2d_backward(dout, cache)[0], expected, 2 * kernel * kernel)


@needs_unit
@pytest.mark.parametrize("layout", ("NCHW", "NHWC"))
@pytest.mark.parametrize(
    ("channels", "filters", "size", "kernel", "options"),
    (
        (16, 16, (14, 14), 3, {"padding": 1}),  # taps of a kernel row joined: pixels apart in x, side by side when kept
        (8, 40, (9, 8), 3, {"padding": ((0, 2), (1, 0)), "stride": 2}),
        (9, 17, (6, 7), 2, {"dilation": 2, "padding": 1}),
        (33, 8, (7, 7), 1, {}),
        (40, 70, (5, 5), 3, {"padding": 1, "stride": (1, 3)}),
    ),
)
def test_groups(channels, filters, size, kernel, options, layout):
    """Each group's channels, filters, biases and places in the results."""
    groups = 3
    x, w = normal(14, (5, groups * channels, *size)), normal(15, (groups * filters, channels, kernel, kernel))
    b, options = normal(16, (groups * filters,)), {"groups": groups, **options}
    dout = normal(17, oracle.conv2d(x, w, **options).shape)
    expected = oracle.conv2d(x, w, b, **options), oracle.conv2d_gradients(x, w, dout, **options)[0]
    if layout == "NHWC":
        x, dout = (np.ascontiguousarray(a.transpose(0, 2, 3, 1)) for a in (x, dout))
        w = np.ascontiguousarray(w.transpose(2, 3, 1, 0))
        expected = tuple(a.transpose(0, 2, 3, 1) for a in expected)
    out, cache = conv2d_forward(x, w, b, layout=layout, algorithm="amx", **options)
    assert_close(out, expected[0], channels * kernel**2)
    assert_close(conv2d_backward(dout, cache)[0], expected[1], filters * kernel**2)
    prepared = prepare_conv2d(w, b, layout=layout, algorithm="amx", **options)
    np.testing.assert_array_equal(prepared(x), out)


@needs_unit
@pytest.mark.parametrize("channels", (8, 16, 30))
def test_parts_of_a_group(channels):
    """Pixels apart in x are kept side by side; nothing behind the last one is written."""
    pixels, step = 5, 37
    x = normal(18, (pixels, step))
    kept = np.full((3, pixels + 1, channels), 7, np.uint16)
    cut = bfloat_parts.split_planes(3).address
    _call(cut, (kept.ctypes.data, kept.strides[0], 0, x.ctypes.data, pixels, channels, channels, step, channels))
    np.testing.assert_array_equal(floats(kept[:, :pixels]).sum(axis=0), x[:, :channels])
    assert (kept[:, pixels] == 7).all()
