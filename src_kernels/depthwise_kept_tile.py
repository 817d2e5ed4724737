"""Tiles of channels-first depthwise convolution over planes kept with zeros around them.

`keep_planes` copies planes into scratch where rows begin at vectors and behind each row lie the zeros that its last
taps and the next row's first ones meet. With a stride of 2 even and odd rows and columns lie apart, as planes of their
own, so that neighbouring outputs always meet neighbours. Where two or four rows fit a vector they lie side by side in
it (7x7: 4 vectors instead of 7). Then no tile has pointers to choose or lanes to leave out: 3x3 on 14x14 planes takes
a third of the instructions of `depthwise_plane_tile`, which reads planes where they lie.

For vector units whose masks are registers (AVX-512). Callbacks take integers: addresses, and sizes in numbers.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastconv._kernels.depthwise_rows import BIAS, RELU
from fastconv._kernels.isa import LINE_BYTES, MACHINE
from fastconv._kernels.jit import compile_callback
from fastconv._kernels.simd import I8, I64, Emitter, integers, read_sizes

_MOST_HELD = 9  # weights that stay in registers: 3x3


class KeptShape(NamedTuple):
    """What is compiled in.

    A tile takes `cells` vectors, each of one output row or of `abreast` rows side by side. `rows` and `columns` say of
    each kernel row and column in which phase it meets x, and how many kept rows or numbers further on.
    """

    cells: int
    abreast: int
    rows: tuple[tuple[int, int], ...]
    columns: tuple[tuple[int, int], ...]

    @property
    def reads(self) -> dict[tuple[int, int], list[tuple[int, int]]]:
        """(phase, kept row) -> the (cell, kernel row) pairs that use it."""
        reads: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for cell in range(self.cells):
            for tap, (phase, shift) in enumerate(self.rows):
                reads.setdefault((phase, cell * self.abreast + shift), []).append((cell, tap))
        return dict(sorted(reads.items()))

    @property
    def phases(self) -> int:
        """Of rows, times those of columns."""
        return len({phase for phase, _ in self.rows}) * len({phase for phase, _ in self.columns})


class KeptSizes(NamedTuple):
    """The table that the callbacks read, as int64."""

    width: int  # of a plane of x, and its numbers
    x_plane: int
    row: int  # from one kept row to the next
    column_phase: int  # from even columns to odd ones, and from even rows to odd ones
    row_phase: int
    plane: int  # from one kept plane to the next
    columns: int  # of an output row
    out_plane: int
    w_start: int  # the first tap's weight, and from one row or column to the next
    w_row: int
    w_col: int


@cache
def keep_planes(abreast: int, row_phases: int, column_phases: int, itemsize: int):
    """Callback (sizes, kept, x, first, rows, planes): `rows` rows of each plane, from `x` on, to `kept` as its rows
    `first` and following.
    """
    ABREAST, ROWS, COLUMNS, ITEMSIZE, BITS = abreast, row_phases, column_phases, itemsize, MACHINE.vector_bits

    def keep(sizes, kept, x, first, rows, planes):
        _emit_keep(ABREAST, ROWS, COLUMNS, ITEMSIZE, BITS, sizes, kept, x, first, rows, planes)

    return compile_callback(keep, integers(6))


@cache
def correlate_kept(shape: KeptShape, itemsize: int):
    """Callback (sizes, kept, w, out, bias, ahead, rows, planes, flags): `rows` rows of each output plane.

    `kept` is the place of the first output's row and of column 0. Lines from `ahead` on are asked for, as many as the
    rows of x take that these outputs meet: what is kept next.
    """
    CELLS, ABREAST, ROWS, COLUMNS = shape.cells, shape.abreast, _flat(shape.rows), _flat(shape.columns)
    ITEMSIZE, BITS = itemsize, MACHINE.vector_bits

    def correlate(sizes, kept, w, out, bias, ahead, rows, planes, flags):
        _emit_correlate(
            CELLS, ABREAST, ROWS, COLUMNS, ITEMSIZE, BITS, sizes, kept, w, out, bias, ahead, rows, planes, flags
        )

    return compile_callback(correlate, integers(9))


@cache
def sum_kept(shape: KeptShape, itemsize: int):
    """Callback (sizes, kept, dout, sums, rows, images, kept_image, dout_image): adds to the vectors `sums` (taps) the
    products of `rows` rows of a channel's plane of dout with what they meet in its kept plane, summed over images.
    """
    CELLS, ABREAST, ROWS, COLUMNS = shape.cells, shape.abreast, _flat(shape.rows), _flat(shape.columns)
    ITEMSIZE, BITS = itemsize, MACHINE.vector_bits

    def add(sizes, kept, dout, sums, rows, images, kept_image, dout_image):
        _emit_sum(
            CELLS, ABREAST, ROWS, COLUMNS, ITEMSIZE, BITS, sizes, kept, dout, sums, rows, images, kept_image, dout_image
        )

    return compile_callback(add, integers(8))


def _flat(pairs):
    """Numba's literals are tuples of integers."""
    return tuple(number for pair in pairs for number in pair)


