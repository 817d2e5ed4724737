"""Winograd's transforms of tiles: a constant matrix on either side of a small square of vectors.

The minimal algorithm F(m x m, 3 x 3) computes m x m outputs from n x n inputs, n = m + 2, with n * n products
instead of 9 * m * m:  out = A^T [(G w G^T) * (B^T x B)] A  (Winograd 1980; Lavin and Gray 2016). The gradient of w is
F(3 x 3, m x m), the same with outputs and taps exchanged:  dw = A^T [sum over tiles of (G dout G^T) * (B^T x B)] A.
The matrices are the Toom-Cook algorithm's for a set of points and infinity. Here each number of the square is a
vector: of channels for inputs, of filters for weights and outputs. Written as Numba loops these would stay scalar and
cost more than the products they save.

The callbacks take addresses and offsets in elements. Tables hold the address of every number of a tile, n * n (or
m * m) per tile, so that a caller sends what lies outside an image to a vector of zeros, or to scratch nobody reads.
Vectors are `lanes` wide: sums and weights are read, and tiles written, in whole vectors, whatever lies behind `width`.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from math import prod

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastconv._kernels.isa import MACHINE
from fastconv._kernels.jit import compile_callback
from fastconv._kernels.simd import I64, Emitter, integers

TAPS = 3
# Points beside infinity. Those of F(4 x 4) halve the rounding error of the usual 0, 1, -1, 2, -2 (2.1e-6 instead of
# 4.6e-6 of the output's size over 512 channels).
POINTS = {
    2: (Fraction(0), Fraction(1), Fraction(-1)),
    4: (Fraction(0), Fraction(5, 7), Fraction(-5, 7), Fraction(7, 5), Fraction(-7, 5)),
}

Matrix = tuple[tuple[Fraction, ...], ...]


def _polynomial(roots: list[Fraction]) -> list[Fraction]:
    """Coefficients of the product of (x - root), constant first."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted, scaled = [Fraction(0), *coefficients], [*coefficients, Fraction(0)]
        coefficients = [high - root * low for high, low in zip(shifted, scaled, strict=True)]
    return coefficients


@cache
def matrices(m: int, outputs: int, taps: int) -> tuple[Matrix, Matrix, Matrix]:
    """A^T (outputs x n), G (n x taps) and B^T (n x n) for n = outputs + taps - 1 = m + 2, exactly.

    >>> [[int(v) for v in row] for row in matrices(2, 2, 3)[0]]
    [[1, 1, 1, 0], [0, 1, -1, 1]]
    """
    points = POINTS[m]
    assert len(points) + 1 == outputs + taps - 1
    others = [[q for q in points if q != p] for p in points]
    output = [[p**i for p in points] + [Fraction(int(i == outputs - 1))] for i in range(outputs)]
    weight = [[p**k / prod(p - q for q in rest) for k in range(taps)] for p, rest in zip(points, others, strict=True)]
    weight.append([Fraction(int(k == taps - 1)) for k in range(taps)])
    data = [[*_polynomial(rest), Fraction(0)] for rest in others] + [_polynomial(list(points))]
    return tuple(tuple(tuple(row) for row in matrix) for matrix in (output, weight, data))  # type: ignore[return-value]


def _sum(builder, terms):
    """Sum of coefficient * vector over a list, at least one; the coefficients are constants."""
    terms = sorted(terms, key=lambda term: term[0] != 1)  # start from a vector that needs no multiplication
    total = None
    for coefficient, vector in terms:
        if abs(coefficient) != 1:
            constant = ir.Constant(vector.type, [float(abs(coefficient))] * vector.type.count)
            vector = builder.fmul(constant, vector, flags=("contract",))
        if total is None:
            total = vector if coefficient > 0 else builder.fneg(vector)
        elif coefficient > 0:
            total = builder.fadd(total, vector, flags=("contract",))
        else:
            total = builder.fsub(total, vector, flags=("contract",))
    return total


