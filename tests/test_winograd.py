"""Winograd's algorithm: its matrices exactly, and kernels and images around every size that tiles and pieces have."""

from __future__ import annotations

from fractions import Fraction

import pytest
from conv_cases import DTYPES, LAYOUTS, declines, filters, images, normal, use_tiny_blocks
from oracles import convolution as oracle
from tolerances import assert_close

from fastconv import conv2d_backward, conv2d_forward, explain_conv2d
from fastconv._kernels.winograd_transforms import POINTS, data_matrix, factor_matrix, result_matrix
from fastconv.algorithms.winograd_axes import Axis, axes_of

EXACT = {"winograd2x2": "auto", "winograd2x4": "auto", "winograd4x4": "fast"}


@pytest.mark.parametrize("n", [n for n in POINTS if n > 1])
def test_matrices_convolve_exactly(n):
    """A^T [(G w) * (B^T x)] is the correlation of x with w, for all divisions of n into outputs and taps."""
    x = [Fraction(k * k + 3 * k - 5, 7) for k in range(n)]
    for outputs in range(1, n + 1):
        taps = n - outputs + 1
        w = [Fraction(2 * k * k - 5 * k + 1, 3) for k in range(taps)]
        products = [
            sum(g * v for g, v in zip(of_w, w, strict=True)) * sum(b * v for b, v in zip(of_x, x, strict=True))
            for of_w, of_x in zip(factor_matrix(n, taps), data_matrix(n), strict=True)
        ]
        for i, row in enumerate(result_matrix(n, outputs)):
            expected = sum(w[k] * x[i + k] for k in range(taps))
            assert sum(a * product for a, product in zip(row, products, strict=True)) == expected


@pytest.mark.parametrize(
    ("kernel", "n", "down", "across"),
    [
        ((3, 3), (4, 4), (1, 3, 2), (1, 3, 2)),
        ((3, 3), (4, 6), (1, 3, 2), (1, 3, 4)),
        ((7, 1), (4, 6), (2, 4, 3), (1, 1, 1)),
        ((1, 7), (4, 6), (1, 1, 1), (2, 4, 3)),
        ((5, 3), (4, 6), (2, 3, 4), (1, 3, 2)),
        ((2, 5), (6, 6), (1, 2, 5), (2, 3, 4)),
    ],
)
def test_pieces(kernel, n, down, across):
    """(pieces, taps, outputs) of both axes: the longer axis gets the longer tiles."""
    axes = axes_of(explain_conv2d((1, 1, 12, 12), (1, 1, *kernel)).problem, *n)
    assert [(axis.pieces, axis.taps, axis.outputs) for axis in axes] == [down, across]
    assert axes.sizes("pieces") == (down[0], across[0])
    assert Axis(1, 1, 1).products == 1


# Kernels of one piece and of several, whole and not; images of fewer pixels than a tile, of whole tiles, and of one
# row or column more; channels and filters around a vector; dilation in either direction.
KERNELS = [(2, 2), (4, 4), (5, 5), (1, 7), (7, 1), (1, 2), (4, 1), (3, 5), (6, 2), (9, 9), (1, 9)]
SIZES = [(1, 1), (4, 4), (5, 8), (9, 13)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("algorithm", EXACT)
def test_kernels(algorithm, kernel, layout, dtype, monkeypatch):
    for i, (height, width) in enumerate(SIZES):
        if i == 2:
            use_tiny_blocks(monkeypatch.setattr)
        channels, results = ((1, 17), (16, 3), (5, 33), (18, 16))[i]
        dilation = ((1, 1), (1, 2), (2, 1), (1, 1))[i]
        reach = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
        options = {"padding": tuple((r // 2, r - r // 2) for r in reach), "dilation": dilation}
        x, w, b = (
            normal(1, (3, channels, height, width)),
            normal(2, (results, channels, *kernel)),
            normal(3, (results,)),
        )
        out = oracle.conv2d(x, w, b, **options)
        dout = normal(4, out.shape)
        dx, dw, db = oracle.conv2d_gradients(x, w, dout, **options)
        arrays = (images(x, layout), filters(w, layout), b)
        if declines(algorithm, arrays[0].shape, arrays[1].shape, layout=layout, dtype=dtype, **options):
            assert algorithm == "winograd4x4" and 1 in kernel
            return
        options |= {"layout": layout, "algorithm": algorithm}
        got, cache = conv2d_forward(*(array.astype(dtype) for array in arrays), **options)
        gradients = conv2d_backward(images(dout, layout).astype(dtype), cache)
        taps, accuracy = kernel[0] * kernel[1], EXACT[algorithm]
        assert_close(got, images(out, layout), taps * channels + 1, accuracy)
        assert_close(gradients[0], images(dx, layout), taps * results, accuracy)
        assert_close(gradients[1], filters(dw, layout), out[:, 0].size, accuracy)
        assert_close(gradients[2], db, out[:, 0].size)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("algorithm", EXACT)
@pytest.mark.parametrize(("size", "kernel", "padding"), [((3, 3), (3, 3), 0), ((1, 1), (2, 3), 1)])
def test_one_pixel_of_many_filters(size, kernel, padding, algorithm, layout):
    """Planes of one pixel, which are channels-last in either layout, and more filters than tiles have room for."""
    x, w = normal(1, (1, 9, *size)), normal(2, (4096, 9, *kernel))
    options = {"padding": padding, "layout": layout, "algorithm": algorithm}
    expected = oracle.conv2d(x, w, padding=padding)
    dout = normal(3, expected.shape)
    dx = oracle.conv2d_gradients(x, w, dout, padding=padding)[0]
    mirrored = normal(4, (9, 4096, *kernel)), normal(5, (1, 4096, *size))  # many channels of dx
    small = normal(6, oracle.conv2d(mirrored[1], mirrored[0], padding=padding).shape)
    wide = oracle.conv2d_gradients(mirrored[1], mirrored[0], small, padding=padding)[0]
    for _ in range(20):  # scratch memory is shared out anew
        out, cache = conv2d_forward(images(x, layout), filters(w, layout), **options)
        assert_close(out, images(expected, layout), 9 * w[0, 0].size, EXACT[algorithm])
        gradient = conv2d_backward(images(dout, layout), cache, wrt=("x",))[0]
        assert_close(gradient, images(dx, layout), 4096 * w[0, 0].size, EXACT[algorithm])
        _, cache = conv2d_forward(images(mirrored[1], layout), filters(mirrored[0], layout), **options)
        gradient = conv2d_backward(images(small, layout), cache, wrt=("x",))[0]
        assert_close(gradient, images(wide, layout), 9 * w[0, 0].size, EXACT[algorithm])
