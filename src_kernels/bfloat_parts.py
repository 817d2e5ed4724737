"""Floats as sums of bfloat16 numbers, their parts, in the order in which the matrix unit reads them.

Three parts are exact: the high part is a float's upper 16 bits, the middle part those of what is left, the low part
those of the rest, 3 x 8 bits of 24. Two parts are rounded; what they leave is below 2**-17 of the float. Of an infinity
the second part is NaN, as is the product.
"""

from __future__ import annotations

from functools import cache

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastconv._kernels.blocks import transposed
from fastconv._kernels.jit import compile_callback
from fastconv._kernels.simd import I32, I64, Emitter, integers

PART_BYTES = 2
_LANES = 16
SPREAD = (1, 3)  # odd numbers of channels that can be filled up to an even one
_UPPER = -(2**16)  # the bits of a float that are its high part


@cache
def split_row(count: int, spread: int = 0):
    """Callback (dst, part, plane, src, pixels, channels, depth, step, apart): parts of a row, number by number.

    The parts begin at dst, dst + part, ... (bytes). With `spread`, which is then the number of channels, 1 or 3, every
    pixel is followed by a zero. Only `dst` to `channels` without `plane` are used.
    """
    COUNT, SPREAD = count, spread

    def split(dst, part, plane, src, pixels, channels, depth, step, apart):
        _emit_split_row(COUNT, SPREAD, dst, part, src, pixels, channels)

    return compile_callback(split, integers(9))


@cache
def split_planes(count: int):
    """Callback (dst, part, plane, src, pixels, channels, depth, step, apart): parts of a row, by `depth` channels.

    Each pixel's parts of some channels take `apart` numbers, at most 32, filled up with zeros; those of all pixels lie
    side by side, those of the next channels begin `plane` bytes later. In `src`, pixels are `step` numbers apart.
    """
    COUNT = count

    def split(dst, part, plane, src, pixels, channels, depth, step, apart):
        _emit_split_planes(COUNT, dst, part, plane, src, pixels, channels, depth, step, apart)

    return compile_callback(split, integers(9))


@cache
def split_channels(count: int):
    """Callback (dst, part, line, src, pixels, channels, lines, step, apart): rows of channels-first pixels, in pairs.

    Line i holds the parts of channels 2 * i and 2 * i + 1 side by side, pixel by pixel; zeros where there is no such
    channel. Lines are `line` bytes apart, channels `step` numbers, pixels `apart`.
    """
    COUNT = count

    def split(dst, part, line, src, pixels, channels, lines, step, apart):
        _emit_split_channels(COUNT, dst, part, line, src, pixels, channels, lines, step, apart)

    return compile_callback(split, integers(9))


@cache
def split_pairs(count: int):
    """Callback (dst, part, src, places, pairs, lanes): rows of `lanes` (at most 16) floats as tiles of pairs.

    Row i of a tile holds the parts of src[places[2 * i] + lane] and src[places[2 * i + 1] + lane] side by side, for
    16 lanes; where a place is below 0, or a lane not below `lanes`, they are zeros.
    """
    COUNT = count

    def split(dst, part, src, places, pairs, lanes):
        _emit_split_pairs(COUNT, dst, part, src, places, pairs, lanes)

    return compile_callback(split, integers(6))


@cache
def split_pairs_by_lane(count: int):
    """`split_pairs` turned round: row i holds the parts of lane i, of up to 32 places side by side."""
    COUNT = count

    def split(dst, part, src, places, pairs, lanes):
        _emit_split_pairs_by_lane(COUNT, dst, part, src, places, pairs, lanes)

    return compile_callback(split, integers(6))


class _Splitter:
    """Emits vectors of 16 floats as integers, cut into parts."""

    def __init__(self, builder: ir.IRBuilder, count: int):
        self.builder, self.count, self.simd = builder, count, Emitter(builder, 4, _LANES)
        self.bits = ir.VectorType(I32, _LANES)
        self.halves = ir.VectorType(ir.IntType(16), 2 * _LANES)
        self.upper = ir.Constant(self.bits, [_UPPER] * _LANES)

    def parts(self, floats):
        """Of a vector: floats whose upper halves are the parts, high to low."""
        builder = self.builder
        found = []
        for _ in range(self.count - 1):
            bits = builder.and_(builder.bitcast(self._rounded(floats), self.bits), self.upper)
            found.append(builder.bitcast(bits, self.simd.vector))
            floats = builder.fsub(floats, found[-1])
        return [*found, self._rounded(floats)]

    def _rounded(self, floats):
        """Floats whose upper halves are rounded, half away from zero; three parts need none of that."""
        if self.count == 3:
            return floats
        bits = self.builder.add(self.builder.bitcast(floats, self.bits), ir.Constant(self.bits, [2**15] * _LANES))
        return self.builder.bitcast(bits, self.simd.vector)

    def side_by_side(self, first, second):
        """The upper halves of 16 floats and of 16 more, one after the other."""
        first, second = (self.builder.bitcast(floats, self.halves) for floats in (first, second))
        lanes = ir.Constant(ir.VectorType(I32, 2 * _LANES), list(range(1, 4 * _LANES, 2)))
        return self.builder.shuffle_vector(first, second, lanes)

    def in_pairs(self, first, second):
        """The upper halves of 16 floats and of 16 more, in turns."""
        builder = self.builder
        first, second = (builder.bitcast(floats, self.bits) for floats in (first, second))
        shifted = builder.lshr(first, ir.Constant(self.bits, [16] * _LANES))
        return builder.bitcast(builder.or_(shifted, builder.and_(second, self.upper)), self.halves)

    def store(self, halves, address, mask=None):
        pointer = self.simd.pointer(address, self.halves)
        if mask is None:
            self.builder.store(halves, pointer, align=2)
            return
        function = self.simd._declare(
            "llvm.masked.store.v32i16.p0", ir.VoidType(), [self.halves, pointer.type, I32, mask.type]
        )
        self.builder.call(function, [halves, pointer, I32(2), mask])

    def first_halves(self, count):
        """The mask of the first `count` of 32."""
        return Emitter(self.builder, 4, 2 * _LANES).lanes_below(count)