def _pairs(literals):
    numbers = [literal.literal_value for literal in literals]
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


@intrinsic(prefer_literal=True)
def _emit_keep(typingctx, ABREAST, ROWS, COLUMNS, ITEMSIZE, BITS, sizes, kept, x, first, rows, planes):
    def codegen(context, builder, signature, args):
        abreast, row_phases, column_phases, itemsize = (t.literal_value for t in (ABREAST, ROWS, COLUMNS, ITEMSIZE))
        _Keeper(builder, abreast, row_phases, column_phases, itemsize, args[5]).emit(*args[6:])
        return context.get_dummy_value()

    return types.void(ABREAST, ROWS, COLUMNS, ITEMSIZE, BITS, sizes, kept, x, first, rows, planes), codegen


@intrinsic(prefer_literal=True)
def _emit_correlate(
    typingctx, CELLS, ABREAST, ROWS, COLUMNS, ITEMSIZE, BITS, sizes, kept, w, out, bias, ahead, rows, planes, flags
):
    def codegen(context, builder, signature, args):
        shape = KeptShape(CELLS.literal_value, ABREAST.literal_value, _pairs(ROWS), _pairs(COLUMNS))
        _KeptEmitter(builder, shape, ITEMSIZE.literal_value, args[6]).correlate(*args[7:])
        return context.get_dummy_value()

    return types.void(
        CELLS, ABREAST, ROWS, COLUMNS, ITEMSIZE, BITS, sizes, kept, w, out, bias, ahead, rows, planes, flags
    ), codegen


@intrinsic(prefer_literal=True)
def _emit_sum(
    typingctx, CELLS, ABREAST, ROWS, COLUMNS, ITEMSIZE, BITS, sizes, kept, dout, sums, rows, images, kept_image,
    dout_image,
):  # fmt: skip
    def codegen(context, builder, signature, args):
        shape = KeptShape(CELLS.literal_value, ABREAST.literal_value, _pairs(ROWS), _pairs(COLUMNS))
        _KeptEmitter(builder, shape, ITEMSIZE.literal_value, args[6]).sum(*args[7:])
        return context.get_dummy_value()

    return types.void(
        CELLS, ABREAST, ROWS, COLUMNS, ITEMSIZE, BITS, sizes, kept, dout, sums, rows, images, kept_image, dout_image
    ), codegen


