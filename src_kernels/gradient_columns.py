"""Gradient of x through columns (the transpose of im2col): products first, then sums of shifted rows.

    columns[m, q] = sum over f of  w[arow[m] + acol[f]] * dout[f, q],         m = (c, kh, kw), q = (oh, ow)
    dx[c, i]      = sum over the taps (kh, kw) that lead from an output q to i of  columns[(c, kh, kw), q]

Few channels leave a register tile with rows = channels mostly empty; here its rows are all C * KH * KW of them, and
no zero between strided outputs is multiplied. The sums cost one addition per column and are made by the tile of one
row, with ones for A.

Work goes through an image a block of rows at a time, in scratch that stays in the second-level cache. Input cells are
numbered by stride: cell i = j * stride + phase gets tap k of output o = j - shift(k), where shift and phase are the
quotient and remainder of (k * dilation - padding) / stride. So a phase's cells are sums of whole rows of columns, each
shifted, and rows lie `pitch` numbers apart with zeros between, so that one flat run covers all rows of a block.
A block needs `span` rows of columns before its own; they are kept from the block before.

Tasks are (image, group, band of rows j); each writes its own part of dx, which may be uninitialised. Scratch per slot
(`planes`, `columns`, `sums`) may be uninitialised too.
"""

from __future__ import annotations

from typing import NamedTuple

from fastconv._kernels.jit import helper
from fastconv._kernels.launch import Kernel, next_task, on_every_slot
from fastconv._kernels.simd import address_of, call_address


class GradientColumns(NamedTuple):
    """Sizes and strides of one launch; strides and offsets count numbers, not bytes."""

    images: int
    groups: int
    channels: int  # of one group
    taps: int
    out_rows: int  # of dout
    out_cols: int
    height: int  # of dx
    width: int
    stride_h: int
    stride_w: int
    bands: int
    band: int  # rows j of one task
    block: int  # rows j of one pass
    span: int  # rows of columns that reach into a block from before it
    highest: int  # largest vertical shift
    front: int  # zeros before the first row of columns
    pitch: int
    plane_length: int  # numbers of a row of `planes`, `columns`, `sums`
    column_length: int
    sum_length: int
    sum_cols: int  # width of the tile that sums
    dout_image: int
    dout_group: int
    dout_row: int
    dout_pixel: int  # 1: planes
    w_group: int
    dx_image: int
    dx_group: int
    dx_channel: int
    dx_row: int
    dx_pixel: int
    tile_rows: int
    tile_cols: int


@helper
def _multiply(
    tile, copy, transpose, dout, prow, srow, line_from, line_to, w, arow, acol, crow, planes, columns,
    first, count, kept, clear, g,
):  # fmt: skip
    """Columns of `count` rows of dout from row `first` on, after `kept` earlier ones; rows outside dout give zeros.

    `dout` and `w` are addresses of the image's and the group's first number; `clear` writes the zeros.
    """
    item = planes.itemsize
    begin = min(max(-first, 0), count)
    end = max(min(g.out_rows - first, count), begin)
    if g.dout_pixel == 1:
        # A filter at a time: its rows are one run of memory, which the processor fetches ahead.
        for f in range(prow.size):
            source = dout + (srow[f] + (first + begin) * g.dout_row) * item
            target = address_of(planes) + prow[f] * item
            call_address(copy, (target, address_of(line_to), source, address_of(line_from), end - begin, g.out_cols, 1))
    else:
        for i in range(end - begin):
            source = dout + (first + begin + i) * g.dout_row * item
            target = address_of(planes) + i * g.pitch * item
            call_address(transpose, (target, g.plane_length, source, g.dout_pixel, g.out_cols, prow.size))
    if clear:
        at = g.front + kept * g.pitch
        for m in range(crow.size):
            row = columns[crow[m] + at : crow[m] + at + count * g.pitch]
            row[: begin * g.pitch] = 0
            row[end * g.pitch :] = 0
    width = (end - begin) * g.pitch
    at = address_of(columns) + (g.front + (kept + begin) * g.pitch) * item
    for q in range(0, width, g.tile_cols):
        for m in range(0, crow.size, g.tile_rows):
            call_address(
                tile,
                (
                    prow.size,
                    w,
                    address_of(arow) + 8 * m,
                    address_of(acol),
                    address_of(planes) + q * item,
                    address_of(prow),
                    at + q * item,
                    address_of(crow) + 8 * m,
                    min(g.tile_rows, crow.size - m),
                    min(g.tile_cols, width - q),
                    0,
                    0,
                ),
            )


