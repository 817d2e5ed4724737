"""The register tile whose vectors lie anywhere: each has a place of its own in B and in C, and a width.

    C[crow[m] + ccol[v] + lane] (+)= sum over k < depth of  A[arow[m] + acol[k]] * B[brow[k] + bcol[v] + lane]

Vectors that follow the rows of a plane, ending with each row, compute nothing in vain and are stored where they
belong; a tile of one long run (`register_tile`) would go through scratch wherever rows of C are not rows of B.

Contract: as for `register_tile`, with tables `bcol`, `ccol` and `width` of one entry per vector (width: lanes of it
that exist; 0 neither reads nor writes). `whole` says that all of them are full. LANE_BIAS is not known here.
"""

from __future__ import annotations

from functools import cache

from numba import types
from numba.extending import intrinsic

from fastconv._kernels.isa import MACHINE
from fastconv._kernels.jit import compile_callback
from fastconv._kernels.register_tile import TileEmitter
from fastconv._kernels.simd import I64, integers

ARGUMENTS = 15


@cache
def row_tile(rows: int, vectors: int, itemsize: int):
    """The compiled tile of `rows` x `vectors` accumulators; `.address` is what `call_address` takes."""
    ROWS, VECTORS, ITEMSIZE, BITS = rows, vectors, itemsize, MACHINE.vector_bits

    def tile(depth, a, arow, acol, b, brow, bcol, c, crow, ccol, width, m, whole, bias, flags):
        _emit_tile(
            ROWS, VECTORS, ITEMSIZE, BITS, depth, a, arow, acol, b, brow, bcol, c, crow, ccol, width, m, whole, bias,
            flags,
        )  # fmt: skip

    return compile_callback(tile, integers(ARGUMENTS))


@intrinsic(prefer_literal=True)
def _emit_tile(
    typingctx, ROWS, VECTORS, ITEMSIZE, BITS, depth, a, arow, acol, b, brow, bcol, c, crow, ccol, width, rows, whole,
    bias, flags,
):  # fmt: skip
    shape = [t.literal_value for t in (ROWS, VECTORS, ITEMSIZE)]
    signature = types.void(
        ROWS, VECTORS, ITEMSIZE, BITS, depth, a, arow, acol, b, brow, bcol, c, crow, ccol, width, rows, whole, bias,
        flags,
    )  # fmt: skip

    def codegen(context, builder, signature, args):
        _RowTileEmitter(builder, *shape, pinned=True).emit(*args[4:])
        return context.get_dummy_value()

    return signature, codegen


class _RowTileEmitter(TileEmitter):
    def emit(self, depth, a, arow, acol, b, brow, bcol, c, crow, ccol, width, rows, whole, bias, flags):
        simd, builder = self.simd, self.builder
        a, b, c, bias = (simd.pointer(p) for p in (a, b, c, bias))
        arow, acol, brow, bcol, crow, ccol, width = (
            simd.pointer(p, I64) for p in (arow, acol, brow, bcol, crow, ccol, width)
        )
        last = builder.sub(rows, I64(1))
        row = [self.minimum(I64(m), last) for m in range(self.rows)]
        a_rows = [simd.at(a, builder.load(simd.at(arow, r))) for r in row]
        b_vectors = [simd.at(b, builder.load(simd.at(bcol, v))) for v in range(self.vectors)]
        c_vectors = [simd.at(c, builder.load(simd.at(ccol, v))) for v in range(self.vectors)]
        with builder.if_else(builder.icmp_signed("!=", whole, I64(0))) as (full, partial):
            for branch, masks in ((full, [None] * self.vectors), (partial, None)):
                with branch:
                    if masks is None:
                        masks = [simd.first_lanes(builder.load(simd.at(width, v))) for v in range(self.vectors)]

                    def place_b(offset, v):
                        return simd.at(b_vectors[v], offset)

                    def place_c(offset, v):
                        return simd.at(c_vectors[v], offset)

                    sums = self.multiply(depth, a_rows, acol, place_b, brow, masks)
                    self.add_row_bias(sums, row, bias, flags)
                    self.store(sums, place_c, crow, rows, flags, masks)