class _Keeper:
    def __init__(self, builder, abreast, row_phases, column_phases, itemsize, sizes):
        self.builder, self.simd = builder, Emitter(builder, itemsize)
        self.abreast, self.row_phases, self.column_phases = abreast, row_phases, column_phases
        self.sizes = read_sizes(self.simd, KeptSizes, sizes)

    def emit(self, kept, x, first, rows, planes):
        simd, builder, s = self.simd, self.builder, self.sizes
        kept, x, phases = simd.pointer(kept), simd.pointer(x), I64(self.row_phases)
        together = self.abreast if self.row_phases == self.column_phases == 1 else 1
        with cgutils.for_range(builder, planes) as plane:
            to = simd.at(kept, builder.mul(plane.index, s["plane"]))
            source = simd.at(x, builder.mul(plane.index, s["x_plane"]))
            with cgutils.for_range_slice(builder, I64(0), rows, I64(together)) as (row, _):
                line = simd.at(source, builder.mul(row, s["width"]))
                number = builder.add(first, row)
                target = simd.at(to, builder.mul(builder.udiv(number, phases), s["row"]))
                target = simd.at(target, builder.mul(builder.urem(number, phases), s["row_phase"]))
                if together > 1:
                    mask = rows_abreast(simd, together, s["width"], builder.sub(rows, row))
                    simd.store(simd.expanded(line, mask), target)
                else:
                    self._row(line, target)

    def _row(self, line, target):
        """One row with zeros behind it; of two phases the even columns, then the odd ones."""
        simd, builder, width, phases = self.simd, self.builder, self.sizes["width"], self.column_phases
        lanes = simd.lanes
        room = simd.first_lanes(I64(lanes // self.abreast)) if self.abreast > 1 else None
        with cgutils.for_range_slice(builder, I64(0), width, I64(phases * lanes)) as (first, _):
            firsts = [builder.add(first, I64(i * lanes)) for i in range(phases)]
            given = [simd.load(simd.at(line, i), simd.lanes_below(builder.sub(width, i))) for i in firsts]
            place = simd.at(target, builder.udiv(first, I64(phases)))
            for phase in range(phases):
                numbers = given[0] if phases == 1 else simd.shuffle(*given, list(range(phase, 2 * lanes, 2)))
                simd.store(numbers, simd.at(place, builder.mul(self.sizes["column_phase"], I64(phase))), room)


def rows_abreast(simd, abreast, width, rows):
    """The lanes of up to `abreast` rows of a vector, each of `width` numbers at its begin."""
    builder, apart = simd.builder, simd.lanes // abreast
    inside = simd.compare("<", [lane % apart for lane in range(simd.lanes)], width)
    return builder.and_(inside, simd.compare("<", [lane // apart for lane in range(simd.lanes)], rows))


class _KeptEmitter:
    def __init__(self, builder, shape: KeptShape, itemsize, sizes):
        self.builder, self.simd, self.shape = builder, Emitter(builder, itemsize), shape
        self.sizes = s = read_sizes(self.simd, KeptSizes, sizes)
        self.vectors = builder.sdiv(builder.add(s["columns"], I64(self.simd.lanes - 1)), I64(self.simd.lanes))
        self.taps = [(r, c) for r in range(len(shape.rows)) for c in range(len(shape.columns))]

    def correlate(self, kept, w, out, bias, ahead, rows, planes, flags):
        simd, builder, s = self.simd, self.builder, self.sizes
        kept, w, out, bias = (simd.pointer(p) for p in (kept, w, out, bias))
        self.ahead = cgutils.alloca_once_value(builder, simd.pointer(ahead, I8))
        self.floor = simd.floor(self._asked(flags, RELU))
        start = cgutils.alloca_once_value(builder, simd.zero())
        builder.store(simd.zero(), start)
        block = I64(self.shape.cells * self.shape.abreast)
        with cgutils.for_range(builder, planes) as plane:
            with builder.if_then(self._asked(flags, BIAS)):
                builder.store(simd.broadcast(builder.load(simd.at(bias, plane.index))), start)
            self.w = simd.at(simd.at(w, builder.mul(plane.index, I64(len(self.taps)))), s["w_start"])
            held = len(self.taps) <= _MOST_HELD
            self.held = [self._weights(column) for column in range(len(self.shape.columns))] if held else None
            of_plane = simd.at(kept, builder.mul(plane.index, s["plane"]))
            to = simd.at(out, builder.mul(plane.index, s["out_plane"]))
            with cgutils.for_range_slice(builder, I64(0), rows, block) as (row, _):
                # The last rows are computed with those before them; a plane of fewer rows than a tile has one.
                done = self._least(row, builder.sub(rows, block))
                done = builder.select(builder.icmp_signed("<", done, I64(0)), I64(0), done)
                with cgutils.for_range(builder, self.vectors) as vector:
                    first = builder.mul(vector.index, I64(simd.lanes))
                    cells = self._sums(self._lines(of_plane, done, first), builder.load(start))
                    self._store(cells, to, first, done, builder.sub(rows, done))
                    self._ask()

    def _ask(self):
        """Ask for about as many lines as the rows of x take that a tile has met."""
        place = self.builder.load(self.ahead)
        lines = self.shape.cells * self.shape.phases
        for line in range(lines):
            self.simd.prefetch(self.simd.at(place, line * LINE_BYTES))
        self.builder.store(self.simd.at(place, lines * LINE_BYTES), self.ahead)

    def _sums(self, lines, start):
        simd, builder = self.simd, self.builder
        cells = [cgutils.alloca_once(builder, simd.vector) for _ in range(self.shape.cells)]
        for cell in cells:
            builder.store(start, cell)
        for column, place in enumerate(self.shape.columns):
            weights = self.held[column] if self.held else self._weights(column)
            for read, uses in self.shape.reads.items():
                numbers = self._meet(lines[read], place)
                for cell, tap in uses:
                    builder.store(simd.multiply_add(weights[tap], numbers, builder.load(cells[cell])), cells[cell])
            simd.keep_order()  # otherwise all columns are loaded first, and spilled
        return cells

    def _store(self, cells, to, first, done, rows):
        """`rows` are those from `done` to the end of the plane's part."""
        simd, builder, columns = self.simd, self.builder, self.sizes["columns"]
        abreast = self.shape.abreast
        mask = simd.lanes_below(builder.sub(columns, first))
        together = builder.mul(columns, I64(abreast))
        for number, cell in enumerate(cells):
            value = simd.raised(builder.load(cell), self.floor)
            row = builder.add(done, I64(number * abreast))
            if abreast > 1:
                value = simd.compressed(value, rows_abreast(simd, abreast, columns, I64(abreast)))
                left = builder.mul(builder.sub(rows, I64(number * abreast)), columns)
                mask = simd.lanes_below(self._least(left, together))
            simd.store(value, simd.at(simd.at(to, builder.mul(row, columns)), first), mask)

    def sum(self, kept, dout, sums, rows, images, kept_image, dout_image):
        simd, builder = self.simd, self.builder
        kept, dout, sums = (simd.pointer(p) for p in (kept, dout, sums))
        self.sums = {tap: cgutils.alloca_once_value(builder, simd.zero()) for tap in self.taps}
        block = self.shape.cells * self.shape.abreast
        # A vector of one row is either whole or not there: what is left of a plane is taken row by row.
        whole = rows if self.shape.abreast > 1 else builder.mul(builder.sdiv(rows, I64(block)), I64(block))
        for cell in self.sums.values():
            builder.store(simd.zero(), cell)
        with cgutils.for_range(builder, images) as image:
            of_plane = simd.at(kept, builder.mul(image.index, kept_image))
            factors = simd.at(dout, builder.mul(image.index, dout_image))
            shapes = [(I64(0), whole, self.shape)]
            if self.shape.abreast == 1 and self.shape.cells > 1:
                shapes.append((whole, rows, self.shape._replace(cells=1)))
            for begin, end, shape in shapes:
                with cgutils.for_range_slice(builder, begin, end, I64(shape.cells * shape.abreast)) as (row, _):
                    with cgutils.for_range(builder, self.vectors) as vector:
                        first = builder.mul(vector.index, I64(simd.lanes))
                        self._add(of_plane, factors, first, row, builder.sub(rows, row), shape)
        for number, tap in enumerate(self.taps):
            place = simd.at(sums, number * simd.lanes)
            simd.store(builder.fadd(simd.load(place), builder.load(self.sums[tap])), place)

    def _add(self, of_plane, factors, first, row, rows, shape):
        """The products of a tile: each kept vector is loaded once for all (cell, kernel row) pairs that meet there.

        Lanes outside `dout` keep their sums: what lies beside a row in scratch may be infinite.
        """
        simd, builder, columns = self.simd, self.builder, self.sizes["columns"]
        lines = self._lines(of_plane, row, first, shape)
        factor_row = simd.at(simd.at(factors, builder.mul(row, columns)), first)
        cells, same = [], shape.abreast == 1
        for cell in range(shape.cells):
            place = simd.at(factor_row, builder.mul(columns, I64(cell * shape.abreast)))
            if shape.abreast > 1:
                mask = rows_abreast(simd, shape.abreast, columns, builder.sub(rows, I64(cell * shape.abreast)))
                cells.append((simd.expanded(place, mask), mask))
            else:
                mask = simd.lanes_below(builder.sub(columns, first))
                cells.append((simd.load(place, mask), mask))
        for column, place in enumerate(shape.columns):
            totals = [builder.load(self.sums[tap, column]) for tap in range(len(shape.rows))]
            before = list(totals)
            for read, uses in shape.reads.items():
                numbers = self._meet(lines[read], place)
                for cell, tap in uses:
                    factor, mask = cells[cell]
                    grown = simd.multiply_add(numbers, factor, totals[tap])
                    totals[tap] = grown if same else builder.select(mask, grown, totals[tap])
            for tap, total in enumerate(totals):
                if same:
                    total = builder.select(cells[0][1], total, before[tap])
                builder.store(simd.compute_here(total), self.sums[tap, column])

    def _lines(self, of_plane, row, first, shape=None):
        """Pointers to the kept rows that a tile at an output row and column meets."""
        simd, builder, s, shape = self.simd, self.builder, self.sizes, shape or self.shape
        lines = {}
        for phase, read in shape.reads:
            line = simd.at(simd.at(of_plane, first), builder.mul(s["row"], builder.add(row, I64(read))))
            lines[phase, read] = simd.at(line, s["row_phase"]) if phase else line
        return lines

    def _meet(self, line, place):
        phase, shift = place
        if phase:
            line = self.simd.at(line, self.sizes["column_phase"])
        return self.simd.load(self.simd.at(line, shift))

    def _weights(self, column):
        builder, simd, s = self.builder, self.simd, self.sizes
        first = simd.at(self.w, builder.mul(s["w_col"], I64(column)))
        places = [simd.at(first, builder.mul(s["w_row"], I64(row))) for row in range(len(self.shape.rows))]
        return [simd.broadcast(builder.load(place)) for place in places]

    def _least(self, a, b):
        return self.builder.select(self.builder.icmp_signed("<", a, b), a, b)

    def _asked(self, flags, flag):
        return self.builder.icmp_signed("!=", self.builder.and_(flags, I64(flag)), I64(0))
