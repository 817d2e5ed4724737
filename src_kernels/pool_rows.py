"""Pooling with vectors over the columns of a plane: windows of a small constant size, stride and dilation.

Rows are WIDE groups of GROUP numbers: single columns with channels first, pixels of few channels with channels last. A
block is as many pixels as fit into one vector per column of the stride: `span` numbers of out or dout, STRIDE times as
many of x. Forward loads STRIDE vectors and picks every STRIDE-th pixel out of them; backward makes one vector per
phase of the stride and interleaves them. Blocks at the ends of rows load and store with masks.

The kernels of LARGEST and MEAN reduce rows first and pick last (one shuffle per tap instead of one per tap and row).
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastconv._kernels.isa import MACHINE
from fastconv._kernels.jit import compile_callback
from fastconv._kernels.pool_vectors import (
    ARGUMENTS,
    BLOCKS,
    CHOSEN,
    FACTORS,
    FIRST_LARGEST,
    KINDS_WITH_MASK,
    LARGEST,
    MEAN,
    READ,
    SHIFT,
    SOURCE,
    SPREAD,
    TARGET,
    WRITE,
    PoolEmitter,
    TableReader,
)
from fastconv._kernels.simd import I64, integers

CODE_BITS = 8


@cache
def rows_kernel(kind: int, itemsize: int, usual: int, taps: int, stride: int, dilation: int, group: int):
    """The compiled pass over rows made of (as a rule) `usual` rows, with `taps` columns per window, for `pool`."""
    KIND, ITEMSIZE, USUAL, TAPS, STRIDE, DILATION, GROUP = kind, itemsize, usual, taps, stride, dilation, group
    BITS = MACHINE.vector_bits

    def pool_rows(source, target, extra, table, begin, end):
        _emit_rows(
            KIND, ITEMSIZE, USUAL, TAPS, STRIDE, DILATION, GROUP, BITS, source, target, extra, table, begin, end
        )  # fmt: skip

    return compile_callback(pool_rows, integers(ARGUMENTS))


def pixels_of_block(itemsize: int, group: int) -> int:
    """Pixels of out or dout in one block."""
    return MACHINE.lanes(itemsize) // group


def vectors_of_window(taps: int, stride: int, dilation: int) -> int:
    """Vectors that the columns of one block of windows take, as registers: what may be too many."""
    return min(stride, taps) * ((taps - 1) * dilation // stride + 1)


@intrinsic(prefer_literal=True)
def _emit_rows(
    typingctx, KIND, ITEMSIZE, USUAL, TAPS, STRIDE, DILATION, GROUP, BITS, source, target, extra, table, begin, end
):  # fmt: skip
    kind, *shape = [t.literal_value for t in (KIND, ITEMSIZE, USUAL, TAPS, STRIDE, DILATION, GROUP)]
    signature = types.void(
        KIND, ITEMSIZE, USUAL, TAPS, STRIDE, DILATION, GROUP, BITS, source, target, extra, table, begin, end
    )

    def codegen(context, builder, signature, args):
        emitter = _Backward if kind in (CHOSEN, SPREAD) else _Forward
        emitter(builder, kind, *shape).emit(*args[8:])
        return context.get_dummy_value()

    return signature, codegen


class _Place(NamedTuple):
    """Where a block begins in rows of the source and the target, and whether all its lanes lie inside of both."""

    source: ir.Value
    target: ir.Value
    inside: ir.Value


class _Rows:
    """The loops over rows and blocks that both directions share."""

    def __init__(self, builder, kind, itemsize, usual, taps, stride, dilation, group):
        self.builder, self.kind, self.usual = builder, kind, usual
        self.simd = PoolEmitter(builder, itemsize, CODE_BITS)
        self.taps, self.stride, self.dilation, self.group = taps, stride, dilation, group
        self.lanes = self.simd.lanes
        self.pixels = pixels_of_block(itemsize, group)
        self.span = self.pixels * group

    def emit(self, source, target, extra, table, begin, end):
        simd, builder = self.simd, self.builder
        reader = TableReader(simd, table)
        self.reader = reader
        self.source, self.target = simd.pointer(source), simd.pointer(target)
        self.extra = simd.pointer(extra, simd.code if self.kind in KINDS_WITH_MASK else simd.scalar)
        self.source_width, self.target_width = reader.field(SOURCE), reader.field(TARGET)
        self.shift, self.col_factors = reader.field(SHIFT), reader.field(FACTORS)
        starts, self.cells, self.codes = (reader.list(i) for i in range(3))
        with simd.over(I64(0), reader.field(BLOCKS)) as block:
            place = self.place(block)
            with builder.if_else(place.inside) as (whole, partial):  # what belongs to a block is found once for all rows
                for branch, all_lanes in ((whole, True), (partial, False)):
                    with branch:
                        masks = self.masks(place, all_lanes)
                        with simd.over(begin, end) as row:
                            first, last = reader.entry(starts, row), reader.entry(starts, builder.add(row, I64(1)))
                            self.row(row, first, last, place, masks)

    def over_rows(self, first, last, body):
        """body(number in the lists, offset of the row of source) for all rows that this row is made of."""
        self.simd.for_each(first, last, self.usual, lambda q: body(q, self.reader.entry(self.cells, q)))

    def all_of(self, *conditions):
        result = conditions[0]
        for condition in conditions[1:]:
            result = self.builder.and_(result, condition)
        return result


class _Forward(_Rows):
    def __init__(self, builder, *shape):
        super().__init__(builder, *shape)
        # Chunk m has the taps from m * stride to m * stride + stride - 1: vectors loaded once, whatever uses them.
        self.chunks = {}
        for tap in range(self.taps):
            m, phase = divmod(tap * self.dilation, self.stride)
            needed = max(self.places(phase)) // self.lanes + 1
            self.chunks[m] = max(self.chunks.get(m, 0), needed)
        self.vectors = [(m, i) for m, count in self.chunks.items() for i in range(count)]

    def places(self, phase):
        """Which numbers of a chunk the lanes of a tap are; lanes beyond the block repeat its first pixel."""
        lanes = [lane if lane < self.span else lane % self.group for lane in range(self.lanes)]
        return [(phase + lane // self.group * self.stride) * self.group + lane % self.group for lane in lanes]

    def offset(self, vector):
        m, i = vector
        return m * self.stride * self.group + i * self.lanes

    def picked(self, vectors, tap):
        """The numbers of one tap: `vectors` maps (chunk, number) to vectors."""
        m, phase = divmod(tap * self.dilation, self.stride)
        places = self.places(phase)
        result = vectors[m, 0]
        if places == list(range(self.lanes)):
            return result
        order = [place if place < self.lanes else 0 for place in places]
        for i in range(max(1, self.chunks[m] - 1)):
            other = vectors.get((m, i + 1), result)
            order = [
                self.lanes + place % self.lanes if place // self.lanes == i + 1 else old
                for place, old in zip(places, order, strict=True)
            ]
            result = self.simd.shuffle(result, other, order)
            order = list(range(self.lanes))
        return result

    def place(self, block):
        builder = self.builder
        begin = builder.add(builder.mul(block, I64(self.stride * self.span)), self.shift)
        target = builder.mul(block, I64(self.span))
        reach = max(self.offset(vector) for vector in self.vectors) + self.lanes
        inside = self.all_of(
            builder.icmp_signed(">=", begin, I64(0)),
            builder.icmp_signed("<=", builder.add(begin, I64(reach)), self.source_width),
            builder.icmp_signed("<=", builder.add(target, I64(self.lanes)), self.target_width),
        )
        return _Place(begin, target, inside)

    def masks(self, place, all_lanes):
        simd = self.simd
        self.loaded = {
            vector: None
            if all_lanes
            else simd.within(
                place.source, range(self.offset(vector), self.offset(vector) + self.lanes), self.source_width
            )
            for vector in self.vectors
        }
        stored = None if all_lanes else simd.within(place.target, range(self.lanes), self.target_width)
        if self.span < self.lanes:
            stored = simd.both(stored, simd.first_lanes(I64(self.span)))
        if self.kind == MEAN:
            factors = simd.at(self.extra, self.builder.add(self.col_factors, place.target))
            self.col_factor = simd.load(factors, stored)
        if self.kind == FIRST_LARGEST:
            self.first_tap = simd.numbers(0) if all_lanes else self.first_taps(place.source)
        return stored

    def first_taps(self, begin):
        """The first tap inside the row, lane by lane: every window has one."""
        result = self.simd.numbers(0)
        for tap in reversed(range(self.taps)):
            places = [place + tap * self.dilation * self.group for place in self.places(0)]
            inside = self.simd.within(begin, places, self.source_width)
            result = self.builder.select(inside, self.simd.numbers(tap), result)
        return result

    def row(self, row, first, last, place, stored):
        target = self.builder.add(self.builder.mul(row, self.target_width), place.target)
        reduce = self.first_largest if self.kind == FIRST_LARGEST else self.separable
        reduce(row, first, last, place.source, target, stored)

    def load(self, row_offset, begin, vector, otherwise):
        place = self.builder.add(self.builder.add(row_offset, begin), I64(self.offset(vector)))
        if vector[0] == 0:  # the other chunks are the next block's first
            self.simd.prefetch(self.simd.at(self.source, place), READ)
        return self.simd.load_or(self.simd.at(self.source, place), self.loaded[vector], otherwise)

    def separable(self, row, first, last, begin, target, stored):
        builder, simd = self.builder, self.simd
        neutral, combine = (simd.lowest, simd.larger) if self.kind == LARGEST else (simd.zero(), builder.fadd)
        columns = {vector: simd.variable(neutral) for vector in self.vectors}

        def add(q, row_offset):
            for vector, column in columns.items():
                number = self.load(row_offset, begin, vector, neutral)
                builder.store(combine(number, builder.load(column)), column)

        self.over_rows(first, last, add)
        columns = {vector: builder.load(column) for vector, column in columns.items()}
        result = self.picked(columns, 0)
        for tap in range(1, self.taps):
            result = combine(self.picked(columns, tap), result)
        if self.kind == MEAN:
            row_factor = simd.broadcast(builder.load(simd.at(self.extra, row)))
            result = builder.fdiv(result, builder.fmul(self.col_factor, row_factor))
        simd.store(result, simd.at(self.target, target), stored)

    def first_largest(self, row, first, last, begin, target, stored):
        """Windows of nothing but -inf keep the code of their first cell."""
        builder, simd = self.builder, self.simd
        best = simd.variable(simd.lowest)
        code = simd.variable(builder.add(simd.splat(self.reader.entry(self.codes, first)), self.first_tap))

        def choose(q, row_offset):
            vectors = {v: self.load(row_offset, begin, v, simd.lowest) for v in self.vectors}
            row_code = simd.splat(self.reader.entry(self.codes, q))
            largest, chosen = builder.load(best), builder.load(code)
            for tap in range(self.taps):
                number = self.picked(vectors, tap)
                wins = simd.wins(number, largest)
                largest = builder.select(wins, number, largest)
                chosen = builder.select(wins, builder.add(row_code, simd.numbers(tap)), chosen)
            builder.store(largest, best)
            builder.store(chosen, code)

        self.over_rows(first, last, choose)
        simd.store(builder.load(best), simd.at(self.target, target), stored)
        simd.store_codes(builder.load(code), simd.at(self.extra, target), stored)


class _Backward(_Rows):
    """Column STRIDE * q + phase of the padded x lies in the windows q - back, tap by tap with the same phase."""

    def __init__(self, builder, *shape):
        super().__init__(builder, *shape)
        self.sources = {}  # phase -> [(back, tap)]
        for tap in range(self.taps):
            back, phase = divmod(tap * self.dilation, self.stride)
            self.sources.setdefault(phase, []).append((back, tap))
        self.backs = sorted({back for sources in self.sources.values() for back, _ in sources})

    def place(self, block):
        builder = self.builder
        begin = builder.mul(block, I64(self.span))
        target = builder.add(builder.mul(begin, I64(self.stride)), self.shift)
        inside = self.all_of(
            builder.icmp_signed(">=", builder.sub(begin, I64(self.backs[-1] * self.group)), I64(0)),
            builder.icmp_signed("<=", builder.add(begin, I64(self.lanes)), self.source_width),
            builder.icmp_signed(">=", target, I64(0)),
            builder.icmp_signed("<=", builder.add(target, I64(self.stride * self.span)), self.target_width),
        )
        return _Place(begin, target, inside)

    def masks(self, place, all_lanes):
        simd, builder = self.simd, self.builder
        self.loaded = {}
        for back in self.backs:
            offsets = [lane - back * self.group for lane in range(self.lanes)]
            self.loaded[back] = None if all_lanes else simd.within(place.source, offsets, self.source_width)
        if self.kind == SPREAD:
            factors = {b: builder.add(self.col_factors, self.behind(place.source, b)) for b in self.backs}
            self.col_factor = {b: simd.load(simd.at(self.extra, f), self.loaded[b]) for b, f in factors.items()}
        size, stored = self.stride * self.span, {}
        for start in range(0, size, self.lanes):
            lanes = range(start, start + self.lanes)
            stored[start] = None if all_lanes else simd.within(place.target, lanes, self.target_width)
            if start + self.lanes > size:
                stored[start] = simd.both(stored[start], simd.first_lanes(I64(size - start)))
        return stored

    def behind(self, begin, back):
        return self.builder.sub(begin, I64(back * self.group))

    def row(self, row, first, last, place, stored):
        phases = (self.chosen if self.kind == CHOSEN else self.spread)(first, last, place.source)
        target = self.builder.add(self.builder.mul(row, self.target_width), place.target)
        self.interleave(phases, target, stored)

    def chosen(self, first, last, begin):
        builder, simd = self.builder, self.simd
        totals = {phase: simd.variable(simd.zero()) for phase in self.sources}

        def add(q, row_offset):
            row_code = self.reader.entry(self.codes, q)
            places = {back: builder.add(row_offset, self.behind(begin, back)) for back in self.backs}
            numbers = {back: simd.load(simd.at(self.source, places[back]), self.loaded[back]) for back in self.backs}
            codes = {back: simd.load_codes(simd.at(self.extra, places[back]), self.loaded[back]) for back in self.backs}
            for phase, sources in self.sources.items():
                total = builder.load(totals[phase])
                for back, tap in sources:
                    named = simd.named(codes[back], builder.add(row_code, I64(tap)))
                    total = simd.added(total, numbers[back], named)
                builder.store(total, totals[phase])

        self.over_rows(first, last, add)
        return {phase: builder.load(total) for phase, total in totals.items()}

    def spread(self, first, last, begin):
        builder, simd = self.builder, self.simd
        totals = {back: simd.variable(simd.zero()) for back in self.backs}

        def add(q, row_offset):
            row_factor = simd.broadcast(builder.load(simd.at(self.extra, self.reader.entry(self.codes, q))))
            for back, total in totals.items():
                place = builder.add(row_offset, self.behind(begin, back))
                number = simd.load(simd.at(self.source, place), self.loaded[back])
                builder.store(simd.multiply_add(number, row_factor, builder.load(total)), total)

        self.over_rows(first, last, add)
        shares = {back: builder.fmul(builder.load(total), self.col_factor[back]) for back, total in totals.items()}
        result = {}
        for phase, sources in self.sources.items():
            result[phase] = shares[sources[0][0]]
            for back, _ in sources[1:]:
                result[phase] = builder.fadd(result[phase], shares[back])
        return result

    def interleave(self, phases, target, stored):
        """Store the phases' pixels in turn; a phase that no tap reaches is zero."""
        builder, simd = self.builder, self.simd
        size = self.stride * self.span
        for start, mask in stored.items():
            numbers = [min(start + lane, size - 1) for lane in range(self.lanes)]
            pixels = [number // self.group for number in numbers]
            chosen = [(p % self.stride, p // self.stride * self.group + n % self.group)
                      for p, n in zip(pixels, numbers, strict=True)]  # fmt: skip
            result = self.gathered(phases, chosen)
            here = simd.at(self.target, builder.add(target, I64(start)))
            simd.prefetch(here, WRITE)
            simd.store(result, here, mask)

    def gathered(self, phases, chosen):
        """Lane i is lane chosen[i][1] of phase chosen[i][0]."""
        vectors = [phases.get(phase, self.simd.zero()) for phase in range(self.stride)]
        if self.stride == 1:
            return vectors[0]
        order = [lane if phase == 0 else 0 for phase, lane in chosen]
        result = vectors[0]
        for number in range(1, self.stride):
            order = [
                self.lanes + lane if phase == number else old
                for (phase, lane), old in zip(chosen, order, strict=True)
            ]
            result = self.simd.shuffle(result, vectors[number], order)
            order = list(range(self.lanes))
        return result
