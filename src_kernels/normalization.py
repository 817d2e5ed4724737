"""Batch normalisation: moments per channel, and the affine maps forward and backward.

Two forms of each: planes (P, L), where plane p belongs to channel p % C, and rows (R, C), one column per channel.
Moments and dot products are summed in blocks that stay in the first-level cache, in the array's own precision, and
added up in float64; how the numbers are cut depends on their shape alone, so results do not depend on the number of
threads. Tasks are planes or bands of rows and each writes its own part of the result, which may be uninitialised.

`floor` is 0 where ReLU follows, and NaN, which no number is below, where nothing does. The backward kernels find again
what ReLU cut off from x, which they read anyway: neither the mask nor the values before ReLU are kept.
"""

from __future__ import annotations

import numpy as np

from fastconv._kernels.jit import helper
from fastconv._kernels.launch import Kernel, allocating_kernel, on_every_slot
from fastconv._kernels.plane_sums import BLOCK
from fastconv._kernels.simd import address_of, call_address

BLOCK_ROWS = 8  # least rows of a block, where rows are so long that BLOCK numbers are fewer


@Kernel
def moments_of_planes(slot, slots, plane_moments, x, moments):
    """x (P, L) -> moments (2, P) float64: mean and sum of squared deviations; by the callback of `plane_sums`."""
    if slot < 0:
        return on_every_slot(slot, slots)
    planes, length = x.shape
    for plane in range(slot * planes // slots, (slot + 1) * planes // slots):
        source = address_of(x) + plane * length * x.itemsize
        call_address(plane_moments, (source, length, address_of(moments[0, plane:]), address_of(moments[1, plane:])))


@allocating_kernel
def moments_of_rows(slot, slots, totals, deviations, x, moments):
    """x (R, C) -> moments (2, bands, C) float64 of each band of rows; otherwise as `moments_of_planes`.

    `totals` and `deviations` are the callbacks of `channel_sums`.
    """
    if slot < 0:
        return on_every_slot(slot, slots)
    _moments_of_rows(slot, slots, totals, deviations, x, moments, np.empty((3, x.shape[1]), x.dtype))


@helper
def _moments_of_rows(slot, slots, totals, deviations, x, moments, room):
    rows, channels = x.shape
    bands = moments.shape[1]
    step = max(BLOCK_ROWS, BLOCK // max(channels, 1))
    shift, first_order, second_order = room[0], room[1], room[2]
    for band in range(slot * bands // slots, (slot + 1) * bands // slots):
        mean, squares = moments[0, band], moments[1, band]
        mean[:] = 0
        squares[:] = 0
        begin, end = band * rows // bands, (band + 1) * rows // bands
        for first in range(begin, end, step):
            count, before = min(step, end - first), first - begin
            block, center = address_of(x) + first * channels * x.itemsize, address_of(shift)
            sums, squared = address_of(first_order), address_of(second_order)
            call_address(totals, (block, block, count, channels, center, center, squared))
            for c in range(channels):
                shift[c] /= count
            call_address(deviations, (block, block, count, channels, center, sums, squared))
            share = count / (before + count)
            for c in range(channels):
                correction = np.float64(first_order[c]) / count
                distance = shift[c] + correction - mean[c]
                squares[c] += second_order[c] - first_order[c] * correction + distance * distance * before * share
                mean[c] += distance * share


@Kernel
def normalize_planes(slot, slots, x, mean, scale, shift, floor, out):
    """out = (x - mean) * scale + shift, or `floor` where that is less; x and out (P, L), the others (C,)."""
    if slot < 0:
        return on_every_slot(slot, slots)
    planes, channels = x.shape[0], mean.size
    for plane in range(slot * planes // slots, (slot + 1) * planes // slots):
        source, target = x[plane], out[plane]
        c = plane % channels
        center, factor, offset = mean[c], scale[c], shift[c]
        for i in range(source.size):
            value = (source[i] - center) * factor + offset
            target[i] = floor if value <= floor else value


@Kernel
def normalize_rows(slot, slots, x, mean, scale, shift, floor, out):
    """out = (x - mean) * scale + shift, or `floor` where that is less; x and out (R, C), the others (C,)."""
    if slot < 0:
        return on_every_slot(slot, slots)
    rows = x.shape[0]
    for q in range(slot * rows // slots, (slot + 1) * rows // slots):
        source, target = x[q], out[q]
        for c in range(source.size):
            value = (source[c] - mean[c]) * scale[c] + shift[c]
            target[c] = floor if value <= floor else value


@Kernel
def dots_of_planes(slot, slots, plane_dots, dout, x, constants, dots):
    """dout, x (P, L), constants (3, C) -> dots (2, P) float64: the sums of `plane_sums.plane_dots`, the callback."""
    if slot < 0:
        return on_every_slot(slot, slots)
    planes, length = x.shape
    channels = constants.shape[1]
    for plane in range(slot * planes // slots, (slot + 1) * planes // slots):
        place = plane * length * x.itemsize
        call_address(
            plane_dots,
            (
                address_of(dout) + place,
                address_of(x) + place,
                length,
                address_of(constants[0, plane % channels :]),
                channels,
                address_of(dots[0, plane:]),
                address_of(dots[1, plane:]),
            ),
        )


@allocating_kernel
def dots_of_rows(slot, slots, sums, dout, x, constants, dots):
    """dout, x (R, C), constants (3, C) -> dots (2, bands, C) float64; otherwise as `dots_of_planes`.

    The constants are mean, scale and shift; `sums` is the callback of `channel_sums`.
    """
    if slot < 0:
        return on_every_slot(slot, slots)
    _dots_of_rows(slot, slots, sums, dout, x, constants, dots, np.empty((2, x.shape[1]), x.dtype))


@helper
def _dots_of_rows(slot, slots, sums, dout, x, constants, dots, room):
    rows, channels = x.shape
    bands = dots.shape[1]
    step = max(BLOCK_ROWS, BLOCK // max(channels, 1))
    a, b = room[0], room[1]
    for band in range(slot * bands // slots, (slot + 1) * bands // slots):
        plain, weighted = dots[0, band], dots[1, band]
        plain[:] = 0
        weighted[:] = 0
        end = (band + 1) * rows // bands
        for first in range(band * rows // bands, end, step):
            place = first * channels * x.itemsize
            call_address(
                sums,
                (
                    address_of(x) + place,
                    address_of(dout) + place,
                    min(step, end - first),
                    channels,
                    address_of(constants),
                    address_of(a),
                    address_of(b),
                ),
            )
            for c in range(channels):
                plain[c] += a[c]
                weighted[c] += b[c]


@Kernel
def gradient_of_planes(slot, slots, dout, x, mean, scale, dout_mean, slope, shift, floor, dx):
    """dx = (g - dout_mean) * scale - (x - mean) * slope; dout, x, dx (P, L), the others (C,).

    g is dout, but 0 where the forward value was not above `floor`.
    """
    if slot < 0:
        return on_every_slot(slot, slots)
    planes, channels = x.shape[0], mean.size
    for plane in range(slot * planes // slots, (slot + 1) * planes // slots):
        gradient, source, target = dout[plane], x[plane], dx[plane]
        c = plane % channels
        center, factor, common, incline, offset = mean[c], scale[c], dout_mean[c], slope[c], shift[c]
        for i in range(source.size):
            deviation = source[i] - center
            term = x.dtype.type(0) if deviation * factor + offset <= floor else gradient[i]
            target[i] = (term - common) * factor - deviation * incline


@Kernel
def gradient_of_rows(slot, slots, dout, x, mean, scale, dout_mean, slope, shift, floor, dx):
    """dx = (g - dout_mean) * scale - (x - mean) * slope; dout, x, dx (R, C), the others (C,); g as above."""
    if slot < 0:
        return on_every_slot(slot, slots)
    rows = x.shape[0]
    for q in range(slot * rows // slots, (slot + 1) * rows // slots):
        gradient, source, target = dout[q], x[q], dx[q]
        for c in range(source.size):
            deviation = source[c] - mean[c]
            term = x.dtype.type(0) if deviation * scale[c] + shift[c] <= floor else gradient[c]
            target[c] = (term - dout_mean[c]) * scale[c] - deviation * slope[c]
