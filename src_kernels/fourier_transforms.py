"""Discrete Fourier transforms of columns, as vector code: each lane is a column of its own.

A transform of length n = r1 * r2 is made of r2 transforms of r1 numbers, a multiplication by powers of
w = exp(-2 pi i / n), and r1 transforms of r2 numbers (Cooley and Tukey 1965). With input row j + r2 * k
and u = exp(-2 pi i / r1), v = exp(-2 pi i / r2),

    X[p + r1 * q] = sum over j < r2 of v^(j q) w^(j p) sum over k < r1 of u^(k p) x[j + r2 * k]

and row p * r2 + q of the result holds frequency p + r1 * q. Products of spectra do not care about that order, so
numbers are never brought into another: `to_frequencies` leaves them in it and `from_frequencies` takes them from it.
Both have the sign -; with the planes of real and imaginary parts exchanged before and after, the sign is +, so that

    from_frequencies(exchanged(to_frequencies(x))) = n * exchanged(x)

The callbacks take addresses and offsets in elements; real and imaginary parts are separate vectors. The source is
used as scratch.
"""

from __future__ import annotations

from functools import cache
from math import cos, pi, tan

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastconv._kernels.blocks import transposed
from fastconv._kernels.isa import MACHINE
from fastconv._kernels.jit import compile_callback
from fastconv._kernels.simd import I64, Emitter, integers

# Length of a transform -> (r1, r2).
RADICES = {16: (4, 4), 32: (4, 8), 64: (8, 8), 128: (16, 8), 256: (16, 16)}


@cache
def twiddles(length: int, dtype: np.dtype) -> np.ndarray:
    """cos and sin of 2 pi j p / length for j < r2 and 1 <= p < r1: (r2, r1 - 1, 2)."""
    r1, r2 = RADICES[length]
    angle = 2 * np.pi / length * np.outer(np.arange(r2), np.arange(1, r1))
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1).astype(dtype)


@cache
def to_frequencies(length: int, itemsize: int):
    """Callback (groups, re, im, row, group, to_re, to_im, to_row, to_group, twiddles).

    Transforms `groups` groups of one vector of columns; row r of group g lies at r * row + g * group.
    """
    LENGTH, BACK, ITEMSIZE, BITS = length, 0, itemsize, MACHINE.vector_bits

    def to_spectrum(groups, re, im, row, group, to_re, to_im, to_row, to_group, table):
        _emit_columns(LENGTH, BACK, ITEMSIZE, BITS, groups, re, im, row, group, to_re, to_im, to_row, to_group, table)

    return compile_callback(to_spectrum, integers(10))


@cache
def from_frequencies(length: int, itemsize: int):
    """The same for the way back."""
    LENGTH, BACK, ITEMSIZE, BITS = length, 1, itemsize, MACHINE.vector_bits

    def from_spectrum(groups, re, im, row, group, to_re, to_im, to_row, to_group, table):
        _emit_columns(LENGTH, BACK, ITEMSIZE, BITS, groups, re, im, row, group, to_re, to_im, to_row, to_group, table)

    return compile_callback(from_spectrum, integers(10))


@cache
def finish_rows(itemsize: int):
    """Callback (out, out_stride, src, src_stride, rows, cols, bias, relu): src + the number at `bias`, perhaps >= 0."""
    ITEMSIZE, BITS = itemsize, MACHINE.vector_bits

    def finish(out, out_stride, src, src_stride, rows, cols, bias, relu):
        _emit_finish(ITEMSIZE, BITS, out, out_stride, src, src_stride, rows, cols, bias, relu)

    return compile_callback(finish, integers(8))


@cache
def transpose_whole(itemsize: int):
    """Callback (dst, dst_stride, src, src_stride, rows, cols): dst[c, r] = src[r, c], of rows x cols whole vectors.

    Without the masks of `transpose_block`, whose stores take several times as long on some processors.
    """
    ITEMSIZE, BITS = itemsize, MACHINE.vector_bits

    def transpose(dst, dst_stride, src, src_stride, rows, cols):
        _emit_transpose_whole(ITEMSIZE, BITS, dst, dst_stride, src, src_stride, rows, cols)

    return compile_callback(transpose, integers(6))


