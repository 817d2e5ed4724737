"""Convolution by Fourier transforms: every length, the choice, the bounds of its scratch memory, its errors."""

from __future__ import annotations

import numpy as np
import pytest
from conv_cases import DTYPES, LAYOUTS, filters, images, normal
from oracles import convolution as oracle
from tolerances import assert_close

from fastconv import conv2d, conv2d_backward, conv2d_forward, explain_conv2d, plan, runtime
from fastconv._kernels import fourier_transforms
from fastconv.algorithms import PASSES, fft, fft_tiles

RADICES = dict(fourier_transforms.RADICES)


@pytest.fixture
def lengths_of(monkeypatch):
    """Makes all transforms of some problem that long: high rows, wide columns."""

    def force(high, wide):
        monkeypatch.setattr(fft_tiles, "_lengths", lambda made, over: [high if made < 30 else wide])
        plan._cached.cache_clear()

    yield force
    plan._cached.cache_clear()


@pytest.mark.parametrize(
    ("lengths", "dtype"),
    [*(((n, n), "float32") for n in RADICES), *((n, "float64") for n in ((16, 16), (256, 64), (32, 128)))],
)
def test_every_length(lengths, dtype, lengths_of):
    """Rows and columns of different lengths, tiles cut off at the right and at the bottom, an odd number of them."""
    lengths_of(*lengths)
    x, w, dout = normal(1, (2, 3, 25, 40)), normal(2, (4, 3, 5, 7)), normal(3, (2, 4, 24, 36))
    options = {"padding": ((2, 1), (0, 2))}
    out, cache = conv2d_forward(x.astype(dtype), w.astype(dtype), algorithm="fft", **options)
    dx, dw, _ = conv2d_backward(dout.astype(dtype), cache)
    assert_close(out, oracle.conv2d(x, w, **options), 105)
    known = oracle.conv2d_gradients(x, w, dout, **options)
    assert_close(dx, known[0], 140)
    assert_close(dw, known[1], 24 * 36 * 2)


def spectral(x, w):
    """The valid correlation of each plane of x (N, C, H, W) with w (C, KH, KW), by NumPy's transforms in float64."""
    (height, width), (kh, kw) = x.shape[2:], w.shape[1:]
    spectrum = np.fft.rfft2(x.astype(np.float64)) * np.conj(np.fft.rfft2(w.astype(np.float64), (height, width)))
    return np.fft.irfft2(spectrum, (height, width))[..., : height - kh + 1, : width - kw + 1]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [11, 31, 101])
def test_large_depthwise_kernels(size, layout):
    """Errors relative to the results' root mean square: 2e-7, 1e-6 at most; a plain sum's are 5e-7 and 6e-6."""
    x, w = normal(1, (2, 3, 150, 190)), normal(2, (3, 1, size, size))
    expected = spectral(x, w[:, 0])
    options = {"groups": 3, "layout": layout, "algorithm": "fft"}
    out, cache = conv2d_forward(images(x, layout), filters(w, layout), **options)
    scale = np.sqrt(np.mean(expected**2))
    error = np.abs(out - images(expected, layout)) / scale
    assert np.sqrt(np.mean(error**2)) < 4e-7 and error.max() < 3e-6
    dx, dw, _ = conv2d_backward(images(expected, layout).astype(np.float32), cache)
    for other, gradient in (
        (images(x, layout), dx),
        (filters(w, layout), dw),
    ):  # <conv(x, w), dout> = <x, dx> = <w, dw>
        assert np.vdot(other, gradient) == pytest.approx(np.sum(expected**2), rel=1e-5)


def test_images_do_not_touch_each_other():
    """Tiles share a transform with tiles of their own image only: neither NaN nor rounding gets from one to another."""
    x, w = normal(1, (3, 2, 60, 50)), normal(2, (4, 2, 9, 9))
    x[1, 0, 3, 4] = np.nan
    out = conv2d(x, w, padding=4, algorithm="fft")
    assert np.isnan(out[1]).any()
    for i in (0, 2):
        np.testing.assert_array_equal(out[i : i + 1], conv2d(x[i : i + 1], w, padding=4, algorithm="fft"))


