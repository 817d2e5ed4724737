"""The register tile: every convolution of the library spends its time in this loop.

    C[crow[m] + v] (+)= sum over k < depth of  A[arow[m] + acol[k]] * B[brow[k] + v]      m < rows, v < cols

A tile of `ROWS` x `VECTORS` accumulators stays in registers for the whole loop; each step loads VECTORS vectors of
B, broadcasts one number of A per row and issues ROWS * VECTORS multiply-adds. What the offset tables hold decides
which algorithm it is (see the modules that call it). Tables are int64, in elements.

Contract: all pointers are addresses as integers. Rows at or beyond `rows` repeat the last valid row and are not
stored; columns at or beyond `cols` are neither read nor written. C may be uninitialised unless ADD is given.
With ADD, the new sums are added to C once at the end, so long sums are made of blocks (smaller rounding error).
One tile writes its own part of C only; callers give different threads different parts.
"""

from __future__ import annotations

from functools import cache

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastconv._kernels.isa import MACHINE
from fastconv._kernels.jit import compile_callback
from fastconv._kernels.simd import I64, Emitter, integers

ADD, ROW_BIAS, LANE_BIAS, RELU = 1, 2, 4, 8  # flags: C += result; bias[m] per row; bias[v] per column; max(., 0)
ARGUMENTS = 12


@cache
def register_tile(rows: int, vectors: int, itemsize: int):
    """The compiled tile of `rows` x `vectors` accumulators; `.address` is what `call_address` takes."""
    ROWS, VECTORS, ITEMSIZE, BITS = rows, vectors, itemsize, MACHINE.vector_bits

    def tile(depth, a, arow, acol, b, brow, c, crow, m, n, bias, flags):
        _emit_tile(ROWS, VECTORS, ITEMSIZE, BITS, depth, a, arow, acol, b, brow, c, crow, m, n, bias, flags)

    return compile_callback(tile, integers(ARGUMENTS))


@intrinsic(prefer_literal=True)
def _emit_tile(
    typingctx, ROWS, VECTORS, ITEMSIZE, BITS, depth, a, arow, acol, b, brow, c, crow, rows, cols, bias, flags
):  # fmt: skip
    shape = [t.literal_value for t in (ROWS, VECTORS, ITEMSIZE)]
    signature = types.void(
        ROWS, VECTORS, ITEMSIZE, BITS, depth, a, arow, acol, b, brow, c, crow, rows, cols, bias, flags
    )

    def codegen(context, builder, signature, args):
        TileEmitter(builder, *shape).emit(*args[4:])
        return context.get_dummy_value()

    return signature, codegen


