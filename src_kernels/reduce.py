"""Sums over all pixels (the gradient of the bias), of squares (the norm of a gradient) and of parts of a result.

    db[c] = sum over images and pixels of masked[., c],  masked = dout where out > 0, else 0

`dout`, `out` and `masked` are flat, planes or (channels_last) pixels one after the other. `partial` is float64: (N, C),
or a row for each band of pixels. Without `relu` nothing is masked, and all three are `dout`. `partial`, `db` and, with
`relu`, `masked` may be uninitialised.
"""

from __future__ import annotations

import numpy as np

from fastconv._kernels.elementwise import mask
from fastconv._kernels.jit import helper
from fastconv._kernels.launch import Kernel, allocating_kernel, on_every_slot

CHUNK = 1024  # numbers of a result that stay in the first-level cache while parts are added
BLOCK = 256  # numbers summed in the array's own precision before they are added in float64


@helper
def _mask_and_sum_planes(slot, slots, dout, out, masked, relu, partial):
    """Planes are shared among slots."""
    planes, channels = partial.size, partial.shape[1]
    pixels = dout.size // max(planes, 1)
    together = max(BLOCK * 16 // max(pixels, 1), 1)  # planes that are still in cache when they are added
    behind = (slot + 1) * planes // slots
    for some in range(slot * planes // slots, behind, together):
        end = min(some + together, behind)
        if relu:
            begin, last = some * pixels, end * pixels
            mask(dout[begin:last], out[begin:last], masked[begin:last])
        for plane in range(some, end):
            numbers = masked[plane * pixels : (plane + 1) * pixels]
            total = 0.0
            for first in range(0, pixels, BLOCK * 16):
                block = numbers[first : first + BLOCK * 16]
                part = dout.dtype.type(0)
                for i in range(block.size):
                    part += block[i]
                total += part
            partial[plane // channels, plane % channels] = total


@helper
def _mask_and_sum_pixels(slot, slots, dout, out, masked, relu, partial, row):
    """Each slot sums its bands of pixels, so any thread count agrees."""
    bands, channels = partial.shape
    pixels = dout.size // max(channels, 1)
    together = max(BLOCK * 16 // max(channels, 1), 1)  # pixels that are still in cache when they are added
    for band in range(slot * bands // slots, (slot + 1) * bands // slots):
        total = partial[band]
        total[:] = 0
        end = (band + 1) * pixels // bands
        for first in range(band * pixels // bands, end, BLOCK):
            row[:] = 0
            last = min(first + BLOCK, end)
            for some in range(first, last, together):
                begin, behind = some * channels, min(some + together, last) * channels
                if relu:
                    mask(dout[begin:behind], out[begin:behind], masked[begin:behind])
                for pixel in range(begin, behind, channels):
                    source = masked[pixel : pixel + channels]
                    for c in range(row.size):
                        row[c] += source[c]
            for c in range(row.size):
                total[c] += row[c]


@helper
def _add_up(partial, db):
    """db (C,) = the sum of the rows of partial (rows, C)."""
    for c in range(db.size):
        total = 0.0
        for row in range(partial.shape[0]):
            total += partial[row, c]
        db[c] = total


@allocating_kernel
def bias_gradient(slot, slots, channels_last, dout, out, masked, relu, partial, db):
    """The shares of several slots are added up after all of them."""
    if slot < 0:
        on_every_slot(slot, slots)
    elif channels_last:
        row = np.empty(partial.shape[1], dout.dtype)
        _mask_and_sum_pixels(slot, slots, dout, out, masked, relu, partial, row)
    else:
        _mask_and_sum_planes(slot, slots, dout, out, masked, relu, partial)
    if slot < 0 or slots == 1:
        _add_up(partial, db)


@Kernel
def sum_squares(slot, slots, x, partial):
    """x, flat -> partial (bands,) float64, one number per BLOCK * 16 values: any thread count agrees."""
    if slot < 0:
        return on_every_slot(slot, slots)
    for band in range(slot * partial.size // slots, (slot + 1) * partial.size // slots):
        block = x[band * BLOCK * 16 : (band + 1) * BLOCK * 16]
        total = 0.0
        for i in range(block.size):
            total += np.float64(block[i]) * np.float64(block[i])
        partial[band] = total


@Kernel
def sum_parts(slot, slots, parts, add, out):
    """out (numbers) = the sum of the rows of parts (rows, numbers), or with `add` that is added to it."""
    if slot < 0:
        return on_every_slot(slot, slots)
    chunks = (out.size + CHUNK - 1) // CHUNK
    for first in range(slot * chunks // slots * CHUNK, (slot + 1) * chunks // slots * CHUNK, CHUNK):
        total = out[first : first + CHUNK]
        for row in range(parts.shape[0]):
            part = parts[row, first : first + CHUNK]
            if row > 0 or add:
                for i in range(total.size):
                    total[i] += part[i]
            else:
                for i in range(total.size):
                    total[i] = part[i]
