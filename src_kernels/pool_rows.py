"""Pooling with vectors over the columns of a plane: windows of a small constant size, stride and dilation.

Rows are WIDE groups of GROUP numbers: single columns with channels first, pixels of few channels with channels last. A
block is as many pixels as fit into one vector per column of the stride: `span` numbers of out or dout, STRIDE times as
many of x. Forward loads STRIDE vectors and picks every STRIDE-th pixel out of them; backward makes one vector per
phase of the stride and interleaves them. Blocks at the ends of rows load and store with masks.

The kernels of LARGEST and MEAN reduce rows first and pick last (one shuffle per tap instead of one per tap and row).
"""

from __future__ import annotations

from functools import cache

from numba import types
from numba.core import cgutils
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
        blocks = reader.field(BLOCKS)
        with simd.over(begin, end) as row:
            first, last = reader.entry(starts, row), reader.entry(starts, builder.add(row, I64(1)))
            with cgutils.for_range(builder, blocks) as block:
                self.block(row, first, last, block.index)

    def over_rows(self, first, last, body):
        """body(number in the lists, offset of the row of source) for all rows that this row is made of."""
        self.simd.for_each(first, last, self.usual, lambda q: body(q, self.reader.entry(self.cells, q)))

    def in_or_at_the_edge(self, inside, body):
        """body(True) where every lane lies inside the row, else body(False), with masks."""
        with self.builder.if_else(inside) as (whole, partial):
            for branch, all_lanes in ((whole, True), (partial, False)):
                with branch:
                    body(all_lanes)

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

    def block(self, row, first, last, block):
        builder, simd = self.builder, self.simd
        begin = builder.add(builder.mul(block, I64(self.stride * self.span)), self.shift)
        out_begin = builder.mul(block, I64(self.span))
        reach = max(self.offset(vector) for vector in self.vectors) + self.lanes
        inside = self.all_of(
            builder.icmp_signed(">=", begin, I64(0)),
            builder.icmp_signed("<=", builder.add(begin, I64(reach)), self.source_width),
            builder.icmp_signed("<=", builder.add(out_begin, I64(self.lanes)), self.target_width),
        )

        def body(all_lanes):
            masks = {
                vector: None
                if all_lanes
                else simd.within(begin, range(self.offset(vector), self.offset(vector) + self.lanes), self.source_width)
                for vector in self.vectors
            }
            stored = None if all_lanes else simd.within(out_begin, range(self.lanes), self.target_width)
            if self.span < self.lanes:
                stored = simd.both(stored, simd.first_lanes(I64(self.span)))
            place = builder.add(builder.mul(row, self.target_width), out_begin)
            reduce = self.first_largest if self.kind == FIRST_LARGEST else self.separable
            reduce(row, first, last, begin, out_begin, place, masks, stored)

        self.in_or_at_the_edge(inside, body)

    def load(self, row_offset, begin, vector, mask, otherwise):
        place = self.builder.add(self.builder.add(row_offset, begin), I64(self.offset(vector)))
        if vector[0] == 0:  # the other chunks are the next block's first
            self.simd.prefetch(self.simd.at(self.source, place), READ)
        return self.simd.load_or(self.simd.at(self.source, place), mask, otherwise)

    def separable(self, row, first, last, begin, out_begin, place, masks, stored):
        builder, simd = self.builder, self.simd
        neutral, combine = (simd.lowest, simd.larger) if self.kind == LARGEST else (simd.zero(), builder.fadd)
        columns = {vector: simd.variable(neutral) for vector in self.vectors}

        def add(q, row_offset):
            for vector, column in columns.items():
                number = self.load(row_offset, begin, vector, masks[vector], neutral)
                builder.store(combine(number, builder.load(column)), column)

        self.over_rows(first, last, add)
        columns = {vector: builder.load(column) for vector, column in columns.items()}
        result = self.picked(columns, 0)
        for tap in range(1, self.taps):
            result = combine(self.picked(columns, tap), result)
        if self.kind == MEAN:
            row_factor = simd.broadcast(builder.load(simd.at(self.extra, row)))
            factors = simd.at(self.extra, builder.add(self.col_factors, out_begin))
            result = builder.fdiv(result, builder.fmul(simd.load(factors, stored), row_factor))
        simd.store(result, simd.at(self.target, place), stored)

    def first_largest(self, row, first, last, begin, out_begin, place, masks, stored):
        """Windows of nothing but -inf keep the code of their first cell inside the row, which every window has."""
        builder, simd = self.builder, self.simd
        best = simd.variable(simd.lowest)
        code = simd.variable(simd.splat(self.reader.entry(self.codes, first)))
        if stored is not None:
            with builder.if_then(builder.icmp_signed("<", begin, I64(0))):
                inner = simd.numbers(0)
                for tap in reversed(range(self.taps)):
                    places = [place + tap * self.dilation * self.group for place in self.places(0)]
                    inside = simd.within(begin, places, self.source_width)
                    inner = builder.select(inside, simd.numbers(tap), inner)
                builder.store(builder.add(builder.load(code), inner), code)

        def choose(q, row_offset):
            vectors = {v: self.load(row_offset, begin, v, masks[v], simd.lowest) for v in self.vectors}
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
        simd.store(builder.load(best), simd.at(self.target, place), stored)
        simd.store_codes(builder.load(code), simd.at(self.extra, place), stored)


