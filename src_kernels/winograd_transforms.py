"""Winograd's transforms of tiles: a constant matrix on either side of a small rectangle of vectors.

Along one axis, the minimal algorithm F(m, r) computes m outputs of r taps from n = m + r - 1 inputs with n products
instead of m * r:  out = A^T [(G w) * (B^T x)]  (Winograd 1980). Along both axes it becomes

    out = A^T [(G w G^T) * (B^T x B)] A  (Lavin and Gray 2016),     the gradient of w
    dw = A^T [sum over tiles of (G dout G^T) * (B^T x B)] A,        with outputs and taps exchanged,

where each axis has its own n. The matrices are the Toom-Cook algorithm's for n - 1 points and infinity: A^T and G have
as many rows and columns as there are outputs and taps, B^T depends on n alone. Here each number of the rectangle is a
vector: of channels for inputs, of filters for weights and outputs. Written as Numba loops these would stay scalar and
cost more than the products they save.

The callbacks take addresses and offsets in elements. Tables hold the address of every number of a tile, so that a
caller sends what lies outside an image to a vector of zeros, or to scratch nobody reads. Vectors are `lanes` wide: sums
and weights are read, and tiles written, in whole vectors, whatever lies behind `width`.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from math import prod
from typing import NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastconv._kernels.isa import MACHINE
from fastconv._kernels.jit import compile_callback
from fastconv._kernels.simd import I64, Emitter, integers

# Points beside infinity, by n. Those of 6 halve the rounding error of the usual 0, 1, -1, 2, -2: F(4 x 4, 3 x 3) 2.1e-6
# instead of 4.6e-6 of the output's size over 512 channels.
POINTS = {
    1: (),
    4: (Fraction(0), Fraction(1), Fraction(-1)),
    6: (Fraction(0), Fraction(5, 7), Fraction(-5, 7), Fraction(7, 5), Fraction(-7, 5)),
}

Matrix = tuple[tuple[Fraction, ...], ...]


class Sizes(NamedTuple):
    """Numbers along either axis: of a tile (n), or of what becomes or comes from one."""

    down: int
    across: int

    @property
    def numbers(self) -> int:
        return self.down * self.across


def _polynomial(roots: Sequence[Fraction]) -> list[Fraction]:
    """Coefficients of the product of (x - root), constant first."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted, scaled = [Fraction(0), *coefficients], [*coefficients, Fraction(0)]
        coefficients = [high - root * low for high, low in zip(shifted, scaled, strict=True)]
    return coefficients


def data_matrix(n: int) -> Matrix:
    """B^T (n x n), exactly."""
    points = POINTS[n]
    rows = [[*_polynomial([q for q in points if q != p]), Fraction(0)] for p in points]
    return tuple(tuple(row) for row in [*rows, _polynomial(points)])


def factor_matrix(n: int, numbers: int) -> Matrix:
    """G (n x numbers): of taps for the outputs, of dout for the gradient of w."""
    points = POINTS[n]
    scales = [prod(p - q for q in points if q != p) for p in points]
    rows = [tuple(p**k / scale for k in range(numbers)) for p, scale in zip(points, scales, strict=True)]
    return *rows, tuple(Fraction(int(k == numbers - 1)) for k in range(numbers))


def result_matrix(n: int, numbers: int) -> Matrix:
    """A^T (numbers x n): of outputs, or of taps for the gradient of w.

    >>> [[int(v) for v in row] for row in result_matrix(4, 2)]
    [[1, 1, 1, 0], [0, 1, -1, 1]]
    """
    return tuple((*(p**i for p in POINTS[n]), Fraction(int(i == numbers - 1))) for i in range(numbers))


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


def _both_sides(builder, down: Matrix, across: Matrix, rectangle: list[list]) -> list[list]:
    """down * rectangle * across^T."""
    columns = [_combine(builder, down, [row[j] for row in rectangle]) for j in range(len(rectangle[0]))]
    return [_combine(builder, across, [column[i] for column in columns]) for i in range(len(down))]


