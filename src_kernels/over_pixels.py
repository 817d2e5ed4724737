"""Convolution with vectors over output pixels: rows of the register tile are filters.

    out[f, pixel] = sum over k of  w[arow[f] + acol[k]] * x[brow[k] + pixel],      k = (c, kh, kw)

Weights are read as they lie in memory, in either layout. `x` holds zero-padded planes, split by stride (see
`prepare.pad_planes`), so that every convolution has stride 1 here and `brow[k]` is the offset of tap k. The gradient
of x is the same sum over padded planes of `dout` with tables that walk filters and flipped taps, once per stride
phase.

The planes are read in place: pixels are numbered through the padded rows, so a tile runs across row ends and computes
the few pixels between rows in vain (`pixel_panels` copies them into panels first).

A tile whose pixels lie side by side in `out` is stored there from registers; any other goes through scratch and is
copied from there, a piece per output row. Tasks write different pixels or different filters. `out` may be
uninitialised.
"""

from __future__ import annotations

from typing import NamedTuple

from fastconv._kernels.launch import Kernel, next_task, on_every_slot
from fastconv._kernels.register_tile import ADD, RELU, ROW_BIAS
from fastconv._kernels.simd import address_of, call_address


class OverPixels(NamedTuple):
    """Sizes and strides of one launch; strides and offsets count numbers, not bytes."""

    images: int
    groups: int
    filters: int  # of one group
    rows: int  # output pixels of one image: rows x cols
    cols: int
    pitch: int  # numbers from one padded row to the next
    x_image: int
    x_group: int
    w_group: int
    out_start: int
    out_image: int
    out_group: int
    out_row: int
    out_col: int
    tile_rows: int
    tile_cols: int
    tiles: int  # tiles that share one pass over the weights
    band: int  # output rows of one task
    share: int  # filters of one task
    depth_block: int
    relu: int


@Kernel
def over_pixels(slot, slots, counters, tile, copy, w, arow, acol, x, brow, bias, out, crow, trow, scratch, starts, g):
    """Tasks are (image, group, band of output rows, share of the filters)."""
    if slot < 0:
        return on_every_slot(slot, slots)
    item = x.itemsize
    depth = acol.size
    bands = (g.rows + g.band - 1) // g.band
    shares = (g.filters + g.share - 1) // g.share
    contiguous = g.out_col == 1 and g.out_row == g.cols and g.pitch == g.cols
    mine, start = scratch[slot], starts[slot]
    tasks = g.images * g.groups * bands * shares
    while True:
        task = next_task(counters, slot, slots, tasks)
        if task == tasks:
            return
        share = task % shares
        band = task // shares % bands
        group = task // (shares * bands) % g.groups
        image = task // (shares * bands * g.groups)
        filter_begin = share * g.share
        filter_end = min(filter_begin + g.share, g.filters)
        row_end = min((band + 1) * g.band, g.rows)
        q = band * g.band * g.pitch
        q_end = (row_end - 1) * g.pitch + g.cols
        planes = address_of(x) + (image * g.x_image + group * g.x_group) * item
        weights = address_of(w) + group * g.w_group * item
        target = address_of(out) + (g.out_start + image * g.out_image + group * g.out_group) * item
        while q < q_end:
            tiles = 0
            while q < q_end and tiles < g.tiles:
                if q % g.pitch >= g.cols:  # never start on the padding between two rows
                    q = (q // g.pitch + 1) * g.pitch
                start[tiles] = q
                q += g.tile_cols
                tiles += 1
            for f in range(filter_begin, filter_end, g.tile_rows):
                count = min(g.tile_rows, filter_end - f)
                for t in range(tiles):
                    first = start[t]
                    width = min(g.tile_cols, q_end - first)
                    row = first // g.pitch
                    col = first - row * g.pitch
                    if contiguous or (g.out_col == 1 and col + width <= g.cols):
                        c, c_rows = target + (row * g.out_row + col) * item, address_of(crow) + 8 * f
                    else:
                        c, c_rows = address_of(mine), address_of(trow)
                    for k in range(0, max(depth, 1), g.depth_block):  # a phase without taps still writes zeros
                        steps = min(g.depth_block, depth - k)
                        flags = 0
                        if k > 0:
                            flags |= ADD
                        elif bias.size > 0:
                            flags |= ROW_BIAS
                        if g.relu and k + steps == depth:
                            flags |= RELU
                        call_address(
                            tile,
                            (
                                steps,
                                weights,
                                address_of(arow) + 8 * f,
                                address_of(acol) + 8 * k,
                                planes + first * item,
                                address_of(brow) + 8 * k,
                                c,
                                c_rows,
                                count,
                                width,
                                address_of(bias) + (group * g.filters + f) * item,
                                flags,
                            ),
                        )
                    if c != address_of(mine):
                        continue
                    end = first + width
                    while True:
                        length = min(g.cols - col, end - (row * g.pitch + col))
                        call_address(
                            copy,
                            (
                                target + (row * g.out_row + col * g.out_col) * item,
                                address_of(crow) + 8 * f,
                                c + (row * g.pitch + col - first) * item,
                                c_rows,
                                count,
                                length,
                                g.out_col,
                            ),
                        )
                        row += 1
                        col = 0
                        if row * g.pitch >= end:
                            break
