"""Pooling with vectors over columns, forward: load STRIDE vectors and pick every STRIDE-th pixel out of them.

LARGEST and MEAN reduce rows first and pick last: one shuffle per tap instead of one per tap and row.
"""

from __future__ import annotations

from fastconv._kernels.pool_row_blocks import Place, Rows
from fastconv._kernels.pool_vectors import FIRST_LARGEST, LARGEST, MEAN, READ
from fastconv._kernels.simd import I64


class Forward(Rows):
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
        target = self.begin(block, self.span, self.target_width)
        begin = builder.sub(builder.mul(target, I64(self.stride)), I64(self.before * self.group))
        reach = max(self.offset(vector) for vector in self.vectors) + self.lanes
        inside = self.all_of(
            builder.icmp_signed(">=", begin, I64(0)),
            builder.icmp_signed("<=", builder.add(begin, I64(reach)), self.source_width),
            builder.icmp_signed("<=", builder.add(target, I64(self.lanes)), self.target_width),
        )
        return Place(begin, target, inside)

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
        self.stored_codes = stored = None  # where a block is smaller than a vector, the next one overwrites the rest
        if not (all_lanes or self.whole):
            left = self.builder.sub(self.target_width, place.target)
            shorter = self.builder.icmp_signed("<", left, I64(self.span))
            self.stored_codes = self.builder.select(shorter, left, I64(self.span))
            stored = simd.first_lanes(self.stored_codes)
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
        simd.store_codes(builder.load(code), simd.at(self.extra, target), self.stored_codes)