@cache
def input_transform(tile: Sizes, itemsize: int):
    """Callback (tiles, sources, channels, out, tile_stride, position_stride): B^T x B of each tile, all channels.

    out[position * position_stride + tile * tile_stride + c], in whole vectors of channels.
    """
    ITEMSIZE, BITS, (DOWN, ACROSS) = itemsize, MACHINE.vector_bits, tile

    def input_to_tiles(tiles, sources, channels, out, tile_stride, position_stride):
        _emit_tiles(DOWN, ACROSS, 0, 0, ITEMSIZE, BITS, tiles, sources, channels, out, tile_stride, position_stride)

    return compile_callback(input_to_tiles, integers(6))


@cache
def dout_transform(tile: Sizes, dout: Sizes, itemsize: int):
    """The same for G dout G^T."""
    ITEMSIZE, BITS, (DOWN, ACROSS), (ROWS, COLS) = itemsize, MACHINE.vector_bits, tile, dout

    def dout_to_tiles(tiles, sources, channels, out, tile_stride, position_stride):
        _emit_tiles(
            DOWN, ACROSS, ROWS, COLS, ITEMSIZE, BITS, tiles, sources, channels, out, tile_stride, position_stride
        )

    return compile_callback(dout_to_tiles, integers(6))


@cache
def output_transform(tile: Sizes, outputs: Sizes, itemsize: int):
    """Callback (tiles, targets, offset, width, sums, tile_stride, position_stride, bias, relu): A^T s A of each tile.

    Stores `width` filters of each output `offset` numbers behind its address in `targets`, plus bias[f], at least 0 if
    `relu`.
    """
    ITEMSIZE, BITS, (DOWN, ACROSS), (ROWS, COLS) = itemsize, MACHINE.vector_bits, tile, outputs

    def from_tiles(tiles, targets, offset, width, sums, tile_stride, position_stride, bias, relu):
        _emit_output(
            DOWN, ACROSS, ROWS, COLS, ITEMSIZE, BITS, tiles, targets, offset, width, sums, tile_stride,
            position_stride, bias, relu,
        )  # fmt: skip

    return compile_callback(from_tiles, integers(9))


@cache
def weight_transform(tile: Sizes, taps: Sizes, itemsize: int):
    """Callback (steps, places, step, width, out, out_step, position_stride): G w G^T, computed in float64.

    The taps of depth step k begin k * step behind the addresses `places`; `width` (whole vectors of) filters of
    position p go to out[p * position_stride + k * out_step + f].
    """
    ITEMSIZE, BITS, (DOWN, ACROSS), (ROWS, COLS) = itemsize, MACHINE.vector_bits, tile, taps

    def to_positions(steps, places, step, width, out, out_step, position_stride):
        _emit_weights(
            DOWN, ACROSS, ROWS, COLS, ITEMSIZE, BITS, steps, places, step, width, out, out_step, position_stride
        )

    return compile_callback(to_positions, integers(7))


@cache
def gradient_transform(tile: Sizes, taps: Sizes, itemsize: int):
    """Callback (steps, width, sums, step, position_stride, out, out_step, row_stride, tap_stride, rows, cols).

    The gradient of w, A^T s A: tap (i, j) of channel k and filter f goes to
    out[k * out_step + i * row_stride + j * tap_stride + f] where i < rows and j < cols, and comes from
    sums[p * position_stride + k * step + f].
    """
    ITEMSIZE, BITS, (DOWN, ACROSS), (ROWS, COLS) = itemsize, MACHINE.vector_bits, tile, taps

    def from_positions(steps, width, sums, step, position_stride, out, out_step, row_stride, tap_stride, rows, cols):
        _emit_gradient(
            DOWN, ACROSS, ROWS, COLS, ITEMSIZE, BITS, steps, width, sums, step, position_stride, out, out_step,
            row_stride, tap_stride, rows, cols,
        )  # fmt: skip

    return compile_callback(from_positions, integers(11))


def _read_rectangle(simd: Emitter, tile: Sizes, place, position_stride, mask) -> list[list]:
    """Vectors of a tile, `position_stride` numbers apart."""
    rectangle: list[list] = []
    for _ in range(tile.down):
        rectangle.append([])
        for _ in range(tile.across):
            rectangle[-1].append(simd.load(place, mask))
            place = simd.at(place, position_stride)
    return rectangle


