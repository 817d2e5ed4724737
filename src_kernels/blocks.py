"""Copy and transpose blocks of numbers with vector instructions: what is not arithmetic in a convolution.

Both are callbacks of integers (addresses, offsets in elements), compiled once per item size and called through
`call_address` by every kernel that moves blocks. They read and write inside the given blocks only.
"""

from __future__ import annotations

from functools import cache

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastconv._kernels.isa import MACHINE
from fastconv._kernels.jit import compile_callback
from fastconv._kernels.simd import I64, Emitter, integers


@cache
def copy_block(itemsize: int):
    """Callback (dst, drow, src, srow, rows, n, step): dst[drow[r] + i * step] = src[srow[r] + i], r < rows, i < n.

    `drow` and `srow` are addresses of int64 tables of offsets.
    """
    ITEMSIZE, BITS = itemsize, MACHINE.vector_bits

    def copy(dst, drow, src, srow, rows, n, step):
        _emit_copy(ITEMSIZE, BITS, dst, drow, src, srow, rows, n, step)

    return compile_callback(copy, integers(7))


@cache
def transpose_block(itemsize: int):
    """Callback (dst, dst_stride, src, src_stride, rows, cols): dst[c, r] = src[r, c] for r < rows, c < cols."""
    ITEMSIZE, BITS = itemsize, MACHINE.vector_bits

    def transpose(dst, dst_stride, src, src_stride, rows, cols):
        _emit_transpose(ITEMSIZE, BITS, 0, dst, dst_stride, src, src_stride, rows, cols)

    return compile_callback(transpose, integers(6))


@cache
def transpose_rows(itemsize: int):
    """Callback (dst, dst_stride, src, srow, rows, cols): dst[c * dst_stride + r] = src[srow[r] + c].

    `srow` is the address of an int64 table of offsets.
    """
    ITEMSIZE, BITS = itemsize, MACHINE.vector_bits

    def transpose(dst, dst_stride, src, srow, rows, cols):
        _emit_transpose(ITEMSIZE, BITS, 1, dst, dst_stride, src, srow, rows, cols)

    return compile_callback(transpose, integers(6))


@cache
def interleave_pairs(itemsize: int):
    """Callback (dst, a, b, pairs, single): dst[2 * i] = a[i], dst[2 * i + 1] = b[i] for i < pairs; then a[pairs] too
    if `single`."""
    ITEMSIZE, BITS = itemsize, MACHINE.vector_bits

    def interleave(dst, a, b, pairs, single):
        _emit_interleave(ITEMSIZE, BITS, dst, a, b, pairs, single)

    return compile_callback(interleave, integers(5))


@cache
def separate_pairs(itemsize: int):
    """Callback (a, b, src, pairs): a[i] = src[2 * i], b[i] = src[2 * i + 1] for i < pairs."""
    ITEMSIZE, BITS = itemsize, MACHINE.vector_bits

    def separate(a, b, src, pairs):
        _emit_separate(ITEMSIZE, BITS, a, b, src, pairs)

    return compile_callback(separate, integers(4))


