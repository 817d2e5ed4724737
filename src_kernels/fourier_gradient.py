"""The gradient of w by Fourier transforms: products of the spectra of tiles of x and of dout, summed over all tiles.

    dw = F^-1 [ sum over tiles of F(x tile) * conj F(dout tile) ]     (see `fourier`)

A tile of dout holds step_h x step_w numbers and zeros beside them. Two tiles a + i b of x and d + i e of dout make
one product, whose part (a + i b) conj(d + i e) = a d + b e + i (b d - a e) is wanted as far as it is real. The spectra
of dout are stored with their parts exchanged, which is i times the conjugate: so dw comes back as imaginary part.

Tasks are (channel, pair) of one operand, from channel `channel` and pair of tiles `first` on, which give their own
spectra; then (group, channels, filters), which write, or with `add` add to, their own part of `dw`. Spectra lie as
[channel][position][pair of tiles].
"""

from __future__ import annotations

from typing import NamedTuple

from fastconv._kernels.fourier import from_spectrum, load_tile, multiply_spectra, to_spectrum
from fastconv._kernels.launch import Kernel, next_task, on_every_slot
from fastconv._kernels.simd import address_of


@Kernel
def fourier_spectra(
    slot, slots, counters, calls, x, spectra, a_rows, x_rows, high_turns, wide_turns, scratch, first, count, channel,
    channels, all_channels, height, width, top, left, most_h, most_w, exchanged, step, t,
):  # fmt: skip
    if slot < 0:
        return on_every_slot(slot, slots)
    a = scratch[slot, : 2 * t.high * t.a_stride]
    b = scratch[slot, a.size : a.size + 2 * t.wide * t.b_stride]
    number = 2 * t.lanes
    positions = t.high * t.wide // t.lanes
    tasks = channels * count
    while True:
        task = next_task(counters, slot, slots, tasks)
        if task == tasks:
            return
        c, place = task // count, task % count
        image, pair = (first + place) // t.pairs, (first + place) % t.pairs
        for p in range(2):
            tile = 2 * pair + p
            y, col = tile // t.cols * t.step_h - top, tile % t.cols * t.step_w - left
            high = most_h if tile < t.rows * t.cols else 0
            start = (image * all_channels + channel + c) * height * width
            load_tile(calls, a, p, x, start, height, width, y, col, high, most_w, a_rows, x_rows, t)
        target = address_of(spectra) + (c * positions * step + place * number) * x.itemsize
        to_spectrum(calls, a, b, t.wide // t.lanes, target, step, exchanged, high_turns, wide_turns, t)


class Sums(NamedTuple):
    """Sizes of the products of a gradient of w: depth runs over the pairs of tiles of some images."""

    group: int  # the first of `groups`
    groups: int
    channels: int  # of a group
    filters: int  # of a group
    depth: int
    step: int  # from one position of a channel's (or filter's) spectra, all pairs, to the next
    sums_step: int
    most_channels: int  # of one task
    most_filters: int
    positions: int  # multiplied at a time
    tile_rows: int
    tile_cols: int
    add: int  # to dw


@Kernel
def fourier_gradient(slot, slots, counters, calls, tiles, douts, dw, high_turns, wide_turns, scratch, scale, g, wg, t):
    if slot < 0:
        return on_every_slot(slot, slots)
    item = dw.itemsize
    a = scratch[slot, : 2 * t.high * t.a_stride]
    b = scratch[slot, a.size : a.size + 2 * t.wide * t.b_stride]
    sums = address_of(scratch[slot]) + (a.size + b.size) * item
    positions = t.high * t.wide // t.lanes
    width = (wg.kernel_w - 1) * wg.across + 1
    over_c = (g.channels + g.most_channels - 1) // g.most_channels
    over_f = (g.filters + g.most_filters - 1) // g.most_filters
    tasks = g.groups * over_c * over_f
    while True:
        task = next_task(counters, slot, slots, tasks)
        if task == tasks:
            return
        group = task // (over_c * over_f)
        c, f = task // over_f % over_c * g.most_channels, task % over_f * g.most_filters
        channels, filters = min(g.most_channels, g.channels - c), min(g.most_filters, g.filters - f)
        of_c = address_of(tiles) + (group * g.channels + c) * positions * g.step * item
        of_f = address_of(douts) + (group * g.filters + f) * positions * g.step * item
        multiply_spectra(
            calls, g.depth, of_c,
            positions * g.step, g.step, channels, of_f,
            positions * g.step, g.step, filters, sums, g.sums_step, positions, g.positions, g.tile_rows, g.tile_cols,
            item, t,
        )  # fmt: skip
        for s in range(channels * filters):
            from_spectrum(calls, sums + s * g.sums_step * item, a, b, width, high_turns, wide_turns, t)
            place = (
                wg.first
                + (g.group + group) * wg.group
                + (f + s % filters) * wg.filter
                + (c + s // filters) * wg.channel
            )
            for kh in range(wg.kernel_h):
                row = (t.high + kh * wg.down) * t.a_stride  # i times the sums: their real parts lie in the second plane
                for kw in range(wg.kernel_w):
                    value = a[row + kw * wg.across] * scale
                    to = place + kh * wg.row + kw * wg.col
                    if g.add:
                        value += dw[to]
                    dw[to] = value