def _literals(*arguments) -> list[int]:
    return [argument.literal_value for argument in arguments]


@intrinsic(prefer_literal=True)
def _emit_tiles(
    typingctx, DOWN, ACROSS, ROWS, COLS, ITEMSIZE, BITS, tiles, sources, channels, out, tile_stride, position_stride
):
    n_down, n_across, rows, cols, itemsize = _literals(DOWN, ACROSS, ROWS, COLS, ITEMSIZE)
    down = factor_matrix(n_down, rows) if rows else data_matrix(n_down)
    across = factor_matrix(n_across, cols) if cols else data_matrix(n_across)
    source = Sizes(len(down[0]), len(across[0]))

    def codegen(context, builder, signature, args):
        tiles, sources, channels, out, tile_stride, position_stride = args[6:]
        simd = Emitter(builder, itemsize)
        out, sources = simd.pointer(out), simd.pointer(sources, I64)
        with cgutils.for_range(builder, tiles) as tile:
            table = simd.at(sources, builder.mul(tile.index, I64(source.numbers)))
            tile_out = simd.at(out, builder.mul(tile.index, tile_stride))

            def transform(first, mask, table=table, tile_out=tile_out):
                def load(p):
                    return simd.load(simd.at(simd.pointer(builder.load(simd.at(table, p))), first), mask)

                loaded = [[load(i * source.across + j) for j in range(source.across)] for i in range(source.down)]
                place = simd.at(tile_out, first)
                for row in _both_sides(builder, down, across, loaded):
                    for value in row:
                        simd.store(value, place)
                        place = simd.at(place, position_stride)

            simd.for_vectors(channels, transform)
        return context.get_dummy_value()

    return types.void(
        DOWN, ACROSS, ROWS, COLS, ITEMSIZE, BITS, tiles, sources, channels, out, tile_stride, position_stride
    ), codegen


@intrinsic(prefer_literal=True)
def _emit_output(
    typingctx, DOWN, ACROSS, ROWS, COLS, ITEMSIZE, BITS, tiles, targets, offset, width, sums, tile_stride,
    position_stride, bias, relu,
):  # fmt: skip
    n_down, n_across, rows, cols, itemsize = _literals(DOWN, ACROSS, ROWS, COLS, ITEMSIZE)
    numbers, down, across = rows * cols, result_matrix(n_down, rows), result_matrix(n_across, cols)

    def codegen(context, builder, signature, args):
        tiles, targets, offset, width, sums, tile_stride, position_stride, bias, relu = args[6:]
        simd = Emitter(builder, itemsize)
        sums, bias, targets = simd.pointer(sums), simd.pointer(bias), simd.pointer(targets, I64)
        floor = simd.floor(builder.icmp_signed("!=", relu, I64(0)))
        with cgutils.for_range(builder, tiles) as tile:
            table = simd.at(targets, builder.mul(tile.index, I64(numbers)))
            tile_sums = simd.at(sums, builder.mul(tile.index, tile_stride))
            # Pixels are far apart in memory: ask for the next tile's while this one is computed.
            following = builder.add(tile.index, I64(1))
            following = builder.select(builder.icmp_signed("<", following, tiles), following, tile.index)
            following = simd.at(targets, builder.mul(following, I64(numbers)))

            def transform(first, mask, table=table, tile_sums=tile_sums, following=following):
                column = builder.add(offset, first)
                for p in range(numbers):
                    simd.prefetch(simd.at(simd.pointer(builder.load(simd.at(following, p))), column), write=True)
                held = _read_rectangle(simd, Sizes(n_down, n_across), simd.at(tile_sums, first), position_stride, None)
                added = simd.load(simd.at(bias, first), mask)
                for i, row in enumerate(_both_sides(builder, down, across, held)):
                    for j, value in enumerate(row):
                        value = simd.raised(builder.fadd(value, added), floor)
                        to = simd.pointer(builder.load(simd.at(table, i * cols + j)))
                        simd.store(value, simd.at(to, column), mask)

            simd.for_vectors(width, transform)
        return context.get_dummy_value()

    return types.void(
        DOWN, ACROSS, ROWS, COLS, ITEMSIZE, BITS, tiles, targets, offset, width, sums, tile_stride, position_stride,
        bias, relu,
    ), codegen  # fmt: skip