@intrinsic(prefer_literal=True)
def _emit_copy(typingctx, ITEMSIZE, BITS, dst, drow, src, srow, rows, n, step):
    itemsize = ITEMSIZE.literal_value

    def codegen(context, builder, signature, args):
        simd = Emitter(builder, itemsize)
        dst, drow, src, srow, rows, n, step = args[2:]
        dst, src = simd.pointer(dst), simd.pointer(src)
        drow, srow = simd.pointer(drow, I64), simd.pointer(srow, I64)
        lanes = I64(simd.lanes)
        vectors = builder.sdiv(n, lanes)
        whole = builder.mul(vectors, lanes)
        has_tail = builder.icmp_signed("<", whole, n)
        # The last numbers are copied as a whole vector that overlaps the one before, where there is one, and short rows
        # as two halves of a vector: masked stores take tens of cycles on AVX2 processors of AMD.
        short = builder.icmp_signed("<", n, lanes)
        last, tail = builder.sub(n, lanes), simd.first_lanes(n)
        half = simd.lanes // 2
        halves = builder.icmp_signed(">=", n, I64(half))
        contiguous = builder.icmp_signed("==", step, I64(1))
        with cgutils.for_range(builder, rows) as row:
            to = simd.at(dst, builder.load(simd.at(drow, row.index)))
            source = simd.at(src, builder.load(simd.at(srow, row.index)))
            with builder.if_else(contiguous) as (vectorised, scattered):
                with vectorised:
                    with cgutils.for_range(builder, vectors) as v:
                        offset = builder.mul(v.index, lanes)
                        simd.store(simd.load(simd.at(source, offset)), simd.at(to, offset))
                    with builder.if_then(has_tail), builder.if_else(short) as (masked, overlapping):
                        with masked, builder.if_else(halves) as (two, one):
                            with two:
                                for place in (I64(0), builder.sub(n, I64(half))):
                                    simd.copy_half(simd.at(source, place), simd.at(to, place))
                            with one:
                                simd.store(simd.load(source, tail), to, tail)
                        with overlapping:
                            simd.store(simd.load(simd.at(source, last)), simd.at(to, last))
                with scattered, cgutils.for_range(builder, n) as i:
                    value = builder.load(simd.at(source, i.index))
                    builder.store(value, simd.at(to, builder.mul(i.index, step)))
        return context.get_dummy_value()

    return types.void(ITEMSIZE, BITS, dst, drow, src, srow, rows, n, step), codegen


@intrinsic(prefer_literal=True)
def _emit_transpose(typingctx, ITEMSIZE, BITS, TABLE, dst, dst_stride, src, places, rows, cols):
    itemsize, table = ITEMSIZE.literal_value, TABLE.literal_value

    def codegen(context, builder, signature, args):
        simd = Emitter(builder, itemsize)
        dst, dst_stride, src, places, rows, cols = args[3:]
        dst, src = simd.pointer(dst), simd.pointer(src)
        size, lanes = simd.lanes, I64(simd.lanes)

        def blocks(n):
            return builder.sdiv(builder.add(n, I64(size - 1)), lanes)

        last_row = builder.sub(rows, I64(1))
        # Blocks past the end step back and transpose some rows twice, where there are rows enough: masked stores take
        # tens of cycles on AVX2 processors of AMD.
        enough = builder.icmp_signed(">=", rows, lanes)
        last_block = builder.select(enough, builder.sub(rows, lanes), I64(0))
        store_mask = simd.first_lanes(rows)
        with cgutils.for_range(builder, blocks(rows)) as i:
            first_row = builder.mul(i.index, lanes)
            first_row = builder.select(builder.icmp_signed("<", first_row, last_block), first_row, last_block)
            sources = []
            for r in range(size):  # rows past the end read the last one again; the store mask drops them
                row = builder.add(first_row, I64(r))
                row = builder.select(builder.icmp_signed("<", row, last_row), row, last_row)
                place = builder.load(simd.at(simd.pointer(places, I64), row)) if table else builder.mul(row, places)
                sources.append(simd.at(src, place))
            with cgutils.for_range(builder, blocks(cols)) as j:
                first_col = builder.mul(j.index, lanes)
                load_mask = simd.first_lanes(builder.sub(cols, first_col))
                whole = builder.and_(enough, builder.icmp_signed("<=", builder.add(first_col, lanes), cols))
                with builder.if_else(whole) as (plain, partial):
                    with plain:
                        block = [simd.load(simd.at(source, first_col)) for source in sources]
                        for c, vector in enumerate(transposed(simd, block)):
                            col = builder.add(first_col, I64(c))
                            simd.store(vector, simd.at(dst, builder.add(builder.mul(col, dst_stride), first_row)))
                    with partial:
                        block = [simd.load(simd.at(source, first_col), load_mask) for source in sources]
                        for c, vector in enumerate(transposed(simd, block)):
                            col = builder.add(first_col, I64(c))
                            to = simd.at(dst, builder.add(builder.mul(col, dst_stride), first_row))
                            with builder.if_then(builder.icmp_signed("<", col, cols)):
                                with builder.if_else(enough) as (many, few):
                                    with many:
                                        simd.store(vector, to)
                                    with few:
                                        simd.store(vector, to, store_mask)
        return context.get_dummy_value()

    return types.void(ITEMSIZE, BITS, TABLE, dst, dst_stride, src, places, rows, cols), codegen