@intrinsic(prefer_literal=True)
def _emit_split_row(typingctx, COUNT, SPREAD, dst, part, src, pixels, channels):
    spread = SPREAD.literal_value

    def codegen(context, builder, signature, args):
        dst, part, src, pixels, channels = args[2:]
        to = _Splitter(builder, COUNT.literal_value)
        simd = to.simd
        source = simd.pointer(src)
        taken = _LANES // (spread + 1) * spread if spread else _LANES  # numbers that fill a vector

        def load(first, count):
            floats = simd.load(simd.at(source, first), simd.first_lanes(count))
            if not spread:
                return floats
            lanes = [
                i // (spread + 1) * spread + i % (spread + 1) if i % (spread + 1) < spread else _LANES
                for i in range(_LANES)
            ]
            return simd.shuffle(floats, simd.zero(), lanes)

        def split(first, count, mask):
            rest = builder.sub(count, I64(taken))
            floats = load(first, _at_most(builder, count, taken)), load(builder.add(first, I64(taken)), rest)
            place = builder.mul(builder.sdiv(first, I64(spread)), I64(spread + 1)) if spread else first
            target = builder.add(dst, builder.shl(place, I64(1)))
            for pair in zip(*map(to.parts, floats), strict=True):
                to.store(to.side_by_side(*pair), target, mask)
                target = builder.add(target, part)

        n = builder.mul(pixels, channels)
        whole = builder.sdiv(n, I64(2 * taken))
        with cgutils.for_range(builder, whole) as vector:
            split(builder.mul(vector.index, I64(2 * taken)), I64(2 * taken), None)
        done = builder.mul(whole, I64(2 * taken))
        with builder.if_then(builder.icmp_signed("<", done, n)):
            left = builder.sub(n, done)
            filled = builder.mul(builder.sdiv(left, I64(spread)), I64(spread + 1)) if spread else left
            split(done, left, to.first_halves(filled))
        return context.get_dummy_value()

    return types.void(COUNT, SPREAD, dst, part, src, pixels, channels), codegen


def _at_most(builder, count, most):
    return builder.select(builder.icmp_signed("<", count, I64(most)), count, I64(most))


@intrinsic(prefer_literal=True)
def _emit_split_planes(typingctx, COUNT, dst, part, plane, src, pixels, channels, depth, step, apart):
    def codegen(context, builder, signature, args):
        dst, part, plane, src, pixels, channels, depth, step, apart = args[1:]
        to = _Splitter(builder, COUNT.literal_value)
        simd = to.simd
        kept = to.first_halves(apart)
        planes = builder.sdiv(builder.add(channels, builder.sub(depth, I64(1))), depth)
        with cgutils.for_range(builder, planes) as number:
            first = builder.mul(number.index, depth)
            left = builder.sub(channels, first)
            count = builder.select(builder.icmp_signed("<", left, depth), left, depth)
            masks = simd.first_lanes(count), simd.first_lanes(builder.sub(count, I64(_LANES)))
            begin = builder.add(dst, builder.mul(number.index, plane))
            with cgutils.for_range(builder, pixels) as pixel:
                place = simd.at(simd.pointer(src), builder.add(builder.mul(pixel.index, step), first))
                floats = [simd.load(simd.at(place, v * _LANES), mask) for v, mask in enumerate(masks)]
                target = builder.add(begin, builder.mul(pixel.index, builder.mul(apart, I64(PART_BYTES))))
                for pair in zip(*map(to.parts, floats), strict=True):
                    to.store(to.side_by_side(*pair), target, kept)
                    target = builder.add(target, part)
        return context.get_dummy_value()

    return types.void(COUNT, dst, part, plane, src, pixels, channels, depth, step, apart), codegen


