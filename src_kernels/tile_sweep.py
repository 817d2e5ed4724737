"""A register tile that sweeps over many places in one call: for short sums, where calls would cost as much as sums.

    C[crow[t * down + m] + ccol[t * right + v] + lane] =
        bias + sum over k < depth of  A[arow[t * down + m] + acol[k]] * B[brow[k] + bcol[t * right + v] + lane],
        t < tiles, m < ROWS, v < VECTORS

Either B moves along (vectors are pixels of a row: down = 0, right = VECTORS) or A does (rows are pixels: down = ROWS,
right = 0). Every vector has a place of its own, so they follow the rows of a plane and are stored where they belong; a
tile of one long run (`register_tile`) would go through scratch wherever rows of C are not rows of B.

`apart` promises that steps come in runs of RUN,

    acol[k + i] = acol[k] + i * apart,  brow[k + i] = brow[k] + i * VECTORS * lanes,  i < RUN,  k = 0, RUN, 2 * RUN, ...

where steps behind the last whole run are free. A step of 6 x 2 then takes 21 instead of 24 instructions, and 0.88 to
0.9 of the time where the core also serves another machine's thread. Without `follow` nothing is promised of brow.

Contract: all pointers are addresses as integers, tables are int64, in elements. Nothing is masked: rows and vectors
all exist. Callers repeat rows, and let the last vector of a row overlap the one before: the same numbers are computed
and stored twice, which within one tile is right for sums that are added to C, too (masked stores take tens of cycles
on AVX2 processors of AMD: 3x3 over 28x28 took 3 times as long).
`bias` holds one number per row, or per lane of all vectors with `lane_bias`; zeros where there is none.
Before each tile, `lines` cache lines are asked for, the tiles' one after the other from the address `soon` on: what
the caller reads next, which then arrives while tiles multiply.
"""

from __future__ import annotations

from functools import cache

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastconv._kernels.isa import LINE_BYTES, MACHINE
from fastconv._kernels.jit import compile_callback
from fastconv._kernels.register_tile import TileEmitter
from fastconv._kernels.simd import I64, integers

ARGUMENTS = 17


@cache
def tile_sweep(
    rows: int, vectors: int, itemsize: int, *, lane_bias: bool, add: bool = False, apart: int = 0, follow: bool = True
):  # fmt: skip
    """The compiled sweep of `rows` x `vectors` accumulators; `.address` is what `call_address` takes.

    With `add`, the sums are added to what C holds, so that long sums are made of blocks (smaller rounding error).
    """
    ROWS, VECTORS, ITEMSIZE, BITS, APART, FOLLOW, LANE_BIAS, ADD = (
        rows, vectors, itemsize, MACHINE.vector_bits, apart, int(follow), int(lane_bias), int(add)
    )  # fmt: skip

    def sweep(tiles, down, right, depth, a, arow, acol, b, brow, bcol, c, crow, ccol, bias, relu, soon, lines):
        _emit_sweep(
            ROWS, VECTORS, ITEMSIZE, BITS, APART, FOLLOW, LANE_BIAS, ADD, tiles, down, right, depth, a, arow, acol, b,
            brow, bcol, c, crow, ccol, bias, relu, soon, lines,
        )  # fmt: skip

    return compile_callback(sweep, integers(ARGUMENTS))


@intrinsic(prefer_literal=True)
def _emit_sweep(
    typingctx, ROWS, VECTORS, ITEMSIZE, BITS, APART, FOLLOW, LANE_BIAS, ADD, tiles, down, right, depth, a, arow, acol,
    b, brow, bcol, c, crow, ccol, bias, relu, soon, lines,
):  # fmt: skip
    shape = [t.literal_value for t in (ROWS, VECTORS, ITEMSIZE)]
    options = [APART.literal_value, *(bool(t.literal_value) for t in (FOLLOW, LANE_BIAS, ADD))]
    signature = types.void(
        ROWS, VECTORS, ITEMSIZE, BITS, APART, FOLLOW, LANE_BIAS, ADD, tiles, down, right, depth, a, arow, acol, b,
        brow, bcol, c, crow, ccol, bias, relu, soon, lines,
    )  # fmt: skip

    def codegen(context, builder, signature, args):
        _SweepEmitter(builder, *shape, pinned=True).emit(*options, *args[8:])
        return context.get_dummy_value()

    return signature, codegen


class _SweepEmitter(TileEmitter):
    def emit(
        self, apart, follow, lane_bias, add, tiles, down, right, depth, a, arow, acol, b, brow, bcol, c, crow, ccol,
        bias, relu, soon, lines,
    ):  # fmt: skip
        simd, builder = self.simd, self.builder
        a, b, c, bias = (simd.pointer(p) for p in (a, b, c, bias))
        arow, acol, brow, bcol, crow, ccol = (simd.pointer(p, I64) for p in (arow, acol, brow, bcol, crow, ccol))
        floor = simd.floor(builder.icmp_signed("!=", relu, I64(0)))
        rows, vectors = range(self.rows), range(self.vectors)
        line_bytes = I64(LINE_BYTES)
        tile_bytes = builder.mul(lines, line_bytes)
        with cgutils.for_range(builder, tiles) as tile:
            ahead = builder.add(soon, builder.mul(tile.index, tile_bytes))
            with cgutils.for_range(builder, lines) as line:
                simd.prefetch(simd.pointer(builder.add(ahead, builder.mul(line.index, line_bytes))))
            first_row, first_vector = builder.mul(tile.index, down), builder.mul(tile.index, right)

            def entry(table, first, i):
                return builder.load(simd.at(table, builder.add(first, I64(i))))

            a_rows = [simd.at(a, entry(arow, first_row, m)) for m in rows]
            b_vectors = [simd.at(b, entry(bcol, first_vector, v)) for v in vectors]
            c_vectors = [entry(ccol, first_vector, v) for v in vectors]
            if lane_bias:
                lanes = [simd.load(simd.at(bias, v * simd.lanes)) for v in vectors]
                start = [lanes[v] for _, v in self.cells]
            else:
                numbers = [simd.broadcast(builder.load(simd.at(bias, m))) for m in rows]
                start = [numbers[m] for m, _ in self.cells]
            for m in rows:  # results are far apart: ask for them before the loop
                c_row = simd.at(c, entry(crow, first_row, m))
                for v in vectors:
                    simd.prefetch(simd.at(c_row, c_vectors[v]), write=True)
            sums = self.multiply(
                depth, a_rows, acol, lambda offset, v: simd.at(b_vectors[v], offset), brow, [None] * self.vectors,
                start, apart, follow,
            )  # fmt: skip
            if add:  # before any result is stored: repeated rows have one place
                for m in rows:
                    c_row = simd.at(c, entry(crow, first_row, m))
                    for v in vectors:
                        held = simd.load(simd.at(c_row, c_vectors[v]))
                        builder.store(builder.fadd(builder.load(sums[m, v]), held), sums[m, v])
            for m in rows:
                c_row = simd.at(c, entry(crow, first_row, m))
                for v in vectors:
                    simd.store(simd.raised(builder.load(sums[m, v]), floor), simd.at(c_row, c_vectors[v]))