@intrinsic(prefer_literal=True)
def _emit_interleave(typingctx, ITEMSIZE, BITS, dst, a, b, pairs, single):
    itemsize = ITEMSIZE.literal_value

    def codegen(context, builder, signature, args):
        simd = Emitter(builder, itemsize)
        dst, a, b, pairs, single = args[2:]
        dst, a, b = simd.pointer(dst), simd.pointer(a), simd.pointer(b)
        lanes = simd.lanes
        merged = [source for i in range(lanes) for source in (i, lanes + i)]
        count = builder.add(builder.mul(pairs, I64(2)), single)
        vectors = builder.sdiv(builder.add(builder.add(pairs, single), I64(lanes - 1)), I64(lanes))
        with cgutils.for_range(builder, vectors) as loop:
            first = builder.mul(loop.index, I64(lanes))
            to = builder.mul(first, I64(2))
            left = simd.load(simd.at(a, first), simd.first_lanes(builder.sub(builder.add(pairs, single), first)))
            right = simd.load(simd.at(b, first), simd.first_lanes(builder.sub(pairs, first)))
            for half in range(2):
                place = builder.add(to, I64(half * lanes))
                mask = simd.first_lanes(builder.sub(count, place))
                simd.store(
                    simd.shuffle(left, right, merged[half * lanes : (half + 1) * lanes]), simd.at(dst, place), mask
                )
        return context.get_dummy_value()

    return types.void(ITEMSIZE, BITS, dst, a, b, pairs, single), codegen


@intrinsic(prefer_literal=True)
def _emit_separate(typingctx, ITEMSIZE, BITS, a, b, src, pairs):
    itemsize = ITEMSIZE.literal_value

    def codegen(context, builder, signature, args):
        simd = Emitter(builder, itemsize)
        a, b, src, pairs = args[2:]
        a, b, src = simd.pointer(a), simd.pointer(b), simd.pointer(src)
        lanes = simd.lanes
        count = builder.mul(pairs, I64(2))
        with cgutils.for_range(builder, builder.sdiv(builder.add(pairs, I64(lanes - 1)), I64(lanes))) as loop:
            first = builder.mul(loop.index, I64(lanes))
            halves = []
            for half in range(2):
                place = builder.add(builder.mul(first, I64(2)), I64(half * lanes))
                halves.append(simd.load(simd.at(src, place), simd.first_lanes(builder.sub(count, place))))
            mask = simd.first_lanes(builder.sub(pairs, first))
            for parity, target in enumerate((a, b)):
                numbers = simd.shuffle(*halves, list(range(parity, 2 * lanes, 2)))
                simd.store(numbers, simd.at(target, first), mask)
        return context.get_dummy_value()

    return types.void(ITEMSIZE, BITS, a, b, src, pairs), codegen


def transposed(simd: Emitter, block: list) -> list:
    """Transpose `lanes` vectors in registers: log2(lanes) rounds that swap off-diagonal sub-blocks."""
    size, block = simd.lanes, list(block)
    step = size // 2
    while step:
        low = [lane if lane & step == 0 else size + lane - step for lane in range(size)]
        high = [lane + step if lane & step == 0 else size + lane for lane in range(size)]
        for i in range(size):
            if i & step == 0:
                a, b = block[i], block[i + step]
                block[i], block[i + step] = simd.shuffle(a, b, low), simd.shuffle(a, b, high)
        step //= 2
    return block
