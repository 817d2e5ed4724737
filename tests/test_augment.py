"""Augmentation: whole images are changed, by what the generator says and by nothing else, in both layouts."""

import numpy as np
import pytest

from fastconv.nn import augment

LAYOUTS = ("NCHW", "NHWC")


def images(N=200, C=2, H=5, W=6, layout="NCHW", dtype="float32"):
    x = np.random.default_rng(1).random((N, C, H, W)).astype(dtype) + 1
    return x if layout == "NCHW" else np.ascontiguousarray(x.transpose(0, 2, 3, 1))


def channels_first(x, layout):
    return x if layout == "NCHW" else x.transpose(0, 3, 1, 2)


def changed(change, x, layout):
    """(images before, after), channels first; the originals are left alone and the seed decides."""
    before = x.copy()
    out = change(x, np.random.default_rng(0))
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(change(x, np.random.default_rng(0)), out)
    assert not np.array_equal(change(x, np.random.default_rng(7)), out)
    assert out.dtype == x.dtype and out.shape == x.shape
    return channels_first(x, layout), channels_first(out, layout)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("padding", ["zeros", "reflect"])
def test_shift_is_a_crop_of_the_padded_image(layout, padding):
    x, out = changed(augment.random_shift(2, padding=padding, layout=layout), images(layout=layout), layout)
    mode = {"zeros": "constant", "reflect": "reflect"}[padding]
    offsets = set()
    for image, moved in zip(x, out, strict=True):
        padded = np.stack([np.pad(plane, 2, mode=mode) for plane in image])
        crops = {(i, j): padded[:, i : i + 5, j : j + 6] for i in range(5) for j in range(5)}
        found = [offset for offset, crop in crops.items() if np.array_equal(crop, moved)]
        assert len(found) == 1
        offsets |= set(found)
    assert len(offsets) == 25


@pytest.mark.parametrize("layout", LAYOUTS)
def test_flip_turns_about_half_of_the_images(layout):
    x, out = changed(augment.random_flip(layout=layout), images(layout=layout), layout)
    turned = [np.array_equal(moved, image[:, :, ::-1]) for image, moved in zip(x, out, strict=True)]
    same = [np.array_equal(moved, image) for image, moved in zip(x, out, strict=True)]
    assert all(a != b for a, b in zip(turned, same, strict=True)) and 75 < sum(turned) < 125
    always = augment.random_flip(1.0)(images(), np.random.default_rng(0))
    np.testing.assert_array_equal(always, images()[..., ::-1])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [1, 2, 3])
def test_cutout_removes_one_square(layout, size):
    x, out = changed(augment.cutout(size, layout=layout), images(layout=layout), layout)
    places = set()
    for image, cut in zip(x, out, strict=True):
        gone = cut == 0
        assert (gone == gone[0]).all() and np.array_equal(cut[~gone], image[~gone])
        rows, columns = np.flatnonzero(gone[0].any(axis=1)), np.flatnonzero(gone[0].any(axis=0))
        assert gone[0][np.ix_(rows, columns)].all() and len(rows) * len(columns) == gone[0].sum()
        assert 1 <= len(rows) <= size and 1 <= len(columns) <= size
        assert np.array_equal(np.diff(rows), np.ones(len(rows) - 1)) and len(np.unique(np.diff(columns))) <= 1
        places.add((rows[0], columns[0], len(rows), len(columns)))
    assert len(places) > 20


def test_composed_changes_follow_one_another():
    x = images(dtype="float64")
    parts = augment.random_flip(), augment.random_shift(1), augment.cutout(2)
    rng = np.random.default_rng(3)
    expected = parts[2](parts[1](parts[0](x, rng), rng), rng)
    np.testing.assert_array_equal(augment.compose(*parts)(x, np.random.default_rng(3)), expected)
    assert augment.compose()(x, rng) is x
    np.testing.assert_array_equal(augment.random_shift(0)(x, rng), x)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: augment.random_flip(1.5), "p must be from 0 to 1, got 1.5"),
        (lambda: augment.random_shift(-1), "pixels must be at least 0, got -1"),
        (lambda: augment.random_shift(1, padding="wrap"), "padding must be one of 'zeros', 'reflect', got 'wrap'"),
        (lambda: augment.cutout(0), "size must be at least 1, got 0"),
        (lambda: augment.cutout(1, layout="CHW"), "layout must be one of 'NCHW', 'NHWC', got 'CHW'"),
    ],
)
def test_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        make()
