"""Sums over all pixels (the gradient of the bias) and of squares (the norm of a gradient)."""

from __future__ import annotations

import numpy as np
from numba import intp, prange

from fastconv._kernels.jit import Kernel, jit

BLOCK = 256  # numbers summed in the array's own precision before they are added in float64


@jit
def _sum_planes(slot, slots, x, partial):
    """x (P, pixels) -> partial (P,) float64, planes shared among slots."""
    planes, pixels = x.shape
    for plane in range(slot * planes // slots, (slot + 1) * planes // slots):
        total = 0.0
        for first in range(0, pixels, BLOCK * 16):
            block = x[plane, first : first + BLOCK * 16]
            part = x.dtype.type(0)
            for i in range(block.size):
                part += block[i]
            total += part
        partial[plane] = total


@jit(parallel=True)
def _sum_planes_parallel(slots, x, partial):
    for slot in prange(slots):
        _sum_planes(intp(slot), slots, x, partial)


sum_planes = Kernel(_sum_planes, _sum_planes_parallel)


@jit
def _sum_pixels(slot, slots, x, partial):
    """x (pixels, C) -> partial (bands, C) float64: each slot sums its bands of pixels, so any thread count agrees."""
    pixels, channels = x.shape
    bands = partial.shape[0]
    row = np.empty(channels, x.dtype)
    for band in range(slot * bands // slots, (slot + 1) * bands // slots):
        total = partial[band]
        total[:] = 0
        end = (band + 1) * pixels // bands
        for first in range(band * pixels // bands, end, BLOCK):
            row[:] = 0
            for q in range(first, min(first + BLOCK, end)):
                source = x[q]
                for c in range(row.size):
                    row[c] += source[c]
            for c in range(row.size):
                total[c] += row[c]


@jit(parallel=True)
def _sum_pixels_parallel(slots, x, partial):
    for slot in prange(slots):
        _sum_pixels(intp(slot), slots, x, partial)


sum_pixels = Kernel(_sum_pixels, _sum_pixels_parallel)


@jit
def _sum_squares(slot, slots, x, partial):
    """x, flat -> partial (bands,) float64, one number per BLOCK * 16 values: any thread count agrees."""
    for band in range(slot * partial.size // slots, (slot + 1) * partial.size // slots):
        block = x[band * BLOCK * 16 : (band + 1) * BLOCK * 16]
        total = 0.0
        for i in range(block.size):
            total += np.float64(block[i]) * np.float64(block[i])
        partial[band] = total


@jit(parallel=True)
def _sum_squares_parallel(slots, x, partial):
    for slot in prange(slots):
        _sum_squares(intp(slot), slots, x, partial)


sum_squares = Kernel(_sum_squares, _sum_squares_parallel)
