"""Gradient of the weights: a sum over output pixels, so pixels are the depth of the register tile.

    dw[m, v] = sum over q of  a[arow[m] + acol[q]] * b[brow[q] + v],      q = (n, oh, ow)

One operand walks the padded input, the other `dout`; which is which is the caller's choice (see
`fastconv.algorithms.weight_gradient`): rows over taps and vectors over filters, or rows over filters and vectors
over the numbers (kw, c) that lie side by side in a channels-last input. `column_*` list the tiles of vectors: where
they start in `b` and in `out`, and how wide they are.

Tasks are (split of the pixels, group, band of rows); each writes its own part of `out` (splits, ...), which may be
uninitialised. Blocks of pixels are summed from zero and then added, so long sums keep their accuracy.
"""

from __future__ import annotations

from typing import NamedTuple

from fastconv._kernels.launch import Kernel, next_task, on_every_slot
from fastconv._kernels.register_tile import ADD
from fastconv._kernels.simd import address_of, call_address


class WeightGradient(NamedTuple):
    """Sizes and strides of one launch; strides and offsets count numbers, not bytes."""

    images: int
    groups: int
    rows: int  # output pixels of one image: rows x cols
    cols: int
    a_image: int
    a_row: int
    a_col: int
    a_group: int
    b_image: int
    b_row: int
    b_col: int
    b_group: int
    out_group: int
    out_split: int
    tile_rows: int
    band: int  # tile rows of one task, a multiple of tile_rows
    splits: int
    depth_block: int
    add: int  # 1 adds to what `out` holds (an earlier part of the batch)


@Kernel
def weight_gradient(slot, slots, counters, tile, a, arow, b, column_b, column_out, column_width, out, crow, tables, g):
    if slot < 0:
        return on_every_slot(slot, slots)
    item = a.itemsize
    pixels = g.images * g.rows * g.cols
    bands = (arow.size + g.band - 1) // g.band
    share = (pixels + g.splits - 1) // g.splits
    acol, brow = tables[slot, : g.depth_block], tables[slot, g.depth_block :]
    tasks = g.splits * g.groups * bands
    while True:
        task = next_task(counters, slot, slots, tasks)
        if task == tasks:
            return
        band = task % bands
        group = task // bands % g.groups
        split = task // (bands * g.groups)
        row_end = min((band + 1) * g.band, arow.size)
        begin = split * share
        end = min(begin + share, pixels)
        target = address_of(out) + (split * g.out_split + group * g.out_group) * item
        source_a = address_of(a) + group * g.a_group * item
        source_b = address_of(b) + group * g.b_group * item
        image = begin // (g.rows * g.cols)
        row = begin // g.cols % g.rows
        col = begin % g.cols
        first = begin
        while first < end or first == begin:  # an empty split still writes its zeros
            count = max(min(g.depth_block, end - first), 0)
            for i in range(count):
                acol[i] = image * g.a_image + row * g.a_row + col * g.a_col
                brow[i] = image * g.b_image + row * g.b_row + col * g.b_col
                col += 1
                if col == g.cols:
                    col = 0
                    row += 1
                    if row == g.rows:
                        row = 0
                        image += 1
            flags = ADD if first > begin or g.add else 0
            for t in range(column_b.size):
                for m in range(band * g.band, row_end, g.tile_rows):
                    call_address(
                        tile,
                        (
                            count,
                            source_a,
                            address_of(arow) + 8 * m,
                            address_of(acol),
                            source_b + column_b[t] * item,
                            address_of(brow),
                            target + column_out[t] * item,
                            address_of(crow) + 8 * m,
                            min(g.tile_rows, row_end - m),
                            column_width[t],
                            0,
                            flags,
                        ),
                    )
            first += g.depth_block