def chosen(x_shape, w_shape, **options):
    return explain_conv2d(x_shape, w_shape, algorithm="fast", **options).chosen


@pytest.mark.parametrize("threads", [1, 2])
def test_large_kernels_are_run_so(threads):
    with runtime.num_threads(min(threads, runtime.get_num_threads())):
        for x_shape, w_shape, options in (
            ((1, 1, 768, 1024), (1, 1, 31, 31), {"padding": 15}),
            ((1, 3, 768, 1024), (3, 1, 31, 31), {"padding": 15, "groups": 3}),
            ((8, 32, 64, 64), (32, 32, 11, 11), {"padding": 5}),
            ((4, 16, 128, 128), (16, 16, 21, 21), {"padding": 10}),
        ):
            assert set(chosen(x_shape, w_shape, **options).values()) == {"fft"}
            assert (
                "fft" not in explain_conv2d(x_shape, w_shape, **options).chosen.values()
            )  # errors are of another class
        for x_shape, w_shape in (((1, 3, 8, 8), (4, 3, 3, 3)), ((1, 1, 20, 20), (1, 1, 11, 11))):
            assert "fft" not in chosen(x_shape, w_shape).values()


@pytest.mark.parametrize(
    ("x_shape", "w_shape", "options"),
    [
        ((1, 3, 8000, 6000), (3, 1, 31, 31), {"groups": 3}),
        ((64, 32, 256, 256), (32, 32, 11, 11), {}),
        ((2, 256, 64, 64), (256, 256, 15, 15), {}),
        ((1, 512, 150, 150), (512, 1, 101, 101), {"groups": 512}),
    ],
)
def test_scratch_does_not_grow_with_the_image(x_shape, w_shape, options):
    for dtype in DTYPES:
        found = explain_conv2d(x_shape, w_shape, dtype=dtype, algorithm="fft", **options)
        assert max(found.workspace.values()) <= 100 * 2**20
        assert all(found.predictions[direction]["fft"] > 0 for direction in PASSES)


@pytest.mark.parametrize(
    ("w_shape", "options", "reason"),
    [
        ((2, 3, 5, 5), {"stride": (1, 2)}, r"the stride is \(1, 2\), not 1"),
        ((2, 3, 1, 9), {}, "a kernel of 1x9 has a single row or column"),
        ((2, 3, 2, 258), {}, "the kernel spans 2x258 numbers, more than the longest transform, 256"),
        ((2, 3, 2, 3), {"dilation": 130}, "spans 131x261"),
    ],
)
def test_declines(w_shape, options, reason):
    with pytest.raises(ValueError, match=reason):
        conv2d(np.ones((1, 3, 300, 300), np.float32), np.ones(w_shape, np.float32), algorithm="fft", **options)


def test_predictions_follow_the_work():
    """Twice the images, channels or filters are predicted to take about twice as long."""
    base = {"x": (4, 8, 200, 200), "w": (8, 8, 15, 15)}

    def cycles(x, w):
        found = explain_conv2d(x, w, algorithm="fft").predictions
        return np.array([found[direction]["fft"] for direction in PASSES])

    once = cycles(**base)
    assert (1.7 * once < cycles((8, 8, 200, 200), base["w"])).all()
    assert (cycles((8, 8, 200, 200), base["w"]) < 2.2 * once).all()
    assert (1.2 * once < cycles((4, 16, 200, 200), (8, 16, 15, 15))).all()


def test_weights_of_many_filters_are_transformed_in_bands(monkeypatch):
    """A prepared convolution keeps all spectra, or none."""
    monkeypatch.setattr(fft, "WEIGHT_BYTES", 100_000)
    plan._cached.cache_clear()
    x, w = normal(1, (1, 6, 30, 30)), normal(2, (12, 6, 5, 5))
    offers = plan.candidates(explain_conv2d(x.shape, w.shape).problem, "forward", 1)
    found = next(offer.work for offer in offers if offer.algorithm.name == "fft")
    assert found.prepare(w) is None
    assert_close(conv2d(x, w, algorithm="fft"), oracle.conv2d(x, w), 150)
    plan._cached.cache_clear()