def _combine(builder, matrix: Matrix, vectors: list) -> list:
    """matrix * vectors. Neighbouring rows that differ only in signs share their even and odd parts."""
    results, i = [], 0
    while i < len(matrix):
        row = matrix[i]
        pair = matrix[i + 1] if i + 1 < len(matrix) else row
        if pair != row and all(abs(a) == abs(b) for a, b in zip(row, pair, strict=True)):
            even = _sum(builder, [(a, v) for a, b, v in zip(row, pair, vectors, strict=True) if a and a == b])
            odd = _sum(builder, [(a, v) for a, b, v in zip(row, pair, vectors, strict=True) if a and a != b])
            results += [builder.fadd(even, odd), builder.fsub(even, odd)]
            i += 2
        else:
            results.append(_sum(builder, [(a, v) for a, v in zip(row, vectors, strict=True) if a]))
            i += 1
    return results


def _both_sides(builder, matrix: Matrix, square: list[list]) -> list[list]:
    """matrix * square * matrix^T."""
    columns = [_combine(builder, matrix, [row[j] for row in square]) for j in range(len(square[0]))]
    return [_combine(builder, matrix, [column[i] for column in columns]) for i in range(len(matrix))]


@cache
def input_transform(m: int, itemsize: int):
    """Callback (tiles, sources, channels, out, tile_stride, position_stride): B^T x B of each tile, all channels.

    out[position * position_stride + tile * tile_stride + c]; `tile_stride` is `channels` rounded up to whole vectors.
    """
    M, DOUT, ITEMSIZE, BITS = m, 0, itemsize, MACHINE.vector_bits

    def input_to_tiles(tiles, sources, channels, out, tile_stride, position_stride):
        _emit_tiles(M, DOUT, ITEMSIZE, BITS, tiles, sources, channels, out, tile_stride, position_stride)

    return compile_callback(input_to_tiles, integers(6))


@cache
def dout_transform(m: int, itemsize: int):
    """The same for G dout G^T: tiles of m x m numbers become n x n."""
    M, DOUT, ITEMSIZE, BITS = m, 1, itemsize, MACHINE.vector_bits

    def dout_to_tiles(tiles, sources, channels, out, tile_stride, position_stride):
        _emit_tiles(M, DOUT, ITEMSIZE, BITS, tiles, sources, channels, out, tile_stride, position_stride)

    return compile_callback(dout_to_tiles, integers(6))


@cache
def output_transform(m: int, itemsize: int):
    """Callback (tiles, targets, offset, width, sums, tile_stride, position_stride, bias, relu): A^T s A of each tile.

    Stores `width` filters of each of m * m pixels `offset` numbers behind its address in `targets`, plus bias[f], at
    least 0 if `relu`.
    """
    M, ITEMSIZE, BITS = m, itemsize, MACHINE.vector_bits

    def from_tiles(tiles, targets, offset, width, sums, tile_stride, position_stride, bias, relu):
        _emit_output(M, ITEMSIZE, BITS, tiles, targets, offset, width, sums, tile_stride, position_stride, bias, relu)

    return compile_callback(from_tiles, integers(9))


@cache
def weight_transform(m: int, itemsize: int):
    """Callback (steps, taps, step, width, out, out_step, position_stride): G w G^T, computed in float64.

    The nine numbers of depth step k begin at the nine addresses `taps` + k * step; `width` (whole vectors of) filters
    of position p go to out[p * position_stride + k * out_step + f].
    """
    M, ITEMSIZE, BITS = m, itemsize, MACHINE.vector_bits

    def to_positions(steps, taps, step, width, out, out_step, position_stride):
        _emit_weights(M, ITEMSIZE, BITS, steps, taps, step, width, out, out_step, position_stride)

    return compile_callback(to_positions, integers(7))