def _transform(simd: Emitter, values: list) -> list:
    """The transform of a power of two of complex numbers (re, im), in natural order.

    A number times w = exp(-i a) is cos a * (re + im tan a, im - re tan a): with the sum of the two halves, six
    multiply-adds.
    """
    builder, n = simd.builder, len(values)
    if n == 1:
        return values
    results = [None] * n
    for k, ((er, ei), (re, im)) in enumerate(
        zip(_transform(simd, values[::2]), _transform(simd, values[1::2]), strict=True)
    ):
        if 4 * k == n:
            re, im = im, builder.fneg(re)
        if k == 0 or 4 * k == n:
            results[k] = builder.fadd(er, re), builder.fadd(ei, im)
            results[k + n // 2] = builder.fsub(er, re), builder.fsub(ei, im)
            continue
        angle = 2 * pi * k / n
        ratio, factor = _constant(simd, tan(angle)), _constant(simd, cos(angle))
        u = simd.multiply_add(ratio, im, re)
        v = simd.multiply_add(builder.fneg(ratio), re, im)
        results[k] = simd.multiply_add(factor, u, er), simd.multiply_add(factor, v, ei)
        minus = _constant(simd, -cos(angle))
        results[k + n // 2] = simd.multiply_add(minus, u, er), simd.multiply_add(minus, v, ei)
    return results


def _constant(simd: Emitter, value: float):
    return simd.broadcast(simd.scalar(value))


def _turn(simd: Emitter, number, table, index):
    """A complex number times w^(j p), whose cosine and sine are numbers 2 * index and 2 * index + 1 of the table."""
    (re, im), builder = number, simd.builder
    c = simd.broadcast(builder.load(simd.at(table, index)))
    s = simd.broadcast(builder.load(simd.at(simd.at(table, index), 1)))
    back = simd.multiply_add(builder.fneg(re), s, builder.fmul(im, c))
    return simd.multiply_add(im, s, builder.fmul(re, c)), back


@intrinsic(prefer_literal=True)
def _emit_columns(
    typingctx, LENGTH, BACK, ITEMSIZE, BITS, groups, re, im, row, group, to_re, to_im, to_row, to_group, table
):
    r1, r2 = RADICES[LENGTH.literal_value]
    back, itemsize = BACK.literal_value, ITEMSIZE.literal_value

    def codegen(context, builder, signature, args):
        simd = Emitter(builder, itemsize)
        groups, re, im, row, group, to_re, to_im, to_row, to_group, table = args[4:]
        re, im, to_re, to_im, table = (simd.pointer(p) for p in (re, im, to_re, to_im, table))

        def transform(planes, first, step, count, targets, to_first, to_step, turned=None, turn_first=False):
            """`count` rows `first` + k * `step` into rows of the targets, times twiddles of row `turned`."""
            (planes, stride), (targets, to_stride) = planes, targets
            values = []
            for k in range(count):
                place = builder.mul(builder.add(first, I64(k * step)), stride)
                values.append(tuple(simd.load(simd.at(plane, place)) for plane in planes))
            if turn_first:
                values = turn(values, turned)
            values = _transform(simd, values)
            if turned is not None and not turn_first:
                values = turn(values, turned)
            for k, value in enumerate(values):
                place = builder.mul(builder.add(to_first, I64(k * to_step)), to_stride)
                for part, plane in zip(value, targets, strict=True):
                    simd.store(part, simd.at(plane, place))

        def turn(values, j):
            start = builder.mul(j, I64(2 * (r1 - 1)))
            return values[:1] + [
                _turn(simd, value, table, builder.add(start, I64(2 * p))) for p, value in enumerate(values[1:])
            ]

        with cgutils.for_range(builder, groups) as loop:
            begin, to_begin = builder.mul(loop.index, group), builder.mul(loop.index, to_group)
            source = [simd.at(re, begin), simd.at(im, begin)], row
            target = [simd.at(to_re, to_begin), simd.at(to_im, to_begin)], to_row
            if back:
                with cgutils.for_range(builder, I64(r1)) as p:
                    first = builder.mul(p.index, I64(r2))
                    transform(source, first, 1, r2, source, first, 1)
                with cgutils.for_range(builder, I64(r2)) as j:
                    transform(source, j.index, r2, r1, target, j.index, r2, j.index, True)
            else:
                with cgutils.for_range(builder, I64(r2)) as j:
                    transform(source, j.index, r2, r1, source, j.index, r2, j.index)
                with cgutils.for_range(builder, I64(r1)) as p:
                    first = builder.mul(p.index, I64(r2))
                    transform(source, first, 1, r2, target, first, 1)
        return context.get_dummy_value()

    return types.void(
        LENGTH, BACK, ITEMSIZE, BITS, groups, re, im, row, group, to_re, to_im, to_row, to_group, table
    ), codegen  # fmt: skip


@intrinsic(prefer_literal=True)
def _emit_transpose_whole(typingctx, ITEMSIZE, BITS, dst, dst_stride, src, src_stride, rows, cols):
    itemsize = ITEMSIZE.literal_value

    def codegen(context, builder, signature, args):
        simd = Emitter(builder, itemsize)
        dst, dst_stride, src, src_stride, rows, cols = args[2:]
        dst, src = simd.pointer(dst), simd.pointer(src)
        with cgutils.for_range(builder, rows) as i, cgutils.for_range(builder, cols) as j:
            row, col = builder.mul(i.index, I64(simd.lanes)), builder.mul(j.index, I64(simd.lanes))
            source = simd.at(src, builder.add(builder.mul(row, src_stride), col))
            target = simd.at(dst, builder.add(builder.mul(col, dst_stride), row))
            block = [simd.load(simd.at(source, builder.mul(I64(r), src_stride))) for r in range(simd.lanes)]
            for c, vector in enumerate(transposed(simd, block)):
                simd.store(vector, simd.at(target, builder.mul(I64(c), dst_stride)))
        return context.get_dummy_value()

    return types.void(ITEMSIZE, BITS, dst, dst_stride, src, src_stride, rows, cols), codegen


@intrinsic(prefer_literal=True)
def _emit_finish(typingctx, ITEMSIZE, BITS, out, out_stride, src, src_stride, rows, cols, bias, relu):
    itemsize = ITEMSIZE.literal_value

    def codegen(context, builder, signature, args):
        simd = Emitter(builder, itemsize)
        out, out_stride, src, src_stride, rows, cols, bias, relu = args[2:]
        out, src, bias = (simd.pointer(p) for p in (out, src, bias))
        added = simd.broadcast(builder.load(bias))
        floor = simd.floor(builder.icmp_signed("!=", relu, I64(0)))
        with cgutils.for_range(builder, rows) as row:
            to = simd.at(out, builder.mul(row.index, out_stride))
            source = simd.at(src, builder.mul(row.index, src_stride))

            def move(first, mask, to=to, source=source):
                value = builder.fadd(simd.load(simd.at(source, first), mask), added)
                simd.store(simd.raised(value, floor), simd.at(to, first), mask)

            simd.for_vectors(cols, move)
        return context.get_dummy_value()

    return types.void(ITEMSIZE, BITS, out, out_stride, src, src_stride, rows, cols, bias, relu), codegen
