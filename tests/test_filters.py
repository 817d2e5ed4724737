"""`filter_image` against np.pad and sums in float64, for every form of kernel, dtype and border."""

from __future__ import annotations

import numpy as np
import pytest
from array_forms import FORMS
from hypothesis import given, settings
from hypothesis import strategies as st

from fastconv import filters
from fastconv.filters import KERNELS, filter_image

NUMPY_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def filtered(image, kernel, mode="reflect", offset=0.0):
    """The definition, in float64: (H, W, C) for a kernel of each channel, (H, W) or (H, W, F) for a sum over them."""
    kernel = np.asarray(kernel, np.float64)
    KH, KW = kernel.shape[:2]
    image = np.asarray(image, np.float64)
    x = image if image.ndim == 3 or kernel.ndim == 2 else image[:, :, np.newaxis]
    pads = [((KH - 1) // 2, KH // 2), ((KW - 1) // 2, KW // 2), (0, 0)][: x.ndim]
    padded = np.pad(x, pads, mode=NUMPY_MODES[mode])
    out = offset
    for kh, kw in np.ndindex(KH, KW):
        cells = padded[kh : kh + image.shape[0], kw : kw + image.shape[1]]
        out = out + (cells * kernel[kh, kw] if kernel.ndim == 2 else cells @ kernel[kh, kw])
    return out


def picture(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    if dtype.startswith("uint"):
        return rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    return rng.standard_normal(shape).astype(dtype)


def assert_filtered(got, image, expected):
    if image.dtype.kind == "u":
        largest = np.iinfo(image.dtype).max
        assert got.dtype == image.dtype and got.shape == expected.shape
        # rounded, after sums in float32
        assert np.abs(got - np.clip(expected, 0, largest)).max(initial=0) <= 0.5 + 8e-6 * largest
    else:
        assert got.dtype == image.dtype and got.shape == expected.shape
        tolerance = 1e-4 if image.dtype == np.float32 else 1e-12
        np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance)


@settings(max_examples=80)
@given(
    dtype=st.sampled_from(["uint8", "uint16", "float32", "float64"]),
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    channels=st.sampled_from([None, 1, 3, 4]),
    window=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    form=st.sampled_from(["each", "sum", "bank"]),
    mode=st.sampled_from(sorted(NUMPY_MODES)),
)
def test_against_the_definition(dtype, size, channels, window, form, mode):
    image = picture((*size, channels) if channels else size, dtype)
    most = [n - 1 if mode == "reflect" else n for n in size]
    window = tuple(min(k, 2 * m + 1) for k, m in zip(window, most, strict=True))
    shape = {"each": window, "sum": (*window, channels or 1), "bank": (*window, channels or 1, 3)}[form]
    kernel = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    offset = np.array([100.0, -3.0, 0.0]) if form == "bank" else 50.0
    got = filter_image(image, kernel, padding_mode=mode, offset=offset)
    assert_filtered(got, image, filtered(image, kernel, mode, offset))


def test_a_photograph_on_all_threads():
    image = picture((301, 450, 3), "uint8")  # rows longer than a chunk, more rows than a slot's share
    assert_filtered(filter_image(image, "gaussian"), image, filtered(image, KERNELS["gaussian"]))
    assert_filtered(filter_image(image, "grayscale"), image, filtered(image, KERNELS["grayscale"]))


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_named_kernels(name):
    image = picture((8, 9, 3), "uint8")
    assert_filtered(filter_image(image, name), image, filtered(image, KERNELS[name]))
    assert KERNELS[name].sum() == pytest.approx({"edge": 0, "sobel_x": 0, "sobel_y": 0}.get(name, 1), abs=1e-6)


def test_edges_point_where_they_should():
    ramp = np.arange(5.0) * np.ones((4, 1))
    assert filter_image(ramp, "sobel_x")[:, 1:-1].tolist() == np.full((4, 3), 8.0).tolist()
    assert not filter_image(ramp, "sobel_y").any() and not filter_image(ramp, "edge")[:, 1:-1].any()
    assert filter_image(ramp.T, "sobel_y")[1:-1].tolist() == np.full((3, 4), 8.0).tolist()


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 3), (40, 90, 3)])
def test_sobel_is_the_length_of_both_slopes(shape, dtype):
    image = picture(shape, dtype)
    grey = image if image.ndim == 2 else image @ KERNELS["grayscale"][0, 0]
    expected = np.hypot(*(filtered(grey, KERNELS[name]) for name in ("sobel_x", "sobel_y")))
    np.testing.assert_allclose(filter_image(image, "sobel", dtype=np.float32), expected, rtol=1e-5, atol=0.02)
    assert_filtered(filter_image(image, "sobel", offset=-200), image, expected - 200)


