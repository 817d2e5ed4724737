"""Sums over a plane of consecutive numbers, as callbacks: serial kernel and parallel driver call the same machine code.

A driver holds a copy of its serial kernel that is optimised once more, where sums may be vectorised in another way:
compiled in two processes, the two differed in the last bits, and results in whether a call used the thread pool.
"""

from __future__ import annotations

from functools import cache

import numba
import numpy as np
from numba import carray, types

from fastconv._kernels.jit import compile_callback

BLOCK = 2048  # numbers of a plane summed before they are added in float64: 8 or 16 KB


@cache
def plane_moments(itemsize: int):
    """Callback (x, count, mean, squares): the mean (float64) and the sum of squared deviations from it.

    A block's deviations are taken from its rounded mean, and the sum of the deviations corrects both results.
    """

    def moments(x, count, mean_of_plane, squares_of_plane):
        plane = carray(x, count)
        mean, squares = 0.0, 0.0
        for first in range(0, plane.size, BLOCK):
            block = plane[first : first + BLOCK]
            size = block.size
            total = plane.dtype.type(0)
            for i in range(size):
                total += block[i]
            shift = plane.dtype.type(total / size)
            first_order, second_order = plane.dtype.type(0), plane.dtype.type(0)
            for i in range(size):
                deviation = block[i] - shift
                first_order += deviation
                second_order += deviation * deviation
            correction = np.float64(first_order) / size
            step = shift + correction - mean
            squares += second_order - first_order * correction + step * step * first * (size / (first + size))
            mean += step * (size / (first + size))
        mean_of_plane[0] = mean
        squares_of_plane[0] = squares

    number, float64 = _pointers(itemsize)
    return compile_callback(moments, numba.void(number, types.intp, float64, float64))


@cache
def plane_dots(itemsize: int, rectified: bool):
    """Callback (dout, x, count, constants, channels, plain, weighted): sums (float64) of dout and of dout * (x - mean).

    `constants` points at the channel's mean; its scale and shift lie `channels` and twice as many numbers behind. If
    `rectified`, terms where (x - mean) * scale + shift <= 0 are left out.
    """
    RECTIFIED = rectified

    def dots(dout, x, count, constants, channels, plain_of_plane, weighted_of_plane):
        gradients, numbers, constant = carray(dout, count), carray(x, count), carray(constants, 2 * channels + 1)
        mean, scale, shift = constant[0], constant[channels], constant[2 * channels]
        zero = numbers.dtype.type(0)
        plain, weighted = 0.0, 0.0
        for first in range(0, numbers.size, BLOCK):
            gradient, source = gradients[first : first + BLOCK], numbers[first : first + BLOCK]
            a, b = zero, zero
            for i in range(source.size):
                deviation = source[i] - mean
                term = zero if RECTIFIED and deviation * scale + shift <= zero else gradient[i]
                a += term
                b += term * deviation
            plain += a
            weighted += b
        plain_of_plane[0] = plain
        weighted_of_plane[0] = weighted

    number, float64 = _pointers(itemsize)
    return compile_callback(dots, numba.void(number, number, types.intp, number, types.intp, float64, float64))


def _pointers(itemsize: int):
    """Types of the addresses of x's numbers and of float64 numbers."""
    return types.CPointer(types.float32 if itemsize == 4 else types.float64), types.CPointer(types.float64)
