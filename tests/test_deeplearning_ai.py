"""The course's printed values, its own loops as oracles, its quirks and the ones that were mended."""

import numpy as np
import pytest

from fastconv.compat.deeplearning_ai import (
    conv_backward,
    conv_forward,
    conv_single_step,
    create_mask_from_window,
    distribute_value,
    pool_backward,
    pool_forward,
    zero_pad,
)


def course_arrays(*shapes):
    """What the assignment draws one after the other after `np.random.seed(1)`."""
    stream = np.random.RandomState(1)
    return [stream.randn(*shape) for shape in shapes]


def windows(A_prev, shape, f, stride, pad=0):
    """(place in Z, padded window of all channels), one after another; `shape` is Z's."""
    padded = np.pad(A_prev, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    for i, h, w in np.ndindex(*shape[:3]):
        yield (i, h, w), padded[i, h * stride : h * stride + f, w * stride : w * stride + f]


def test_zero_pad():
    (x,) = course_arrays((4, 3, 3, 2))
    padded = zero_pad(x, 2)
    assert padded.shape == (4, 7, 7, 2) and not padded[1, 1].any()
    np.testing.assert_array_equal(padded, np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0))))


def test_conv_single_step():
    got = conv_single_step(*course_arrays((4, 4, 3), (4, 4, 3), (1, 1, 1)))
    assert got == pytest.approx(-6.999089450680221, rel=1e-14) and type(got) is np.float64
    with pytest.raises(ValueError, match=r"b must hold one number, got shape \(2,\)"):
        conv_single_step(np.ones(3), np.ones(3), np.ones(2))


def test_conv_prints_what_the_course_prints():
    A_prev, W, b = course_arrays((10, 4, 4, 3), (2, 2, 3, 8), (1, 1, 1, 8))
    hparameters = {"pad": 2, "stride": 2}
    Z, cache = conv_forward(A_prev, W, b, hparameters)
    assert Z.mean() == pytest.approx(0.048995203528855794, rel=1e-12)
    printed = [-0.61490741, -6.7439236, -2.55153897, 1.75698377, 3.56208902, 0.53036437, 5.18531798, 8.75898442]
    np.testing.assert_allclose(Z[3, 2, 1], printed, atol=5e-9)
    assert type(cache) is tuple and cache[1] is W and cache[2] is b and cache[3] is hparameters
    np.testing.assert_allclose(cache[0][1][2][3], [-0.20075807, 0.18656139, 0.41005165], atol=5e-9)

    dA_prev, dW, db = conv_backward(Z, cache)
    assert dA_prev.mean() == pytest.approx(1.4524377775388075, rel=1e-12)
    assert dW.mean() == pytest.approx(1.7269914583139097, rel=1e-12)
    assert db.mean() == pytest.approx(7.839232564616838, rel=1e-12)
    assert (dA_prev.shape, dW.shape, db.shape) == (A_prev.shape, W.shape, b.shape)


def test_conv_prints_what_the_course_of_2021_prints():
    A_prev, W, b = course_arrays((2, 5, 7, 4), (3, 3, 4, 8), (1, 1, 1, 8))
    Z, _ = conv_forward(A_prev, W, b, {"pad": 1, "stride": 2})
    assert Z.mean() == pytest.approx(0.5511276474566768, rel=1e-12)
    printed = [-2.17796037, 8.07171329, -0.5772704, 3.36286738, 4.48113645, -2.89198428, 10.99288867, 3.03171932]
    np.testing.assert_allclose(Z[0, 2, 1], printed, atol=5e-9)
    assert conv_forward(A_prev, W, b, {"pad": 3, "stride": 1})[0].shape == (2, 9, 11, 8)
    assert conv_forward(A_prev, W, b, {"pad": 0, "stride": 2})[0].shape == (2, 2, 3, 8)