@intrinsic(prefer_literal=True)
def _emit_weights(
    typingctx, DOWN, ACROSS, ROWS, COLS, ITEMSIZE, BITS, steps, places, step, width, out, out_step, position_stride
):
    n_down, n_across, rows, cols, itemsize = _literals(DOWN, ACROSS, ROWS, COLS, ITEMSIZE)
    down, across = factor_matrix(n_down, rows), factor_matrix(n_across, cols)

    def codegen(context, builder, signature, args):
        steps, places, step, width, out, out_step, position_stride = args[6:]
        simd = Emitter(builder, itemsize)
        out, places = simd.pointer(out), simd.pointer(places, I64)
        doubles = ir.VectorType(ir.DoubleType(), simd.lanes)
        starts = [simd.pointer(builder.load(simd.at(places, t))) for t in range(rows * cols)]
        with cgutils.for_range(builder, steps) as k:
            from_step, to_step = builder.mul(k.index, step), builder.mul(k.index, out_step)
            vectors = builder.sdiv(builder.add(width, I64(simd.lanes - 1)), I64(simd.lanes))
            with cgutils.for_range(builder, vectors) as vector:
                first = builder.mul(vector.index, I64(simd.lanes))
                offset = builder.add(from_step, first)
                loaded = [simd.load(simd.at(start, offset)) for start in starts]
                if itemsize == 4:
                    loaded = [builder.fpext(value, doubles) for value in loaded]
                rectangle = [loaded[i * cols : (i + 1) * cols] for i in range(rows)]
                place = simd.at(out, builder.add(to_step, first))
                for row in _both_sides(builder, down, across, rectangle):
                    for value in row:
                        simd.store(builder.fptrunc(value, simd.vector) if itemsize == 4 else value, place)
                        place = simd.at(place, position_stride)
        return context.get_dummy_value()

    return types.void(
        DOWN, ACROSS, ROWS, COLS, ITEMSIZE, BITS, steps, places, step, width, out, out_step, position_stride
    ), codegen


@intrinsic(prefer_literal=True)
def _emit_gradient(
    typingctx, DOWN, ACROSS, ROWS, COLS, ITEMSIZE, BITS, steps, width, sums, step, position_stride, out, out_step,
    row_stride, tap_stride, rows, cols,
):  # fmt: skip
    n_down, n_across, taps_down, taps_across, itemsize = _literals(DOWN, ACROSS, ROWS, COLS, ITEMSIZE)
    down, across = result_matrix(n_down, taps_down), result_matrix(n_across, taps_across)

    def codegen(context, builder, signature, args):
        steps, width, sums, step, position_stride, out, out_step, row_stride, tap_stride, rows, cols = args[6:]
        simd = Emitter(builder, itemsize)
        sums, out = simd.pointer(sums), simd.pointer(out)
        with cgutils.for_range(builder, steps) as k:
            from_step, to_step = builder.mul(k.index, step), builder.mul(k.index, out_step)

            def transform(first, mask, from_step=from_step, to_step=to_step):
                place = simd.at(sums, builder.add(from_step, first))
                held = _read_rectangle(simd, Sizes(n_down, n_across), place, position_stride, mask)
                start = simd.at(out, builder.add(to_step, first))
                for i, row in enumerate(_both_sides(builder, down, across, held)):
                    wanted = builder.icmp_signed("<", I64(i), rows)
                    for j, value in enumerate(row):
                        with builder.if_then(builder.and_(wanted, builder.icmp_signed("<", I64(j), cols))):
                            offset = builder.add(builder.mul(I64(i), row_stride), builder.mul(I64(j), tap_stride))
                            simd.store(value, simd.at(start, offset), mask)

            simd.for_vectors(width, transform)
        return context.get_dummy_value()

    return types.void(
        DOWN, ACROSS, ROWS, COLS, ITEMSIZE, BITS, steps, width, sums, step, position_stride, out, out_step,
        row_stride, tap_stride, rows, cols,
    ), codegen  # fmt: skip
