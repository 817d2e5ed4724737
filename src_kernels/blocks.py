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


def transpose_block(itemsize: int):
    """Callback (dst, dst_stride, src, src_stride, rows, cols): dst[c * dst_stride + r] = src[r * src_stride + c]."""
    return _transpose(itemsize, 0)


def transpose_rows(itemsize: int):
    """Callback (dst, dst_stride, src, srow, rows, cols): dst[c * dst_stride + r] = src[srow[r] + c].

    `srow` is the address of an int64 table of offsets.
    """
    return _transpose(itemsize, 1)


def transpose_to_rows(itemsize: int):
    """Callback (dst, drow, src, src_stride, rows, cols): dst[drow[c] + r] = src[r * src_stride + c].

    `drow` is the address of an int64 table of offsets.
    """
    return _transpose(itemsize, 2)


@cache
def _transpose(itemsize: int, table: int):
    ITEMSIZE, TABLE, BITS = itemsize, table, MACHINE.vector_bits

    def transpose(dst, targets, src, places, rows, cols):
        _emit_transpose(ITEMSIZE, BITS, TABLE, dst, targets, src, places, rows, cols)

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
        half = I64(simd.lanes // 2)
        contiguous = builder.icmp_signed("==", step, I64(1))
        with cgutils.for_range(builder, rows) as row:
            to = simd.at(dst, builder.load(simd.at(drow, row.index)))
            source = simd.at(src, builder.load(simd.at(srow, row.index)))

            def copy(first, count, to=to, source=source):
                if count is None:
                    simd.store(simd.load(simd.at(source, first)), simd.at(to, first))
                    return
                with builder.if_else(builder.icmp_signed(">=", count, half)) as (two, one):
                    with two:
                        for place in (I64(0), builder.sub(count, half)):
                            simd.copy_half(simd.at(source, place), simd.at(to, place))
                    with one:
                        simd.store_first(simd.load(source, simd.first_lanes(count)), to, count)

            with builder.if_else(contiguous) as (vectorised, scattered):
                with vectorised:
                    _cover(simd, n, copy)
                with scattered, cgutils.for_range(builder, n) as i:
                    value = builder.load(simd.at(source, i.index))
                    builder.store(value, simd.at(to, builder.mul(i.index, step)))
        return context.get_dummy_value()

    return types.void(ITEMSIZE, BITS, dst, drow, src, srow, rows, n, step), codegen


@intrinsic(prefer_literal=True)
def _emit_transpose(typingctx, ITEMSIZE, BITS, TABLE, dst, targets, src, places, rows, cols):
    """`places` and `targets` are strides of rows, or tables of their offsets: of places (TABLE 1), of targets (2)."""
    itemsize, table = ITEMSIZE.literal_value, TABLE.literal_value

    def codegen(context, builder, signature, args):
        simd = Emitter(builder, itemsize)
        dst, targets, src, places, rows, cols = args[3:]
        dst, src = simd.pointer(dst), simd.pointer(src)
        size, lanes = simd.lanes, I64(simd.lanes)

        def blocks(n):
            return builder.sdiv(builder.add(n, I64(size - 1)), lanes)

        def offset_of(row, where, is_table):
            return builder.load(simd.at(simd.pointer(where, I64), row)) if is_table else builder.mul(row, where)

        last_row = builder.sub(rows, I64(1))
        # Blocks past the end step back and transpose some rows twice, where there are rows enough: masked stores take
        # tens of cycles on AVX2 processors of AMD.
        enough = builder.icmp_signed(">=", rows, lanes)
        last_block = builder.select(enough, builder.sub(rows, lanes), I64(0))
        with cgutils.for_range(builder, blocks(rows)) as i:
            first_row = builder.mul(i.index, lanes)
            first_row = builder.select(builder.icmp_signed("<", first_row, last_block), first_row, last_block)
            sources = []
            for r in range(size):  # rows past the end read the last one again; the store mask drops them
                row = builder.add(first_row, I64(r))
                row = builder.select(builder.icmp_signed("<", row, last_row), row, last_row)
                sources.append(simd.at(src, offset_of(row, places, table == 1)))
            with cgutils.for_range(builder, blocks(cols)) as j:
                first_col = builder.mul(j.index, lanes)
                load_mask = simd.first_lanes(builder.sub(cols, first_col))
                whole = builder.and_(enough, builder.icmp_signed("<=", builder.add(first_col, lanes), cols))
                with builder.if_else(whole) as (plain, partial):
                    with plain:
                        block = [simd.load(simd.at(source, first_col)) for source in sources]
                        for c, vector in enumerate(transposed(simd, block)):
                            col = builder.add(first_col, I64(c))
                            simd.store(
                                vector, simd.at(dst, builder.add(offset_of(col, targets, table == 2), first_row))
                            )
                    with partial:
                        block = [simd.load(simd.at(source, first_col), load_mask) for source in sources]
                        for c, vector in enumerate(transposed(simd, block)):
                            col = builder.add(first_col, I64(c))
                            with builder.if_then(builder.icmp_signed("<", col, cols)):
                                to = simd.at(dst, builder.add(offset_of(col, targets, table == 2), first_row))
                                with builder.if_else(enough) as (many, few):
                                    with many:
                                        simd.store(vector, to)
                                    with few:
                                        simd.store_first(vector, to, rows)
        return context.get_dummy_value()

    return types.void(ITEMSIZE, BITS, TABLE, dst, targets, src, places, rows, cols), codegen


@intrinsic(prefer_literal=True)
def _emit_interleave(typingctx, ITEMSIZE, BITS, dst, a, b, pairs, single):
    itemsize = ITEMSIZE.literal_value

    def codegen(context, builder, signature, args):
        simd = Emitter(builder, itemsize)
        dst, a, b, pairs, single = args[2:]
        dst, a, b = simd.pointer(dst), simd.pointer(a), simd.pointer(b)
        lanes = simd.lanes
        merged = [source for i in range(lanes) for source in (i, lanes + i)]

        def interleave(first, count):
            mask = None if count is None else simd.first_lanes(count)
            halves = simd.load(simd.at(a, first), mask), simd.load(simd.at(b, first), mask)
            twice = builder.mul(first, I64(2))
            for half, mask_of_half in enumerate(_masks_of_pairs(simd, count)):
                numbers = simd.shuffle(*halves, merged[half * lanes : (half + 1) * lanes])
                simd.store(numbers, simd.at(dst, builder.add(twice, I64(half * lanes))), mask_of_half)

        _cover(simd, pairs, interleave)
        with builder.if_then(builder.icmp_signed("!=", single, I64(0))):
            builder.store(builder.load(simd.at(a, pairs)), simd.at(dst, builder.mul(pairs, I64(2))))
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

        def separate(first, count):
            twice = builder.mul(first, I64(2))
            halves = [
                simd.load(simd.at(src, builder.add(twice, I64(half * lanes))), mask)
                for half, mask in enumerate(_masks_of_pairs(simd, count))
            ]
            for parity, target in enumerate((a, b)):
                numbers = simd.shuffle(*halves, list(range(parity, 2 * lanes, 2)))
                simd.store(numbers, simd.at(target, first), None if count is None else simd.first_lanes(count))

        _cover(simd, pairs, separate)
        return context.get_dummy_value()

    return types.void(ITEMSIZE, BITS, a, b, src, pairs), codegen


def _masks_of_pairs(simd: Emitter, count) -> list:
    """For the two vectors of `count` pairs; None for whole ones, where `count` is None."""
    if count is None:
        return [None, None]
    numbers = simd.builder.mul(count, I64(2))
    return [simd.first_lanes(simd.builder.sub(numbers, I64(half * simd.lanes))) for half in range(2)]


def _cover(simd: Emitter, n, body):
    """body(first, None) for whole vectors that cover `n` numbers, body(0, n) for fewer numbers than a vector has.

    The last vector overlaps the one before: masked stores take tens of cycles on AVX2 processors of AMD (separating
    pairs of 224 numbers: 10 times as long).
    """
    builder, lanes = simd.builder, I64(simd.lanes)
    with builder.if_else(builder.icmp_signed(">=", n, lanes)) as (many, few):
        with many:
            last = builder.sub(n, lanes)
            with cgutils.for_range(builder, builder.sdiv(builder.sub(builder.add(n, lanes), I64(1)), lanes)) as loop:
                first = builder.mul(loop.index, lanes)
                body(builder.select(builder.icmp_signed("<", first, last), first, last), None)
        with few:
            body(I64(0), n)


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
