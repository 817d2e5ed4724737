"""The tile of channels-last depthwise convolution: lanes are channels, weights are vectors.

A table lists each output column's taps, so columns of padding cost nothing. Only cells below `rows` and channels that
exist are stored, and nothing outside the given pixels or zeros is read. Sizes, offsets and tables count numbers
(int64); addresses are integers.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastconv._kernels.depthwise_rows import BIAS, Rows, RowsEmitter
from fastconv._kernels.isa import MACHINE
from fastconv._kernels.jit import compile_callback
from fastconv._kernels.simd import I64, integers, read_sizes


class PixelSizes(NamedTuple):
    """The table that `pixel_tile` reads, as int64."""

    height: int
    x_row: int
    x_tap: int  # from one column tap to the next
    w_tap: int
    w_row: int  # from one row tap to the next
    out_cell: int
    out_column: int
    columns: int  # entries of the column table: (input place of the first tap, its weight, taps)
    cell_row: int  # taps 1 only: input rows from one cell to the next
    groups: int  # taps 1 only: row taps, and the rows between two
    group_row: int


@cache
def pixel_tile(rows: Rows, column_taps: int, itemsize: int):
    """Callback (sizes, table, x, zeros, w, out, bias, row, rows, channels, flags) over all output columns.

    `zeros` covers all column taps of a pixel; `channels` of each pixel are computed. Columns with all of
    `column_taps` run unrolled; 0 unrolls none.
    """
    CELLS, TAPS, STRIDE, SPACING = rows
    COLUMN_TAPS, ITEMSIZE, BITS = column_taps, itemsize, MACHINE.vector_bits

    def tile(sizes, table, x, zeros, w, out, bias, row, rows, channels, flags):
        _emit(
            CELLS, TAPS, STRIDE, SPACING, COLUMN_TAPS, ITEMSIZE, BITS,
            sizes, table, x, zeros, w, out, bias, row, rows, channels, flags,
        )  # fmt: skip

    return compile_callback(tile, integers(11))


@intrinsic(prefer_literal=True)
def _emit(
    typingctx, CELLS, TAPS, STRIDE, SPACING, COLUMN_TAPS, ITEMSIZE, BITS,
    sizes, table, x, zeros, w, out, bias, row, rows, channels, flags,
):  # fmt: skip
    shape = [t.literal_value for t in (CELLS, TAPS, STRIDE, SPACING)]
    column_taps, itemsize = COLUMN_TAPS.literal_value, ITEMSIZE.literal_value

    def codegen(context, builder, signature, args):
        _PixelEmitter(builder, Rows(*shape), column_taps, itemsize).emit(*args[7:])
        return context.get_dummy_value()

    return types.void(
        CELLS, TAPS, STRIDE, SPACING, COLUMN_TAPS, ITEMSIZE, BITS,
        sizes, table, x, zeros, w, out, bias, row, rows, channels, flags,
    ), codegen  # fmt: skip


class _PixelEmitter(RowsEmitter):
    def __init__(self, builder, rows, column_taps, itemsize):
        super().__init__(builder, rows, itemsize)
        self.column_taps = column_taps

    def emit(self, sizes, table, x, zeros, w, out, bias, row, rows, channels, flags):
        simd, builder = self.simd, self.builder
        self.sizes = s = read_sizes(simd, PixelSizes, sizes)
        x, self.zeros, w, out, self.bias = (simd.pointer(p) for p in (x, zeros, w, out, bias))
        table = simd.pointer(table, I64)
        self.row, self.count, self.channels, self.flags = row, rows, channels, flags
        self.bound = self.least(flags)
        with cgutils.for_range(builder, s["columns"]) as column:
            entry = simd.at(table, builder.mul(column.index, I64(3)))
            x_column = simd.at(x, builder.load(entry))
            w_column = simd.at(w, builder.load(simd.at(entry, 1)))
            taps = builder.load(simd.at(entry, 2))
            out_column = simd.at(out, builder.mul(column.index, s["out_column"]))
            whole = builder.icmp_signed("==", taps, I64(self.column_taps or -1))
            with builder.if_else(whole) as (all_taps, some_taps):
                with all_taps:
                    self._pixel(x_column, w_column, self.column_taps, out_column)
                with some_taps:
                    self._pixel(x_column, w_column, taps, out_column)

    def _pixel(self, x, w, taps, out):
        """All channels of one output column."""
        simd, builder = self.simd, self.builder
        lanes = I64(simd.lanes)
        vectors = builder.sdiv(self.channels, lanes)
        whole = builder.mul(vectors, lanes)
        pointers = None if self.rows.taps == 1 else self.row_pointers(x, self.zeros, self.row, None)
        places = self._cell_places(out)
        with cgutils.for_range(builder, vectors) as v:
            self._vector(builder.mul(v.index, lanes), x, w, taps, places, pointers, None)
        with builder.if_then(builder.icmp_signed("<", whole, self.channels)):
            tail = simd.first_lanes(builder.sub(self.channels, whole))
            self._vector(whole, x, w, taps, places, pointers, tail)

    def _cell_places(self, out):
        """Where each cell is stored; cells at or beyond `count` share the last one's place.

        Cells are stored last to first, so that what belongs there comes last. Branches around the stores would take
        the sums with them: LLVM then computes cell after cell, each a chain that waits for itself.
        """
        builder, last = self.builder, self.builder.sub(self.count, I64(1))
        cells = [I64(cell) for cell in range(self.rows.cells)]
        present = [builder.select(builder.icmp_signed("<", cell, last), cell, last) for cell in cells]
        return [self.simd.at(out, builder.mul(cell, self.sizes["out_cell"])) for cell in present]

    def _vector(self, channel, x, w, taps, places, pointers, mask):
        simd, builder, s = self.simd, self.builder, self.sizes
        cells = self.cleared(simd.zero())
        with builder.if_then(self.asked(self.flags, BIAS)):
            start = simd.load(simd.at(self.bias, channel), mask)
            for cell in cells:
                builder.store(start, cell)
        if pointers is not None:
            self._column_taps(cells, pointers, channel, taps, w, mask)
        else:
            with cgutils.for_range(builder, s["groups"]) as group:
                row = builder.add(self.row, builder.mul(group.index, s["group_row"]))
                rows = self.row_pointers(x, self.zeros, row, s["cell_row"])
                w_row = simd.at(w, builder.mul(group.index, s["w_row"]))
                self._column_taps(cells, rows, channel, taps, w_row, mask)
        for cell, place in reversed(list(zip(cells, places, strict=True))):
            simd.store(simd.raised(builder.load(cell), self.bound), simd.at(place, channel), mask)

    def _column_taps(self, cells, pointers, channel, taps, w, mask):
        if isinstance(taps, int):
            for tap in range(taps):
                self._column_tap(cells, pointers, channel, I64(tap), w, mask)
        else:
            with cgutils.for_range(self.builder, taps) as tap:
                self._column_tap(cells, pointers, channel, tap.index, w, mask)

    def _column_tap(self, cells, pointers, channel, tap, w, mask):
        simd, builder, s = self.simd, self.builder, self.sizes
        place = builder.add(channel, builder.mul(tap, s["x_tap"]))
        w_tap = simd.at(w, builder.add(channel, builder.mul(tap, s["w_tap"])))
        weights = [simd.load(simd.at(w_tap, builder.mul(s["w_row"], I64(r))), mask) for r in range(self.rows.taps)]
        self.multiply(cells, pointers, lambda read, row: simd.load(simd.at(row, place), mask), weights)
