"""Pooling with vectors over the numbers of a pixel: any windows, where pixels have many numbers.

Pixels are what lies innermost in memory: the channels, or (height, width, channels) where depth is pooled. Rows and
columns of a window come from lists, so strides, dilations and adaptive windows are all the same here. Blocks of four
vectors share one walk over the lists; what is left of a pixel takes one vector at a time, the last of which ends where
the pixel does and repeats numbers of the one before. Only pixels smaller than a vector take masks.
"""

from __future__ import annotations

from functools import cache

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastconv._kernels.isa import MACHINE
from fastconv._kernels.jit import compile_callback
from fastconv._kernels.pool_vectors import (
    ARGUMENTS,
    CHANNELS,
    CHOSEN,
    COLUMNS,
    FACTORS,
    FIRST_LARGEST,
    KINDS_WITH_MASK,
    LARGEST,
    MEAN,
    READ,
    SPREAD,
    TARGET,
    WRITE,
    PoolEmitter,
    TableReader,
)
from fastconv._kernels.simd import I64, integers

VECTORS = 4


@cache
def channels_kernel(kind: int, itemsize: int, code_bits: int, usual_rows: int, usual_cols: int, narrow: bool):
    """The compiled pass over pixels made of (as a rule) `usual_rows` times `usual_cols` pixels, for `pool`.

    The mask has codes of `code_bits`; `narrow` pixels are smaller than a vector.
    """
    KIND, ITEMSIZE, CODE_BITS, USUAL_ROWS, USUAL_COLS = kind, itemsize, code_bits, usual_rows, usual_cols
    NARROW = int(narrow)
    BITS = MACHINE.vector_bits

    def pool_channels(source, target, extra, table, begin, end):
        _emit_channels(
            KIND, ITEMSIZE, CODE_BITS, USUAL_ROWS, USUAL_COLS, NARROW, BITS, source, target, extra, table, begin, end
        )

    return compile_callback(pool_channels, integers(ARGUMENTS))


@intrinsic(prefer_literal=True)
def _emit_channels(
    typingctx, KIND, ITEMSIZE, CODE_BITS, USUAL_ROWS, USUAL_COLS, NARROW, BITS, source, target, extra, table, begin, end
):
    shape = [t.literal_value for t in (KIND, ITEMSIZE, CODE_BITS, USUAL_ROWS, USUAL_COLS, NARROW)]
    signature = types.void(
        KIND, ITEMSIZE, CODE_BITS, USUAL_ROWS, USUAL_COLS, NARROW, BITS, source, target, extra, table, begin, end
    )

    def codegen(context, builder, signature, args):
        _Channels(builder, *shape).emit(*args[7:])
        return context.get_dummy_value()

    return signature, codegen