@pytest.mark.parametrize("pad, stride, f", [(0, 1, 3), (1, 2, 2), (2, 3, 3)])
@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 1e-4), (np.float64, 1e-12)])
def test_conv_against_the_assignments_loops(pad, stride, f, dtype, tolerance):
    A_prev, W, b = course_arrays((2, 6, 5, 3), (f, f, 3, 4), (1, 1, 1, 4))
    Z, cache = conv_forward(*(a.astype(dtype) for a in (A_prev, W, b)), {"pad": pad, "stride": stride})
    assert Z.dtype == dtype and Z.shape == (2, (6 + 2 * pad - f) // stride + 1, (5 + 2 * pad - f) // stride + 1, 4)
    dZ = np.random.default_rng(0).standard_normal(Z.shape)
    expected, padded = np.empty(Z.shape), np.zeros((2, 6 + 2 * pad, 5 + 2 * pad, 3))
    dW = np.zeros(W.shape)
    for (i, h, w), window in windows(A_prev, Z.shape, f, stride, pad):
        for c in range(4):
            expected[i, h, w, c] = (window * W[..., c]).sum() + b[0, 0, 0, c]
            padded[i, h * stride : h * stride + f, w * stride : w * stride + f] += W[..., c] * dZ[i, h, w, c]
            dW[..., c] += window * dZ[i, h, w, c]
    gradients = padded[:, pad : pad + 6, pad : pad + 5], dW, dZ.sum(axis=(0, 1, 2), keepdims=True)
    for got, oracle in zip((Z, *conv_backward(dZ.astype(dtype), cache)), (expected, *gradients), strict=True):
        assert got.shape == oracle.shape
        np.testing.assert_allclose(got, oracle, rtol=tolerance, atol=10 * tolerance)


def test_pool_forward_prints_what_the_course_prints():
    (A_prev,) = course_arrays((2, 4, 4, 3))
    hparameters = {"stride": 2, "f": 3}
    A, cache = pool_forward(A_prev, hparameters)
    np.testing.assert_allclose(A[0, 0, 0], [1.74481176, 0.86540763, 1.13376944], atol=5e-9)
    np.testing.assert_allclose(A[1, 0, 0], [1.13162939, 1.51981682, 2.18557541], atol=5e-9)
    assert type(cache) is tuple and cache[0] is A_prev and cache[1] is hparameters
    A, _ = pool_forward(A_prev, hparameters, mode="average")
    np.testing.assert_allclose(A[0, 0, 0], [0.02105773, -0.20328806, -0.40389855], atol=5e-9)
    np.testing.assert_allclose(A[1, 0, 0], [-0.22154621, 0.51716526, 0.48155844], atol=5e-9)


def test_pool_backward_prints_what_the_course_prints():
    A_prev, dA = course_arrays((5, 5, 3, 2), (5, 4, 2, 2))
    A, cache = pool_forward(A_prev, {"stride": 1, "f": 2})
    assert dA.mean() == pytest.approx(0.145713902729, abs=1e-12) and A.shape == dA.shape
    expected = {
        "max": [[0, 0], [5.05844394, -1.68282702], [0, 0]],
        "average": [[0.08485462, 0.2787552], [1.26461098, -0.25749373], [1.17975636, -0.53624893]],
    }
    for mode, printed in expected.items():
        np.testing.assert_allclose(pool_backward(dA, cache, mode=mode)[1, 1], printed, atol=5e-9)


@pytest.mark.parametrize("mode", ["max", "average"])
@pytest.mark.parametrize("f, stride", [(2, 2), (3, 1), (2, 3)])
def test_pool_against_the_assignments_loops(mode, f, stride):
    A_prev = np.random.default_rng(0).integers(0, 4, (2, 6, 5, 3)).astype(float)  # many equal maxima
    A, cache = pool_forward(A_prev, {"f": f, "stride": stride}, mode)
    dA = np.random.default_rng(1).standard_normal(A.shape)
    expected, dA_prev = np.empty(A.shape), np.zeros(A_prev.shape)
    for (i, h, w), window in windows(A_prev, A.shape, f, stride):
        target = dA_prev[i, h * stride : h * stride + f, w * stride : w * stride + f]
        for c in range(3):
            if mode == "max":
                expected[i, h, w, c] = window[..., c].max()
                target[..., c] += create_mask_from_window(window[..., c]) * dA[i, h, w, c]
            else:
                expected[i, h, w, c] = window[..., c].mean()
                target[..., c] += distribute_value(dA[i, h, w, c], (f, f))
    np.testing.assert_allclose(A, expected, rtol=1e-12)
    np.testing.assert_allclose(pool_backward(dA, cache, mode), dA_prev, rtol=1e-12, atol=1e-12)


def test_mask_and_distribution():
    (x,) = course_arrays((2, 3))
    assert create_mask_from_window(x).tolist() == [[True, False, False], [False, False, False]]
    assert create_mask_from_window([[2, 1], [2, 2]]).tolist() == [[True, False], [True, True]]
    assert distribute_value(2, (2, 2)).tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert distribute_value(3.0, (1, 4)).tolist() == [[0.75] * 4]


def test_what_was_given_stays_as_it_was():
    A_prev, W, b = course_arrays((2, 5, 5, 3), (2, 2, 3, 4), (1, 1, 1, 4))
    before = [a.copy() for a in (A_prev, W, b)]
    Z, cache = conv_forward(A_prev, W, b, {"pad": 1, "stride": 1})
    conv_backward(Z, cache)
    A, cache = pool_forward(A_prev, {"f": 2, "stride": 2})
    pool_backward(A, cache)
    for array, copy in zip((A_prev, W, b), before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_mistakes_are_named():
    A_prev, W, b = course_arrays((2, 5, 5, 3), (2, 2, 3, 4), (1, 1, 1, 4))
    with pytest.raises(ValueError, match=r"conv_forward: hparameters must have stride, pad, got \{'stride': 1\}"):
        conv_forward(A_prev, W, b, {"stride": 1})
    with pytest.raises(TypeError, match="pool_forward: hparameters must be a dictionary, got int"):
        pool_forward(A_prev, 2)
    with pytest.raises(ValueError, match="pool_forward: mode must be one of 'max', 'average', got 'mean'"):
        pool_forward(A_prev, {"f": 2, "stride": 2}, mode="mean")
    with pytest.raises(ValueError, match="pool_backward: mode must be one of 'max', 'average', got 'mean'"):
        pool_backward(A_prev, (A_prev, {"f": 2, "stride": 2}), mode="mean")
    with pytest.raises(ValueError, match="channels"):
        conv_forward(A_prev, W[:, :, :2], b, {"stride": 1, "pad": 0})