@cache
def gradient_transform(m: int, itemsize: int):
    """Callback (steps, width, sums, step, position_stride, out, out_step, tap_stride): dw = A^T s A.

    Channel k of filter f: out[k * out_step + tap * tap_stride + f] from sums[p * position_stride + k * step + f].
    """
    M, ITEMSIZE, BITS = m, itemsize, MACHINE.vector_bits

    def from_positions(steps, width, sums, step, position_stride, out, out_step, tap_stride):
        _emit_gradient(M, ITEMSIZE, BITS, steps, width, sums, step, position_stride, out, out_step, tap_stride)

    return compile_callback(from_positions, integers(8))


def _read_square(simd: Emitter, n: int, place, position_stride, mask) -> list[list]:
    """n x n vectors, `position_stride` numbers apart."""
    square: list[list] = []
    for _ in range(n):
        square.append([])
        for _ in range(n):
            square[-1].append(simd.load(place, mask))
            place = simd.at(place, position_stride)
    return square


@intrinsic(prefer_literal=True)
def _emit_tiles(typingctx, M, DOUT, ITEMSIZE, BITS, tiles, sources, channels, out, tile_stride, position_stride):
    m, itemsize = M.literal_value, ITEMSIZE.literal_value
    matrix = matrices(m, TAPS, m)[1] if DOUT.literal_value else matrices(m, m, TAPS)[2]
    size = len(matrix[0])

    def codegen(context, builder, signature, args):
        tiles, sources, channels, out, tile_stride, position_stride = args[4:]
        simd = Emitter(builder, itemsize)
        out, sources = simd.pointer(out), simd.pointer(sources, I64)
        with cgutils.for_range(builder, tiles) as tile:
            table = simd.at(sources, builder.mul(tile.index, I64(size * size)))
            tile_out = simd.at(out, builder.mul(tile.index, tile_stride))

            def transform(first, mask, table=table, tile_out=tile_out):
                def load(p):
                    return simd.load(simd.at(simd.pointer(builder.load(simd.at(table, p))), first), mask)

                square = [[load(i * size + j) for j in range(size)] for i in range(size)]
                place = simd.at(tile_out, first)
                for row in _both_sides(builder, matrix, square):
                    for value in row:
                        simd.store(value, place)
                        place = simd.at(place, position_stride)

            simd.for_vectors(channels, transform)
        return context.get_dummy_value()

    return types.void(M, DOUT, ITEMSIZE, BITS, tiles, sources, channels, out, tile_stride, position_stride), codegen


@intrinsic(prefer_literal=True)
def _emit_output(
    typingctx, M, ITEMSIZE, BITS, tiles, targets, offset, width, sums, tile_stride, position_stride, bias, relu
):
    m, itemsize = M.literal_value, ITEMSIZE.literal_value
    n, matrix = m + TAPS - 1, matrices(m, m, TAPS)[0]

    def codegen(context, builder, signature, args):
        tiles, targets, offset, width, sums, tile_stride, position_stride, bias, relu = args[3:]
        simd = Emitter(builder, itemsize)
        sums, bias, targets = simd.pointer(sums), simd.pointer(bias), simd.pointer(targets, I64)
        floor = simd.floor(builder.icmp_signed("!=", relu, I64(0)))
        with cgutils.for_range(builder, tiles) as tile:
            table = simd.at(targets, builder.mul(tile.index, I64(m * m)))
            tile_sums = simd.at(sums, builder.mul(tile.index, tile_stride))
            # Pixels are far apart in memory: ask for the next tile's while this one is computed.
            following = builder.add(tile.index, I64(1))
            following = builder.select(builder.icmp_signed("<", following, tiles), following, tile.index)
            following = simd.at(targets, builder.mul(following, I64(m * m)))

            def transform(first, mask, table=table, tile_sums=tile_sums, following=following):
                column = builder.add(offset, first)
                for p in range(m * m):
                    simd.prefetch(simd.at(simd.pointer(builder.load(simd.at(following, p))), column), write=True)
                square = _read_square(simd, n, simd.at(tile_sums, first), position_stride, None)
                added = simd.load(simd.at(bias, first), mask)
                for i, row in enumerate(_both_sides(builder, matrix, square)):
                    for j, value in enumerate(row):
                        value = simd.raised(builder.fadd(value, added), floor)
                        to = simd.pointer(builder.load(simd.at(table, i * m + j)))
                        simd.store(value, simd.at(to, column), mask)

            simd.for_vectors(width, transform)
        return context.get_dummy_value()

    return types.void(
        M, ITEMSIZE, BITS, tiles, targets, offset, width, sums, tile_stride, position_stride, bias, relu
    ), codegen  # fmt: skip


