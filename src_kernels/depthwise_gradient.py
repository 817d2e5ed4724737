"""Gradient of the weights of a depthwise convolution.

    dw[c, (r, t)] = sum over images, rows o and columns v of  dout[o][v] * x[o * stride + r * spacing][column(t) + v]

The tiles mirror `depthwise_tiles`: vectors of `cells` neighbouring dout rows meet every input row that they share,
loaded once per column tap; one accumulator per tap (several copies where there are few taps, or the next addition
would wait for the last one). Channels-first, lanes are columns and are added up at the end; channels-last, lanes are
channels. Rows of dout that do not fill a tile are left to a tile of fewer cells: multiplying zeros instead would
spread a NaN of x to taps that do not meet it.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from numba import intp, prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from fastconv._kernels.depthwise_tiles import PixelSizes, PlaneEmitter, PlaneSizes, Rows, RowsEmitter, read_sizes
from fastconv._kernels.isa import MACHINE
from fastconv._kernels.jit import Kernel, compile_callback, jit
from fastconv._kernels.simd import I64, address_of, call_address, integers, next_task

_CHAINS = 8  # independent sums that keep two multiply-adds of four cycles each busy


@cache
def plane_gradient_tile(rows: Rows, load_step: int, column_taps: int, segments: bool, itemsize: int):
    """Callback (sizes, table, x, zeros, dout, partial, row, rows, images): partial[tap, lane] += the sums.

    `column_taps` are summed at once; they divide the number of column taps.
    """
    (CELLS, TAPS, STRIDE, SPACING), LOAD_STEP, COLUMN_TAPS = rows, load_step, column_taps
    SEGMENTS, ITEMSIZE, BITS = int(segments), itemsize, MACHINE.vector_bits

    def tile(sizes, table, x, zeros, dout, partial, row, rows, images):
        _emit_plane_gradient(
            CELLS, TAPS, STRIDE, SPACING, LOAD_STEP, COLUMN_TAPS, SEGMENTS, ITEMSIZE, BITS,
            sizes, table, x, zeros, dout, partial, row, rows, images,
        )  # fmt: skip

    return compile_callback(tile, integers(9))


@cache
def pixel_gradient_tile(rows: Rows, itemsize: int):
    """Callback (sizes, table, x, zeros, dout, partial, row, channels, first, end): partial[tap, channel] += the sums.

    Over the dout columns from `first` to `end`; `table` has (input place of column 0, first and last column) of each
    column tap. `zeros` covers the input columns that they meet.
    """
    CELLS, TAPS, STRIDE, SPACING = rows
    ITEMSIZE, BITS = itemsize, MACHINE.vector_bits

    def tile(sizes, table, x, zeros, dout, partial, row, channels, first, end):
        _emit_pixel_gradient(
            CELLS, TAPS, STRIDE, SPACING, ITEMSIZE, BITS,
            sizes, table, x, zeros, dout, partial, row, channels, first, end,
        )  # fmt: skip

    return compile_callback(tile, integers(10))


@intrinsic(prefer_literal=True)
def _emit_plane_gradient(
    typingctx, CELLS, TAPS, STRIDE, SPACING, LOAD_STEP, COLUMN_TAPS, SEGMENTS, ITEMSIZE, BITS,
    sizes, table, x, zeros, dout, partial, row, rows, images,
):  # fmt: skip
    shape = [t.literal_value for t in (CELLS, TAPS, STRIDE, SPACING)]
    load_step, column_taps, segments, itemsize = (t.literal_value for t in (LOAD_STEP, COLUMN_TAPS, SEGMENTS, ITEMSIZE))

    def codegen(context, builder, signature, args):
        emitter = _PlaneGradientEmitter(builder, Rows(*shape), load_step, 1, (-1, -1), segments, itemsize)
        emitter.emit_gradient(column_taps, *args[9:])
        return context.get_dummy_value()

    return types.void(
        CELLS, TAPS, STRIDE, SPACING, LOAD_STEP, COLUMN_TAPS, SEGMENTS, ITEMSIZE, BITS,
        sizes, table, x, zeros, dout, partial, row, rows, images,
    ), codegen  # fmt: skip


@intrinsic(prefer_literal=True)
def _emit_pixel_gradient(
    typingctx, CELLS, TAPS, STRIDE, SPACING, ITEMSIZE, BITS,
    sizes, table, x, zeros, dout, partial, row, channels, first, end,
):  # fmt: skip
    shape = [t.literal_value for t in (CELLS, TAPS, STRIDE, SPACING)]
    itemsize = ITEMSIZE.literal_value

    def codegen(context, builder, signature, args):
        _PixelGradientEmitter(builder, Rows(*shape), itemsize).emit(*args[6:])
        return context.get_dummy_value()

    return types.void(
        CELLS, TAPS, STRIDE, SPACING, ITEMSIZE, BITS,
        sizes, table, x, zeros, dout, partial, row, channels, first, end,
    ), codegen  # fmt: skip


class _Sums:
    """Accumulators [column tap][row tap], each in as many copies as keep the multiply-adds apart."""

    def __init__(self, emitter: RowsEmitter, column_taps: int):
        self.emitter, self.row_taps = emitter, emitter.rows.taps
        self.copies = min(max(-(-_CHAINS // (column_taps * self.row_taps)), 1), emitter.rows.cells)
        self.cells = [emitter.cleared(emitter.simd.zero(), self.copies * self.row_taps) for _ in range(column_taps)]

    def add(self, column_tap, row_tap, cell, vector, dout):
        simd, builder = self.emitter.simd, self.emitter.builder
        place = self._place(column_tap, row_tap, cell % self.copies)
        builder.store(simd.multiply_add(vector, dout, builder.load(place)), place)

    def _place(self, column_tap, row_tap, copy):
        return self.cells[column_tap][copy * self.row_taps + row_tap]

    def total(self, column_tap, row_tap):
        builder = self.emitter.builder
        total, *others = (builder.load(self._place(column_tap, row_tap, copy)) for copy in range(self.copies))
        for other in others:
            total = builder.fadd(total, other)
        return total


class _PlaneGradientEmitter(PlaneEmitter):
    def emit_gradient(self, column_taps, sizes, table, x, zeros, dout, partial, row, rows, images):
        simd, builder = self.simd, self.builder
        self.sizes = s = read_sizes(simd, PlaneSizes, sizes)
        s["x_row"] = s["width"]
        x, self.zeros, dout, partial = (simd.pointer(p) for p in (x, zeros, dout, partial))
        self.table = simd.pointer(table, I64)
        groups = s["groups"] if self.rows.taps == 1 else I64(1)
        blocks = builder.sdiv(rows, s["block"])
        with cgutils.for_range(builder, groups) as group:
            first_row = builder.add(row, builder.mul(group.index, s["group_row"]))
            with cgutils.for_range(builder, builder.sdiv(s["taps_0"], I64(column_taps))) as step:
                first = builder.mul(step.index, I64(2 * column_taps))
                entries = [simd.at(self.table, builder.add(first, I64(2 * tap))) for tap in range(column_taps)]
                columns = [builder.load(entry) for entry in entries]
                sums = _Sums(self, column_taps)
                with cgutils.for_range(builder, images) as image, cgutils.for_range(builder, blocks) as block:
                    done = builder.mul(block.index, s["block"])
                    x_image = simd.at(x, builder.mul(image.index, s["x_plane"]))
                    place = builder.add(builder.mul(image.index, s["out_plane"]), builder.mul(done, s["out_row"]))
                    block_row = builder.add(first_row, builder.mul(done, s["row_step"]))
                    self._block(sums, columns, x_image, simd.at(dout, place), block_row)
                self._add_to(partial, sums, entries, group.index)

    def _block(self, sums, columns, x, dout, row):
        """One block of rows: all its columns."""
        builder, s = self.builder, self.sizes
        if self.rows.taps == 1:
            pointers = self.cell_pointers(x, row)
        else:
            pointers = self.row_pointers(x, self.zeros, row, None)
        douts = [self.simd.at(dout, builder.mul(s["out_cell"], I64(cell))) for cell in range(self.rows.cells)]
        with cgutils.for_range(builder, s["vectors"]) as v:
            with builder.if_else(self.inside(v.index)) as (whole, border):
                for branch, masked in ((whole, False), (border, True)):
                    with branch:
                        self._vector(sums, columns, pointers, douts, v.index, masked)

    def _vector(self, sums, columns, pointers, douts, v, masked):
        builder, simd, s = self.builder, self.simd, self.sizes
        place = builder.mul(v, I64(simd.lanes))
        left = [builder.sub(s["columns"], place)] * self.rows.cells
        if self.segments:
            left = [builder.sub(left[0], builder.mul(s["cell_outputs"], I64(cell))) for cell in range(self.rows.cells)]
        masks = [simd.lanes_below(count) if masked else None for count in left]
        values = [simd.load(simd.at(d, place), mask) for d, mask in zip(douts, masks, strict=True)]
        first = builder.mul(v, s["vector_step"])
        for column_tap, offset in enumerate(columns):
            load = self.loader(builder.add(first, offset), masked)
            for read, uses in self.rows.reads.items():
                vector = load(read, pointers[read])
                if masked:  # zero times a NaN would be NaN
                    vector = builder.select(masks[uses[0][0]], vector, simd.zero())
                for cell, row_tap in uses:
                    sums.add(column_tap, row_tap, cell, vector, values[cell])

    def _add_to(self, partial, sums, entries, group):
        builder, simd, s = self.builder, self.simd, self.sizes
        for column_tap, entry in enumerate(entries):
            weight = builder.load(simd.at(entry, 1))
            for row_tap in range(self.rows.taps):
                row = group if self.rows.taps == 1 else I64(row_tap)
                tap = builder.add(weight, builder.mul(row, s["w_row"]))
                place = simd.at(partial, builder.mul(tap, I64(simd.lanes)))
                simd.store(builder.fadd(simd.load(place), sums.total(column_tap, row_tap)), place)


class _PixelGradientEmitter(RowsEmitter):
    def emit(self, sizes, table, x, zeros, dout, partial, row, channels, first, end):
        simd, builder = self.simd, self.builder
        self.sizes = read_sizes(simd, PixelSizes, sizes)
        self.table, self.row, self.first, self.end = simd.pointer(table, I64), row, first, end
        self.x, self.zeros, self.dout, self.partial = (simd.pointer(p) for p in (x, zeros, dout, partial))
        lanes = I64(simd.lanes)
        vectors = builder.sdiv(channels, lanes)
        whole = builder.mul(vectors, lanes)
        with cgutils.for_range(builder, vectors) as v:
            self._vector(builder.mul(v.index, lanes), None)
        with builder.if_then(builder.icmp_signed("<", whole, channels)):
            self._vector(whole, simd.first_lanes(builder.sub(channels, whole)))

    def _vector(self, channel, mask):
        simd, builder, s = self.simd, self.builder, self.sizes
        groups = s["groups"] if self.rows.taps == 1 else I64(1)
        dout = simd.at(self.dout, channel)
        douts = [simd.at(dout, builder.mul(s["out_cell"], I64(cell))) for cell in range(self.rows.cells)]
        with cgutils.for_range(builder, groups) as group, cgutils.for_range(builder, s["taps"]) as tap:
            row = builder.add(self.row, builder.mul(group.index, s["group_row"]))
            entry = simd.at(self.table, builder.mul(tap.index, I64(3)))
            low = self._largest(self.first, builder.load(simd.at(entry, 1)))
            high = self._least(self.end, builder.load(simd.at(entry, 2)))
            shift = builder.add(builder.load(entry), builder.mul(low, s["x_column"]))
            step = s["cell_row"] if self.rows.taps == 1 else None
            pointers = self.row_pointers(simd.at(self.x, shift), self.zeros, row, step)
            sums = _Sums(self, 1)
            with cgutils.for_range(builder, high, start=low) as column:
                values = [simd.load(simd.at(d, builder.mul(column.index, s["out_column"])), mask) for d in douts]
                place = builder.add(channel, builder.mul(builder.sub(column.index, low), s["x_column"]))
                for read, uses in self.rows.reads.items():
                    vector = simd.load(simd.at(pointers[read], place), mask)
                    for cell, row_tap in uses:
                        sums.add(0, row_tap, cell, vector, values[cell])
            weight = builder.add(channel, builder.mul(tap.index, s["w_tap"]))
            for row_tap in range(self.rows.taps):
                number = group.index if self.rows.taps == 1 else I64(row_tap)
                to = simd.at(self.partial, builder.add(weight, builder.mul(number, s["w_row"])))
                simd.store(builder.fadd(simd.load(to, mask), sums.total(0, row_tap)), to, mask)

    def _largest(self, a, b):
        return self.builder.select(self.builder.icmp_signed(">", a, b), a, b)

    def _least(self, a, b):
        return self.builder.select(self.builder.icmp_signed("<", a, b), a, b)


class PlaneGradientWork(NamedTuple):
    """Channels-first: a task is a filter and a share of the images."""

    images: int
    filters: int
    repeat: int  # filters of one channel
    splits: int  # shares of the images
    taps: int
    lanes: int
    x_image: int
    x_plane: int
    dout_plane: int
    whole: int  # rows of dout that fill tiles; the rest is one smaller tile
    rows: int
    row_start: int
    row_step: int
    dout_row: int


class PixelGradientWork(NamedTuple):
    """Channels-last: a task is a share of the channels and of the blocks of rows of all images."""

    images: int
    channels: int
    share: int
    splits: int
    x_image: int
    dout_image: int
    cells: int
    rows: int
    columns: int
    run: int  # columns of one call
    row_start: int
    row_step: int
    dout_row: int


@jit
def _gradient_planes(slot, slots, counter, tile, rest, sizes, rest_sizes, table, x, zeros, dout, sums, partial, g):
    """dw of each share of the images -> partial (splits, F, taps); scratch `sums` (slots, taps * lanes)."""
    item = x.itemsize
    own = sums[slot]
    while True:
        task = next_task(counter)
        if task >= g.filters * g.splits:
            return
        split = task // g.filters
        f = task - split * g.filters
        first = split * g.images // g.splits
        count = (split + 1) * g.images // g.splits - first
        own[:] = 0
        source = address_of(x) + (first * g.x_image + f // g.repeat * g.x_plane) * item
        target = address_of(dout) + (first * g.filters + f) * g.dout_plane * item
        if g.whole > 0:
            call_address(
                tile,
                (
                    address_of(sizes),
                    address_of(table),
                    source,
                    address_of(zeros),
                    target,
                    address_of(own),
                    g.row_start,
                    g.whole,
                    count,
                ),
            )
        if g.whole < g.rows:
            call_address(
                rest,
                (
                    address_of(rest_sizes),
                    address_of(table),
                    source,
                    address_of(zeros),
                    target + g.whole * g.dout_row * item,
                    address_of(own),
                    g.row_start + g.whole * g.row_step,
                    g.rows - g.whole,
                    count,
                ),
            )
        for tap in range(g.taps):
            total = x.dtype.type(0)
            lanes = own[tap * g.lanes : (tap + 1) * g.lanes]
            for i in range(lanes.size):
                total += lanes[i]
            partial[split, f, tap] = total


@jit(parallel=True)
def _gradient_planes_parallel(slots, counter, tile, rest, sizes, rest_sizes, table, x, zeros, dout, sums, partial, g):
    for slot in prange(slots):
        _gradient_planes(
            intp(slot), slots, counter, tile, rest, sizes, rest_sizes, table, x, zeros, dout, sums, partial, g
        )


gradient_planes = Kernel(_gradient_planes, _gradient_planes_parallel)


@jit
def _gradient_pixels(slot, slots, counter, tile, rest, sizes, table, x, zeros, dout, partial, g):
    """dw of each share of the rows -> partial (splits, taps, C)."""
    item = x.itemsize
    blocks = (g.rows + g.cells - 1) // g.cells
    total = g.images * blocks
    shares = (g.channels + g.share - 1) // g.share
    while True:
        task = next_task(counter)
        if task >= shares * g.splits:
            return
        split = task // shares
        channel = task % shares * g.share
        channels = min(g.share, g.channels - channel)
        for tap in range(partial.shape[1]):
            partial[split, tap, channel : channel + channels] = 0
        for block in range(split * total // g.splits, (split + 1) * total // g.splits):
            image = block // blocks
            row = (block - image * blocks) * g.cells
            for column in range(0, g.columns, g.run):
                call_address(
                    tile if row + g.cells <= g.rows else rest,
                    (
                        address_of(sizes),
                        address_of(table),
                        address_of(x) + (image * g.x_image + channel) * item,
                        address_of(zeros),
                        address_of(dout) + (image * g.dout_image + row * g.dout_row + channel) * item,
                        address_of(partial[split]) + channel * item,
                        g.row_start + row * g.row_step,
                        channels,
                        column,
                        min(column + g.run, g.columns),
                    ),
                )


@jit(parallel=True)
def _gradient_pixels_parallel(slots, counter, tile, rest, sizes, table, x, zeros, dout, partial, g):
    for slot in prange(slots):
        _gradient_pixels(intp(slot), slots, counter, tile, rest, sizes, table, x, zeros, dout, partial, g)


gradient_pixels = Kernel(_gradient_pixels, _gradient_pixels_parallel)
