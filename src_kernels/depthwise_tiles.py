"""The tiles of depthwise convolution: a few output rows at a time, read in place, each row loaded once per column tap.

    out[m][v] = bias + sum over taps (r, t) of  w[r, t] * x[row + m * stride + r * spacing][column(t) + v]

A tile holds one vector of each of `cells` neighbouring output rows and loops over the taps along a row; at each it
loads the input rows that the cells need and uses every one for all (cell, row tap) pairs that meet there: 9 loads
instead of 21 for 7 cells of a 3x3 kernel. Padding is not copied: rows outside the plane are read from a row of zeros,
columns outside are masked. The gradient of x is the same sum over dout with other offsets, one per stride phase.

* `plane_tile`, channels-first: lanes are columns, weights are broadcast. Stride 2 is undone by shuffles of two vectors,
  larger strides by gathers; a gradient with stride 2 makes both column phases and interleaves them.
* `pixel_tile`, channels-last: lanes are channels, weights are vectors; a table lists each output column's taps.

Kernels with more row taps than registers, or that lie too far apart to share rows, take `taps` 1: the tile loops over
`groups` row taps outside. Only cells below `rows` and columns (channels) that exist are stored, and nothing outside
the given plane or row of zeros is read. Sizes, offsets and tables count numbers (int64); addresses are integers.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastconv._kernels.isa import MACHINE
from fastconv._kernels.jit import compile_callback
from fastconv._kernels.simd import I64, Emitter, integers

# How far ahead of its rows a tile of planes prefetches: 4 to 16 KB do the same (8x32x112x112: 790 us), 2 KB less (940),
# the next block of rows much less (1330): too late to help, and two thirds of it are already there.
_AHEAD_BYTES = 4096

ADD, BIAS, RELU = 1, 2, 4  # flags: out += result; bias per plane or channel; max(., 0)


class Rows(NamedTuple):
    """What is unrolled: `cells` output rows, `taps` row taps; rows of a cell's neighbour and of the next tap."""

    cells: int
    taps: int
    stride: int
    spacing: int

    @property
    def reads(self) -> dict[int, list[tuple[int, int]]]:
        """Input row -> the (cell, tap) pairs that use it."""
        reads: dict[int, list[tuple[int, int]]] = {}
        for cell in range(self.cells):
            for tap in range(self.taps):
                reads.setdefault(cell * self.stride + tap * self.spacing, []).append((cell, tap))
        return dict(sorted(reads.items()))


class PlaneSizes(NamedTuple):
    """Channels-first: the table that `plane_tile` reads, as int64."""

    height: int  # rows and columns of an input plane
    width: int
    x_plane: int  # from one plane to the next
    out_plane: int
    w_plane: int
    out_cell: int  # from one cell to the next
    cell_row: int  # taps 1 only: input rows and columns from one cell to the next
    cell_column: int
    groups: int  # taps 1 only: row taps, and the rows between two
    group_row: int
    w_row: int  # from one row tap to the next
    cell_outputs: int  # output columns from one cell to the next: not 0 where cells are segments of one row
    vectors: int  # of each cell
    inside_first: int  # vectors whose loads and stores need no mask
    inside_end: int
    vector_step: int  # input columns from one vector to the next
    columns: int  # output columns, all phases
    load_step: int  # input columns from lane to lane
    store_step: int  # output columns from lane to lane where one phase is stored alone
    taps_0: int  # entries of the tap table of each column phase: (input column, weight)
    taps_1: int
    block: int  # output rows of one pass over the columns: all cells, or 1 for segments
    out_row: int
    row_step: int  # input rows from one output row to the next


class PixelSizes(NamedTuple):
    """Channels-last: the table that `pixel_tile` reads, as int64."""

    height: int
    x_row: int
    x_tap: int  # from one column tap to the next
    w_tap: int
    w_row: int  # from one row tap to the next
    out_cell: int
    out_column: int
    columns: int  # entries of the column table: (input place of the first tap, its weight, taps)
    cell_row: int  # taps 1 only, as above
    groups: int
    group_row: int
    taps: int  # column taps
    x_column: int  # from the window of one output column to the next