@intrinsic(prefer_literal=True)
def _emit_weights(typingctx, M, ITEMSIZE, BITS, steps, taps, step, width, out, out_step, position_stride):
    m, itemsize = M.literal_value, ITEMSIZE.literal_value
    matrix = matrices(m, m, TAPS)[1]

    def codegen(context, builder, signature, args):
        steps, taps, step, width, out, out_step, position_stride = args[3:]
        simd = Emitter(builder, itemsize)
        out, taps = simd.pointer(out), simd.pointer(taps, I64)
        doubles = ir.VectorType(ir.DoubleType(), simd.lanes)
        starts = [simd.pointer(builder.load(simd.at(taps, t))) for t in range(TAPS * TAPS)]
        with cgutils.for_range(builder, steps) as k:
            from_step, to_step = builder.mul(k.index, step), builder.mul(k.index, out_step)
            vectors = builder.sdiv(builder.add(width, I64(simd.lanes - 1)), I64(simd.lanes))
            with cgutils.for_range(builder, vectors) as vector:
                first = builder.mul(vector.index, I64(simd.lanes))
                offset = builder.add(from_step, first)
                loaded = [simd.load(simd.at(start, offset)) for start in starts]
                if itemsize == 4:
                    loaded = [builder.fpext(value, doubles) for value in loaded]
                square = [loaded[i * TAPS : (i + 1) * TAPS] for i in range(TAPS)]
                place = simd.at(out, builder.add(to_step, first))
                for row in _both_sides(builder, matrix, square):
                    for value in row:
                        simd.store(builder.fptrunc(value, simd.vector) if itemsize == 4 else value, place)
                        place = simd.at(place, position_stride)
        return context.get_dummy_value()

    return types.void(M, ITEMSIZE, BITS, steps, taps, step, width, out, out_step, position_stride), codegen


@intrinsic(prefer_literal=True)
def _emit_gradient(typingctx, M, ITEMSIZE, BITS, steps, width, sums, step, position_stride, out, out_step, tap_stride):
    m, itemsize = M.literal_value, ITEMSIZE.literal_value
    n, matrix = m + TAPS - 1, matrices(m, TAPS, m)[0]

    def codegen(context, builder, signature, args):
        steps, width, sums, step, position_stride, out, out_step, tap_stride = args[3:]
        simd = Emitter(builder, itemsize)
        sums, out = simd.pointer(sums), simd.pointer(out)
        with cgutils.for_range(builder, steps) as k:
            from_step, to_step = builder.mul(k.index, step), builder.mul(k.index, out_step)

            def transform(first, mask, from_step=from_step, to_step=to_step):
                square = _read_square(simd, n, simd.at(sums, builder.add(from_step, first)), position_stride, mask)
                place = simd.at(out, builder.add(to_step, first))
                for row in _both_sides(builder, matrix, square):
                    for value in row:
                        simd.store(value, place, mask)
                        place = simd.at(place, tap_stride)

            simd.for_vectors(width, transform)
        return context.get_dummy_value()

    return types.void(M, ITEMSIZE, BITS, steps, width, sums, step, position_stride, out, out_step, tap_stride), codegen
