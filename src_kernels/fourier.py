"""Convolution by Fourier transforms: overlapping tiles of x, products of spectra summed over channels, and back.

    out tile = F^-1 [ sum over c of F(x tile) * conj F(w) ],    of high x wide numbers, step_h x step_w of them valid

(overlap-save: the last reach - 1 rows and columns of a tile's correlation wrap around and are left to the next
tile). Two tiles of one image are the real and the imaginary part of one complex tile: filters are real, so their
results come back the same way, and no spectrum has to be taken apart. Images never share a tile.

A spectrum is high * wide complex numbers: `positions` vectors of real parts, each followed by one of imaginary parts,
in the order in which the transforms leave them (see `fourier_transforms`). Scratch of a slot: tile `a` (two planes of
high rows), its transposed `b` (two planes of wide rows), spectra of tiles, and sums. `weights` holds conj F(w) / (high
wide), exchanged parts giving the conjugate. `x` and `out` are channels-first; what lies outside x is zero.

Tasks: (filter, channel) for weights; (block of pairs of tiles, group) for tiles, which write their own results, all
filters. `out` may be uninitialised.
"""

from __future__ import annotations

from typing import NamedTuple

from fastconv._kernels.jit import helper
from fastconv._kernels.launch import Kernel, next_task, on_every_slot
from fastconv._kernels.simd import address_of, call_address


class Calls(NamedTuple):
    """Addresses of the compiled callbacks."""

    copy: int
    transpose: int
    high_to: int
    wide_to: int
    high_from: int
    wide_from: int
    multiply: int
    finish: int


class Tiles(NamedTuple):
    """Tiles of one image and their place in scratch; strides count numbers, not bytes."""

    lanes: int
    high: int  # rows and columns of a tile, lengths of the transforms
    wide: int
    a_stride: int
    b_stride: int
    rows: int  # tiles of an image: rows x cols
    cols: int
    step_h: int  # from one tile to the next: valid results
    step_w: int
    pairs: int  # of tiles of an image


class Fourier(NamedTuple):
    """Sizes of one launch over the results of `groups` groups from `group` on, `filters` filters from `filter` on."""

    images: int
    channels: int  # of a group
    all_filters: int  # of a group
    all_groups: int
    group: int
    groups: int
    filter: int
    filters: int
    height: int  # of x
    width: int
    top: int  # zeros before x
    left: int
    out_height: int
    out_width: int
    block: int  # pairs of one task
    share: int  # filters whose sums a task holds at a time
    positions: int  # multiplied at a time
    tile_rows: int  # of products
    tile_cols: int
    tiles_step: int  # from one position of a pair's spectra (all channels) to the next
    tiles_pair: int  # from one pair's spectra to the next
    sums_step: int  # from one spectrum of sums to the next
    w_step: int  # from one position of a filter's spectra (all channels) to the next
    w_filter: int  # from one filter's spectra to the next
    relu: int


class Weights(NamedTuple):
    """Where number (group, filter, channel, kh, kw) lies in w; gradients of x exchange filters and channels."""

    first: int
    group: int
    filter: int
    channel: int
    row: int
    col: int
    kernel_h: int
    kernel_w: int
    down: int  # dilation
    across: int


@helper
def load_tile(calls, planes, p, x, start, height, width, y, x0, most_h, most_w, a_rows, x_rows, t):
    """Plane `p` of tile `a`: most_h x most_w numbers of the image at `start`, from row y and column x0 on, else 0."""
    size = t.high * t.a_stride
    begin, end = max(-y, 0), min(most_h, height - y)
    left, right = max(-x0, 0), min(most_w, width - x0)
    if begin > 0 or end < t.high or left > 0 or right < t.wide:
        planes[p * size : (p + 1) * size] = 0
    if begin < end and left < right:
        item = x.itemsize
        call_address(
            calls.copy,
            (
                address_of(planes) + (p * size + begin * t.a_stride + left) * item,
                address_of(a_rows),
                address_of(x) + (start + (y + begin) * width + x0 + left) * item,
                address_of(x_rows),
                end - begin,
                right - left,
                1,
            ),
        )


