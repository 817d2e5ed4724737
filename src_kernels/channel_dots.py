"""Gradient of x of few channels, channels-last, as dot products along the filters, which lie side by side.

    dx[pixel, c] = sum over taps and f of  dout[arow(pixel) + acol[tap] + f] * w[brow[c] + bcol[tap] + f]

Both operands are read as they lie, as vectors of filters, by the `dot_tile`: a few pixels times a few channels. With
vectors over channels most lanes would be empty, and with vectors over pixels `dout` would be transposed first.

Pixels come in `parts`, grids whose pixels meet the same taps: of each phase of the stride, and those near a border,
where taps outside `dout` are left out. Steps of a part are its whole vectors, tap by tap, and then the last filters of
each tap that fill none.

Tasks are (image, some rows of a part). `out` may be uninitialised. Scratch per slot: `tables` (2 * tile_rows), `sums`
(a vector per number of a tile) and `totals` (their sums).
"""

from __future__ import annotations

from typing import NamedTuple

from fastconv._kernels.launch import Kernel, next_task, on_every_slot
from fastconv._kernels.simd import address_of, call_address


class ChannelDots(NamedTuple):
    """Sizes and strides of one launch; strides and offsets count numbers, not bytes."""

    images: int
    channels: int
    dout_image: int
    dout_row: int  # from a pixel's window to the one below, to the right
    dout_col: int
    out_image: int
    tail: int  # filters that fill no vector
    tile_rows: int  # pixels
    tile_cols: int  # channels


class Part(NamedTuple):
    """A grid of pixels that meet the same taps, a row of the table `parts`."""

    cols: int
    dout_start: int
    out_start: int
    out_row: int
    out_col: int
    step: int  # the first of its steps
    steps: int
    full: int  # steps of whole vectors


COLS, DOUT_START, OUT_START, OUT_ROW, OUT_COL, STEP, STEPS, FULL = range(len(Part._fields))


@Kernel
def channel_dots(
    slot, slots, counters, tile, fold, dout, acol, w, brow, bcol, parts, tasks, out, tables, sums, totals, g
):  # fmt: skip
    """Tasks of an image are (part, first row, rows)."""
    if slot < 0:
        return on_every_slot(slot, slots)
    arow, places = tables[slot, 0], tables[slot, 1]
    mine, total = address_of(sums[slot]), totals[slot]
    count_of_tasks = g.images * len(tasks)
    while True:
        task = next_task(counters, slot, slots, count_of_tasks)
        if task == count_of_tasks:
            return
        image = task // len(tasks)
        part, top, rows = tasks[task % len(tasks), 0], tasks[task % len(tasks), 1], tasks[task % len(tasks), 2]
        cols, out_row, out_col = parts[part, COLS], parts[part, OUT_ROW], parts[part, OUT_COL]
        source = image * g.dout_image + parts[part, DOUT_START] + top * g.dout_row
        target = image * g.out_image + parts[part, OUT_START] + top * out_row
        steps, full, step = parts[part, STEPS], parts[part, FULL], 8 * parts[part, STEP]
        row = 0
        col = 0
        for _ in range(0, rows * cols, g.tile_rows):
            count = 0
            for i in range(g.tile_rows):
                if row == rows:
                    arow[i] = arow[i - 1]
                    continue
                arow[i] = source + row * g.dout_row + col * g.dout_col
                places[i] = target + row * out_row + col * out_col
                count += 1
                col += 1
                if col == cols:
                    col = 0
                    row += 1
            for c in range(0, g.channels, g.tile_cols):
                call_address(
                    tile,
                    (
                        steps, full, g.tail, address_of(dout), address_of(arow), address_of(acol) + step, address_of(w),
                        address_of(brow) + 8 * c, address_of(bcol) + step, mine, 0,
                    ),
                )  # fmt: skip
                call_address(fold, (address_of(total), mine, count * g.tile_cols))
                for i in range(count):
                    for j in range(min(g.tile_cols, g.channels - c)):
                        out[places[i] + c + j] = total[i * g.tile_cols + j]