class _Backward(_Rows):
    """Column STRIDE * q + phase of the padded x lies in the windows q - back, tap by tap with the same phase."""

    def __init__(self, builder, *shape):
        super().__init__(builder, *shape)
        self.sources = {}  # phase -> [(back, tap)]
        for tap in range(self.taps):
            back, phase = divmod(tap * self.dilation, self.stride)
            self.sources.setdefault(phase, []).append((back, tap))
        self.backs = sorted({back for sources in self.sources.values() for back, _ in sources})

    def block(self, row, first, last, block):
        builder, simd = self.builder, self.simd
        begin = builder.mul(block, I64(self.span))
        dx_begin = builder.add(builder.mul(begin, I64(self.stride)), self.shift)
        inside = self.all_of(
            builder.icmp_signed(">=", builder.sub(begin, I64(self.backs[-1] * self.group)), I64(0)),
            builder.icmp_signed("<=", builder.add(begin, I64(self.lanes)), self.source_width),
            builder.icmp_signed(">=", dx_begin, I64(0)),
            builder.icmp_signed("<=", builder.add(dx_begin, I64(self.stride * self.span)), self.target_width),
        )

        def body(all_lanes):
            masks = {}
            for back in self.backs:
                offsets = [lane - back * self.group for lane in range(self.lanes)]
                masks[back] = None if all_lanes else simd.within(begin, offsets, self.source_width)
            phases = (self.chosen if self.kind == CHOSEN else self.spread)(first, last, begin, masks)
            self.interleave(phases, row, dx_begin, all_lanes)

        self.in_or_at_the_edge(inside, body)

    def chosen(self, first, last, begin, masks):
        builder, simd = self.builder, self.simd
        totals = {phase: simd.variable(simd.zero()) for phase in self.sources}

        def add(q, row_offset):
            row_code = self.reader.entry(self.codes, q)
            places = {back: builder.add(row_offset, builder.sub(begin, I64(back * self.group))) for back in self.backs}
            numbers = {back: simd.load(simd.at(self.source, places[back]), masks[back]) for back in self.backs}
            codes = {back: simd.load_codes(simd.at(self.extra, places[back]), masks[back]) for back in self.backs}
            for phase, sources in self.sources.items():
                total = builder.load(totals[phase])
                for back, tap in sources:
                    named = simd.named(codes[back], builder.add(row_code, I64(tap)))
                    total = simd.added(total, numbers[back], named)
                builder.store(total, totals[phase])

        self.over_rows(first, last, add)
        return {phase: builder.load(total) for phase, total in totals.items()}

    def spread(self, first, last, begin, masks):
        builder, simd = self.builder, self.simd
        totals = {back: simd.variable(simd.zero()) for back in self.backs}

        def add(q, row_offset):
            row_factor = simd.broadcast(builder.load(simd.at(self.extra, self.reader.entry(self.codes, q))))
            for back, total in totals.items():
                place = builder.add(row_offset, builder.sub(begin, I64(back * self.group)))
                number = simd.load(simd.at(self.source, place), masks[back])
                builder.store(simd.multiply_add(number, row_factor, builder.load(total)), total)

        self.over_rows(first, last, add)
        shares = {}
        for back, total in totals.items():
            place = builder.add(self.col_factors, builder.sub(begin, I64(back * self.group)))
            factor = simd.load(simd.at(self.extra, place), masks[back])
            shares[back] = builder.fmul(builder.load(total), factor)
        result = {}
        for phase, sources in self.sources.items():
            result[phase] = shares[sources[0][0]]
            for back, _ in sources[1:]:
                result[phase] = builder.fadd(result[phase], shares[back])
        return result

    def interleave(self, phases, row, dx_begin, all_lanes):
        """Store the phases' pixels in turn; a phase that no tap reaches is zero."""
        builder, simd = self.builder, self.simd
        size = self.stride * self.span
        place = builder.add(builder.mul(row, self.target_width), dx_begin)
        for start in range(0, size, self.lanes):
            numbers = [min(start + lane, size - 1) for lane in range(self.lanes)]
            pixels = [number // self.group for number in numbers]
            chosen = [(p % self.stride, p // self.stride * self.group + n % self.group)
                      for p, n in zip(pixels, numbers, strict=True)]  # fmt: skip
            result = self.gathered(phases, chosen)
            stored = None if all_lanes else simd.within(dx_begin, range(start, start + self.lanes), self.target_width)
            if start + self.lanes > size:
                stored = simd.both(stored, simd.first_lanes(I64(size - start)))
            here = simd.at(self.target, builder.add(place, I64(start)))
            simd.prefetch(here, WRITE)
            simd.store(result, here, stored)

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
