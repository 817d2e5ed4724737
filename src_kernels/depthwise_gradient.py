"""Gradient of the weights of channels-last images with one channel per group, from operands that are read once.

    dw[tap, c] = sum over output pixels of  x[window(pixel) + tap, c] * dout[pixel, c]

A task is (split of the images and their rows, some vectors of channels). It copies the rows of x that it meets into
scratch with zeros around them, so that all taps of all pixels exist; `dout` is read where it lies. A vector holds
channels, and the sums of all taps, or of a kernel row where those are too many, stay in registers for some rows before
they are added to the task's own part of `out` (splits, tasks of channels, vectors, taps, lanes).
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastconv._kernels.isa import MACHINE
from fastconv._kernels.jit import compile_callback
from fastconv._kernels.launch import Kernel, next_task, on_every_slot
from fastconv._kernels.simd import I64, Emitter, address_of, call_address, integers

_AHEAD = 8  # pixels before its turn at which dout is asked for


class DepthwiseGradient(NamedTuple):
    """Sizes and strides of one launch; strides count numbers."""

    images: int
    split_images: int  # of a task
    band: int  # output rows of a task
    rows: int  # of dout
    cols: int
    channels: int
    lanes: int
    vectors: int  # of channels of a task
    abreast: int  # of one call
    height: int  # of x
    width: int
    stride: int
    col_stride: int
    top: int  # zeros around x
    left: int
    padded: int  # columns
    tap_rows: int
    tap_cols: int
    row_taps: int  # kernel rows of one call
    down: int  # dilation
    across: int
    sum_rows: int  # output rows summed in registers


@cache
def tap_sums(rows: int, cols: int, vectors: int, itemsize: int):
    """Callback (sums, sum_step, x, tap_row, tap_col, dout, pixel_rows, pixels, x_row, x_col, dout_row, dout_col, n).

    Adds to the vectors `sums` (vectors, taps), for each of rows x cols taps, the products of x and `dout` over
    pixel_rows x pixels, of n numbers in `vectors` vectors each. Steps from a row or column to the next, of taps
    and pixels, count numbers; `sum_step` is from one vector's sums to the next one's.
    """
    ROWS, COLS, VECTORS, ITEMSIZE, BITS = rows, cols, vectors, itemsize, MACHINE.vector_bits

    def add(sums, sum_step, x, tap_row, tap_col, dout, pixel_rows, pixels, x_row, x_col, dout_row, dout_col, n):
        _emit_tap_sums(
            ROWS, COLS, VECTORS, ITEMSIZE, BITS, sums, sum_step, x, tap_row, tap_col, dout, pixel_rows, pixels, x_row,
            x_col, dout_row, dout_col, n,
        )  # fmt: skip

    return compile_callback(add, integers(13))


@intrinsic(prefer_literal=True)
def _emit_tap_sums(
    typingctx, ROWS, COLS, VECTORS, ITEMSIZE, BITS, sums, sum_step, x, tap_row, tap_col, dout, pixel_rows, pixels,
    x_row, x_col, dout_row, dout_col, n,
):  # fmt: skip
    rows, cols, vectors, itemsize = (t.literal_value for t in (ROWS, COLS, VECTORS, ITEMSIZE))
    signature = types.void(
        ROWS, COLS, VECTORS, ITEMSIZE, BITS, sums, sum_step, x, tap_row, tap_col, dout, pixel_rows, pixels, x_row,
        x_col, dout_row, dout_col, n,
    )  # fmt: skip

    def codegen(context, builder, signature, args):
        sums, sum_step, x, tap_row, tap_col, dout, pixel_rows, pixels, x_row, x_col, dout_row, dout_col, n = args[5:]
        simd = Emitter(builder, itemsize)
        sums, x, dout = (simd.pointer(p) for p in (sums, x, dout))
        taps = [(r, s) for r in range(rows) for s in range(cols)]
        cells = [[cgutils.alloca_once_value(builder, simd.zero()) for _ in taps] for _ in range(vectors)]
        ahead = builder.mul(dout_col, I64(_AHEAD))

        def sweep(masks):
            with cgutils.for_range(builder, pixel_rows) as row:
                x_line = simd.at(x, builder.mul(row.index, x_row))
                dout_line = simd.at(dout, builder.mul(row.index, dout_row))
                with cgutils.for_range(builder, pixels) as pixel:
                    place = simd.at(dout_line, builder.mul(pixel.index, dout_col))
                    begin = simd.at(x_line, builder.mul(pixel.index, x_col))
                    for v, mask in enumerate(masks):
                        of_vector = simd.at(place, v * simd.lanes)
                        simd.prefetch(simd.at(of_vector, ahead))
                        factor = simd.load(of_vector, mask)
                        for cell, (r, s) in zip(cells[v], taps, strict=True):
                            offset = builder.add(builder.mul(tap_row, I64(r)), builder.mul(tap_col, I64(s)))
                            value = simd.load(simd.at(simd.at(begin, v * simd.lanes), offset), mask)
                            builder.store(simd.multiply_add(value, factor, builder.load(cell)), cell)

        with builder.if_else(builder.icmp_signed("==", n, I64(vectors * simd.lanes))) as (full, part):
            with full:
                sweep([None] * vectors)
            with part:
                sweep([simd.first_lanes(builder.sub(n, I64(v * simd.lanes))) for v in range(vectors)])
        for v in range(vectors):
            for number, cell in enumerate(cells[v]):
                place = simd.at(simd.at(sums, builder.mul(sum_step, I64(v))), number * simd.lanes)
                simd.store(builder.fadd(simd.load(place), builder.load(cell)), place)
        return context.get_dummy_value()

    return signature, codegen


@Kernel
def depthwise_gradient(slot, slots, counters, add, copy, x, dout, out, kept, to_places, from_places, g):
    if slot < 0:
        return on_every_slot(slot, slots)
    item = x.itemsize
    bands = (g.rows + g.band - 1) // g.band
    splits = (g.images + g.split_images - 1) // g.split_images * bands
    together = g.vectors * g.lanes
    shares = (g.channels + together - 1) // together
    mine = kept[slot]
    mine[:] = 0  # rows are copied between the same zeros each time
    row_numbers = g.padded * together
    tasks = splits * shares
    while True:
        task = next_task(counters, slot, slots, tasks)
        if task == tasks:
            return
        share, split = task % shares, task // shares
        first = split % bands * g.band
        rows = min(g.band, g.rows - first)
        image = split // bands * g.split_images
        channels = min(together, g.channels - share * together)
        sums = out[split, share]
        sums[:] = 0
        top = first * g.stride - g.top
        joined = channels == together == g.channels  # a row's pixels follow each other in both places
        for i in range(image, min(image + g.split_images, g.images)):
            for t in range((rows - 1) * g.stride + (g.tap_rows - 1) * g.down + 1):
                place = t * row_numbers + g.left * together
                if top + t < 0 or top + t >= g.height:
                    mine[place : place + g.width * together] = 0
                    continue
                source = ((i * g.height + top + t) * g.width * g.channels + share * together) * item
                call_address(
                    copy,
                    (
                        address_of(mine) + place * item, address_of(to_places), address_of(x) + source,
                        address_of(from_places), 1 if joined else g.width,
                        g.width * channels if joined else channels, 1,
                    ),
                )  # fmt: skip
            for begin in range(0, rows, g.sum_rows):
                d = (i * g.rows + first + begin) * g.cols * g.channels + share * together
                for tap_row in range(0, g.tap_rows, g.row_taps):
                    start = (begin * g.stride + tap_row * g.down) * row_numbers
                    for vector in range(0, (channels + g.lanes - 1) // g.lanes, g.abreast):
                        at = vector * g.lanes
                        sum_of = (vector * g.tap_rows + tap_row) * g.tap_cols * g.lanes
                        call_address(
                            add,
                            (
                                address_of(sums) + sum_of * item, g.tap_rows * g.tap_cols * g.lanes,
                                address_of(mine) + (start + at) * item, g.down * row_numbers, g.across * together,
                                address_of(dout) + (d + at) * item, min(g.sum_rows, rows - begin), g.cols,
                                g.stride * row_numbers, g.col_stride * together, g.cols * g.channels, g.channels,
                                min(g.abreast * g.lanes, channels - at),
                            ),
                        )  # fmt: skip
