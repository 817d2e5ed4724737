"""Bring the operands of a convolution into the form its kernel walks: padded planes, padded pixels, transposes.

All of these move each number once; tasks are planes, rows or matrices, and each writes its own part of `out`, borders
included, so `out` may be uninitialised.
"""

from __future__ import annotations

from fastconv._kernels.launch import Kernel, on_every_slot
from fastconv._kernels.simd import address_of, call_address


@Kernel
def pad_rows(slot, slots, copy, x, out, rows, cols, top, left, to_rows, from_rows):
    """x (P, H, W) -> out (P, rows, cols), flat: zeros all around, or cut where `top` or `left` is negative.

    Tasks are bands of rows, as many as the tables have. Several short ones are zeroed at once and filled, by `copy`
    (the address of `copy_block`), while the first-level cache holds them: zeroing both ends of each took 50 ns a row.
    """
    if slot < 0:
        return on_every_slot(slot, slots)
    planes, height, width = x.shape
    item, band = x.itemsize, to_rows.size
    bands = (rows + band - 1) // band
    begin, end = max(left, 0), min(left + width, cols)
    for task in range(slot * planes * bands // slots, (slot + 1) * planes * bands // slots):
        plane = task // bands
        first = (task - plane * bands) * band
        last = min(first + band, rows)
        zeroed = out[(plane * rows + first) * cols : (plane * rows + last) * cols]
        first, last = max(first, top), min(last, top + height)
        if first >= last or begin >= end:
            zeroed[:] = 0
        elif band == 1:
            zeroed[:begin] = 0
            zeroed[end:] = 0
            inside, row = zeroed[begin:end], x[plane, first - top, begin - left : end - left]
            for j in range(inside.size):
                inside[j] = row[j]
        else:
            zeroed[:] = 0
            target = address_of(out) + ((plane * rows + first) * cols + begin) * item
            source = address_of(x) + ((plane * height + first - top) * width + begin - left) * item
            call_address(
                copy, (target, address_of(to_rows), source, address_of(from_rows), last - first, end - begin, 1)
            )


@Kernel
def pad_planes(slot, slots, separate, x, out, top, left, stride_h, stride_w, phases_h, phases_w):
    """x (P, H, W) -> out (P, phases_h.size, phases_w.size, Hq, Wq): the zero-padded plane, split by a stride above 1.

    Padded row `top + ih` lands in phase (top + ih) % stride_h, at row (top + ih) // stride_h; columns likewise. Only
    the listed phases are kept: a 1x1 kernel with stride 2 needs one of four.
    Both phases of stride 2 are made at once, by `separate` (the address of `separate_pairs`): 0.2 instead of 2 cycles
    a number.
    """
    if slot < 0:
        return on_every_slot(slot, slots)
    planes, height, width = x.shape
    rows, cols = out.shape[3], out.shape[4]
    item = x.itemsize
    both = stride_w == 2 and phases_w.size == 2
    odd = left % 2  # input column `odd` is the first of phase 0
    pairs = max(min((width - odd) // 2, cols - (left + odd) // 2), 0)
    for plane in range(slot * planes // slots, (slot + 1) * planes // slots):
        for a in range(phases_h.size):
            for b in range(phases_w.size):
                first_w = phases_w[b] - left  # input column of the first cell
                skip = 0
                if first_w < 0:
                    skip = (-first_w + stride_w - 1) // stride_w
                skip = min(skip, cols)
                end = min(max((width - first_w + stride_w - 1) // stride_w, skip), cols)
                for i in range(rows):
                    row = out[plane, a, b, i]
                    ih = phases_h[a] + i * stride_h - top
                    if ih < 0 or ih >= height:
                        row[:] = 0
                        continue
                    row[:skip] = 0
                    row[end:] = 0
                    inside = row[skip:end]
                    if stride_w == 1:
                        source = x[plane, ih, first_w + skip : first_w + end]
                        for j in range(inside.size):
                            inside[j] = source[j]
                    elif both and pairs > 0:
                        # What is not part of a pair: one number before the pairs, one after them, of either phase.
                        at = (left + odd) // 2 - skip  # the first pair's place
                        if at > 0:
                            inside[0] = x[plane, ih, first_w + 2 * skip]
                        if at + pairs < inside.size:
                            inside[at + pairs] = x[plane, ih, first_w + 2 * (skip + at + pairs)]
                        if b == 1:
                            even = address_of(out[plane, a, 0, i]) + (left + odd) // 2 * item
                            call_address(
                                separate,
                                (even, even + rows * cols * item, address_of(x[plane, ih]) + odd * item, pairs),
                            )
                    elif inside.size > 0:
                        whole = x[plane, ih, first_w + skip * stride_w :]
                        for j in range(inside.size):
                            inside[j] = whole[j * stride_w]


@Kernel
def planes_to_pixels(slot, slots, transpose, x, out, top, left):
    """x (N, C, H, W) -> out (N, Hp, Wp, C), zero-padded; `transpose` is the address of `transpose_block`."""
    if slot < 0:
        return on_every_slot(slot, slots)
    images, channels, height, width = x.shape
    rows, cols = out.shape[1], out.shape[2]
    tasks = images * rows
    item = x.itemsize
    for task in range(slot * tasks // slots, (slot + 1) * tasks // slots):
        n = task // rows
        ih = task - n * rows - top
        row = out[n, ih + top].reshape(cols * channels)
        if ih < 0 or ih >= height:
            row[:] = 0
            continue
        row[: left * channels] = 0
        row[(left + width) * channels :] = 0
        source = address_of(x) + ((n * channels) * height + ih) * width * item
        call_address(
            transpose,
            (address_of(row) + left * channels * item, channels, source, height * width, channels, width),
        )


@Kernel
def pixels_to_planes(slot, slots, transpose, x, out, top, left):
    """x (N, H, W, C) -> out (N, C, Hp, Wp), zero-padded; tasks are image rows of all channels."""
    if slot < 0:
        return on_every_slot(slot, slots)
    images, height, width, channels = x.shape
    rows, cols = out.shape[2], out.shape[3]
    tasks = images * rows
    item = x.itemsize
    for task in range(slot * tasks // slots, (slot + 1) * tasks // slots):
        n = task // rows
        i = task - n * rows
        ih = i - top
        inside = ih >= 0 and ih < height
        for c in range(channels):
            row = out[n, c, i]
            if inside:
                row[:left] = 0
                row[left + width :] = 0
            else:
                row[:] = 0
        if inside:
            target = address_of(out) + ((n * channels * rows + i) * cols + left) * item
            source = address_of(x) + (n * height + ih) * width * channels * item
            call_address(transpose, (target, rows * cols, source, channels, width, channels))


# Columns of one transpose task: enough to pay for the task, few enough to share a single matrix among threads.
TRANSPOSE_COLUMNS = 256


@Kernel
def transpose_matrices(slot, slots, transpose, x, out):
    """x (B, R, C) -> out (B, C, R); tasks are bands of columns."""
    if slot < 0:
        return on_every_slot(slot, slots)
    batch, rows, cols = x.shape
    bands = (cols + TRANSPOSE_COLUMNS - 1) // TRANSPOSE_COLUMNS
    tasks = batch * bands
    item = x.itemsize
    for task in range(slot * tasks // slots, (slot + 1) * tasks // slots):
        n = task // bands
        first = (task - n * bands) * TRANSPOSE_COLUMNS
        count = min(TRANSPOSE_COLUMNS, cols - first)
        source = address_of(x) + (n * rows * cols + first) * item
        target = address_of(out) + (n * rows * cols + first * rows) * item
        call_address(transpose, (target, rows, source, cols, rows, count))
