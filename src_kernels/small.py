"""A whole pass of a small convolution or matrix product in one call.

    c[crow[m] + v] = sum over k of  a[arow[m] + acol[k]] * b[brow[k] + v],      m < rows, v < cols

The register tile over tables, as in the large kernels, but with all tables and sizes merged into one array of integers:
for 1x3x8x8 and 8 filters 3x3 the arithmetic takes 0.2 us, handing over the twenty arguments of those kernels 2 us.
One of a and b is the input, padded if need be, the other the second operand as it lies in memory (w, or `dout` for the
gradient of w). For the gradient of x w is transposed, (taps, cols, filters) -> panels (taps, filters, tile_cols), one
at a time. (As a whole for two threads, with lines that both wrote to, 64 x 120 times 120 x 400 took 75 us, as on one.)

Contract: arrays are C-contiguous and of one float dtype; `out` may be uninitialised and overlaps no other. With more
than one slot there are no padded cells, runs or parts: a slot computes its share of the rows, or of the columns where
it transposes the second operand.
"""

from __future__ import annotations

from typing import NamedTuple

from fastconv._kernels.jit import helper
from fastconv._kernels.launch import Kernel, on_every_slot
from fastconv._kernels.simd import address_of, call_address


class Small(NamedTuple):
    """The integers that a plan begins with; strides count numbers."""

    tile: int  # addresses of callbacks
    copy: int
    cells: int  # padded input of one part of the batch; 0: the tile reads x itself
    rows: int
    depth: int
    runs: int  # pieces in which results are copied to `out`; 0: the tile writes there itself
    tile_rows: int
    tile_cols: int
    flags: int  # of the register tile
    parts: int  # of the batch: images, or 1
    x_part: int
    out_part: int
    cols: int
    run_length: int
    second_is_a: int
    transpose: int  # address of the callback that transposes the second operand; 0: it is read in place
    taps: int  # of w, where it is transposed
    filters: int


HEADER = len(Small._fields)


@helper
def _share(slot, slots, size, step):
    """The slot's part of `size`, in whole steps but for the last."""
    steps = (size + step - 1) // step
    return slot * steps // slots * step, min((slot + 1) * steps // slots * step, size)


@Kernel
def small(slot, slots, x, second, bias, out, scratch, plan):
    """plan: the integers of `Small`, then the tables gather[cells], arow[rows], acol[depth], brow[depth], crow[rows],
    run_from[runs] and run_to[runs]. gather[i] is where padded cell i lies in x, -1 for a zero. `scratch` holds
    the padded cells, with runs, the results, and a panel of the transposed operand per slot.
    """
    if slot < 0:
        return on_every_slot(slot, slots)
    g = Small(
        plan[0], plan[1], plan[2], plan[3], plan[4], plan[5], plan[6], plan[7], plan[8], plan[9], plan[10], plan[11],
        plan[12], plan[13], plan[14], plan[15], plan[16], plan[17],
    )  # fmt: skip
    item = x.itemsize
    gather = plan[HEADER : HEADER + g.cells]
    arow = address_of(plan) + 8 * (HEADER + g.cells)
    acol = arow + 8 * g.rows
    brow = acol + 8 * g.depth
    crow = brow + 8 * g.depth
    run_from = crow + 8 * g.rows
    given, padded = x.reshape(x.size), scratch[: g.cells]
    other, after = address_of(second), address_of(scratch) + g.cells * item
    row_begin, row_end, col_begin, col_end, panel = 0, g.rows, 0, g.cols, 0
    if g.transpose:
        col_begin, col_end = _share(slot, slots, g.cols, g.tile_cols)
        panel = after + ((g.rows * g.cols if g.runs else 0) + slot * g.depth * g.tile_cols) * item
    else:
        row_begin, row_end = _share(slot, slots, g.rows, g.tile_rows)
    for part in range(g.parts):
        source = address_of(x) + part * g.x_part * item
        if g.cells:
            image = given[part * g.x_part :]
            for i in range(padded.size):
                padded[i] = image[gather[i]] if gather[i] >= 0 else 0
            source = address_of(scratch)
        target = address_of(out) + part * g.out_part * item
        results = after if g.runs else target
        a, b = (other, source) if g.second_is_a else (source, other)
        for v in range(col_begin, col_end, g.tile_cols):
            width = min(g.tile_cols, col_end - v)
            columns = b + v * item
            if g.transpose:
                columns = panel
                for tap in range(g.taps):
                    call_address(
                        g.transpose,
                        (
                            panel + tap * g.filters * g.tile_cols * item,
                            g.tile_cols,
                            other + (tap * g.cols + v) * g.filters * item,
                            g.filters,
                            width,
                            g.filters,
                        ),
                    )
            for m in range(row_begin, row_end, g.tile_rows):
                call_address(
                    g.tile,
                    (
                        g.depth,
                        a,
                        arow + 8 * m,
                        acol,
                        columns,
                        brow,
                        results + v * item,
                        crow + 8 * m,
                        min(g.tile_rows, row_end - m),
                        width,
                        address_of(bias) + (m if g.second_is_a else v) * item,
                        g.flags,
                    ),
                )
        if g.runs:
            call_address(g.copy, (target, run_from + 8 * g.runs, results, run_from, g.runs, g.run_length, 1))
