"""Sums down the columns of rows (R, C), channel by channel, with the sums in registers.

    TOTALS      first[c] = sum of x[r, c]
    DEVIATIONS  first[c] = sum of x[r, c] - center[c],  second[c] = sum of (x[r, c] - center[c])^2
    DOTS        first[c] = sum of y[r, c],              second[c] = sum of y[r, c] * (x[r, c] - center[c])
    RECTIFIED   as DOTS, without the terms where (x[r, c] - center[c]) * center[C + c] + center[2 C + c] <= 0

As a loop over rows of loops over channels every sum would go through memory: statistics of 8x56x56x64 took 3 times as
long. Arrays are contiguous; first and second may be uninitialised; nothing outside C columns is read or written.
"""

from __future__ import annotations

from functools import cache

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastconv._kernels.isa import MACHINE
from fastconv._kernels.jit import compile_callback
from fastconv._kernels.simd import I64, Emitter, integers

TOTALS, DEVIATIONS, DOTS, RECTIFIED = range(4)
# Vectors of a block: with two sums each, four hide the latency of additions. RECTIFIED has three constants of each too.
VECTORS = {TOTALS: 4, DEVIATIONS: 4, DOTS: 4, RECTIFIED: 2}


@cache
def channel_sums(kind: int, itemsize: int):
    """Callback (x, y, rows, channels, center, first, second) of addresses and sizes."""
    KIND, ITEMSIZE, BITS = kind, itemsize, MACHINE.vector_bits

    def sums(x, y, rows, channels, center, first, second):
        _emit_sums(KIND, ITEMSIZE, BITS, x, y, rows, channels, center, first, second)

    return compile_callback(sums, integers(7))


@intrinsic(prefer_literal=True)
def _emit_sums(typingctx, KIND, ITEMSIZE, BITS, x, y, rows, channels, center, first, second):
    kind, itemsize = KIND.literal_value, ITEMSIZE.literal_value

    def codegen(context, builder, signature, args):
        simd = Emitter(builder, itemsize)
        x, y, rows, channels, center, first, second = args[3:]
        x, y, center, first, second = (simd.pointer(p) for p in (x, y, center, first, second))

        def block(channel, masks):
            places = [builder.add(channel, I64(v * simd.lanes)) for v in range(len(masks))]
            centers = [simd.zero()] * len(masks)
            if kind != TOTALS:
                centers = [simd.load(simd.at(center, p), m) for p, m in zip(places, masks, strict=True)]
            if kind == RECTIFIED:
                scales, shifts = (
                    [simd.load(simd.at(row, p), m) for p, m in zip(places, masks, strict=True)]
                    for row in (simd.at(center, channels), simd.at(center, builder.mul(channels, I64(2))))
                )
            sums = [cgutils.alloca_once(builder, simd.vector) for _ in masks * 2]
            for total in sums:
                builder.store(simd.zero(), total)
            plain, weighted = sums[: len(masks)], sums[len(masks) :]
            with cgutils.for_range(builder, rows) as row:
                offset = builder.mul(row.index, channels)
                for v, mask in enumerate(masks):
                    place = builder.add(offset, places[v])
                    number = simd.load(simd.at(x, place), mask)
                    deviation = builder.fsub(number, centers[v])
                    term = simd.load(simd.at(y, place), mask) if kind in (DOTS, RECTIFIED) else deviation
                    if kind == RECTIFIED:
                        value = simd.multiply_add(deviation, scales[v], shifts[v])
                        term = builder.select(builder.fcmp_ordered("<=", value, simd.zero()), simd.zero(), term)
                    builder.store(builder.fadd(builder.load(plain[v]), term), plain[v])
                    if kind != TOTALS:
                        builder.store(simd.multiply_add(term, deviation, builder.load(weighted[v])), weighted[v])
            for v, mask in enumerate(masks):
                simd.store(builder.load(plain[v]), simd.at(first, places[v]), mask)
                if kind != TOTALS:
                    simd.store(builder.load(weighted[v]), simd.at(second, places[v]), mask)

        width = I64(VECTORS[kind] * simd.lanes)
        blocks = builder.sdiv(channels, width)
        with cgutils.for_range(builder, blocks) as whole:
            block(builder.mul(whole.index, width), [None] * VECTORS[kind])
        left = builder.mul(blocks, width)
        singles = builder.sdiv(builder.add(builder.sub(channels, left), I64(simd.lanes - 1)), I64(simd.lanes))
        with cgutils.for_range(builder, singles) as single:
            channel = builder.add(left, builder.mul(single.index, I64(simd.lanes)))
            block(channel, [simd.first_lanes(builder.sub(channels, channel))])
        return context.get_dummy_value()

    return types.void(KIND, ITEMSIZE, BITS, x, y, rows, channels, center, first, second), codegen
