"""The register tile with its roles turned: vectors run along the sum, one accumulator per pair of rows.

    sums[m, t, lane] (+)= sum over k < steps of  A[arow[m] + acol[k] + lane] * B[brow[t] + bcol[k] + lane]

ROWS x COLS accumulators of one vector each stay in registers for the whole loop; each step loads one vector per row
of A and of B, both contiguous along the sum, and issues ROWS * COLS multiply-adds. This is the shape of the gradient
of the weights: rows of A are filters of `dout`, rows of B taps of the input, steps are vectors of output pixels. It
needs no transposed copy of either, and few filters or few taps waste no lanes.

Contract: all pointers are addresses as integers, tables are int64, in elements. The first `full` steps take whole
vectors; the other `steps - full` take the first `tail` lanes only and read nothing beyond them. `arow` and `brow` have
ROWS and COLS entries (repeat one where there are fewer rows). `sums` holds ROWS * COLS vectors, m first; it may be
uninitialised unless `add` is given.
"""

from __future__ import annotations

from functools import cache

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastconv._kernels.isa import MACHINE
from fastconv._kernels.jit import compile_callback
from fastconv._kernels.simd import I64, Emitter, integers

ARGUMENTS = 11


@cache
def dot_tile(rows: int, cols: int, itemsize: int):
    """The compiled tile of `rows` x `cols` accumulators; `.address` is what `call_address` takes."""
    ROWS, COLS, ITEMSIZE, BITS = rows, cols, itemsize, MACHINE.vector_bits

    def tile(steps, full, tail, a, arow, acol, b, brow, bcol, sums, add):
        _emit_tile(ROWS, COLS, ITEMSIZE, BITS, steps, full, tail, a, arow, acol, b, brow, bcol, sums, add)

    return compile_callback(tile, integers(ARGUMENTS))


@intrinsic(prefer_literal=True)
def _emit_tile(
    typingctx, ROWS, COLS, ITEMSIZE, BITS, steps, full, tail, a, arow, acol, b, brow, bcol, sums, add
):  # fmt: skip
    shape = [t.literal_value for t in (ROWS, COLS, ITEMSIZE)]
    signature = types.void(ROWS, COLS, ITEMSIZE, BITS, steps, full, tail, a, arow, acol, b, brow, bcol, sums, add)

    def codegen(context, builder, signature, args):
        _DotTileEmitter(builder, *shape).emit(*args[4:])
        return context.get_dummy_value()

    return signature, codegen


class _DotTileEmitter:
    def __init__(self, builder, rows, cols, itemsize):
        self.rows, self.cols = rows, cols
        self.builder, self.simd = builder, Emitter(builder, itemsize)
        self.cells = [(m, t) for m in range(rows) for t in range(cols)]

    def emit(self, steps, full, tail, a, arow, acol, b, brow, bcol, sums, add):
        simd, builder = self.simd, self.builder
        a, b, sums = (simd.pointer(p) for p in (a, b, sums))
        arow, acol, brow, bcol = (simd.pointer(p, I64) for p in (arow, acol, brow, bcol))
        a_rows = [simd.at(a, builder.load(simd.at(arow, m))) for m in range(self.rows)]
        b_rows = [simd.at(b, builder.load(simd.at(brow, t))) for t in range(self.cols)]
        places = {cell: simd.at(sums, i * simd.lanes) for i, cell in enumerate(self.cells)}
        sum_of = {cell: cgutils.alloca_once_value(builder, simd.zero()) for cell in self.cells}
        with builder.if_else(builder.icmp_signed("!=", add, I64(0))) as (more, fresh):
            with more:
                for cell in self.cells:
                    builder.store(simd.load(places[cell]), sum_of[cell])
            with fresh:
                for cell in self.cells:
                    builder.store(simd.zero(), sum_of[cell])
        for begin, end, mask in ((I64(0), full, None), (full, steps, simd.first_lanes(tail))):
            with cgutils.for_range_slice(builder, begin, end, I64(1)) as (k, _):
                self._step(a_rows, b_rows, builder.load(simd.at(acol, k)), builder.load(simd.at(bcol, k)), sum_of, mask)
        for cell in self.cells:
            simd.store(builder.load(sum_of[cell]), places[cell])

    def _step(self, a_rows, b_rows, at_a, at_b, sum_of, mask):
        """The rows of the narrower operand are loaded first and kept; each of the other serves all of them at once."""
        simd, builder = self.simd, self.builder
        turned = self.rows < self.cols
        kept, passing, at_kept, at_passing = (
            (a_rows, b_rows, at_a, at_b) if turned else (b_rows, a_rows, at_b, at_a)
        )  # fmt: skip
        vectors = [simd.load(simd.at(row, at_kept), mask) for row in kept]
        for i, row in enumerate(passing):
            vector = simd.load(simd.at(row, at_passing), mask)
            for j, other in enumerate(vectors):
                cell = sum_of[(j, i) if turned else (i, j)]
                builder.store(simd.compute_here(simd.multiply_add(vector, other, builder.load(cell))), cell)


@cache
def fold_lanes(itemsize: int):
    """Callback (dst, src, count): dst[i] = sum of the lanes of vector i of `src`, i < count."""
    ITEMSIZE, BITS = itemsize, MACHINE.vector_bits

    def fold(dst, src, count):
        _emit_fold(ITEMSIZE, BITS, dst, src, count)

    return compile_callback(fold, integers(3))


@intrinsic(prefer_literal=True)
def _emit_fold(typingctx, ITEMSIZE, BITS, dst, src, count):
    itemsize = ITEMSIZE.literal_value

    def codegen(context, builder, signature, args):
        simd = Emitter(builder, itemsize)
        dst, src = simd.pointer(args[2]), simd.pointer(args[3])
        with cgutils.for_range(builder, args[4]) as loop:
            vector = simd.load(simd.at(src, builder.mul(loop.index, I64(simd.lanes))))
            builder.store(simd.sum_of_lanes(vector), simd.at(dst, loop.index))
        return context.get_dummy_value()

    return types.void(ITEMSIZE, BITS, dst, src, count), codegen