@helper
def to_spectrum(calls, a, b, groups, target, step, exchanged, high_turns, wide_turns, t):
    """Spectrum of tile `a`, of which `groups` vectors of columns are not zero, to address `target`.

    Position q lies at q * step; with `exchanged` its imaginary part comes first.
    """
    item = a.itemsize
    re, im = address_of(a), address_of(a) + t.high * t.a_stride * item
    b_re, b_im = address_of(b), address_of(b) + t.wide * t.b_stride * item
    call_address(
        calls.high_to, (groups, re, im, t.a_stride, t.lanes, re, im, t.a_stride, t.lanes, address_of(high_turns))
    )
    rows, cols = t.high // t.lanes, t.wide // t.lanes
    call_address(calls.transpose, (b_re, t.b_stride, re, t.a_stride, rows, cols))
    call_address(calls.transpose, (b_im, t.b_stride, im, t.a_stride, rows, cols))
    first, second = target, target + t.lanes * item
    if exchanged:
        first, second = second, first
    call_address(
        calls.wide_to, (rows, b_re, b_im, t.b_stride, t.lanes, first, second, rows * step, step, address_of(wide_turns))
    )


@helper
def from_spectrum(calls, source, a, b, width, high_turns, wide_turns, t):
    """The first `width` columns of the tile with the spectrum at address `source`, into tile `a`."""
    item = a.itemsize
    re, im = address_of(a), address_of(a) + t.high * t.a_stride * item
    b_re, b_im = address_of(b), address_of(b) + t.wide * t.b_stride * item
    rows, cols, step = t.high // t.lanes, (width + t.lanes - 1) // t.lanes, 2 * t.lanes
    second = source + t.lanes * item
    call_address(
        calls.wide_from,
        (rows, second, source, rows * step, step, b_im, b_re, t.b_stride, t.lanes, address_of(wide_turns)),
    )
    call_address(calls.transpose, (re, t.a_stride, b_re, t.b_stride, cols, rows))
    call_address(calls.transpose, (im, t.a_stride, b_im, t.b_stride, cols, rows))
    call_address(
        calls.high_from, (cols, im, re, t.a_stride, t.lanes, im, re, t.a_stride, t.lanes, address_of(high_turns))
    )


@helper
def multiply_spectra(
    calls, depth, a, a_row, a_position, rows, b, b_row, b_position, cols, c, c_step, positions, at_once, tile_rows,
    tile_cols, item, t,
):  # fmt: skip
    """Spectrum (m, n) at c + (m * cols + n) * c_step = sum over depth of those of row m of `a` and row n of `b`."""
    number = 2 * t.lanes
    for first in range(0, positions, at_once):
        count = min(at_once, positions - first)
        for m in range(0, rows, tile_rows):
            for n in range(0, cols, tile_cols):
                call_address(
                    calls.multiply,
                    (
                        count,
                        depth,
                        a + (m * a_row + first * a_position) * item,
                        a_row,
                        number,
                        a_position,
                        b + (n * b_row + first * b_position) * item,
                        b_row,
                        number,
                        b_position,
                        c + ((m * cols + n) * c_step + first * number) * item,
                        cols * c_step,
                        c_step,
                        number,
                        min(tile_rows, rows - m),
                        min(tile_cols, cols - n),
                    ),
                )


