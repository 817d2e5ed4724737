"""The vector kernels of pooling at the ends of vectors: widths and channels around them, padding, special numbers."""

from __future__ import annotations

import numpy as np
import pytest
from oracles import pooling as oracle
from tolerances import assert_close

from fastconv import pooling, runtime
from fastconv._kernels.isa import MACHINE

# (kernel_size, stride, padding, dilation): each stride that has shuffles and one that has none, windows that overlap,
# touch and leave cells out, taps beyond both ends.
WINDOWS = {
    "2x2 s2": (2, 2, 0, 1),
    "3x3 s2 padded": (3, 2, 1, 1),
    "3x3 s1 padded": (3, 1, 1, 1),
    "2x2 s3, gaps": (2, 3, 0, 1),
    "5x5 s4 padded": (5, 4, 2, 1),
    "3x3 s2 dilated": (3, 2, 2, 2),
    "1x1 s3": (1, 3, 0, 1),
    "2x2 s5": (2, 5, 1, 1),
}
LANES = MACHINE.lanes(4)
LAYOUTS = ("NCHW", "NHWC")
CASES = [(name, "float32") for name in WINDOWS] + [(name, "float64") for name in ("2x2 s2", "3x3 s1 padded", "2x2 s5")]


def arranged(array: np.ndarray, layout: str) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(array, 1, -1)) if layout == "NHWC" else array


def special_numbers(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Few different numbers for ties, some NaN, and so many -inf that whole windows have nothing else."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-2, 3, shape).astype(np.float32)
    x[rng.random(shape) < 0.05] = np.nan
    x[:, :, :, : shape[3] // 2][rng.random((*shape[:3], shape[3] // 2)) < 0.8] = -np.inf
    return x


def check(x: np.ndarray, name: str, layout: str, dtype: str) -> None:
    """Every pass against the oracle."""
    kernel, stride, padding, dilation = WINDOWS[name]
    options = {"stride": stride, "padding": padding, "dilation": dilation, "layout": layout}
    windows = [oracle.axis_windows(size, kernel, stride, (padding, padding), dilation) for size in x.shape[2:]]
    given_x, cells = arranged(x, layout).astype(dtype), kernel * kernel
    best = oracle.max_pool(x, windows)
    dout = np.random.default_rng(1).standard_normal(best.shape).astype(np.float32)
    given_dout = arranged(dout, layout).astype(dtype)

    out, indices = pooling.max_pool2d(given_x, kernel, return_indices=True, **options)
    np.testing.assert_array_equal(out, arranged(best, layout))
    np.testing.assert_array_equal(indices, arranged(oracle.max_indices(x, windows), layout))
    np.testing.assert_array_equal(pooling.max_pool2d(given_x, kernel, **options), out)
    out, cache = pooling.max_pool2d_forward(given_x, kernel, **options)
    dx = pooling.max_pool2d_backward(given_dout, cache)
    assert_close(dx, arranged(oracle.max_gradient(x, windows, dout, "first"), layout), cells)

    finite = np.nan_to_num(x, nan=0.5, neginf=-3)
    for include_pad in (True, False):
        mean, cache = pooling.avg_pool2d_forward(
            arranged(finite, layout).astype(dtype), kernel, count_include_pad=include_pad, **options
        )
        assert_close(mean, arranged(oracle.avg_pool(finite, windows, include_pad), layout), cells)
        dx = pooling.avg_pool2d_backward(given_dout, cache)
        assert_close(dx, arranged(oracle.avg_gradient(finite, windows, dout, include_pad), layout), cells)


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_widths_around_vectors(name, dtype):
    """Rows of columns: one block that is not full, full ones, and what is left of them."""
    stride = WINDOWS[name][1]
    for width in (7, LANES * stride, 2 * LANES * stride + 3):
        check(special_numbers(width, (1, 2, 5, width)), name, "NCHW", dtype)


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_channels_around_vectors(name, dtype):
    """Pixels that share a vector, fill one, need a masked one, and need four and more."""
    for channels in (3, LANES, 4 * LANES + 3):
        check(special_numbers(channels, (1, channels, 5, 7)), name, "NHWC", dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [(1, 1), (7, 7), (5, 40)])
def test_averages_of_whole_planes(size, dtype):
    x = np.random.default_rng(4).standard_normal((3, 5, *size)).astype(dtype)
    windows = [oracle.axis_windows(length, length, 1, (0, 0)) for length in size]
    dout = np.random.default_rng(5).standard_normal((3, 5, 1, 1)).astype(dtype)
    expected = oracle.avg_gradient(x, windows, dout)
    for forward, backward in (
        (pooling.global_avg_pool2d_forward, pooling.global_avg_pool2d_backward),
        (lambda v: pooling.avg_pool2d_forward(v, size, stride=1), pooling.avg_pool2d_backward),
    ):
        out, cache = forward(x)
        assert_close(out, oracle.avg_pool(x, windows), x[0, 0].size)
        assert_close(backward(dout, cache), expected, 1)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_shared_by_threads(layout, monkeypatch):
    """Shares that begin and end inside planes, more rows than a band."""
    monkeypatch.setattr(runtime, "SERIAL_BELOW", 0)
    check(special_numbers(5, (1, 3, 23, 70)), "3x3 s2 padded", layout, "float32")
    check(special_numbers(6, (3, 1, 29, 37)), "2x2 s2", layout, "float32")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["2x2 s2", "3x3 s1 padded"])
def test_infinite_gradients_stay_where_they_belong(name, layout):
    """A gradient that is infinite or NaN reaches the chosen cell only: masks select, they do not multiply."""
    kernel, stride, padding, _ = WINDOWS[name]
    x = np.random.default_rng(2).permutation(3 * 8 * 36).reshape(1, 3, 8, 36).astype(np.float32)
    windows = [oracle.axis_windows(size, kernel, stride, (padding, padding)) for size in x.shape[2:]]
    options = {"stride": stride, "padding": padding, "layout": layout}
    cache = pooling.max_pool2d_forward(arranged(x, layout), kernel, **options)[1]
    dout = np.ones(oracle.max_pool(x, windows).shape, np.float32)
    dout[..., 1, 3], dout[..., 2, 7] = np.inf, np.nan
    finite = oracle.max_gradient(x, windows, np.isfinite(dout).astype(np.float32), "first")
    reached = oracle.max_gradient(x, windows, (~np.isfinite(dout)).astype(np.float32), "first") > 0
    dx = pooling.max_pool2d_backward(arranged(dout, layout), cache)
    dx = np.moveaxis(dx, -1, 1) if layout == "NHWC" else dx
    assert not np.isfinite(dx[reached]).any()
    np.testing.assert_array_equal(dx[~reached], finite[~reached])


def test_problems_are_told_apart():
    """Arguments that are equal but of another type do not reuse what is kept for each problem."""
    x = np.random.default_rng(3).standard_normal((1, 2, 6, 6))
    pooling.max_pool2d(x, 1, stride=1, padding=0)
    for options in ({"stride": True}, {"stride": 1.0}, {"padding": False}, {"ceil_mode": 0}):
        with pytest.raises(TypeError):
            pooling.max_pool2d(x, 1, **options)
    with pytest.raises(TypeError):
        pooling.max_pool2d(x, (1, True))
    np.testing.assert_array_equal(pooling.max_pool2d(x, [1, 1]), x)
    assert pooling.max_pool2d(x.astype(np.float32), 1).dtype == np.float32