@helper
def _store_row(copy, transpose, interleave, zeros, at, to, item, g):
    """A row of dx, all channels, put together at address `to` from its phases' sums at `at`: rows (phase, channel)."""
    whole, rest = g.width // g.stride_w, g.width % g.stride_w
    step = g.stride_w * g.dx_pixel
    phase_size = g.channels * g.sum_length * item
    if g.dx_pixel != 1 and g.groups == 1:  # all phases and channels of a pixel lie side by side in dx
        call_address(transpose, (to, step, at, g.sum_length, g.stride_w * g.channels, whole))
        if rest:
            last = at + whole * item
            call_address(transpose, (to + whole * step * item, 1, last, g.sum_length, rest * g.channels, 1))
    elif g.dx_pixel != 1:
        for phase in range(g.stride_w):
            length = whole + (1 if phase < rest else 0)
            place = to + phase * g.dx_pixel * item
            call_address(transpose, (place, step, at + phase * phase_size, g.sum_length, g.channels, length))
    else:
        for c in range(g.channels):
            row, sums = to + c * g.dx_channel * item, at + c * g.sum_length * item
            if g.stride_w == 2:
                call_address(interleave, (row, sums, sums + phase_size, whole, rest))
                continue
            for phase in range(g.stride_w):
                length, table = whole + (1 if phase < rest else 0), address_of(zeros)
                call_address(copy, (row + phase * item, table, sums + phase * phase_size, table, 1, length, step))


@Kernel
def gradient_columns(
    slot, slots, counters, tile, sum_tile, copy, transpose, interleave, dout, prow, srow, line_from, line_to, w, arow,
    acol, crow, terms, term_ends, ones, zeros, planes, columns, sums, dx, g,
):  # fmt: skip
    if slot < 0:
        return on_every_slot(slot, slots)
    item = dx.itemsize
    my_planes, my_columns, my_sums = planes[slot], columns[slot], sums[slot]
    my_planes[:] = 0  # the numbers between rows stay zero
    phases_w = g.stride_w
    rows_j = (g.height + g.stride_h - 1) // g.stride_h
    cols_j = (g.width + g.stride_w - 1) // g.stride_w
    # The sums are dx itself where nothing separates its rows.
    straight = g.stride_h == 1 and g.stride_w == 1 and g.dx_pixel == 1 and g.pitch == g.width
    # Images that fit into one block all find their zeros in the same places.
    same = g.bands == 1 and g.block >= rows_j
    clear = True
    tasks = g.images * g.groups * g.bands
    while True:
        task = next_task(counters, slot, slots, tasks)
        if task == tasks:
            return
        band = task % g.bands
        group = task // g.bands % g.groups
        image = task // (g.bands * g.groups)
        from_dout = address_of(dout) + (image * g.dout_image + group * g.dout_group) * item
        from_w = address_of(w) + group * g.w_group * item
        target = address_of(dx) + (image * g.dx_image + group * g.dx_group) * item
        if clear:
            for m in range(crow.size):
                my_columns[crow[m] : crow[m] + g.front] = 0
        j = band * g.band
        end = min(j + g.band, rows_j)
        kept = 0
        while j < end:
            count = min(g.block, end - j)
            _multiply(
                tile, copy, transpose, from_dout, prow, srow, line_from, line_to, from_w, arow, acol, crow,
                my_planes, my_columns, j - g.highest + kept, g.span + count - kept, kept, clear, g,
            )  # fmt: skip
            clear = not same
            length = (count - 1) * g.pitch + cols_j
            term = 0
            for phase in range(g.stride_h * phases_w):
                for c in range(g.channels):
                    row = address_of(my_sums) + (phase * g.channels + c) * g.sum_length * item
                    if straight:
                        row = target + (c * g.dx_channel + j * g.dx_row) * item
                    for q in range(0, length, g.sum_cols):
                        call_address(
                            sum_tile,
                            (
                                term_ends[phase] - term,
                                address_of(ones),
                                address_of(zeros),
                                address_of(zeros),
                                address_of(my_columns) + (crow[c * g.taps] + q) * item,
                                address_of(terms) + 8 * term,
                                row + q * item,
                                address_of(zeros),
                                1,
                                min(g.sum_cols, length - q),
                                0,
                                0,
                            ),
                        )
                term = term_ends[phase]
            if not straight:
                for i in range(count):
                    for phase_h in range(min(g.stride_h, g.height - (j + i) * g.stride_h)):
                        to = target + ((j + i) * g.stride_h + phase_h) * g.dx_row * item
                        at = phase_h * phases_w * g.channels * g.sum_length + i * g.pitch
                        _store_row(copy, transpose, interleave, zeros, address_of(my_sums) + at * item, to, item, g)
            j += count
            kept = 0
            if j < end:
                kept = g.span
                size = g.front + g.span * g.pitch
                moved = address_of(my_columns) + count * g.pitch * item
                rows = address_of(crow)
                call_address(copy, (address_of(my_columns), rows, moved, rows, crow.size, size, 1))