def test_the_result_may_be_of_another_dtype():
    image = picture((6, 5), "uint8")
    signed = filter_image(image, "sobel_x", dtype=np.float32)
    assert signed.dtype == np.float32 and signed.min() < 0
    np.testing.assert_allclose(signed, filtered(image, KERNELS["sobel_x"]), rtol=1e-6)
    assert filter_image(image, [[1]], dtype="float64").dtype == np.float64


def test_bytes_are_rounded_and_kept_in_range():
    image = np.array([[0, 1, 2, 3, 100, 200]], np.uint8)
    assert filter_image(image, [[0.5]]).tolist() == [[0, 0, 1, 2, 50, 100]]  # half to even, as np.rint
    assert filter_image(image, [[2]], offset=-3).tolist() == [[0, 0, 1, 3, 197, 255]]


def test_nan_and_infinity_reach_their_neighbours_only():
    image = np.zeros((5, 9, 3), np.float32)
    image[2, 2, 1], image[2, 6, 0] = np.nan, np.inf
    got = filter_image(image, "box")
    expected = np.zeros_like(got)
    expected[1:4, 1:4, 1], expected[1:4, 5:8, 0] = np.nan, np.inf
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("form", sorted(set(FORMS) - {"list"}))
def test_any_form_of_array(form):
    image = picture((7, 6, 3), "float32")
    given = FORMS[form](image)
    np.testing.assert_array_equal(filter_image(given, "sharpen"), filter_image(image, "sharpen"))
    np.testing.assert_array_equal(given, image)


def test_no_pixels():
    assert filter_image(np.zeros((0, 4), np.uint8), [[1]]).shape == (0, 4)
    assert filter_image(np.zeros((3, 4, 0)), "box").shape == (3, 4, 0)


@pytest.mark.parametrize(
    "error, message, arguments, options",
    [
        (TypeError, "image must be one of uint8, uint16, float32, float64, got int64", ([[1, 2]], "box"), {}),
        (ValueError, "image must have 2 or 3 dimensions, got shape", (np.zeros(3), "box"), {}),
        (ValueError, "kernel must be one of 'box', .*'sobel', got 'blur'", (np.zeros((4, 4)), "blur"), {}),
        (ValueError, "kernel must have 2 or 3 or 4 dimensions", (np.zeros((4, 4)), [1, 2]), {}),
        (ValueError, r"the image's 4 channels, got shape \(1, 1, 3\)", (np.zeros((4, 4, 4)), "grayscale"), {}),
        (ValueError, r"kernel must not be empty, got shape \(0, 3\)", (np.zeros((4, 4)), np.zeros((0, 3))), {}),
        (ValueError, "reflect padding must be smaller than the height", (np.zeros((1, 4)), "box"), {}),
        (ValueError, "padding_mode must be one of", (np.zeros((4, 4)), "box"), {"padding_mode": "mirror"}),
        (TypeError, "dtype must be one of uint8, .*, got int16", (np.zeros((4, 4)), "box"), {"dtype": np.int16}),
    ],
)
def test_mistakes_are_named(error, message, arguments, options):
    with pytest.raises(error, match=f"filter_image: .*{message}"):
        filter_image(*arguments, **options)


def test_named_kernels_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        filters.KERNELS["box"][0, 0] = 1