@cache
def plane_tile(rows: Rows, load_step: int, phases: int, column_taps: tuple[int, int], segments: bool, itemsize: int):
    """Callback (sizes, table, x, zeros, w, out, bias, row, rows, planes, flags): `rows` rows of `planes` planes.

    `load_step` 1 or 2 or 0 (any: a gather); `phases` column phases are interleaved (2), stored (1) or scattered (0).
    With `segments` the cells are pieces of one row. `zeros` is a row of zeros; `row` is the first cell's first row.
    """
    CELLS, TAPS, STRIDE, SPACING = rows
    (TAPS_0, TAPS_1), LOAD_STEP, PHASES, SEGMENTS = column_taps, load_step, phases, int(segments)
    ITEMSIZE, BITS = itemsize, MACHINE.vector_bits

    def tile(sizes, table, x, zeros, w, out, bias, row, rows, planes, flags):
        _emit_planes(
            CELLS, TAPS, STRIDE, SPACING, LOAD_STEP, PHASES, TAPS_0, TAPS_1, SEGMENTS, ITEMSIZE, BITS,
            sizes, table, x, zeros, w, out, bias, row, rows, planes, flags,
        )  # fmt: skip

    return compile_callback(tile, integers(11))


@cache
def pixel_tile(rows: Rows, itemsize: int):
    """Callback (sizes, table, x, zeros, w, out, bias, row, rows, channels, flags) over all output columns.

    `zeros` covers all column taps of a pixel; `channels` of each pixel are computed.
    """
    CELLS, TAPS, STRIDE, SPACING = rows
    ITEMSIZE, BITS = itemsize, MACHINE.vector_bits

    def tile(sizes, table, x, zeros, w, out, bias, row, rows, channels, flags):
        _emit_pixels(
            CELLS, TAPS, STRIDE, SPACING, ITEMSIZE, BITS,
            sizes, table, x, zeros, w, out, bias, row, rows, channels, flags,
        )  # fmt: skip

    return compile_callback(tile, integers(11))


@intrinsic(prefer_literal=True)
def _emit_planes(
    typingctx, CELLS, TAPS, STRIDE, SPACING, LOAD_STEP, PHASES, TAPS_0, TAPS_1, SEGMENTS, ITEMSIZE, BITS,
    sizes, table, x, zeros, w, out, bias, row, rows, planes, flags,
):  # fmt: skip
    shape = [t.literal_value for t in (CELLS, TAPS, STRIDE, SPACING)]
    load_step, phases, segments, itemsize = (t.literal_value for t in (LOAD_STEP, PHASES, SEGMENTS, ITEMSIZE))
    column_taps = TAPS_0.literal_value, TAPS_1.literal_value

    def codegen(context, builder, signature, args):
        PlaneEmitter(builder, Rows(*shape), load_step, phases, column_taps, segments, itemsize).emit(*args[11:])
        return context.get_dummy_value()

    return types.void(
        CELLS, TAPS, STRIDE, SPACING, LOAD_STEP, PHASES, TAPS_0, TAPS_1, SEGMENTS, ITEMSIZE, BITS,
        sizes, table, x, zeros, w, out, bias, row, rows, planes, flags,
    ), codegen  # fmt: skip


@intrinsic(prefer_literal=True)
def _emit_pixels(
    typingctx, CELLS, TAPS, STRIDE, SPACING, ITEMSIZE, BITS,
    sizes, table, x, zeros, w, out, bias, row, rows, channels, flags,
):  # fmt: skip
    shape = [t.literal_value for t in (CELLS, TAPS, STRIDE, SPACING)]
    itemsize = ITEMSIZE.literal_value

    def codegen(context, builder, signature, args):
        _PixelEmitter(builder, Rows(*shape), itemsize).emit(*args[6:])
        return context.get_dummy_value()

    return types.void(
        CELLS, TAPS, STRIDE, SPACING, ITEMSIZE, BITS,
        sizes, table, x, zeros, w, out, bias, row, rows, channels, flags,
    ), codegen  # fmt: skip


