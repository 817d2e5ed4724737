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
RUN = 4  # steps of a sum whose places are looked up together


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
        vectors = builder.sdiv(builder.add(cols, I64(simd.lanes - 1)), I64(simd.lanes))
        last_lanes = builder.sub(cols, builder.mul(builder.sub(vectors, I64(1)), I64(simd.lanes)))
        whole = builder.icmp_signed("==", cols, I64(self.vectors * simd.lanes))
        places = row, a_rows, acol, b, brow, c, crow, rows, bias, flags
        with builder.if_else(whole) as (full, partial):
            with full:
                self._emit_columns(self.vectors, None, depth, *places)
            with partial:
                for used in range(1, self.vectors + 1):  # those that hold columns; the last one is masked
                    with builder.if_then(builder.icmp_signed("==", vectors, I64(used))):
                        self._emit_columns(used, last_lanes, depth, *places)

    def _emit_columns(self, vectors, last_lanes, depth, row, a_rows, acol, b, brow, c, crow, rows, bias, flags):
        """The tile of `vectors` vectors: all whole, or the last one of `last_lanes`."""
        simd, builder = self.simd, self.builder
        masks = [None] * vectors
        if last_lanes is not None:
            masks[-1] = simd.first_lanes(last_lanes)

        def place_b(offset, v):
            return simd.at(simd.at(b, offset), v * simd.lanes)

        # Results are far apart: ask for them before the loop (1.1 times as fast for strided gradients).
        for r in row:
            place = simd.at(c, builder.load(simd.at(crow, r)))
            for v in range(0, vectors, max(64 // (simd.lanes * simd.itemsize), 1)):
                simd.prefetch(simd.at(place, v * simd.lanes), write=True)
        sums = self.multiply(depth, a_rows, acol, place_b, brow, masks)
        self._add_bias(sums, row, bias, flags, masks)
        for m in range(self.rows):
            with builder.if_then(builder.icmp_signed("<", I64(m), rows)):
                c_row = simd.at(c, builder.load(simd.at(crow, m)))
                self._store_row([sums[m, v] for v in range(vectors)], c_row, flags, masks, last_lanes)

    def multiply(self, depth, a_rows, acol, place_b, brow, masks, start=None, apart=0, follow=True):
        """The loop over k; returns the accumulators (m, v). LLVM turns the allocated cells into registers.

        `place_b(brow[k], v)` is where vector v of row k lies, of as many vectors as there are masks; `start` what each
        cell begins with, zero by default. With `apart`, the steps of A in a run of RUN are so many numbers apart, and
        only the first is looked up; so are the rows of B if they `follow` each other, a tile's width each.
        """
        simd, builder = self.simd, self.builder
        vectors, rows = range(len(masks)), range(self.rows)
        cells = {(m, v): cgutils.alloca_once_value(builder, simd.zero()) for m in rows for v in vectors}
        for i, cell in enumerate(cells.values()):
            builder.store(simd.zero() if start is None else start[i], cell)

        def add_step(column, b_row, step):
            def scalar(m):
                return simd.broadcast(builder.load(simd.at(simd.at(a_rows[m], column), step * apart)))

            def vector(v):
                width = self.vectors * simd.lanes if follow else 0
                return simd.load(simd.at(place_b(b_row, v), step * width), masks[v])

            # The operand of fewer registers is loaded first and kept, the other passes by.
            few_rows = self.few_rows
            kept = [scalar(m) for m in rows] if few_rows else [vector(v) for v in vectors]
            for i in vectors if few_rows else rows:
                simd.keep_order()
                passing = vector(i) if few_rows else scalar(i)
                for j, other in enumerate(kept):
                    cell = cells[(j, i) if few_rows else (i, j)]
                    total = simd.multiply_add(passing, other, builder.load(cell))
                    builder.store(simd.compute_here(total) if self.pinned else total, cell)

        def places(k):
            return builder.load(simd.at(acol, k)), builder.load(simd.at(brow, k))

        in_runs = I64(0)
        if apart:
            in_runs = builder.sub(depth, builder.srem(depth, I64(RUN)))
            with cgutils.for_range_slice(builder, I64(0), in_runs, I64(RUN)) as (k, _):
                column, b_row = places(k)
                for step in range(RUN):
                    if step and not follow:
                        b_row = builder.load(simd.at(brow, builder.add(k, I64(step))))
                    add_step(column, b_row, step)
        with cgutils.for_range_slice(builder, in_runs, depth, I64(1)) as (k, _):
            add_step(*places(k), 0)
        return cells

    def _asked(self, flags, flag):
        return self.builder.icmp_signed("!=", self.builder.and_(flags, I64(flag)), I64(0))

    def _add_bias(self, sums, row, bias, flags, masks):
        simd, builder = self.simd, self.builder
        with builder.if_then(self._asked(flags, ROW_BIAS)):
            for (m, _), cell in sums.items():
                value = simd.broadcast(builder.load(simd.at(bias, row[m])))
                builder.store(builder.fadd(builder.load(cell), value), cell)
        with builder.if_then(self._asked(flags, LANE_BIAS)):
            values = [simd.load(simd.at(bias, v * simd.lanes), mask) for v, mask in enumerate(masks)]
            for (_, v), cell in sums.items():
                builder.store(builder.fadd(builder.load(cell), values[v]), cell)

    def _store_row(self, cells, c_row, flags, masks, last_lanes):
        """A row of the tile: added to C if asked, ReLU if asked."""
        simd, builder = self.simd, self.builder
        places = [simd.at(c_row, v * simd.lanes) for v in range(len(cells))]
        with builder.if_then(self._asked(flags, ADD)):
            for cell, place, mask in zip(cells, places, masks, strict=True):
                builder.store(builder.fadd(builder.load(cell), simd.load(place, mask)), cell)
        with builder.if_then(self._asked(flags, RELU)):
            for cell in cells:
                builder.store(simd.relu(builder.load(cell)), cell)
        for cell, place, mask in zip(cells, places, masks, strict=True):
            if mask is None:
                simd.store(builder.load(cell), place)
            else:
                simd.store_first(builder.load(cell), place, last_lanes)

    def minimum(self, x, y):
        return self.builder.select(self.builder.icmp_signed("<", x, y), x, y)
