"""Depthwise convolution: forward and gradient of x, which are one correlation with different offsets.

Each channel is convolved with its own filters, so a task is some output rows of some planes (channels-first) or of
some channels (channels-last); it writes only those, and `out` may be uninitialised. All arithmetic is in the tiles
of `depthwise_plane_tile` and `depthwise_pixel_tile`; `zeros` is what they read for rows outside.
"""

from __future__ import annotations

from typing import NamedTuple

from fastconv._kernels.depthwise_rows import BIAS, RELU
from fastconv._kernels.launch import Kernel, next_task, on_every_slot
from fastconv._kernels.simd import address_of, call_address


class PlaneWork(NamedTuple):
    """Channels-first: `repeat` output planes read the same input."""

    images: int
    planes: int  # output planes of one image
    repeat: int
    x_plane: int  # from what one output plane reads to what the next one does
    out_plane: int
    w_plane: int
    rows: int  # output rows of this phase
    band: int  # rows of one call; the last takes what is left, too
    row_start: int  # input row of the first row's first tap
    row_step: int  # input rows from one output row to the next
    out_start: int
    out_row: int
    run: int  # calls of one task, at most
    relu: int


class PixelWork(NamedTuple):
    """Channels-last: tiles of `block` output rows and `share` channels."""

    images: int
    channels: int
    share: int
    x_image: int
    out_image: int
    rows: int
    block: int
    row_start: int
    row_step: int
    out_start: int
    out_row: int
    relu: int


@Kernel
def correlate_planes(slot, slots, counters, tile, sizes, table, x, zeros, w, bias, out, g):
    if slot < 0:
        return on_every_slot(slot, slots)
    item = x.itemsize
    bands = max(g.rows // g.band, 1)
    pieces = g.images * g.planes * bands
    flags = g.relu * RELU
    if bias.size > 0:
        flags |= BIAS
    tasks = (pieces + g.run - 1) // g.run
    while True:
        task = next_task(counters, slot, slots, tasks)
        if task == tasks:
            return
        first = task * g.run
        end = min(first + g.run, pieces)
        while first < end:
            plane = first // bands
            band = first - plane * bands
            row = band * g.band
            q = plane % g.planes
            count = min(end - first, g.planes - q) if bands == 1 and g.repeat == 1 else 1
            place = plane * g.out_plane + g.out_start + row * g.out_row
            call_address(
                tile,
                (
                    address_of(sizes),
                    address_of(table),
                    address_of(x) + plane // g.repeat * g.x_plane * item,
                    address_of(zeros),
                    address_of(w) + q * g.w_plane * item,
                    address_of(out) + place * item,
                    address_of(bias) + q * item,
                    g.row_start + row * g.row_step,
                    g.rows - row if band == bands - 1 else g.band,
                    count,
                    flags,
                ),
            )
            first += count


@Kernel
def correlate_pixels(slot, slots, counters, tile, sizes, table, x, zeros, w, bias, out, g):
    if slot < 0:
        return on_every_slot(slot, slots)
    item = x.itemsize
    blocks = (g.rows + g.block - 1) // g.block
    shares = (g.channels + g.share - 1) // g.share
    flags = g.relu * RELU
    if bias.size > 0:
        flags |= BIAS
    tasks = g.images * blocks * shares
    while True:
        task = next_task(counters, slot, slots, tasks)
        if task == tasks:
            return
        channel = task % shares * g.share
        row = task // shares % blocks * g.block
        image = task // (shares * blocks)
        call_address(
            tile,
            (
                address_of(sizes),
                address_of(table),
                address_of(x) + (image * g.x_image + channel) * item,
                address_of(zeros),
                address_of(w) + channel * item,
                address_of(out) + (image * g.out_image + g.out_start + row * g.out_row + channel) * item,
                address_of(bias) + channel * item,
                g.row_start + row * g.row_step,
                min(g.block, g.rows - row),
                min(g.share, g.channels - channel),
                flags,
            ),
        )
