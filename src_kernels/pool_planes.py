"""Averages of whole planes, (n, c) after (n, c): one sum, or one number in every cell, per plane.

x and dx are (P, L), out and dout (P,), factors the row's and the column's. Tasks are planes; results may be
uninitialised.
"""

from __future__ import annotations

from numba.core import cgutils
from numba.extending import intrinsic

from fastconv._kernels.launch import Kernel, on_every_slot
from fastconv._kernels.simd import I64, Emitter

SUMS = 4  # vectors that are summed side by side: an addition takes three cycles or more


@intrinsic
def _total(typingctx, plane):
    """The sum of a contiguous array. A loop took 49 numbers as 32 in vectors and 17 one by one."""

    def codegen(context, builder, signature, args):
        simd = Emitter(builder, plane.dtype.bitwidth // 8)
        array = context.make_array(plane)(context, builder, value=args[0])
        numbers, count = array.data, cgutils.unpack_tuple(builder, array.shape)[0]
        sums = [cgutils.alloca_once_value(builder, simd.zero()) for _ in range(SUMS)]

        def add(place, total, mask=None):
            builder.store(builder.fadd(builder.load(total), simd.load(simd.at(numbers, place), mask)), total)

        vectors = builder.sdiv(count, I64(simd.lanes))
        blocks = builder.sdiv(vectors, I64(SUMS))
        with cgutils.for_range(builder, blocks) as block:
            first = builder.mul(block.index, I64(SUMS * simd.lanes))
            for v, total in enumerate(sums):
                add(builder.add(first, I64(v * simd.lanes)), total)
        done = builder.mul(blocks, I64(SUMS))
        with cgutils.for_range(builder, builder.sub(vectors, done)) as single:
            add(builder.mul(builder.add(done, single.index), I64(simd.lanes)), sums[0])
        place = builder.mul(vectors, I64(simd.lanes))
        add(place, sums[1], simd.first_lanes(builder.sub(count, place)))
        while len(sums) > 1:
            builder.store(builder.fadd(builder.load(sums[0]), builder.load(sums[-1])), sums[0])
            sums.pop()
        return simd.sum_of_lanes(builder.load(sums[0]))

    return plane.dtype(plane), codegen


@Kernel
def mean_of_planes(slot, slots, x, out, factors):
    """out = the sum of each plane over the product of the factors."""
    if slot < 0:
        return on_every_slot(slot, slots)
    planes = out.size
    divisor = factors[0] * factors[1]
    for plane in range(slot * planes // slots, (slot + 1) * planes // slots):
        out[plane] = _total(x[plane]) / divisor


@Kernel
def spread_over_planes(slot, slots, dout, dx, factors):
    """dx = each plane's dout times the product of the factors, in every cell."""
    if slot < 0:
        return on_every_slot(slot, slots)
    planes = dout.size
    factor = factors[0] * factors[1]
    for plane in range(slot * planes // slots, (slot + 1) * planes // slots):
        target, share = dx[plane], dout[plane] * factor
        for i in range(target.size):
            target[i] = share