@intrinsic(prefer_literal=True)
def _emit_split_channels(typingctx, COUNT, dst, part, line, src, pixels, channels, lines, step, apart):
    def codegen(context, builder, signature, args):
        dst, part, line, src, pixels, channels, lines, step, apart = args[1:]
        to = _Splitter(builder, COUNT.literal_value)
        simd = to.simd
        with cgutils.for_range(builder, lines) as pair:
            first = builder.shl(pair.index, I64(1))
            source = simd.at(simd.pointer(src), builder.mul(first, step))
            begin = builder.add(dst, builder.mul(pair.index, line))

            def emit(pixel, mask, first=first, source=source, begin=begin):
                count = _at_most(builder, builder.sub(pixels, pixel), _LANES)
                halves = []
                for side in range(2):
                    exists = builder.icmp_signed("<", builder.add(first, I64(side)), channels)
                    place = simd.at(simd.at(source, builder.mul(pixel, apart)), builder.mul(step, I64(side)))
                    floats = _spaced(simd, place, apart, builder.select(exists, count, I64(0)))
                    halves.append(to.parts(floats))
                target = builder.add(begin, builder.shl(pixel, I64(2)))
                for both in zip(*halves, strict=True):
                    value = builder.bitcast(to.in_pairs(*both), simd.vector)
                    simd.store(value, simd.pointer(target), mask)
                    target = builder.add(target, part)

            simd.for_vectors(pixels, emit)
        return context.get_dummy_value()

    return types.void(COUNT, dst, part, line, src, pixels, channels, lines, step, apart), codegen


def _spaced(simd, place, apart, count):
    """The first `count` of pointer[lane * apart]; zeros behind. Gathers take a cycle or two a lane."""
    builder = simd.builder
    found = cgutils.alloca_once_value(builder, simd.zero())
    with builder.if_else(builder.icmp_signed("<=", apart, I64(2))) as (near, far):
        with near, builder.if_else(builder.icmp_signed("==", apart, I64(1))) as (beside, every_other):
            with beside:
                builder.store(simd.load(place, simd.first_lanes(count)), found)
            with every_other:
                reach = builder.sub(builder.shl(count, I64(1)), I64(1))
                low = simd.load(place, simd.first_lanes(reach))
                high = simd.load(simd.at(place, simd.lanes), simd.first_lanes(builder.sub(reach, I64(simd.lanes))))
                builder.store(simd.shuffle(low, high, list(range(0, 2 * simd.lanes, 2))), found)
        with far:
            builder.store(simd.gather(place, apart, simd.first_lanes(count)), found)
    return builder.load(found)


class _Pairs:
    """Emits the parts of two rows of floats, `lanes` of them, in turns."""

    def __init__(self, to: _Splitter, src, places, lanes):
        self.to, self.lanes = to, lanes
        self.source, self.places = to.simd.pointer(src), to.simd.pointer(places, I64)

    def parts(self, pair, exists=None):
        """Of the pair of places numbered `pair` (i64): zeros where a place is below 0, or where it does not `exist`."""
        builder, simd = self.to.builder, self.to.simd
        floats = []
        for side in range(2):
            number = builder.add(builder.shl(pair, I64(1)), I64(side))
            if exists is not None:
                number = builder.select(exists, number, I64(0))
            place = builder.load(simd.at(self.places, number))
            read = builder.icmp_signed(">=", place, I64(0))
            if exists is not None:
                read = builder.and_(read, exists)
            mask = simd.first_lanes(builder.select(read, self.lanes, I64(0)))
            floats.append(simd.load(simd.at(self.source, place), mask))
        return [self.to.in_pairs(*both) for both in zip(*map(self.to.parts, floats), strict=True)]


@intrinsic(prefer_literal=True)
def _emit_split_pairs(typingctx, COUNT, dst, part, src, places, pairs, lanes):
    def codegen(context, builder, signature, args):
        dst, part, src, places, pairs, lanes = args[1:]
        to = _Splitter(builder, COUNT.literal_value)
        rows = _Pairs(to, src, places, lanes)
        with cgutils.for_range(builder, pairs) as pair:
            target = builder.add(dst, builder.mul(pair.index, I64(4 * _LANES)))
            for row in rows.parts(pair.index):
                to.store(row, target)
                target = builder.add(target, part)
        return context.get_dummy_value()

    return types.void(COUNT, dst, part, src, places, pairs, lanes), codegen


@intrinsic(prefer_literal=True)
def _emit_split_pairs_by_lane(typingctx, COUNT, dst, part, src, places, pairs, lanes):
    def codegen(context, builder, signature, args):
        dst, part, src, places, pairs, lanes = args[1:]
        to = _Splitter(builder, COUNT.literal_value)
        simd = to.simd
        rows = _Pairs(to, src, places, lanes)
        found = [rows.parts(I64(i), builder.icmp_signed("<", I64(i), pairs)) for i in range(_LANES)]
        for p in range(to.count):
            halves = [builder.bitcast(row[p], simd.vector) for row in found]
            for i, lane in enumerate(transposed(simd, halves)):
                target = builder.add(builder.add(dst, builder.mul(part, I64(p))), I64(4 * _LANES * i))
                simd.store(lane, simd.pointer(target))
        return context.get_dummy_value()

    return types.void(COUNT, dst, part, src, places, pairs, lanes), codegen