@Kernel
def fourier_weights(slot, slots, calls, w, spectra, scratch, high_turns, wide_turns, scale, g, wg, t):
    if slot < 0:
        return on_every_slot(slot, slots)
    a = scratch[slot, : 2 * t.high * t.a_stride]
    b = scratch[slot, a.size : a.size + 2 * t.wide * t.b_stride]
    used = ((wg.kernel_w - 1) * wg.across + t.lanes) // t.lanes
    for task in range(slot, g.groups * g.filters * g.channels, slots):
        f, c = task // g.channels, task % g.channels
        place = wg.first + (g.group + f // g.filters) * wg.group + (g.filter + f % g.filters) * wg.filter
        place += c * wg.channel
        a[:] = 0
        for kh in range(wg.kernel_h):
            row = (t.high + kh * wg.down) * t.a_stride  # of the imaginary parts: exchanged, i w becomes conj F(w)
            for kw in range(wg.kernel_w):
                a[row + kw * wg.across] = w[place + kh * wg.row + kw * wg.col] * scale
        target = address_of(spectra) + (f * g.w_filter + c * 2 * t.lanes) * w.itemsize
        to_spectrum(calls, a, b, used, target, g.w_step, True, high_turns, wide_turns, t)


@Kernel
def fourier(
    slot, slots, counters, calls, x, weights, bias, zeros, out, a_rows, x_rows, high_turns, wide_turns, scratch, g, t
):
    if slot < 0:
        return on_every_slot(slot, slots)
    item = x.itemsize
    a = scratch[slot, : 2 * t.high * t.a_stride]
    b = scratch[slot, a.size : a.size + 2 * t.wide * t.b_stride]
    tiles = address_of(scratch[slot]) + (a.size + b.size) * item
    sums = tiles + g.block * g.tiles_pair * item
    size = t.high * t.a_stride
    total = g.images * t.pairs
    positions = t.high * t.wide // t.lanes
    tasks = (total + g.block - 1) // g.block * g.groups
    while True:
        task = next_task(counters, slot, slots, tasks)
        if task == tasks:
            return
        first = task // g.groups * g.block
        group = g.group + task % g.groups
        count = min(g.block, total - first)
        for i in range(count):
            image, pair = (first + i) // t.pairs, (first + i) % t.pairs
            for c in range(g.channels):
                start = ((image * g.all_groups + group) * g.channels + c) * g.height * g.width
                for p in range(2):
                    tile = 2 * pair + p
                    y, col = tile // t.cols * t.step_h - g.top, tile % t.cols * t.step_w - g.left
                    high = t.high if tile < t.rows * t.cols else 0
                    load_tile(calls, a, p, x, start, g.height, g.width, y, col, high, t.wide, a_rows, x_rows, t)
                target = tiles + (i * g.tiles_pair + c * 2 * t.lanes) * item
                to_spectrum(calls, a, b, t.wide // t.lanes, target, g.tiles_step, False, high_turns, wide_turns, t)
        for f in range(0, g.filters, g.share):
            share = min(g.share, g.filters - f)
            place = (task % g.groups * g.filters + f) * g.w_filter
            multiply_spectra(
                calls, g.channels, tiles, g.tiles_pair, g.tiles_step, count, address_of(weights) + place * item,
                g.w_filter, g.w_step, share, sums, g.sums_step, positions, g.positions, g.tile_rows, g.tile_cols,
                item, t,
            )  # fmt: skip
            for s in range(count * share):
                image, pair = (first + s // share) // t.pairs, (first + s // share) % t.pairs
                from_spectrum(calls, sums + s * g.sums_step * item, a, b, t.step_w, high_turns, wide_turns, t)
                result = group * g.all_filters + g.filter + f + s % share
                added = address_of(zeros)
                if bias.size > 0:
                    added = address_of(bias) + result * item
                plane = (image * g.all_groups * g.all_filters + result) * g.out_height * g.out_width
                for p in range(2):
                    tile = 2 * pair + p
                    if tile < t.rows * t.cols:
                        y, col = tile // t.cols * t.step_h, tile % t.cols * t.step_w
                        call_address(
                            calls.finish,
                            (
                                address_of(out) + (plane + y * g.out_width + col) * item,
                                g.out_width,
                                address_of(a) + p * size * item,
                                t.a_stride,
                                min(t.step_h, g.out_height - y),
                                min(t.step_w, g.out_width - col),
                                added,
                                g.relu,
                            ),
                        )
