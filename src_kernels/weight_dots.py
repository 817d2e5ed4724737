"""Gradient of the weights as dot products along output pixels: nothing is transposed but a channels-last `dout`.

    dw[f, t] = sum over q of  dout[arow[f] + q] * x[brow[t] + q],      t = (c, kh, kw), q = (n, oh, ow)

`x` holds zero-padded planes, split by stride (see `prepare.pad_planes`): each tap of an output row is a run of
neighbours, and so is the row of `dout`. Both are read as vectors of pixels by the `dot_tile`, which wastes no lanes
on few filters or few taps. Rows whose length is no multiple of the vector end in a masked step. A channels-last
`dout` is brought into planes a block of pixels at a time, in scratch that stays in the second-level cache.

Tasks are (split of the output rows, group, band of filters); each writes its own part of `partial` (splits, ...),
which may be uninitialised. Scratch per slot: `tables` (2 * steps of a block), `sums` (one vector per number of a
band's result), `planes` (the transposed block, or nothing).
"""

from __future__ import annotations

from typing import NamedTuple

from fastconv._kernels.launch import Kernel, next_task, on_every_slot
from fastconv._kernels.simd import address_of, call_address


class WeightDots(NamedTuple):
    """Sizes and strides of one launch; strides and offsets count numbers, not bytes."""

    images: int
    groups: int
    filters: int  # of one group
    taps: int  # numbers of one filter
    rows: int  # output pixels of one image: rows x cols
    cols: int
    lanes: int
    dout_image: int
    dout_row: int
    dout_group: int
    dout_pixel: int  # from one pixel to the next; 1: planes, read in place
    x_image: int
    x_row: int
    x_group: int
    out_group: int
    out_filter: int
    out_tap: int
    tile_rows: int
    tile_cols: int
    band: int  # filters of one task, a multiple of tile_rows
    splits: int
    block: int  # output rows of one pass over the tiles
    pitch: int  # numbers from one output row to the next in `planes`
    add: int  # 1 adds to what `partial` holds (an earlier part of the batch)


@Kernel
def weight_dots(slot, slots, counters, tile, transpose, fold, dout, arow, x, brow, tables, sums, planes, partial, g):
    if slot < 0:
        return on_every_slot(slot, slots)
    item = x.itemsize
    bands = (g.filters + g.band - 1) // g.band
    lines = g.images * g.rows
    share = (lines + g.splits - 1) // g.splits
    whole = g.cols // g.lanes
    tail = g.cols - whole * g.lanes
    acol, bcol = tables[slot, 0], tables[slot, 1]
    size = g.tile_rows * g.tile_cols  # results of one tile
    columns = (g.taps + g.tile_cols - 1) // g.tile_cols
    mine = sums[slot]
    tasks = g.splits * g.groups * bands
    while True:
        task = next_task(counters, slot, slots, tasks)
        if task == tasks:
            return
        band = task % bands
        group = task // bands % g.groups
        split = task // (bands * g.groups)
        filter_begin = band * g.band
        count = min(g.band, g.filters - filter_begin)
        begin = split * share
        end = min(begin + share, lines)
        source_x = address_of(x) + group * g.x_group * item
        source_dout = address_of(dout) + group * g.dout_group * item
        rows = min((count + g.tile_rows - 1) // g.tile_rows * g.tile_rows, g.band)  # of whole tiles
        if g.dout_pixel != 1 and rows > count:
            planes[slot, count * g.block * g.pitch : rows * g.block * g.pitch] = 0
        first = begin
        while first < end or first == begin:  # an empty split still writes its zeros
            length = max(min(g.block, end - first), 0)
            full = length * whole
            steps = full + (length if tail else 0)
            for i in range(length):
                image = (first + i) // g.rows
                row = (first + i) - image * g.rows
                at_dout = image * g.dout_image + row * g.dout_row
                at_x = image * g.x_image + row * g.x_row
                if g.dout_pixel != 1:
                    call_address(
                        transpose,
                        (
                            address_of(planes[slot]) + i * g.pitch * item,
                            g.block * g.pitch,
                            source_dout + (at_dout + filter_begin) * item,
                            g.dout_pixel,
                            g.cols,
                            count,
                        ),
                    )
                    at_dout = i * g.pitch
                for v in range(whole):
                    acol[i * whole + v] = at_dout + v * g.lanes
                    bcol[i * whole + v] = at_x + v * g.lanes
                if tail:
                    acol[full + i] = at_dout + whole * g.lanes
                    bcol[full + i] = at_x + whole * g.lanes
            a, a_rows = source_dout, address_of(arow) + 8 * filter_begin
            if g.dout_pixel != 1:
                a, a_rows = address_of(planes[slot]), address_of(arow)
            for f in range(0, count, g.tile_rows):
                for t in range(columns):
                    call_address(
                        tile,
                        (
                            steps,
                            full,
                            tail,
                            a,
                            a_rows + 8 * f,
                            address_of(acol),
                            source_x,
                            address_of(brow) + 8 * t * g.tile_cols,
                            address_of(bcol),
                            address_of(mine) + (f // g.tile_rows * columns + t) * size * g.lanes * item,
                            1 if first > begin else 0,
                        ),
                    )
            first += g.block
        # The lanes of a band's sums are added up where the first of them lay; no number is read after it is replaced.
        call_address(
            fold, (address_of(mine), address_of(mine), (count + g.tile_rows - 1) // g.tile_rows * columns * size)
        )
        result = partial[split]
        for f in range(count):
            for t in range(g.taps):
                cell = (f // g.tile_rows * columns + t // g.tile_cols) * size
                total = mine[cell + f % g.tile_rows * g.tile_cols + t % g.tile_cols]
                place = group * g.out_group + (filter_begin + f) * g.out_filter + t * g.out_tap
                if g.add:
                    total += result[place]
                result[place] = total
