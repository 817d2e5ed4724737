"""Sums of products of spectra, as vector code: a matrix product of complex numbers at each vector of frequencies.

The callback takes addresses and offsets in elements, and reads and writes whole vectors only.
"""

from __future__ import annotations

from functools import cache

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastconv._kernels.isa import MACHINE
from fastconv._kernels.jit import compile_callback
from fastconv._kernels.simd import I64, Emitter, integers


def spectral_tile() -> tuple[int, int]:
    """Rows and columns of sums that the registers hold, two vectors each, beside a column of A and a number of B."""
    return (3, 3) if MACHINE.vector_bits == 512 or MACHINE.name == "NEON" else (2, 2)


@cache
def spectral_products(rows: int, cols: int, itemsize: int):
    """Callback (positions, depth, a, a_row, a_step, a_position, b, b_row, b_step, b_position, c, c_row, c_col,
    c_position, m, n): C[m, n] = sum over depth of A[m] * B[n], complex, at each vector of frequencies.

    A number is a vector of real parts followed by one of imaginary parts. Of the `rows` x `cols` sums, which stay in
    registers, m x n are stored; the others repeat the last one.
    """
    ROWS, COLS, ITEMSIZE, BITS = rows, cols, itemsize, MACHINE.vector_bits

    def multiply(
        positions, depth, a, a_row, a_step, a_position, b, b_row, b_step, b_position, c, c_row, c_col, c_position, m, n
    ):
        _emit_products(
            ROWS, COLS, ITEMSIZE, BITS, positions, depth, a, a_row, a_step, a_position, b, b_row, b_step, b_position,
            c, c_row, c_col, c_position, m, n,
        )  # fmt: skip

    return compile_callback(multiply, integers(16))


@intrinsic(prefer_literal=True)
def _emit_products(
    typingctx, ROWS, COLS, ITEMSIZE, BITS, positions, depth, a, a_row, a_step, a_position, b, b_row, b_step,
    b_position, c, c_row, c_col, c_position, m, n,
):  # fmt: skip
    rows, cols, itemsize = (t.literal_value for t in (ROWS, COLS, ITEMSIZE))

    def codegen(context, builder, signature, args):
        simd = Emitter(builder, itemsize)
        (positions, depth, a, a_row, a_step, a_position, b, b_row, b_step, b_position, c, c_row, c_col, c_position,
         m, n) = args[4:]  # fmt: skip
        a, b, c = (simd.pointer(p) for p in (a, b, c))

        def starts(base, position, step, row, count, limit):
            """Pointers to `count` rows at a position; those beyond the limit repeat the last one."""
            base, last = simd.at(base, builder.mul(position, step)), builder.sub(limit, I64(1))
            for i in range(count):
                i = builder.select(builder.icmp_signed("<", I64(i), last), I64(i), last)
                yield simd.at(base, builder.mul(i, row))

        def number(pointer):
            return simd.load(pointer), simd.load(simd.at(pointer, simd.lanes))

        cells = [(i, j, part) for i in range(rows) for j in range(cols) for part in range(2)]
        sums = {cell: cgutils.alloca_once(builder, simd.vector) for cell in cells}
        with cgutils.for_range(builder, positions) as position:
            a_rows = list(starts(a, position.index, a_position, a_row, rows, m))
            b_rows = list(starts(b, position.index, b_position, b_row, cols, n))
            for cell in cells:
                builder.store(simd.zero(), sums[cell])
            with cgutils.for_range(builder, depth) as k:
                a_place, b_place = builder.mul(k.index, a_step), builder.mul(k.index, b_step)
                kept = [number(simd.at(pointer, a_place)) for pointer in a_rows]
                for j in range(cols):
                    br, bi = number(simd.at(b_rows[j], b_place))
                    # Sums wait for their previous step four cycles: no two steps of the same one in a row.
                    for part, factors in enumerate(((br, bi), (builder.fneg(bi), br))):
                        for i, a_number in enumerate(kept):
                            for cell, factor in zip((sums[i, j, 0], sums[i, j, 1]), factors, strict=True):
                                builder.store(simd.multiply_add(a_number[part], factor, builder.load(cell)), cell)
            place = simd.at(c, builder.mul(position.index, c_position))
            for i, j, part in cells:
                stored = builder.and_(builder.icmp_signed("<", I64(i), m), builder.icmp_signed("<", I64(j), n))
                with builder.if_then(stored):
                    offset = builder.add(builder.mul(I64(i), c_row), builder.mul(I64(j), c_col))
                    to = simd.at(simd.at(place, offset), part * simd.lanes)
                    simd.store(builder.load(sums[i, j, part]), to)
        return context.get_dummy_value()

    return types.void(
        ROWS, COLS, ITEMSIZE, BITS, positions, depth, a, a_row, a_step, a_position, b, b_row, b_step, b_position, c,
        c_row, c_col, c_position, m, n,
    ), codegen  # fmt: skip