def read_sizes(simd: Emitter, kind, address) -> dict:
    """The fields of a NamedTuple of sizes, loaded from its int64 table."""
    table = simd.pointer(address, I64)
    return {name: simd.builder.load(simd.at(table, i)) for i, name in enumerate(kind._fields)}


class RowsEmitter:
    """Accumulators of the cells: cleared, summed up over taps, stored."""

    def __init__(self, builder: ir.IRBuilder, rows: Rows, itemsize: int):
        self.builder, self.rows, self.simd = builder, rows, Emitter(builder, itemsize)

    def row_pointers(self, x, zeros, row, step):
        """Pointers to the input rows that the cells read, from row number `row` on; `zeros` for those outside."""
        pointers = {}
        for read in self.rows.reads:
            number = self.builder.add(row, I64(read) if step is None else self.builder.mul(step, I64(read)))
            pointers[read] = self.select_row(x, zeros, number)
        return pointers

    def select_row(self, x, zeros, number):
        builder, sizes = self.builder, self.sizes
        inside = builder.icmp_unsigned("<", number, sizes["height"])
        return builder.select(inside, self.simd.at(x, builder.mul(number, sizes["x_row"])), zeros)

    def cleared(self, value, count):
        """`count` vectors that start as `value`: LLVM turns them into registers."""
        cells = [cgutils.alloca_once_value(self.builder, self.simd.zero()) for _ in range(count)]
        for cell in cells:
            self.builder.store(value, cell)
        return cells

    def multiply(self, cells, pointers, load, weights):
        """Every cell's sum grows by the row taps at one column tap."""
        builder = self.builder
        for read, uses in self.rows.reads.items():
            vector = load(read, pointers[read])
            for cell, tap in uses:
                total = self.simd.multiply_add(weights[tap], vector, builder.load(cells[cell]))
                builder.store(total, cells[cell])

    def cell_places(self, out):
        """Where each cell is stored; cells at or beyond `count` share the last one's place.

        Cells are stored last to first, so that what belongs there comes last. Branches around the stores would take
        the sums with them: LLVM then computes cell after cell, each a chain that waits for itself.
        """
        builder, last = self.builder, self.builder.sub(self.count, I64(1))
        cells = [I64(cell) for cell in range(self.rows.cells)]
        present = [builder.select(builder.icmp_signed("<", cell, last), cell, last) for cell in cells]
        return [self.simd.at(out, builder.mul(cell, self.sizes["out_cell"])) for cell in present]

    def asked(self, flags, flag):
        return self.builder.icmp_signed("!=", self.builder.and_(flags, I64(flag)), I64(0))

    def least(self, flags):
        """The lower bound of results: zero for ReLU, otherwise none."""
        scalar = self.simd.scalar
        return self.simd.broadcast(self.builder.select(self.asked(flags, RELU), scalar(0.0), scalar(float("-inf"))))

    def bounded(self, value, least):
        """max(value, least) that keeps NaN."""
        return self.builder.select(self.builder.fcmp_ordered("<", value, least), least, value)