class TileEmitter:
    def __init__(self, builder, rows, vectors, itemsize, pinned=False):
        self.rows, self.vectors = rows, vectors
        self.few_rows = rows < vectors
        self.pinned = pinned or self.few_rows  # see `Emitter.compute_here`; 6 x 4 and 8 x 3 are as fast without
        self.builder, self.simd = builder, Emitter(builder, itemsize)
        self.cells = [(m, v) for m in range(rows) for v in range(vectors)]

    def emit(self, depth, a, arow, acol, b, brow, c, crow, rows, cols, bias, flags):
        simd, builder = self.simd, self.builder
        a, b, c, bias = (simd.pointer(p) for p in (a, b, c, bias))
        arow, acol, brow, crow = (simd.pointer(p, I64) for p in (arow, acol, brow, crow))
        last = builder.sub(rows, I64(1))
        row = [self.minimum(I64(m), last) for m in range(self.rows)]
        a_rows = [simd.at(a, builder.load(simd.at(arow, r))) for r in row]
        width = I64(self.vectors * simd.lanes)
        with builder.if_else(builder.icmp_signed("==", cols, width)) as (full, partial):
            for branch, masks in ((full, [None] * self.vectors), (partial, None)):
                with branch:
                    if masks is None:
                        masks = [simd.first_lanes(builder.sub(cols, I64(v * simd.lanes))) for v in range(self.vectors)]

                    def place_b(offset, v):
                        return simd.at(simd.at(b, offset), v * simd.lanes)

                    def place_c(offset, v):
                        return simd.at(simd.at(c, offset), v * simd.lanes)

                    for r in (
                        row
                    ):  # results are far apart: ask for them before the loop (1.1 times as fast for strided gradients)
                        place = simd.at(c, builder.load(simd.at(crow, r)))
                        for v in range(0, self.vectors, max(64 // (simd.lanes * simd.itemsize), 1)):
                            simd.prefetch(simd.at(place, v * simd.lanes), write=True)
                    sums = self.multiply(depth, a_rows, acol, place_b, brow, masks)
                    self.add_row_bias(sums, row, bias, flags)
                    self._add_lane_bias(sums, bias, flags, masks)
                    self.store(sums, place_c, crow, rows, flags, masks)

    def multiply(self, depth, a_rows, acol, place_b, brow, masks, start=None):
        """The loop over k; returns the accumulators. LLVM turns the allocated cells into registers.

        `place_b(brow[k], v)` is where vector v of row k lies; `start` what each cell begins with, zero by default.
        """
        simd, builder = self.simd, self.builder
        cells = {cell: cgutils.alloca_once_value(builder, simd.zero()) for cell in self.cells}
        for i, cell in enumerate(self.cells):
            builder.store(simd.zero() if start is None else start[i], cells[cell])
        with cgutils.for_range(builder, depth) as loop:
            b_row = builder.load(simd.at(brow, loop.index))
            column = builder.load(simd.at(acol, loop.index))

            def scalar(m):
                return simd.broadcast(builder.load(simd.at(a_rows[m], column)))

            def vector(v):
                return simd.load(place_b(b_row, v), masks[v])

            # The operand of fewer registers is loaded first and kept, the other passes by.
            few_rows = self.few_rows
            kept = [scalar(m) for m in range(self.rows)] if few_rows else [vector(v) for v in range(self.vectors)]
            for i in range(self.vectors if few_rows else self.rows):
                simd.keep_order()
                passing = vector(i) if few_rows else scalar(i)
                for j, other in enumerate(kept):
                    cell = cells[(j, i) if few_rows else (i, j)]
                    total = simd.multiply_add(passing, other, builder.load(cell))
                    builder.store(simd.compute_here(total) if self.pinned else total, cell)
        return cells

    def _asked(self, flags, flag):
        return self.builder.icmp_signed("!=", self.builder.and_(flags, I64(flag)), I64(0))

    def add_row_bias(self, cells, row, bias, flags):
        simd, builder = self.simd, self.builder
        with builder.if_then(self._asked(flags, ROW_BIAS)):
            for m, v in self.cells:
                value = simd.broadcast(builder.load(simd.at(bias, row[m])))
                builder.store(builder.fadd(builder.load(cells[m, v]), value), cells[m, v])

    def _add_lane_bias(self, cells, bias, flags, masks):
        simd, builder = self.simd, self.builder
        with builder.if_then(self._asked(flags, LANE_BIAS)):
            values = [simd.load(simd.at(bias, v * simd.lanes), mask) for v, mask in enumerate(masks)]
            for m, v in self.cells:
                builder.store(builder.fadd(builder.load(cells[m, v]), values[v]), cells[m, v])

    def store(self, cells, place_c, crow, rows, flags, masks):
        """The valid rows, added to C if asked, ReLU if asked; `place_c(crow[m], v)` is where vector v of row m goes."""
        simd, builder = self.simd, self.builder
        for m in range(self.rows):
            with builder.if_then(builder.icmp_signed("<", I64(m), rows)):
                c_row = builder.load(simd.at(crow, I64(m)))
                places = [(cells[m, v], place_c(c_row, v), masks[v]) for v in range(self.vectors)]
                with builder.if_then(self._asked(flags, ADD)):
                    for cell, place, mask in places:
                        builder.store(builder.fadd(builder.load(cell), simd.load(place, mask)), cell)
                with builder.if_then(self._asked(flags, RELU)):
                    for cell, _, _ in places:
                        builder.store(simd.relu(builder.load(cell)), cell)
                for cell, place, mask in places:
                    simd.store(builder.load(cell), place, mask)

    def minimum(self, x, y):
        return self.builder.select(self.builder.icmp_signed("<", x, y), x, y)
