"""The tile of channels-first depthwise convolution: lanes are columns, weights are broadcast.

Vectors at the edges of a plane load with masks, so that nothing outside the given plane or row of zeros is read.
Stride 2 is undone by shuffles of two vectors, larger strides by gathers; a gradient with stride 2 makes both column
phases and interleaves them. How results are stored is compiled in, as masked stores take tens of cycles on AVX2
processors of AMD:

* `WHOLE`: all vectors are whole, the last of a row overlaps the one before;
* `NARROW`: a row is shorter than a vector; cells are stored first to last, so that each overwrites what the one
  before left beyond its row, and only the last one is masked;
* `MASKED`: vectors at the edges are stored with masks; `SCATTERED`: columns lie further apart.

Sizes, offsets and tables count numbers (int64); addresses are integers. Rows are computed `cells` at a time; where
that does not divide their number, which must be `cells` or more, the last ones overlap those before.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastconv._kernels.depthwise_rows import BIAS, Rows, RowsEmitter
from fastconv._kernels.isa import MACHINE
from fastconv._kernels.jit import compile_callback
from fastconv._kernels.simd import I64, integers, read_sizes

WHOLE, NARROW, MASKED, SCATTERED = range(4)

# How far ahead of its rows a tile prefetches: 4 to 16 KB do the same (8x32x112x112: 790 us), 2 KB less (940), the next
# block of rows much less (1330): too late to help, and two thirds of it are already there.
_AHEAD_BYTES = 4096


class PlaneShape(NamedTuple):
    """What is compiled in.

    `load_step` is 1 or 2 or 0 (any: a gather); `phases` column phases are interleaved; `taps` columns of each phase
    are unrolled, their weights in registers, unless 0; with `segments` the cells are pieces of one row; with `summed`
    an output plane sums several input planes.
    """

    rows: Rows
    load_step: int
    phases: int
    taps: tuple[int, int]
    segments: bool
    summed: bool
    stores: int


class PlaneSizes(NamedTuple):
    """The table that `plane_tile` reads, as int64."""

    height: int  # rows and columns of an input plane
    width: int
    x_plane: int  # from what one output plane reads to what the next one does
    out_plane: int
    w_plane: int
    sources: int  # input planes that an output plane sums, and from one to the next
    source_plane: int
    source_w: int
    out_cell: int  # from one cell to the next
    cell_row: int  # taps 1 only: input rows and columns from one cell to the next
    cell_column: int
    groups: int  # taps 1 only: row taps, and the rows between two
    group_row: int
    w_row: int  # from one row tap to the next
    cell_outputs: int  # output columns from one cell to the next: not 0 where cells are segments of one row
    vectors: int  # of each cell and phase
    last: int  # the first column of the last one
    inside_first: int  # vectors whose loads and stores need no mask
    inside_end: int
    columns: int  # output columns, all phases
    load_step: int  # input columns from lane to lane
    store_step: int  # output columns from lane to lane where they are scattered
    taps_0: int  # entries of the tap table of each column phase: (input column, weight)
    taps_1: int
    block: int  # output rows of one pass over the columns: all cells, or 1 for segments
    out_row: int
    row_step: int  # input rows from one output row to the next


@cache
def plane_tile(shape: PlaneShape, itemsize: int):
    """Callback (sizes, table, x, zeros, w, out, bias, row, rows, planes, flags): `rows` rows of `planes` planes.

    `zeros` is a row of zeros; `row` is the first cell's first row.
    """
    (CELLS, TAPS, STRIDE, SPACING), LOAD_STEP, PHASES, (TAPS_0, TAPS_1), *others = shape
    SEGMENTS, SUMMED, STORES = map(int, others)
    ITEMSIZE, BITS = itemsize, MACHINE.vector_bits

    def tile(sizes, table, x, zeros, w, out, bias, row, rows, planes, flags):
        _emit(
            CELLS, TAPS, STRIDE, SPACING, LOAD_STEP, PHASES, TAPS_0, TAPS_1, SEGMENTS, SUMMED, STORES, ITEMSIZE, BITS,
            sizes, table, x, zeros, w, out, bias, row, rows, planes, flags,
        )  # fmt: skip

    return compile_callback(tile, integers(11))


@intrinsic(prefer_literal=True)
def _emit(
    typingctx, CELLS, TAPS, STRIDE, SPACING, LOAD_STEP, PHASES, TAPS_0, TAPS_1, SEGMENTS, SUMMED, STORES, ITEMSIZE,
    BITS, sizes, table, x, zeros, w, out, bias, row, rows, planes, flags,
):  # fmt: skip
    rows_shape = Rows(*(t.literal_value for t in (CELLS, TAPS, STRIDE, SPACING)))
    load_step, phases, *taps = (t.literal_value for t in (LOAD_STEP, PHASES, TAPS_0, TAPS_1))
    segments, summed, stores = (t.literal_value for t in (SEGMENTS, SUMMED, STORES))
    shape = PlaneShape(rows_shape, load_step, phases, (taps[0], taps[1]), bool(segments), bool(summed), stores)
    itemsize = ITEMSIZE.literal_value

    def codegen(context, builder, signature, args):
        _PlaneEmitter(builder, shape, itemsize).emit(*args[13:])
        return context.get_dummy_value()

    return types.void(
        CELLS, TAPS, STRIDE, SPACING, LOAD_STEP, PHASES, TAPS_0, TAPS_1, SEGMENTS, SUMMED, STORES, ITEMSIZE, BITS,
        sizes, table, x, zeros, w, out, bias, row, rows, planes, flags,
    ), codegen  # fmt: skip


class _PlaneEmitter(RowsEmitter):
    def __init__(self, builder, shape: PlaneShape, itemsize):
        super().__init__(builder, shape.rows, itemsize)
        self.shape, self.load_step, self.segments = shape, shape.load_step, shape.segments

    def emit(self, sizes, table, x, zeros, w, out, bias, row, rows, planes, flags):
        simd, builder = self.simd, self.builder
        self.sizes = s = read_sizes(simd, PlaneSizes, sizes)
        s["x_row"] = s["width"]
        x, zeros, w, out, bias = (simd.pointer(p) for p in (x, zeros, w, out, bias))
        self.table, self.zeros = simd.pointer(table, I64), zeros
        start = cgutils.alloca_once_value(builder, simd.zero())
        builder.store(simd.zero(), start)
        self.bound = self.least(flags)
        with cgutils.for_range(builder, planes) as plane:
            with builder.if_then(self.asked(flags, BIAS)):
                builder.store(simd.broadcast(builder.load(simd.at(bias, plane.index))), start)
            x_plane = simd.at(x, builder.mul(plane.index, s["x_plane"]))
            w_plane = simd.at(w, builder.mul(plane.index, s["w_plane"]))
            out_plane = simd.at(out, builder.mul(plane.index, s["out_plane"]))
            self.unrolled = self._load_taps(w_plane) if self.shape.taps[0] else None
            blocks = builder.sdiv(builder.add(rows, builder.sub(s["block"], I64(1))), s["block"])
            with cgutils.for_range(builder, blocks) as block:
                done = self._least(builder.mul(block.index, s["block"]), builder.sub(rows, s["block"]))
                self.row = builder.add(row, builder.mul(done, s["row_step"]))
                out_block = simd.at(out_plane, builder.mul(done, s["out_row"]))
                self._block(x_plane, w_plane, out_block, builder.load(start))

    def _least(self, a, b):
        return self.builder.select(self.builder.icmp_signed("<", a, b), a, b)

    def _load_taps(self, w):
        """(column, weights of its row taps) of every column tap of each phase: they stay in registers."""
        builder, simd, first = self.builder, self.simd, 0
        phases = []
        for count in self.shape.taps[: self.shape.phases]:
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

    def _block(self, x, w, out, start):
        builder, s = self.builder, self.sizes
        shared = self.rows.taps > 1 and not self.shape.summed
        pointers = self.row_pointers(x, self.zeros, self.row, None) if shared else None
        with cgutils.for_range(builder, s["vectors"]) as v:
            inside = builder.and_(
                builder.icmp_signed(">=", v.index, s["inside_first"]),
                builder.icmp_signed("<", v.index, s["inside_end"]),
            )
            place = self._least(builder.mul(v.index, I64(self.simd.lanes)), s["last"])
            with builder.if_else(inside) as (whole, border):
                for branch, masked in ((whole, False), (border, True)):
                    with branch:
                        self._vector(place, x, w, out, pointers, start, masked)

    def _vector(self, place, x, w, out, pointers, start, masked):
        """One vector of all cells and phases: the sums, then their stores."""
        first = self.builder.mul(place, self.sizes["load_step"])
        if not self.segments:
            self._prefetch(x, first)
        results = []
        for phase in range(self.shape.phases):
            cells = self.cleared(start)
            if self.unrolled is not None:
                for offset, weights in self.unrolled[phase]:
                    self._column_tap(cells, pointers, self.builder.add(first, offset), weights, masked)
            else:
                self._sources(cells, pointers, first, phase, x, w, masked)
            results.append(cells)
        self._store_cells(place, out, results, masked)

    def _prefetch(self, x, first):
        """Ask for what comes `_AHEAD_BYTES` after the rows that are read now; planes lie one after the other."""
        builder, s = self.builder, self.sizes
        base = builder.add(
            builder.mul(self.row, s["x_row"]), builder.add(first, I64(_AHEAD_BYTES // self.simd.itemsize))
        )
        for row in range(self.rows.cells * self.rows.stride):
            pointer = self.simd.at(x, builder.add(base, builder.mul(s["x_row"], I64(row))))
            for i in range(max(self.load_step, 1)):
                self.simd.prefetch(self.simd.at(pointer, i * self.simd.lanes))

    def _sources(self, cells, pointers, first, phase, x, w, masked):
        """All products of a phase, of each source and, with `taps` 1, of each row tap in turn."""
        builder, s = self.builder, self.sizes
        with cgutils.for_range(builder, s["sources"] if self.shape.summed else I64(1)) as source:
            x = self.simd.at(x, builder.mul(source.index, s["source_plane"]))
            w = self.simd.at(w, builder.mul(source.index, s["source_w"]))
            if self.rows.taps > 1:
                rows = pointers or self.row_pointers(x, self.zeros, self.row, None)
                self._column_taps(cells, rows, first, phase, w, masked)
            else:
                with cgutils.for_range(builder, s["groups"]) as group:
                    row = builder.add(self.row, builder.mul(group.index, s["group_row"]))
                    w_row = self.simd.at(w, builder.mul(group.index, s["w_row"]))
                    self._column_taps(cells, self._cell_pointers(x, row), first, phase, w_row, masked)

    def _cell_pointers(self, x, row):
        builder, s = self.builder, self.sizes
        pointers = {}
        for cell in range(self.rows.cells):
            number = builder.add(row, builder.mul(s["cell_row"], I64(cell)))
            pointer = self.select_row(x, self.zeros, number)
            pointers[cell * self.rows.stride] = self.simd.at(pointer, builder.mul(s["cell_column"], I64(cell)))
        return pointers

    def _column_taps(self, cells, pointers, first, phase, w, masked):
        builder, simd, s = self.builder, self.simd, self.sizes
        before = s["taps_0"] if phase else I64(0)
        with cgutils.for_range(builder, s[f"taps_{phase}"]) as tap:
            entry = simd.at(self.table, builder.mul(builder.add(before, tap.index), I64(2)))
            column = builder.add(first, builder.load(entry))
            w_tap = simd.at(w, builder.load(simd.at(entry, 1)))
            self._column_tap(cells, pointers, column, self._weights(w_tap), masked)

    def _column_tap(self, cells, pointers, column, weights, masked):
        builder = self.builder
        masks = self._masks(column) if masked and not self.segments else None

        def load(read, pointer):
            own = masks
            if masked and self.segments:
                shift = builder.mul(self.sizes["cell_column"], I64(read // self.rows.stride))
                own = self._masks(builder.add(column, shift))
            return self._load(self.simd.at(pointer, column), own)

        self.multiply(cells, pointers, load, weights)

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

    def _store_cells(self, place, out, results, masked):
        builder, simd, s = self.builder, self.simd, self.sizes
        lanes, stores = simd.lanes, self.shape.stores
        step = s["store_step"] if stores == SCATTERED else I64(1)
        places = [builder.add(builder.mul(place, I64(len(results))), I64(i * lanes)) for i in range(len(results))]
        even = [lane // 2 + lane % 2 * lanes for lane in range(lanes)]
        for cell in range(self.rows.cells):
            to = simd.at(out, builder.mul(s["out_cell"], I64(cell)))
            left = builder.sub(s["columns"], builder.mul(s["cell_outputs"], I64(cell)))
            values = [builder.load(cells[cell]) for cells in results]
            if len(values) == 2:
                values = [simd.shuffle(*values, even), simd.shuffle(*values, [lane + lanes // 2 for lane in even])]
            for value, first in zip(values, places, strict=True):
                value, pointer = simd.raised(value, self.bound), simd.at(to, builder.mul(first, step))
                if stores == SCATTERED:
                    simd.scatter(value, pointer, step, simd.lanes_below(builder.sub(left, first)))
                elif masked and (stores == MASKED or (stores == NARROW and cell == self.rows.cells - 1)):
                    simd.store(value, pointer, simd.lanes_below(builder.sub(left, first)))
                else:
                    simd.store(value, pointer)