class PlaneEmitter(RowsEmitter):
    def __init__(self, builder, rows, load_step, phases, column_taps, segments, itemsize):
        super().__init__(builder, rows, itemsize)
        self.load_step, self.phases, self.segments = load_step, phases, segments
        self.column_taps = None if column_taps[0] < 0 else column_taps[: max(phases, 1)]

    def emit(self, sizes, table, x, zeros, w, out, bias, row, rows, planes, flags):
        simd, builder = self.simd, self.builder
        self.sizes = s = read_sizes(simd, PlaneSizes, sizes)
        s["x_row"] = s["width"]
        x, zeros, w, out, bias = (simd.pointer(p) for p in (x, zeros, w, out, bias))
        self.table, self.zeros, self.flags = simd.pointer(table, I64), zeros, flags
        start = cgutils.alloca_once_value(builder, simd.zero())
        builder.store(simd.zero(), start)
        self.bound = self.least(flags)
        with cgutils.for_range(builder, planes) as plane:
            with builder.if_then(self.asked(flags, BIAS)):
                builder.store(simd.broadcast(builder.load(simd.at(bias, plane.index))), start)
            x_plane = simd.at(x, builder.mul(plane.index, s["x_plane"]))
            w_plane = simd.at(w, builder.mul(plane.index, s["w_plane"]))
            out_plane = simd.at(out, builder.mul(plane.index, s["out_plane"]))
            self.unrolled = self._load_taps(w_plane) if self.column_taps is not None else None
            blocks = builder.sdiv(builder.add(rows, builder.sub(s["block"], I64(1))), s["block"])
            with cgutils.for_range(builder, blocks) as block:
                done = builder.mul(block.index, s["block"])
                self.row = builder.add(row, builder.mul(done, s["row_step"]))
                self.count = I64(self.rows.cells) if self.segments else builder.sub(rows, done)
                out_block = simd.at(out_plane, builder.mul(done, s["out_row"]))
                self._block(x_plane, w_plane, out_block, builder.load(start))

    def _block(self, x, w, out, start):
        builder, s = self.builder, self.sizes
        pointers = None if self.rows.taps == 1 else self.row_pointers(x, self.zeros, self.row, None)
        with cgutils.for_range(builder, s["vectors"]) as v:
            with builder.if_else(self.inside(v.index)) as (whole, border):
                for branch, masked in ((whole, False), (border, True)):
                    with branch:
                        self._vector(v.index, x, w, out, pointers, start, masked)

    def inside(self, v):
        """Whether vector `v` needs no masks."""
        builder, s = self.builder, self.sizes
        return builder.and_(
            builder.icmp_signed(">=", v, s["inside_first"]), builder.icmp_signed("<", v, s["inside_end"])
        )

    def _vector(self, v, x, w, out, pointers, start, masked):
        """One vector of all cells and phases."""
        builder, s, phases = self.builder, self.sizes, max(self.phases, 1)
        first = builder.mul(v, s["vector_step"])
        if not self.segments:
            self._prefetch(x, first)
        results = []
        for phase in range(phases):
            cells = self.cleared(start, self.rows.cells)
            before = s["taps_0"] if phase else I64(0)
            if self.unrolled is not None:
                for offset, weights in self.unrolled[phase]:
                    self._column_tap(cells, pointers, builder.add(first, offset), weights, masked)
            elif pointers is not None:
                self._column_taps(cells, pointers, first, before, s[f"taps_{phase}"], w, masked)
            else:
                with cgutils.for_range(builder, s["groups"]) as group:
                    row = builder.add(self.row, builder.mul(group.index, s["group_row"]))
                    w_row = self.simd.at(w, builder.mul(group.index, s["w_row"]))
                    rows = self.cell_pointers(x, row)
                    self._column_taps(cells, rows, first, before, s[f"taps_{phase}"], w_row, masked)
            results.append(cells)
        self._store_cells(v, out, results, masked)

    def _prefetch(self, x, first):
        """Ask for what comes `_AHEAD_BYTES` after the rows that are read now; planes lie one after the other."""
        builder, s = self.builder, self.sizes
        rows = self.rows.cells * self.rows.stride
        base = builder.add(
            builder.mul(self.row, s["x_row"]), builder.add(first, I64(_AHEAD_BYTES // self.simd.itemsize))
        )
        for row in range(rows):
            pointer = self.simd.at(x, builder.add(base, builder.mul(s["x_row"], I64(row))))
            for i in range(max(self.load_step, 1)):
                self.simd.prefetch(self.simd.at(pointer, i * self.simd.lanes))

    def cell_pointers(self, x, row):
        builder, s = self.builder, self.sizes
        pointers = {}
        for cell in range(self.rows.cells):
            number = builder.add(row, builder.mul(s["cell_row"], I64(cell)))
            pointer = self.select_row(x, self.zeros, number)
            pointers[cell * self.rows.stride] = self.simd.at(pointer, builder.mul(s["cell_column"], I64(cell)))
        return pointers

    def _column_taps(self, cells, pointers, first, before, count, w, masked):
        builder, simd = self.builder, self.simd
        with cgutils.for_range(builder, count) as tap:
            entry = simd.at(self.table, builder.mul(builder.add(before, tap.index), I64(2)))
            column = builder.add(first, builder.load(entry))
            w_tap = simd.at(w, builder.load(simd.at(entry, 1)))
            self._column_tap(cells, pointers, column, self._weights(w_tap), masked)

    def _load_taps(self, w):
        """(column, weights of its row taps) of every column tap of each phase: they stay in registers."""
        builder, simd, first = self.builder, self.simd, 0
        phases = []
        for count in self.column_taps:
            entries = [simd.at(self.table, 2 * tap) for tap in range(first, first + count)]
            places = [simd.at(w, builder.load(simd.at(entry, 1))) for entry in entries]
            weights = [self._weights(place) for place in places]
            phases.append(list(zip([builder.load(entry) for entry in entries], weights, strict=True)))
            first += count
        return phases

    def _weights(self, w):
        builder, simd, step = self.builder, self.simd, self.sizes["w_row"]
        rows = range(self.rows.taps)
        return [simd.broadcast(builder.load(simd.at(w, builder.mul(step, I64(row))))) for row in rows]

    def _column_tap(self, cells, pointers, column, weights, masked):
        self.multiply(cells, pointers, self.loader(column, masked), weights)

    def loader(self, column, masked):
        """The function that loads the vector of an input row for the tap at `column`."""
        builder = self.builder
        masks = self._masks(column) if masked and not self.segments else None

        def load(read, pointer):
            own = masks
            if masked and self.segments:
                shift = builder.mul(self.sizes["cell_column"], I64(read // self.rows.stride))
                own = self._masks(builder.add(column, shift))
            return self._load(self.simd.at(pointer, column), own)

        return load

    def _masks(self, column):
        """Which lanes of a load at `column` lie inside the plane; for load step 2, of both vectors."""
        builder, simd, width = self.builder, self.simd, self.sizes["width"]
        if self.load_step:
            starts = [builder.add(column, I64(i * simd.lanes)) for i in range(self.load_step)]
            return [simd.lanes_inside(start, width) for start in starts]
        step = self.sizes["load_step"]
        # Lane i reads column + i * step: inside for the i from `low` up to `high`.
        low = builder.sdiv(builder.sub(builder.sub(step, I64(1)), column), step)
        low = builder.select(builder.icmp_signed("<", column, I64(0)), low, I64(0))
        high = builder.sdiv(builder.sub(builder.add(width, builder.sub(step, I64(1))), column), step)
        return [builder.and_(simd.first_lanes(high), builder.not_(simd.first_lanes(low)))]

    def _load(self, pointer, masks):
        simd = self.simd
        if self.load_step == 1:
            return simd.load(pointer, masks and masks[0])
        if self.load_step == 2:
            a = simd.load(pointer, masks and masks[0])
            b = simd.load(simd.at(pointer, simd.lanes), masks and masks[1])
            return simd.shuffle(a, b, list(range(0, 2 * simd.lanes, 2)))
        return simd.gather(pointer, self.sizes["load_step"], masks[0] if masks else simd.first_lanes(I64(simd.lanes)))

    def _store_cells(self, v, out, results, masked):
        builder, simd, s = self.builder, self.simd, self.sizes
        lanes, vectors, alone = simd.lanes, len(results), self.phases == 0
        step = s["store_step"] if alone else I64(1)
        places = [builder.mul(builder.add(builder.mul(v, I64(vectors)), I64(i)), I64(lanes)) for i in range(vectors)]
        masks = self._store_masks(places, s["columns"], masked)
        even = [lane // 2 + lane % 2 * lanes for lane in range(lanes)]
        stores = []
        for cell, out_cell in enumerate(self.cell_places(out)):
            if self.segments:
                left = builder.sub(s["columns"], builder.mul(s["cell_outputs"], I64(cell)))
                masks = self._store_masks(places, left, masked)
            values = [builder.load(cells[cell]) for cells in results]
            if vectors == 2:
                values = [simd.shuffle(*values, even), simd.shuffle(*values, [lane + lanes // 2 for lane in even])]
            for value, place, mask in zip(values, places, masks, strict=True):
                stores.append((value, simd.at(out_cell, builder.mul(place, step)), mask))
        sums = self.cleared(simd.zero(), len(stores))
        for total, (value, _, _) in zip(sums, stores, strict=True):
            builder.store(value, total)
        with builder.if_then(self.asked(self.flags, ADD)):
            for total, (value, pointer, mask) in zip(sums, stores, strict=True):
                old = simd.gather(pointer, step, mask) if alone else simd.load(pointer, mask)
                builder.store(builder.fadd(value, old), total)
        for total, (_, pointer, mask) in reversed(list(zip(sums, stores, strict=True))):
            value = self.bounded(builder.load(total), self.bound)
            if alone:
                simd.scatter(value, pointer, step, mask)
            else:
                simd.store(value, pointer, mask)

    def _store_masks(self, places, columns, masked):
        if masked or self.phases == 0:
            return [self.simd.lanes_below(self.builder.sub(columns, place)) for place in places]
        return [None] * len(places)


class _PixelEmitter(RowsEmitter):
    def emit(self, sizes, table, x, zeros, w, out, bias, row, rows, channels, flags):
        simd, builder = self.simd, self.builder
        self.sizes = s = read_sizes(simd, PixelSizes, sizes)
        x, self.zeros, w, out, self.bias = (simd.pointer(p) for p in (x, zeros, w, out, bias))
        table = simd.pointer(table, I64)
        self.row, self.count, self.flags, self.bound = row, rows, flags, self.least(flags)
        lanes = I64(simd.lanes)
        vectors = builder.sdiv(channels, lanes)
        whole = builder.mul(vectors, lanes)
        tail = simd.first_lanes(builder.sub(channels, whole))
        with cgutils.for_range(builder, s["columns"]) as column:
            entry = simd.at(table, builder.mul(column.index, I64(3)))
            x_column = simd.at(x, builder.load(entry))
            w_column = simd.at(w, builder.load(simd.at(entry, 1)))
            taps = builder.load(simd.at(entry, 2))
            out_column = simd.at(out, builder.mul(column.index, s["out_column"]))
            pointers = None if self.rows.taps == 1 else self.row_pointers(x_column, self.zeros, row, None)
            with cgutils.for_range(builder, vectors) as v:
                self._vector(builder.mul(v.index, lanes), x_column, w_column, taps, out_column, pointers, None)
            with builder.if_then(builder.icmp_signed("<", whole, channels)):
                self._vector(whole, x_column, w_column, taps, out_column, pointers, tail)

    def _vector(self, channel, x, w, taps, out, pointers, mask):
        simd, builder, s = self.simd, self.builder, self.sizes
        cells = self.cleared(simd.zero(), self.rows.cells)
        with builder.if_then(self.asked(self.flags, BIAS)):
            start = simd.load(simd.at(self.bias, channel), mask)
            for cell in cells:
                builder.store(start, cell)
        if pointers is not None:
            self._column_taps(cells, pointers, channel, taps, w, mask)
        else:
            with cgutils.for_range(builder, s["groups"]) as group:
                row = builder.add(self.row, builder.mul(group.index, s["group_row"]))
                rows = self.row_pointers(x, self.zeros, row, s["cell_row"])
                w_row = simd.at(w, builder.mul(group.index, s["w_row"]))
                self._column_taps(cells, rows, channel, taps, w_row, mask)
        for cell, place in reversed(list(zip(cells, self.cell_places(out), strict=True))):
            simd.store(self.bounded(builder.load(cell), self.bound), simd.at(place, channel), mask)

    def _column_taps(self, cells, pointers, channel, taps, w, mask):
        simd, builder, s = self.simd, self.builder, self.sizes
        with cgutils.for_range(builder, taps) as tap:
            place = builder.add(channel, builder.mul(tap.index, s["x_tap"]))
            w_tap = simd.at(w, builder.add(channel, builder.mul(tap.index, s["w_tap"])))
            weights = [simd.load(simd.at(w_tap, builder.mul(s["w_row"], I64(r))), mask) for r in range(self.rows.taps)]
            self.multiply(cells, pointers, lambda read, row: simd.load(simd.at(row, place), mask), weights)
