"""The tile of grouped convolution: one vector of filters of some neighbouring output pixels.

    out[p][lane] = bias[lane] + sum over entries, channels j, taps t of
        x[entry][p * stride + t][j of the lane's group] * w[entry, j, t][lane]

`x` holds vectors of channels, pixel after pixel, padding included: `grouped.pack_pixels` makes it. Where several
groups share a vector, channel j of each is spread over the group's lanes by a shuffle; where a group fills vectors
of its own, one channel is broadcast. Taps that lie side by side share what was spread: 10 shuffles instead of 24 for
8 pixels of a 3x3 kernel. An entry is a run of such taps and one vector of channels: (its place in `x`, its place
in `w`, its channels).

Contract: all pointers are addresses as integers, sizes, tables and offsets count numbers (int64). Pixels at or beyond
`columns` are computed from whatever follows in `x`, which must be readable, and not stored. Only the first `lanes`
of `out` and `bias` are touched; `w` is read in whole vectors. `out` may be uninitialised.
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
from fastconv._kernels.simd import I64, Emitter, integers, read_sizes

BIAS, RELU = 1, 2  # flags


class GroupedShape(NamedTuple):
    """What is unrolled: output pixels, taps that lie side by side; x columns from pixel to pixel.

    `width` is the number of channels and filters of a group where several groups share a vector, otherwise 0.
    """

    pixels: int
    taps: int
    stride: int
    width: int

    @property
    def reads(self) -> dict[int, list[tuple[int, int]]]:
        """Column of x -> the (pixel, tap) pairs that use it."""
        reads: dict[int, list[tuple[int, int]]] = {}
        for pixel in range(self.pixels):
            for tap in range(self.taps):
                reads.setdefault(pixel * self.stride + tap, []).append((pixel, tap))
        return dict(sorted(reads.items()))


class GroupedSizes(NamedTuple):
    """The table that the tile reads, as int64."""

    entries: int
    columns: int  # output pixels of a row
    x_row: int  # from one output row to the next
    out_row: int
    out_col: int
    w_channel: int
    w_tap: int


@cache
def grouped_tile(shape: GroupedShape, itemsize: int):
    """Callback (sizes, entries, x, w, out, bias, rows, lanes, flags): `rows` rows of one vector of filters."""
    PIXELS, TAPS, STRIDE, WIDTH = shape
    ITEMSIZE, BITS = itemsize, MACHINE.vector_bits

    def tile(sizes, entries, x, w, out, bias, rows, lanes, flags):
        _emit_tile(PIXELS, TAPS, STRIDE, WIDTH, ITEMSIZE, BITS, sizes, entries, x, w, out, bias, rows, lanes, flags)

    return compile_callback(tile, integers(9))


@intrinsic(prefer_literal=True)
def _emit_tile(
    typingctx, PIXELS, TAPS, STRIDE, WIDTH, ITEMSIZE, BITS, sizes, entries, x, w, out, bias, rows, lanes, flags
):  # fmt: skip
    shape = GroupedShape(*(t.literal_value for t in (PIXELS, TAPS, STRIDE, WIDTH)))
    itemsize = ITEMSIZE.literal_value

    def codegen(context, builder, signature, args):
        _TileEmitter(builder, shape, itemsize).emit(*args[6:])
        return context.get_dummy_value()

    return types.void(
        PIXELS, TAPS, STRIDE, WIDTH, ITEMSIZE, BITS, sizes, entries, x, w, out, bias, rows, lanes, flags
    ), codegen  # fmt: skip


class SpreadEmitter:
    """One channel of every lane's group, as a vector."""

    def __init__(self, builder: ir.IRBuilder, shape: GroupedShape, itemsize: int):
        self.builder, self.shape, self.simd = builder, shape, Emitter(builder, itemsize)

    def spread(self, pixel, channel):
        """From the vector at `pixel`; `channel` is a Python number where several groups share it."""
        if not self.shape.width:
            return self.simd.broadcast(self.builder.load(self.simd.at(pixel, channel)))
        lanes = [lane // self.shape.width * self.shape.width + channel for lane in range(self.simd.lanes)]
        vector = self.simd.load(pixel)
        return self.simd.shuffle(vector, vector, lanes)


class _TileEmitter(SpreadEmitter):
    def emit(self, sizes, entries, x, w, out, bias, rows, lanes, flags):
        simd, builder, shape = self.simd, self.builder, self.shape
        self.sizes = s = read_sizes(simd, GroupedSizes, sizes)
        self.lanes, self.flags = lanes, flags
        x, self.w, out, bias = (simd.pointer(p) for p in (x, w, out, bias))
        self.entries = simd.pointer(entries, I64)
        self.start = self._vector()
        with builder.if_then(self._asked(BIAS)):
            builder.store(simd.load(bias, simd.first_lanes(lanes)), self.start)
        tiles = builder.sdiv(builder.add(s["columns"], I64(shape.pixels - 1)), I64(shape.pixels))
        with cgutils.for_range(builder, rows) as row, cgutils.for_range(builder, tiles) as tile:
            first = builder.mul(tile.index, I64(shape.pixels))
            place_x = builder.add(
                builder.mul(row.index, s["x_row"]), builder.mul(first, I64(shape.stride * simd.lanes))
            )
            place_out = builder.add(builder.mul(row.index, s["out_row"]), builder.mul(first, s["out_col"]))
            cells = self._sums(simd.at(x, place_x))
            self._store(cells, simd.at(out, place_out), builder.sub(s["columns"], first))

    def _vector(self):
        cell = cgutils.alloca_once_value(self.builder, self.simd.zero())
        self.builder.store(self.simd.zero(), cell)
        return cell

    def _asked(self, flag):
        return self.builder.icmp_signed("!=", self.builder.and_(self.flags, I64(flag)), I64(0))

    def _sums(self, x):
        """The pixels' sums: LLVM turns the allocated cells into registers."""
        simd, builder, s = self.simd, self.builder, self.sizes
        cells = [self._vector() for _ in range(self.shape.pixels)]
        for cell in cells:
            builder.store(builder.load(self.start), cell)
        with cgutils.for_range(builder, s["entries"]) as loop:
            entry = simd.at(self.entries, builder.mul(loop.index, I64(3)))
            place, weight, channels = (builder.load(simd.at(entry, i)) for i in range(3))
            x_entry, w_entry = simd.at(x, place), simd.at(self.w, weight)
            if self.shape.width:
                for channel in range(self.shape.width):
                    self._channel(cells, x_entry, channel, w_entry)
                    w_entry = simd.at(w_entry, s["w_channel"])
            else:
                with cgutils.for_range(builder, channels) as channel:
                    w_channel = simd.at(w_entry, builder.mul(channel.index, s["w_channel"]))
                    self._channel(cells, x_entry, channel.index, w_channel)
        return cells

    def _channel(self, cells, x, channel, w):
        """Every sum grows by the products of one channel."""
        simd, builder = self.simd, self.builder
        weights = []
        for _ in range(self.shape.taps):
            weights.append(simd.load(w))
            w = simd.at(w, self.sizes["w_tap"])
        for column, uses in self.shape.reads.items():
            value = self.spread(simd.at(x, column * simd.lanes), channel)
            for pixel, tap in uses:
                total = simd.multiply_add(value, weights[tap], builder.load(cells[pixel]))
                builder.store(simd.compute_here(total), cells[pixel])

    def _store(self, cells, out, count):
        simd, builder = self.simd, self.builder
        with builder.if_then(self._asked(RELU)):
            for cell in cells:
                builder.store(simd.relu(builder.load(cell)), cell)
        whole = builder.icmp_signed("==", self.lanes, I64(simd.lanes))
        present = simd.first_lanes(self.lanes)
        with builder.if_else(whole) as (full, partial):
            for branch, mask in ((full, None), (partial, present)):
                with branch:
                    place = out
                    for pixel, cell in enumerate(cells):
                        with builder.if_then(builder.icmp_signed("<", I64(pixel), count)):
                            simd.store(builder.load(cell), place, mask)
                        place = simd.at(place, self.sizes["out_col"])
