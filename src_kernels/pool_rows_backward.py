"""Pooling with vectors over columns, backward: a vector for each phase of the stride, then interleave them."""

from __future__ import annotations

from fastconv._kernels.pool_row_blocks import Place, Rows
from fastconv._kernels.pool_vectors import CHOSEN, SPREAD, WRITE
from fastconv._kernels.simd import I64


class Backward(Rows):
    """Column STRIDE * q + phase of x lies in the windows q - back, where STRIDE * back + phase = tap - BEFORE."""

    def __init__(self, builder, *shape):
        super().__init__(builder, *shape)
        self.sources = {}  # phase -> [(back, tap)]
        for tap in range(self.taps):
            back, phase = divmod(tap * self.dilation - self.before, self.stride)
            self.sources.setdefault(phase, []).append((back, tap))
        self.backs = sorted({back for sources in self.sources.values() for back, _ in sources})

    def place(self, block):
        builder = self.builder
        size = self.stride * self.span
        target = self.begin(block, size, self.target_width)
        begin = builder.sdiv(target, I64(self.stride))
        stored = -(-size // self.lanes) * self.lanes  # where that is more than the block, the next one overwrites it
        inside = self.all_of(
            builder.icmp_signed(">=", self.behind(begin, self.backs[-1]), I64(0)),
            builder.icmp_signed(
                "<=", builder.add(self.behind(begin, self.backs[0]), I64(self.lanes)), self.source_width
            ),
            builder.icmp_signed("<=", builder.add(target, I64(stored)), self.target_width),
        )
        return Place(begin, target, inside)

    def masks(self, place, all_lanes):
        simd, builder = self.simd, self.builder
        self.loaded, self.windows = {}, {}
        for back in self.backs:
            window = self.behind(place.source, back)
            self.loaded[back] = None if all_lanes else simd.within(window, range(self.lanes), self.source_width)
            self.windows[back] = window if all_lanes else self.near(window)
        if self.kind == SPREAD:
            factors = {b: builder.add(self.col_factors, window) for b, window in self.windows.items()}
            self.col_factor = {b: simd.load(simd.at(self.extra, f), self.loaded[b]) for b, f in factors.items()}
        size, stored = self.stride * self.span, {}
        for start in range(0, size, self.lanes):
            lanes = range(start, start + self.lanes)
            stored[start] = None
            if not (all_lanes or self.whole):
                inside = simd.within(place.target, lanes, self.target_width)
                stored[start] = builder.and_(inside, simd.first_lanes(I64(size - start)))
        return stored

    def behind(self, begin, back):
        return self.builder.sub(begin, I64(back * self.group))

    def near(self, window):
        """A place at most a vector outside of the row: further out, all lanes are masked anyway."""
        least, builder = I64(-self.lanes), self.builder
        window = builder.select(builder.icmp_signed("<", window, least), least, window)
        return builder.select(builder.icmp_signed("<", window, self.source_width), window, self.source_width)

    def row(self, row, first, last, place, stored):
        phases = (self.chosen if self.kind == CHOSEN else self.spread)(first, last)
        target = self.builder.add(self.builder.mul(row, self.target_width), place.target)
        self.interleave(phases, target, stored)

    def chosen(self, first, last):
        builder, simd = self.builder, self.simd
        totals = {phase: simd.variable(simd.zero()) for phase in self.sources}

        def add(q, row_offset):
            row_code = simd.splat(self.reader.entry(self.codes, q))
            places = {back: builder.add(row_offset, window) for back, window in self.windows.items()}
            numbers, taps = {}, {}
            for back, place in places.items():
                numbers[back] = simd.load(simd.at(self.source, place), self.loaded[back])
                codes = simd.load_codes(simd.at(self.extra, place))
                taps[back] = builder.sub(codes, row_code)  # in windows of this row the tap of the column
            for phase, sources in self.sources.items():
                total = builder.load(totals[phase])
                for back, tap in sources:
                    named = builder.icmp_unsigned("==", taps[back], simd.numbers(tap))
                    total = simd.added(total, numbers[back], named)
                builder.store(total, totals[phase])

        self.over_rows(first, last, add)
        return {phase: builder.load(total) for phase, total in totals.items()}

    def spread(self, first, last):
        builder, simd = self.builder, self.simd
        totals = {back: simd.variable(simd.zero()) for back in self.backs}

        def add(q, row_offset):
            row_factor = simd.broadcast(builder.load(simd.at(self.extra, self.reader.entry(self.codes, q))))
            for back, total in totals.items():
                place = builder.add(row_offset, self.windows[back])
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
                self.lanes + lane if phase == number else old for (phase, lane), old in zip(chosen, order, strict=True)
            ]
            result = self.simd.shuffle(result, vectors[number], order)
            order = list(range(self.lanes))
        return result