class _Channels:
    def __init__(self, builder, kind, itemsize, code_bits, usual_rows, usual_cols, narrow):
        self.builder, self.kind, self.narrow = builder, kind, narrow
        self.usual_rows, self.usual_cols = usual_rows, usual_cols
        self.simd = PoolEmitter(builder, itemsize, code_bits)

    def emit(self, source, target, extra, table, begin, end):
        simd, builder = self.simd, self.builder
        self.reader = reader = TableReader(simd, table)
        self.source, self.target = simd.pointer(source), simd.pointer(target)
        self.extra = simd.pointer(extra, simd.code if self.kind in KINDS_WITH_MASK else simd.scalar)
        self.col_factors = simd.at(self.extra, reader.field(FACTORS))
        channels, columns, target_width = (reader.field(f) for f in (CHANNELS, COLUMNS, TARGET))
        self.stored_codes = channels if self.narrow else None
        row_starts, self.row_cells, self.row_taps = (reader.list(i) for i in range(3))
        col_starts, self.col_cells, self.col_taps = (reader.list(i) for i in range(3, 6))
        width = I64(VECTORS * simd.lanes)
        blocks = builder.sdiv(channels, width)
        left = builder.mul(blocks, width)
        singles = builder.sdiv(builder.add(builder.sub(channels, left), I64(simd.lanes - 1)), I64(simd.lanes))

        def lists_of(starts, index):
            return reader.entry(starts, index), reader.entry(starts, builder.add(index, I64(1)))

        with simd.over(begin, end) as row:
            row_list = lists_of(row_starts, row)
            row_place = builder.mul(row, target_width)
            with cgutils.for_range(builder, columns) as cols:
                column = cols.index
                col_list = lists_of(col_starts, column)
                pixel = builder.add(row_place, builder.mul(column, channels))
                with cgutils.for_range(builder, blocks) as block:
                    channel = builder.mul(block.index, width)
                    self.window(row, column, row_list, col_list, pixel, channel, [None] * VECTORS)
                with cgutils.for_range(builder, singles) as single:
                    if self.narrow:
                        channel, mask = I64(0), simd.first_lanes(channels)
                    else:
                        channel = builder.add(left, builder.mul(single.index, I64(simd.lanes)))
                        last, mask = builder.sub(channels, I64(simd.lanes)), None
                        channel = builder.select(builder.icmp_signed("<", channel, last), channel, last)
                    self.window(row, column, row_list, col_list, pixel, channel, [mask])

    def window(self, row, column, row_list, col_list, pixel, channel, masks):
        """One pixel of the target, a vector per mask."""
        builder, simd = self.builder, self.simd
        initial = simd.lowest if self.kind in (LARGEST, FIRST_LARGEST) else simd.zero()
        results = [simd.variable(initial) for _ in masks]
        codes = []
        if self.kind == FIRST_LARGEST:  # windows of nothing but -inf keep the code of their first cell
            first = builder.add(*(self.reader.entry(taps, begin) for taps, (begin, _) in (
                (self.row_taps, row_list), (self.col_taps, col_list))))  # fmt: skip
            codes = [simd.variable(simd.splat(first)) for _ in masks]

        def add_row(q):
            row_place = builder.add(self.reader.entry(self.row_cells, q), channel)
            row_tap = self.reader.entry(self.row_taps, q)

            def add_cell(p):
                place = builder.add(row_place, self.reader.entry(self.col_cells, p))
                col_tap = self.reader.entry(self.col_taps, p)
                self.cell(place, row_tap, col_tap, results, codes, masks)

            simd.for_each(*col_list, self.usual_cols, add_cell)

        simd.for_each(*row_list, self.usual_rows, add_row)
        factor = None
        if self.kind == MEAN:
            row_factor = builder.load(simd.at(self.extra, row))
            factor = simd.broadcast(builder.fmul(builder.load(simd.at(self.col_factors, column)), row_factor))
        target = builder.add(pixel, channel)
        for v, mask in enumerate(masks):
            place = builder.add(target, I64(v * simd.lanes))
            result = builder.load(results[v])
            if self.kind in (CHOSEN, SPREAD):
                simd.prefetch(simd.at(self.target, place), WRITE)
            simd.store(result if factor is None else builder.fdiv(result, factor), simd.at(self.target, place), mask)
            if codes:
                simd.store_codes(builder.load(codes[v]), simd.at(self.extra, place), self.stored_codes)

    def cell(self, place, row_tap, col_tap, results, codes, masks):
        """Add one cell of the window to the results."""
        builder, simd = self.builder, self.simd
        tap = builder.add(row_tap, col_tap)
        factor = None
        if self.kind == SPREAD:
            row_factor, col_factor = simd.at(self.extra, row_tap), simd.at(self.col_factors, col_tap)
            factor = simd.broadcast(builder.fmul(builder.load(row_factor), builder.load(col_factor)))
        for v, mask in enumerate(masks):
            here = builder.add(place, I64(v * simd.lanes))
            if self.kind not in (CHOSEN, SPREAD):
                simd.prefetch(simd.at(self.source, here), READ)
            number, old = simd.load(simd.at(self.source, here), mask), builder.load(results[v])
            if self.kind == LARGEST:
                new = simd.larger(number, old)
            elif self.kind == MEAN:
                new = builder.fadd(number, old)
            elif self.kind == SPREAD:
                new = simd.multiply_add(number, factor, old)
            elif self.kind == CHOSEN:
                named = builder.icmp_unsigned("==", simd.load_codes(simd.at(self.extra, here)), simd.splat(tap))
                new = simd.added(old, number, named)
            else:
                wins = simd.wins(number, old)
                new = builder.select(wins, number, old)
                builder.store(builder.select(wins, simd.splat(tap), builder.load(codes[v])), codes[v])
            builder.store(new, results[v])
